//! No bytes make a reader panic, or give a view that reaches past them; and no writer panics or
//! writes outside of its buffer.

use proptest::collection::vec;
use proptest::prelude::*;
use wire::{
    GreRepr, Ipv4, Ipv6, Quoted, Tcp, Udp, checksum, ethernet, gue, icmp, icmpv6, ipv6, tcp, udp,
};

/// Bytes of any kind, and bytes that begin like a packet, so that the deeper tests are reached.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let ipv4 = (vec(any::<u8>(), 20..200), 5u8..16).prop_map(|(mut bytes, words)| {
        bytes[0] = 0x40 | words;
        let header_len = usize::from(words) * 4;
        bytes.resize(bytes.len().max(header_len), 0);
        let total_len = u16::try_from(bytes.len()).unwrap();
        bytes[2..4].copy_from_slice(&total_len.to_be_bytes());
        bytes[10..12].fill(0);
        let checksum = checksum::internet_checksum(&bytes[..header_len]);
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        bytes
    });
    // Next headers and lengths are mostly small numbers that mean something.
    let known = prop::sample::select(vec![0u8, 1, 2, 6, 17, 43, 44, 50, 51, 58, 59, 60, 135, 140]);
    let ipv6 = (vec(prop_oneof![known, any::<u8>()], 40..300)).prop_map(|mut bytes| {
        bytes[0] = 0x60;
        let payload_len = u16::try_from(bytes.len() - 40).unwrap();
        bytes[4..6].copy_from_slice(&payload_len.to_be_bytes());
        bytes
    });
    let tcp = (vec(any::<u8>(), 20..80), 5u8..16).prop_map(|(mut bytes, words)| {
        bytes[12] = words << 4;
        bytes[13] |= tcp::flags::SYN;
        bytes
    });
    prop_oneof![vec(any::<u8>(), 0..200), ipv4, ipv6, tcp]
}

