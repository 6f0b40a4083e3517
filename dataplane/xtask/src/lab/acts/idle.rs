//! In silence, adaptive polling costs next to nothing.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::lab::report::Report;
use crate::lab::stage::Stage;

/// How long to measure.
const SILENCE: Duration = Duration::from_secs(2);

/// How often, at most: what a machine does besides makes each wake-up dearer, and the least counts.
const TRIES: usize = 3;

/// Before, time for what is still on its way.
const SETTLE: Duration = Duration::from_millis(300);

/// The most that a router may use, in parts of a core.
const SHARE_MAX: f64 = 0.01;

/// Plays the act.
pub fn play(stage: &mut Stage, report: &mut Report) {
    report.act("silence");
    report.check("idle routers", || {
        thread::sleep(SETTLE);
        let mut shares = measure(stage)?;
        for _ in 1..TRIES {
            if shares.iter().all(|share| *share <= SHARE_MAX) {
                break;
            }
            let again = measure(stage)?;
            for (share, again) in shares.iter_mut().zip(again) {
                *share = share.min(again);
            }
        }
        let mut words = Vec::new();
        for (letter, share) in ["a", "b"].into_iter().zip(shares) {
            ensure!(share <= SHARE_MAX, "node {letter} used {:.1} % of a core", share * 100.0);
            words.push(format!("node {letter}: {:.2} % of a core", share * 100.0));
        }
        Ok(words.join(", "))
    });
}

/// What part of a core each router uses for a while.
fn measure(stage: &mut Stage) -> Result<[f64; 2]> {
    let pids = [stage.a.process()?.pid(), stage.b.process()?.pid()];
    let before = [cpu_time(pids[0])?, cpu_time(pids[1])?];
    let started = Instant::now();
    thread::sleep(SILENCE);
    let after = [cpu_time(pids[0])?, cpu_time(pids[1])?];
    let elapsed = started.elapsed().as_secs_f64();
    Ok([0, 1].map(|node| after[node].saturating_sub(before[node]).as_secs_f64() / elapsed))
}

/// Time that a process has run on any core, threads that have ended left out.
fn cpu_time(pid: u32) -> Result<Duration> {
    let tasks = Path::new("/proc").join(pid.to_string()).join("task");
    let mut total = Duration::ZERO;
    for task in std::fs::read_dir(&tasks).with_context(|| tasks.display().to_string())? {
        let path = task?.path().join("schedstat");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let nanos = text.split_whitespace().next().and_then(|word| word.parse().ok());
        total +=
            Duration::from_nanos(nanos.with_context(|| format!("{}: {text}", path.display()))?);
    }
    Ok(total)
}
