//! Mending: what trapped is replaced, after a pause that doubles, or disabled; what was said is logged.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use crate::{
    PluginHost,
    instance::reason,
    mailbox::{TrapReport, Update},
    saved_batch::SavedBatch,
    trap_batch::TrapBatch,
};

/// Traps are counted over this long.
const TRAP_WINDOW: Duration = Duration::from_secs(60);
/// A worker that lost an instance gets a new one after this long, doubled with each further trap of
/// the window.
const BACKOFF_LEAST: Duration = Duration::from_millis(100);
const BACKOFF_MOST: Duration = Duration::from_secs(10);
impl PluginHost {
    /// Frees what workers gave up, writes what they and the guests had to say to the log, and
    /// replaces or disables plugins that trapped. To be called about ten times a second.
    pub fn maintain(&mut self) {
        self.drain();
        self.write_log();
        self.report_lost_states();
        self.take_differences();
        let now = Instant::now();
        for position in 0..self.loaded.len() {
            self.mend(position, now);
        }
        self.offers.prune();
    }

    fn write_log(&mut self) {
        while let Some(report) = self.traps.pop() {
            self.take_report(report);
        }
        while let Some(line) = self.offers.log.lines.pop() {
            let (plugin, text) = (&line.plugin, line.text());
            match line.level {
                ..=1 => tracing::error!(%plugin, "{text}"),
                2 => tracing::warn!(%plugin, "{text}"),
                3 => tracing::info!(%plugin, "{text}"),
                _ => tracing::debug!(%plugin, "{text}"),
            }
        }
        let lost = self.offers.log.lost.load(Ordering::Relaxed);
        if lost > self.log_lost {
            tracing::warn!(lines = lost - self.log_lost, "plugins log too much: lines were lost");
            self.log_lost = lost;
        }
    }

    fn take_report(&mut self, report: TrapReport) {
        let TrapReport { generation, worker, error, batch } = report;
        let reason = error.as_ref().map_or_else(|| "its memory moved".to_owned(), reason);
        let mut trials = self.loaded.iter_mut().filter_map(|loaded| loaded.trial.as_mut());
        if let Some(trial) = trials.find(|trial| trial.loaded.generation == generation) {
            trial.trapped(worker, &reason);
        }
        let mut versions = self.loaded.iter().flat_map(|loaded| {
            let candidate = loaded.trial.as_ref().map(|trial| &trial.loaded);
            std::iter::once(loaded).chain(loaded.last_good.as_deref()).chain(candidate)
        });
        if let Some(loaded) = versions.find(|loaded| loaded.generation == generation) {
            let saved = batch.as_ref().and_then(|batch| {
                self.saved.save(&SavedBatch::new(loaded, batch, worker, &reason), &loaded.module)
            });
            let saved = saved.map(|path| path.display().to_string());
            tracing::warn!(
                plugin = %loaded.name,
                generation = loaded.number,
                worker,
                saved,
                "a call trapped: {reason}"
            );
        }
        if let Some(batch) = batch {
            // It came back by the queue of reports.
            if let Some(out) = self.out.get_mut(worker) {
                *out = out.saturating_sub(1);
            }
            self.send(worker, Update::Blank(batch), 1);
        }
    }

    /// Gives each worker room for a batch of the plugins that run.
    pub(crate) fn send_blanks(&mut self) {
        if !self.saved.is_wanted() {
            return;
        }
        let windows = self.loaded.iter().filter_map(|loaded| loaded.module.manifest.payload);
        let bytes = windows.map(|window| window.bytes).max().unwrap_or(0);
        for worker in 0..self.options.workers {
            let has_room = self.blanks.get(worker).copied().flatten() >= Some(bytes);
            if !self.loaded.is_empty() && !has_room {
                self.send(worker, Update::Blank(Box::new(TrapBatch::new(bytes))), 1);
                if let Some(blank) = self.blanks.get_mut(worker) {
                    *blank = Some(bytes);
                }
            }
        }
    }

    /// Counts a plugin's new traps; disables it, or makes new instances for workers that lost one.
    fn mend(&mut self, position: usize, now: Instant) {
        let Some(loaded) = self.loaded.get_mut(position) else { return };
        if loaded.disabled {
            return;
        }
        let traps: u64 = loaded.counters.workers.iter().map(|worker| worker.traps.get()).sum();
        for _ in loaded.traps_seen..traps {
            loaded.traps.push(now);
        }
        loaded.traps_seen = traps;
        loaded.traps.retain(|trap| now.duration_since(*trap) < TRAP_WINDOW);
        if loaded.traps.len() >= usize::try_from(loaded.spec.traps_max.max(1)).unwrap_or(usize::MAX)
        {
            loaded.disabled = true;
            let generation = loaded.generation;
            tracing::error!(
                plugin = %loaded.name,
                generation = loaded.number,
                traps = loaded.traps.len(),
                "disabled: it trapped too often within a minute; a reload enables it again"
            );
            for worker in 0..self.options.workers {
                self.send(worker, Update::Disable(generation), 0);
            }
            return;
        }
        let Some(last) = loaded.traps.last() else { return };
        let doublings = u32::try_from(loaded.traps.len() - 1).unwrap_or(u32::MAX).min(16);
        let backoff = BACKOFF_LEAST.saturating_mul(1 << doublings).min(BACKOFF_MOST);
        if now.duration_since(*last) < backoff {
            return;
        }
        for worker in 0..self.options.workers {
            let Some(loaded) = self.loaded.get(position) else { return };
            let Some(owed) = loaded.owed(worker).filter(|owed| *owed > 0) else { continue };
            let roomy = self.mailboxes.get(worker).zip(self.out.get(worker));
            if !roomy.is_some_and(|(mailbox, out)| mailbox.has_room(*out, 1)) {
                continue;
            }
            for _ in 0..owed.min(2) {
                let Some(loaded) = self.loaded.get(position) else { return };
                match self.instantiate(loaded) {
                    Ok(instance) => {
                        let generation = loaded.generation;
                        self.send(worker, Update::Spare(generation, instance), 1);
                    }
                    Err(fault) => {
                        tracing::error!(plugin = %loaded.name, "no new instance: {fault}");
                        return;
                    }
                }
                if let Some(loaded) = self.loaded.get_mut(position)
                    && let Some(sent) = loaded.spares_sent.get_mut(worker)
                {
                    *sent += 1;
                }
            }
        }
    }
}
