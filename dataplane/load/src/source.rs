//! What a sender sends: packets of a profile, or of a capture.

use std::num::NonZeroU16;
use std::path::Path;

use frame::Frame;
use pcap_file::DataLink;
use pcap_file::pcap::PcapReader;
use wire::{Ipv4, Ipv6, MacAddress, checksum, ethernet, protocol};

use crate::profile::{FRAME_BYTES_MAX, FRAME_BYTES_MIN, Stations, Traffic};
use crate::tag::TAG_LEN;
use crate::{LoadError, layout};

/// What a sender sends.
#[derive(Clone, Debug)]
pub enum Source {
    /// Packets of a profile.
    Profile(Traffic),
    /// Packets of a capture, by sockets only.
    Capture(Capture),
}

/// The packets of a capture in their order; their times are not kept.
///
/// A packet is sent as it was captured but for two things: MAC addresses, if new ones are asked
/// for, and the tag, which takes the first 18 bytes of the payload of UDP or TCP, with the checksum
/// made right. Packets without that much payload, fragments, and whatever is neither UDP nor TCP go
/// without a tag: what of them arrives can only be counted.
#[derive(Clone, Debug)]
pub struct Capture {
    packets: Vec<Captured>,
    untagged: usize,
    skipped: usize,
    name: String,
}

#[derive(Clone, Debug)]
struct Captured {
    bytes: Box<[u8]>,
    tag: Option<TagPlace>,
}

/// Where in a captured packet the tag goes.
#[derive(Clone, Copy, Debug)]
struct TagPlace {
    tag_offset: usize,
    /// Absent for UDP over IPv4 without checksum.
    checksum_offset: Option<NonZeroU16>,
    /// One's-complement sum of all that the checksum covers, with checksum and tag zero.
    checksum_base: u32,
}

impl Source {
    /// Positions of the order, which is walked again and again.
    #[must_use]
    pub(crate) fn positions(&self) -> usize {
        match self {
            Self::Profile(traffic) => traffic.order.len(),
            Self::Capture(capture) => capture.packets.len(),
        }
    }

    /// The traffic in words.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Profile(traffic) => traffic.text.clone(),
            Self::Capture(capture) => capture.text(),
        }
    }

    /// Mean length of a frame in bytes, without check sequence.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "some gigabytes at most")]
    pub fn frame_bytes_mean(&self) -> f64 {
        match self {
            Self::Profile(traffic) => traffic.frame_bytes_mean,
            Self::Capture(capture) => {
                let all: usize = capture.packets.iter().map(|packet| packet.bytes.len()).sum();
                all as f64 / capture.packets.len().max(1) as f64
            }
        }
    }

    /// Length of the longest frame in bytes, without check sequence.
    #[must_use]
    pub fn frame_bytes_max(&self) -> usize {
        match self {
            Self::Profile(traffic) => traffic.frame_bytes_max.into(),
            Self::Capture(capture) => {
                capture.packets.iter().map(|packet| packet.bytes.len()).max().unwrap_or(0)
            }
        }
    }

    /// Whether every packet has a tag, so that loss, duplicates and order are known of each.
    #[must_use]
    pub fn is_tagged(&self) -> bool {
        match self {
            Self::Profile(_) => true,
            Self::Capture(capture) => capture.untagged == 0,
        }
    }

    /// Writes the packet at a position of the order into a frame, with the tag that `tag` makes.
    /// Returns whether it has one.
    #[inline]
    pub(crate) fn write(
        &self,
        position: usize,
        frame: &mut Frame,
        tag: impl FnOnce() -> [u8; TAG_LEN],
    ) -> bool {
        match self {
            Self::Profile(traffic) => {
                let image = &traffic.images[traffic.order[position] as usize];
                let bytes = frame.reset(image.frame_len.into()).expect("a packet fits a chunk");
                layout::fill(bytes, image, &tag());
                true
            }
            Self::Capture(capture) => {
                let packet = &capture.packets[position];
                let bytes = frame.reset(packet.bytes.len()).expect("a packet fits a chunk");
                packet.write(bytes, tag)
            }
        }
    }
}

