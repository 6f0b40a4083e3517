//! Every refusal, with its exact message.
//!
//! A case is a text and the lines that it is refused with; `BASE` is a configuration that is
//! accepted, which most cases follow with what is wrong. The file is called `f`.

use config::Config;

/// Two interfaces, two sites, three nodes, an owner on each of two nodes: 31 lines with them.
const BASE: &str = r#"
[router]
node = "a"
[[interface]]
name = "eth0"
role = "outside"
[[interface]]
name = "eth1"
role = "inside"
[[site]]
name = "fra"
[[site]]
name = "ams"
address = "203.0.113.9"
[[node]]
name = "a"
address = "10.0.0.1"
site = "fra"
[[node]]
name = "b"
address = "10.0.0.2"
site = "fra"
[[node]]
name = "c"
site = "ams"
owner = []
"#;

fn base() -> String {
    let owners = r#"[[owner]]
name = "web"
node = "a"
[[owner]]
name = "dns"
node = "b"
"#;
    BASE.replace("owner = []\n", "") + owners
}

const BASE_LINES: u32 = 31;

fn refusals(text: &str) -> Vec<String> {
    match Config::parse(text, "f") {
        Ok(_) => Vec::new(),
        Err(errors) => errors.to_string().lines().map(str::to_owned).collect(),
    }
}

#[track_caller]
fn refused(text: &str, expected: &[&str]) {
    assert_eq!(refusals(text), expected, "for:\n{text}");
}

/// `tail` behind the base: line numbers in `expected` count from its first line.
#[track_caller]
fn refused_after_base(tail: &str, expected: &[(u32, &str)]) {
    let expected: Vec<String> =
        expected.iter().map(|(line, rest)| format!("f:{}: {rest}", BASE_LINES + line)).collect();
    let text = base() + tail;
    assert_eq!(refusals(&text), expected, "for:\n{text}");
}

/// One interface, with these keys in `[router]`: line 1 is the table, `keys` start on line 2.
#[track_caller]
fn refused_in(table: &str, keys: &str, expected: &[&str]) {
    let text = format!("[{table}]\n{keys}\n[[interface]]\nname = \"eth0\"\nrole = \"both\"\n");
    refused(&text, expected);
}

#[test]
fn the_base_is_accepted() {
    refused(&base(), &[]);
    assert_eq!(base().lines().count(), BASE_LINES as usize);
}

// ---- the file

#[test]
fn a_text_that_is_not_toml() {
    refused("[router\nname = \"a\"\n", &["f:1: unclosed table, expected `]`"]);
    refused("[router]\n[workers]\n[router]\n", &["f:3: duplicate key `router`"]);
    refused("[router]\nname = \"a\"\nname = \"b\"", &["f:3: duplicate key `name`"]);
}

#[test]
fn a_file_that_is_not_there() {
    let errors = Config::load("/nonexistent/sluice.toml").unwrap_err();
    assert_eq!(
        errors.to_string(),
        "/nonexistent/sluice.toml: cannot be read: No such file or directory (os error 2)"
    );
}

#[test]
fn a_file_that_is_not_utf_8() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sluice.toml");
    std::fs::write(&path, b"# \xff\n").unwrap();
    let errors = Config::load(&path).unwrap_err();
    assert_eq!(
        errors.to_string(),
        format!("{}: cannot be read: stream did not contain valid UTF-8", path.display())
    );
}

#[test]
fn unknown_keys_and_other_types() {
    refused_in(
        "router",
        "colour = 1\npoll = 2\nbatch_frames = \"64\"",
        &[
            "f:2: router.colour: unknown field `colour`, expected one of `name`, `node`, `poll`, \
         `on_exit`, `batch_frames`, `frames_per_worker`, `rx_ring_entries`, `control_socket`, `metrics_listen`, \
         `bpffs`, `punt_device`",
            "f:3: router.poll: must be a string",
            "f:4: router.batch_frames: invalid type: string \"64\", expected an integer",
        ],
    );
    refused(
        "router = 5\ninterface = [{ name = \"eth0\", role = \"both\" }]",
        &["f:1: router: invalid type: integer `5`, expected a table"],
    );
    refused_in(
        "router",
        "poll = \"lazy\"",
        &["f:2: router.poll: unknown variant `lazy`, expected `busy` or `adaptive`"],
    );
    refused_after_base(
        "[[egress]]\nprefix = \"192.0.2.1\"\ndefault = { nod = \"a\" }\n",
        &[
            (
                3,
                "egress[0].default.nod: unknown field `nod`, expected one of `node`, `owner`, `site`",
            ),
            (3, "egress[0].default: needs exactly one of `node`, `owner` and `site`; has none"),
        ],
    );
    refused_after_base(
        "[[egress]]\nprefix = \"192.0.2.1\"\ndefault = 5\n",
        &[(
            3,
            "egress[0].default: invalid type: integer `5`, expected \"drop\", or a table with one of \
             `node`, `owner` and `site`",
        )],
    );
    // Ports, or an address, that cannot be read are not all of them: nothing overlaps, and nothing is missing.
    refused_after_base(
        "[[egress]]\nprefix = \"192.0.2.1\"\n[[egress.slice]]\nports = 80\nnode = \"a\"\n\
         [[egress.slice]]\nports = \"0-65535\"\naddress = 7\nnode = \"b\"\n\
         [[egress.slice]]\nports = \"1024-2047\"\nnode = \"b\"\n",
        &[
            (
                4,
                "egress[0].slice[0].ports: invalid type: integer `80`, expected a string such as \"80\" \
                 or \"1024-2047\", or a table with `psid` and `psid_len`",
            ),
            (8, "egress[0].slice[1].address: invalid type: integer `7`, expected a string"),
        ],
    );
}

#[test]
fn errors_without_end() {
    let mut text = String::from("[[interface]]\nname = \"eth0\"\nrole = \"both\"\n[router]\n");
    for number in 0..100 {
        text += &format!("key{number} = 1\n");
    }
    let refusals = refusals(&text);
    assert_eq!(refusals.len(), 65);
    assert_eq!(refusals[64], "f: has more errors; these are the first");
}

// ---- [router] and the other tables of the process

