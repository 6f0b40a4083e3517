//! The crate `etherparse` as an oracle: what one writes the other reads, over random headers and
//! over real captures.

use etherparse::{
    IpFragOffset, IpNumber, Ipv4Header, Ipv4HeaderSlice, Ipv4Options, Ipv6FlowLabel, Ipv6Header,
    TcpHeader, TcpHeaderSlice, UdpHeader,
};
use proptest::collection::vec;
use proptest::prelude::*;
use wire::{Ipv4, Ipv4Repr, Ipv6, Ipv6Repr, Tcp, Udp, ethernet, ipv6};

fn oracle_v4() -> impl Strategy<Value = Ipv4Header> {
    let words = (any::<[u8; 4]>(), any::<[u8; 4]>(), any::<u16>(), 0u16..0x2000);
    let rest = (any::<u8>(), any::<u8>(), any::<u8>(), any::<bool>(), any::<bool>(), 0u8..=10);
    (words, rest).prop_map(|((source, destination, identification, offset), rest)| {
        let (traffic_class, time_to_live, protocol, dont_fragment, more_fragments, options) = rest;
        let options: Vec<u8> = (0..options * 4).collect();
        let mut header = Ipv4Header {
            dscp: (traffic_class >> 2).try_into().unwrap(),
            ecn: (traffic_class & 3).try_into().unwrap(),
            total_len: 0,
            identification,
            dont_fragment,
            more_fragments,
            fragment_offset: IpFragOffset::try_new(offset).unwrap(),
            time_to_live,
            protocol: IpNumber(protocol),
            header_checksum: 0,
            source,
            destination,
            options: Ipv4Options::try_from(&options[..]).unwrap(),
        };
        header.total_len = u16::try_from(header.header_len()).unwrap() + 4;
        header.header_checksum = header.calc_header_checksum();
        header
    })
}

/// All that `Ipv4` says of `bytes` is what the oracle says.
fn compare_v4(ipv4: &Ipv4<'_>, oracle: &Ipv4HeaderSlice<'_>) {
    assert_eq!(ipv4.header_len(), oracle.slice().len());
    assert_eq!(ipv4.total_len(), oracle.total_len());
    assert_eq!(ipv4.traffic_class(), oracle.dcp().value() << 2 | oracle.ecn().value());
    assert_eq!(ipv4.identification(), oracle.identification());
    assert_eq!(ipv4.dont_fragment(), oracle.dont_fragment());
    assert_eq!(ipv4.more_fragments(), oracle.more_fragments());
    assert_eq!(ipv4.fragment_offset_bytes(), oracle.fragments_offset().value() * 8);
    assert_eq!(ipv4.is_fragment(), oracle.is_fragmenting_payload());
    assert_eq!(ipv4.ttl(), oracle.ttl());
    assert_eq!(ipv4.protocol(), oracle.protocol().0);
    assert_eq!(ipv4.checksum(), oracle.header_checksum());
    assert_eq!(ipv4.source(), oracle.source());
    assert_eq!(ipv4.destination(), oracle.destination());
    assert_eq!(ipv4.options(), oracle.options());
}

fn compare_v6(ipv6: &Ipv6<'_>, oracle: &Ipv6Header) {
    assert_eq!(ipv6.traffic_class(), oracle.traffic_class);
    assert_eq!(ipv6.flow_label(), oracle.flow_label.value());
    assert_eq!(ipv6.payload_len(), oracle.payload_length);
    assert_eq!(ipv6.next_header(), oracle.next_header.0);
    assert_eq!(ipv6.hop_limit(), oracle.hop_limit);
    assert_eq!(*ipv6.source(), oracle.source);
    assert_eq!(*ipv6.destination(), oracle.destination);
}

/// The oracle has no bounds and reads on in later fragments; but for these, the walks agree.
fn compare_extensions(next_header: u8, payload: &[u8]) {
    let oracle = Ipv6Header::skip_all_header_extensions_in_slice(payload, IpNumber(next_header));
    match ipv6::walk_extensions(next_header, payload) {
        Ok(upper) if upper.is_later_fragment() => {}
        Ok(upper) => {
            let (protocol, rest) = oracle.unwrap();
            assert_eq!((upper.protocol, &payload[upper.offset..]), (protocol.0, rest));
        }
        Err(ipv6::ExtensionError::Truncated) => assert!(oracle.is_err()),
        Err(_) => {}
    }
}

