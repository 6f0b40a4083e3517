//! `sluice capture`: live frames of the running router in a pcapng file, each with what became of it as
//! a comment.

use std::borrow::Cow;
use std::fs::File;
use std::io::BufWriter;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use control::socket::{TapRequest, TapScopeRequest};
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::interface_statistics::{
    InterfaceStatisticsBlock, InterfaceStatisticsOption,
};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::{DataLink, Endianness};
use serde_json::Value;
use wire::MacAddress;

use crate::cli::CaptureArgs;
use crate::explain::{self, VerdictReport};
use crate::filter;
use crate::tap::{self, TapSession};

/// How long nothing must have come before the router is asked again.
const PAUSE: Duration = Duration::from_millis(20);

/// Frames of each worker that are taken at once.
const FRAMES_AT_ONCE: usize = 1024;

/// `epb_flags` of the pcapng specification, section 4.3.1: bits 0 and 1 are the direction.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// Runs `sluice capture`.
pub(crate) fn run(args: &CaptureArgs) -> Result<()> {
    let request = TapRequest {
        scope: TapScopeRequest::Target(args.target.clone()),
        filter: filter::compile(&args.filter)?,
        snap_bytes: args.snaplen,
    };
    let stop = tap::stop_flag()?;
    let begin = Instant::now();
    let mut session = TapSession::open(&args.socket.socket, request)?;
    let file = File::create(&args.write).with_context(|| args.write.display().to_string())?;
    let mut out = Out::new(BufWriter::new(file), &session, args)?;
    eprintln!("capturing {} to {}", args.target, args.write.display());
    let mut is_over = false;
    while !is_over {
        is_over = stop.load(Ordering::Relaxed)
            || args.duration.is_some_and(|seconds| begin.elapsed().as_secs_f64() >= seconds);
        // After the end was called for, what was copied until then is still written.
        loop {
            let copied = session.read(FRAMES_AT_ONCE, false)?;
            if copied.frames.is_empty() {
                break;
            }
            for frame in &copied.frames {
                if args.count.is_some_and(|count| out.frames >= count) {
                    break;
                }
                out.write(frame, session.interface_name(frame))?;
            }
            if args.count.is_some_and(|count| out.frames >= count) {
                is_over = true;
                break;
            }
        }
        if !is_over {
            std::thread::sleep(PAUSE);
        }
    }
    let names: Vec<String> = session.interfaces.iter().map(|(name, _)| name.clone()).collect();
    let lost = session.close()?;
    let frames = out.frames;
    out.finish(&names, &args.target, lost)?;
    eprintln!("{frames} frames written, {lost} more matched and were lost for want of room");
    Ok(())
}

/// The file.
struct Out {
    writer: PcapNgWriter<BufWriter<File>>,
    frames: u64,
    /// Frames written of each interface.
    by_interface: Vec<u64>,
    last_time_ns: u64,
}

impl Out {
    fn new(file: BufWriter<File>, session: &TapSession, args: &CaptureArgs) -> Result<Self> {
        let program = format!("sluice {}", env!("CARGO_PKG_VERSION"));
        let section = SectionHeaderBlock {
            endianness: Endianness::Little,
            options: vec![SectionHeaderOption::UserApplication(program.into())],
            ..SectionHeaderBlock::default()
        };
        let mut writer = PcapNgWriter::with_section_header(file, section)?;
        for (name, mac) in &session.interfaces {
            let mut options = vec![
                InterfaceDescriptionOption::IfName(Cow::Owned(name.clone())),
                // Nanoseconds.
                InterfaceDescriptionOption::IfTsResol(9),
            ];
            if let Ok(mac) = mac.parse::<MacAddress>() {
                options.push(InterfaceDescriptionOption::IfMacAddr(Cow::Owned(mac.0.to_vec())));
            }
            if !args.filter.is_empty() {
                // Code 0: a libpcap filter string.
                let filter = [&[0], args.filter.as_bytes()].concat();
                options.push(InterfaceDescriptionOption::IfFilter(Cow::Owned(filter)));
            }
            writer.write_pcapng_block(InterfaceDescriptionBlock {
                linktype: DataLink::ETHERNET,
                snaplen: u32::try_from(args.snaplen)?,
                options,
            })?;
        }
        let by_interface = vec![0; session.interfaces.len()];
        Ok(Self { writer, frames: 0, by_interface, last_time_ns: 0 })
    }

    fn write(&mut self, frame: &Value, interface: &str) -> Result<()> {
        let number = |key: &str| frame[key].as_u64().unwrap_or_default();
        let is_sent = frame["direction"] == "sent";
        let time_ns = number("time_ns");
        let position = number("interface");
        let bytes = explain::from_hex(frame["bytes"].as_str().unwrap_or_default())?;
        let flags = if is_sent { OUTBOUND } else { INBOUND };
        self.writer.write_pcapng_block(EnhancedPacketBlock {
            interface_id: u32::try_from(position)?,
            timestamp: Duration::from_nanos(time_ns),
            original_len: u32::try_from(number("length"))?,
            data: Cow::Owned(bytes),
            options: vec![
                EnhancedPacketOption::Comment(Cow::Owned(comment(frame, interface)?)),
                EnhancedPacketOption::Flags(flags),
            ],
        })?;
        self.frames += 1;
        self.last_time_ns = time_ns;
        if let Some(count) =
            usize::try_from(position).ok().and_then(|at| self.by_interface.get_mut(at))
        {
            *count += 1;
        }
        Ok(())
    }

    /// Writes how many frames there are and how many were lost. A loss belongs to the tap: it stands
    /// with the interface that was asked for, or else with the first.
    fn finish(mut self, names: &[String], target: &str, lost: u64) -> Result<()> {
        let asked = names.iter().position(|name| name == target);
        let counts = std::mem::take(&mut self.by_interface);
        for (position, count) in counts.into_iter().enumerate() {
            let mut options = vec![InterfaceStatisticsOption::IsbUsrDeliv(count)];
            if position == asked.unwrap_or(0) {
                options.push(InterfaceStatisticsOption::IsbIfDrop(lost));
                if asked.is_none() {
                    let words = "frames lost: of all interfaces together";
                    options.push(InterfaceStatisticsOption::Comment(words.into()));
                }
            }
            self.writer.write_pcapng_block(InterfaceStatisticsBlock {
                interface_id: u32::try_from(position)?,
                // The upper half comes first in the file, in either byte order; the crate writes one
                // little-endian number.
                timestamp: self.last_time_ns.rotate_left(32),
                options,
            })?;
        }
        let file = self.writer.into_inner();
        file.into_inner().context("the file cannot be written to its end")?.sync_all()?;
        Ok(())
    }
}

fn comment(frame: &Value, interface: &str) -> Result<String> {
    let verdict: VerdictReport = serde_json::from_value(frame["verdict"].clone())?;
    let mut words = match frame["direction"].as_str() {
        Some("sent") if frame["originated"] == true => {
            format!("sent by {interface}, made by the router")
        }
        Some("sent") => format!("sent by {interface}"),
        _ => verdict.words(),
    };
    if frame["mirrored"] == true {
        words += ", mirrored by a plugin";
    }
    if frame["was_held"] == true {
        words += ", after it was held";
    }
    Ok(words)
}