#[test]
fn router_values() {
    for name in ["", "A", "a_b", "a/b", "..", "a23456789012345678901234567890123"] {
        let line = format!("f:2: router.name: \"{name}\" is not a name: 1 to 32 of a-z, 0-9 and -");
        refused_in("router", &format!("name = \"{name}\""), &[&line]);
    }
    refused_in("router", "node = \"x\"", &["f:2: router.node: there is no node \"x\""]);
    refused_in(
        "router",
        "batch_frames = 0",
        &["f:2: router.batch_frames: 0 is out of bounds: 1 to 256"],
    );
    refused_in(
        "router",
        "batch_frames = 257",
        &["f:2: router.batch_frames: 257 is out of bounds: 1 to 256"],
    );
    refused_in(
        "router",
        "frames_per_worker = 4095",
        &["f:2: router.frames_per_worker: 4095 is out of bounds: 4096 to 1048576"],
    );
    refused_in(
        "plugins",
        "budget_cycles_per_packet = 0",
        &["f:2: plugins.budget_cycles_per_packet: 0 is out of bounds: 1 to 1000000"],
    );
    refused_in(
        "router",
        "control_socket = \"run/a.sock\"",
        &["f:2: router.control_socket: \"run/a.sock\" is not an absolute path"],
    );
    refused_in(
        "router",
        &format!("control_socket = \"/{}\"", "a".repeat(107)),
        &["f:2: router.control_socket: the path has 108 bytes; a socket's path has at most 107"],
    );
    refused_in(
        "router",
        "metrics_listen = \"localhost\"",
        &["f:2: router.metrics_listen: \"localhost\" is not an address with a port, such as \
         127.0.0.1:9090"],
    );
    refused_in(
        "router",
        "metrics_listen = \"127.0.0.1:0\"",
        &["f:2: router.metrics_listen: \"127.0.0.1:0\" is not an address with a port, such as \
         127.0.0.1:9090"],
    );
    refused_in(
        "router",
        "bpffs = \"bpf\"",
        &["f:2: router.bpffs: \"bpf\" is not an absolute path"],
    );
    refused_in(
        "router",
        "punt_device = \"sixteen-letters-\"",
        &[
            "f:2: router.punt_device: \"sixteen-letters-\" is not an interface name: 1 to 15 bytes, \
         no blank, no / and no :",
        ],
    );
    refused_in(
        "router",
        "punt_device = \"eth0\"",
        &["f:2: router.punt_device: \"eth0\" is the name of interface[0].name (line 4)"],
    );
}

#[test]
fn too_few_frames_for_the_interfaces() {
    let text = base().replace("[router]\n", "[router]\nframes_per_worker = 8191\n");
    refused(
        &text,
        &["f:3: router.frames_per_worker: 8191 is too few for 2 interfaces: at least 8192"],
    );
    refused(&base().replace("[router]\n", "[router]\nframes_per_worker = 8192\n"), &[]);
    let long = "[router]\nrx_ring_entries = 8192\nframes_per_worker =";
    refused(
        &base().replace("[router]\n", &format!("{long} 32767\n")),
        &["f:4: router.frames_per_worker: 32767 is too few for 2 interfaces: at least 32768"],
    );
    refused(&base().replace("[router]\n", &format!("{long} 32768\n")), &[]);
}

#[test]
fn rings_of_no_such_length() {
    for (value, reason) in [
        ("3000", "3000 is no power of two"),
        ("1024", "1024 is out of bounds: 2048 to 16384"),
        ("32768", "32768 is out of bounds: 2048 to 16384"),
    ] {
        let expected = format!("f:2: router.rx_ring_entries: {reason}");
        refused_in("router", &format!("rx_ring_entries = {value}"), &[&expected]);
    }
}

#[test]
fn worker_cores() {
    refused_in(
        "workers",
        "cores = [0, 1, 0]",
        &["f:2: workers.cores[2]: \"0\" is at workers.cores[0] (line 2) already"],
    );
    refused_in(
        "workers",
        "cores = []",
        &["f:2: workers.cores: missing: at least one core, or \"auto\""],
    );
    refused_in(
        "workers",
        "cores = [-1, 8192]",
        &[
            "f:2: workers.cores[0]: -1 is out of bounds: 0 to 8191",
            "f:2: workers.cores[1]: 8192 is out of bounds: 0 to 8191",
        ],
    );
    refused_in(
        "workers",
        "cores = \"all\"",
        &["f:2: workers.cores: must be \"auto\" or a list of core numbers, not \"all\""],
    );
}

#[test]
fn limits_and_tunnel() {
    refused_in("kernel", "table = 0", &["f:2: kernel.table: 0 is out of bounds: 1 to 4294967295"]);
    refused_in(
        "icmp",
        "errors_per_s = -1\nper_source_prefix_per_s = 1000001",
        &[
            "f:2: icmp.errors_per_s: -1 is out of bounds: 0 to 1000000",
            "f:3: icmp.per_source_prefix_per_s: 1000001 is out of bounds: 0 to 1000000",
        ],
    );
    refused_in(
        "hold",
        "frames_max_per_neighbor = 65\ntimeout_ms = 9",
        &[
            "f:2: hold.frames_max_per_neighbor: 65 is out of bounds: 0 to 64",
            "f:3: hold.timeout_ms: 9 is out of bounds: 10 to 10000",
        ],
    );
    refused_in(
        "hold",
        "frames_max = 8193\n[router]\nframes_per_worker = 16384",
        &["f:2: hold.frames_max: 8193 is more than half of router.frames_per_worker (16384)"],
    );
    refused_in(
        "fragments",
        "packets_max = 32769\nframes_max = 8193\ntimeout_ms = 9\negress_packets_per_s = -1",
        &[
            "f:2: fragments.packets_max: 32769 is out of bounds: 0 to 32768",
            "f:3: fragments.frames_max: 8193 is out of bounds: 0 to 8192",
            "f:4: fragments.timeout_ms: 9 is out of bounds: 10 to 60000",
            "f:5: fragments.egress_packets_per_s: -1 is out of bounds: 0 to 10000000",
        ],
    );
    refused_in(
        "fragments",
        "frames_max = 4097\n[router]\nframes_per_worker = 8192",
        &["f:2: fragments.frames_max: 4097 is more than half of router.frames_per_worker (8192)"],
    );
    refused_in(
        "tunnel",
        "kind = \"vxlan\"\nport = 0",
        &[
            "f:2: tunnel.kind: must be \"gue\", \"gre\" or \"ipip\", not \"vxlan\"",
            "f:3: tunnel.port: 0 is out of bounds: 1 to 65535",
        ],
    );
}

#[test]
fn tunnels() {
    refused_in(
        "tunnel",
        "kind = \"ipip\"\nport = 6080\nkey = 7\nchecksum = true\nsequence = false\ndscp = \"keep\"",
        &[
            "f:3: tunnel.port: means nothing with kind = \"ipip\": only \"gue\" has it",
            "f:4: tunnel.key: means nothing with kind = \"ipip\": only \"gre\" has it",
            "f:5: tunnel.checksum: means nothing with kind = \"ipip\": only \"gre\" has it",
            "f:6: tunnel.sequence: means nothing with kind = \"ipip\": only \"gre\" has it",
            "f:7: tunnel.dscp: must be \"copy\" or \"zero\", not \"keep\"",
        ],
    );
    refused_in(
        "tunnel",
        "kind = \"gre\"\nport = 6080\nkey = -1",
        &[
            "f:3: tunnel.port: means nothing with kind = \"gre\": only \"gue\" has it",
            "f:4: tunnel.key: -1 is out of bounds: 0 to 4294967295",
        ],
    );
    refused_in(
        "tunnel",
        "key = 4294967296",
        &["f:2: tunnel.key: means nothing with kind = \"gue\": only \"gre\" has it"],
    );
    refused_in(
        "tunnel",
        "kind = 47",
        &["f:2: tunnel.kind: invalid type: integer `47`, expected a string"],
    );
}

