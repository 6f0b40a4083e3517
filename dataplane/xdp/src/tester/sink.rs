//! [`KernelSink`]: counts tagged packets where they arrive, in the driver.
//!
//! The ledger lives in array maps that are mapped into this process:
//!
//! ```text
//!   cells    CPU, stream   what adds up, and the histogram
//!   strays   CPU           packets without a good tag
//!   nexts    stream        the highest sequence, and when the run started
//!   seen     stream        which sequences of the last window were there, one bit each
//! ```

use std::{fmt, ops::RangeInclusive, os::fd::OwnedFd};

use aya::EbpfLoader;

use super::{
    SinkLedger, SinkTotals, StreamLedger, TesterError, histogram::BUCKETS, mapping::Mapping,
    program,
};
use crate::{AttachedMode, XdpError, XdpMode};

/// The compiled program, and its name.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sink.o"));
const PROGRAM: &str = "tester_sink";

/// Streams that a sink can tell apart.
pub const STREAMS_MAX: u8 = 16;

/// Base-2 logarithms of the smallest and the largest window, in packets.
const WINDOW_BITS: RangeInclusive<u32> = 10..=30;

/// Sequences that an entry of `seen` stands for.
const SEQUENCES_PER_ENTRY_BITS: u32 = 5;

/// Words of the structs of sink.c.
const CELL_WORDS: usize = 16 + BUCKETS;
const STRAY_WORDS: usize = 8;
const NEXT_WORDS: usize = 8;

/// Position of the start in `struct next` of sink.c, behind the sequence.
const NEXT_START_NS: usize = 1;

/// Positions of words in `struct cell` of sink.c.
mod cell {
    pub(super) const PACKETS: usize = 0;
    pub(super) const BYTES: usize = 1;
    pub(super) const REORDERED: usize = 2;
    pub(super) const DUPLICATES: usize = 3;
    pub(super) const UNJUDGED: usize = 4;
    pub(super) const FIRST_NS: usize = 5;
    pub(super) const LAST_NS: usize = 6;
    pub(super) const LATENCY_SUM_NS: usize = 7;
    pub(super) const LATENCY_MIN_INVERTED: usize = 8;
    pub(super) const LATENCY_MAX_NS: usize = 9;
    pub(super) const HISTOGRAM: usize = 16;
}

/// What a sink is to look for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkOptions {
    /// The run's key.
    pub key: [u64; 2],
    /// Streams that are counted, from number 0 on: 1 to [`STREAMS_MAX`].
    pub streams: u8,
    /// How far behind the highest sequence of its stream a packet can come and still be told from a
    /// duplicate: the base-2 logarithm of a number of packets, 10 to 30. Each stream takes
    /// `2^window_bits / 4` bytes of kernel memory.
    pub window_bits: u32,
    /// Destination ports of the run, if it has its own. What comes to them without a good tag is
    /// refused. To other ports only what looks like a tag is: a stream that is counted, and a timestamp
    /// of the last two minutes.
    pub ports: Option<RangeInclusive<u16>>,
    /// Where the program is to run.
    pub mode: XdpMode,
}

impl SinkOptions {
    /// The defaults: a window of 2^24 packets (4 MiB a stream), no ports, in the driver if it can.
    #[must_use]
    pub const fn new(key: [u64; 2], streams: u8) -> Self {
        Self { key, streams, window_bits: 24, ports: None, mode: XdpMode::Auto }
    }

    fn check(&self) -> Result<(), TesterError> {
        let (window_min, window_max) = WINDOW_BITS.into_inner();
        for (what, value, min, max) in [
            ("the number of streams", self.streams.into(), 1, STREAMS_MAX.into()),
            ("window_bits", self.window_bits.into(), window_min.into(), window_max.into()),
        ] {
            if value < min || value > max {
                return Err(TesterError::OutOfRange { what, value, min, max });
            }
        }
        Ok(())
    }
}

/// The counting program on one interface. Tagged packets end there; all others go to the kernel.
/// Dropping it detaches the program.
pub struct KernelSink {
    streams: usize,
    cpus: usize,
    mode: AttachedMode,
    cells: Mapping,
    strays: Mapping,
    nexts: Mapping,
    seen: Mapping,
    _link: OwnedFd,
}

