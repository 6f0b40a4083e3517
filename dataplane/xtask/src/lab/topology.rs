//! [`Topology`]: the namespaces of the lab, with links, addresses, routes and forwarding, but without
//! a router: plain Linux.

use anyhow::Result;

use super::link::{End, Link};
use super::namespace::Namespace;
use super::plan::{
    BY_NODE_A, BY_NODE_B, HOST_A, INET1, INET2, MTU, NODE_A, NODE_A_LAN, NODE_B, Pair, QUEUES,
    SERVER, SERVER2, SHARED, TRANSIT, UNDERLAY_MTU,
};
use super::{GROUP, link};

/// Tables of inet2 by which a source address chooses a node.
const BY_SOURCE: [(u8, Pair, Pair); 2] = [(21, BY_NODE_A, NODE_A), (22, BY_NODE_B, NODE_B)];

/// The namespaces of the figure in [`super`]. They are deleted when this is dropped.
#[derive(Debug)]
pub struct Topology {
    /// The exchange: a bridge.
    pub ix: Namespace,
    /// Half of the Internet.
    pub inet1: Namespace,
    /// The other half.
    pub inet2: Namespace,
    /// Two links: `wan0` to the exchange, `lan0` to its workload.
    pub node_a: Namespace,
    /// One link, `wan0`; its workload runs on the node itself.
    pub node_b: Namespace,
    /// The workload of node a.
    pub host_a: Namespace,
}

impl Topology {
    /// Builds it.
    ///
    /// # Errors
    /// When the kernel refuses a part of it.
    pub fn build() -> Result<Self> {
        let topology = Self {
            ix: Namespace::create(GROUP, "ix")?,
            inet1: namespace("inet1")?,
            inet2: namespace("inet2")?,
            node_a: namespace("node-a")?,
            node_b: namespace("node-b")?,
            host_a: namespace("host-a")?,
        };
        topology.connect()?;
        topology.set_up_internet(&topology.inet1, &[SERVER])?;
        topology.set_up_internet(&topology.inet2, &[SERVER2, BY_NODE_A, BY_NODE_B])?;
        topology.choose_nodes_by_source()?;
        topology.set_up_nodes()?;
        topology.set_up_host()?;
        Ok(topology)
    }

    /// All namespaces.
    pub fn all(&mut self) -> [&mut Namespace; 6] {
        let Self { ix, inet1, inet2, node_a, node_b, host_a } = self;
        [ix, inet1, inet2, node_a, node_b, host_a]
    }