impl Captured {
    fn write(&self, out: &mut [u8], tag: impl FnOnce() -> [u8; TAG_LEN]) -> bool {
        out.copy_from_slice(&self.bytes);
        let Some(place) = self.tag else { return false };
        let tag = tag();
        out[place.tag_offset..place.tag_offset + TAG_LEN].copy_from_slice(&tag);
        if let Some(at) = place.checksum_offset {
            let sum = checksum::ones_complement_sum(&tag, place.checksum_base);
            let at = usize::from(at.get());
            out[at..at + 2].copy_from_slice(&layout::finish(sum));
        }
        true
    }
}

impl Capture {
    /// Reads a capture of Ethernet frames. With `stations`, every frame gets these MAC addresses.
    ///
    /// # Errors
    /// [`LoadError::Capture`] when the file cannot be read, is not of Ethernet, or holds nothing that
    /// can be sent.
    pub fn read(path: &Path, stations: Option<Stations>) -> Result<Self, LoadError> {
        let failed =
            |reason: String| LoadError::Capture { path: path.display().to_string(), reason };
        let file = std::fs::File::open(path).map_err(|error| failed(error.to_string()))?;
        let mut reader = PcapReader::new(std::io::BufReader::new(file))
            .map_err(|error| failed(format!("this is no pcap file ({error})")))?;
        let link = reader.header().datalink;
        if link != DataLink::ETHERNET {
            return Err(failed(format!("its packets are {link:?}, not Ethernet frames")));
        }
        let mut capture = Self {
            packets: Vec::new(),
            untagged: 0,
            skipped: 0,
            name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        };
        while let Some(record) = reader.next_packet() {
            let record = record.map_err(|error| failed(error.to_string()))?;
            let is_whole = record.orig_len as usize == record.data.len();
            let fits = (ethernet::HEADER_LEN..=FRAME_BYTES_MAX.into()).contains(&record.data.len());
            if is_whole && fits {
                capture.push(record.data.into_owned(), stations);
            } else {
                capture.skipped += 1;
            }
        }
        if capture.packets.is_empty() {
            return Err(failed(format!(
                "no packet of it can be sent ({} were cut short or are longer than {FRAME_BYTES_MAX} \
                 bytes)",
                capture.skipped
            )));
        }
        Ok(capture)
    }

    fn push(&mut self, mut bytes: Vec<u8>, stations: Option<Stations>) {
        if let Some(Stations { source, destination }) = stations {
            bytes[..6].copy_from_slice(&destination.0);
            bytes[6..12].copy_from_slice(&source.0);
        }
        bytes.resize(bytes.len().max(FRAME_BYTES_MIN.into()), 0);
        let tag = place_tag(&bytes);
        self.untagged += usize::from(tag.is_none());
        self.packets.push(Captured { bytes: bytes.into(), tag });
    }

    /// Packets that go without a tag, and packets that cannot be sent.
    #[must_use]
    pub fn untagged_and_skipped(&self) -> (usize, usize) {
        (self.untagged, self.skipped)
    }

    fn text(&self) -> String {
        let mut text = format!("{} packets of {}", self.packets.len(), self.name);
        if self.untagged > 0 {
            text += &format!(
                "; {} have no room for a tag: loss is by count, with foreign packets in it",
                self.untagged
            );
        }
        if self.skipped > 0 {
            text += &format!("; {} more cannot be sent whole", self.skipped);
        }
        text
    }
}

/// Where the tag of a captured packet goes; `None` if there is no room for one.
fn place_tag(bytes: &[u8]) -> Option<TagPlace> {
    let (start, end) = layout::payload_bounds(bytes)?;
    if end - start < TAG_LEN {
        return None;
    }
    let ip = ethernet::payload(bytes)?;
    let (l4_at, pseudo, number) = if ethernet::ethertype(bytes)? == ethernet::ETHERTYPE_IPV4 {
        let ip = Ipv4::parse(ip).ok()?;
        let l4_len = ip.total_len() - u16::try_from(ip.header_len()).ok()?;
        let sum = checksum::pseudo_header_v4(ip.source(), ip.destination(), ip.protocol(), l4_len);
        (ethernet::HEADER_LEN + ip.header_len(), sum, ip.protocol())
    } else {
        let ip = Ipv6::parse(ip).ok()?;
        let l4_len = ip.payload_len().into();
        let sum =
            checksum::pseudo_header_v6(ip.source(), ip.destination(), ip.next_header(), l4_len);
        (ethernet::HEADER_LEN + wire::ipv6::HEADER_LEN, sum, ip.next_header())
    };
    let at = l4_at + if number == protocol::UDP { 6 } else { 16 };
    let has_checksum = number == protocol::TCP || bytes[at..at + 2] != [0, 0];
    let mut covered = bytes[l4_at..end].to_vec();
    covered[at - l4_at..at - l4_at + 2].fill(0);
    covered[start - l4_at..start - l4_at + TAG_LEN].fill(0);
    Some(TagPlace {
        tag_offset: start,
        checksum_offset: if has_checksum { NonZeroU16::new(u16::try_from(at).ok()?) } else { None },
        checksum_base: checksum::ones_complement_sum(&covered, pseudo),
    })
}