impl KernelSink {
    /// Attaches the program to the interface of the thread's network namespace.
    ///
    /// # Errors
    /// [`TesterError::OutOfRange`], [`TesterError::Load`], [`TesterError::Attach`],
    /// [`TesterError::Map`], and [`XdpError::UnknownInterface`].
    pub fn attach(interface: &str, options: &SinkOptions) -> Result<Self, TesterError> {
        options.check()?;
        let streams = usize::from(options.streams);
        let cpus = aya::util::nr_cpus()
            .map_err(|(operation, error)| XdpError::Host { operation, error })?;
        let entries = streams << (options.window_bits - SEQUENCES_PER_ENTRY_BITS);
        let (port_low, port_high) =
            options.ports.as_ref().map_or((1, 0), |ports| (*ports.start(), *ports.end()));
        let mut object = program::load(
            PROGRAM,
            OBJECT,
            EbpfLoader::new()
                .override_global("key0", &options.key[0], true)
                .override_global("key1", &options.key[1], true)
                .override_global("streams", &u32::from(options.streams), true)
                .override_global("window_bits", &options.window_bits, true)
                .override_global("port_low", &u32::from(port_low), true)
                .override_global("port_high", &u32::from(port_high), true)
                .map_max_entries("cells", (cpus * streams) as u32)
                .map_max_entries("strays", cpus as u32)
                .map_max_entries("nexts", streams as u32)
                .map_max_entries("seen", entries as u32),
        )?;
        let cells = Mapping::take(&mut object, "cells", cpus * streams * CELL_WORDS)?;
        let strays = Mapping::take(&mut object, "strays", cpus * STRAY_WORDS)?;
        let nexts = Mapping::take(&mut object, "nexts", streams * NEXT_WORDS)?;
        let seen = Mapping::take(&mut object, "seen", entries)?;
        let (link, mode) = program::attach(&mut object, PROGRAM, interface, options.mode)?;
        Ok(Self { streams, cpus, mode, cells, strays, nexts, seen, _link: link })
    }

    /// The mode that the kernel gave.
    #[must_use]
    pub fn mode(&self) -> AttachedMode {
        self.mode
    }

    /// The ledger at this moment. While packets arrive, numbers that belong together may differ by
    /// those that are just being counted.
    #[must_use]
    pub fn read(&self) -> SinkLedger {
        let mut streams = vec![StreamLedger::default(); self.streams];
        for (number, ledger) in streams.iter_mut().enumerate() {
            for cpu in 0..self.cpus {
                self.add_cell(cpu, number, ledger);
            }
            ledger.sequence_max = self.nexts.get(number * NEXT_WORDS).checked_sub(1);
        }
        let (refused, foreign) = self.strays();
        SinkLedger { streams, refused, foreign }
    }

    /// The sums of the ledger at this moment: cheaper than [`Self::read`], for progress.
    #[must_use]
    pub fn totals(&self) -> SinkTotals {
        let (refused, foreign) = self.strays();
        let mut totals = SinkTotals { refused, foreign, ..SinkTotals::default() };
        for number in 0..self.cpus * self.streams {
            let word = |position| self.cells.get(number * CELL_WORDS + position);
            let packets = word(cell::PACKETS);
            totals.packets += packets;
            totals.unique += packets.saturating_sub(word(cell::DUPLICATES) + word(cell::UNJUDGED));
            totals.bytes += word(cell::BYTES);
        }
        totals
    }

    /// Forgets everything, for a new run that starts at `start_ns` (`CLOCK_MONOTONIC`), with whatever
    /// sequences. Tagged packets that were sent before are refused from now on: a device under test
    /// may have held them back. One that is being counted meanwhile may be counted in part.
    pub fn reset(&self, start_ns: u64) {
        for stream in 0..self.streams {
            self.nexts.set(stream * NEXT_WORDS + NEXT_START_NS, start_ns);
            self.nexts.set(stream * NEXT_WORDS, 0);
        }
        for map in [&self.cells, &self.strays, &self.seen] {
            map.clear();
        }
    }

    /// The longest latency so far, in nanoseconds; 0 without any.
    #[must_use]
    pub fn latency_max_ns(&self) -> u64 {
        let longest = |number| self.cells.get(number * CELL_WORDS + cell::LATENCY_MAX_NS);
        (0..self.cpus * self.streams).map(longest).max().unwrap_or(0)
    }

    fn strays(&self) -> (u64, u64) {
        let sum = |position| {
            (0..self.cpus).map(|cpu| self.strays.get(cpu * STRAY_WORDS + position)).sum()
        };
        (sum(0), sum(1))
    }

    fn add_cell(&self, cpu: usize, stream: usize, ledger: &mut StreamLedger) {
        let first = (cpu * self.streams + stream) * CELL_WORDS;
        let word = |position| self.cells.get(first + position);
        if word(cell::PACKETS) == 0 {
            return;
        }
        ledger.packets += word(cell::PACKETS);
        ledger.bytes += word(cell::BYTES);
        ledger.reordered += word(cell::REORDERED);
        ledger.duplicates += word(cell::DUPLICATES);
        ledger.unjudged += word(cell::UNJUDGED);
        let (first_ns, last_ns) = (word(cell::FIRST_NS), word(cell::LAST_NS));
        ledger.arrivals_ns = Some(match ledger.arrivals_ns {
            Some((earliest, latest)) => (earliest.min(first_ns), latest.max(last_ns)),
            None => (first_ns, last_ns),
        });
        ledger.latency.add(
            |bucket| word(cell::HISTOGRAM + bucket),
            word(cell::LATENCY_SUM_NS),
            !word(cell::LATENCY_MIN_INVERTED),
            word(cell::LATENCY_MAX_NS),
        );
    }
}

impl fmt::Debug for KernelSink {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("KernelSink")
            .field("streams", &self.streams)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}
