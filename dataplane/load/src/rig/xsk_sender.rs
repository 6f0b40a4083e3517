//! One worker that sends by an AF_XDP socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use frame::{BATCH_MAX, Pool, QueueIo};
use xdp::XskQueue;
use xdp::tester::{Interval, SendPlan, SendReport};

use crate::clock::now_ns;
use crate::tag::{Tag, TagKey};
use crate::{LoadError, Source};

/// How long the end of a run waits for the kernel to take what is on TX.
const DRAIN_NS: u64 = Duration::from_secs(1).as_nanos() as u64;

/// A worker on one queue.
#[derive(Debug)]
pub(crate) struct XskSender {
    pub(crate) interface: String,
    pub(crate) queue: XskQueue,
    pub(crate) pool: Pool,
    pub(crate) source: Arc<Source>,
    /// Position of the next packet in the source's order.
    pub(crate) position: usize,
    pub(crate) key: TagKey,
    pub(crate) stream: u8,
    /// Sequence of the next tag.
    pub(crate) sequence: u64,
    /// Packets sent since the start of the process, for progress.
    pub(crate) sent: Arc<AtomicU64>,
}

impl XskSender {
    /// Sends as planned until the plan ends or `stop` is set.
    ///
    /// # Errors
    /// [`LoadError::LinkDown`] when the socket's interface takes nothing any more.
    pub(crate) fn send(
        &mut self,
        plan: SendPlan,
        stop: &AtomicBool,
    ) -> Result<SendReport, LoadError> {
        let mut report = SendReport::default();
        let mut lag_before = 0;
        while report.sent < plan.packets_max && !stop.load(Ordering::Relaxed) {
            self.queue.reclaim(&mut self.pool);
            let now = now_ns();
            if now >= plan.until_ns {
                break;
            }
            let due = plan.interval.slots_in(now.saturating_sub(plan.start_ns));
            let count = due.min(plan.packets_max) - report.sent.min(due);
            if now < plan.start_ns || count == 0 {
                std::hint::spin_loop();
                continue;
            }
            if plan.interval != Interval::NONE {
                let slot = slot_ns(plan.interval, report.sent);
                let lag = (now - plan.start_ns).saturating_sub(slot);
                report.note_lag(lag, lag_before);
                lag_before = lag;
            }
            #[expect(clippy::cast_possible_truncation, reason = "at most a batch")]
            let sent = self.burst(count.min(BATCH_MAX as u64) as usize);
            if sent > 0 {
                let first = report.departures_ns.map_or(now, |(first, _)| first);
                report.departures_ns = Some((first, now_ns()));
                report.sent += sent as u64;
                self.sent.fetch_add(sent as u64, Ordering::Relaxed);
            }
            self.check_link(&plan)?;
        }
        report.missed = plan
            .interval
            .slots_in(now_ns().min(plan.until_ns).saturating_sub(plan.start_ns))
            .min(plan.packets_max)
            .saturating_sub(report.sent);
        if plan.interval == Interval::NONE {
            report.missed = 0;
        }
        self.drain(&plan)?;
        Ok(report)
    }

    /// Puts up to `count` packets on TX and rings the doorbell. Returns how many went.
    fn burst(&mut self, count: usize) -> usize {
        let mut sent = 0;
        while sent < count {
            let Some(mut frame) = self.pool.take() else { break };
            let tag = Tag { stream: self.stream, sequence: self.sequence, timestamp_ns: now_ns() };
            let tagged = self.source.write(self.position, &mut frame, || tag.encode(&self.key));
            match self.queue.transmit(frame) {
                Ok(()) => {
                    sent += 1;
                    self.sequence += u64::from(tagged);
                    self.position = (self.position + 1) % self.source.positions();
                }
                Err(frame) => {
                    self.pool.give(frame);
                    break;
                }
            }
        }
        self.queue.flush();
        sent
    }

    /// Waits until the kernel has taken and returned all frames.
    fn drain(&mut self, plan: &SendPlan) -> Result<(), LoadError> {
        let end = now_ns() + DRAIN_NS;
        while self.queue.status().transmitting > 0 {
            self.queue.flush();
            self.queue.reclaim(&mut self.pool);
            self.check_link(plan)?;
            if now_ns() >= end {
                return Err(LoadError::Plan(format!(
                    "interface {}: {} frames are still on the TX ring 1 s after the run: the driver \
                     does not send",
                    self.interface,
                    self.queue.status().transmitting
                )));
            }
        }
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "seconds for people")]
    fn check_link(&self, plan: &SendPlan) -> Result<(), LoadError> {
        if !self.queue.link_down() {
            return Ok(());
        }
        let at_s = now_ns().saturating_sub(plan.start_ns) as f64 / 1e9;
        Err(LoadError::LinkDown { interface: self.interface.clone(), how: "went down", at_s })
    }
}

/// When slot `number` begins, in ns from the first one.
fn slot_ns(interval: Interval, number: u64) -> u64 {
    let (nanos, fraction) = interval.parts();
    let whole = u128::from(nanos) << 32 | u128::from(fraction);
    u64::try_from((whole * u128::from(number)) >> 32).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_an_interval_apart() {
        let interval = Interval::of_rate(3.0);
        assert_eq!(slot_ns(interval, 0), 0);
        assert_eq!(slot_ns(interval, 3), 999_999_999);
        assert_eq!(slot_ns(Interval::of_rate(1e6), 1_000_000), 1_000_000_000);
    }
}