    /// Changes the MTU of the nodes' links to the exchange, at both ends.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_underlay_mtu(&self, mtu_bytes: u32) -> Result<()> {
        let mtu = mtu_bytes.to_string();
        for node in [&self.node_a, &self.node_b] {
            node.ip(&["link", "set", "wan0", "mtu", &mtu])?;
            self.ix.ip(&["link", "set", node.role(), "mtu", &mtu])?;
        }
        Ok(())
    }

    /// Makes inet2 forget what it has learnt of path MTUs towards single nodes, by giving it those
    /// routes anew.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn forget_path_mtu(&self) -> Result<()> {
        for (table, _, node) in BY_SOURCE {
            for (family, shared) in ["-4", "-6"].into_iter().zip(SHARED.both()) {
                let route = format!("{shared} via {} table {table}", node.like(shared));
                // One that is replaced by its equal keeps what is known of it.
                let _ = ip(&self.inet2, &format!("{family} route del {route}"));
                ip(&self.inet2, &format!("{family} route add {route}"))?;
                ip(&self.inet2, &format!("{family} route flush cache"))?;
            }
        }
        Ok(())
    }

    /// Verifies every link: queues, MTU, state, and that no offload is on.
    ///
    /// # Errors
    /// What is wrong with the first link that is not as it should be.
    pub fn verify(&self) -> Result<String> {
        let narrow = Link { queues: QUEUES, mtu_bytes: MTU };
        let wide = Link { queues: QUEUES, mtu_bytes: UNDERLAY_MTU };
        let ends = [
            (narrow, &self.inet1, "eth0"),
            (narrow, &self.ix, "inet1"),
            (narrow, &self.inet2, "eth0"),
            (narrow, &self.ix, "inet2"),
            (wide, &self.node_a, "wan0"),
            (wide, &self.ix, "node-a"),
            (wide, &self.node_b, "wan0"),
            (wide, &self.ix, "node-b"),
            (wide, &self.node_a, "lan0"),
            (wide, &self.host_a, "eth0"),
        ];
        for (link, namespace, interface) in ends {
            link.verify(namespace, interface)?;
        }
        Ok(format!("{} links of {QUEUES} queues, no offloads", ends.len() / 2))
    }

    fn connect(&self) -> Result<()> {
        // A bridge needs no addresses, and IPv6 would make it speak.
        self.ix.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
        // Multicast snooping would hold neighbor discovery back until it has seen queries.
        let bridge = ["link", "add", "br0", "type", "bridge"];
        self.ix.ip(&[&bridge[..], &["stp_state", "0", "mcast_snooping", "0"]].concat())?;
        self.ix.ip(&["link", "set", "br0", "up"])?;
        let stations = [
            (&self.inet1, "eth0", INET1, MTU),
            (&self.inet2, "eth0", INET2, MTU),
            (&self.node_a, "wan0", NODE_A, UNDERLAY_MTU),
            (&self.node_b, "wan0", NODE_B, UNDERLAY_MTU),
        ];
        for (namespace, interface, addresses, mtu_bytes) in stations {
            let [v4, v6] = on_link(addresses);
            Link { queues: QUEUES, mtu_bytes }.connect(
                &End::new(namespace, interface, &[&v4, &v6]),
                &End::new(&self.ix, namespace.role(), &[]),
            )?;
            self.ix.ip(&["link", "set", namespace.role(), "master", "br0"])?;
        }
        link::switch_offloads_off(&self.ix, "br0")?;
        let [node4, node6] = on_link(NODE_A_LAN);
        let [host4, host6] = on_link(HOST_A);
        Link { queues: QUEUES, mtu_bytes: UNDERLAY_MTU }.connect(
            &End::new(&self.node_a, "lan0", &[&node4, &node6]),
            &End::new(&self.host_a, "eth0", &[&host4, &host6]),
        )
    }

    /// A host that has its servers' addresses, and takes all that comes in for any other address,
    /// too (Linux calls it AnyIP). Packets to the shared addresses leave for either node, by flow.
    fn set_up_internet(&self, inet: &Namespace, servers: &[Pair]) -> Result<()> {
        inet.sysctl("net/ipv4/fib_multipath_hash_policy", "1")?;
        inet.sysctl("net/ipv6/fib_multipath_hash_policy", "1")?;
        for server in servers {
            add_to_loopback(inet, *server)?;
        }
        let first = servers[0];
        for (family, any, shared, from, node_a, node_b) in [
            (
                "-4",
                "0.0.0.0/0",
                SHARED.both()[0],
                first.both()[0],
                NODE_A.both()[0],
                NODE_B.both()[0],
            ),
            ("-6", "::/0", SHARED.both()[1], first.both()[1], NODE_A.both()[1], NODE_B.both()[1]),
        ] {
            inet.ip(&[family, "route", "add", "local", any, "dev", "lo", "table", "100"])?;
            inet.ip(&[family, "rule", "add", "pref", "100", "iif", "eth0", "lookup", "100"])?;
            let words = format!(
                "{family} route add {shared} src {from} nexthop via {node_a} nexthop via {node_b}"
            );
            ip(inet, &words)?;
        }
        Ok(())
    }

    /// On inet2 the source address chooses the node that gets a packet for the shared address, so
    /// that a test can send to the one that it wants. Transit goes by node b.
    fn choose_nodes_by_source(&self) -> Result<()> {
        for (table, source, _) in BY_SOURCE {
            for from in source.both() {
                let family = if from.is_ipv4() { "-4" } else { "-6" };
                ip(&self.inet2, &format!("{family} rule add pref 50 from {from} lookup {table}"))?;
            }
        }
        self.forget_path_mtu()?;
        for (family, transit) in ["-4", "-6"].into_iter().zip(TRANSIT.both()) {
            let via = NODE_B.like(transit);
            ip(&self.inet2, &format!("{family} route add {transit} via {via}"))?;
        }
        Ok(())
    }

    fn set_up_nodes(&self) -> Result<()> {
        for node in [&self.node_a, &self.node_b] {
            node.sysctl("net/ipv4/ip_forward", "1")?;
            node.sysctl("net/ipv6/conf/all/forwarding", "1")?;
        }
        let to_servers = |from: &str, rest: &str| {
            [
                format!(
                    "-4 route add 198.51.100.10/32 via {}{}{rest}",
                    INET1.v4,
                    source(from, SHARED.v4)
                ),
                format!(
                    "-4 route add 198.51.100.20/30 via {}{}{rest}",
                    INET2.v4,
                    source(from, SHARED.v4)
                ),
                format!(
                    "-6 route add 2001:db8:ffff::10/128 via {}{}{rest}",
                    INET1.v6,
                    source(from, SHARED.v6)
                ),
                format!(
                    "-6 route add 2001:db8:ffff::20/124 via {}{}{rest}",
                    INET2.v6,
                    source(from, SHARED.v6)
                ),
            ]
        };
        for words in to_servers("", "") {
            ip(&self.node_a, &words)?;
        }
        add_to_loopback(&self.node_b, SHARED)?;
        for words in to_servers("src", &format!(" mtu {MTU}")) {
            ip(&self.node_b, &words)?;
        }
        for words in [
            format!("route add default via {} src {} mtu {MTU}", INET1.v4, SHARED.v4),
            format!("-6 route add default via {} src {} mtu {MTU}", INET1.v6, SHARED.v6),
        ] {
            ip(&self.node_b, &words)?;
        }
        Ok(())
    }

    fn set_up_host(&self) -> Result<()> {
        add_to_loopback(&self.host_a, SHARED)?;
        for (family, via, from) in [
            ("-4", NODE_A_LAN.both()[0], SHARED.both()[0]),
            ("-6", NODE_A_LAN.both()[1], SHARED.both()[1]),
        ] {
            ip(
                &self.host_a,
                &format!("{family} route add default via {via} src {from} mtu {MTU}"),
            )?;
        }
        Ok(())
    }
}

