//! What the difference of two configurations leads to.

use config::{Action, Config, PluginChanges, diff};

const BASE: &str = r#"
[router]
name = "n"
node = "a"
[workers]
cores = [0]
[kernel]
[icmp]
[hold]
[tunnel]
[[interface]]
name = "eth0"
role = "outside"
[[interface]]
name = "eth1"
role = "inside"
[[route]]
prefix = "0.0.0.0/0"
via = "10.0.0.254"
[[neighbor]]
address = "10.0.0.254"
interface = "eth0"
mac = "02:00:00:00:00:01"
[[node]]
name = "a"
address = "10.0.0.1"
[[node]]
name = "b"
address = "10.0.0.2"
[[egress]]
prefix = "192.0.2.1"
default = "drop"
[[egress.slice]]
ports = "1000-1999"
node = "a"
[[plugin]]
name = "one"
path = "one.wasm"
hook = "ingress"
[[plugin]]
name = "two"
path = "two.wasm"
hook = "forward"
"#;

fn config(text: &str) -> Config {
    Config::parse(text, "f").unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

/// The difference from [`BASE`] to it with `from` replaced by `to`.
#[track_caller]
fn change(from: &str, to: &str) -> Result<Vec<Action>, String> {
    assert!(BASE.contains(from), "{from}");
    let (old, new) = (config(BASE), config(&BASE.replacen(from, to, 1)));
    diff(&old, &new).map_err(|errors| errors.to_string())
}

#[test]
fn equal_configurations_need_nothing() {
    assert_eq!(change("[router]", "# a comment\n[router]"), Ok(vec![]));
    // Nor does a key that says what its default is.
    assert_eq!(change("[hold]", "[hold]\ntimeout_ms = 1000"), Ok(vec![]));
}

#[test]
fn each_part_has_its_action() {
    let cases = [
        ("[icmp]", "[validation]\ndrop_martians = false\n[icmp]", Action::Validation),
        ("[icmp]", "[validation]\ndrop_source_routes = false\n[icmp]", Action::Validation),
        ("[icmp]", "[icmp]\nerrors_per_s = 7", Action::Icmp),
        ("[hold]", "[punt]\npackets_per_s = 5\n[hold]", Action::Punt),
        ("[hold]", "[hold]\ntimeout_ms = 500", Action::Hold),
        ("[hold]", "[fragments]\negress = false\n[hold]", Action::Fragments),
        ("role = \"outside\"", "role = \"both\"", Action::Roles),
        (
            "role = \"inside\"",
            "role = \"inside\"\nsource_validation = \"strict\"",
            Action::SourceValidation,
        ),
        ("role = \"inside\"", "role = \"inside\"\nmss_clamp = 1400", Action::MssClamp),
        ("02:00:00:00:00:01", "02:00:00:00:00:02", Action::Neighbors),
        ("via = \"10.0.0.254\"", "via = \"10.0.0.254\"\nmetric = 5", Action::Routes),
        ("1000-1999", "1000-2999", Action::Slices),
        ("[tunnel]", "[tunnel]\nkind = \"ipip\"", Action::Slices),
        ("[tunnel]", "[tunnel]\ndscp = \"zero\"", Action::Slices),
        ("\"10.0.0.2\"", "\"10.0.0.2\"\ntunnel = { kind = \"gre\", key = 7 }", Action::Slices),
        ("default = \"drop\"", "default = { node = \"b\" }", Action::Slices),
        ("default = \"drop\"", "default = \"drop\"\nportless = { node = \"b\" }", Action::Slices),
        ("\"10.0.0.2\"", "\"10.0.0.3\"", Action::Slices),
        ("[[egress]]", "[[site]]\nname = \"s\"\n[[egress]]", Action::Slices),
        ("[[egress]]", "[[owner]]\nname = \"o\"\nnode = \"a\"\n[[egress]]", Action::Slices),
        ("[[egress]]", "[[class]]\nname = \"c\"\n[[egress]]", Action::Actions),
        (
            "[[egress]]",
            "[[next_hop]]\nname = \"n\"\nvia = \"10.0.0.9\"\n[[egress]]",
            Action::Actions,
        ),
    ];
    for (from, to, action) in cases {
        assert_eq!(change(from, to), Ok(vec![action]), "{from} -> {to}");
    }
}

#[test]
fn several_changes_come_in_the_order_of_applying() {
    let old = config(BASE);
    let new = config(
        &BASE
            .replace("1000-1999", "5")
            .replace("[icmp]", "[icmp]\nerrors_per_s = 7")
            .replace("prefix = \"0.0.0.0/0\"", "prefix = \"10.0.0.0/8\""),
    );
    assert_eq!(diff(&old, &new), Ok(vec![Action::Icmp, Action::Routes, Action::Slices]));
}

#[test]
fn a_route_file_that_changed_is_a_change_of_routes() {
    let directory = tempfile::tempdir().unwrap();
    let (path, routes) = (directory.path().join("f"), directory.path().join("r"));
    let text = "route_files = [\"r\"]\n[[interface]]\nname = \"eth0\"\nrole = \"both\"\n";
    std::fs::write(&path, text).unwrap();
    std::fs::write(&routes, "192.0.2.0/24 blackhole\n").unwrap();
    let old = Config::load(&path).unwrap();
    assert_eq!(diff(&old, &Config::load(&path).unwrap()), Ok(vec![]));
    std::fs::write(&routes, "192.0.2.0/24 prohibit\n").unwrap();
    assert_eq!(diff(&old, &Config::load(&path).unwrap()), Ok(vec![Action::Routes]));
}

#[test]
fn plugins() {
    let changes = |from: &str, to: &str| match &change(from, to).unwrap()[..] {
        [Action::Plugins(changes)] => changes.clone(),
        other => panic!("{other:?}"),
    };
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let none = PluginChanges::default();
    assert_eq!(
        changes("name = \"two\"", "name = \"three\""),
        PluginChanges { added: names(&["three"]), removed: names(&["two"]), ..none.clone() }
    );
    assert_eq!(
        changes("path = \"one.wasm\"", "path = \"new.wasm\""),
        PluginChanges { changed: names(&["one"]), ..none.clone() }
    );
    let (before, plugins) = BASE.split_at(BASE.find("[[plugin]]").unwrap());
    let (one, two) = plugins.split_at(plugins.rfind("[[plugin]]").unwrap());
    assert_eq!(
        diff(&config(BASE), &config(&format!("{before}{two}{one}"))),
        Ok(vec![Action::Plugins(PluginChanges { reordered: true, ..none.clone() })])
    );
    assert_eq!(
        change("[router]", "[plugins]\nbudget_cycles_per_packet = 200\n[router]"),
        Ok(vec![Action::Plugins(PluginChanges { budget: true, ..none })])
    );
}

#[test]
fn what_needs_a_restart_is_named_with_both_values() {
    let cases = [
        ("name = \"n\"", "name = \"m\"", "router.name", "\"n\"", "\"m\""),
        ("node = \"a\"", "node = \"b\"", "router.node", "\"a\"", "\"b\""),
        ("[router]", "[router]\npoll = \"adaptive\"", "router.poll", "busy", "adaptive"),
        ("[router]", "[router]\non_exit = \"kernel\"", "router.on_exit", "drop", "kernel"),
        ("[router]", "[router]\nbatch_frames = 32", "router.batch_frames", "64", "32"),
        (
            "[router]",
            "[router]\nframes_per_worker = 8192",
            "router.frames_per_worker",
            "16384",
            "8192",
        ),
        (
            "[router]",
            "[router]\ncontrol_socket = \"/x\"",
            "router.control_socket",
            "\"/run/sluice/n.sock\"",
            "\"/x\"",
        ),
        (
            "[router]",
            "[router]\nmetrics_listen = \"[::1]:9\"",
            "router.metrics_listen",
            "nothing",
            "[::1]:9",
        ),
        (
            "[router]",
            "[plugins]\nstate_dir = \"/s\"\n[router]",
            "plugins.state_dir",
            "\"/run/sluice/n.plugins\"",
            "\"/s\"",
        ),
        (
            "[router]",
            "[plugins]\ncompiled_bytes_max = 0\n[router]",
            "plugins.compiled_bytes_max",
            "67108864",
            "0",
        ),
        ("[router]", "[router]\nbpffs = \"/b\"", "router.bpffs", "\"/sys/fs/bpf\"", "\"/b\""),
        ("[router]", "[router]\npunt_device = \"p\"", "router.punt_device", "\"sluice0\"", "\"p\""),
        ("cores = [0]", "cores = [0, 3]", "workers.cores", "[0]", "[0, 3]"),
        ("cores = [0]", "cores = \"auto\"", "workers.cores", "[0]", "auto"),
        ("[kernel]", "[kernel]\nroutes = false", "kernel.routes", "true", "false"),
        ("[kernel]", "[kernel]\ntable = 7", "kernel.tables", "[254]", "[7]"),
        ("[kernel]", "[kernel]\nneighbors = false", "kernel.neighbors", "true", "false"),
        ("[tunnel]", "[tunnel]\nport = 7", "tunnel.port", "6080", "7"),
        (
            "name = \"eth1\"",
            "name = \"eth2\"",
            "interface",
            "[\"eth0\", \"eth1\"]",
            "[\"eth0\", \"eth2\"]",
        ),
        (
            "name = \"eth1\"",
            "name = \"eth1\"\nxdp = \"native\"",
            "interface[1].xdp",
            "auto",
            "native",
        ),
        (
            "name = \"eth1\"",
            "name = \"eth1\"\nzero_copy = \"off\"",
            "interface[1].zero_copy",
            "auto",
            "off",
        ),
    ];
    for (from, to, key, old, new) in cases {
        let Err(errors) = change(from, to) else { panic!("{from} -> {to}") };
        let expected = format!("f: {key}: needs a restart: is {old}, would be {new}");
        assert!(errors.lines().any(|line| line == expected), "{errors}\nexpected: {expected}");
    }
    // One refusal holds back every action, and all refusals are named.
    let text = BASE.replace("1000-1999", "5").replace("[0]", "[1]");
    let text = text.replace("[router]", "[router]\npoll = \"adaptive\"");
    let errors = diff(&config(BASE), &config(&text)).unwrap_err();
    assert_eq!(
        errors.to_string(),
        "f: router.poll: needs a restart: is busy, would be adaptive\nf: workers.cores: needs a \
         restart: is [0], would be [1]"
    );
}
