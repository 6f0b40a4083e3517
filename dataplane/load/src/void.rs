//! Health checks of a run: whether something besides the device under test decided its result.
//!
//! ```text
//!   counters, CPU times --> | trial of the tester | --> counters, CPU times
//!                                    |                        |
//!                                    +---- Trial::void <------+ what moved in between
//! ```
//!
//! - A cloud's allowance: ENA drops or queues packets beyond what the instance type is allowed, and
//!   counts that in `*_allowance_exceeded` (Linux, Documentation/networking/device_drivers/ethernet/
//!   amazon/ena.rst). The loss is the cloud's then.
//! - Stolen time: the hypervisor ran somebody else on the CPU (`steal`, proc_stat(5)). A core that is
//!   away for a millisecond overflows a ring whatever the software does.
//!
//! What the generator knows of itself (a ring of its own that overflowed), it puts into
//! [`Trial::void`].

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use crate::document::Trial;
use crate::{LoadError, Tester};

/// The part of a CPU's time that may be stolen before a run is void, 0 to 1.
pub const STEAL_MAX_DEFAULT: f64 = 0.01;

/// What the checks look at.
pub trait Host {
    /// The text of `/proc/stat`.
    ///
    /// # Errors
    /// [`LoadError::Host`] when it cannot be read.
    fn proc_stat(&mut self) -> Result<String, LoadError>;

    /// The driver's counters of an interface by name, as `ethtool -S` shows them.
    ///
    /// # Errors
    /// [`LoadError::Xdp`] when they cannot be read.
    fn driver_statistics(&mut self, interface: &str) -> Result<Vec<(String, u64)>, LoadError>;
}

/// The host that this process runs on, with the interfaces of its network namespace.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThisHost;

impl Host for ThisHost {
    fn proc_stat(&mut self) -> Result<String, LoadError> {
        fs::read_to_string("/proc/stat")
            .map_err(|error| LoadError::host("cannot read /proc/stat", error))
    }

    fn driver_statistics(&mut self, interface: &str) -> Result<Vec<(String, u64)>, LoadError> {
        Ok(xdp::host::driver_statistics(interface)?)
    }
}

/// A tester whose trials are checked.
#[derive(Debug)]
pub struct Guarded<T, H = ThisHost> {
    tester: T,
    host: H,
    interfaces: Vec<String>,
    steal_max: f64,
}

impl<T: Tester> Guarded<T> {
    /// Checks the trials of `tester` on this host: the allowances of `interfaces`, and that no CPU had
    /// more than `steal_max` of its time stolen (0 to 1, [`STEAL_MAX_DEFAULT`]).
    pub fn new(tester: T, interfaces: Vec<String>, steal_max: f64) -> Self {
        Self::on(ThisHost, tester, interfaces, steal_max)
    }
}

impl<T: Tester, H: Host> Guarded<T, H> {
    /// The same on another host.
    pub fn on(host: H, tester: T, interfaces: Vec<String>, steal_max: f64) -> Self {
        Self { tester, host, interfaces, steal_max }
    }

    fn look(&mut self) -> Result<Snapshot, LoadError> {
        let cpus = parse_proc_stat(&self.host.proc_stat()?);
        let mut allowances = BTreeMap::new();
        for interface in &self.interfaces {
            for (name, value) in self.host.driver_statistics(interface)? {
                if name.ends_with("_allowance_exceeded") {
                    allowances.insert((interface.clone(), name), value);
                }
            }
        }
        Ok(Snapshot { cpus, allowances })
    }
}

impl<T: Tester, H: Host> Tester for Guarded<T, H> {
    fn trial(&mut self, rate_pps: Option<f64>, duration: Duration) -> Result<Trial, LoadError> {
        let before = self.look()?;
        let mut trial = self.tester.trial(rate_pps, duration)?;
        let after = self.look()?;
        trial.void.extend(after.faults_since(&before, self.steal_max));
        Ok(trial)
    }
}

