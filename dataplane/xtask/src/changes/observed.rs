//! [`Observed`]: what node a tells of a run by itself: how long its workers were away from their rings, how
//! long for want of a core, and what taking new plugins over cost them.
//!
//! A worker's turn and its swap are measured by the clock, so that whatever else its core did meanwhile is
//! part of them. How long it was ready to run and did not is the kernel's own account
//! (Documentation/scheduler/sched-stats.rst, the second number of `schedstat`).

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::lab::status::Status;

/// What the router has counted at a moment.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    turns: Vec<(u64, u64)>,
    swaps: u64,
    swap_cycles: u64,
    swap_cycles_max: u64,
    tsc_hz: f64,
    waited: Duration,
    pid: u32,
}

/// What it told of a run, or of several.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// A turn was as long as this or a ninth shorter, and none was longer. `None` if all were shorter than
    /// those that are counted, or the router was started anew.
    pub longest_turn: Option<Duration>,
    /// How long workers were ready to run and another ran, in all.
    pub waited: Duration,
    /// Times that a worker took new plugins over.
    pub swaps: u64,
    /// How long that took in all, of its turns.
    pub swapping: Duration,
    /// The longest of them since the router's start.
    pub swap_most: Duration,
    /// From a new file to its being in force, for each change.
    pub live_after: Vec<Duration>,
}

impl Counted {
    /// What the router with that number of a process counts in its report, and the kernel of its workers.
    ///
    /// # Errors
    /// When its threads cannot be read.
    pub fn read(status: &Status, pid: u32) -> Result<Self> {
        let value = status.value();
        let rows = |of: &'static str| value[of].as_array().into_iter().flatten();
        let number = |value: &Value| value.as_u64().unwrap_or_default();
        let turns =
            rows("workers").flat_map(|row| row["long_turns"].as_array().into_iter().flatten());
        let swaps =
            |key: &str| rows("plugins").map(|plugin| number(&plugin["total"][key])).collect();
        let [count, cycles, most]: [Vec<u64>; 3] =
            ["swaps", "swap_cycles", "swap_cycles_max"].map(swaps);
        Ok(Self {
            turns: turns.map(|row| (number(&row["below_ns"]), number(&row["turns"]))).collect(),
            swaps: count.iter().sum(),
            swap_cycles: cycles.iter().sum(),
            swap_cycles_max: most.into_iter().max().unwrap_or_default(),
            tsc_hz: value["router"]["tsc_hz"].as_f64().unwrap_or(1.0).max(1.0),
            waited: waited(pid)?,
            pid,
        })
    }

    /// What came since `before`. Of a router that was started meanwhile, all that it counted.
    #[must_use]
    pub fn since(&self, before: &Self) -> Observed {
        let nothing = Self::default();
        let before = if before.pid == self.pid { before } else { &nothing };
        let turns = |of: &Self, below_ns: u64| -> u64 {
            of.turns.iter().filter(|(length, _)| *length == below_ns).map(|(_, turns)| turns).sum()
        };
        let lengths = self.turns.iter().map(|(below_ns, _)| *below_ns);
        let longest = lengths.filter(|length| turns(self, *length) > turns(before, *length)).max();
        let time = |cycles: u64| Duration::from_secs_f64(cycles as f64 / self.tsc_hz);
        Observed {
            longest_turn: longest.map(Duration::from_nanos),
            waited: self.waited.saturating_sub(before.waited),
            swaps: self.swaps.saturating_sub(before.swaps),
            swapping: time(self.swap_cycles.saturating_sub(before.swap_cycles)),
            swap_most: time(self.swap_cycles_max),
            live_after: Vec::new(),
        }
    }
}

