//! [`Traffic`]: numbered packets, and the judgement of where they arrive.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{GROUPS, Groups, STEADY, normal};
use crate::net::{Captured, Tap, wait_until};
use crate::packet;

/// The next hops that a packet may arrive at while each group is in one of these two states.
fn allowed(covering: &[usize], before: &Groups, after: &Groups) -> HashSet<u8> {
    let mut allowed = HashSet::new();
    for &group in covering {
        allowed.extend(before[group]);
        allowed.extend(after[group]);
        if before[group].is_some() && after[group].is_some() {
            break;
        }
    }
    allowed
}

/// Numbered packets to all addresses, again and again, and what became of them.
pub(crate) struct Traffic {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    addresses: Vec<(IpAddr, Vec<usize>)>,
    /// From which packet on which states of the groups are possible.
    phases: Mutex<Vec<(u32, Groups, Groups)>>,
    sent: AtomicU32,
    arrived: AtomicU64,
    misrouted: Mutex<Vec<String>>,
    /// Of each address the last next hop that it arrived at, and the packet.
    last: Mutex<Vec<(u32, u8)>>,
    steady_sent: AtomicU64,
    steady_arrived: AtomicU64,
    stop: AtomicBool,
}

impl Traffic {
    pub(crate) fn start(addresses: Vec<(IpAddr, Vec<usize>)>, sender: Tap, receiver: Tap) -> Self {
        let last = vec![(0, u8::MAX); addresses.len()];
        let shared = Arc::new(Shared {
            addresses,
            phases: Mutex::new(vec![(0, [None; GROUPS], normal())]),
            sent: AtomicU32::new(0),
            arrived: AtomicU64::new(0),
            misrouted: Mutex::default(),
            last: Mutex::new(last),
            steady_sent: AtomicU64::new(0),
            steady_arrived: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let threads = vec![
            std::thread::spawn({
                let shared = Arc::clone(&shared);
                move || shared.send(&sender)
            }),
            std::thread::spawn({
                let shared = Arc::clone(&shared);
                move || shared.receive(receiver)
            }),
        ];
        Self { shared, threads }
    }

    /// From here on groups may be in either state.
    pub(crate) fn begin(&self, before: Groups, after: Groups) {
        let sent = self.shared.sent.load(Ordering::SeqCst);
        self.shared.phases.lock().expect("phases").push((sent, before, after));
        // What was sent until now has arrived before anything changes.
        std::thread::sleep(Duration::from_millis(50));
    }

    /// Waits until every address that has a route is reached by it, then accepts nothing else.
    #[track_caller]
    pub(crate) fn settle(
        &self,
        groups: Groups,
        patience: Duration,
        explain: &dyn Fn(&str) -> String,
    ) {
        let shared = &self.shared;
        let from = shared.sent.load(Ordering::SeqCst);
        let start = Instant::now();
        loop {
            std::thread::sleep(Duration::from_millis(50));
            let now = shared.sent.load(Ordering::SeqCst);
            let rounds = now.saturating_sub(from) as usize / (shared.addresses.len() + 1);
            let last = shared.last.lock().expect("last").clone();
            let unsettled: Vec<String> = shared
                .addresses
                .iter()
                .zip(&last)
                .filter(|((_, covering), (packet, hop))| {
                    let expected = allowed(covering, &groups, &groups);
                    // A packet of the last rounds arrived there, or none can.
                    let is_late = (now - packet) as usize > 3 * (shared.addresses.len() + 1);
                    if expected.is_empty() { !is_late } else { is_late || !expected.contains(hop) }
                })
                .map(|((address, covering), last)| format!("{address} {covering:?} last {last:?}"))
                .collect();
            if rounds >= 2 && unsettled.is_empty() {
                break;
            }
            assert!(
                start.elapsed() < patience,
                "{} addresses do not settle, at packet {now}: {}\n{}",
                unsettled.len(),
                unsettled[..unsettled.len().min(8)].join("; "),
                unsettled
                    .first()
                    .map(|words| explain(words.split(' ').next().unwrap_or_default()))
                    .unwrap_or_default()
            );
        }
        let sent = shared.sent.load(Ordering::SeqCst);
        shared.phases.lock().expect("phases").push((sent, groups, groups));
        eprintln!("  settled within {:?}", start.elapsed());
        // Some rounds that are judged by the new state alone.
        let rounds = 2 * (shared.addresses.len() as u32 + 1);
        wait_until("more traffic", patience, || shared.sent.load(Ordering::SeqCst) > sent + rounds);
    }

    /// Packets of the steady flow that have not arrived so far.
    pub(crate) fn steady_lost(&self) -> u64 {
        let shared = &self.shared;
        let arrived = shared.steady_arrived.load(Ordering::SeqCst);
        shared.steady_sent.load(Ordering::SeqCst) - arrived
    }

    /// Ends the traffic; packets sent, arrived, and those of the steady flow that were lost.
    pub(crate) fn end(mut self) -> (u64, u64, u64) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            thread.join().expect("a thread of the traffic");
        }
        let misrouted = self.shared.misrouted.lock().expect("misrouted");
        assert!(
            misrouted.is_empty(),
            "{} misrouted: {:#?}",
            misrouted.len(),
            &misrouted[..misrouted.len().min(10)]
        );
        let get = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        let steady = get(&self.shared.steady_sent) - get(&self.shared.steady_arrived);
        (self.shared.sent.load(Ordering::SeqCst).into(), get(&self.shared.arrived), steady)
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }
}

