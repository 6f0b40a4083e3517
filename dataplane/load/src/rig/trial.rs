//! One run at one rate.
//!
//! ```text
//!   |-- start --|------------- duration -------------|- grace -|-- settle --|
//!               first slot                    last slot        all sent     ledger is read
//! ```

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use xdp::tester::{Interval, LatencyHistogram, SendPlan, SendReport, SinkLedger};

use super::device::{self, Watch};
use super::sender::Progress;
use super::sink::{Arrived, Sink};
use super::{Rig, arrivals};
use crate::clock::now_ns;
use crate::document::{Latency, Second, Trial};
use crate::{LoadError, Tester};

/// From the call to the first slot: time for all threads to start.
const START: Duration = Duration::from_millis(20);

/// How long after the last slot a worker that fell behind may still catch up.
const GRACE: Duration = Duration::from_millis(20);

/// How often progress and threads are looked at, and how often links are.
const TICK: Duration = Duration::from_millis(10);
const LINK_TICKS: u32 = 10;

/// The part of the rate by which a generator may fall short and still have kept it.
const SHORTFALL_MAX: f64 = 0.001;

/// A worker that was held up for so long and then caught up has sent a burst, not a rate: 10,000
/// packets at a million a second, more than any ring holds. An undisturbed one is late by some 100 us.
const LAG_MAX: Duration = Duration::from_millis(10);

/// A device under test that lost so many times more than what was sent in bursts lost it by itself: a
/// burst costs no more packets than it has, which is then at most a tenth of the loss.
const LOSS_BEYOND_BURSTS: f64 = 10.0;

/// What the workers of a trial are told and tell.
struct Course<'run> {
    watches: &'run [Watch],
    progress: Vec<Progress>,
    sent_before: u64,
    arrived: Arrived<'run>,
    is_tagged: bool,
    start: Instant,
    last: Second,
}

impl Rig {
    /// Sends at `rate_pps` packets a second in total, or as fast as it goes, for `duration`; waits
    /// for stragglers; and says what came of it. `on_second` gets every second, at its end, and the
    /// rest.
    ///
    /// When [`Rig::stop`] is set meanwhile, the trial ends at once with what was measured so far, and
    /// [`Trial::void`] says so.
    ///
    /// # Errors
    /// [`LoadError::LinkDown`], [`LoadError::SinkLost`] and whatever else ended the run: then there
    /// are no figures. [`LoadError::Plan`] for a rate or a duration that is none.
    pub fn trial(
        &mut self,
        rate_pps: Option<f64>,
        duration: Duration,
        on_second: &mut dyn FnMut(Second),
    ) -> Result<Trial, LoadError> {
        let plans = plans(rate_pps, duration, self.plan.packets_max, self.senders.len())?;
        let send_drops = device::drops(&self.plan.send_interface)?;
        let sink_drops = device::drops(&self.plan.sink_interface)?;
        for watch in &self.watches {
            watch.check(0.0)?;
        }
        let before = self.sink.reset(start_ns(&plans))?;

        let (reports, ledger) = self.run(&plans, on_second)?;
        let (ledger, mut void) = self.sink.finish(before, ledger)?;
        let planned: u64 = plans.iter().map(|plan| plan.packets_max).fold(0, u64::saturating_add);
        let mut trial = self.sum_up(rate_pps, planned, &reports, &ledger);
        let after = device::drops(&self.plan.send_interface)?;
        let dropped = after.sent.saturating_sub(send_drops.sent);
        // On a veth pair it is the ring of the device under test that was full.
        if dropped > 0 && !self.is_veth {
            void.push(format!("the generator's interface dropped {dropped} packets"));
        }
        let after = device::drops(&self.plan.sink_interface)?;
        let dropped = after.received.saturating_sub(sink_drops.received);
        if dropped > 0 && trial.lost > 0 && void.is_empty() {
            void.push(format!(
                "the sink's interface dropped {dropped} packets: the tester lost them, not the device \
                 under test"
            ));
        }
        if let Some(reason) = held_up(&trial, &reports) {
            void.push(reason);
        }
        if self.stop.load(Ordering::Relaxed) {
            trial.is_generator_limited = false;
            void.push(format!(
                "cut short after {:.1} of {:.1} s",
                trial.duration_s,
                duration.as_secs_f64()
            ));
        }
        trial.void = void;
        Ok(trial)
    }

