//! Searches of simulated devices under test, whose true limit is known. Seeds are printed by proptest.

use std::time::Duration;

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Found, Goal, LatencyPlan, Plan, SearchError, Watch, latency, search};
use crate::document::{Latency, Trial};
use crate::{LoadError, Tester};

/// A device under test as a function from the offered rate to the share that it loses.
struct Device<L> {
    loss_ratio: L,
    generator_max_pps: f64,
    void: Vec<Vec<String>>,
}

impl<L: FnMut(f64, Duration) -> f64> Device<L> {
    fn new(loss_ratio: L) -> Self {
        Self { loss_ratio, generator_max_pps: 1e9, void: Vec::new() }
    }
}

impl<L: FnMut(f64, Duration) -> f64> Tester for Device<L> {
    fn trial(&mut self, rate_pps: Option<f64>, duration: Duration) -> Result<Trial, LoadError> {
        let asked_pps = rate_pps.unwrap_or(f64::INFINITY);
        let offered_pps = asked_pps.min(self.generator_max_pps);
        let sent = (offered_pps * duration.as_secs_f64()).round() as u64;
        let share = (self.loss_ratio)(offered_pps, duration);
        let lost = ((sent as f64 * share).ceil() as u64).min(sent);
        let p50_ns = 10_000 + (offered_pps / 100.0) as u64;
        Ok(Trial {
            asked_pps: rate_pps,
            // From the first packet to the last.
            duration_s: sent.saturating_sub(1) as f64 / offered_pps,
            sent,
            received: sent - lost,
            lost,
            latency: Some(Latency {
                count: sent,
                p50_ns,
                p99_ns: 2 * p50_ns,
                ..Latency::default()
            }),
            void: self.void.pop().unwrap_or_default(),
            is_generator_limited: rate_pps.is_some() && offered_pps < 0.99 * asked_pps,
            ..Trial::default()
        })
    }
}

/// Forwards up to a limit and drops the rest.
fn sharp(limit_pps: f64) -> impl FnMut(f64, Duration) -> f64 {
    move |offered_pps, _| (1.0 - limit_pps / offered_pps).max(0.0)
}

fn plan(min_pps: f64, max_pps: f64) -> Plan {
    Plan { min_pps, max_pps: Some(max_pps), ..Plan::default() }
}

fn found<L: FnMut(f64, Duration) -> f64>(device: &mut Device<L>, plan: &Plan) -> Found {
    search(device, plan, &mut ()).expect("the search has a result")
}

#[test]
fn a_sharp_limit_is_found_within_the_width() {
    let plan = plan(1000.0, 10_000_000.0);
    let found = found(&mut Device::new(sharp(1_234_567.0)), &plan);
    let [ndr, pdr] = found.bounds[..] else { panic!("two goals") };
    let (lower, upper) = (ndr.lower_pps.expect("found"), ndr.upper_pps.expect("found"));
    assert!(lower <= 1_234_567.0 && 1_234_567.0 < upper, "{ndr:?}");
    assert!((upper - lower) / upper <= 0.005 + 1e-9, "{ndr:?}");
    assert_eq!(ndr.forwarded_pps, Some(lower), "nothing is lost at NDR");
    // 0.5 % of loss are reached 0.5 % above the limit.
    let truth = 1_234_567.0 / 0.995;
    let (lower, upper) = (pdr.lower_pps.expect("found"), pdr.upper_pps.expect("found"));
    assert!(lower <= truth && truth < upper && (upper - lower) / upper <= 0.005 + 1e-9, "{pdr:?}");
    assert!(ndr.is_conclusive && pdr.is_conclusive);
    assert!(found.notes.is_empty(), "{:?}", found.notes);
    // A rate without any bad trial is decided by half of the sum, rounded up.
    assert_eq!((ndr.trial_s, ndr.trials_s, ndr.high_loss_s), (1.0, 11.0, 0.0));
    assert_eq!((ndr.exceed_ratio, ndr.goal_trials_s, ndr.width), (0.5, 21.0, 0.005));
}

/// With the conservative goal of the draft's RFC 2544 compliance, one trial decides.
#[test]
fn a_goal_of_one_long_trial_takes_few_long_trials() {
    let rfc2544 = Goal {
        exceed_ratio: 0.0,
        trial_final: Duration::from_secs(60),
        trials_sum: Duration::from_secs(60),
        ..Goal::ndr()
    };
    let plan = Plan {
        goals: vec![rfc2544],
        duration_max: Duration::from_secs(3600),
        ..plan(1000.0, 10_000_000.0)
    };
    let found = found(&mut Device::new(sharp(777_777.0)), &plan);
    let ndr = found.bounds[0];
    assert!(ndr.is_conclusive && ndr.lower_pps <= Some(777_777.0), "{ndr:?}");
    assert_eq!((ndr.trial_s, ndr.trials_s), (60.0, 60.0));
    let long = found.trials.iter().filter(|trial| trial.duration_s > 59.0).count();
    assert!(long <= 4, "{long} trials of 60 s, but the short ones find the place");
}

