//! Captures: round trips, byte orders and resolutions, damage, and the captures of others.

use std::path::Path;

use proptest::prelude::*;
use sim::{Capture, Packet, PcapError, read_pcap, read_pcap_bytes, write_pcap, write_pcap_to};

fn written(packets: &[Packet]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_pcap_to("memory", &mut bytes, packets).expect("packets that fit");
    bytes
}

fn read(bytes: &[u8]) -> Result<Capture, PcapError> {
    read_pcap_bytes("memory", bytes)
}

#[test]
fn the_written_bytes_are_fixed() {
    let packet =
        Packet { time_ns: 1_000_000_007, bytes: vec![0xde, 0xad, 0xbe, 0xef], original_len: 60 };
    let expected = [
        0x4d, 0x3c, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0, //
        1, 0, 0, 0, 7, 0, 0, 0, 4, 0, 0, 0, 60, 0, 0, 0, 0xde, 0xad, 0xbe, 0xef,
    ];
    assert_eq!(written(&[packet]), expected);
}

#[test]
fn both_byte_orders_and_both_resolutions_are_read() {
    for (big, nanos) in [(false, false), (false, true), (true, false), (true, true)] {
        let word = |value: u32| if big { value.to_be_bytes() } else { value.to_le_bytes() };
        let version = if big { [0, 2, 0, 4] } else { [2, 0, 4, 0] };
        let magic = if nanos { 0xa1b2_3c4d } else { 0xa1b2_c3d4 };
        let file = [
            word(magic),
            version,
            word(0),
            word(0),
            word(65_535),
            // The upper bits speak of frame check sequences and are no part of the link type.
            word(0x3000_0001),
            word(5),
            word(9),
            word(2),
            word(1500),
            [0xab, 0xcd, 0, 0],
        ]
        .concat();
        let capture = read(&file[..file.len() - 2]).expect("a capture");
        let time_ns = 5_000_000_000 + if nanos { 9 } else { 9000 };
        let packet = Packet { time_ns, bytes: vec![0xab, 0xcd], original_len: 1500 };
        assert_eq!(capture, Capture { packets: vec![packet], warning: None });
    }
}

#[test]
fn pcapng_times_follow_the_interface() {
    /// A block of a little-endian section.
    fn block(kind: u32, body: &[u8]) -> Vec<u8> {
        let total = u32::try_from(body.len() + 12).unwrap().to_le_bytes();
        [&kind.to_le_bytes(), &total, body, &total].concat()
    }
    let section =
        [&0x1a2b_3c4d_u32.to_le_bytes()[..], &[1, 0, 0, 0], &u64::MAX.to_le_bytes()].concat();
    for (resolution, ticks, time_ns) in [
        (None, 3_u64, 3000),
        (Some(9), 3, 3),
        (Some(3), 3, 3_000_000),
        (Some(0x80 | 10), 1536, 1_500_000_000),
        (Some(0xff), 3, 0),
    ] {
        let mut interface = [1, 0, 0, 0, 0, 0, 0, 0].to_vec();
        if let Some(resolution) = resolution {
            interface.extend([9, 0, 1, 0, resolution, 0, 0, 0, 0, 0, 0, 0]);
        }
        let packet = [
            &0_u32.to_le_bytes()[..],
            &u32::try_from(ticks >> 32).unwrap().to_le_bytes(),
            &u32::try_from(ticks & 0xffff_ffff).unwrap().to_le_bytes(),
            &3_u32.to_le_bytes(),
            &64_u32.to_le_bytes(),
            &[1, 2, 3, 0],
        ]
        .concat();
        let file = [block(0x0a0d_0d0a, &section), block(1, &interface), block(6, &packet)].concat();
        let capture = read(&file).expect("a capture");
        let packet = Packet { time_ns, bytes: vec![1, 2, 3], original_len: 64 };
        assert_eq!(capture, Capture { packets: vec![packet], warning: None });

        let capture = read(&file[..file.len() - 4]).expect("a capture cut off in its last block");
        assert!(capture.packets.is_empty());
        assert!(capture.warning.is_some());
    }
}

#[test]
fn other_link_layers_and_other_files_are_refused_by_name() {
    let mut file = written(&[]);
    file[20] = 113;
    let error = read(&file).expect_err("not Ethernet").to_string();
    assert_eq!(error, "memory: link type LINUX_SLL (113) is not Ethernet");
    for (bytes, reason) in [
        (&b""[..], "the file ends within its header"),
        (b"\xd4\xc3\xb2\xa1\x02\x00", "the file ends within its header"),
        (b"this is a text and no capture", "Invalid field value: PcapHeader: wrong magic number"),
    ] {
        let error = read(bytes).expect_err("no capture").to_string();
        assert_eq!(error, format!("memory: neither pcap nor pcapng: {reason}"));
    }
    let error = read_pcap("/nonexistent/x.pcap").expect_err("no file").to_string();
    assert!(error.starts_with("/nonexistent/x.pcap: "), "{error}");
}