    /// Runs all threads of a trial. Without an error the ledger has what workers in user space saw.
    fn run(
        &mut self,
        plans: &[SendPlan],
        on_second: &mut dyn FnMut(Second),
    ) -> Result<(Vec<SendReport>, SinkLedger), LoadError> {
        let progress: Vec<Progress> = self.senders.iter().map(super::Sender::progress).collect();
        let (abort, sinks_stop) = (AtomicBool::new(false), AtomicBool::new(false));
        let (abort, sinks_stop) = (&abort, &sinks_stop);
        let failed = &AtomicBool::new(false);
        let start_ns = start_ns(plans);
        let cores = &self.plan.cores;
        let key = self.key;
        let sink_cores = cores.get(self.senders.len()..).unwrap_or_default();
        let (arrived, sink_workers, windows) = match &mut self.sink {
            Sink::Kernel(sink) => (Arrived::Kernel(sink), Default::default(), Default::default()),
            Sink::Xsk(sink) => {
                let counters = sink.counters();
                let (workers, windows) = sink.split();
                (Arrived::Xsk(counters), workers, windows)
            }
            Sink::None => (Arrived::None, Default::default(), Default::default()),
        };
        let mut course = Course {
            watches: &self.watches,
            sent_before: progress.iter().map(Progress::sent).sum(),
            progress,
            arrived,
            is_tagged: self.plan.source.is_tagged(),
            start: Instant::now() + START,
            last: Second::default(),
        };
        let (settle, settle_max) = (self.plan.settle, self.plan.settle_max);
        let stop = &self.stop;
        let senders = &mut self.senders;
        thread::scope(|scope| {
            let sinks: Vec<ScopedJoinHandle<'_, SinkLedger>> = sink_workers
                .iter_mut()
                .enumerate()
                .map(|(number, worker)| {
                    scope.spawn(move || {
                        pin(sink_cores.get(number));
                        worker.run(key, windows, start_ns, sinks_stop)
                    })
                })
                .collect();
            let generators: Vec<ScopedJoinHandle<'_, Result<SendReport, LoadError>>> = senders
                .iter_mut()
                .zip(plans)
                .enumerate()
                .map(|(number, (sender, plan))| {
                    scope.spawn(move || {
                        pin(cores.get(number));
                        let report = sender.send(*plan, abort);
                        failed.fetch_or(report.is_err(), Ordering::Relaxed);
                        report
                    })
                })
                .collect();

            let watched = course.watch(&generators, failed, stop, on_second);
            abort.store(true, Ordering::Relaxed);
            let reports: Vec<Result<SendReport, LoadError>> =
                generators.into_iter().map(join).map(Result::flatten).collect();
            let sent = reports.iter().flatten().map(|report| report.sent).sum();
            let settled = watched.and_then(|()| course.settle(sent, settle, settle_max));
            sinks_stop.store(true, Ordering::Relaxed);
            let ledgers: Result<Vec<SinkLedger>, LoadError> = sinks.into_iter().map(join).collect();
            // What happened to a link explains what a worker says of its socket, not the reverse.
            settled?;
            let reports = reports
                .into_iter()
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| course.explain(error))?;
            let ledger = ledgers?.iter().fold(SinkLedger::default(), arrivals::merge);
            course.second(on_second);
            Ok((reports, ledger))
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "counts below 2^53")]
    fn sum_up(
        &self,
        asked_pps: Option<f64>,
        planned: u64,
        reports: &[SendReport],
        ledger: &SinkLedger,
    ) -> Trial {
        let sent: u64 = reports.iter().map(|report| report.sent).sum();
        let departures = reports.iter().filter_map(|report| report.departures_ns);
        let (first, last) = departures
            .reduce(|sum, part| (sum.0.min(part.0), sum.1.max(part.1)))
            .unwrap_or_default();
        let mut latency = LatencyHistogram::default();
        let (mut unique, mut reordered, mut duplicated) = (0, 0, 0);
        for stream in &ledger.streams {
            latency.merge(&stream.latency);
            unique += stream.unique();
            reordered += stream.reordered;
            duplicated += stream.duplicates;
        }
        let received =
            if self.plan.source.is_tagged() { unique } else { (unique + ledger.foreign).min(sent) };
        let counts = !matches!(self.sink, Sink::None);
        Trial {
            asked_pps,
            duration_s: (last - first) as f64 / 1e9,
            sent,
            received,
            lost: if counts { sent.saturating_sub(received) } else { 0 },
            reordered,
            duplicated,
            refused: ledger.refused,
            foreign: ledger.foreign,
            latency: summary(&latency),
            void: Vec::new(),
            late_max_ns: asked_pps
                .and_then(|_| reports.iter().map(|report| report.lag_max_ns).max()),
            is_generator_limited: asked_pps.is_some()
                && (sent as f64) < planned as f64 * (1.0 - SHORTFALL_MAX),
        }
    }
}