/// `tunnel` of nodes and sites, and of both ends of one tunnel.
#[test]
fn tunnels_of_nodes_and_sites() {
    let node = |name: &str, last: u8, tunnel: &str| {
        format!(
            "[[node]]\nname = \"{name}\"\naddress = \"10.0.0.{last}\"\nsite = \"fra\"\ntunnel = {tunnel}\n"
        )
    };
    let sites = |fra: &str, ams: &str| {
        format!(
            "[[site]]\nname = \"fra\"\ntunnel = {fra}\n[[site]]\nname = \"ams\"\n\
             address = \"203.0.113.9\"\ntunnel = {ams}\n"
        )
    };
    let head = "[router]\nnode = \"a\"\n[[interface]]\nname = \"e\"\nrole = \"both\"\n";
    let gre = "{ kind = \"gre\", key = 7 }";
    let (equal, gue) = (sites(gre, gre), "{ kind = \"gue\" }");
    let text = format!("{head}{equal}{}{}", node("a", 1, gre), node("b", 2, gre));
    refused(&text, &[]);
    let text = format!(
        "{head}{equal}{}{}",
        node("a", 1, "{ kind = \"gue\", port = 7 }"),
        node("b", 2, "{ kind = \"ipip\", key = 1 }")
    );
    refused(
        &text,
        &[
            "f:17: node[0].tunnel.port: is the same on all nodes: set it in [tunnel]",
            "f:22: node[1].tunnel.key: means nothing with kind = \"ipip\": only \"gre\" has it",
            "f:22: node[1].tunnel: is ipip, but this end of the tunnel has another at node[0].tunnel \
             (line 17): gue",
        ],
    );
    let text = format!(
        "{head}{}{}{}",
        sites("{ kind = \"gre\", checksum = true, sequence = true }", gre),
        node("a", 1, gue),
        node("b", 2, gue)
    );
    refused(
        &text,
        &["f:12: site[1].tunnel: is gre, key 7, but this end of the tunnel has another at \
           site[0].tunnel (line 8): gre, checksum, sequence"],
    );
}

// ---- interfaces and neighbors

#[test]
fn interfaces() {
    refused("", &["f: interface: missing: at least one [[interface]] that the router drives"]);
    refused(
        "[[interface]]\n",
        &[
            "f:1: interface[0].name: missing: the kernel's name of it",
            "f:1: interface[0].role: missing: \"inside\" (towards the owners), \"outside\" (towards \
         the world) or \"both\" (one-armed)",
        ],
    );
    refused_after_base(
        "[[interface]]\nname = \"eth0\"\nrole = \"both\"\n",
        &[(2, "interface[2].name: \"eth0\" is at interface[0].name (line 5) already")],
    );
    refused_after_base(
        "[[interface]]\nname = \"a/b\"\nrole = \"both\"\n",
        &[(
            2,
            "interface[2].name: \"a/b\" is not an interface name: 1 to 15 bytes, no blank, no / and \
         no :",
        )],
    );
    let with = |keys: &str| format!("[[interface]]\nname = \"eth2\"\nrole = \"both\"\n{keys}\n");
    refused_after_base(
        &with("xdp = \"generic\"\nzero_copy = \"force\""),
        &[(
            5,
            "interface[2].zero_copy: zero_copy = \"force\" contradicts xdp = \"generic\": zero-copy \
         needs the driver",
        )],
    );
    refused_after_base(
        &with("source_validation = \"feasible\""),
        &[(
            4,
            "interface[2].source_validation: unknown variant `feasible`, expected one of `off`, \
             `strict`, `loose`, `loose-ignoring-default`",
        )],
    );
    refused_after_base(
        &with("mss_clamp = 535"),
        &[(4, "interface[2].mss_clamp: 535 is out of bounds: 536 to 9960")],
    );
    refused_after_base(
        &with("mss_clamp = \"yes\""),
        &[(
            4,
            "interface[2].mss_clamp: must be \"auto\", \"off\" or a number of bytes, not \"yes\"",
        )],
    );
    let many: String =
        (0..65).map(|n| format!("[[interface]]\nname = \"e{n}\"\nrole = \"both\"\n")).collect();
    refused(&many, &["f:193: interface[64]: too many interfaces: at most 64"]);
}

#[test]
fn neighbors() {
    refused_after_base(
        "[[neighbor]]\n",
        &[
            (1, "neighbor[0].address: missing: the neighbor's IP address"),
            (1, "neighbor[0].interface: missing: the link that it is on"),
            (1, "neighbor[0].mac: missing: the neighbor's link-layer address"),
        ],
    );
    let neighbor = |address: &str, interface: &str, mac: &str| {
        format!(
            "[[neighbor]]\naddress = \"{address}\"\ninterface = \"{interface}\"\nmac = \"{mac}\"\n"
        )
    };
    refused_after_base(
        &neighbor("10.0.0.1x", "eth2", "02:00:00:00:00"),
        &[
            (2, "neighbor[0].address: \"10.0.0.1x\" is not an IP address"),
            (
                3,
                "neighbor[0].interface: there is no interface \"eth2\"; there is \"eth0\", \"eth1\"",
            ),
            (
                4,
                "neighbor[0].mac: \"02:00:00:00:00\" is not a MAC address, such as 02:00:00:00:00:01",
            ),
        ],
    );
    refused_after_base(
        &neighbor("224.0.0.1", "eth0", "01:00:5e:00:00:01"),
        &[
            (2, "neighbor[0].address: 224.0.0.1 is not a unicast address of another machine"),
            (4, "neighbor[0].mac: 01:00:5e:00:00:01 is not the MAC address of one machine"),
        ],
    );
    let twice = neighbor("10.0.0.1", "eth0", "02:00:00:00:00:01")
        + &neighbor("::ffff:10.0.0.1", "eth0", "02:00:00:00:00:02");
    refused_after_base(
        &twice,
        &[(6, "neighbor[1].address: \"10.0.0.1\" is at neighbor[0] (line 32) already")],
    );
}

// ---- routes