impl Shared {
    fn send(&self, sender: &Tap) {
        let mut number = 0_u32;
        let steady: IpAddr = "198.18.7.7".parse().expect("an address");
        'all: loop {
            for (position, (address, _)) in (0_u32..).zip(&self.addresses) {
                if self.stop.load(Ordering::Relaxed) {
                    break 'all;
                }
                number = self.sent.fetch_add(1, Ordering::SeqCst);
                sender.send(0, &frame(*address, number, position));
                if number.is_multiple_of(16) {
                    self.steady_sent.fetch_add(1, Ordering::SeqCst);
                    sender.send(0, &frame(steady, number, u32::MAX));
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        }
        let _ = number;
    }

    fn receive(&self, mut receiver: Tap) {
        let mut ended = None::<Instant>;
        loop {
            if self.stop.load(Ordering::Relaxed) && ended.is_none() {
                ended = Some(Instant::now());
            }
            if ended.is_some_and(|since| since.elapsed() > Duration::from_millis(500)) {
                return;
            }
            let Some(captured) = receiver.receive(Duration::from_millis(50)) else { continue };
            self.judge(&captured);
        }
    }

    fn judge(&self, captured: &Captured) {
        let frame = &captured.frame;
        let Some(at) = frame.windows(8).position(|window| window == b"numbered") else { return };
        let word = |at: usize| frame.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes);
        let (Some(number), Some(position)) = (word(at + 8), word(at + 12)) else { return };
        let hop = match frame.first_chunk::<6>() {
            Some([2, 0, 0, 0, 0xbe, hop]) => *hop,
            other => panic!("a packet to nobody: {other:02x?}"),
        };
        if position == u32::MAX {
            self.steady_arrived.fetch_add(1, Ordering::SeqCst);
            if hop != STEADY {
                self.misrouted.lock().expect("misrouted").push(format!("steady at {hop}"));
            }
            return;
        }
        self.arrived.fetch_add(1, Ordering::SeqCst);
        let (address, covering) = &self.addresses[position as usize];
        let phases = self.phases.lock().expect("phases");
        let (_, before, after) =
            phases.iter().rev().find(|(from, ..)| *from <= number).expect("the first phase");
        if !allowed(covering, before, after).contains(&hop) {
            let words = format!(
                "packet {number} to {address} ({covering:?}) at {hop}, between {before:?} and {after:?}"
            );
            self.misrouted.lock().expect("misrouted").push(words);
        }
        self.last.lock().expect("last")[position as usize] = (number, hop);
    }
}

fn frame(address: IpAddr, number: u32, position: u32) -> Vec<u8> {
    let payload = [&b"numbered"[..], &number.to_be_bytes(), &position.to_be_bytes()].concat();
    packet::udp_frame(address, &payload)
}
