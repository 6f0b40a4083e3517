//! The bytes of one packet of the generator: headers, and the place of its tag.

use std::net::{IpAddr, SocketAddr};

use wire::{MacAddress, checksum, ethernet, ipv4, ipv6, protocol, tcp, udp};
use xdp::tester::Image;

use crate::tag::TAG_LEN;

/// What a packet is, behind IP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A UDP datagram.
    #[default]
    Udp,
    /// The first segment of a TCP connection. The tag is its data, as TCP Fast Open has it.
    TcpSyn,
    /// A segment of a TCP connection that carries data.
    TcpAck,
}

impl Kind {
    /// Its name.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::TcpSyn => "TCP SYN",
            Self::TcpAck => "TCP ACK",
        }
    }

    const fn protocol(self) -> u8 {
        match self {
            Self::Udp => protocol::UDP,
            Self::TcpSyn | Self::TcpAck => protocol::TCP,
        }
    }

    const fn header_len(self) -> usize {
        match self {
            Self::Udp => udp::HEADER_LEN,
            Self::TcpSyn | Self::TcpAck => tcp::HEADER_LEN,
        }
    }

    const fn checksum_at(self) -> usize {
        match self {
            Self::Udp => 6,
            Self::TcpSyn | Self::TcpAck => 16,
        }
    }
}

/// A five-tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Source address and port.
    pub source: SocketAddr,
    /// Destination address and port, of the same family.
    pub destination: SocketAddr,
}

/// Link-layer addresses of all packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stations {
    /// The generator's interface.
    pub source: MacAddress,
    /// The device under test.
    pub destination: MacAddress,
}

/// The shortest frame of this kind that holds a tag, in bytes without check sequence: 60 for UDP
/// over IPv4, 80 over IPv6; 72 and 92 for TCP.
#[must_use]
pub const fn frame_bytes_min(is_ipv6: bool, kind: Kind) -> usize {
    let ip = if is_ipv6 { ipv6::HEADER_LEN } else { ipv4::HEADER_LEN };
    ethernet::HEADER_LEN + ip + kind.header_len() + TAG_LEN
}

/// The image of a packet: a frame of `frame_bytes`, or of the shortest that holds it.
///
/// # Panics
/// When the flow's addresses are of two families.
#[must_use]
pub(super) fn image(stations: Stations, flow: &Flow, kind: Kind, frame_bytes: u16) -> Image {
    let is_ipv6 = flow.source.is_ipv6();
    let frame_len = usize::from(frame_bytes).max(frame_bytes_min(is_ipv6, kind));
    let ip_len = if is_ipv6 { ipv6::HEADER_LEN } else { ipv4::HEADER_LEN };
    let l4_at = ethernet::HEADER_LEN + ip_len;
    #[expect(clippy::cast_possible_truncation, reason = "a frame of a u16 or of 92 bytes")]
    let l4_len = (frame_len - l4_at) as u16;

    let mut image = Image {
        bytes: [0; xdp::tester::IMAGE_BYTES],
        frame_len: 0,
        tag_offset: 0,
        checksum_offset: 0,
        reserved: 0,
        checksum_base: 0,
        reserved2: 0,
    };
    let bytes = &mut image.bytes;
    let (link, rest) = bytes.split_first_chunk_mut().expect("an image holds all headers");
    let ethertype = if is_ipv6 { ethernet::ETHERTYPE_IPV6 } else { ethernet::ETHERTYPE_IPV4 };
    ethernet::write_header(link, stations.destination, stations.source, ethertype);
    let pseudo = match (flow.source.ip(), flow.destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let repr = ipv4::Ipv4Repr {
                source: source.octets(),
                destination: destination.octets(),
                protocol: kind.protocol(),
                ttl: 64,
                traffic_class: 0,
                dont_fragment: true,
                identification: 0,
                payload_len: l4_len,
            };
            repr.emit(rest.first_chunk_mut().expect("an image holds all headers"));
            checksum::pseudo_header_v4(repr.source, repr.destination, repr.protocol, l4_len)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let repr = ipv6::Ipv6Repr {
                source: source.octets(),
                destination: destination.octets(),
                next_header: kind.protocol(),
                hop_limit: 64,
                traffic_class: 0,
                flow_label: 0,
                payload_len: l4_len,
            };
            repr.emit(rest.first_chunk_mut().expect("an image holds all headers"));
            checksum::pseudo_header_v6(
                &repr.source,
                &repr.destination,
                repr.next_header,
                u32::from(l4_len),
            )
        }
        _ => panic!("a flow is of one family"),
    };
    let l4 = &mut bytes[l4_at..];
    write_transport(l4, flow, kind, l4_len);
    image.checksum_base = checksum::ones_complement_sum(&l4[..kind.header_len()], pseudo);
    #[expect(clippy::cast_possible_truncation, reason = "a frame of a u16 or of 92 bytes")]
    {
        image.frame_len = frame_len as u16;
        image.tag_offset = (l4_at + kind.header_len()) as u16;
        image.checksum_offset = (l4_at + kind.checksum_at()) as u16;
    }
    image
}

/// Writes a transport header whose checksum is 0.
fn write_transport(l4: &mut [u8], flow: &Flow, kind: Kind, l4_len: u16) {
    let (source, destination) = (flow.source.port(), flow.destination.port());
    let flags = match kind {
        Kind::Udp => {
            let header = l4.first_chunk_mut().expect("an image holds all headers");
            udp::emit_header(header, source, destination, l4_len, 0);
            return;
        }
        Kind::TcpSyn => tcp::flags::SYN,
        Kind::TcpAck => tcp::flags::ACK,
    };
    const DATA_OFFSET_WITHOUT_OPTIONS: u8 = 5 << 4;
    l4[0..2].copy_from_slice(&source.to_be_bytes());
    l4[2..4].copy_from_slice(&destination.to_be_bytes());
    l4[12] = DATA_OFFSET_WITHOUT_OPTIONS;
    l4[13] = flags;
    l4[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
}