#[test]
fn routes() {
    let route = |keys: &str| format!("[[route]]\n{keys}\n");
    refused_after_base(
        &route("via = \"10.0.0.1\""),
        &[(1, "route[0].prefix: missing: the destinations, such as 0.0.0.0/0")],
    );
    refused_after_base(
        &route("prefix = \"10.0.0.0/33\"\nvia = \"10.0.0.1\""),
        &[(
            2,
            "route[0].prefix: \"10.0.0.0/33\" is not an address with a prefix length, such as \
         192.0.2.0/24",
        )],
    );
    refused_after_base(
        &route("prefix = \"10.0.0.1/8\"\nvia = \"10.0.0.1\""),
        &[(
            2,
            "route[0].prefix: 10.0.0.1/8 has bits set behind its length; did you mean 10.0.0.0/8?",
        )],
    );
    refused_after_base(
        &route("prefix = \"10.0.0.0/8\""),
        &[(
            1,
            "route[0]: needs exactly one of `via`, `interface` (on the link) and `type`; has none",
        )],
    );
    let both = "prefix = \"10.0.0.0/8\"\nvia = \"10.0.0.1\"\ntype = \"blackhole\"";
    refused_after_base(
        &route(both),
        &[(
            1,
            "route[0]: needs exactly one of `via`, `interface` (on the link) and `type`; has `via` \
         and `type`",
        )],
    );
    refused_after_base(
        &route("prefix = \"10.0.0.0/8\"\ninterface = \"eth9\""),
        &[(3, "route[0].interface: there is no interface \"eth9\"; there is \"eth0\", \"eth1\"")],
    );
    refused_after_base(
        &route("prefix = \"::/0\"\nvia = \"10.0.0.1\""),
        &[(3, "route[0].via: an IPv6 prefix cannot have the IPv4 next hop 10.0.0.1")],
    );
    refused_after_base(
        &route("prefix = \"::/0\"\nvia = \"fe80::1\""),
        &[(
            3,
            "route[0].via: the next hop fe80::1 is link-local: `interface` must say on which link",
        )],
    );
    refused_after_base(
        &route("prefix = \"::/0\"\nvia = \"::\""),
        &[(3, "route[0].via: :: is not a unicast address of another machine")],
    );
    refused_after_base(
        &route("prefix = \"::/0\"\ntype = \"blackhole\"\nmetric = -1"),
        &[(4, "route[0].metric: -1 is out of bounds: 0 to 4294967295")],
    );
    refused_after_base(
        &route("prefix = \"::/0\"\nvia = \"2001:db8::1\"\nmtu = 1279"),
        &[(4, "route[0].mtu: 1279 is out of bounds: 1280 to 65535")],
    );
    refused_after_base(
        &route("prefix = \"0.0.0.0/0\"\nvia = \"10.0.0.254\"\nmtu = 67"),
        &[(4, "route[0].mtu: 67 is out of bounds: 68 to 65535")],
    );
    let twice = route("prefix = \"::/0\"\nvia = \"2001:db8::1\"").repeat(2);
    refused_after_base(&twice, &[(4, "route[1]: \"::/0\" is at route[0] (line 32) already")]);
    let mixed = route("prefix = \"::/0\"\nvia = \"2001:db8::1\"")
        + &route("prefix = \"::/0\"\ntype = \"prohibit\"");
    refused_after_base(
        &mixed,
        &[(
            4,
            "route[1]: ::/0 with metric 0 leads elsewhere at route[0] (line 32): only next hops form \
         a group",
        )],
    );
}

#[test]
fn route_files_of_a_text() {
    refused(
        "route_files = [\"full.routes\"]\n[[interface]]\nname = \"eth0\"\nrole = \"both\"\n",
        &[
            "f:1: route_files[0]: a configuration that is not read from a file cannot name other files",
        ],
    );
}

// ---- sites, nodes, owners

#[test]
fn names_of_sites_nodes_and_owners() {
    refused_after_base(
        "[[site]]\n[[node]]\n[[owner]]\n",
        &[
            (1, "site[2].name: missing: a name to refer to it by"),
            (2, "node[3].name: missing: a name to refer to it by"),
            (3, "owner[2].node: missing: the [[node]] that it is on"),
            (3, "owner[2].name: missing: a name to refer to it by"),
        ],
    );
    let twice = "[[site]]\nname = \"fra\"\n[[node]]\nname = \"a\"\n[[owner]]\nname = \"web\"\n\
                 node = \"b\"\n";
    refused_after_base(
        twice,
        &[
            (2, "site[2].name: \"fra\" is at site[0].name (line 11) already"),
            (4, "node[3].name: \"a\" is at node[0].name (line 16) already"),
            (6, "owner[2].name: \"web\" is at owner[0].name (line 27) already"),
        ],
    );
    refused_after_base(
        "[[node]]\nname = \"a b\"\nsite = \"par\"\n",
        &[
            (
                2,
                "node[3].name: \"a b\" is not a name: 1 to 64 letters, digits and any of . _ - : /",
            ),
            (3, "node[3].site: there is no site \"par\"; there is \"fra\", \"ams\""),
        ],
    );
    refused_after_base(
        "[[owner]]\nname = \"kernel\"\nnode = \"z\"\n",
        &[
            (2, "owner[2].name: \"kernel\" is reserved: it is the owner that every node has"),
            (3, "owner[2].node: there is no node \"z\"; there is \"a\", \"b\", \"c\""),
        ],
    );
    let many: String = (0..10).map(|n| format!("[[site]]\nname = \"s{n}\"\n")).collect();
    refused_after_base(
        &(many + "[[node]]\nname = \"d\"\nsite = \"x\"\n"),
        &[(
            23,
            "node[3].site: there is no site \"x\"; there is \"fra\", \"ams\", \"s0\", \"s1\", \"s2\", \
         \"s3\", \"s4\", \"s5\", …",
        )],
    );
}

#[test]
fn endpoints() {
    refused_after_base(
        "[[node]]\nname = \"d\"\naddress = \"::ffff:127.0.0.1\"\n",
        &[(3, "node[3].address: 127.0.0.1 is not a unicast address of another machine")],
    );
    refused_after_base(
        "[[node]]\nname = \"d\"\naddress = [\"10.0.0.1\", \"10.0.0.2\"]\n",
        &[(
            3,
            "node[3].address[1]: 10.0.0.2 and 10.0.0.1 are of one family: at most one IPv4 and one \
         IPv6 address",
        )],
    );
}

#[test]
fn deliveries() {
    let owner =
        |deliver: &str| format!("[[owner]]\nname = \"x\"\nnode = \"a\"\ndeliver = {deliver}\n");
    refused_after_base(
        &owner("\"tap\""),
        &[(
            4,
            "owner[2].deliver: must be \"kernel\" or { next_hop = …, interface = … }, not \"tap\"",
        )],
    );
    refused_after_base(
        &owner("{ next_hop = \"10.1.0.2\", interface = \"eth7\" }"),
        &[(
            4,
            "owner[2].deliver.interface: there is no interface \"eth7\"; there is \"eth0\", \"eth1\"",
        )],
    );
    refused_after_base(
        &owner("{ next_hop = \"ten\" }"),
        &[
            (4, "owner[2].deliver.next_hop: \"ten\" is not an IP address"),
            (4, "owner[2].deliver.interface: missing: the link of the workload"),
        ],
    );
    // The links of another node are not known here.
    let elsewhere = owner("{ next_hop = \"10.1.0.2\", interface = \"eth7\" }");
    refused_after_base(&elsewhere.replace("node = \"a\"", "node = \"b\""), &[]);
}

// ---- egress

fn egress(keys: &str) -> String {
    format!("[[egress]]\nprefix = \"192.0.2.1/32\"\n{keys}\n")
}

fn slice(ports: &str, node: &str) -> String {
    format!("[[egress.slice]]\nports = {ports}\nnode = \"{node}\"\n")
}

