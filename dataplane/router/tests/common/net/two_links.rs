//! [`TwoLinks`]: a router's namespace with an outside and an inside, whose far ends a test holds itself.
//!
//! ```text
//!  far: wan0p (0) ---- wan0  router  lan0 ---- lan0p (1) :far
//! ```

use std::net::Ipv4Addr;

use wire::{MacAddress, checksum, ethernet, ipv4, protocol, udp};

use super::{Namespace, Tap, link};

/// Positions of the far ends in the tap.
pub(crate) const WAN: usize = 0;
pub(crate) const LAN: usize = 1;

/// Link-layer addresses of the router.
pub(crate) const WAN_MAC: &str = "02:00:00:00:00:01";
pub(crate) const LAN_MAC: &str = "02:00:00:00:00:02";

/// The names and roles of the router's interfaces.
pub(crate) const INTERFACES: [(&str, &str); 2] = [("wan0", "outside"), ("lan0", "inside")];

/// The namespace of a router that is `10.0.0.11/24` on `wan0` and `10.1.0.1/24` on `lan0`; in the other one
/// nothing speaks but the test.
pub(crate) struct TwoLinks {
    pub(crate) tap: Tap,
    pub(crate) space: Namespace,
    pub(crate) far: Namespace,
}

impl TwoLinks {
    #[track_caller]
    pub(crate) fn new() -> Self {
        let (space, far) =
            (Namespace::new("router").forwards().mute(), Namespace::new("far").mute());
        link((&space, "wan0", WAN_MAC), (&far, "wan0p", "02:00:00:00:01:01"), 1500);
        link((&space, "lan0", LAN_MAC), (&far, "lan0p", "02:00:00:00:01:02"), 1500);
        space.ip("address add 10.0.0.11/24 dev wan0");
        space.ip("address add 10.1.0.1/24 dev lan0");
        let tap = Tap::new(&far, &["wan0p", "lan0p"]);
        Self { tap, space, far }
    }
}

/// A UDP packet with this payload in a frame to the interface with this address.
pub(crate) fn udp_frame(
    mac: &str,
    source: (Ipv4Addr, u16),
    destination: (Ipv4Addr, u16),
    payload: &[u8],
) -> Vec<u8> {
    let bytes: Vec<u8> =
        mac.split(':').map(|pair| u8::from_str_radix(pair, 16).expect("hexadecimal")).collect();
    let mac = MacAddress(*bytes.first_chunk().expect("six bytes"));
    let mut frame = vec![0; ethernet::HEADER_LEN];
    let header = frame.first_chunk_mut().expect("a header");
    ethernet::write_header(header, mac, MacAddress([2, 0, 0, 0, 1, 1]), ethernet::ETHERTYPE_IPV4);
    let length = u16::try_from(udp::HEADER_LEN + payload.len()).expect("a small payload");
    let mut ip = [0; ipv4::HEADER_LEN];
    ipv4::Ipv4Repr {
        source: source.0.octets(),
        destination: destination.0.octets(),
        protocol: protocol::UDP,
        ttl: 64,
        traffic_class: 0,
        dont_fragment: false,
        identification: 1,
        payload_len: length,
    }
    .emit(&mut ip);
    assert_eq!(checksum::internet_checksum(&ip), 0);
    frame.extend(ip);
    let mut datagram = vec![0; udp::HEADER_LEN];
    datagram.extend(payload);
    let mut checksum = 0;
    // First without a checksum, then with that of all of it.
    for _ in 0..2 {
        let header = datagram.first_chunk_mut().expect("a header");
        udp::emit_header(header, source.1, destination.1, length, checksum);
        checksum = udp::checksum_v4(source.0.octets(), destination.0.octets(), &datagram);
    }
    frame.extend(datagram);
    frame
}
