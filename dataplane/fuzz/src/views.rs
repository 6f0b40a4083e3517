//! Every view and representation of `wire` over any bytes: nothing reaches past them, and what is
//! written from what was read is read again.
//!
//! The bytes are read once as they are, and once behind a checksum that is made right, so that more than
//! the first test of a header is reached.

use wire::{
    GreRepr, Ipv4, Ipv4Repr, Ipv6, Ipv6Repr, Quoted, Tcp, Udp, checksum, ethernet, gue, icmp,
    icmpv6, ipv6, tcp, udp,
};

use crate::common::packets;
use crate::planted::{self, Defect};

/// The target.
pub fn run(bytes: &[u8]) {
    read(bytes);
    let mut repaired = bytes.to_vec();
    packets::repair_ipv4(&mut repaired);
    read(&repaired);
    // A frame's payload too.
    if let Some(packet) = ethernet::payload(bytes) {
        assert_eq!(packet, &bytes[14..]);
        read(packet);
    }
    write(bytes);
}

/// The slice lies in `whole`.
fn is_within(part: &[u8], whole: &[u8]) -> bool {
    part.is_empty()
        || whole.as_ptr_range().start <= part.as_ptr_range().start
            && part.as_ptr_range().end <= whole.as_ptr_range().end
}

fn read(bytes: &[u8]) {
    assert_eq!(ethernet::ethertype(bytes).is_some(), bytes.len() >= 14);
    if let Ok(packet) = Ipv4::parse(bytes) {
        ipv4(&packet, bytes);
    }
    if let Ok(packet) = Ipv6::parse(bytes) {
        ipv6(&packet, bytes);
    }
    for quoted in [Quoted::parse_v4(bytes), Quoted::parse_v6(bytes)].into_iter().flatten() {
        assert!(is_within(quoted.transport, bytes));
        assert!(quoted.transport_offset + quoted.transport.len() <= bytes.len());
        let _ = (quoted.flow(), quoted.is_icmp_error());
    }
    if let Ok(header) = GreRepr::parse_header(bytes) {
        gre(header, bytes);
    }
    if let Ok(segment) = Tcp::parse(bytes) {
        assert_eq!(segment.header_len() + segment.payload().len(), bytes.len());
        assert_eq!(20 + segment.options().len(), segment.header_len());
    }
    if let Ok(datagram) = Udp::parse(bytes) {
        assert_eq!(8 + datagram.payload().len(), usize::from(datagram.length()));
        assert!(is_within(datagram.payload(), bytes));
    }
    assert_eq!(udp::ports(bytes).is_some(), bytes.len() >= 4);
    assert_eq!(
        gue::inner_protocol(bytes).is_some(),
        bytes.first().is_some_and(|&first| gue::is_variant_1(first))
    );
    let _ = (icmp::echo_identifier(bytes), icmpv6::echo_identifier(bytes));
    let _ = (icmp::next_hop_mtu(bytes), icmpv6::mtu(bytes));
    for quoted in [icmp::embedded(bytes), icmpv6::embedded(bytes)].into_iter().flatten() {
        assert!(is_within(quoted, bytes));
    }
}

