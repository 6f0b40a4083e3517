//! Addresses, ports and names of the lab's small Internet: see the figure in [`super`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address of each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// IPv4.
    pub v4: Ipv4Addr,
    /// IPv6.
    pub v6: Ipv6Addr,
}

impl Pair {
    const fn new(v4: Ipv4Addr, v6: Ipv6Addr) -> Self {
        Self { v4, v6 }
    }

    /// Both, IPv4 first.
    #[must_use]
    pub fn both(self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }

    /// That of the family of `other`.
    #[must_use]
    pub fn like(self, other: IpAddr) -> IpAddr {
        if other.is_ipv4() { self.v4.into() } else { self.v6.into() }
    }
}

const fn underlay(last: u8) -> Pair {
    let group = (last / 10 * 16 + last % 10) as u16;
    Pair::new(Ipv4Addr::new(10, 0, 0, last), Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, group))
}

const fn internet(last: u8) -> Pair {
    let group = (last / 10 * 16 + last % 10) as u16;
    Pair::new(
        Ipv4Addr::new(198, 51, 100, last),
        Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, group),
    )
}

const fn lan(last: u8) -> Pair {
    Pair::new(
        Ipv4Addr::new(172, 16, 0, last),
        Ipv6Addr::new(0xfd00, 0xa, 0, 0, 0, 0, 0, last as u16),
    )
}

/// On the exchange.
pub const INET1: Pair = underlay(1);
/// On the exchange.
pub const INET2: Pair = underlay(2);
/// On the exchange; tunnels to node a end here.
pub const NODE_A: Pair = underlay(11);
/// On the exchange; tunnels to node b end here.
pub const NODE_B: Pair = underlay(12);
/// Node a, towards its workload.
pub const NODE_A_LAN: Pair = lan(1);
/// The workload host behind node a.
pub const HOST_A: Pair = lan(2);

/// The addresses that both nodes share.
pub const SHARED: Pair =
    Pair::new(Ipv4Addr::new(192, 0, 2, 1), Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 1));

/// The server on inet1. What it answers to the shared addresses goes to either node.
pub const SERVER: Pair = internet(10);
/// The server on inet2. What it answers goes to either node.
pub const SERVER2: Pair = internet(20);
/// Also on inet2, but what is sent from here to the shared addresses goes to node a.
pub const BY_NODE_A: Pair = internet(21);
/// Also on inet2, but what is sent from here to the shared addresses goes to node b.
pub const BY_NODE_B: Pair = internet(22);

/// What inet2 sends to node b in transit, which that forwards to inet1.
pub const TRANSIT: Pair =
    Pair::new(Ipv4Addr::new(203, 0, 113, 7), Ipv6Addr::new(0x2001, 0xdb8, 0xeeee, 0, 0, 0, 0, 7));

/// First port of node a's slices.
pub const SLICES_FIRST: u16 = 1024;
/// First port of node b's slices, after the last one of node a's.
pub const BOUNDARY: u16 = 33_792;
/// A boundary to change over to.
pub const OTHER_BOUNDARY: u16 = 36_864;

/// A service of the workload on host-a, within node a's slice.
pub const SERVICE_A: u16 = 8080;
/// A service of the workload on node b, within node b's slice.
pub const SERVICE_B: u16 = 40_080;

/// UDP echo on the Internet's servers.
pub const ECHO_PORT: u16 = 7;
/// Where the Internet's hosts listen for probes, on all addresses of the world.
pub const SINK_PORT: u16 = 9999;
/// A TCP service on node b's own underlay address, for which SSH stands elsewhere.
pub const MANAGEMENT_PORT: u16 = 22;

/// MTU of the exchange in bytes, at first: a packet of a workload fits with a tunnel's headers.
pub const UNDERLAY_MTU: u32 = 1600;
/// MTU of workloads and of the Internet in bytes, later that of the exchange too.
pub const MTU: u32 = 1500;

/// RX and TX queues of each link.
pub const QUEUES: u16 = 2;