impl Tester for Rig {
    fn trial(&mut self, rate_pps: Option<f64>, duration: Duration) -> Result<Trial, LoadError> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(LoadError::Interrupted);
        }
        let trial = Self::trial(self, rate_pps, duration, &mut |_| ())?;
        if self.stop.load(Ordering::Relaxed) { Err(LoadError::Interrupted) } else { Ok(trial) }
    }
}

impl Course<'_> {
    /// Looks after a run until all of the generator's workers have ended, or something happens that
    /// ends it.
    fn watch(
        &mut self,
        generators: &[ScopedJoinHandle<'_, Result<SendReport, LoadError>>],
        failed: &AtomicBool,
        stop: &AtomicBool,
        on_second: &mut dyn FnMut(Second),
    ) -> Result<(), LoadError> {
        let mut next_second = self.start + Duration::from_secs(1);
        for tick in 1_u32.. {
            // One that is done leaves the others to their slots, which may come seconds later.
            if stop.load(Ordering::Relaxed)
                || failed.load(Ordering::Relaxed)
                || generators.iter().all(ScopedJoinHandle::is_finished)
            {
                return Ok(());
            }
            thread::sleep(TICK);
            if tick % LINK_TICKS == 0 {
                self.check_links()?;
            }
            if Instant::now() >= next_second {
                self.second(on_second);
                next_second += Duration::from_secs(1);
            }
        }
        Ok(())
    }

    /// Waits for stragglers of the `sent` packets: until nothing came for `quiet`, but at most
    /// `wait_max`. While some are missing, `quiet` grows by the longest time that one of the run
    /// took, and while all are, to `wait_max`: a device that holds packets back has not lost them.
    fn settle(&self, sent: u64, quiet: Duration, wait_max: Duration) -> Result<(), LoadError> {
        let begin = Instant::now();
        let (mut last, mut since) = (self.arrived.now().0, begin);
        let quiet_now = |arrived: u64| match self.arrived.latency_max() {
            _ if !self.is_tagged || arrived >= sent || self.arrived.is_none() => quiet,
            Some(longest) => quiet.saturating_add(longest),
            None => wait_max,
        };
        while begin.elapsed() < wait_max && since.elapsed() < quiet_now(last) {
            thread::sleep(TICK / 2);
            let now = self.arrived.now().0;
            if now != last {
                (last, since) = (now, Instant::now());
            }
        }
        // Whatever broke after the last look would look like loss.
        self.check_links()
    }

    fn check_links(&self) -> Result<(), LoadError> {
        let at_s = self.start.elapsed().as_secs_f64();
        self.watches.iter().try_for_each(|watch| watch.check(at_s))
    }

    /// The link's own story, if it has one, instead of a worker's error.
    fn explain(&self, error: LoadError) -> LoadError {
        self.check_links().err().unwrap_or(error)
    }

    /// Reports what came since the last report.
    fn second(&mut self, on_second: &mut dyn FnMut(Second)) {
        let sent = self.progress.iter().map(Progress::sent).sum::<u64>() - self.sent_before;
        let (unique, foreign) = self.arrived.now();
        let received = if self.is_tagged { unique } else { unique + foreign };
        let at_s = self.start.elapsed().as_secs_f64();
        on_second(Second {
            at_s,
            sent: sent - self.last.sent,
            received: received.saturating_sub(self.last.received),
        });
        self.last = Second { at_s, sent, received };
    }
}

/// When the first of the workers starts.
fn start_ns(plans: &[SendPlan]) -> u64 {
    plans.iter().map(|plan| plan.start_ns).min().unwrap_or_else(now_ns)
}

/// What each worker is to do: its part of the rate, with slots between those of the others, and its
/// part of the packets.
fn plans(
    rate_pps: Option<f64>,
    duration: Duration,
    packets_max: Option<u64>,
    workers: usize,
) -> Result<Vec<SendPlan>, LoadError> {
    if duration.is_zero() {
        return Err(LoadError::Plan("a run takes some time".into()));
    }
    let start_ns = now_ns() + nanos(START);
    let end_ns = start_ns.saturating_add(nanos(duration));
    let mut packets = packets_max;
    let (mut step_ns, mut until_ns) = (0.0, end_ns);
    if let Some(rate) = rate_pps {
        if !(rate.is_finite() && rate > 0.0) {
            return Err(LoadError::Plan(format!("{rate} packets per second are no rate")));
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
        let slots = ((rate * duration.as_secs_f64()).round() as u64).max(1);
        packets = Some(packets.map_or(slots, |packets| packets.min(slots)));
        step_ns = 1e9 / rate;
        until_ns = end_ns.saturating_add(nanos(GRACE));
    }
    #[expect(clippy::cast_precision_loss, reason = "at most 16 workers")]
    let interval = rate_pps.map_or(Interval::NONE, |rate| Interval::of_rate(rate / workers as f64));
    let plan = |number: usize| {
        let share = |all: u64| {
            let (number, workers) = (number as u64, workers as u64);
            all / workers + u64::from(number < all % workers)
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "less than the time of 16 packets"
        )]
        let offset_ns = (step_ns * number as f64) as u64;
        SendPlan {
            start_ns: start_ns + offset_ns,
            interval,
            packets_max: packets.map_or(u64::MAX, share),
            until_ns,
        }
    };
    Ok((0..workers).map(plan).collect())
}