/// A device that now and then loses a little at any rate: half of the trials may be such, so the
/// limit is found all the same.
#[test]
fn noise_in_fewer_than_half_of_the_trials_does_not_hide_the_limit() {
    for seed in 0..20 {
        let mut noise = StdRng::seed_from_u64(seed);
        let mut limit = sharp(500_000.0);
        let device = |offered_pps, duration| {
            let hiccup = if noise.random_bool(0.2) { 0.0001 } else { 0.0 };
            f64::max(limit(offered_pps, duration), hiccup)
        };
        let found = found(&mut Device::new(device), &plan(1000.0, 10_000_000.0));
        let ndr = found.bounds[0];
        assert!(ndr.is_conclusive, "seed {seed}: {ndr:?}");
        let lower = ndr.lower_pps.expect("found");
        assert!((490_000.0..=500_000.0).contains(&lower), "seed {seed}: {lower}");
        assert!(ndr.high_loss_s <= 0.5 * ndr.trials_s, "seed {seed}: {ndr:?}");
    }
}

/// The same noise without tolerance for it: there is no rate without loss, which is what is said.
#[test]
fn without_an_exceed_ratio_noise_is_loss() {
    let goal = Goal { exceed_ratio: 0.0, ..Goal::ndr() };
    let plan = Plan { goals: vec![goal], ..plan(1000.0, 1_000_000.0) };
    let mut noise = StdRng::seed_from_u64(1);
    let device = |_, _| if noise.random_bool(0.2) { 0.001 } else { 0.0 };
    let found = found(&mut Device::new(device), &plan);
    assert_eq!(found.bounds[0].lower_pps, None, "21 trials in a row have one with loss");
    assert!(found.notes[0].contains("not met at the lowest rate"), "{:?}", found.notes);
}

#[test]
fn a_limit_above_the_highest_rate_leaves_no_upper_bound() {
    let found = found(&mut Device::new(sharp(2e9)), &plan(1000.0, 1_000_000.0));
    for bound in &found.bounds {
        assert_eq!((bound.lower_pps, bound.upper_pps), (Some(1_000_000.0), None));
        assert!(!bound.is_conclusive);
    }
    assert_eq!(found.trials.len(), 11, "only the highest rate is tried");
    assert!(found.notes[0].contains("NDR was met at the highest rate"), "{:?}", found.notes);
}

#[test]
fn a_device_that_always_loses_has_no_lower_bound() {
    let found = found(&mut Device::new(|_, _| 0.1), &plan(1000.0, 1_000_000.0));
    for bound in &found.bounds {
        assert_eq!((bound.lower_pps, bound.upper_pps), (None, Some(1000.0)));
        assert_eq!((bound.forwarded_pps, bound.is_conclusive), (None, false));
    }
    assert!(found.trials.len() < 60, "{}", found.trials.len());
}

/// Loses between 300,000 and 400,000 packets/s, forwards above that up to its limit: what counts is
/// the lowest rate with loss that was seen, never a good result above one.
#[test]
fn good_results_above_bad_ones_do_not_count() {
    let device = |offered_pps: f64, _| match offered_pps {
        300_000.0..400_000.0 => 0.05,
        900_000.0.. => 1.0 - 900_000.0 / offered_pps,
        _ => 0.0,
    };
    let found = found(&mut Device::new(device), &plan(1000.0, 10_000_000.0));
    for bound in &found.bounds {
        let (lower, upper) = (bound.lower_pps.expect("found"), bound.upper_pps.expect("found"));
        assert!(bound.is_conclusive && lower < upper);
        let bad = |trial: &&Trial| trial.lost as f64 > bound.loss_ratio_max * trial.sent as f64;
        let lowest_bad = found
            .trials
            .iter()
            .filter(bad)
            .filter_map(|trial| trial.asked_pps)
            .fold(f64::INFINITY, f64::min);
        assert_eq!(upper, lowest_bad);
    }
}

