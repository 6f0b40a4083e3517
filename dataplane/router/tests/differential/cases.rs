//! The packets, class by class.

use super::packet::{ROUTER_MAC, Random, SENDER_MAC, ethernet};
use super::{cases4, cases6};

/// One frame that both routers are given on port 0.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// Such as `v4/ttl`; what is behind the last colon only tells the cases of a class apart.
    pub(crate) class: String,
    pub(crate) frame: Vec<u8>,
}

/// Gathers cases.
#[derive(Debug)]
pub(crate) struct Cases {
    pub(crate) list: Vec<Case>,
    pub(crate) random: Random,
}

impl Cases {
    pub(crate) fn v4(&mut self, class: &str, packet: &[u8]) {
        self.frame(class, ethernet(ROUTER_MAC[0], 0x0800, packet));
    }

    pub(crate) fn v6(&mut self, class: &str, packet: &[u8]) {
        self.frame(class, ethernet(ROUTER_MAC[0], 0x86dd, packet));
    }

    pub(crate) fn frame(&mut self, class: &str, frame: Vec<u8>) {
        self.list.push(Case { class: class.to_owned(), frame });
    }
}

/// All packets: the same for the same seed.
pub(crate) fn all(seed: u64) -> Vec<Case> {
    let mut cases = Cases { list: Vec::new(), random: Random(seed) };
    link_layer(&mut cases);
    cases4::all(&mut cases);
    cases6::all(&mut cases);
    cases.list
}

/// Frames for other stations, and frames that are no IP packet.
fn link_layer(cases: &mut Cases) {
    let v4 = cases4::base().udp(b"link layer");
    let v6 = cases6::base().udp(b"link layer");
    let macs: [(&str, [u8; 6]); 7] = [
        ("broadcast", [0xff; 6]),
        ("multicast", [1, 0, 0x5e, 0, 0, 1]),
        ("multicast-v6", [0x33, 0x33, 0, 0, 0, 1]),
        ("other-host", [2, 0, 0, 0, 0, 0x99]),
        ("sender", SENDER_MAC),
        ("other-port", ROUTER_MAC[1]),
        ("zero", [0; 6]),
    ];
    for (name, mac) in macs {
        cases.frame(&format!("link/{name}:v4"), ethernet(mac, 0x0800, &v4));
        cases.frame(&format!("link/{name}:v6"), ethernet(mac, 0x86dd, &v6));
        let own = cases4::V4 { destination: "10.0.0.1".parse().unwrap(), ..cases4::base() };
        cases.frame(&format!("link/{name}:own"), ethernet(mac, 0x0800, &own.icmp(8, 0, 1, b"x")));
        let dying = cases4::V4 { ttl: 1, ..cases4::base() }.udp(b"dying");
        cases.frame(&format!("link/{name}:ttl"), ethernet(mac, 0x0800, &dying));
        let lost = cases4::V4 { destination: "100.65.0.1".parse().unwrap(), ..cases4::base() };
        cases.frame(&format!("link/{name}:no-route"), ethernet(mac, 0x0800, &lost.udp(b"lost")));
    }
    for source in [[0xff; 6], [1, 0, 0x5e, 0, 0, 1], [0; 6], ROUTER_MAC[0]] {
        let mut frame = ethernet(ROUTER_MAC[0], 0x0800, &v4);
        frame[6..12].copy_from_slice(&source);
        cases.frame("link/source", frame);
    }
    let mut swapped = ethernet(ROUTER_MAC[0], 0x86dd, &v4);
    cases.frame("link/ethertype:v4-as-v6", swapped.clone());
    swapped = ethernet(ROUTER_MAC[0], 0x0800, &v6);
    cases.frame("link/ethertype:v6-as-v4", swapped);
    for ethertype in [
        0_u16, 46, 64, 1500, 0x0600, 0x0801, 0x0806, 0x8035, 0x8863, 0x8864, 0x88cc, 0x88f7,
        0x9100, 0xffff,
    ] {
        cases.frame(
            &format!("link/ethertype:{ethertype:04x}"),
            ethernet(ROUTER_MAC[0], ethertype, &v4),
        );
    }
    for (tag, vlan) in [(0x8100_u16, 0_u16), (0x8100, 1), (0x8100, 4095), (0x88a8, 7)] {
        let tagged = [&vlan.to_be_bytes()[..], &0x0800_u16.to_be_bytes(), &v4].concat();
        cases.frame(&format!("link/vlan:{vlan}"), ethernet(ROUTER_MAC[0], tag, &tagged));
    }
}