fn compare_tcp(segment: &[u8]) {
    match (Tcp::parse(segment), TcpHeaderSlice::from_slice(segment)) {
        (Ok(tcp), Ok(oracle)) => {
            assert_eq!(tcp.source_port(), oracle.source_port());
            assert_eq!(tcp.destination_port(), oracle.destination_port());
            assert_eq!(tcp.sequence(), oracle.sequence_number());
            assert_eq!(tcp.acknowledgment(), oracle.acknowledgment_number());
            assert_eq!(tcp.header_len(), oracle.slice().len());
            assert_eq!(tcp.window(), oracle.window_size());
            assert_eq!(tcp.checksum(), oracle.checksum());
            assert_eq!(tcp.options(), oracle.options());
            let flags = [
                oracle.fin(),
                oracle.syn(),
                oracle.rst(),
                oracle.psh(),
                oracle.ack(),
                oracle.urg(),
                oracle.ece(),
                oracle.cwr(),
            ];
            for (bit, set) in flags.into_iter().enumerate() {
                assert_eq!(tcp.flags() >> bit & 1 != 0, set, "flag {bit}");
            }
        }
        (Err(_), Err(_)) => {}
        (ours, oracle) => panic!("{ours:?} against {oracle:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn ipv4_headers(oracle in oracle_v4()) {
        let mut bytes = oracle.to_bytes().to_vec();
        bytes.extend(b"data");
        let ipv4 = Ipv4::parse(&bytes).unwrap();
        compare_v4(&ipv4, &Ipv4HeaderSlice::from_slice(&bytes).unwrap());
        prop_assert_eq!(ipv4.payload(), b"data");
    }

    #[test]
    fn emitted_ipv4_headers(oracle in oracle_v4()) {
        let oracle = {
            let mut header = Ipv4Header {
                options: Ipv4Options::default(),
                more_fragments: false,
                fragment_offset: IpFragOffset::ZERO,
                ..oracle
            };
            header.header_checksum = header.calc_header_checksum();
            header
        };
        let mut out = [0xaa; 20];
        Ipv4Repr {
            source: oracle.source,
            destination: oracle.destination,
            protocol: oracle.protocol.0,
            ttl: oracle.time_to_live,
            traffic_class: oracle.dscp.value() << 2 | oracle.ecn.value(),
            dont_fragment: oracle.dont_fragment,
            identification: oracle.identification,
            payload_len: oracle.total_len - 20,
        }
        .emit(&mut out);
        prop_assert_eq!(&out[..], &oracle.to_bytes()[..]);
    }

    #[test]
    fn ipv6_headers(
        source in any::<[u8; 16]>(), destination in any::<[u8; 16]>(), next_header in any::<u8>(),
        hop_limit in any::<u8>(), traffic_class in any::<u8>(), flow_label in 0u32..0x10_0000,
        payload_len in any::<u16>(),
    ) {
        let oracle = Ipv6Header {
            traffic_class,
            flow_label: Ipv6FlowLabel::try_new(flow_label).unwrap(),
            payload_length: payload_len,
            next_header: IpNumber(next_header),
            hop_limit,
            source,
            destination,
        };
        let repr = Ipv6Repr {
            source, destination, next_header, hop_limit, traffic_class, flow_label, payload_len,
        };
        let mut out = [0xaa; 40];
        repr.emit(&mut out);
        prop_assert_eq!(out, oracle.to_bytes());
        let mut packet = out.to_vec();
        packet.resize(40 + usize::from(payload_len), 0);
        compare_v6(&Ipv6::parse(&packet).unwrap(), &oracle);
    }

    #[test]
    fn extension_chains(
        first in extension(), payload in vec(prop_oneof![extension(), 0u8..4, any::<u8>()], 0..120),
    ) {
        compare_extensions(first, &payload);
    }

    #[test]
    fn tcp_segments(mut segment in vec(any::<u8>(), 0..100), words in 4u8..16) {
        if let Some(byte) = segment.get_mut(12) {
            *byte = words << 4;
        }
        compare_tcp(&segment);
    }
}

fn extension() -> impl Strategy<Value = u8> {
    prop::sample::select(vec![0u8, 43, 44, 51, 60, 135, 139, 140])
}

/// How many headers of each kind were compared.
#[derive(Debug, Default)]
struct Seen {
    files: usize,
    ipv4: usize,
    ipv4_refused: usize,
    ipv6: usize,
    tcp: usize,
    udp: usize,
}

/// Every Ethernet frame of every capture, traffic and malformed.
#[test]
fn captures() {
    let Some(root) = std::env::var_os("SLUICE_TESTDATA") else {
        eprintln!("skipped: captures, since SLUICE_TESTDATA is not set");
        return;
    };
    let mut seen = Seen::default();
    for folder in ["captures/traffic", "captures/malformed"] {
        let folder = std::path::Path::new(&root).join(folder);
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{folder:?}: {e}")) {
            let path = entry.unwrap().path();
            let Ok(file) = std::fs::File::open(&path) else { continue };
            // Other formats and link types, and files that are broken themselves, are passed over.
            let Ok(mut reader) = pcap_file::pcap::PcapReader::new(file) else { continue };
            if reader.header().datalink != pcap_file::DataLink::ETHERNET {
                continue;
            }
            seen.files += 1;
            while let Some(Ok(packet)) = reader.next_packet() {
                compare_frame(&packet.data, &mut seen);
            }
        }
    }
    eprintln!("{seen:?}");
    assert!(seen.files > 100 && seen.ipv4 > 1000 && seen.ipv6 > 100, "{seen:?}");
    assert!(seen.tcp > 1000 && seen.udp > 500, "{seen:?}");
}