fn ipv4(packet: &Ipv4<'_>, bytes: &[u8]) {
    let total_len = usize::from(packet.total_len());
    assert_eq!(packet.packet(), &bytes[..total_len]);
    assert_eq!(packet.header_len() + packet.payload().len(), total_len);
    assert_eq!(20 + packet.options().len(), packet.header_len());
    assert_eq!(checksum::internet_checksum(&bytes[..packet.header_len()]), 0);
    let _ = packet.has_source_route();
    // What has a representation is read back as it was written.
    let repr = Ipv4Repr {
        source: packet.source(),
        destination: packet.destination(),
        protocol: packet.protocol(),
        ttl: packet.ttl(),
        traffic_class: packet.traffic_class(),
        dont_fragment: packet.dont_fragment(),
        identification: packet.identification(),
        payload_len: u16::try_from(packet.payload().len()).expect("at most 65,535 in all"),
    };
    let mut again = vec![0; 20 + packet.payload().len()];
    repr.emit(again.first_chunk_mut().expect("20 bytes"));
    again[20..].copy_from_slice(packet.payload());
    let parsed = Ipv4::parse(&again).expect("what was emitted");
    assert_eq!(parsed.payload(), packet.payload());
    assert_eq!((parsed.source(), parsed.destination()), (packet.source(), packet.destination()));
    assert_eq!((parsed.protocol(), parsed.ttl()), (packet.protocol(), packet.ttl()));
    assert_eq!(parsed.traffic_class(), packet.traffic_class());
    assert_eq!(parsed.identification(), packet.identification());
    assert_eq!(parsed.dont_fragment(), packet.dont_fragment());
    if packet.options().is_empty() && !packet.is_fragment() && bytes[6] & 0x80 == 0 {
        // The checksum apart, of which 0 has two forms.
        let (ours, theirs) = (&again[..20], &bytes[..20]);
        assert_eq!((&ours[..10], &ours[12..]), (&theirs[..10], &theirs[12..]));
    }
    // One hop less keeps the header right.
    let mut header: [u8; 20] = *again.first_chunk().expect("20 bytes");
    if packet.ttl() > 0 {
        checksum::decrement_ttl_v4(&mut header);
        if planted::is(Defect::LostCarry) {
            let sum = u16::from_be_bytes([again[10], again[11]]).wrapping_add(0x0100);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        assert!(checksum::ipv4_base_header_is_valid(&header));
        assert_eq!(header[8], packet.ttl() - 1);
    }
}

fn ipv6(packet: &Ipv6<'_>, bytes: &[u8]) {
    assert_eq!(packet.payload().len(), usize::from(packet.payload_len()));
    assert!(is_within(packet.payload(), bytes));
    if let Ok(upper) = ipv6::walk_extensions(packet.next_header(), packet.payload()) {
        assert!(upper.offset <= packet.payload().len());
        assert!(upper.offset <= ipv6::EXTENSION_BYTES_MAX);
        assert!(upper.extension_count <= ipv6::EXTENSIONS_MAX);
        if let Some(fragment) = upper.fragment {
            assert_eq!(fragment.offset_bytes % 8, 0);
            assert!(fragment.header_offset + 8 <= upper.offset);
        }
    }
    let repr = Ipv6Repr {
        source: *packet.source(),
        destination: *packet.destination(),
        next_header: packet.next_header(),
        hop_limit: packet.hop_limit(),
        traffic_class: packet.traffic_class(),
        flow_label: packet.flow_label(),
        payload_len: packet.payload_len(),
    };
    let mut header = [0; 40];
    repr.emit(&mut header);
    assert_eq!(header, bytes[..40]);
}

fn gre(header: GreRepr, bytes: &[u8]) {
    assert!(header.header_len() <= bytes.len());
    let mut copy = bytes.to_vec();
    assert!(header.emit(&mut copy));
    assert_eq!(GreRepr::parse(&copy), Ok(header));
    assert_eq!(copy[header.header_len()..], bytes[header.header_len()..]);
}

fn write(bytes: &[u8]) {
    let mut clamped = bytes.to_vec();
    let limit = u16::from_be_bytes([bytes.len() as u8, bytes.first().copied().unwrap_or_default()]);
    let changed = tcp::clamp_mss(&mut clamped, limit);
    assert_eq!(clamped != bytes, changed);
    assert!(!tcp::clamp_mss(&mut clamped, limit), "once is enough");

    let error = icmp::ErrorRepr {
        source: [192, 0, 2, 1],
        destination: [192, 0, 2, 2],
        kind: 11,
        code: 0,
        rest: 0,
    };
    let mut out = [0xaa; 1300];
    let len = icmp::emit_error_v4(&mut out, &error, bytes).expect("room for any error");
    let packet = Ipv4::parse(&out[..len]).expect("what was emitted");
    assert_eq!(packet.packet().len(), len);
    assert_eq!(checksum::internet_checksum(packet.payload()), 0);
    assert!(len <= icmp::ERROR_LEN_MAX);
    assert!(bytes.starts_with(icmp::embedded(packet.payload()).expect("a quotation")));
    assert!(out[len..].iter().all(|&byte| byte == 0xaa));

    let error = icmpv6::ErrorRepr {
        source: [0x20; 16],
        destination: [0x21; 16],
        kind: 3,
        code: 0,
        rest: 0,
    };
    let mut out = [0xaa; 1300];
    let len = icmpv6::emit_error_v6(&mut out, &error, bytes).expect("room for any error");
    let packet = Ipv6::parse(&out[..len]).expect("what was emitted");
    assert_eq!(packet.total_len(), len);
    assert!(len <= icmpv6::ERROR_LEN_MAX);
    assert!(bytes.starts_with(icmpv6::embedded(packet.payload()).expect("a quotation")));
    assert!(out[len..].iter().all(|&byte| byte == 0xaa));
}
