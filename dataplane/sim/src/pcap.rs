//! Captures in and out of files: classic pcap and pcapng to read, classic pcap to write.
//!
//! Reading takes either byte order and micro- or nanoseconds. Only Ethernet is accepted, because
//! nothing here could make sense of another link layer. A capture that was cut off within its last
//! record is read up to there, and says so.
//!
//! Writing is deterministic: little-endian, nanoseconds, version 2.4, snapshot length 262,144; the
//! same packets give the same bytes on every machine.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use pcap_file::pcap::{PcapHeader, PcapParser, PcapWriter, RawPcapPacket};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::{Block, PcapNgParser};
use pcap_file::{DataLink, Endianness, TsResolution};

/// `LINKTYPE_ETHERNET`.
const LINK_TYPE_ETHERNET: u32 = 1;

/// The lower half of a classic header's link-type field; the upper one speaks of frame check
/// sequences (draft-ietf-opsawg-pcap section 4).
const LINK_TYPE_MASK: u32 = 0xffff;

/// `MAXIMUM_SNAPLEN` of libpcap: a record that claims more is damage, not a packet.
const SNAPSHOT_BYTES_MAX: u32 = 262_144;

/// First bytes of a pcapng file: the type of a section header, the same in both byte orders.
const PCAPNG_MAGIC: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// A packet of a capture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// When it was captured, in nanoseconds since 1970.
    pub time_ns: u64,
    /// What was captured of it, from its Ethernet header on.
    pub bytes: Vec<u8>,
    /// How long it was on the wire, in bytes: at least the length of `bytes`.
    pub original_len: u32,
}

impl Packet {
    /// A packet that was captured whole.
    ///
    /// # Panics
    /// When it is longer than 4 GiB.
    #[must_use]
    pub fn new(time_ns: u64, bytes: Vec<u8>) -> Self {
        let original_len = u32::try_from(bytes.len()).expect("a packet is shorter than 4 GiB");
        Self { time_ns, bytes, original_len }
    }
}

/// What a file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capture {
    /// The packets, in the order of the file.
    pub packets: Vec<Packet>,
    /// Why the file was not read to its end, when it was not: its last record is cut off or damaged.
    pub warning: Option<String>,
}

/// Why a capture cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PcapError {
    /// The file cannot be opened, read or written.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The file is no capture.
    #[error("{path}: neither pcap nor pcapng: {reason}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with its header.
        reason: String,
    },
    /// The capture is of another link layer than Ethernet.
    #[error("{path}: link type {link_type} ({number}) is not Ethernet")]
    LinkType {
        /// The file.
        path: PathBuf,
        /// Name of the link type.
        link_type: String,
        /// Number of the link type, as in <https://www.tcpdump.org/linktypes.html>.
        number: u32,
    },
    /// The packet has no representation in a classic capture.
    #[error("{path}: packet {index} cannot be written: {reason}")]
    Packet {
        /// The file.
        path: PathBuf,
        /// Position of the packet, from 0.
        index: usize,
        /// What does not fit.
        reason: &'static str,
    },
}

/// Reads a capture from a file.
///
/// # Errors
/// When the file cannot be read, is no capture, or is of another link layer than Ethernet.
pub fn read_pcap(path: impl AsRef<Path>) -> Result<Capture, PcapError> {
    let path = path.as_ref();
    let bytes = std::fs::read(path).map_err(|error| PcapError::Io { path: path.into(), error })?;
    read_pcap_bytes(path, &bytes)
}

/// Reads a capture from memory; `path` is what errors call it.
///
/// # Errors
/// When the bytes are no capture, or of another link layer than Ethernet.
pub fn read_pcap_bytes(path: impl AsRef<Path>, bytes: &[u8]) -> Result<Capture, PcapError> {
    let path = path.as_ref();
    if bytes.starts_with(&PCAPNG_MAGIC) { read_ng(path, bytes) } else { read_classic(path, bytes) }
}

fn read_classic(path: &Path, bytes: &[u8]) -> Result<Capture, PcapError> {
    let (mut rest, parser) = PcapParser::new(bytes).map_err(|error| format_error(path, &error))?;
    let header = parser.header();
    expect_ethernet(path, u32::from(header.datalink) & LINK_TYPE_MASK)?;
    let nanos_per_unit = match header.ts_resolution {
        TsResolution::MicroSecond => 1000,
        TsResolution::NanoSecond => 1,
    };
    let mut capture = Capture::default();
    while !rest.is_empty() {
        let index = capture.packets.len();
        // The checked reader refuses captures that tools of the field accept (lengths above the
        // snapshot length, fractions above a second): take records as they are.
        let Ok((after, record)) = parser.next_raw_packet(rest) else {
            capture.warning = Some(format!("packet {index} is cut off"));
            break;
        };
        if record.incl_len > SNAPSHOT_BYTES_MAX {
            capture.warning =
                Some(format!("packet {index} claims {} bytes: damaged", record.incl_len));
            break;
        }
        rest = after;
        capture.packets.push(Packet {
            time_ns: u64::from(record.ts_sec) * NANOS_PER_SECOND
                + u64::from(record.ts_frac) * nanos_per_unit,
            original_len: record.orig_len.max(record.incl_len),
            bytes: record.data.into_owned(),
        });
    }
    Ok(capture)
}

