//! Packets are valid by somebody else's parser, and come in the promised frequencies and order.

use std::collections::{HashMap, HashSet};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::*;
use crate::tag::{Tag, TagKey};

fn prefixes(text: &[&str]) -> Addresses {
    Addresses::Prefixes(text.iter().map(|prefix| prefix.parse().expect("a prefix")).collect())
}

fn profile() -> Profile {
    Profile {
        sizes: Sizes::fixed(60).expect("a size"),
        flows: 100,
        popularity: Popularity::Uniform,
        ipv6_share: None,
        kind: Kind::Udp,
        bursts: None,
        sources: prefixes(&["10.1.0.0/16"]),
        destinations: Destinations::Addresses(prefixes(&["10.2.0.0/16"]), PORTS),
        seed: 1,
    }
}

fn both(profile: Profile) -> Profile {
    Profile {
        sources: prefixes(&["10.1.0.0/16", "2001:db8:1::/64"]),
        destinations: Destinations::Addresses(prefixes(&["10.2.0.0/16", "2001:db8:2::/64"]), PORTS),
        ..profile
    }
}

/// How often each image comes.
fn counts(traffic: &Traffic) -> Vec<usize> {
    let mut counts = vec![0; traffic.images.len()];
    for &number in &traffic.order {
        counts[number as usize] += 1;
    }
    counts
}

fn addresses(image: &Image) -> (Vec<u8>, u16) {
    match image.bytes[12..14] {
        [8, 0] => (image.bytes[26..34].to_vec(), image.frame_len),
        _ => (image.bytes[22..54].to_vec(), image.frame_len),
    }
}

/// Asserts that the frame is what a host would take.
fn assert_valid(frame: &[u8]) {
    let packet = SlicedPacket::from_ethernet(frame).expect("a frame");
    let net = packet.net.expect("an IP packet");
    if let NetSlice::Ipv4(ipv4) = &net {
        let header = ipv4.header().to_header();
        assert_eq!(header.header_checksum, header.calc_header_checksum());
    }
    match (packet.transport.expect("a transport header"), &net) {
        (TransportSlice::Udp(udp), NetSlice::Ipv4(ipv4)) => {
            let sum = udp
                .to_header()
                .calc_checksum_ipv4(&ipv4.header().to_header(), udp.payload())
                .expect("a length");
            assert_eq!(udp.checksum(), sum);
        }
        (TransportSlice::Udp(udp), NetSlice::Ipv6(ipv6)) => {
            let sum = udp
                .to_header()
                .calc_checksum_ipv6(&ipv6.header().to_header(), udp.payload())
                .expect("a length");
            assert_eq!(udp.checksum(), sum);
        }
        (TransportSlice::Tcp(tcp), NetSlice::Ipv4(ipv4)) => {
            let header = ipv4.header();
            let sum = tcp.calc_checksum_ipv4(header.source(), header.destination());
            let sum = sum.expect("a length");
            assert_eq!(tcp.checksum(), sum);
        }
        (TransportSlice::Tcp(tcp), NetSlice::Ipv6(ipv6)) => {
            let header = ipv6.header();
            let sum = tcp.calc_checksum_ipv6(header.source(), header.destination());
            let sum = sum.expect("a length");
            assert_eq!(tcp.checksum(), sum);
        }
        other => panic!("neither UDP nor TCP: {other:?}"),
    }
}

proptest! {
    #[test]
    fn every_packet_is_valid(
        size in 60_u16..1515, kind in 0_usize..3, is_ipv6: bool, seed: u64, sequence in 0..1_u64 << 40,
        timestamp_ns: u64,
    ) {
        let kind = [Kind::Udp, Kind::TcpSyn, Kind::TcpAck][kind];
        let profile = both(Profile {
            sizes: Sizes::fixed(size).expect("a size"),
            flows: 3,
            kind,
            ipv6_share: Some(f64::from(u8::from(is_ipv6))),
            seed,
            ..profile()
        });
        let traffic = profile.build(Stations::default()).expect("a profile");
        let key = TagKey::new([seed, 1]);
        for image in &traffic.images {
            prop_assert_eq!(
                usize::from(image.frame_len),
                usize::from(size).max(frame_bytes_min(is_ipv6, kind))
            );
            let mut frame = vec![0xaa; usize::from(image.frame_len)];
            let tag = Tag { stream: 1, sequence, timestamp_ns };
            crate::layout::fill(&mut frame, image, &tag.encode(&key));
            assert_valid(&frame);
            let found = crate::layout::locate_tag(&frame).expect("a tag");
            prop_assert_eq!(Tag::decode(found, &key), Some(tag));
        }
    }

    #[test]
    fn any_profile_is_built_or_refused(
        flows in 0_usize..300, share in proptest::option::of(-0.5..1.5_f64), imix: bool,
        zipf in proptest::option::of(0.1..3.0_f64), burst in proptest::option::of((0_u16..80, 0_u16..9)),
    ) {
        let profile = both(Profile {
            sizes: if imix { Sizes::imix() } else { Sizes::fixed(128).expect("a size") },
            flows,
            ipv6_share: share,
            popularity: zipf.map_or(Popularity::Uniform, Popularity::Zipf),
            bursts: burst.map(|(packets, tail)| Bursts { packets, tail }),
            ..profile()
        });
        if let Ok(traffic) = profile.build(Stations::default()) {
            prop_assert!(!traffic.order.is_empty());
            prop_assert!(counts(&traffic).iter().all(|&count| count > 0), "no image is idle");
        }
    }
}