/// The slice lies in `whole`.
fn is_within(part: &[u8], whole: &[u8]) -> bool {
    part.is_empty()
        || whole.as_ptr_range().start <= part.as_ptr_range().start
            && part.as_ptr_range().end <= whole.as_ptr_range().end
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 20_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn readers(bytes in bytes(), protocol in any::<u8>()) {
        let bytes = &bytes[..];
        prop_assert_eq!(ethernet::ethertype(bytes).is_some(), bytes.len() >= 14);
        prop_assert_eq!(ethernet::source(bytes).is_some(), bytes.len() >= 14);
        prop_assert_eq!(ethernet::destination(bytes).is_some(), bytes.len() >= 14);

        if let Ok(ipv4) = Ipv4::parse(bytes) {
            let total_len = usize::from(ipv4.total_len());
            prop_assert_eq!(ipv4.packet(), &bytes[..total_len]);
            prop_assert_eq!(ipv4.header_len() + ipv4.payload().len(), total_len);
            prop_assert_eq!(20 + ipv4.options().len(), ipv4.header_len());
            prop_assert!(is_within(ipv4.payload(), bytes));
            let _ = ipv4.has_source_route();
            prop_assert_eq!(
                ipv4.is_fragment(),
                ipv4.more_fragments() || ipv4.fragment_offset_bytes() > 0
            );
        }
        if let Ok(ipv6) = Ipv6::parse(bytes) {
            prop_assert_eq!(ipv6.payload().len(), usize::from(ipv6.payload_len()));
            prop_assert!(is_within(ipv6.payload(), bytes));
            if let Ok(upper) = ipv6::walk_extensions(ipv6.next_header(), ipv6.payload()) {
                prop_assert!(upper.offset <= ipv6.payload().len());
                prop_assert!(upper.offset <= ipv6::EXTENSION_BYTES_MAX);
                prop_assert!(upper.extension_count <= ipv6::EXTENSIONS_MAX);
            }
        }
        for quoted in [Quoted::parse_v4(bytes), Quoted::parse_v6(bytes)].into_iter().flatten() {
            prop_assert!(is_within(quoted.transport, bytes));
            prop_assert!(quoted.transport_offset + quoted.transport.len() <= bytes.len());
            prop_assert!(quoted.transport_offset <= quoted.length || quoted.transport.is_empty());
            let _ = (quoted.flow(), quoted.is_icmp_error());
        }
        if let Ok(gre) = GreRepr::parse_header(bytes) {
            prop_assert!(gre.header_len() <= bytes.len());
            // What is written over it is read again, checksum and all.
            let mut copy = bytes.to_vec();
            prop_assert!(gre.emit(&mut copy));
            prop_assert_eq!(GreRepr::parse(&copy), Ok(gre));
            prop_assert_eq!(&copy[gre.header_len()..], &bytes[gre.header_len()..]);
        }
        if let Ok(upper) = ipv6::walk_extensions(protocol, bytes) {
            prop_assert!(upper.offset <= bytes.len());
        }
        if let Ok(tcp) = Tcp::parse(bytes) {
            prop_assert_eq!(tcp.header_len() + tcp.payload().len(), bytes.len());
            prop_assert_eq!(20 + tcp.options().len(), tcp.header_len());
        }
        if let Ok(udp) = Udp::parse(bytes) {
            prop_assert_eq!(8 + udp.payload().len(), usize::from(udp.length()));
            prop_assert!(is_within(udp.payload(), bytes));
        }
        prop_assert_eq!(tcp::ports_and_flags(bytes).is_some(), bytes.len() >= 14);
        prop_assert_eq!(udp::ports(bytes).is_some(), bytes.len() >= 4);
        prop_assert_eq!(
            gue::inner_protocol(bytes).is_some(),
            bytes.first().is_some_and(|&first| gue::is_variant_1(first))
        );
        let _ = checksum::ipv4_header_is_valid(bytes);
    }

    #[test]
    fn readers_of_icmp(bytes in bytes(), header in any::<[u8; 8]>(), kind in 0u8..13) {
        let mut message = header.to_vec();
        message[0] = kind;
        message.extend(&bytes);
        for message in [&bytes[..], &message[..]] {
            let _ = (icmp::echo_identifier(message), icmpv6::echo_identifier(message));
            let _ = (icmp::next_hop_mtu(message), icmpv6::mtu(message));
            let quotations = [icmp::embedded(message), icmpv6::embedded(message)];
            for quoted in quotations.into_iter().flatten() {
                prop_assert!(is_within(quoted, message));
                let flows = [wire::parse_embedded_v4(quoted), wire::parse_embedded_v6(quoted)];
                for flow in flows.into_iter().flatten() {
                    prop_assert!(flow.transport_offset <= quoted.len());
                }
            }
        }
    }

    #[test]
    fn clamping(bytes in bytes(), limit in any::<u16>()) {
        let mut clamped = bytes.clone();
        let changed = tcp::clamp_mss(&mut clamped, limit);
        // The checksum alone cannot change: a lowered option is another word.
        prop_assert_eq!(clamped != bytes, changed);
        prop_assert_eq!(clamped.len(), bytes.len());
        prop_assert!(!tcp::clamp_mss(&mut clamped, limit), "once is enough");
    }

    #[test]
    fn emitters(original in bytes(), room in 0usize..700) {
        let v4 = icmp::ErrorRepr {
            source: [192, 0, 2, 1], destination: [192, 0, 2, 2], kind: 11, code: 0, rest: 0,
        };
        let mut out = vec![0xaa; room];
        if let Some(len) = icmp::emit_error_v4(&mut out, &v4, &original) {
            let packet = Ipv4::parse(&out[..len]).unwrap();
            prop_assert_eq!(packet.packet().len(), len);
            prop_assert_eq!(checksum::internet_checksum(packet.payload()), 0);
            prop_assert!(original.starts_with(icmp::embedded(packet.payload()).unwrap()));
            prop_assert!(len <= icmp::ERROR_LEN_MAX);
            prop_assert!(out[len..].iter().all(|&byte| byte == 0xaa));
        } else {
            prop_assert!(room < 28 + original.len().min(548));
        }

        let v6 = icmpv6::ErrorRepr {
            source: [0x20; 16], destination: [0x21; 16], kind: 3, code: 0, rest: 0,
        };
        let mut out = vec![0xaa; room];
        if let Some(len) = icmpv6::emit_error_v6(&mut out, &v6, &original) {
            let packet = Ipv6::parse(&out[..len]).unwrap();
            prop_assert_eq!(packet.total_len(), len);
            prop_assert!(original.starts_with(icmpv6::embedded(packet.payload()).unwrap()));
            prop_assert!(len <= icmpv6::ERROR_LEN_MAX);
            prop_assert!(out[len..].iter().all(|&byte| byte == 0xaa));
        } else {
            prop_assert!(room < 48 + original.len().min(1232));
        }
    }
}
