//! What plugins cost, and what a budget refuses.

mod common;

use common::{Rig, Wat, batch, numbered, plugin};
use frame::{DropReason, HookPoint, Nanos, Verdict};
use policy::{
    Manifest, PluginConfig, PluginSpec, PluginState, PolicyError, PriceTraffic, RehearsalPacket,
    TrafficNow, TrafficSource,
};

const NOW: Nanos = Nanos(1_000_000_000);
const BATCH: usize = 64;

/// `n` packets that differ in their source port, at a million a second.
struct Fixed(usize);

impl PriceTraffic for Fixed {
    fn packets(&self, _: &Manifest, _: &[u8]) -> (TrafficSource, Vec<RehearsalPacket>) {
        let packets = numbered(self.0).into_iter();
        let shown = packets.map(|descriptor| RehearsalPacket { descriptor, ..Default::default() });
        (TrafficSource::Recent, shown.collect())
    }

    fn batch_frames(&self) -> usize {
        BATCH
    }

    fn now(&self) -> TrafficNow {
        TrafficNow { packets_per_s: 1e6, clocks_per_s: 2e9 }
    }
}

fn rig() -> Rig {
    let mut rig = Rig::new(2);
    rig.host.price_with(Box::new(Fixed(5 * BATCH)));
    rig
}

/// Multiplies 2000 numbers for each packet, each with the one before: at three clocks each, 6000 clocks
/// of the core, which no turbo makes 3000 of the counter.
fn burns() -> Wat {
    let process = "(local $i i32) (local $product i64)
         (local.set $product (i64.const 3))
         (local.set $i (i32.mul (local.get $n) (i32.const 2000)))
         (block $end (loop $next
           (br_if $end (i32.eqz (local.get $i)))
           (local.set $product (i64.mul (local.get $product) (i64.add (local.get $product) (i64.const 5))))
           (local.set $i (i32.sub (local.get $i) (i32.const 1)))
           (br $next)))
         (i64.store (i32.const 60000) (local.get $product))";
    Wat { process: process.to_owned(), ..Wat::default() }
}

/// Gives up at the packet with the source port 100.
fn gives_up() -> Wat {
    let process = "(local $i i32)
         (block $end (loop $next
           (br_if $end (i32.ge_u (local.get $i) (local.get $n)))
           (if (i32.eq (i32.const 100)
                 (i32.load16_u offset=32 (i32.add (i32.const 1024) (i32.mul (local.get $i) (i32.const 64)))))
             (then unreachable))
           (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br $next)))";
    Wat { process: process.to_owned(), ..Wat::default() }
}

fn budget_error<T>(result: Result<T, PolicyError>) -> String {
    match result {
        Err(error @ PolicyError::Budget { .. }) => error.to_string(),
        Err(error) => panic!("another error: {error}"),
        Ok(_) => panic!("it was not refused"),
    }
}

#[test]
fn a_price_says_what_it_was_measured_with_and_what_it_comes_to() {
    let mut rig = rig();
    let specs = [rig.spec("cheap", &Wat::default()), rig.spec("burns", &burns())];
    rig.publish(&specs);
    let status = rig.host.status();
    let [cheap, burns] = &status[..] else { panic!("two plugins") };
    let prices = [cheap, burns].map(|plugin| plugin.price.clone().expect("a price"));
    for price in &prices {
        assert_eq!((price.traffic, price.packets), (TrafficSource::Recent, 5 * BATCH));
        assert_eq!((price.batch_frames, &price.trapped), (BATCH, &None));
        assert!(price.repetitions >= 3, "{price:?}");
        assert!(0.0 < price.cycles_per_packet_p50, "{price:?}");
        assert!(price.cycles_per_packet_p50 <= price.cycles_per_packet_p99, "{price:?}");
        assert!(price.cycles_per_packet <= price.cycles_per_packet_p99, "{price:?}");
        let cores = price.cycles_per_packet * 1e6 / 2e9;
        assert!((price.cores - cores).abs() < 1e-9, "{price:?}");
    }
    assert!(prices[0].cycles_per_packet < prices[1].cycles_per_packet, "{prices:?}");
    // What was measured leaves no trace in what runs.
    for plugin in &status {
        assert_eq!((plugin.total.packets, plugin.total.traps), (0, 0));
        assert_eq!(plugin.state, PluginState::Running);
    }
}

#[test]
fn without_packets_there_is_no_price_and_nothing_to_hold_against_a_budget() {
    let mut rig = Rig::new(1);
    let spec = rig.spec("burns", &burns());
    assert!(rig.host.prepare_within(std::slice::from_ref(&spec), Some(1)).is_ok());
    rig.host.price_with(Box::new(Fixed(0)));
    rig.publish(std::slice::from_ref(&spec));
    assert_eq!(rig.host.status()[0].price, None);
}