/// A device that loses more the longer it is loaded: short trials mislead, long ones decide.
#[test]
fn long_trials_correct_what_short_ones_said() {
    let device = |offered_pps: f64, duration: Duration| {
        let limit = if duration < Duration::from_secs(10) { 800_000.0 } else { 200_000.0 };
        (1.0 - limit / offered_pps).max(0.0)
    };
    let long = |goal: Goal| Goal {
        trial_final: Duration::from_secs(10),
        trials_sum: Duration::from_secs(10),
        ..goal
    };
    let plan =
        Plan { goals: vec![long(Goal::ndr()), long(Goal::pdr())], ..plan(1000.0, 10_000_000.0) };
    let found = found(&mut Device::new(device), &plan);
    let ndr = found.bounds[0];
    assert!(ndr.is_conclusive && ndr.lower_pps <= Some(200_000.0), "{ndr:?}");
    assert!(ndr.lower_pps >= Some(198_900.0), "{ndr:?}");
}

#[test]
fn the_generators_limit_is_not_taken_for_the_devices() {
    let mut device = Device::new(sharp(2e9));
    device.generator_max_pps = 300_000.0;
    let found = found(&mut device, &plan(1000.0, 10_000_000.0));
    let ndr = found.bounds[0];
    assert_eq!((ndr.upper_pps, ndr.is_conclusive), (None, false));
    let lower = ndr.lower_pps.expect("what the generator reached was forwarded");
    assert!((290_000.0..300_000.0).contains(&lower), "{lower}");
    assert!(found.notes[0].contains("generator reached 300000 packets/s"), "{:?}", found.notes);

    let slow = search(&mut device, &plan(400_000.0, 10_000_000.0), &mut ());
    assert!(matches!(slow, Err(SearchError::GeneratorTooSlow { .. })), "{slow:?}");
}

#[test]
fn without_a_highest_rate_the_generator_is_asked() {
    let mut device = Device::new(sharp(200_000.0));
    device.generator_max_pps = 1_000_000.0;
    let found = found(&mut device, &Plan::default());
    assert_eq!((found.trials[0].asked_pps, found.trials[1].asked_pps), (None, Some(980_000.0)));
    assert!(found.bounds[0].is_conclusive);
}

#[test]
fn void_trials_are_repeated_and_then_end_the_search() {
    let void = || vec!["3.0 % of CPU 1 were stolen".to_owned()];
    let mut device = Device::new(sharp(200_000.0));
    // The first one falls on the warm-up, which nobody looks at.
    device.void = vec![void(); 4];
    let found = found(&mut device, &plan(1000.0, 1_000_000.0));
    assert!(found.bounds[0].is_conclusive);
    assert_eq!(found.trials.iter().filter(|trial| !trial.void.is_empty()).count(), 3);
    assert!(found.notes[0].starts_with("3 of "), "{:?}", found.notes);

    device.void = vec![void(); 5];
    let error = search(&mut device, &plan(1000.0, 1_000_000.0), &mut ()).expect_err("4 in a row");
    assert!(matches!(error, SearchError::Void { tries: 4, .. }));
    assert!(error.to_string().ends_with("3.0 % of CPU 1 were stolen"), "{error}");
}

/// What was measured before the machine got restless stays true.
#[test]
fn a_search_that_knows_something_ends_with_it_when_trials_stay_void() {
    let mut device = Device::new(sharp(200_000.0));
    // Void are those behind the first twenty: the list is taken from its end.
    device.void = vec![vec!["the generator was held up".to_owned()]; 200];
    device.void.extend(vec![Vec::new(); 20]);
    let found = found(&mut device, &plan(1000.0, 1_000_000.0));
    let ndr = &found.bounds[0];
    assert!(ndr.lower_pps.is_some_and(|rate| (150_000.0..=200_000.0).contains(&rate)), "{ndr:?}");
    assert!(!ndr.is_conclusive);
    let told = |note: &String| note.contains("void 4 times in a row") && note.contains("held up");
    assert!(found.notes.iter().any(told), "{:?}", found.notes);
}

#[test]
fn at_the_deadline_the_result_is_what_is_known() {
    for limit_s in [1, 3, 5, 10, 20, 25] {
        let plan = Plan { duration_max: Duration::from_secs(limit_s), ..plan(1000.0, 1e7) };
        let found = found(&mut Device::new(sharp(1_000_000.0)), &plan);
        let spent: f64 = found.trials.iter().map(|trial| trial.duration_s).sum();
        assert!(spent <= limit_s as f64, "{spent} of {limit_s}");
        let ndr = found.bounds[0];
        assert!(!ndr.is_conclusive, "{limit_s} s: {ndr:?}");
        assert!(ndr.lower_pps.is_none_or(|lower| lower <= 1_000_000.0), "{ndr:?}");
        assert!(ndr.upper_pps.is_none_or(|upper| upper > 1_000_000.0), "{ndr:?}");
        assert!(limit_s < 5 || (ndr.lower_pps.is_some() && ndr.trials_s > 0.0), "{ndr:?}");
        assert!(found.notes[0].contains("before it was conclusive"), "{:?}", found.notes);
    }
}

