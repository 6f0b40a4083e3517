//! Where a turn's time goes: clocks of the time stamp counter, stage by stage.
//!
//! ```text
//!  |reclaim|receive|parse|sources|decap|ingress|slices|routes|forward|rewrite|egress|icmp|dispatch|flush|
//!  start ->lap---->lap-->lap ...                                                       lap -> commit
//! ```
//!
//! Reading the counter costs about as much as half a packet, so that one busy turn in
//! [`SAMPLE_EVERY`] is timed: less than one percent of a turn's time. Turns without a packet are not
//! counted: polling costs what idle time there is.

use frame::tsc;

use crate::Counter;

/// One busy turn of this many is timed. A prime, so that traffic that comes in a rhythm is not always
/// timed at the same beat. Fewer would cost more than a hundredth of the time that is measured (14
/// readings of some 20 clocks, in turns of 64 packets of 50); more make a second's figures noisy.
const SAMPLE_EVERY: u32 = 31;

/// A stage of a turn, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// COMPLETION to the free list, free list to FILL.
    Reclaim,
    /// RX to the batch.
    Receive,
    /// Headers to descriptors.
    Parse,
    /// Whether sources are those that an interface takes, where one asks.
    Sources,
    /// Tunnels that end here.
    Decap,
    /// Plugins at the `ingress` hook.
    Ingress,
    /// Who may send, and who owns.
    Slices,
    /// FIB, next-hop group and adjacency.
    Routes,
    /// Plugins at the `forward` hook.
    Forward,
    /// TTL, encapsulation and the link-layer header.
    Rewrite,
    /// Plugins at the `egress` hook.
    Egress,
    /// ICMP errors about what was dropped.
    Icmp,
    /// Verdicts carried out: TX ring, kernel, hold, free list.
    Dispatch,
    /// The doorbells, with the system calls behind them.
    Flush,
}

impl Stage {
    /// Number of stages.
    pub const COUNT: usize = Self::ALL.len();

    /// All stages in their order.
    pub const ALL: [Self; 14] = [
        Self::Reclaim,
        Self::Receive,
        Self::Parse,
        Self::Sources,
        Self::Decap,
        Self::Ingress,
        Self::Slices,
        Self::Routes,
        Self::Forward,
        Self::Rewrite,
        Self::Egress,
        Self::Icmp,
        Self::Dispatch,
        Self::Flush,
    ];

    /// Its name in status, metrics and reports.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Reclaim => "reclaim",
            Self::Receive => "receive",
            Self::Parse => "parse",
            Self::Sources => "sources",
            Self::Decap => "decap",
            Self::Ingress => "plugins-ingress",
            Self::Slices => "slices",
            Self::Routes => "routes",
            Self::Forward => "plugins-forward",
            Self::Rewrite => "rewrite",
            Self::Egress => "plugins-egress",
            Self::Icmp => "icmp-errors",
            Self::Dispatch => "dispatch",
            Self::Flush => "flush",
        }
    }
}

/// What the timed turns of one worker cost.
#[derive(Debug, Default)]
pub struct StageCounters {
    /// Clocks by stage, in the order of [`Stage::ALL`].
    pub clocks: [Counter; Stage::COUNT],
    /// Packets received in the timed turns.
    pub packets: Counter,
    /// Turns that were timed.
    pub turns: Counter,
}

/// Times one turn in [`SAMPLE_EVERY`].
#[derive(Debug, Default)]
pub(crate) struct Stopwatch {
    busy_turns: u32,
    is_on: bool,
    last: u64,
    clocks: [u64; Stage::COUNT],
}

impl Stopwatch {
    /// A turn begins.
    #[inline]
    pub(crate) fn start(&mut self) {
        self.is_on = self.busy_turns >= SAMPLE_EVERY;
        if self.is_on {
            self.clocks = [0; Stage::COUNT];
            self.last = tsc::now();
        }
    }

    /// `stage` is over. A stage that runs twice in a turn adds up.
    #[inline]
    pub(crate) fn lap(&mut self, stage: Stage) {
        if self.is_on {
            self.read(stage);
        }
    }

    #[cold]
    fn read(&mut self, stage: Stage) {
        let now = tsc::now();
        if let Some(clocks) = self.clocks.get_mut(stage as usize) {
            *clocks += now.wrapping_sub(self.last);
        }
        self.last = now;
    }

    /// The turn is over, and had this many packets.
    #[inline]
    pub(crate) fn commit(&mut self, packets: usize, counters: &StageCounters) {
        if packets == 0 {
            return;
        }
        self.busy_turns += 1;
        if self.is_on {
            self.busy_turns = 0;
            for (counter, clocks) in counters.clocks.iter().zip(self.clocks) {
                counter.add(clocks);
            }
            counters.packets.add(packets as u64);
            counters.turns.add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_busy_turn_of_some_is_timed_and_idle_ones_are_not() {
        let (mut watch, counters) = (Stopwatch::default(), StageCounters::default());
        for _ in 0..10 * (SAMPLE_EVERY + 1) {
            for packets in [0, 3] {
                watch.start();
                watch.lap(Stage::Receive);
                watch.lap(Stage::Parse);
                watch.commit(packets, &counters);
            }
        }
        assert_eq!((counters.turns.get(), counters.packets.get()), (10, 30));
        assert!(counters.clocks[Stage::Receive as usize].get() > 0);
        assert!(counters.clocks[Stage::Parse as usize].get() > 0);
        assert_eq!(counters.clocks[Stage::Flush as usize].get(), 0);
    }

    #[test]
    fn stages_stand_in_their_order() {
        for (position, stage) in Stage::ALL.into_iter().enumerate() {
            assert_eq!(stage as usize, position, "{}", stage.label());
        }
    }
}
