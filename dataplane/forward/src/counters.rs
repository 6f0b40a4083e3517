//! What a worker counts: one writer, any number of readers, no locked instruction.
//!
//! Accounting identity, for each interface: `rx + taken_over = forwarded + to_kernel + consumed +
//! held + handed_over + sum(drops)`, where everything is charged to the *receiving* interface. Over all
//! workers `handed_over - taken_over` is what is on the rings between them: none when nothing moves.
//!
//! Beside it, for each interface that sends: `tx = forwarded out of it - fragmented +
//! fragments_created + originated out of it`: a packet that leaves in fragments was forwarded once,
//! and each of its fragments was sent. Fragments of a packet that then found the ring full were sent
//! too, and their packet is a drop.
//!
//! And of what the router makes itself, each is sent (`originated`, where it leaves), given to the kernel
//! (`originated_to_kernel`) or lost (`originated_lost`), both charged to the interface that received what it
//! is about; so the kernel gets `to_kernel + originated_to_kernel`.

use std::sync::atomic::{AtomicU64, Ordering};

use frame::DropReason;

use crate::account::ActionCounters;
use crate::{LongTurns, StageCounters};

/// A counter with one writer. Readers on other threads see some recent value.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`. Only the one writer may call this: two writers would lose counts.
    #[inline]
    pub fn add(&self, count: u64) {
        // A load and a store instead of a locked addition: there is one writer.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    /// Replaces the value.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value.
    #[inline]
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is counted for one interface by one worker. Aligned as [`WorkerCounters`] is.
#[derive(Debug)]
#[repr(align(128))]
pub struct InterfaceCounters {
    /// Packets received.
    pub rx_packets: Counter,
    /// Bytes received, Ethernet header included.
    pub rx_bytes: Counter,
    /// Packets received here and sent out of any interface.
    pub forwarded: Counter,
    /// Packets received here and given to the kernel.
    pub to_kernel: Counter,
    /// Packets received here and used up by the router: ICMP errors about tunnel packets of its own.
    pub consumed: Counter,
    /// Packets received here that wait now, for their next hop or for their first fragment: a level, not
    /// a sum. What the router made itself may wait too, and is counted once it leaves or is lost.
    pub held: Counter,
    /// Packets received here by this worker that another worker finishes.
    pub handed_over: Counter,
    /// Packets received here by another worker that this one finishes.
    pub taken_over: Counter,
    /// Packets received here and dropped, by reason.
    pub drops: [Counter; DropReason::COUNT],
    /// Packets sent out of here: forwarded and originated.
    pub tx_packets: Counter,
    /// Bytes sent out of here, Ethernet header included.
    pub tx_bytes: Counter,
    /// Packets sent out of here that the router made itself.
    pub originated: Counter,
    /// Packets sent out of here in fragments that the router made.
    pub fragmented: Counter,
    /// Fragments that the router made and sent out of here.
    pub fragments_created: Counter,
    /// ICMP errors not made because of the rate limit.
    pub icmp_limited: Counter,
    /// Packets that the router made itself and could not send.
    pub originated_lost: Counter,
    /// Packets that the router made itself, about those received here, and gave to the kernel, which has the
    /// slice that they are for.
    pub originated_to_kernel: Counter,
    /// Packets delivered to an owner on this machine, kernel or workload.
    pub delivered: Counter,
    /// Packets sent on to the node or site that owns their slice, or that a plugin sent them to.
    pub to_owner: Counter,
    /// Packets that came out of an owner tunnel.
    pub decapsulated: Counter,
}

impl Default for InterfaceCounters {
    fn default() -> Self {
        Self {
            rx_packets: Counter::default(),
            rx_bytes: Counter::default(),
            forwarded: Counter::default(),
            to_kernel: Counter::default(),
            consumed: Counter::default(),
            held: Counter::default(),
            handed_over: Counter::default(),
            taken_over: Counter::default(),
            drops: [const { Counter(AtomicU64::new(0)) }; DropReason::COUNT],
            tx_packets: Counter::default(),
            tx_bytes: Counter::default(),
            originated: Counter::default(),
            fragmented: Counter::default(),
            fragments_created: Counter::default(),
            icmp_limited: Counter::default(),
            originated_lost: Counter::default(),
            originated_to_kernel: Counter::default(),
            delivered: Counter::default(),
            to_owner: Counter::default(),
            decapsulated: Counter::default(),
        }
    }
}

impl InterfaceCounters {
    /// Counts a drop.
    #[inline]
    pub fn drop(&self, reason: DropReason) {
        if let Some(counter) = self.drops.get(reason.index()) {
            counter.add(1);
        }
    }

    /// Every counter but the drops, with the name that it has in status, metrics and replays.
    #[must_use]
    pub fn named(&self) -> [(&'static str, &Counter); 19] {
        [
            ("rx_packets", &self.rx_packets),
            ("rx_bytes", &self.rx_bytes),
            ("forwarded", &self.forwarded),
            ("to_kernel", &self.to_kernel),
            ("consumed", &self.consumed),
            ("held", &self.held),
            ("handed_over", &self.handed_over),
            ("taken_over", &self.taken_over),
            ("tx_packets", &self.tx_packets),
            ("tx_bytes", &self.tx_bytes),
            ("originated", &self.originated),
            ("fragmented", &self.fragmented),
            ("fragments_created", &self.fragments_created),
            ("originated_lost", &self.originated_lost),
            ("originated_to_kernel", &self.originated_to_kernel),
            ("icmp_limited", &self.icmp_limited),
            ("delivered", &self.delivered),
            ("to_owner", &self.to_owner),
            ("decapsulated", &self.decapsulated),
        ]
    }

    /// Packets received and taken over, less all that became of them: 0 between turns.
    #[must_use]
    pub fn imbalance(&self) -> i64 {
        let drops: u64 = self.drops.iter().map(Counter::get).sum();
        let accounted = self.forwarded.get()
            + self.to_kernel.get()
            + self.consumed.get()
            + self.held.get()
            + self.handed_over.get()
            + drops;
        (self.rx_packets.get() + self.taken_over.get()).wrapping_sub(accounted).cast_signed()
    }
}

/// What one worker counts. Aligned, so that no cache line (of which processors fetch two at a time) is
/// written by two workers.
#[derive(Debug)]
#[repr(align(128))]
pub struct WorkerCounters {
    /// By interface.
    pub interfaces: Box<[InterfaceCounters]>,
    /// Turns of the loop.
    pub turns: Counter,
    /// Turns that took long.
    pub long_turns: LongTurns,
    /// Turns that had at least one frame.
    pub busy_turns: Counter,
    /// System calls to wake the kernel, over all queues.
    pub kicks: Counter,
    /// Frames in the pool: a level.
    pub frames_free: Counter,
    /// Frames on receive rings: a level.
    pub frames_receiving: Counter,
    /// Frames on transmit rings: a level.
    pub frames_transmitting: Counter,
    /// Frames that wait for a next hop or for a first fragment: a level.
    pub frames_held: Counter,
    /// Frames on their way to the kernel: a level.
    pub frames_punting: Counter,
    /// Frames that other workers have: a level.
    pub frames_away: Counter,
    /// Publication number of the snapshot in use: a level.
    pub epoch: Counter,
    /// What left by plugins' orders.
    pub actions: ActionCounters,
    /// Where the time of its turns goes.
    pub stages: StageCounters,
}

impl WorkerCounters {
    /// Counters for a router with this many interfaces.
    #[must_use]
    pub fn new(interfaces: usize) -> Self {
        Self {
            interfaces: (0..interfaces).map(|_| InterfaceCounters::default()).collect(),
            turns: Counter::default(),
            long_turns: LongTurns::default(),
            busy_turns: Counter::default(),
            kicks: Counter::default(),
            frames_free: Counter::default(),
            frames_receiving: Counter::default(),
            frames_transmitting: Counter::default(),
            frames_held: Counter::default(),
            frames_punting: Counter::default(),
            frames_away: Counter::default(),
            epoch: Counter::default(),
            actions: ActionCounters::default(),
            stages: StageCounters::default(),
        }
    }
}
