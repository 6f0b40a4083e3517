//! [`Encapsulation`]: how packets travel in an owner tunnel, and which kinds this node has tunnels of.
//!
//! ```text
//!  gue   outer IP | UDP (8)                | packet      entropy: source port
//!  gre   outer IP | GRE (4, 8, 12 or 16)   | packet      entropy: none over IPv4
//!  ipip  outer IP                          | packet      entropy: none over IPv4
//! ```
//!
//! Over IPv6 the flow label carries a flow's entropy in all of them (RFC 6438).

use core::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;

use wire::{IpVersion, gre, protocol, udp};

/// What stands between the outer IP header and the packet.
#[derive(Clone, Debug)]
pub enum Encapsulation {
    /// UDP: variant 1 of draft-ietf-intarea-gue.
    Gue {
        /// The UDP port that the far end listens on; not 0.
        port: u16,
    },
    /// RFC 2784 with RFC 2890.
    Gre(Gre),
    /// Nothing: RFC 2003 and RFC 4213 over IPv4, RFC 2473 over IPv6.
    Ipip,
}

/// Optional fields of the GRE headers that are sent to one far end.
#[derive(Clone, Debug, Default)]
pub struct Gre {
    /// The key, in both directions.
    pub key: Option<u32>,
    /// Whether packets leave with a checksum. One that is there on receipt is always verified.
    pub checksum: bool,
    /// The next sequence number, if packets leave with one.
    pub sequence: Option<Sequence>,
}

/// The next sequence number of a tunnel, which all workers and all snapshots share.
///
/// It is the one thing in a snapshot that changes: RFC 2890 section 2.2 wants one free running
/// counter of the tunnel, and a receiver that keeps to it would drop what each worker counted for
/// itself. It costs an atomic addition on a line that the workers share, for each packet.
#[derive(Clone, Debug, Default)]
pub struct Sequence(Arc<AtomicU32>);

impl Sequence {
    /// Takes the next number. RFC 2890 section 2.2: "The first datagram is sent with a sequence number
    /// of 0." It wraps around after 2 to the power of 32.
    #[inline]
    #[must_use]
    pub fn take(&self) -> u32 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

impl Encapsulation {
    /// Length of what stands between the outer IP header and the packet, in bytes.
    #[inline]
    #[must_use]
    pub fn header_len(&self) -> u16 {
        const FIELD_LEN: u16 = 4;
        match self {
            Self::Gue { .. } => udp::HEADER_LEN as u16,
            Self::Gre(Gre { key, checksum, sequence }) => {
                gre::HEADER_LEN_MIN as u16
                    + FIELD_LEN
                        * (u16::from(*checksum)
                            + u16::from(key.is_some())
                            + u16::from(sequence.is_some()))
            }
            Self::Ipip => 0,
        }
    }

    /// Protocol of the outer IP header of a packet of this version.
    #[inline]
    #[must_use]
    pub const fn protocol(&self, inner: IpVersion) -> u8 {
        match (self, inner) {
            (Self::Gue { .. }, _) => protocol::UDP,
            (Self::Gre(_), _) => protocol::GRE,
            (Self::Ipip, IpVersion::V4) => protocol::IPIP,
            (Self::Ipip, IpVersion::V6) => protocol::IPV6,
        }
    }
}

/// The kinds of tunnels that end at this node: what tells a tunnel packet from others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TunnelKinds {
    /// The UDP port of GUE; `None` without such tunnels.
    pub gue_port: Option<u16>,
    /// Whether there is a GRE tunnel.
    pub gre: bool,
    /// Whether there is a tunnel without a header of its own.
    pub ipip: bool,
}

impl TunnelKinds {
    /// Adds the kind of one tunnel.
    pub fn add(&mut self, encapsulation: &Encapsulation) {
        match encapsulation {
            Encapsulation::Gue { port } => self.gue_port = Some(*port),
            Encapsulation::Gre(_) => self.gre = true,
            Encapsulation::Ipip => self.ipip = true,
        }
    }

    /// Whether a packet of this protocol, to this port where it has any, is a tunnel packet when it is
    /// addressed to this node.
    #[inline]
    #[must_use]
    pub const fn include(&self, protocol: u8, destination_port: u16) -> bool {
        match protocol {
            protocol::TCP => false,
            protocol::UDP => matches!(self.gue_port, Some(port) if port == destination_port),
            protocol::GRE => self.gre,
            protocol::IPIP | protocol::IPV6 => self.ipip,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_lengths() {
        assert_eq!(Encapsulation::Gue { port: 6080 }.header_len(), 8);
        assert_eq!(Encapsulation::Ipip.header_len(), 0);
        for (key, checksum, sequence, len) in [
            (None, false, None, 4),
            (Some(0), false, None, 8),
            (None, true, None, 8),
            (None, false, Some(Sequence::default()), 8),
            (Some(7), true, None, 12),
            (Some(7), true, Some(Sequence::default()), 16),
        ] {
            assert_eq!(Encapsulation::Gre(Gre { key, checksum, sequence }).header_len(), len);
        }
    }

    #[test]
    fn only_kinds_that_there_are_are_recognised() {
        let mut kinds = TunnelKinds::default();
        for protocol in 0..=255 {
            assert!(!kinds.include(protocol, 0) && !kinds.include(protocol, 6080));
        }
        kinds.add(&Encapsulation::Gue { port: 6080 });
        assert!(kinds.include(17, 6080) && !kinds.include(17, 0) && !kinds.include(47, 0));
        kinds.add(&Encapsulation::Gre(Gre::default()));
        kinds.add(&Encapsulation::Ipip);
        let all: std::vec::Vec<u8> = (0..=255).filter(|&p| kinds.include(p, 6080)).collect();
        assert_eq!(all, [4, 17, 41, 47]);
    }

    #[test]
    fn a_sequence_is_shared_and_wraps() {
        let one = Sequence(Arc::new(AtomicU32::new(u32::MAX)));
        let other = one.clone();
        assert_eq!((one.take(), other.take(), one.take()), (u32::MAX, 0, 1));
        assert_eq!(Sequence::default().take(), 0);
    }
}