#[test]
fn egress_prefixes() {
    refused_after_base(
        "[[egress]]\ndefault = \"drop\"\n",
        &[(1, "egress[0].prefix: missing: the shared address, or a prefix of them")],
    );
    refused_after_base(
        "[[egress]]\nprefix = \"192.0.2.1/24\"\ndefault = \"drop\"\n",
        &[(
            2,
            "egress[0].prefix: 192.0.2.1/24 has bits set behind its length; did you mean 192.0.2.0/24?",
        )],
    );
    refused_after_base(
        "[[egress]]\nprefix = \"224.0.0.0/24\"\ndefault = \"drop\"\n",
        &[(
            2,
            "egress[0].prefix: 224.0.0.0/24 cannot be an egress prefix: it is not global unicast space",
        )],
    );
    // Two spellings of one prefix: IPv4-mapped addresses are IPv4.
    let twice = egress("default = \"drop\"")
        + "[[egress]]\nprefix = \"::ffff:192.0.2.1\"\ndefault = \"drop\"\n";
    refused_after_base(
        &twice,
        &[(5, "egress[1].prefix: 192.0.2.1/32 is at egress[0].prefix (line 33) already")],
    );
}

/// The prefix and addresses of it that have slices: as many as the table holds, and one more.
#[test]
fn as_many_egress_prefixes_and_addresses_as_the_table_holds() {
    let most = tables::SliceTable::PREFIXES_MAX;
    let text = |addresses: usize| {
        let slices = (0..addresses as u32).map(|n| {
            let address = std::net::Ipv4Addr::from_bits(0x1400_0000 + n);
            format!("[[egress.slice]]\naddress = \"{address}\"\nports = \"0-9\"\nnode = \"a\"\n")
        });
        let slices: String = slices.collect();
        format!("{}[[egress]]\nprefix = \"20.0.0.0/8\"\ndefault = \"drop\"\n{slices}", base())
    };
    assert_eq!(refusals(&text(most - 1)), [""; 0]);
    let expected = "f: egress: too many egress prefixes and addresses with slices: at most 131072";
    assert_eq!(refusals(&text(most)), [expected]);
}

#[test]
fn egress_without_a_node() {
    let text = base().replace("node = \"a\"\n[[interface]]", "[[interface]]");
    refused(
        &(text + &egress("default = \"drop\"")),
        &["f:2: router.node: missing: which [[node]] this machine is; [[egress]] needs it"],
    );
}

#[test]
fn holders() {
    refused_after_base(
        &egress("default = \"keep\"\nportless = { node = \"z\" }"),
        &[
            (
                3,
                "egress[0].default: must be \"drop\", { node = … }, { owner = … } or { site = … }, \
             not \"keep\"",
            ),
            (4, "egress[0].portless.node: there is no node \"z\"; there is \"a\", \"b\", \"c\""),
        ],
    );
    refused_after_base(
        &egress("default = { node = \"a\", owner = \"web\" }"),
        &[(
            3,
            "egress[0].default: needs exactly one of `node`, `owner` and `site`; has `node` and \
         `owner`",
        )],
    );
    refused_after_base(
        &egress("default = { owner = \"smtp\" }"),
        &[(3, "egress[0].default.owner: there is no owner \"smtp\"; there is \"web\", \"dns\"")],
    );
    refused_after_base(
        &egress("default = { site = \"par\" }"),
        &[(3, "egress[0].default.site: there is no site \"par\"; there is \"fra\", \"ams\"")],
    );
    refused_after_base(
        &egress("default = { site = \"fra\" }"),
        &[(
            3,
            "egress[0].default.site: \"fra\" is the site of this node: name a node, an owner or \
         \"drop\"",
        )],
    );
}

#[test]
fn gaps() {
    refused_after_base(
        &egress(""),
        &[(
            1,
            "egress[0].default: ports 0-65535 of 192.0.2.1/32 have no owner: cover them with slices \
         or set `default`",
        )],
    );
    let slices = slice("\"0-99\"", "a") + &slice("\"101-65535\"", "b");
    refused_after_base(
        &(egress("") + &slices),
        &[(
            1,
            "egress[0].default: ports 100-100 of 192.0.2.1/32 have no owner: cover them with slices \
         or set `default`",
        )],
    );
    // A slice of one address of a prefix leaves the others open.
    let nested = "[[egress]]\nprefix = \"2001:db8::/63\"\n[[egress.slice]]\n\
                  address = \"2001:db8::/64\"\nnode = \"a\"\n";
    refused_after_base(
        nested,
        &[(
            1,
            "egress[0].default: ports 0-65535 of 2001:db8:0:1::/64 have no owner: cover them with \
         slices or set `default`",
        )],
    );
    let sites = "sites = [{ ports = \"0-999\", site = \"fra\" }, { ports = \"2000-65535\", site = \
                 \"ams\" }]";
    refused_after_base(
        &(egress(sites) + &slice("\"0-999\"", "a")),
        &[(
            1,
            "egress[0].default: ports 1000-1999 of 192.0.2.1/32 have no owner: cover them with slices \
         or set `default`",
        )],
    );
}

#[test]
fn port_notations() {
    let case = |ports: &str, reason: &str| {
        let text = egress("default = \"drop\"") + &slice(ports, "a");
        refused_after_base(&text, &[(5, &format!("egress[0].slice[0].ports{reason}"))]);
    };
    case("\"20-10\"", ": port range 20-10 is reversed; did you mean 10-20?");
    case(
        "\"0-65536\"",
        ": \"0-65536\" is not a port range: \"FIRST-LAST\", \"START+COUNT\" or \"PORT\", within 0 \
         to 65535",
    );
    case("{ psid = 64, psid_len = 6 }", ": psid 64 does not fit psid_len 6: 0 to 63");
    case("{ psid = 0, psid_len = 17 }", ": 17 is out of bounds: 0 to 16");
    case("{ psid = 0 }", ".psid_len: missing: the number of bits of the PSID");
    case(
        "{ psid = 3, psid_len = 6, psid_offset = 4 }",
        ": psid_offset 4 is not supported: it makes a port set of several ranges; only \
         psid_offset = 0 (one contiguous range) is",
    );
}

#[test]
fn slice_overlaps_name_both_sides() {
    let named = "[[egress.slice]]\nname = \"web-a\"\nports = \"100-200\"\nnode = \"a\"\n";
    let text = egress("default = \"drop\"") + named + &slice("\"200-300\"", "b");
    refused_after_base(
        &text,
        &[(
            9,
            "egress[0].slice[1].ports: ports 200-300 of 192.0.2.1/32 overlap ports 100-200 of \
         egress[0].slice[0] \"web-a\" (line 35)",
        )],
    );
    // PSIDs 0 of 1 bit and 1 of 2 bits.
    let text = egress("default = \"drop\"")
        + &slice("{ psid = 0, psid_len = 1 }", "a")
        + &slice("{ psid = 1, psid_len = 2 }", "b");
    refused_after_base(
        &text,
        &[(
            8,
            "egress[0].slice[1].ports: ports 16384-32767 of 192.0.2.1/32 overlap ports 0-32767 of \
         egress[0].slice[0] \"192.0.2.1:0-32767\" (line 35)",
        )],
    );
    // One wide range over two others, which do not touch.
    let text = egress("default = \"drop\"")
        + &slice("\"10-20\"", "a")
        + &slice("\"0-65535\"", "a")
        + &slice("\"30-40\"", "b");
    refused_after_base(
        &text,
        &[
            (
                5,
                "egress[0].slice[0].ports: ports 10-20 of 192.0.2.1/32 overlap ports 0-65535 of \
             egress[0].slice[1] \"192.0.2.1:0-65535\" (line 38)",
            ),
            (
                11,
                "egress[0].slice[2].ports: ports 30-40 of 192.0.2.1/32 overlap ports 0-65535 of \
             egress[0].slice[1] \"192.0.2.1:0-65535\" (line 38)",
            ),
        ],
    );
}

