//! Every example of `configs/` is accepted, and so is what `init` drafts.

use std::path::{Path, PathBuf};

use config::{Config, HostFacts, HostInterface, MssClamp, Role, draft};
use wire::MacAddress;

fn configs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs")
}

fn files_below(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files_below(&path, found) } else { found.push(path) }
    }
}

#[test]
fn every_example_is_accepted() {
    let mut files = Vec::new();
    files_below(&configs(), &mut files);
    let is_toml = |path: &PathBuf| path.extension().is_some_and(|end| end == "toml");
    let examples: Vec<_> = files.into_iter().filter(is_toml).collect();
    assert!(examples.len() >= 6, "{examples:?}");
    for path in examples {
        let checked = Config::load(&path).unwrap_or_else(|errors| panic!("{errors}"));
        tables::SliceTable::build(checked.slice_blocks()).unwrap();
    }
}

/// The two nodes' files are one file, but for `[router]` and the comments.
#[test]
fn the_two_nodes_agree() {
    let [a, b] = ["a", "b"]
        .map(|node| Config::load(configs().join(format!("two-nodes/{node}.toml"))).unwrap());
    assert_eq!(a.nodes, b.nodes);
    assert_eq!(a.interfaces, b.interfaces);
    let names = |checked: &Config| {
        let slices = checked.slices.iter();
        slices.map(|slice| (slice.name.clone(), slice.ports, slice.node)).collect::<Vec<_>>()
    };
    assert_eq!(names(&a), names(&b));
    assert_eq!((a.local_node, b.local_node), (Some(0), Some(1)));
}

#[test]
fn bird_accepts_its_example() {
    let path = configs().join("full-table-bird/bird.conf");
    let found = ["/usr/sbin/bird", "/usr/bin/bird", "/usr/local/sbin/bird"];
    let Some(bird) = found.iter().find(|path| Path::new(path).exists()) else {
        eprintln!("skipped bird_accepts_its_example: BIRD 2 is not installed");
        return;
    };
    let output = std::process::Command::new(bird).arg("-p").arg("-c").arg(path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn host(interfaces: Vec<HostInterface>) -> HostFacts {
    HostFacts { host_name: "Edge_1.example.net".to_owned(), interfaces }
}

fn interface(name: &str, address: &str, has_default_route: bool) -> HostInterface {
    HostInterface {
        name: name.to_owned(),
        mac: MacAddress([2, 0, 0, 0, 0, 1]),
        mtu: 1500,
        addresses: vec![address.parse().unwrap()],
        queues: 2,
        driver: "ena".to_owned(),
        has_default_route,
    }
}

#[test]
fn a_draft_of_two_interfaces() {
    let mut wide = interface("eth1", "10.0.0.11/24", false);
    (wide.mtu, wide.queues) = (9001, 4);
    let facts = host(vec![interface("eth0", "203.0.113.7/24", true), wide]);
    let text = draft(&facts);
    let checked = Config::parse(&text, "f").unwrap_or_else(|errors| panic!("{errors}\n{text}"));
    assert_eq!(checked.router.name, "edge1");
    assert_eq!(checked.local_node, Some(0));
    let interfaces: Vec<_> =
        checked.interfaces.iter().map(|i| (i.name.as_str(), i.role, i.mss_clamp)).collect();
    assert_eq!(
        interfaces,
        [("eth0", Role::Outside, MssClamp::Auto), ("eth1", Role::Inside, MssClamp::Auto)]
    );
    // Tunnels end on the inside.
    assert_eq!(checked.nodes[0].endpoints.ipv4, Some("10.0.0.11".parse().unwrap()));
    assert!(text.contains("#   ethtool -L eth1 combined 2\n"), "{text}");
    assert!(text.contains("#   ip link set dev eth1 mtu 3498\n"), "{text}");
    assert!(!text.contains("ip link set dev eth0"), "{text}");
}

/// What stands in the comments of a draft is a configuration too.
#[test]
fn the_slices_in_the_comments_of_a_draft_are_accepted() {
    let text = draft(&host(vec![interface("eth0", "10.0.0.11/24", true)]));
    let (live, commented) = text.split_at(text.find("# [[node]]").unwrap());
    let uncommented: String = commented
        .lines()
        .map(|line| format!("{}\n", line.trim_start_matches('#').trim_start()))
        .collect();
    let text = format!("{live}{}", uncommented.replace("\"ADDRESS\"", "\"10.0.0.12\""));
    let checked = Config::parse(&text, "f").unwrap_or_else(|errors| panic!("{errors}\n{text}"));
    assert_eq!(checked.interfaces[0].role, Role::Both);
    assert_eq!(checked.slices.len(), 2);
}

#[test]
fn a_draft_without_interfaces_says_what_is_missing() {
    let text = draft(&host(Vec::new()));
    let errors = Config::parse(&text, "f").unwrap_err();
    assert_eq!(
        errors.to_string(),
        "f: interface: missing: at least one [[interface]] that the router drives"
    );
}
