//! In silence, adaptive polling costs next to nothing.

use std::collections::BTreeMap;
use std::ffi::OsString;
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
        let mut least = measure(stage)?;
        for _ in 1..TRIES {
            if least.iter().all(|usage| usage.share <= SHARE_MAX) {
                break;
            }
            for (usage, again) in least.iter_mut().zip(measure(stage)?) {
                if again.share < usage.share {
                    *usage = again;
                }
            }
        }
        let mut words = Vec::new();
        for (letter, Usage { share, threads }) in ["a", "b"].into_iter().zip(least) {
            let percent = share * 100.0;
            ensure!(share <= SHARE_MAX, "node {letter} used {percent:.1} % of a core: {threads}");
            words.push(format!("node {letter}: {percent:.2} % of a core"));
        }
        Ok(words.join(", "))
    });
}

/// What part of a core each router uses for a while.
fn measure(stage: &mut Stage) -> Result<[Usage; 2]> {
    let pids = [stage.a.process()?.pid(), stage.b.process()?.pid()];
    let before = [cpu_times(pids[0])?, cpu_times(pids[1])?];
    let started = Instant::now();
    thread::sleep(SILENCE);
    let after = [cpu_times(pids[0])?, cpu_times(pids[1])?];
    let elapsed = started.elapsed();
    Ok([0, 1].map(|node| Usage::new(&before[node], &after[node], elapsed)))
}

/// What part of a core a router used, and its threads.
struct Usage {
    share: f64,
    threads: String,
}

impl Usage {
    fn new(before: &Times, after: &Times, elapsed: Duration) -> Self {
        let mut shares: Vec<(f64, &str)> = after
            .iter()
            .map(|(thread, (name, time))| {
                let earlier = before.get(thread).map_or(Duration::ZERO, |(_, time)| *time);
                (time.saturating_sub(earlier).as_secs_f64() / elapsed.as_secs_f64(), &**name)
            })
            .collect();
        shares.sort_by(|a, b| b.0.total_cmp(&a.0));
        let words = shares.iter().map(|(share, name)| format!("{name} {:.2} %", share * 100.0));
        let share = shares.iter().map(|(share, _)| share).sum();
        Self { share, threads: words.take(6).collect::<Vec<_>>().join(", ") }
    }
}

/// Name and time of each thread, by its number.
type Times = BTreeMap<OsString, (String, Duration)>;

/// Time that each thread of a process has run on any core.
fn cpu_times(pid: u32) -> Result<Times> {
    let tasks = Path::new("/proc").join(pid.to_string()).join("task");
    let mut times = Times::new();
    for task in std::fs::read_dir(&tasks).with_context(|| tasks.display().to_string())? {
        let task = task?;
        let path = task.path().join("schedstat");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let nanos = text.split_whitespace().next().and_then(|word| word.parse().ok());
        let nanos = nanos.with_context(|| format!("{}: {text}", path.display()))?;
        let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        let name = name.trim_end().to_owned();
        times.insert(task.file_name(), (name, Duration::from_nanos(nanos)));
    }
    Ok(times)
}