fn read_ng(path: &Path, bytes: &[u8]) -> Result<Capture, PcapError> {
    let (mut rest, mut parser) =
        PcapNgParser::new(bytes).map_err(|error| format_error(path, &error))?;
    let mut capture = Capture::default();
    while !rest.is_empty() {
        let index = capture.packets.len();
        let (after, block) = match parser.next_block(rest) {
            Ok(next) => next,
            Err(error) => {
                capture.warning = Some(format!("the block after packet {index}: {error}"));
                break;
            }
        };
        rest = after;
        let (interface, ticks, original_len, data) = match block {
            Block::EnhancedPacket(packet) => {
                // pcap-file gives the raw count of units as if they were nanoseconds, whatever the
                // interface says.
                let ticks = u64::try_from(packet.timestamp.as_nanos()).unwrap_or(u64::MAX);
                (packet.interface_id, ticks, packet.original_len, packet.data)
            }
            Block::SimplePacket(packet) => (0, 0, packet.original_len, packet.data),
            Block::Packet(packet) => {
                let interface = u32::from(packet.interface_id);
                (interface, packet.timestamp, packet.original_len, packet.data)
            }
            _ => continue,
        };
        let Some(interface) = parser.interfaces().get(interface as usize) else {
            capture.warning =
                Some(format!("packet {index} names interface {interface}, which is not described"));
            break;
        };
        expect_ethernet(path, u32::from(interface.linktype))?;
        // A simple packet block has no captured length: its data may end in padding.
        let captured = data.len().min(original_len as usize);
        capture.packets.push(Packet {
            time_ns: ticks_to_nanos(ticks, interface),
            original_len,
            bytes: data.get(..captured).unwrap_or_default().to_vec(),
        });
    }
    Ok(capture)
}

/// Turns a count of an interface's units into nanoseconds: microseconds, unless the option
/// `if_tsresol` names a power of ten or, with its top bit set, of two.
fn ticks_to_nanos(ticks: u64, interface: &InterfaceDescriptionBlock<'_>) -> u64 {
    let resolution = interface.options.iter().find_map(|option| match option {
        InterfaceDescriptionOption::IfTsResol(value) => Some(*value),
        _ => None,
    });
    let resolution = resolution.unwrap_or(6);
    let exponent = u32::from(resolution & 0x7f);
    let base: u128 = if resolution & 0x80 == 0 { 10 } else { 2 };
    let units_per_second = base.checked_pow(exponent).unwrap_or(u128::MAX);
    let nanos = u128::from(ticks) * u128::from(NANOS_PER_SECOND) / units_per_second;
    u64::try_from(nanos).unwrap_or(u64::MAX)
}

fn expect_ethernet(path: &Path, number: u32) -> Result<(), PcapError> {
    if number == LINK_TYPE_ETHERNET {
        return Ok(());
    }
    let link_type = format!("{:?}", DataLink::from(number));
    Err(PcapError::LinkType { path: path.into(), link_type, number })
}

fn format_error(path: &Path, error: &pcap_file::PcapError) -> PcapError {
    let reason = match error {
        pcap_file::PcapError::IncompleteBuffer => "the file ends within its header".to_owned(),
        other => other.to_string(),
    };
    PcapError::Format { path: path.into(), reason }
}

/// Writes packets to a file as classic pcap. The same packets give the same bytes.
///
/// # Errors
/// When the file cannot be written, or a packet has no representation: a time after the year 2106,
/// or more than 262,144 bytes.
pub fn write_pcap<'a>(
    path: impl AsRef<Path>,
    packets: impl IntoIterator<Item = &'a Packet>,
) -> Result<(), PcapError> {
    let path = path.as_ref();
    let io_error = |error| PcapError::Io { path: path.into(), error };
    let mut file = BufWriter::new(File::create(path).map_err(io_error)?);
    write_pcap_to(path, &mut file, packets)?;
    file.flush().map_err(io_error)
}

/// Writes packets to `writer` as classic pcap; `path` is what errors call it.
///
/// # Errors
/// As [`write_pcap`].
pub fn write_pcap_to<'a>(
    path: impl AsRef<Path>,
    writer: impl Write,
    packets: impl IntoIterator<Item = &'a Packet>,
) -> Result<(), PcapError> {
    let path = path.as_ref();
    let write_error = |error| match error {
        pcap_file::PcapError::IoError(error) => PcapError::Io { path: path.into(), error },
        other => PcapError::Io { path: path.into(), error: io::Error::other(other) },
    };
    let header = PcapHeader {
        snaplen: SNAPSHOT_BYTES_MAX,
        ts_resolution: TsResolution::NanoSecond,
        endianness: Endianness::Little,
        ..PcapHeader::default()
    };
    let mut writer = PcapWriter::with_header(writer, header).map_err(write_error)?;
    for (index, packet) in packets.into_iter().enumerate() {
        let refuse = |reason| PcapError::Packet { path: path.into(), index, reason };
        let Ok(ts_sec) = u32::try_from(packet.time_ns / NANOS_PER_SECOND) else {
            return Err(refuse("its time is after the year 2106"));
        };
        let incl_len = match u32::try_from(packet.bytes.len()) {
            Ok(len) if len <= SNAPSHOT_BYTES_MAX => len,
            _ => return Err(refuse("it is longer than 262,144 bytes")),
        };
        // A remainder of a billion fits.
        let ts_frac = (packet.time_ns % NANOS_PER_SECOND) as u32;
        let record = RawPcapPacket {
            ts_sec,
            ts_frac,
            incl_len,
            orig_len: packet.original_len.max(incl_len),
            data: packet.bytes.as_slice().into(),
        };
        writer.write_raw_packet(&record).map_err(write_error)?;
    }
    Ok(())
}
