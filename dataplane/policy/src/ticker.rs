//! The clock that interrupts calls which outlast their budget, and costs next to nothing otherwise.
//!
//! Each worker counts its calls in a cache line of its own: odd while a call runs. A thread looks at
//! the counts; only while it sees *the same* call again does it advance the engine's epoch.
//!
//! ```text
//!            a call was made                the same call again
//!  asleep ------------------> watching ----------------------------> ticking
//!  (parked) <---------------- (500 us) <---------------------------- (tick_us, epoch + 1)
//!            quiet for 10 ms                     it ended
//! ```
//!
//! Invariants: an epoch is never shorter than a tick, so no call is stopped before its budget. A
//! worker pays two stores and one load a call, and a wake-up only after a pause. The hand-shake with
//! a sleeping ticker may be missed (there is no fence); it then wakes by itself after `NAP`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle, Thread},
    time::Duration,
};

use crossbeam::utils::CachePadded;
use wasmtime::Engine;

use crate::PolicyError;

/// How often running calls are looked for. An endless call is noticed that much late.
const WATCH: Duration = Duration::from_micros(500);
/// Looks without any call after which the thread goes to sleep.
const QUIET_LOOKS: u32 = 20;
/// How long it sleeps when nobody wakes it: 20 wake-ups a second cost nothing that can be seen.
const NAP: Duration = Duration::from_millis(50);

#[derive(Debug)]
struct Pulse {
    /// For each caller, the number of calls begun plus the number ended.
    calls: Box<[CachePadded<AtomicU64>]>,
    asleep: AtomicBool,
    stop: AtomicBool,
}

/// The ticker thread; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Ticker {
    pulse: Arc<Pulse>,
    handle: Option<JoinHandle<()>>,
    thread: Thread,
}

/// One caller's side: it says when a call begins and ends.
#[derive(Clone, Debug)]
pub(crate) struct Beat {
    pulse: Arc<Pulse>,
    thread: Thread,
    caller: usize,
}

impl Ticker {
    /// Starts the thread for `callers` callers.
    pub(crate) fn start(
        engine: Engine,
        callers: usize,
        tick: Duration,
    ) -> Result<Self, PolicyError> {
        let calls = (0..callers).map(|_| CachePadded::default()).collect();
        let pulse =
            Arc::new(Pulse { calls, asleep: AtomicBool::new(false), stop: AtomicBool::new(false) });
        let theirs = Arc::clone(&pulse);
        let handle = thread::Builder::new()
            .name("policy-ticker".to_owned())
            .spawn(move || run(&theirs, &engine, tick))
            .map_err(PolicyError::Ticker)?;
        let thread = handle.thread().clone();
        Ok(Self { pulse, handle: Some(handle), thread })
    }

    /// The side of caller number `caller`. Two callers must not share one.
    pub(crate) fn beat(&self, caller: usize) -> Beat {
        Beat { pulse: Arc::clone(&self.pulse), thread: self.thread.clone(), caller }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.pulse.stop.store(true, Ordering::Relaxed);
        if let Some(handle) = self.handle.take() {
            handle.thread().unpark();
            // A panic of that thread was already reported by the panic hook.
            let _ = handle.join();
        }
    }
}

impl Beat {
    /// Runs `call` under the eyes of the ticker.
    #[inline]
    pub(crate) fn during<T>(&self, call: impl FnOnce() -> T) -> T {
        let Some(calls) = self.pulse.calls.get(self.caller) else {
            return call();
        };
        let count = calls.load(Ordering::Relaxed);
        calls.store(count.wrapping_add(1), Ordering::Relaxed);
        if self.pulse.asleep.load(Ordering::Relaxed) {
            self.thread.unpark();
        }
        let result = call();
        calls.store(count.wrapping_add(2), Ordering::Relaxed);
        result
    }
}

/// What one look at all callers showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Look {
    /// No call was made since the last look.
    Quiet,
    /// Calls were made, and none runs now.
    Busy,
    /// A call runs that did not run at the last look.
    Begun,
    /// A call runs that ran at the last look already.
    Same,
}

fn look(pulse: &Pulse, seen: &mut [u64]) -> Look {
    let mut most = Look::Quiet;
    for (calls, seen) in pulse.calls.iter().zip(seen) {
        let count = calls.load(Ordering::Relaxed);
        let this = match (count % 2 == 1, count == *seen) {
            (true, true) => Look::Same,
            (true, false) => Look::Begun,
            (false, false) => Look::Busy,
            (false, true) => Look::Quiet,
        };
        *seen = count;
        most = most.max(this);
    }
    most
}

fn run(pulse: &Pulse, engine: &Engine, tick: Duration) {
    // Linux rounds sleeps up by 50 us unless it is asked not to; without leave, budgets are coarser.
    let _ = nix::sys::prctl::set_timerslack(1);
    let mut seen: Vec<u64> = vec![0; pulse.calls.len()];
    let mut quiet = 0;
    while !pulse.stop.load(Ordering::Relaxed) {
        let looked = look(pulse, &mut seen);
        if looked == Look::Same {
            engine.increment_epoch();
        }
        quiet = if looked == Look::Quiet { quiet + 1 } else { 0 };
        if quiet >= QUIET_LOOKS {
            pulse.asleep.store(true, Ordering::SeqCst);
            if look(pulse, &mut seen) == Look::Quiet && !pulse.stop.load(Ordering::SeqCst) {
                thread::park_timeout(NAP);
            }
            pulse.asleep.store(false, Ordering::Relaxed);
            // One more quiet look sends it back to sleep.
            quiet = QUIET_LOOKS - 1;
        } else {
            thread::sleep(if looked >= Look::Begun { tick } else { WATCH });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_call_that_goes_on_is_ticked() {
        let pulse = Pulse {
            calls: (0..2).map(|_| CachePadded::default()).collect(),
            asleep: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        };
        let mut seen = vec![0; 2];
        assert_eq!(look(&pulse, &mut seen), Look::Quiet);
        pulse.calls[0].store(2, Ordering::Relaxed);
        assert_eq!(look(&pulse, &mut seen), Look::Busy);
        pulse.calls[0].store(3, Ordering::Relaxed);
        assert_eq!(look(&pulse, &mut seen), Look::Begun);
        assert_eq!(look(&pulse, &mut seen), Look::Same);
        pulse.calls[0].store(5, Ordering::Relaxed);
        assert_eq!(look(&pulse, &mut seen), Look::Begun);
        pulse.calls[0].store(6, Ordering::Relaxed);
        pulse.calls[1].store(4, Ordering::Relaxed);
        assert_eq!(look(&pulse, &mut seen), Look::Busy);
        assert_eq!(look(&pulse, &mut seen), Look::Quiet);
    }

    #[test]
    fn a_quiet_ticker_sleeps_and_wakes_for_a_long_call() {
        let engine = crate::engine::engine().expect("an engine");
        let ticker = Ticker::start(engine, 1, Duration::from_micros(100)).expect("a thread");
        let asleep = || {
            let mut left = 400;
            while !ticker.pulse.asleep.load(Ordering::SeqCst) && left > 0 {
                thread::sleep(Duration::from_millis(5));
                left -= 1;
            }
            left > 0
        };
        assert!(asleep(), "it went on watching without any call");
        ticker.beat(0).during(|| {
            let mut left = 400;
            while ticker.pulse.asleep.load(Ordering::SeqCst) && left > 0 {
                thread::sleep(Duration::from_millis(5));
                left -= 1;
            }
            assert!(left > 0, "it slept through a call");
        });
        assert!(asleep(), "it did not go back to sleep");
    }
}
