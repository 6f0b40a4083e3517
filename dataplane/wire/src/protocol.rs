//! IP versions, and the protocol numbers (IANA, "Assigned Internet Protocol Numbers") that the
//! router tells apart.

/// Version of an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IpVersion {
    /// RFC 791.
    V4,
    /// RFC 8200.
    V6,
}

impl IpVersion {
    /// The version that the first byte of a packet names; `None` if it is neither 4 nor 6.
    #[inline]
    #[must_use]
    pub const fn of_first_byte(first: u8) -> Option<Self> {
        match first >> 4 {
            4 => Some(Self::V4),
            6 => Some(Self::V6),
            _ => None,
        }
    }
}

/// IPv6 hop-by-hop options, RFC 8200 section 4.3.
pub const HOP_BY_HOP: u8 = 0;
/// ICMP for IPv4, RFC 792.
pub const ICMP: u8 = 1;
/// IPv4 in IP, RFC 2003.
pub const IPIP: u8 = 4;
/// TCP, RFC 9293.
pub const TCP: u8 = 6;
/// UDP, RFC 768.
pub const UDP: u8 = 17;
/// DCCP, RFC 4340.
pub const DCCP: u8 = 33;
/// IPv6 in IP, RFC 2473.
pub const IPV6: u8 = 41;
/// IPv6 routing header, RFC 8200 section 4.4.
pub const ROUTING: u8 = 43;
/// IPv6 fragment header, RFC 8200 section 4.5.
pub const FRAGMENT: u8 = 44;
/// GRE, RFC 2784.
pub const GRE: u8 = 47;
/// IPsec encapsulating security payload, RFC 4303.
pub const ESP: u8 = 50;
/// IPsec authentication header, RFC 4302.
pub const AH: u8 = 51;
/// ICMP for IPv6, RFC 4443.
pub const ICMPV6: u8 = 58;
/// Nothing follows, RFC 8200 section 4.7.
pub const NO_NEXT_HEADER: u8 = 59;
/// IPv6 destination options, RFC 8200 section 4.6.
pub const DESTINATION_OPTIONS: u8 = 60;
/// SCTP, RFC 9260.
pub const SCTP: u8 = 132;
/// UDP-Lite, RFC 3828.
pub const UDP_LITE: u8 = 136;
/// IPv6 mobility header, RFC 6275 section 6.1.
pub const MOBILITY: u8 = 135;
/// Host identity protocol, RFC 7401.
pub const HIP: u8 = 139;
/// Shim6, RFC 5533.
pub const SHIM6: u8 = 140;

/// The protocol's header begins with a source and a destination port of 16 bits each.
#[inline]
#[must_use]
pub const fn has_ports(protocol: u8) -> bool {
    matches!(protocol, TCP | UDP | DCCP | SCTP | UDP_LITE)
}