#[test]
fn slice_addresses() {
    let with = |prefix: &str, address: &str| {
        format!(
            "[[egress]]\nprefix = \"{prefix}\"\ndefault = \"drop\"\n[[egress.slice]]\nnode = \
             \"a\"\n{address}"
        )
    };
    refused_after_base(
        &with("192.0.2.0/24", ""),
        &[(
            4,
            "egress[0].slice[0].address: missing: which address of 192.0.2.0/24, or which prefix \
         within it",
        )],
    );
    refused_after_base(
        &with("192.0.2.0/24", "address = \"192.0.3.1\"\n"),
        &[(
            6,
            "egress[0].slice[0].address: 192.0.3.1/32 is outside of the egress prefix 192.0.2.0/24",
        )],
    );
    refused_after_base(
        &with("192.0.2.0/24", "address = \"192.0.0.0/16\"\n"),
        &[(
            6,
            "egress[0].slice[0].address: 192.0.0.0/16 is outside of the egress prefix 192.0.2.0/24",
        )],
    );
    refused_after_base(
        &with("192.0.2.0/24", "address = \"2001:db8::1\"\n"),
        &[(
            6,
            "egress[0].slice[0].address: 2001:db8::1/128 is outside of the egress prefix 192.0.2.0/24",
        )],
    );
    let inner = with("192.0.2.0/24", "address = \"192.0.2.1\"\n") + &egress("default = \"drop\"");
    refused_after_base(
        &inner,
        &[(
            6,
            "egress[0].slice[0].address: 192.0.2.1/32 lies in 192.0.2.1/32, which has its own entry \
         at egress[1].prefix (line 39): the slice belongs there",
        )],
    );
    // Nested prefixes are accepted where each slice has one entry that it belongs to.
    let nested = with("192.0.2.0/24", "address = \"192.0.2.2\"\n") + &egress("default = \"drop\"");
    refused_after_base(&nested, &[]);
}

#[test]
fn slice_owners() {
    let with = |keys: &str| egress("default = \"drop\"") + "[[egress.slice]]\n" + keys + "\n";
    refused_after_base(
        &with("ports = \"1-2\""),
        &[(4, "egress[0].slice[0].node: missing: the [[node]] that owns it, or the `owner`")],
    );
    refused_after_base(
        &with("node = \"z\""),
        &[(5, "egress[0].slice[0].node: there is no node \"z\"; there is \"a\", \"b\", \"c\"")],
    );
    refused_after_base(
        &with("node = \"a\"\nowner = \"smtp\""),
        &[(6, "egress[0].slice[0].owner: there is no owner \"smtp\"; there is \"web\", \"dns\"")],
    );
    refused_after_base(
        &with("node = \"a\"\nowner = \"dns\""),
        &[(
            6,
            "egress[0].slice[0].owner: owner \"dns\" is on node \"b\" (owner[1].name (line 30)), not \
         on \"a\"",
        )],
    );
    refused_after_base(
        &with("node = \"a\"\nname = \"a b\""),
        &[(
            6,
            "egress[0].slice[0].name: \"a b\" is not a name: 1 to 64 letters, digits and any of . _ - \
         : /",
        )],
    );
    let twice = with("node = \"a\"\nname = \"x\"\nports = \"1\"")
        + "[[egress.slice]]\nnode = \"a\"\nname = \"x\"\nports = \"2\"\n";
    refused_after_base(
        &twice,
        &[(10, "egress[0].slice[1].name: \"x\" is at egress[0].slice[0].name (line 37) already")],
    );
}

// ---- sites of an egress prefix

#[test]
fn site_ranges() {
    let with = |sites: &str| egress(&format!("default = \"drop\"\nsites = [{sites}]"));
    refused_after_base(
        &with("{ }"),
        &[
            (1, "egress[0].sites: has no range for \"fra\", the site of this node"),
            (4, "egress[0].sites[0].ports: missing: the ports that the site has"),
            (4, "egress[0].sites[0].site: missing: the [[site]] that has the ports"),
        ],
    );
    refused_after_base(
        &with("{ ports = \"0-9\", site = \"fra\" }, { ports = \"9-20\", site = \"ams\" }"),
        &[(4, "egress[0].sites[1]: ports 9-20 overlap ports 0-9 of egress[0].sites[0] (line 35)")],
    );
    refused_after_base(
        &with("{ ports = \"0-9\", site = \"par\" }"),
        &[
            (1, "egress[0].sites: has no range for \"fra\", the site of this node"),
            (4, "egress[0].sites[0].site: there is no site \"par\"; there is \"fra\", \"ams\""),
        ],
    );
    let no_site = base().replacen("address = \"10.0.0.1\"\nsite = \"fra\"\n", "", 1);
    refused(
        &(no_site + &with("{ ports = \"0-9\", site = \"fra\" }")),
        &[
            "f:10: site[0].address: missing: site \"fra\" owns ports, and is sent their packets by \
         tunnel",
            "f:15: node[0].address: missing: \"a\" is this node, and tunnels to others start at its \
         address",
            "f:30: egress[0].sites: node \"a\" has no site, so it is not known which range of `sites` \
         is its own",
        ],
    );
}

#[test]
fn slices_lie_in_the_range_of_their_site() {
    let sites = "default = \"drop\"\nsites = [{ ports = \"0-999\", site = \"fra\" }, { ports = \
                 \"2000-65535\", site = \"ams\" }]";
    let case = |ports: &str, node: &str, reason: &str| {
        let text = egress(sites) + &slice(ports, node);
        refused_after_base(&text, &[(6, &format!("egress[0].slice[0].ports: {reason}"))]);
    };
    case("\"0-1000\"", "a", "port 1000 belongs to no site, but node \"a\" is at \"fra\"");
    case(
        "\"3000-3001\"",
        "b",
        "port 3000 belongs to site \"ams\" by egress[0].sites[1] (line 35), but node \"b\" is at \
         \"fra\"",
    );
    case(
        "\"5\"",
        "c",
        "port 5 belongs to site \"fra\" by egress[0].sites[0] (line 35), but node \"c\" is at \
         \"ams\"",
    );
    let text = egress(sites)
        + "[[egress.slice]]\nports = \"5\"\nnode = \"d\"\n[[node]]\nname = \"d\"\naddress = \
           \"10.0.0.4\"\n";
    refused_after_base(
        &text,
        &[(
            7,
            "egress[0].slice[0].node: node \"d\" has no site and this node is at \"fra\": give the \
         node its site",
        )],
    );
}

