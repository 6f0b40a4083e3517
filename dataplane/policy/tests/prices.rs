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
struct Fixed(usize, TrafficSource);

impl PriceTraffic for Fixed {
    fn packets(&self, _: &Manifest, _: &[u8]) -> (TrafficSource, Vec<RehearsalPacket>) {
        let packets = numbered(self.0).into_iter();
        let shown = packets.map(|descriptor| RehearsalPacket { descriptor, ..Default::default() });
        (self.1, shown.collect())
    }

    fn batch_frames(&self) -> usize {
        BATCH
    }

    fn now(&self) -> TrafficNow {
        TrafficNow { packets_per_s: 1e6, clocks_per_s: 2e9 }
    }
}

fn rig() -> Rig {
    rig_with(TrafficSource::Recent)
}

fn rig_with(source: TrafficSource) -> Rig {
    let mut rig = Rig::new(2);
    rig.host.price_with(Box::new(Fixed(5 * BATCH, source)));
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
    gives_up_if("i32.eq", 100)
}

/// Gives up at packets whose source port is to this number as `relation` says, its first operand being the number.
fn gives_up_if(relation: &str, number: u16) -> Wat {
    let process = format!("(local $i i32)
         (block $end (loop $next
           (br_if $end (i32.ge_u (local.get $i) (local.get $n)))
           (if ({relation} (i32.const {number})
                 (i32.load16_u offset=32 (i32.add (i32.const 1024) (i32.mul (local.get $i) (i32.const 64)))))
             (then unreachable))
           (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br $next)))");
    Wat { process, ..Wat::default() }
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
    rig.host.price_with(Box::new(Fixed(0, TrafficSource::Recent)));
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
            assert!(
                reason.starts_with("trapped on 1 of 5 recorded batches: it gave up"),
                "{reason}"
            );
        }
        Err(error) => panic!("another error: {error}"),
        Ok(_) => panic!("it was not refused"),
    }
    // Without a budget it runs, and what happened aside is no trap of what runs.
    rig.publish(std::slice::from_ref(&spec));
    rig.host.maintain();
    let status = rig.host.status().remove(0);
    let price = status.price.expect("a price");
    let trapped = price.trapped.as_deref().expect("a text");
    assert!(trapped.starts_with("trapped on 1 of 5 recorded batches: it gave up"), "{trapped}");
    // The others have their price.
    assert_eq!((price.trapped_batches, price.batches, price.packets), (1, 5, 5 * BATCH));
    assert!(price.cycles_per_packet > 0.0 && price.repetitions >= 3, "{price:?}");
    assert_eq!((status.total.traps, status.state), (0, PluginState::Running));
}

#[test]
fn a_plugin_that_traps_on_all_recorded_batches_is_refused_unless_somebody_insists() {
    let mut rig = rig();
    let spec = rig.spec("p", &Wat::default());
    rig.publish(std::slice::from_ref(&spec));
    let other = rig.directory.path().join("other.wasm");
    // Each batch of 64 has a port of 60 or more.
    let traps = gives_up_if("i32.lt_u", 59);
    traps.write(&other);
    traps.write(&spec.path);
    let assert_refused = |result: Result<_, PolicyError>| {
        let text = result.expect_err("it is refused").to_string();
        let expected = "plugin `p`: it trapped on 5 of 5 recorded batches: it gave up";
        assert!(text.starts_with(expected) && text.contains("`--allow-traps`"), "{text}");
    };
    assert_refused(rig.host.reload("p"));
    assert_refused(rig.host.load_from("p", &other, None));
    assert_refused(rig.host.prepare(std::slice::from_ref(&spec)).map(|_| unreachable!()));
    // A candidate harms nobody; it is refused when it is to be put into force.
    let price = rig.host.load_candidate("p", &other, None).expect("beside").price.expect("a price");
    assert_eq!((price.trapped_batches, price.batches, price.cycles_per_packet), (5, 5, 0.0));
    let json = serde_json::to_value(&price).expect("JSON");
    assert_eq!(json.get("cycles_per_packet"), None, "nothing was measured: {json}");
    rig.begin(NOW);
    assert_refused(rig.host.promote("p"));
    assert_eq!(rig.host.status()[0].generation, 1);
    assert_eq!(rig.turn(0, &mut batch(&numbered(64)), NOW), [Verdict::Continue; 64]);
    // What is allowed is allowed once.
    rig.host.allowing_traps(true, |host| host.reload("p")).expect("by order");
    rig.begin(NOW);
    assert_refused(rig.host.reload("p"));
}

#[test]
fn traps_on_generated_packets_are_told_and_refuse_nothing() {
    let mut rig = rig_with(TrafficSource::Generated);
    let spec = rig.spec("p", &gives_up_if("i32.lt_u", 59));
    rig.publish(std::slice::from_ref(&spec));
    let trapped = rig.host.status()[0].price.clone().and_then(|price| price.trapped);
    let trapped = trapped.expect("a text");
    assert!(trapped.starts_with("trapped on 5 of 5 generated batches: it gave up"), "{trapped}");
}

#[test]
fn a_call_that_never_ends_has_a_price_before_long() {
    let mut rig = rig_with(TrafficSource::Generated);
    let process = "(loop $l (br_if $l (local.get $n)))".to_owned();
    let spec = rig.spec("p", &Wat { process, ..Wat::default() });
    rig.publish(std::slice::from_ref(&spec));
    let price = rig.host.status()[0].price.clone().expect("a price");
    assert_eq!(price.trapped_batches, price.batches);
    let trapped = price.trapped.expect("a text");
    assert!(trapped.ends_with("it ran longer than its budget"), "{trapped}");
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