/// Why loss may be the doing of a generator that sent bursts, if it may.
#[expect(clippy::cast_precision_loss, reason = "counts below 2^53")]
fn held_up(trial: &Trial, reports: &[SendReport]) -> Option<String> {
    let lag_ns = reports.iter().map(|report| report.lag_max_ns).max()?;
    let held_up_ns: u64 = reports.iter().map(|report| report.held_up_ns).sum();
    let worker_pps = trial.asked_pps? / reports.len() as f64;
    let in_bursts = worker_pps * held_up_ns as f64 / 1e9;
    let is_doubtful = lag_ns > nanos(LAG_MAX)
        && trial.lost > 0
        && !trial.is_generator_limited
        && trial.lost as f64 <= in_bursts * LOSS_BEYOND_BURSTS;
    is_doubtful.then(|| {
        format!(
            "the generator was held up for {} ms and sent a burst afterwards: loss may be its doing",
            lag_ns / 1_000_000
        )
    })
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn summary(histogram: &LatencyHistogram) -> Option<Latency> {
    Some(Latency {
        count: histogram.count(),
        min_ns: histogram.min_ns()?,
        p50_ns: histogram.quantile_ns(0.5)?,
        p99_ns: histogram.quantile_ns(0.99)?,
        p999_ns: histogram.quantile_ns(0.999)?,
        max_ns: histogram.max_ns()?,
    })
}

fn pin(core: Option<&usize>) {
    if let Some(&id) = core
        && !core_affinity::set_for_current(core_affinity::CoreId { id })
    {
        tracing::warn!(core = id, "this thread could not be pinned");
    }
}

fn join<T>(handle: ScopedJoinHandle<'_, T>) -> Result<T, LoadError> {
    handle.join().map_err(|_| LoadError::Panicked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_a_run() {
        let plans = plans(Some(1000.0), Duration::from_secs(2), None, 3).expect("a plan");
        assert_eq!(plans.iter().map(|plan| plan.packets_max).sum::<u64>(), 2000);
        assert_eq!(plans[0].packets_max, 667);
        assert_eq!(plans[1].start_ns - plans[0].start_ns, 1_000_000);
        assert!((plans[0].interval.rate_pps() - 1000.0 / 3.0).abs() < 1e-3);
    }

    /// At a million a second 30 ms are 30,000 packets, which say nothing of ten times as many.
    #[test]
    fn bursts_cast_doubt_on_no_more_loss_than_they_can_cost() {
        let report =
            SendReport { lag_max_ns: 20_000_000, held_up_ns: 30_000_000, ..SendReport::default() };
        let verdict = |lost, reports: &[SendReport]| {
            let trial = Trial { asked_pps: Some(1e6), sent: 2_000_000, lost, ..Trial::default() };
            held_up(&trial, reports)
        };
        assert!(verdict(1, &[report]).is_some_and(|reason| reason.contains("held up for 20 ms")));
        assert!(verdict(300_000, &[report]).is_some());
        assert_eq!(verdict(300_001, &[report]), None);
        assert_eq!(verdict(0, &[report]), None);
        // Half of the packets are another worker's, which was not held up.
        assert!(verdict(150_000, &[report, SendReport::default()]).is_some());
        assert_eq!(verdict(150_001, &[report, SendReport::default()]), None);
        // What never fell behind for long is no burst.
        assert_eq!(verdict(1, &[SendReport { lag_max_ns: 9_000_000, ..report }]), None);
    }

    #[test]
    fn packets_end_a_run_before_its_time() {
        let second = Duration::from_secs(1);
        let count = |rate, max| {
            plans(rate, second, max, 1).expect("a plan").first().map(|plan| plan.packets_max)
        };
        assert_eq!(count(Some(1000.0), Some(10)), Some(10));
        assert_eq!(count(Some(1000.0), Some(10_000)), Some(1000));
        assert_eq!(count(None, Some(10)), Some(10));
        assert_eq!(count(None, None), Some(u64::MAX));
        assert!(plans(Some(f64::NAN), second, None, 1).is_err());
        assert!(plans(Some(1.0), Duration::ZERO, None, 1).is_err());
    }
}