#[test]
fn owners_that_cannot_be_reached() {
    let without_b = base().replace("address = \"10.0.0.2\"\n", "");
    let text = without_b + &egress("default = \"drop\"") + &slice("\"1\"", "b");
    refused(
        &text,
        &[
            "f:19: node[1].address: missing: node \"b\" owns ports, and is sent their packets by tunnel",
        ],
    );
    let without_a = base().replace("address = \"10.0.0.1\"\n", "");
    let text = without_a.clone() + &egress("default = \"drop\"") + &slice("\"1\"", "b");
    refused(
        &text,
        &[
            "f:15: node[0].address: missing: \"a\" is this node, and tunnels to others start at its \
         address",
        ],
    );
    let text = without_a + &egress("default = \"drop\"") + &slice("\"1\"", "a");
    refused(
        &text,
        &[
            "f:15: node[0].address: missing: node \"a\" owns ports, and is sent their packets by tunnel",
        ],
    );
    let without_ams = base().replace("address = \"203.0.113.9\"\n", "");
    refused(
        &(without_ams + &egress("default = { node = \"c\" }")),
        &["f:12: site[1].address: missing: site \"ams\" owns ports, and is sent their packets by \
         tunnel"],
    );
    let other_family = base().replace("203.0.113.9", "2001:db8::9");
    refused(
        &(other_family + &egress("default = { site = \"ams\" }")),
        &["f:14: site[1].address: has no address of a family that this node (\"a\") has too"],
    );
}

#[test]
fn an_address_that_is_refused_is_not_missing_as_well() {
    let text =
        base().replace("10.0.0.2", "10.0.0") + &egress("default = \"drop\"") + &slice("\"1\"", "b");
    refused(&text, &["f:21: node[1].address: \"10.0.0\" is not an IP address"]);
}

#[test]
fn an_error_is_one_line_whatever_the_value_is() {
    refused_in(
        "router",
        "name = \"a\\n\\u001b[2J\"",
        &["f:2: router.name: \"a\\n\\u{1b}[2J\" is not a name: 1 to 32 of a-z, 0-9 and -"],
    );
}

// ---- plugins

#[test]
fn plugins() {
    refused_after_base(
        "[[plugin]]\n",
        &[
            (1, "plugin[0].name: missing: a name to refer to it by"),
            (1, "plugin[0].path: missing: the file of its Wasm module"),
            (1, "plugin[0].hook: missing: \"ingress\", \"forward\" or \"egress\""),
        ],
    );
    let with = |keys: &str| {
        format!("[[plugin]]\nname = \"p\"\npath = \"p.wasm\"\nhook = \"ingress\"\n{keys}\n")
    };
    let case = |keys: &str, reason: &str| refused_after_base(&with(keys), &[(5, reason)]);
    case(
        "default = \"pass\"",
        "plugin[0].default: unknown variant `pass`, expected `continue` or `drop`",
    );
    case("budget_us = 50", "plugin[0].budget_us: 50 is out of bounds: 100 to 1000000");
    case("budget_us = 250", "plugin[0].budget_us: 250 is not a multiple of 100");
    case(
        "memory_max_bytes = 100000",
        "plugin[0].memory_max_bytes: 100000 is not a multiple of 65536",
    );
    case(
        "on_trap = \"shut\"",
        "plugin[0].on_trap: unknown variant `shut`, expected one of `open`, `closed`, `last-good`",
    );
    refused_after_base(
        "[plugins]\nstate_dir = \"here\"\n",
        &[(2, "plugins.state_dir: \"here\" is not an absolute path")],
    );
    case("traps_max = 0", "plugin[0].traps_max: 0 is out of bounds: 1 to 1000000");
    case("sha256 = \"ab\"", "plugin[0].sha256: \"ab\" is not a SHA-256: 64 hexadecimal digits");
    case(
        "grants = [\"meter\", \"file\"]",
        "plugin[0].grants[1]: unknown variant `file`, expected one of `meter`, `log`, `random`, `names`, \
         `table`, `quota`, `payload`, `transmit`, `tag`, `class`, `mark`, `mirror`, `dscp`, `mss`, `tcp-options`",
    );
    case(
        "grants = [\"log\", \"log\"]",
        "plugin[0].grants[1]: \"log\" is at plugin[0].grants[0] (line 36) already",
    );
    case("config_file = \"\"", "plugin[0].config_file: the path is empty");
    refused_after_base(
        &with("config = { a = 1 }\nconfig_file = \"p.toml\""),
        &[(
            6,
            "plugin[0].config_file: needs exactly one of `config` and `config_file`, or none; has \
         `config` and `config_file`",
        )],
    );
    refused_after_base(
        &with("").repeat(2),
        &[(7, "plugin[1].name: \"p\" is at plugin[0].name (line 33) already")],
    );
}

// ---- all at once

#[test]
fn all_errors_are_reported_at_once_in_the_order_of_the_file() {
    let text = r#"[router]
name = "Node A"
node = "a"
colour = "blue"
[workers]
cores = [0, 0]
[[interface]]
name = "eth0"
role = "outsid"
[[node]]
name = "a"
address = "10.0.0"
[[egress]]
prefix = "192.0.2.1"
[[egress.slice]]
ports = "9-0"
node = "a"
[[egress.slice]]
ports = "10-30"
node = "b"
[[plugin]]
name = "p"
path = "p.wasm"
"#;
    refused(
        text,
        &[
            "f:2: router.name: \"Node A\" is not a name: 1 to 32 of a-z, 0-9 and -",
            "f:4: router.colour: unknown field `colour`, expected one of `name`, `node`, `poll`, \
         `on_exit`, `batch_frames`, `frames_per_worker`, `rx_ring_entries`, `control_socket`, `metrics_listen`, \
         `bpffs`, `punt_device`",
            "f:6: workers.cores[1]: \"0\" is at workers.cores[0] (line 6) already",
            // `role` was refused as a word, and is not reported as missing as well.
            "f:9: interface[0].role: unknown variant `outsid`, expected one of `inside`, `outside`, \
         `both`",
            "f:12: node[0].address: \"10.0.0\" is not an IP address",
            "f:16: egress[0].slice[0].ports: port range 9-0 is reversed; did you mean 0-9?",
            "f:20: egress[0].slice[1].node: there is no node \"b\"; there is \"a\"",
            "f:21: plugin[0].hook: missing: \"ingress\", \"forward\" or \"egress\"",
        ],
    );
}

#[test]
fn routes_and_tables() {
    refused_in(
        "routes",
        "preference = [\"static\", \"bird\"]",
        &[
            "f:2: routes.preference[1]: must be \"static\", \"kernel\" or \"kernel:PROTOCOL\", not \"bird\"",
        ],
    );
    refused_in(
        "routes",
        "withdraw_hold_ms = 600001",
        &["f:2: routes.withdraw_hold_ms: 600001 is out of bounds: 0 to 600000"],
    );
    refused_in(
        "kernel",
        "tables = [100, 0]",
        &["f:2: kernel.tables[1]: 0 is out of bounds: 1 to 4294967295"],
    );
}

// ---- what plugins name

