//! Any bytes as a capture: read or refused, and what was read is read again as it was written.

use sim::{read_pcap_bytes, write_pcap_to};

/// The last second that a classic capture can name, in nanoseconds.
const TIME_MAX_NS: u64 = (u32::MAX as u64 + 1) * 1_000_000_000 - 1;

/// The target.
pub fn run(bytes: &[u8]) {
    let capture = match read_pcap_bytes("input", bytes) {
        Ok(capture) => capture,
        Err(error) => return assert!(error.to_string().starts_with("input: ")),
    };
    let held: usize = capture.packets.iter().map(|packet| packet.bytes.len()).sum();
    assert!(held <= bytes.len(), "more packets than bytes");
    let mut written = Vec::new();
    match write_pcap_to("output", &mut written, &capture.packets) {
        Ok(()) => {
            let again = read_pcap_bytes("output", &written).expect("what was written");
            assert_eq!(again.warning, None);
            assert_eq!(again.packets.len(), capture.packets.len());
            for (ours, theirs) in again.packets.iter().zip(&capture.packets) {
                assert_eq!((ours.time_ns, &ours.bytes), (theirs.time_ns, &theirs.bytes));
                let len = u32::try_from(theirs.bytes.len()).expect("a short packet");
                assert_eq!(ours.original_len, theirs.original_len.max(len));
            }
        }
        Err(_) => assert!(
            capture.packets.iter().any(|packet| packet.time_ns > TIME_MAX_NS),
            "it cannot be written"
        ),
    }
}