/// A device that bears every rate for a second and none for longer: what only short trials met is no
/// result, neither before the search ends nor after.
#[test]
fn what_only_short_trials_met_is_no_result() {
    let device = |_, duration: Duration| if duration < Duration::from_secs(10) { 0.0 } else { 0.1 };
    let long = |goal: Goal| Goal {
        trial_final: Duration::from_secs(10),
        trials_sum: Duration::from_secs(10),
        ..goal
    };
    let goals = vec![long(Goal::ndr()), long(Goal::pdr())];
    let found = found(&mut Device::new(device), &Plan { goals, ..plan(1000.0, 10_000_000.0) });
    for bound in &found.bounds {
        assert_eq!((bound.lower_pps, bound.upper_pps), (None, Some(1000.0)), "{bound:?}");
        assert_eq!((bound.trial_s, bound.trials_s, bound.high_loss_s), (10.0, 10.0, 10.0));
    }
}

#[test]
fn a_trial_that_cannot_be_made_ends_the_search() {
    struct Interrupted;
    impl Tester for Interrupted {
        fn trial(&mut self, _: Option<f64>, _: Duration) -> Result<Trial, LoadError> {
            Err(LoadError::Interrupted)
        }
    }
    let error = search(&mut Interrupted, &plan(1000.0, 1e6), &mut ()).expect_err("no trial");
    assert!(matches!(error, SearchError::Tester(LoadError::Interrupted)), "{error}");
}

#[test]
fn latency_is_that_of_the_load_over_that_of_idle() {
    let mut device = Device::new(sharp(1_000_000.0));
    let plan = LatencyPlan::default();
    let found = latency(&mut device, Some(800_000.0), &plan, &mut ()).expect("it is measured");
    let rows: Vec<_> = found
        .at
        .iter()
        .map(|at| (at.load.as_str(), at.rate_pps, at.p50_over_idle_ns, at.p99_over_idle_ns))
        .collect();
    assert_eq!(
        rows,
        [
            ("idle", 1000.0, None, None),
            ("50 %", 400_000.0, Some(3990), Some(7980)),
            ("90 %", 720_000.0, Some(7190), Some(14380)),
        ]
    );
    assert_eq!(found.trials.len(), 3);

    let found = latency(&mut device, None, &plan, &mut ()).expect("idle is measured");
    assert_eq!((found.at.len(), found.notes.len()), (1, 1));
    let found = latency(&mut device, Some(2000.0), &plan, &mut ()).expect("it is measured");
    assert_eq!(found.at[0].rate_pps, 200.0, "idle is far from the limit");
}

/// The rates that were found before stay true, and so do the latencies of other loads.
#[test]
fn latency_that_stays_void_is_left_out() {
    let mut device = Device::new(sharp(1_000_000.0));
    // The list is taken from its end: the trials of the second load are void.
    device.void = vec![vec!["the generator was held up".to_owned()]; 4];
    device.void.push(Vec::new());
    let found = latency(&mut device, Some(800_000.0), &LatencyPlan::default(), &mut ())
        .expect("what could be measured");
    let loads: Vec<_> = found.at.iter().map(|at| at.load.as_str()).collect();
    assert_eq!((loads, found.trials.len()), (vec!["idle", "90 %"], 6));
    assert!(
        found.notes[0].contains("50 %") && found.notes[0].contains("held up"),
        "{:?}",
        found.notes
    );
}

#[test]
fn searches_that_take_longer_than_they_may_are_refused() {
    let second = Duration::from_secs(1);
    for plan in [
        Plan { duration_max: Duration::ZERO, warm_up: Duration::ZERO, ..plan(1000.0, 1e6) },
        Plan { duration_max: second, warm_up: 2 * second, ..plan(1000.0, 1e6) },
    ] {
        let error = search(&mut Device::new(sharp(5e4)), &plan, &mut ()).expect_err("no time");
        assert!(matches!(&error, SearchError::Plan(what) if what.contains("may take")), "{error}");
    }
}

#[test]
fn the_watch_sees_every_trial() {
    #[derive(Default)]
    struct Count(usize);
    impl Watch for Count {
        fn trial(&mut self, _: &Trial, _: Duration) {
            self.0 += 1;
        }
    }
    let mut count = Count::default();
    let found = search(&mut Device::new(sharp(5e4)), &plan(1000.0, 1e6), &mut count)
        .expect("it has a result");
    assert_eq!(count.0, found.trials.len());
}