#[test]
fn what_a_capture_cannot_hold_is_refused() {
    let late = Packet::new((u64::from(u32::MAX) + 1) * 1_000_000_000, vec![0; 60]);
    let long = Packet::new(0, vec![0; 262_145]);
    for (packet, reason) in
        [(late, "its time is after the year 2106"), (long, "it is longer than 262,144 bytes")]
    {
        let error = write_pcap_to("out", Vec::new(), [&Packet::default(), &packet])
            .expect_err("no representation")
            .to_string();
        assert_eq!(error, format!("out: packet 1 cannot be written: {reason}"));
    }
}

#[test]
fn files_round_trip() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.pcap");
    let packets = [Packet::new(1, vec![1; 60]), Packet::new(2, vec![2; 1514])];
    write_pcap(&path, &packets).expect("a file");
    let capture = read_pcap(&path).expect("a capture");
    assert_eq!(capture, Capture { packets: packets.to_vec(), warning: None });
}

proptest! {
    // The failing input is printed; a file of seeds beside the sources would say no more.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn packets_round_trip_and_a_cut_loses_only_the_last(
        packets in prop::collection::vec(
            (0..4_000_000_000_000_000_000_u64, prop::collection::vec(any::<u8>(), 0..200), 0..99_u32),
            1..20,
        ),
        cut in 1..16_usize,
    ) {
        let packets: Vec<_> = packets
            .into_iter()
            .map(|(time_ns, bytes, more)| {
                let original_len = u32::try_from(bytes.len()).unwrap() + more;
                Packet { time_ns, bytes, original_len }
            })
            .collect();
        let bytes = written(&packets);
        let capture = read(&bytes).expect("a capture");
        prop_assert_eq!(&capture.packets, &packets);
        prop_assert_eq!(capture.warning, None);
        let capture = read(&bytes[..bytes.len() - cut]).expect("a capture");
        prop_assert_eq!(&capture.packets, &packets[..packets.len() - 1]);
        prop_assert_eq!(
            capture.warning,
            Some(format!("packet {} is cut off", packets.len() - 1))
        );
    }

    #[test]
    fn damage_never_panics(
        ng in any::<bool>(),
        body in prop::collection::vec(any::<u8>(), 0..300),
        words in prop::collection::vec((0..75_usize, 0..64_u32), 0..8),
    ) {
        let mut file = if ng {
            [
                &b"\x0a\x0d\x0d\x0a\x1c\0\0\0\x4d\x3c\x2b\x1a\x01\0\0\0"[..],
                &[0xff; 8],
                b"\x1c\0\0\0\x01\0\0\0\x14\0\0\0\x01\0\0\0\0\0\0\0\x14\0\0\0",
            ]
            .concat()
        } else {
            written(&[])
        };
        file.extend(body);
        // Small numbers at word boundaries look like types and lengths more often than noise does.
        for (position, value) in words {
            if let Some(word) = file.get_mut(position * 4..position * 4 + 4) {
                word.copy_from_slice(&value.to_le_bytes());
            }
        }
        if let Ok(capture) = read(&file) {
            prop_assert!(capture.packets.iter().all(|p| p.bytes.len() <= file.len()));
        }
    }
}

#[test]
fn captures_of_others_are_read_or_refused_with_a_reason() {
    let Some(data) = std::env::var_os("SLUICE_TESTDATA") else {
        eprintln!("SKIPPED captures_of_others: SLUICE_TESTDATA is not set");
        return;
    };
    let (mut packets, mut ethernet, mut other_link, mut warned) = (0, 0, 0, 0);
    for folder in ["captures/traffic", "captures/malformed"] {
        let folder = Path::new(&data).join(folder);
        for entry in std::fs::read_dir(&folder).expect("the folder of captures") {
            let path = entry.expect("an entry").path();
            if path.extension().is_none_or(|extension| extension != "pcap") {
                continue;
            }
            match read_pcap(&path) {
                Ok(capture) => {
                    ethernet += 1;
                    packets += capture.packets.len();
                    warned += usize::from(capture.warning.is_some());
                    // What was read survives a round trip.
                    assert_eq!(
                        read(&written(&capture.packets)).expect("a capture").packets,
                        capture.packets,
                        "{}",
                        path.display()
                    );
                }
                Err(PcapError::LinkType { .. }) => other_link += 1,
                Err(error) => panic!("{error}"),
            }
        }
    }
    println!("{ethernet} captures, {packets} packets, {warned} cut off, {other_link} not Ethernet");
    assert!(ethernet > 200 && packets > 2000, "{ethernet} captures, {packets} packets");
}