/// What the checks compare.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Snapshot {
    cpus: BTreeMap<u32, CpuTimes>,
    allowances: BTreeMap<(String, String), u64>,
}

/// Times of one CPU since the start, in ticks of `USER_HZ` (mostly 10 ms).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct CpuTimes {
    /// All of them.
    total: u64,
    /// Those that the hypervisor gave to somebody else.
    steal: u64,
}

/// Parses the lines `cpuN user nice system idle iowait irq softirq steal guest guest_nice`. The times
/// of guests are part of `user` and `nice`.
fn parse_proc_stat(text: &str) -> BTreeMap<u32, CpuTimes> {
    let cpu = |line: &str| {
        let mut words = line.strip_prefix("cpu")?.split_ascii_whitespace();
        let number = words.next()?.parse().ok()?;
        let times: Vec<u64> = words.take(8).map_while(|word| word.parse().ok()).collect();
        let steal = times.get(7).copied()?;
        Some((number, CpuTimes { total: times.iter().sum(), steal }))
    };
    // The first line, `cpu`, sums all of them up, in which one CPU's share would disappear.
    text.lines().filter(|line| !line.starts_with("cpu ")).filter_map(cpu).collect()
}

impl Snapshot {
    /// What happened between `before` and this that makes a run void, as sentences without a period.
    fn faults_since(&self, before: &Self, steal_max: f64) -> Vec<String> {
        let mut faults = Vec::new();
        for ((interface, name), value) in &self.allowances {
            let earlier = before.allowances.get(&(interface.clone(), name.clone()));
            // A counter that was reset says nothing.
            let moved = value.saturating_sub(earlier.copied().unwrap_or(0));
            if moved > 0 {
                faults.push(format!(
                    "the cloud limited {interface}: {name} rose by {moved} during the run"
                ));
            }
        }
        for (cpu, after) in &self.cpus {
            let Some(before) = before.cpus.get(cpu) else { continue };
            let total = after.total.saturating_sub(before.total);
            let steal = after.steal.saturating_sub(before.steal);
            // The kernel counts in whole ticks: one of them may be the rounding of almost nothing,
            // and in a short run it would already be more than the bound.
            if steal > 1 && steal as f64 > steal_max * total as f64 {
                faults.push(format!(
                    "the hypervisor took {:.1} % of CPU {cpu} away during the run (bound: {:.1} %)",
                    100.0 * steal as f64 / total as f64,
                    100.0 * steal_max
                ));
            }
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a virtual machine with two CPUs.
    const PROC_STAT: &str = "\
cpu  1338705 36963 140607 847667 6980 0 17927 495 0 0
cpu0 668912 18401 70388 423712 3401 0 9903 245 0 0
cpu1 669793 18562 70219 423955 3579 0 8024 250 0 0
intr 41713250 0 9 0 0
ctxt 83612873
btime 1763664061
processes 402113
procs_running 3
procs_blocked 0
softirq 15219012 0 1833126 5 9921173 0 0 1028 1902118 0 1561562
";

    /// Of an instance with ENA: the beginning, and the counters of the first queue.
    const ETHTOOL_S: &str = "\
NIC statistics:
     tx_timeout: 0
     suspend: 0
     resume: 0
     wd_expired: 0
     interface_up: 1
     interface_down: 0
     admin_q_pause: 0
     bw_in_allowance_exceeded: 0
     bw_out_allowance_exceeded: 12
     pps_allowance_exceeded: 40
     conntrack_allowance_exceeded: 0
     linklocal_allowance_exceeded: 0
     conntrack_allowance_available: 136812
     queue_0_tx_cnt: 8126
     queue_0_tx_bytes: 2003841
";

    fn statistics(text: &str) -> Vec<(String, u64)> {
        text.lines()
            .filter_map(|line| line.trim().split_once(": "))
            .map(|(name, value)| (name.into(), value.parse().expect("a number")))
            .collect()
    }

    /// A host whose answers were recorded: one for each look.
    struct Recorded {
        proc_stat: Vec<String>,
        ethtool: Vec<String>,
    }

    impl Host for Recorded {
        fn proc_stat(&mut self) -> Result<String, LoadError> {
            Ok(self.proc_stat.remove(0))
        }

        fn driver_statistics(&mut self, interface: &str) -> Result<Vec<(String, u64)>, LoadError> {
            assert_eq!(interface, "ens6");
            Ok(statistics(&self.ethtool.remove(0)))
        }
    }

    /// A tester that found one fault itself.
    struct Overflowed;

    impl Tester for Overflowed {
        fn trial(&mut self, _: Option<f64>, _: Duration) -> Result<Trial, LoadError> {
            Ok(Trial { void: vec!["its own ring overflowed".into()], ..Trial::default() })
        }
    }

    fn faults(proc_stat_after: &str, ethtool_after: &str) -> Vec<String> {
        let host = Recorded {
            proc_stat: vec![PROC_STAT.into(), proc_stat_after.into()],
            ethtool: vec![ETHTOOL_S.into(), ethtool_after.into()],
        };
        let interfaces = vec!["ens6".into()];
        Guarded::on(host, Overflowed, interfaces, STEAL_MAX_DEFAULT)
            .trial(Some(1000.0), Duration::from_secs(1))
            .expect("the trial is made")
            .void
    }

    #[test]
    fn cpu_times_are_read_for_each_cpu() {
        let cpus = parse_proc_stat(PROC_STAT);
        assert_eq!(cpus.len(), 2);
        let total = 669_793 + 18_562 + 70_219 + 423_955 + 3579 + 8024 + 250;
        assert_eq!(cpus[&1], CpuTimes { total, steal: 250 });
        assert_eq!(parse_proc_stat("cpu0 1 2 3"), BTreeMap::new(), "too old a kernel");
    }

    #[test]
    fn a_quiet_host_adds_nothing() {
        let after = PROC_STAT.replace("cpu1 669793", "cpu1 669893");
        let after_ethtool = ETHTOOL_S
            .replace("queue_0_tx_cnt: 8126", "queue_0_tx_cnt: 9999")
            .replace("available: 136812", "available: 136000");
        assert_eq!(faults(&after, &after_ethtool), ["its own ring overflowed"]);
    }

    #[test]
    fn an_allowance_that_moved_makes_the_run_void() {
        let after = ETHTOOL_S.replace("pps_allowance_exceeded: 40", "pps_allowance_exceeded: 43");
        assert_eq!(
            faults(PROC_STAT, &after),
            [
                "its own ring overflowed",
                "the cloud limited ens6: pps_allowance_exceeded rose by 3 during the run"
            ]
        );
    }

    #[test]
    fn stolen_time_beyond_the_bound_makes_the_run_void() {
        // 96 ticks of use and 4 of theft on one of the two.
        let after =
            PROC_STAT.replace("cpu1 669793", "cpu1 669889").replace("8024 250 0 0", "8024 254 0 0");
        assert_eq!(
            faults(&after, ETHTOOL_S),
            [
                "its own ring overflowed",
                "the hypervisor took 4.0 % of CPU 1 away during the run (bound: 1.0 %)"
            ]
        );
        // One tick is no more than a rounding, and 2 of 202 are below the bound.
        for (user, steal) in [("669802", "251"), ("669993", "252")] {
            let after = PROC_STAT
                .replace("cpu1 669793", &format!("cpu1 {user}"))
                .replace("8024 250 0 0", &format!("8024 {steal} 0 0"));
            assert_eq!(faults(&after, ETHTOOL_S).len(), 1);
        }
    }

    #[test]
    fn this_host_can_be_looked_at() {
        let mut guarded = Guarded::new(Overflowed, vec!["lo".into()], STEAL_MAX_DEFAULT);
        let snapshot = guarded.look().expect("/proc/stat and lo are there");
        assert!(!snapshot.cpus.is_empty() && snapshot.allowances.is_empty());
        assert!(Guarded::new(Overflowed, vec!["none".into()], 0.01).look().is_err());
    }
}