#[test]
fn next_hops() {
    refused_after_base(
        "[[next_hop]]\n",
        &[
            (1, "next_hop[0].name: missing: a name to refer to it by"),
            (1, "next_hop[0].via: missing: its address, or its `node` or `site`"),
        ],
    );
    let case = |keys: &str, reason: &str| {
        refused_after_base(&format!("[[next_hop]]\nname = \"n\"\n{keys}\n"), &[(3, reason)]);
    };
    case("via = \"10.0.0\"", "next_hop[0].via: \"10.0.0\" is not an IP address");
    case(
        "via = \"224.0.0.1\"",
        "next_hop[0].via: 224.0.0.1 is not a unicast address of another machine",
    );
    case(
        "via = \"fe80::1\"",
        "next_hop[0].via: the next hop fe80::1 is link-local: `interface` must say on which link",
    );
    let case = |keys: &str, reason: &str| {
        let text = format!("[[next_hop]]\nname = \"n\"\nvia = \"10.0.0.9\"\n{keys}\n");
        refused_after_base(&text, &[(4, reason)]);
    };
    case(
        "interface = \"eth9\"",
        "next_hop[0].interface: there is no interface \"eth9\"; there is \"eth0\", \"eth1\"",
    );
    case("mtu = 67", "next_hop[0].mtu: 67 is out of bounds: 68 to 65535");
    case(
        "table = 5",
        "next_hop[0].table: unknown field `table`, expected one of `name`, `via`, `interface`, `mtu`, \
         `node`, `site`",
    );
}

#[test]
fn next_hops_through_tunnels() {
    let case = |keys: &str, expected: &[(u32, &str)]| {
        refused_after_base(&format!("[[next_hop]]\nname = \"n\"\n{keys}\n"), expected);
    };
    case(
        "via = \"10.0.0.9\"\nnode = \"b\"",
        &[(1, "next_hop[0]: needs exactly one of `via`, `node` and `site`; has `via` and `node`")],
    );
    case(
        "node = \"d\"",
        &[(3, "next_hop[0].node: there is no node \"d\"; there is \"a\", \"b\", \"c\"")],
    );
    case(
        "site = \"lon\"",
        &[(3, "next_hop[0].site: there is no site \"lon\"; there is \"fra\", \"ams\"")],
    );
    case(
        "node = \"b\"\ninterface = \"eth0\"\nmtu = 1400",
        &[
            (4, "next_hop[0].interface: only a next hop with `via` has it"),
            (5, "next_hop[0].mtu: only a next hop with `via` has it"),
        ],
    );
    case(
        "site = \"ams\"\n[[next_hop]]\nname = \"m\"\nvia = \"10.0.0.9\"\n\
         [[egress_tag]]\nname = \"t\"\nnext_hops = [\"m\", \"n\"]",
        &[(
            7,
            "egress_tag[0].next_hops: the tunnel of next hop \"n\" cannot share a tag's flows with \
             other next hops",
        )],
    );
    // Nobody can be reached who has no address, and from nowhere.
    let hop = "[[next_hop]]\nname = \"n\"\nnode = \"b\"\n";
    let text = base().replace("address = \"10.0.0.2\"\n", "") + hop;
    let errors = refusals(&text);
    assert!(
        matches!(&errors[..], [only] if only.contains("node[1].address: missing")),
        "{errors:?}"
    );
    let text = base().replace("node = \"a\"\n[[interface]]", "[[interface]]") + hop;
    let errors = refusals(&text);
    let wanted = "router.node: missing: which [[node]] this machine is; a next hop with `node`";
    assert!(errors.iter().any(|error| error.contains(wanted)), "{errors:?}");
}

#[test]
fn egress_tags() {
    refused_after_base(
        "[[egress_tag]]\n",
        &[
            (1, "egress_tag[0].name: missing: a name to refer to it by"),
            (1, "egress_tag[0].next_hops: missing: the names of one or several next hops"),
        ],
    );
    let case = |next_hops: &str, reason: &str| {
        let text = format!(
            "[[next_hop]]\nname = \"n\"\nvia = \"10.0.0.9\"\n\
             [[egress_tag]]\nname = \"t\"\nnext_hops = {next_hops}\n"
        );
        refused_after_base(&text, &[(6, reason)]);
    };
    case("[\"m\"]", "egress_tag[0].next_hops[0]: there is no next hop \"m\"; there is \"n\"");
    case(
        "[\"n\", { next_hop = \"n\" }]",
        "egress_tag[0].next_hops[1].next_hop: \"n\" is at egress_tag[0].next_hops[0] (line 37) \
         already",
    );
    case(
        "[{ next_hop = \"n\", weight = 257 }]",
        "egress_tag[0].next_hops[0].weight: 257 is out of bounds: 1 to 256",
    );
    case(
        "[{ weight = 2 }]",
        "egress_tag[0].next_hops[0].next_hop: missing: the name of a next hop",
    );
}

#[test]
fn classes() {
    let case = |keys: &str, reason: &str| {
        refused_after_base(&format!("[[class]]\nname = \"c\"\n{keys}\n"), &[(3, reason)]);
    };
    case("dscp = 64", "class[0].dscp: 64 is out of bounds: 0 to 63");
    case("dscp = -1", "class[0].dscp: -1 is out of bounds: 0 to 63");
    refused_after_base(
        "[[class]]\nname = \"c\"\n[[class]]\nname = \"c\"\n",
        &[(4, "class[1].name: \"c\" is at class[0].name (line 33) already")],
    );
    refused_after_base(
        "[[class]]\nname = \"a b\"\n",
        &[(
            2,
            "class[0].name: \"a b\" is not a name: 1 to 64 letters, digits and any of . _ - : /",
        )],
    );
}

/// As many as there are numbers, and one more.
#[test]
fn what_plugins_name_is_limited() {
    let entries = |kind: &str, keys: &str, count: usize| -> String {
        (0..count).map(|n| format!("[[{kind}]]\nname = \"n{n}\"\n{keys}\n")).collect()
    };
    let hop = "[[next_hop]]\nname = \"hop\"\nvia = \"10.0.0.9\"\n";
    for (kind, what, keys, most) in [
        ("next_hop", "next hops", "via = \"10.0.0.9\"", 1023),
        ("egress_tag", "egress tags", "next_hops = [\"hop\"]", 1023),
        ("class", "classes", "", 255),
    ] {
        let before = if kind == "egress_tag" { hop } else { "" };
        let text = |count| base() + before + &entries(kind, keys, count);
        assert!(Config::parse(&text(most), "f").is_ok(), "{kind}");
        refused(&text(most + 1), &[&format!("f: {kind}: too many {what}: at most {most}")]);
    }
    let members = |count: usize| {
        let names: Vec<_> = (0..count).map(|n| format!("\"n{n}\"")).collect();
        let hops = entries("next_hop", "via = \"10.0.0.9\"", count);
        format!("{}{hops}[[egress_tag]]\nname = \"t\"\nnext_hops = [{}]", base(), names.join(","))
    };
    assert!(Config::parse(&members(64), "f").is_ok());
    refused(&members(65), &["f: egress_tag[0].next_hops: too many next hops: at most 64"]);
}