#[test]
fn uniform_flows_come_equally_often() {
    let traffic = profile().build(Stations::default()).expect("a profile");
    assert_eq!(traffic.images.len(), 100);
    assert!(counts(&traffic).iter().all(|&count| count == 1));
    let tuples: HashSet<_> = traffic.images.iter().map(|image| image.bytes).collect();
    assert_eq!(tuples.len(), 100, "all flows differ");
    assert_eq!(traffic.frame_bytes, Some(60));
    assert_eq!(traffic.text, "60 B, 100 flows, IPv4 UDP");
}

#[test]
fn the_same_seed_gives_the_same_packets() {
    let build = |seed| {
        let traffic = Profile { seed, ..profile() }.build(Stations::default()).expect("a profile");
        (traffic.images.iter().map(|image| image.bytes).collect::<Vec<_>>(), traffic.order)
    };
    assert_eq!(build(5), build(5));
    assert_ne!(build(5).0, build(6).0);
}

#[test]
fn a_mix_of_sizes_is_exact() {
    let traffic = Profile { sizes: Sizes::imix(), ..profile() }
        .build(Stations::default())
        .expect("a profile");
    let mut sizes = HashMap::new();
    for &number in &traffic.order {
        *sizes.entry(traffic.images[number as usize].frame_len).or_insert(0_usize) += 1;
    }
    let all = traffic.order.len();
    assert_eq!(sizes[&60] * 100, all * 58);
    assert_eq!(sizes[&590] * 100, all * 33);
    assert_eq!(sizes[&1514] * 100, all * 9);
    assert!((traffic.frame_bytes_mean - 365.76).abs() < 0.001);
    assert_eq!(traffic.frame_bytes, None);
}

#[test]
fn a_share_of_ipv6_is_exact() {
    let traffic = both(Profile { ipv6_share: Some(0.36), ..profile() })
        .build(Stations::default())
        .expect("a profile");
    let of_ipv6 = traffic
        .order
        .iter()
        .filter(|&&number| traffic.images[number as usize].bytes[12..14] == [0x86, 0xdd])
        .count();
    assert_eq!(of_ipv6 * 100, traffic.order.len() * 36);
    assert_eq!(traffic.frame_bytes_max, 80);
}

#[test]
fn zipf_frequencies_are_plausible() {
    let traffic = Profile { flows: 1000, popularity: Popularity::Zipf(1.0), ..profile() }
        .build(Stations::default())
        .expect("a profile");
    let mut counts = counts(&traffic);
    counts.sort_unstable_by(|a, b| b.cmp(a));
    // The n-th most frequent of 1,000 flows has 1 / (n H(1000)) of the packets, H(1000) = 7.4855.
    for (rank, tolerance) in [(1, 0.02), (2, 0.02), (10, 0.05), (100, 0.1)] {
        let expected = traffic.order.len() as f64 / (rank as f64 * 7.4855);
        let is = counts[rank - 1] as f64;
        assert!((is / expected - 1.0).abs() < tolerance, "rank {rank}: {is}, not {expected}");
    }
}

#[test]
fn bursts_are_of_one_flow() {
    let traffic = Profile { bursts: Some(Bursts { packets: 64, tail: 8 }), ..profile() }
        .build(Stations::default())
        .expect("a profile");
    assert_eq!(traffic.order.len(), 100 * 72);
    for group in traffic.order.chunks_exact(72) {
        assert!(group[..64].iter().all(|number| number == &group[0]));
        let tail: HashSet<_> = group[63..].iter().collect();
        assert_eq!(tail.len(), 9, "the tail is of other flows");
    }
}

