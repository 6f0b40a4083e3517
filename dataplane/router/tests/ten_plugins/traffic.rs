//! [`Traffic`]: numbered packets into one end of the router, and a ledger of what comes out of the other.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::net::Tap;
use crate::net::two_links::{LAN, WAN};
use crate::packet::{Random, TCP, UDP, V4, ethernet, ones_sum};

/// The router's own address on the link by which packets come.
const ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Where all packets go.
const DESTINATION: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);
/// What a payload begins with, to be told from whatever else there is on a link.
const MARK: &[u8; 8] = b"numbered";
/// Packets that may be sent one after the other by a thread that was held up.
const BURST_MAX: u32 = 64;
/// How long nothing more must come before what is missing is lost.
const QUIET: Duration = Duration::from_secs(2);

/// A kind of packet, by what plugins say of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No plugin minds it.
    Plain,
    /// What hostile modules trap at; no sound one minds it.
    Bait,
    /// The first segment of a TCP connection, which a guard counts.
    Syn,
    /// From a source that is said to be near and came from far.
    Far,
    /// To the port that the filter of this number drops.
    Filtered(u16),
}

/// The first port that a filter drops; the others follow.
pub(crate) const FILTERED: u16 = 2000;

impl Kind {
    fn of(random: &mut Random) -> Self {
        match random.below(100) {
            0..5 => Self::Bait,
            5..10 => Self::Syn,
            10..13 => Self::Far,
            13..25 => Self::Filtered(random.below(4) as u16),
            _ => Self::Plain,
        }
    }

    fn frame(self, number: u64) -> Vec<u8> {
        let low = number as u8;
        let source = match self {
            Self::Far => Ipv4Addr::new(203, 0, 113, low),
            _ => Ipv4Addr::new(198, 51, 100, low),
        };
        let mut header = V4::new(source, DESTINATION);
        let payload = [&MARK[..], &number.to_be_bytes()].concat();
        let port = match self {
            Self::Plain | Self::Far => 3000 + (number % 1000) as u16,
            Self::Bait => 7,
            Self::Syn => 80,
            Self::Filtered(filter) => FILTERED + filter,
        };
        if self == Self::Far {
            header.ttl = 40;
        }
        if self == Self::Syn {
            header.protocol = TCP;
        }
        let segment = segment(&header, 1024 + (number % 50_000) as u16, port, &payload);
        ethernet(ROUTER, 0x0800, &header.packet(&segment))
    }
}

/// A UDP datagram or a TCP SYN with a payload.
fn segment(ip: &V4, from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let ports = [from.to_be_bytes(), to.to_be_bytes()].concat();
    let (mut segment, at) = if ip.protocol == UDP {
        let length = (8 + payload.len()) as u16;
        ([&ports[..], &length.to_be_bytes(), &[0; 2], payload].concat(), 6)
    } else {
        // Number, no acknowledgement, 5 words, SYN, window.
        let rest = [0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0];
        ([&ports[..], &rest, payload].concat(), 16)
    };
    let length = (segment.len() as u16).to_be_bytes();
    let pseudo =
        [&ip.source.octets()[..], &ip.destination.octets(), &[0, ip.protocol], &length].concat();
    let sum = !ones_sum(&[&pseudo, &segment]);
    segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    segment
}

/// The number that a frame bears, if it is one of these.
fn number(frame: &[u8]) -> Option<u64> {
    let length = usize::from(u16::from_be_bytes(*frame.get(16..18)?.first_chunk()?));
    let payload = frame.get(14..14 + length)?.last_chunk::<16>()?;
    let (mark, number) = payload.split_at(8);
    (mark == MARK).then(|| u64::from_be_bytes(*number.first_chunk().expect("eight bytes")))
}

/// What was sent, and what came of it.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// By number.
    pub(crate) sent: Vec<Kind>,
    /// How often each arrived.
    pub(crate) arrived: Vec<u8>,
}

impl Ledger {
    /// Packets of a kind that were sent.
    pub(crate) fn sent_of(&self, kind: impl Fn(Kind) -> bool) -> u64 {
        self.sent.iter().filter(|of| kind(**of)).count() as u64
    }

    /// Arrivals in all.
    pub(crate) fn arrivals(&self) -> u64 {
        self.arrived.iter().map(|times| u64::from(*times)).sum()
    }

    /// Packets that had another fate than `fate` says they must have had, by number and kind: `true` for an
    /// arrival, `false` for none, `None` for either.
    pub(crate) fn wronged(&self, fate: impl Fn(u64, Kind) -> Option<bool>) -> Vec<(u64, Kind, u8)> {
        let all = (0..).zip(self.sent.iter().zip(&self.arrived));
        let wronged = all.filter(|(number, (kind, times))| match fate(*number, **kind) {
            Some(true) => **times != 1,
            Some(false) => **times != 0,
            None => **times > 1,
        });
        wronged.map(|(number, (kind, times))| (number, *kind, *times)).collect()
    }

    fn take(&mut self, frame: &[u8]) {
        let Some(number) = number(frame) else { return };
        let times = usize::try_from(number).ok().and_then(|at| self.arrived.get_mut(at));
        *times.expect("a number that was sent") += 1;
    }
}

/// Packets that are sent on a thread of their own until they are told to end.
#[derive(Debug)]
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Ledger>,
}

impl Traffic {
    /// Begins to send so many packets a second.
    pub(crate) fn start(tap: Tap, rate_pps: u64, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || run(tap, rate_pps, Random(seed), &stopped));
        Self { stop, thread }
    }

    /// Ends it, and waits for what is still on its way.
    pub(crate) fn end(self) -> Ledger {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("no panic")
    }
}

fn run(mut tap: Tap, rate_pps: u64, mut random: Random, stop: &AtomicBool) -> Ledger {
    let mut ledger = Ledger::default();
    let interval = Duration::from_nanos(1_000_000_000 / rate_pps);
    let (mut due, mut last) = (Instant::now(), Instant::now());
    loop {
        let stopped = stop.load(Ordering::Relaxed);
        // A thread that was held up does not make up for it: a burst that fills a ring is no part of the test.
        due = due.max(Instant::now().checked_sub(interval * BURST_MAX).unwrap_or(due));
        while !stopped && due <= Instant::now() {
            due += interval;
            let kind = Kind::of(&mut random);
            tap.send(WAN, &kind.frame(ledger.sent.len() as u64));
            ledger.sent.push(kind);
            ledger.arrived.push(0);
        }
        while let Some(captured) = tap.receive(Duration::from_millis(1)) {
            last = Instant::now();
            if captured.port == LAN {
                ledger.take(&captured.frame);
            }
            if !stopped {
                break;
            }
        }
        if stopped && last.elapsed() > QUIET {
            return ledger;
        }
    }
}
