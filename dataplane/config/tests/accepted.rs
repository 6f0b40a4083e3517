//! What accepted texts become.

use std::path::{Path, PathBuf};

use config::{
    Config, Delivery, Fragments, Grant, Hold, Icmp, LocalOwnerId, MssClamp, NodeId, OnExit, OnTrap,
    Owner, Plugin, PluginConfig, PluginDefault, PluginHook, Poll, PortRange, Role, RouteTarget,
    SiteId, SourceValidation, Tunnel, TunnelKind, Validation, Workers, XdpMode, ZeroCopy,
};
use wire::{InterfaceId, MacAddress};

#[track_caller]
fn accepted(text: &str) -> Config {
    Config::parse(text, "/etc/sluice/a.toml").unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

#[test]
fn defaults() {
    let minimal = "[[interface]]\nname = \"eth0\"\nrole = \"both\"\n";
    let checked = accepted(minimal);
    let router = &checked.router;
    assert_eq!(router.name, "default");
    assert_eq!((router.poll, router.on_exit), (Poll::Busy, OnExit::Drop));
    assert_eq!((router.batch_frames, router.frames_per_worker), (64, 16_384));
    assert_eq!(router.rx_ring_entries, 2048);
    // Half of the chunks fill the FILL rings of all interfaces.
    let rings = format!("[router]\nrx_ring_entries = 8192\n{minimal}");
    assert_eq!(accepted(&rings).router.frames_per_worker, 2 * 16_384);
    assert_eq!(router.control_socket, Path::new("/run/sluice/default.sock"));
    assert_eq!(router.metrics_listen, None);
    assert_eq!(router.pin_directory(), Path::new("/sys/fs/bpf/sluice/default"));
    assert_eq!(router.punt_device, "sluice0");
    assert_eq!(checked.workers, Workers::Auto);
    assert!(checked.kernel.routes && checked.kernel.neighbors);
    assert_eq!(checked.kernel.tables, [254]);
    let icmp = Icmp { errors_per_s: 1000, per_source_prefix_per_s: 50 };
    assert_eq!(checked.icmp, icmp);
    assert_eq!(checked.punt.packets_per_s, 250_000);
    let hold = Hold { frames_max_per_neighbor: 8, frames_max: 1024, timeout_ms: 1000 };
    assert_eq!(checked.hold, hold);
    let fragments = Fragments {
        packets_max: 4096,
        frames_max: 512,
        bytes_max: 786_432,
        timeout_ms: 2000,
        egress: true,
        egress_packets_per_s: 20_000,
    };
    assert_eq!(checked.fragments, fragments);
    assert_eq!((checked.tunnel.kind, checked.gue_port), (TunnelKind::Gue, 6080));
    let interface = &checked.interfaces[0];
    assert_eq!(
        (interface.xdp, interface.zero_copy, interface.mss_clamp),
        (XdpMode::Auto, ZeroCopy::Auto, MssClamp::Auto)
    );
    assert_eq!(interface.source_validation, SourceValidation::Off);
    assert_eq!(checked.validation, Validation { drop_martians: true, drop_source_routes: true });
    assert_eq!(checked.owners.len(), 1);
    assert_eq!(checked.owners[0].delivery, Delivery::Kernel);
    assert_eq!((checked.local_node, checked.slices.len()), (None, 0));
    assert_eq!(checked.slice_blocks(), []);
}

#[test]
fn every_key_is_taken() {
    let checked = accepted(
        r#"
[router]
name = "node-a"
node = "a"
poll = "adaptive"
on_exit = "kernel"
batch_frames = 256
frames_per_worker = 65536
rx_ring_entries = 16384
control_socket = "/run/x.sock"
metrics_listen = "[::1]:9090"
bpffs = "/bpf"
punt_device = "tun9"
[workers]
cores = [2, 4]
[kernel]
routes = false
table = 100
neighbors = false
[icmp]
errors_per_s = 0
per_source_prefix_per_s = 2
[punt]
packets_per_s = 30000
[hold]
frames_max_per_neighbor = 0
frames_max = 4096
timeout_ms = 10
[fragments]
packets_max = 0
frames_max = 4096
bytes_max = 1
timeout_ms = 60000
egress = false
egress_packets_per_s = 0
[validation]
drop_martians = false
drop_source_routes = false
[tunnel]
kind = "gue"
port = 5555
[[interface]]
name = "eth0"
role = "outside"
xdp = "native"
zero_copy = "force"
mss_clamp = 1400
source_validation = "loose-ignoring-default"
[[interface]]
name = "eth1"
role = "inside"
xdp = "generic"
zero_copy = "off"
mss_clamp = "off"
source_validation = "strict"
[[route]]
prefix = "0.0.0.0/0"
via = "fe80::1"
interface = "eth0"
mtu = 68
metric = 20
[[route]]
prefix = "10.0.0.0/8"
interface = "eth1"
[[route]]
prefix = "198.51.100.0/24"
type = "unreachable"
[[neighbor]]
address = "fe80::1"
interface = "eth0"
mac = "02:00:00:00:00:09"
[[node]]
name = "a"
address = ["10.0.0.1", "2001:db8::a"]
[[owner]]
name = "web"
node = "a"
deliver = { next_hop = "10.1.0.2", interface = "eth1" }
[[plugin]]
name = "filter"
path = "p/filter.wasm"
hook = "forward"
config = { limit = 5, allow = ["192.0.2.0/24"] }
default = "drop"
on_trap = "open"
budget_us = 100
memory_max_bytes = 65536
traps_max = 1
sha256 = "00ff00000000000000000000000000000000000000000000000000000000000A"
grants = ["log", "tcp-options", "meter", "names", "payload"]
tables = { a = "t/a.txt", b = "/b.txt" }
[[plugin]]
name = "meter"
path = "/opt/meter.wasm"
hook = "egress"
config_file = "meter.toml"
"#,
    );
    let router = &checked.router;
    assert_eq!((router.name.as_str(), router.poll), ("node-a", Poll::Adaptive));
    assert_eq!((router.on_exit, router.batch_frames), (OnExit::Kernel, 256));
    assert_eq!((router.frames_per_worker, router.rx_ring_entries), (65_536, 16_384));
    assert_eq!(router.control_socket, Path::new("/run/x.sock"));
    assert_eq!(router.metrics_listen, Some("[::1]:9090".parse().unwrap()));
    assert_eq!(router.pin_directory(), Path::new("/bpf/sluice/node-a"));
    assert_eq!(router.punt_device, "tun9");
    assert_eq!(checked.workers, Workers::Cores(vec![2, 4]));
    let kernel = &checked.kernel;
    assert_eq!((kernel.routes, &*kernel.tables, kernel.neighbors), (false, &[100][..], false));
    let icmp = Icmp { errors_per_s: 0, per_source_prefix_per_s: 2 };
    assert_eq!(checked.icmp, icmp);
    assert_eq!(checked.punt.packets_per_s, 30_000);
    let hold = Hold { frames_max_per_neighbor: 0, frames_max: 4096, timeout_ms: 10 };
    assert_eq!(checked.hold, hold);
    let fragments = Fragments {
        packets_max: 0,
        frames_max: 4096,
        bytes_max: 1,
        timeout_ms: 60_000,
        egress: false,
        egress_packets_per_s: 0,
    };
    assert_eq!(checked.fragments, fragments);
    assert_eq!(checked.gue_port, 5555);
    let [outside, inside] = &checked.interfaces[..] else { panic!("two interfaces") };
    assert_eq!((outside.role, inside.role), (Role::Outside, Role::Inside));
    assert_eq!((outside.xdp, inside.xdp), (XdpMode::Native, XdpMode::Generic));
    assert_eq!((outside.zero_copy, inside.zero_copy), (ZeroCopy::Force, ZeroCopy::Off));
    assert_eq!((outside.mss_clamp, inside.mss_clamp), (MssClamp::Bytes(1400), MssClamp::Off));
    assert_eq!(
        (outside.source_validation, inside.source_validation),
        (SourceValidation::LooseIgnoringDefault, SourceValidation::Strict)
    );
    assert_eq!(checked.validation, Validation { drop_martians: false, drop_source_routes: false });
    assert_eq!(checked.routes[0].mtu, 68);
    let routes: Vec<_> = checked.static_routes().collect();
    let gateway = "fe80::1".parse().unwrap();
    assert_eq!(
        routes.iter().map(|route| (route.target, route.metric)).collect::<Vec<_>>(),
        [
            (RouteTarget::Via { address: gateway, interface: Some(InterfaceId(0)) }, 20),
            (RouteTarget::OnLink(InterfaceId(1)), 0),
            (RouteTarget::Unreachable, 0),
        ]
    );
    assert_eq!(routes[0].prefix, "0.0.0.0/0".parse().unwrap());
    let neighbor = checked.neighbors[0];
    assert_eq!((neighbor.address, neighbor.interface), (gateway, InterfaceId(0)));
    assert_eq!(neighbor.mac, MacAddress([2, 0, 0, 0, 0, 9]));
    assert_eq!(checked.local_node, Some(0));
    let endpoints = checked.nodes[0].endpoints;
    assert_eq!(endpoints.ipv4, Some("10.0.0.1".parse().unwrap()));
    assert_eq!(endpoints.ipv6, Some("2001:db8::a".parse().unwrap()));
    assert_eq!(checked.owners[1].name, "web");
    let next_hop =
        Delivery::NextHop { address: "10.1.0.2".parse().unwrap(), interface: InterfaceId(1) };
    assert_eq!(checked.owners[1].delivery, next_hop);
    let mut sha256 = [0; 32];
    (sha256[1], sha256[31]) = (0xff, 0x0a);
    let [filter, meter] = &checked.plugins[..] else { panic!("two plugins") };
    let PluginConfig::Inline(inline) = &filter.config else { panic!("inline") };
    assert_eq!(*inline, "limit = 5\nallow = [\"192.0.2.0/24\"]".parse::<toml::Table>().unwrap());
    let expected = Plugin {
        name: "filter".to_owned(),
        path: PathBuf::from("/etc/sluice/p/filter.wasm"),
        hook: PluginHook::Forward,
        config: filter.config.clone(),
        tables: [
            ("a".to_owned(), PathBuf::from("/etc/sluice/t/a.txt")),
            ("b".to_owned(), PathBuf::from("/b.txt")),
        ]
        .into(),
        default: Some(PluginDefault::Drop),
        on_trap: Some(OnTrap::Open),
        budget_us: 100,
        memory_max_bytes: 65_536,
        traps_max: 1,
        sha256: Some(sha256),
        grants: vec![Grant::Meter, Grant::Log, Grant::Names, Grant::Payload, Grant::TcpOptions],
    };
    assert_eq!(*filter, expected);
    assert_eq!(meter.path, Path::new("/opt/meter.wasm"));
    assert_eq!(meter.config, PluginConfig::File(PathBuf::from("/etc/sluice/meter.toml")));
    assert_eq!((meter.default, meter.on_trap), (None, None));
}

/// Two sites and three nodes; the file is the same on each of them, except for `router.node`.
fn shared(node: &str) -> Config {
    accepted(&format!(
        r#"
[router]
node = "{node}"
[[interface]]
name = "eth0"
role = "both"
[[site]]
name = "fra"
address = "203.0.113.1"
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
address = "10.0.0.3"
site = "ams"
[[owner]]
name = "dns"
node = "b"
[[owner]]
name = "web"
node = "a"
deliver = {{ next_hop = "10.0.0.100", interface = "eth0" }}
[[egress]]
prefix = "192.0.2.1"
default = "drop"
sites = [{{ ports = "0+32768", site = "fra" }}, {{ ports = "32768-65535", site = "ams" }}]
[[egress.slice]]
name = "web"
ports = "1024-2047"
owner = "web"
[[egress.slice]]
ports = {{ psid = 2, psid_len = 6 }}
node = "b"
[[egress.slice]]
ports = "40000"
node = "c"
"#
    ))
}

/// (first port, last port, name, owner) of what `checked` makes of 192.0.2.1.
fn ranges(checked: &Config) -> Vec<(u16, u16, String, Owner)> {
    let [block] = &checked.slice_blocks()[..] else { panic!("one block") };
    assert_eq!(block.prefix, "192.0.2.1/32".parse().unwrap());
    assert_eq!((block.rest, block.portless), (Owner::DropByDefault, Owner::DropByDefault));
    let mut ranges: Vec<_> = block
        .ranges
        .iter()
        .map(|range| {
            let name = checked.slice_name(range.slice).unwrap();
            (range.first_port, range.last_port, name, range.owner)
        })
        .collect();
    ranges.sort_by_key(|range| range.0);
    ranges
}

#[test]
fn each_node_sees_the_same_file_from_its_own_place() {
    let web = |owner| (1024, 2047, "web".to_owned(), owner);
    let psid = |owner| (2048, 3071, "192.0.2.1:2048-3071".to_owned(), owner);
    let ams = (32_768, 65_535, "192.0.2.1/32:32768-65535@ams".to_owned(), Owner::Site(SiteId(1)));
    // On a, `web` is the second local owner behind the kernel, since `dns` is on b.
    assert_eq!(
        ranges(&shared("a")),
        [web(Owner::Local(LocalOwnerId(1))), psid(Owner::Node(NodeId(1))), ams.clone()]
    );
    assert_eq!(
        ranges(&shared("b")),
        [web(Owner::Node(NodeId(0))), psid(Owner::Local(LocalOwnerId(0))), ams]
    );
    let fra = (0, 32_767, "192.0.2.1/32:0-32767@fra".to_owned(), Owner::Site(SiteId(0)));
    let own = (40_000, 40_000, "192.0.2.1:40000-40000".to_owned());
    let own = (own.0, own.1, own.2, Owner::Local(LocalOwnerId(0)));
    assert_eq!(ranges(&shared("c")), [fra, own]);
    assert_eq!(shared("a").slice_name(config::SliceId(99)), None);
}

/// Nested slices against the rule in words: of the addresses that hold the destination, the
/// longest one that has the port wins; else the default.
#[test]
fn the_longest_address_that_has_the_port_wins() {
    let checked = accepted(
        r#"
[router]
node = "a"
[[interface]]
name = "eth0"
role = "both"
[[node]]
name = "a"
address = "10.0.0.1"
[[node]]
name = "b"
address = "10.0.0.2"
[[egress]]
prefix = "2001:db8::/48"
default = "drop"
[[egress.slice]]
address = "2001:db8:0:1::/64"
node = "a"
[[egress.slice]]
address = "2001:db8:0:1::5"
ports = "80"
node = "b"
[[egress.slice]]
address = "2001:db8::/48"
ports = "80-81"
node = "b"
[[egress]]
prefix = "2001:db8:0:ff::/64"
default = { node = "b" }
portless = { node = "a" }
"#,
    );
    let table = tables::SliceTable::build(checked.slice_blocks()).unwrap();
    let find = |address: &str, port: u16| {
        let address: std::net::Ipv6Addr = address.parse().unwrap();
        let hit = table.lookup(table.egress6(address.to_bits()).unwrap(), port);
        (hit.slice.and_then(|slice| checked.slice_name(slice)), hit.owner)
    };
    let portless = |address: &str| {
        let address: std::net::Ipv6Addr = address.parse().unwrap();
        table.portless(table.egress6(address.to_bits()).unwrap())
    };
    let (local, b) = (Owner::Local(LocalOwnerId(0)), Owner::Node(NodeId(1)));
    let name = |text: &str| Some(text.to_owned());
    assert_eq!(find("2001:db8:0:1::5", 80), (name("2001:db8:0:1::5:80-80"), b));
    assert_eq!(find("2001:db8:0:1::5", 81), (name("2001:db8:0:1::/64:0-65535"), local));
    assert_eq!(find("2001:db8:0:1::6", 80), (name("2001:db8:0:1::/64:0-65535"), local));
    assert_eq!(find("2001:db8:0:2::6", 80), (name("2001:db8::/48:80-81"), b));
    assert_eq!(find("2001:db8:0:2::6", 82), (None, Owner::DropByDefault));
    // An egress prefix within another has nothing from it.
    assert_eq!(find("2001:db8:0:ff::6", 80), (None, b));
    // Who has all ports has the protocols without ports, unless `portless` says otherwise.
    assert_eq!(portless("2001:db8:0:1::6"), local);
    assert_eq!(portless("2001:db8:0:1::5"), local);
    assert_eq!(portless("2001:db8:0:2::6"), Owner::DropByDefault);
    assert_eq!(portless("2001:db8:0:ff::6"), local);
}

#[test]
fn nodes_without_a_site_are_at_one_and_others_are_reached_through_theirs() {
    let checked = accepted(
        r#"
[router]
node = "a"
[[interface]]
name = "eth0"
role = "both"
[[site]]
name = "ams"
address = ["203.0.113.9", "2001:db8::9"]
[[node]]
name = "a"
address = "10.0.0.1"
[[node]]
name = "b"
address = "10.0.0.2"
[[node]]
name = "c"
site = "ams"
[[egress]]
prefix = "192.0.2.1"
default = { site = "ams" }
[[egress.slice]]
ports = "1-9"
node = "c"
[[egress.slice]]
ports = "10-19"
node = "b"
[[egress.slice]]
ports = "20-29"
node = "a"
owner = "kernel"
"#,
    );
    let owners: Vec<_> = checked.slices.iter().map(|slice| slice.owner).collect();
    let (ams, b) = (Owner::Site(SiteId(0)), Owner::Node(NodeId(1)));
    assert_eq!(owners, [ams, b, Owner::Local(LocalOwnerId(0))]);
    assert_eq!(checked.slice_blocks()[0].rest, ams);
    assert_eq!(checked.slices[0].ports, PortRange::new(1, 9).unwrap());
    let outer = checked.nodes[0].endpoints.outer_to(&checked.sites[0].endpoints);
    assert_eq!(outer, Some(("10.0.0.1".parse().unwrap(), "203.0.113.9".parse().unwrap())));
}

#[test]
fn a_lone_node_needs_no_address_and_no_default() {
    let checked = accepted(
        "[router]\nnode = \"a\"\n[[interface]]\nname = \"eth0\"\nrole = \"both\"\n[[node]]\nname = \
         \"a\"\n[[egress]]\nprefix = \"192.0.2.0/31\"\n[[egress.slice]]\naddress = \
         \"192.0.2.0\"\nnode = \"a\"\n[[egress.slice]]\naddress = \"192.0.2.1\"\nnode = \"a\"\n",
    );
    assert_eq!(checked.slices.len(), 2);
}

#[test]
fn several_next_hops_of_one_prefix_are_accepted() {
    let checked = accepted(
        "[[interface]]\nname = \"eth0\"\nrole = \"both\"\n[[route]]\nprefix = \
         \"::ffff:0.0.0.0/96\"\nvia = \"10.0.0.1\"\n[[route]]\nprefix = \"0.0.0.0/0\"\nvia = \
         \"10.0.0.2\"\n",
    );
    assert_eq!(checked.routes.len(), 2);
    assert!(checked.routes.iter().all(|route| route.prefix == "0.0.0.0/0".parse().unwrap()));
}

/// A node's `tunnel` is that of every tunnel which it is an end of; both ends find the same one.
#[test]
fn both_ends_of_a_tunnel_agree() {
    let text = |own: &str| {
        format!(
            r#"
[router]
node = "{own}"
[tunnel]
kind = "ipip"
dscp = "zero"
port = 5555
[[interface]]
name = "eth0"
role = "both"
[[node]]
name = "a"
address = "10.0.0.1"
[[node]]
name = "b"
address = "10.0.0.2"
tunnel = {{ kind = "gre", key = 7, checksum = true }}
[[node]]
name = "c"
address = "10.0.0.3"
[[node]]
name = "d"
address = "fd00::4"
tunnel = {{ dscp = "copy" }}
"#
        )
    };
    let gre = config::Gre { key: Some(7), checksum: true, sequence: false };
    let gre = Tunnel { kind: TunnelKind::Gre(gre), copies_dscp: true };
    let ipip = Tunnel { kind: TunnelKind::Ipip, copies_dscp: false };
    let of = |own: &str, far: usize| {
        let checked = Config::parse(&text(own), "f").expect("a sound configuration");
        checked.tunnel_to_node(&checked.nodes[far])
    };
    assert_eq!((of("a", 1), of("b", 0)), (gre, gre));
    assert_eq!((of("a", 2), of("c", 0)), (ipip, ipip));
    assert_eq!((of("c", 1), of("b", 2)), (gre, gre));
    assert_eq!(of("a", 3), Tunnel::default());
    // Node d has no address that the others could reach, and so no tunnel.
    let checked = Config::parse(&text("a"), "f").expect("a sound configuration");
    assert_eq!(checked.tunnels().collect::<Vec<_>>(), [gre, ipip]);
    assert_eq!(checked.gue_port, 5555, "node d has GUE");
}

#[test]
fn what_plugins_name() {
    let checked = Config::parse(
        r#"
[router]
node = "a"
[[interface]]
name = "eth0"
role = "both"
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
[[next_hop]]
name = "scrubber"
via = "192.0.2.9"
[[next_hop]]
name = "uplink-b"
via = "fe80::2"
interface = "eth0"
mtu = 1280
[[next_hop]]
name = "other-node"
node = "b"
[[next_hop]]
name = "other-site"
site = "ams"
[[next_hop]]
name = "node-of-other-site"
node = "c"
[[next_hop]]
name = "this-node"
node = "a"
[[next_hop]]
name = "this-site"
site = "fra"
[[egress_tag]]
name = "cheap"
next_hops = ["scrubber", { next_hop = "uplink-b", weight = 256 }]
[[class]]
name = "voice"
dscp = 46
[[class]]
name = "bulk"
"#,
        "f",
    )
    .expect("a sound configuration");
    let hop = |name: &str, way| config::NextHop { name: name.to_owned(), way };
    let link = |via: &str, interface, mtu| {
        let via = via.parse().unwrap();
        config::Way::Link { via, interface, mtu }
    };
    let ams = config::Way::Site(config::SiteId(1));
    assert_eq!(
        checked.next_hops,
        [
            hop("scrubber", link("192.0.2.9", None, 0)),
            hop("uplink-b", link("fe80::2", Some(wire::InterfaceId(0)), 1280)),
            hop("other-node", config::Way::Node(config::NodeId(1))),
            hop("other-site", ams),
            hop("node-of-other-site", ams),
            hop("this-node", config::Way::Here),
            hop("this-site", config::Way::Here),
        ]
    );
    let members = vec![
        config::TagMember { next_hop: 0, weight: 1 },
        config::TagMember { next_hop: 1, weight: 256 },
    ];
    assert_eq!(checked.egress_tags, [config::EgressTag { name: "cheap".to_owned(), members }]);
    let class = |name: &str, dscp| config::Class { name: name.to_owned(), dscp };
    assert_eq!(checked.classes, [class("voice", Some(46)), class("bulk", None)]);
}