impl Observed {
    /// This and what another run gave.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.longest_turn = self.longest_turn.max(other.longest_turn);
        self.waited += other.waited;
        self.swaps += other.swaps;
        self.swapping += other.swapping;
        self.swap_most = self.swap_most.max(other.swap_most);
        self.live_after.extend(&other.live_after);
        self
    }

    /// The mean of what taking new plugins over cost a worker; `None` if none did.
    #[must_use]
    pub fn swap_mean(&self) -> Option<Duration> {
        let count = u32::try_from(self.swaps).ok().filter(|count| *count > 0)?;
        Some(self.swapping / count)
    }

    /// The median of the times until a new file was in force, and the longest.
    #[must_use]
    pub fn live(&self) -> Option<(Duration, Duration)> {
        let mut sorted = self.live_after.clone();
        sorted.sort_unstable();
        Some((*sorted.get(sorted.len() / 2)?, *sorted.last()?))
    }

    /// The same in words.
    #[must_use]
    pub fn words(&self) -> String {
        let us = |time: Duration| time.as_secs_f64() * 1e6;
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let mut words = Vec::new();
        if let Some((median, most)) = self.live() {
            let (median, most) = (ms(median), ms(most));
            words.push(format!("live after {median:.0} ms (median), {most:.0} ms (most)"));
        }
        if let Some(mean) = self.swap_mean() {
            let (mean, most) = (us(mean), us(self.swap_most));
            words.push(format!("a swap {mean:.2} us (mean), {most:.2} us (most since the start)"));
        }
        if let Some(longest) = self.longest_turn {
            words.push(format!("longest turn {:.2} ms", ms(longest)));
        }
        words.push(format!("without a core for {:.1} ms", ms(self.waited)));
        words.join("; ")
    }
}

/// How long the workers of a process were ready to run and another ran, since they began.
fn waited(pid: u32) -> Result<Duration> {
    let folder = format!("/proc/{pid}/task");
    let mut sum = 0;
    for task in std::fs::read_dir(&folder).with_context(|| folder.clone())? {
        let task = task?.path();
        // A thread that has ended meanwhile is no worker.
        let read = |name: &str| std::fs::read_to_string(task.join(name)).unwrap_or_default();
        if read("comm").starts_with("worker-") {
            let waited = read("schedstat");
            let waited =
                waited.split_whitespace().nth(1).and_then(|nanos| nanos.parse::<u64>().ok());
            sum += waited.context("the kernel does not tell how long threads wait")?;
        }
    }
    Ok(Duration::from_nanos(sum))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_what_was_counted_since() {
        let before = Counted {
            turns: vec![(81_920, 7), (4_194_304, 1)],
            swaps: 3,
            swap_cycles: 9_000,
            swap_cycles_max: 6_000,
            tsc_hz: 2e9,
            waited: Duration::from_millis(5),
            pid: 1,
        };
        let after = Counted {
            turns: vec![(81_920, 9), (1_048_576, 1), (4_194_304, 1)],
            swaps: 5,
            swap_cycles: 13_000,
            waited: Duration::from_millis(7),
            ..before.clone()
        };
        let mut run = after.since(&before);
        assert_eq!(run.longest_turn, Some(Duration::from_nanos(1_048_576)));
        assert_eq!((run.waited, run.swaps), (Duration::from_millis(2), 2));
        assert_eq!(run.swap_mean(), Some(Duration::from_micros(1)));
        assert_eq!(run.swap_most, Duration::from_micros(3));
        assert_eq!(before.since(&before).longest_turn, None);
        run.live_after = [30, 10, 20].map(Duration::from_millis).to_vec();
        let both = run.clone().and(&run);
        assert_eq!((both.swaps, both.live_after.len()), (4, 6));
        assert_eq!(both.live(), Some((Duration::from_millis(20), Duration::from_millis(30))));
        assert_eq!(
            run.words(),
            "live after 20 ms (median), 30 ms (most); a swap 1.00 us (mean), 3.00 us (most since the \
             start); longest turn 1.05 ms; without a core for 2.0 ms"
        );
        let anew = Counted { pid: 2, ..after };
        assert_eq!(anew.since(&before).swaps, 5, "a router that was started anew");
    }
}