fn compare_frame(frame: &[u8], seen: &mut Seen) {
    let Some(packet) = ethernet::payload(frame) else { return };
    let (protocol, transport) = match ethernet::ethertype(frame) {
        Some(ethernet::ETHERTYPE_IPV4) => match Ipv4::parse(packet) {
            Ok(ipv4) => {
                seen.ipv4 += 1;
                let oracle = Ipv4HeaderSlice::from_slice(packet).unwrap();
                compare_v4(&ipv4, &oracle);
                assert_eq!(ipv4.checksum(), oracle.to_header().calc_header_checksum());
                if ipv4.fragment_offset_bytes() > 0 {
                    return;
                }
                (ipv4.protocol(), ipv4.payload())
            }
            Err(error) => {
                // The oracle does not look at the checksum, nor at the frame's length here.
                seen.ipv4_refused += 1;
                if let Ok(oracle) = Ipv4HeaderSlice::from_slice(packet) {
                    let header = oracle.to_header();
                    let is_right = header.header_checksum == header.calc_header_checksum();
                    let fits = usize::from(header.total_len) <= packet.len()
                        && usize::from(header.total_len) >= header.header_len();
                    assert!(!is_right || !fits, "{error}");
                }
                return;
            }
        },
        Some(ethernet::ETHERTYPE_IPV6) => {
            let Ok(ipv6) = Ipv6::parse(packet) else { return };
            seen.ipv6 += 1;
            compare_v6(&ipv6, &Ipv6Header::from_slice(packet).unwrap().0);
            compare_extensions(ipv6.next_header(), ipv6.payload());
            match ipv6::walk_extensions(ipv6.next_header(), ipv6.payload()) {
                Ok(upper) if !upper.is_later_fragment() => {
                    (upper.protocol, &ipv6.payload()[upper.offset..])
                }
                _ => return,
            }
        }
        _ => return,
    };
    match protocol {
        wire::protocol::TCP => {
            seen.tcp += 1;
            compare_tcp(transport);
            // What is written back from the oracle's fields reads the same.
            if let Ok((header, _)) = TcpHeader::from_slice(transport) {
                compare_tcp(&header.to_bytes());
            }
        }
        wire::protocol::UDP => {
            seen.udp += 1;
            if let (Ok(udp), Ok((oracle, _))) =
                (Udp::parse(transport), UdpHeader::from_slice(transport))
            {
                assert_eq!(udp.source_port(), oracle.source_port);
                assert_eq!(udp.destination_port(), oracle.destination_port);
                assert_eq!(udp.length(), oracle.length);
                assert_eq!(udp.checksum(), oracle.checksum);
            }
        }
        _ => {}
    }
}
