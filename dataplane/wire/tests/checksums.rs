//! Every incremental checksum update against a recomputation, and the fast sum against a slow one.

use proptest::array::{uniform4, uniform16, uniform20};
use proptest::collection::vec;
use proptest::prelude::*;
use wire::checksum::{self, fold, ones_complement_sum};
use wire::{ecn, ipv4, protocol, tcp, udp};

/// RFC 1071 word by word, with a carry that is brought back at once.
fn slow_sum(data: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for word in data.chunks(2) {
        sum += u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0));
        if sum > 0xffff {
            sum -= 0xffff;
        }
    }
    u16::try_from(sum).unwrap()
}

/// A header with its right checksum. Its first byte is the version, so that it is never all zeros.
fn with_checksum(mut header: [u8; 20]) -> [u8; 20] {
    header[0] = 0x45;
    header[10..12].fill(0);
    let checksum = !slow_sum(&header);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    header
}

fn first_four(address: [u8; 16]) -> [u8; 4] {
    *address.first_chunk().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_fast_sum_is_the_slow_one(data in vec(any::<u8>(), 0..3000)) {
        prop_assert_eq!(fold(ones_complement_sum(&data, 0)), slow_sum(&data));
        prop_assert_eq!(checksum::internet_checksum(&data), !slow_sum(&data));
    }

    #[test]
    fn runs_of_ones_and_zeros_carry_right(
        ones in 0usize..200, zeros in 0usize..200, more in 0usize..200,
    ) {
        let data = [vec![0xff; ones], vec![0; zeros], vec![0xff; more]].concat();
        prop_assert_eq!(fold(ones_complement_sum(&data, 0)), slow_sum(&data));
    }

    #[test]
    fn a_sum_may_be_made_of_parts(
        first in vec(any::<[u8; 2]>(), 0..200), second in vec(any::<u8>(), 0..200),
        initial in any::<u32>(),
    ) {
        let first = first.concat();
        let parts = ones_complement_sum(&second, ones_complement_sum(&first, initial));
        let whole = [&initial.to_be_bytes()[..], &first, &second].concat();
        prop_assert_eq!(fold(parts), slow_sum(&whole));
    }

    #[test]
    fn pseudo_headers(
        source in any::<[u8; 16]>(), destination in any::<[u8; 16]>(),
        protocol in any::<u8>(), len in any::<u32>(),
    ) {
        let v6 = [&source[..], &destination, &len.to_be_bytes(), &[0, 0, 0, protocol]].concat();
        let sum = checksum::pseudo_header_v6(&source, &destination, protocol, len);
        prop_assert_eq!(fold(sum), slow_sum(&v6));

        let (source, destination) = (first_four(source), first_four(destination));
        let len = (len >> 16) as u16;
        let v4 = [&source[..], &destination, &[0, protocol], &len.to_be_bytes()].concat();
        let sum = checksum::pseudo_header_v4(source, destination, protocol, len);
        prop_assert_eq!(fold(sum), slow_sum(&v4));
    }

    /// A word, an address of each width: at any even place of a header.
    #[test]
    fn updates_are_recomputations(
        data in vec(any::<[u8; 2]>(), 8..40), at in any::<prop::sample::Index>(),
        new in prop_oneof![any::<u128>(), Just(0), Just(u128::MAX)],
    ) {
        // The last word stays, and is not zero: as in every header (see the invariant).
        let mut data = data.concat();
        data.extend([0x45, 0]);
        let before = !slow_sum(&data);
        let at = at.index((data.len() - 2 - 16) / 2 + 1) * 2;

        let old: [u8; 16] = data[at..at + 16].try_into().unwrap();
        data[at..at + 16].copy_from_slice(&new.to_be_bytes());
        let updated = checksum::update_u128(before, u128::from_be_bytes(old), new);
        prop_assert_eq!(updated, !slow_sum(&data));
        data[at..at + 16].copy_from_slice(&old);

        let (new, old4) = ((new >> 96) as u32, u32::from_be_bytes(old[..4].try_into().unwrap()));
        data[at..at + 4].copy_from_slice(&new.to_be_bytes());
        prop_assert_eq!(checksum::update_u32(before, old4, new), !slow_sum(&data));
        data[at..at + 4].copy_from_slice(&old[..4]);

        let (new, old2) = ((new >> 16) as u16, u16::from_be_bytes([old[0], old[1]]));
        data[at..at + 2].copy_from_slice(&new.to_be_bytes());
        prop_assert_eq!(checksum::update_u16(before, old2, new), !slow_sum(&data));
    }

    #[test]
    fn changes_of_an_ipv4_header(
        header in uniform20(any::<u8>()), traffic_class in any::<u8>(), total_len in any::<u16>(),
        offset_bytes in any::<u16>(), more in any::<bool>(),
    ) {
        let header = with_checksum(header);

        let mut changed = header;
        checksum::decrement_ttl_v4(&mut changed);
        prop_assert_eq!(changed[8], header[8].saturating_sub(1));
        prop_assert_eq!(changed, with_checksum(changed));

        let mut changed = header;
        ecn::set_traffic_class_v4(&mut changed, traffic_class);
        prop_assert_eq!(changed[1], traffic_class);
        prop_assert_eq!(changed, with_checksum(changed));

        let mut changed = header;
        ipv4::set_total_len(&mut changed, total_len);
        prop_assert_eq!(&changed[2..4], &total_len.to_be_bytes());
        prop_assert_eq!(changed, with_checksum(changed));

        let mut changed = header;
        ipv4::set_fragment(&mut changed, offset_bytes, more);
        let word = u16::from(header[6]) << 8 & 0x4000 | u16::from(more) << 13 | offset_bytes >> 3;
        prop_assert_eq!(&changed[6..8], &word.to_be_bytes());
        prop_assert_eq!(changed, with_checksum(changed));
    }

    /// The option at every alignment, in a segment of any content.
    #[test]
    fn a_clamped_segment_has_the_checksum_of_a_new_one(
        source in uniform4(any::<u8>()), destination in uniform4(any::<u8>()),
        fixed in uniform20(any::<u8>()), padding in 0usize..30, mss in any::<u16>(),
        limit in any::<u16>(), payload in vec(any::<u8>(), 0..60),
    ) {
        let mut segment = fixed.to_vec();
        segment.resize(20 + padding, 1);
        segment.extend([2, 4]);
        segment.extend(mss.to_be_bytes());
        segment.resize(segment.len().next_multiple_of(4), 0);
        segment[12] = u8::try_from(segment.len() / 4).unwrap() << 4;
        segment[13] |= tcp::flags::SYN;
        segment.extend(&payload);
        let pseudo = [&source[..], &destination, &[0, protocol::TCP],
            &u16::try_from(segment.len()).unwrap().to_be_bytes()].concat();
        let checksum_of = |segment: &[u8]| {
            let mut whole = pseudo.clone();
            whole.extend_from_slice(segment);
            whole[pseudo.len() + 16..][..2].fill(0);
            !slow_sum(&whole)
        };
        let checksum = checksum_of(&segment);
        segment[16..18].copy_from_slice(&checksum.to_be_bytes());

        let mut expected = segment.clone();
        prop_assert_eq!(tcp::clamp_mss(&mut segment, limit), mss > limit);
        expected[20 + padding + 2..][..2].copy_from_slice(&mss.min(limit).to_be_bytes());
        let checksum = checksum_of(&expected);
        expected[16..18].copy_from_slice(&checksum.to_be_bytes());
        prop_assert_eq!(segment, expected);
    }

    /// Options of any kinds and lengths in any order, well formed or not at their end.
    #[test]
    fn a_segment_with_erased_options_has_the_checksum_of_a_new_one(
        pseudo in vec(any::<[u8; 2]>(), 6), fixed in uniform20(any::<u8>()),
        list in vec((prop_oneof![Just(1u8), 2..=9u8, Just(30), Just(34)], vec(any::<u8>(), 0..9)), 0..9),
        erased in proptest::sample::subsequence(vec![3u8, 4, 8, 30, 34], 0..=5),
        payload in vec(any::<u8>(), 0..40),
    ) {
        let (mut options, mut expected) = (Vec::new(), Vec::new());
        let mut is_changed = false;
        for (kind, body) in list {
            let option = match kind {
                1 => vec![1],
                kind => [&[kind, u8::try_from(body.len() + 2).unwrap()], &body[..]].concat(),
            };
            if options.len() + option.len() > 40 {
                break;
            }
            let is_erased = erased.contains(&kind);
            is_changed |= is_erased;
            expected.extend(if is_erased { vec![1; option.len()] } else { option.clone() });
            options.extend(option);
        }
        for options in [&mut options, &mut expected] {
            options.resize(options.len().next_multiple_of(4), 0);
        }
        let pseudo = pseudo.concat();
        let build = |options: &[u8]| {
            let mut segment = [&fixed[..], options, &payload].concat();
            segment[12] = u8::try_from((20 + options.len()) / 4).unwrap() << 4;
            segment[13] |= tcp::flags::SYN;
            segment[16..18].fill(0);
            let checksum = !slow_sum(&[&pseudo[..], &segment].concat());
            segment[16..18].copy_from_slice(&checksum.to_be_bytes());
            segment
        };
        let mut segment = build(&options);
        prop_assert_eq!(tcp::erase_options(&mut segment, &erased), is_changed);
        prop_assert_eq!(segment, build(&expected));
    }

    #[test]
    fn changes_of_a_traffic_class_leave_the_rest_of_an_ipv6_header_alone(
        mut header in proptest::array::uniform32(any::<u8>()).prop_map(|half| {
            let mut header = [0; 40];
            header[..32].copy_from_slice(&half);
            header
        }),
        traffic_class in any::<u8>(),
    ) {
        let before = header;
        ecn::set_traffic_class_v6(&mut header, traffic_class);
        prop_assert_eq!(header[0] << 4 | header[1] >> 4, traffic_class);
        prop_assert_eq!((header[0] >> 4, header[1] & 15), (before[0] >> 4, before[1] & 15));
        prop_assert_eq!(&header[2..], &before[2..]);
    }

    #[test]
    fn udp_checksums(
        source in uniform16(any::<u8>()), destination in uniform16(any::<u8>()),
        ports in any::<(u16, u16)>(), payload in vec(any::<u8>(), 0..200),
    ) {
        let mut datagram = vec![0; 8];
        datagram.extend(&payload);
        let len = u16::try_from(datagram.len()).unwrap();
        udp::emit_header(datagram.first_chunk_mut().unwrap(), ports.0, ports.1, len, 0);
        let oracle = etherparse::UdpHeader {
            source_port: ports.0, destination_port: ports.1, length: len, checksum: 0,
        };
        prop_assert_eq!(
            udp::checksum_v6(&source, &destination, &datagram),
            oracle.calc_checksum_ipv6_raw(source, destination, &payload).unwrap()
        );
        let (source, destination) = (first_four(source), first_four(destination));
        prop_assert_eq!(
            udp::checksum_v4(source, destination, &datagram),
            oracle.calc_checksum_ipv4_raw(source, destination, &payload).unwrap()
        );
    }
}