#[test]
fn a_set_beyond_the_budget_is_refused_with_the_price_of_each() {
    let mut rig = rig();
    let cheap = rig.spec("cheap", &Wat::default());
    let expensive = rig.spec("burns", &burns());
    let set = rig.host.prepare_within(std::slice::from_ref(&cheap), Some(3000)).expect("cheap");
    rig.host.publish(set).expect("room");
    let both = [cheap.clone(), expensive.clone()];
    let text = budget_error(rig.host.prepare(&both));
    assert!(text.contains("`plugins.budget_cycles_per_packet` is 3000"), "{text}");
    assert!(text.contains("cheap ") && text.contains("burns "), "{text}");
    assert!(text.contains("(recent packets)"), "{text}");
    // What runs goes on running, and another budget lets it in.
    assert_eq!(rig.turn(0, &mut batch(&numbered(2)), NOW), [Verdict::Continue; 2]);
    assert_eq!(rig.host.status().len(), 1);
    let set = rig.host.prepare_within(&both, None).expect("no limit");
    rig.host.publish(set).expect("room");
    assert_eq!(rig.host.status().len(), 2);
    // A budget that what runs is beyond already.
    budget_error(rig.host.prepare_within(&both, Some(3000)));
}

#[test]
fn one_plugin_beyond_the_budget_is_refused_however_it_comes() {
    let mut rig = rig();
    let spec = rig.spec("p", &Wat::default());
    let other = rig.directory.path().join("other.wasm");
    burns().write(&other);
    let set = rig.host.prepare_within(std::slice::from_ref(&spec), Some(3000)).expect("cheap");
    rig.host.publish(set).expect("room");
    rig.begin(NOW);

    budget_error(rig.host.load_from("p", &other, None));
    let text = budget_error(rig.host.load_candidate("p", &other, None));
    assert!(text.contains("p (candidate) "), "{text}");
    burns().write(&spec.path);
    budget_error(rig.host.reload("p"));
    let polled = rig.host.poll_files();
    assert!(matches!(&polled[..], [Err(PolicyError::Budget { .. })]), "{polled:?}");
    assert!(rig.host.poll_files().is_empty(), "told once");
    assert_eq!(rig.host.status()[0].generation, 1);
    assert_eq!(rig.turn(0, &mut batch(&numbered(2)), NOW), [Verdict::Continue; 2]);

    // A candidate that fits is priced beside, and promoted at its price.
    Wat::default().write(&other);
    let config = Some(PluginConfig::Empty);
    let beside = rig.host.load_candidate("p", &other, config).expect("cheap");
    let price = beside.price.expect("a price");
    rig.begin(NOW);
    let promoted = rig.host.promote("p").expect("cheap").price.expect("a price");
    assert_eq!(promoted.cycles_per_packet, price.cycles_per_packet);
}

#[test]
fn a_rollback_and_a_checkpoint_go_back_whatever_the_budget_is() {
    let mut rig = rig();
    let spec = rig.spec("p", &burns());
    rig.publish(std::slice::from_ref(&spec));
    let back = rig.host.checkpoint();
    Wat::default().write(&spec.path);
    let set = rig.host.prepare_within(std::slice::from_ref(&spec), Some(3000)).expect("cheap");
    rig.host.publish(set).expect("room");
    rig.begin(NOW);
    let report = rig.host.rollback("p").expect("the one before");
    assert!(report.price.expect("a price").cycles_per_packet > 3000.0);
    rig.begin(NOW);
    let set = rig.host.prepare_checkpoint(&back).expect("what ran");
    rig.host.publish(set).expect("room");
    rig.begin(NOW);
    // The budget is that of the checkpoint again: none.
    rig.host.reload("p").expect("no limit");
}

#[test]
fn a_plugin_that_traps_has_no_price_and_no_place_in_a_budget() {
    let mut rig = rig();
    let spec = rig.spec("p", &gives_up());
    match rig.host.prepare_within(std::slice::from_ref(&spec), Some(1_000_000)) {
        Err(PolicyError::Unpriced { name, reason }) => {
            assert_eq!(name, "p");
            assert!(reason.contains("gave up"), "{reason}");
        }
        Err(error) => panic!("another error: {error}"),
        Ok(_) => panic!("it was not refused"),
    }
    // Without a budget it runs, and what happened aside is no trap of what runs.
    rig.publish(std::slice::from_ref(&spec));
    rig.host.maintain();
    let status = rig.host.status().remove(0);
    let trapped = status.price.and_then(|price| price.trapped);
    assert!(trapped.is_some_and(|reason| reason.contains("gave up")));
    assert_eq!((status.total.traps, status.state), (0, PluginState::Running));
}

#[test]
fn meters_that_run_are_not_drained_by_a_price() {
    let Some(path) = plugin("rate_limit") else { return };
    let mut spec = PluginSpec::new("rate", path, HookPoint::Ingress);
    let table = "packets_per_s = 1\nburst = 2".parse().expect("TOML");
    spec.config = PluginConfig::Table(table);
    spec.grants = vec!["meter".to_owned()];
    let mut rig = rig();
    rig.publish(&[spec]);
    let report = rig.host.reload("rate").expect("the same again");
    assert!(report.price.is_some_and(|price| price.trapped.is_none()));
    // Hundreds of packets with the same key were judged aside: its two tokens are still there.
    let dropped = Verdict::Drop(DropReason::Plugin);
    for verdict in [Verdict::Continue, Verdict::Continue, dropped] {
        assert_eq!(rig.turn(0, &mut batch(&numbered(1)), NOW), [verdict]);
    }
}