impl Stations {
    /// Whether both addresses are those of one station each.
    #[must_use]
    pub fn are_unicast(&self) -> bool {
        [self.source, self.destination]
            .iter()
            .all(|address: &MacAddress| !address.is_multicast() && !address.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use etherparse::PacketBuilder;
    use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};

    use super::*;
    use crate::tag::{Tag, TagKey};

    fn udp(payload: usize) -> Vec<u8> {
        let mut packet = Vec::new();
        PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .udp(1111, 2222)
            .write(&mut packet, &vec![0x5a; payload])
            .expect("a packet");
        packet
    }

    fn write(packets: &[Vec<u8>], link: DataLink) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        let header = PcapHeader { datalink: link, ..PcapHeader::default() };
        let mut writer = PcapWriter::with_header(Vec::new(), header).expect("a header");
        for packet in packets {
            let packet = PcapPacket::new(Duration::ZERO, packet.len() as u32, packet);
            writer.write_packet(&packet).expect("a packet");
        }
        file.write_all(&writer.into_writer()).expect("a capture");
        file
    }

    #[test]
    fn a_captured_packet_is_tagged_and_stays_valid() {
        let file = write(&[udp(18), udp(17), udp(301)], DataLink::ETHERNET);
        let to = MacAddress([2, 0, 0, 0, 0, 9]);
        let stations = Stations { source: MacAddress([2, 0, 0, 0, 0, 8]), destination: to };
        let capture = Capture::read(file.path(), Some(stations)).expect("a capture");
        assert_eq!(capture.untagged_and_skipped(), (1, 0));
        assert!(capture.text().contains("1 have no room for a tag"), "{}", capture.text());
        let key = TagKey::new([1, 2]);
        let tag = Tag { stream: 0, sequence: 5, timestamp_ns: 6 };
        for packet in &capture.packets {
            let mut out = vec![0; packet.bytes.len()];
            let tagged = packet.write(&mut out, || tag.encode(&key));
            assert_eq!(ethernet::destination(&out), Some(to));
            let sliced = etherparse::SlicedPacket::from_ethernet(&out).expect("a packet");
            let (Some(etherparse::NetSlice::Ipv4(ip)), Some(etherparse::TransportSlice::Udp(udp))) =
                (&sliced.net, &sliced.transport)
            else {
                panic!("UDP over IPv4");
            };
            let sum = udp.to_header().calc_checksum_ipv4(&ip.header().to_header(), udp.payload());
            assert_eq!(sum, Ok(udp.checksum()));
            let found = layout::locate_tag(&out).and_then(|bytes| Tag::decode(bytes, &key));
            assert_eq!(found, tagged.then_some(tag));
        }
    }

    #[test]
    fn what_is_no_capture_of_ethernet_is_refused() {
        let file = write(&[udp(18)], DataLink::RAW);
        let refused = |path: &Path| Capture::read(path, None).expect_err("no capture").to_string();
        assert!(refused(file.path()).contains("not Ethernet"), "{}", refused(file.path()));
        let empty = write(&[], DataLink::ETHERNET);
        assert!(refused(empty.path()).contains("no packet"));
        let mut text = tempfile::NamedTempFile::new().expect("a file");
        text.write_all(b"this is no capture, and long enough for a header").expect("a file");
        assert!(refused(text.path()).contains("no pcap file"));
        assert!(refused(Path::new("/does/not/exist")).contains("No such file"));
    }
}