/// A namespace in which the kernel neither drops what comes in by another way than it would leave,
/// nor redirects anybody, and speaks ARP of an interface's own addresses only: not of those on the
/// loopback, nor of the whole world where it takes all that comes.
fn namespace(role: &str) -> Result<Namespace> {
    let namespace = Namespace::create(GROUP, role)?;
    for scope in ["all", "default"] {
        for (key, value) in [
            ("rp_filter", "0"),
            ("send_redirects", "0"),
            ("arp_ignore", "1"),
            ("arp_announce", "2"),
        ] {
            namespace.sysctl(&format!("net/ipv4/conf/{scope}/{key}"), value)?;
        }
    }
    Ok(namespace)
}

fn on_link(addresses: Pair) -> [String; 2] {
    [format!("{}/24", addresses.v4), format!("{}/64", addresses.v6)]
}

fn source(word: &str, address: impl std::fmt::Display) -> String {
    if word.is_empty() { String::new() } else { format!(" {word} {address}") }
}

fn add_to_loopback(namespace: &Namespace, addresses: Pair) -> Result<()> {
    ip(namespace, &format!("address add {}/32 dev lo", addresses.v4))?;
    ip(namespace, &format!("-6 address add {}/128 dev lo nodad", addresses.v6))
}

fn ip(namespace: &Namespace, words: &str) -> Result<()> {
    namespace.ip(&words.split_whitespace().collect::<Vec<_>>()).map(drop)
}