/// As many draws lie between two bursts as there are flows, so that a deck for both would give bursts
/// to one flow alone.
#[test]
fn every_flow_has_its_burst() {
    for flows in [1, 2, 9, 90] {
        let bursts = Some(Bursts { packets: 64, tail: 8 });
        let traffic = Profile { bursts, flows, ..profile() }.build(Stations::default());
        let traffic = traffic.expect("a profile");
        let heads: HashSet<_> = traffic.order.chunks_exact(72).map(|group| group[0]).collect();
        assert_eq!(heads.len(), flows, "a burst of each");
        for count in counts(&traffic) {
            assert_eq!(count, 72, "packets of one of {flows} flows");
        }
    }
}

#[test]
fn bursts_keep_the_mix_of_sizes_and_families() {
    for (flows, packets, tail) in [(2, 64, 8), (2, 3, 8), (10, 1000, 7)] {
        let traffic = both(Profile {
            bursts: Some(Bursts { packets, tail }),
            flows,
            sizes: Sizes::imix(),
            ipv6_share: Some(0.36),
            ..profile()
        })
        .build(Stations::default())
        .expect("a profile");
        let share = |is: fn(&Image) -> bool| {
            let count =
                traffic.order.iter().filter(|&&number| is(&traffic.images[number as usize]));
            count.count() as f64 / traffic.order.len() as f64
        };
        for (what, is, expected) in [
            ("IPv6", share(|image| image.bytes[12..14] != [8, 0]), 0.36),
            ("60 or 80 B", share(|image| image.frame_len <= 80), 0.58),
            ("590 B", share(|image| image.frame_len == 590), 0.33),
            ("1514 B", share(|image| image.frame_len == 1514), 0.09),
        ] {
            assert!((is - expected).abs() < 0.002, "{flows}, {packets}: {is} of {what}");
        }
    }
}

#[test]
fn return_traffic_reaches_every_slice() {
    let slices: Vec<SliceRange> = (0..50_u16)
        .map(|number| {
            format!("192.0.2.1:{}-{}", 1024 + number * 256, 1279 + number * 256)
                .parse()
                .expect("a slice")
        })
        .collect();
    let traffic = Profile {
        sources: Addresses::Internet,
        destinations: Destinations::Slices(slices),
        ..profile()
    }
    .build(Stations::default())
    .expect("a profile");
    let mut hits = vec![0; 50];
    for image in &traffic.images {
        let port = u16::from_be_bytes([image.bytes[36], image.bytes[37]]);
        hits[usize::from(port - 1024) / 256] += 1;
    }
    assert!(hits.iter().all(|&count| count == 2), "{hits:?}");
    assert!(traffic.images.iter().all(|image| addresses(image).0[4..] == [192, 0, 2, 1]));
}

#[test]
fn contradictions_are_refused() {
    let refused = |profile: Profile, words: &str| {
        let error = profile.build(Stations::default()).expect_err(words).to_string();
        assert!(error.contains(words), "{error:?} does not say {words:?}");
    };
    refused(Profile { flows: 0, ..profile() }, "0 flows");
    refused(both(profile()), "--ipv6-share");
    refused(Profile { ipv6_share: Some(0.5), ..profile() }, "no IPv6 address");
    refused(Profile { ipv6_share: Some(2.0), ..profile() }, "0 to 100 %");
    refused(Profile { sources: prefixes(&["2001:db8::/64"]), ..profile() }, "same family");
    refused(Profile { popularity: Popularity::Zipf(-1.0), ..profile() }, "exponent");
    let one = Profile {
        flows: 200_000,
        sources: prefixes(&["10.1.0.1/32"]),
        destinations: Destinations::Addresses(prefixes(&["10.2.0.1/32"]), 80..=80),
        ..profile()
    };
    refused(one, "too many");
}

/// Counted one by one there are enough of them, but they are the same ones.
#[test]
fn flows_that_overlap_are_refused_in_time() {
    let refused = |sources: &[&str], destinations: Destinations| {
        let profile =
            Profile { flows: 150_000, sources: prefixes(sources), destinations, ..profile() };
        let error = profile.build(Stations::default()).expect_err("there are not so many");
        assert!(error.to_string().contains("name nothing twice"), "{error}");
    };
    refused(&["10.1.0.1/32"; 5], Destinations::Addresses(prefixes(&["10.2.0.1/32"]), 80..=80));
    let slices =
        ["192.0.2.1:5-5", "192.0.2.1:1024-2047"].map(|text| text.parse().expect("a slice"));
    refused(&["10.1.0.1/32"], Destinations::Slices(slices.to_vec()));
}