/// A goal's measure of evidence, as the two goals of a plan share it.
fn measures() -> impl Strategy<Value = (f64, f64, u64, u64, u32)> {
    (
        prop_oneof![Just(0.0), Just(0.25), Just(0.5), Just(0.75)],
        0.002..0.05_f64,
        1..5_u64,
        1..12_u64,
        0..4_u32,
    )
}

fn plan_of(measures: (f64, f64, u64, u64, u32)) -> Plan {
    let (exceed_ratio, width, final_s, final_trials, coarse_phases) = measures;
    let goal = |goal: Goal| Goal {
        exceed_ratio,
        width,
        trial_final: Duration::from_secs(final_s),
        trials_sum: Duration::from_secs(final_s * final_trials),
        coarse_phases,
        ..goal
    };
    Plan {
        goals: vec![goal(Goal::ndr()), goal(Goal::pdr())],
        duration_max: Duration::from_secs(1_000_000),
        ..plan(1000.0, 20_000_000.0)
    }
}

/// More trials than this say that the search wanders: it bisects a grid of at most 5,000 widths (13
/// halvings), in up to four phases that also reach outward (as many steps), for two goals, each rate
/// with up to 11 trials.
const TRIALS_MAX: usize = 2 * (13 + 13 + 4 * 4) * 11;

/// What a search of a device with one sharp limit gets by with: the first trials find the place, so
/// that few rates are tried in vain.
const SHARP_TRIALS_MAX: usize = 100;

proptest! {
    #[test]
    fn sharp_limits_are_found_within_the_width(
        limit_pps in 2000.0..15_000_000.0_f64,
        measures in measures(),
    ) {
        let plan = plan_of(measures);
        let width = measures.1;
        let found = found(&mut Device::new(sharp(limit_pps)), &plan);
        for bound in &found.bounds {
            // A packet that is lost in part is lost as a whole, so the truth is known to a packet.
            let truth = limit_pps / (1.0 - bound.loss_ratio_max);
            let (lower, upper) = (bound.lower_pps.expect("found"), bound.upper_pps.expect("found"));
            prop_assert!(bound.is_conclusive, "{:?}", bound);
            prop_assert!(lower <= truth + 2.0 && truth - 2.0 <= upper, "{} {:?}", truth, bound);
            prop_assert!((upper - lower) / upper <= width + 1e-9, "{:?}", bound);
        }
        prop_assert!(found.trials.len() <= SHARP_TRIALS_MAX, "{} trials", found.trials.len());
    }

    /// Whatever the device does, the search ends, and its results are in order.
    #[test]
    fn any_device_is_searched_to_an_end(
        seed in any::<u64>(),
        noise in 0.0..1.0_f64,
        limit_pps in 500.0..30_000_000.0_f64,
        measures in measures(),
    ) {
        let plan = plan_of(measures);
        let mut random = StdRng::seed_from_u64(seed);
        let mut limit = sharp(limit_pps);
        let device = |offered_pps, duration| {
            let hiccup = if random.random_bool(noise) { random.random_range(0.0..0.02) } else { 0.0 };
            f64::max(limit(offered_pps, duration), hiccup)
        };
        let found = found(&mut Device::new(device), &plan);
        let [ndr, pdr] = found.bounds[..] else { panic!("two goals") };
        // Every trial that is good for NDR is good for PDR.
        prop_assert!(ndr.lower_pps <= pdr.lower_pps, "{:?} {:?}", ndr, pdr);
        if let (Some(ndr), Some(pdr)) = (ndr.upper_pps, pdr.upper_pps) {
            prop_assert!(ndr <= pdr);
        }
        for bound in [ndr, pdr] {
            if let (Some(lower), Some(upper)) = (bound.lower_pps, bound.upper_pps) {
                prop_assert!(lower < upper);
                prop_assert!(bound.is_conclusive, "{:?}", bound);
            } else {
                prop_assert!(bound.lower_pps == Some(20_000_000.0) || bound.upper_pps == Some(1000.0));
            }
            if let (Some(lower), Some(forwarded)) = (bound.lower_pps, bound.forwarded_pps) {
                prop_assert!(forwarded >= lower * (1.0 - bound.loss_ratio_max) - 1e-6);
                prop_assert!(bound.high_loss_s <= bound.exceed_ratio * bound.trials_s + 1e-9);
            }
        }
        prop_assert!(found.trials.len() <= TRIALS_MAX, "{} trials", found.trials.len());
    }
}
