//! From a report to series.

use std::collections::BTreeMap;

use serde_json::Value;

use super::names::*;
use crate::status::{
    ActionStatus, InterfaceStatus, RouteCounts, SHARED_ROWS_MAX, SharingStatus, StatusReport,
    WorkerStatus,
};

/// Where routes can come from; all are set, so that a count can fall to 0.
const ROUTE_SOURCES: [&str; 6] =
    ["own-address", "broadcast", "static", "machine", "kernel", "withdrawn"];

/// Why routes can be left to the kernel; all are set, so that a count can fall to 0.
const ROUTE_REASONS: [&str; 14] = [
    "depends-on-source",
    "depends-on-tos",
    "described",
    "encapsulation",
    "foreign-interface",
    "multicast",
    "next-hop-family",
    "no-interface",
    "no-link",
    "on-link-member",
    "throw",
    "too-many-groups",
    "type",
    "unknown-nexthop",
];

/// States that a slice can have; all are set for each owner, so that a count can fall to 0.
const SLICE_STATES: [&str; 3] = ["owned", "draining", "none"];

/// States that a neighbor can have; all are set for each interface, so that a count can fall to 0.
const NEIGHBOR_STATES: [&str; 9] =
    ["none", "incomplete", "reachable", "stale", "delay", "probe", "failed", "noarp", "permanent"];

/// From where on long turns are counted, in nanoseconds: a batch late, a millisecond, what fills a ring of
/// 4096 at a million packets a second, and what fills it at a quarter of that.
const LONG_TURNS_NS: [u64; 4] = [1 << 16, 1 << 20, 1 << 22, 1 << 24];

/// Sets every metric from `report`, in the current recorder of the `metrics` crate.
pub fn record(report: &StatusReport) {
    let router = &report.router;
    INFO.set([&router.name, &router.version, &router.poll], 1.0);
    UPTIME.set_count([], router.uptime_s);
    CONFIGURATION.set_count([], router.configuration_generation);
    RELOADS.set(["ok"], report.reloads.ok);
    RELOADS.set(["refused"], report.reloads.refused);
    GONE_BACK.set([], report.reloads.gone_back);
    let pending = report.confirmation.as_ref();
    CONFIRMATION_PENDING.set_count([], u64::from(pending.is_some()));
    CONFIRMATION_LEFT.set_count([], pending.map_or(0, |pending| pending.seconds_left));

    report.interfaces.iter().for_each(interface);
    report.workers.iter().for_each(worker);
    for row in &report.classifier {
        CLASSIFIER.set([&row.interface, &row.reason], row.packets);
    }
    for row in &report.xdp {
        let queue = row.queue.to_string();
        for (statistic, value) in [
            ("rx_dropped", row.rx_dropped),
            ("rx_invalid_descs", row.rx_invalid_descs),
            ("tx_invalid_descs", row.tx_invalid_descs),
            ("rx_ring_full", row.rx_ring_full),
            ("rx_fill_ring_empty_descs", row.rx_fill_ring_empty_descs),
            ("tx_ring_empty_descs", row.tx_ring_empty_descs),
        ] {
            XDP.set([&row.interface, &queue, statistic], value);
        }
    }
    ROUTES.set_count(["ipv4"], report.routes.v4);
    ROUTES.set_count(["ipv6"], report.routes.v6);
    routes(&report.routes);
    PUNT.set(["written"], report.punt.written);
    PUNT.set(["refused"], report.punt.refused);

    let interfaces = report.interfaces.iter().map(|interface| interface.name.as_str());
    let neighbors = report.neighbors.iter().map(|row| (row.interface.as_str(), row.state.as_str()));
    for ((interface, state), count) in tally(interfaces, &NEIGHBOR_STATES, neighbors) {
        NEIGHBORS.set_count([interface, state], count);
    }
    slices(&report.sharing);
    report.actions.iter().for_each(action);
    report.plugins.iter().for_each(plugin);
}

/// Series of at most [`SHARED_ROWS_MAX`] owners, and what that leaves out.
fn slices(sharing: &SharingStatus) {
    let rows = sharing.owners.iter().take(SHARED_ROWS_MAX);
    for row in rows.clone() {
        for state in SLICE_STATES {
            SLICES.set_count([&row.owner, state], 0);
        }
    }
    for row in rows {
        SLICES.set_count([&row.owner, &row.state], row.slices);
    }
    SLICES_LEFT_OUT.set_count([], sharing.slices_of_owners_left_out);
    OWNERS_LEFT_OUT.set_count([], sharing.owners_left_out);
    EGRESS.set_count([], sharing.egress);
}

fn action(row: &ActionStatus) {
    ACTION_PACKETS.set([&row.kind, &row.name], row.packets);
    ACTION_BYTES.set([&row.kind, &row.name], row.bytes);
    if row.kind == "egress-tag" {
        TAG_MISSED.set([&row.name], row.missed_packets);
    }
    if let Some(usable) = row.usable {
        USABLE.set([&row.kind, &row.name], if usable { 1.0 } else { 0.0 });
    }
}

fn interface(row: &InterfaceStatus) {
    let name = row.name.as_str();
    INTERFACE.set([name, &row.role, &row.driver, &row.xdp_mode, &row.bind_mode], 1.0);
    LINK_UP.set([name], if row.link == "up" { 1.0 } else { 0.0 });
    QUEUES.set_count([name], row.queues.into());
    MTU.set_count([name], row.mtu.into());
    RX_PACKETS.set([name], row.rx_packets);
    RX_BYTES.set([name], row.rx_bytes);
    TX_PACKETS.set([name], row.tx_packets);
    TX_BYTES.set([name], row.tx_bytes);
    ORIGINATED.set([name], row.originated);
    ORIGINATED_LOST.set([name], row.originated_lost);
    ORIGINATED_TO_KERNEL.set([name], row.originated_to_kernel);
    ICMP_LIMITED.set([name], row.icmp_limited);
    FRAGMENTED.set([name], row.fragmented);
    FRAGMENTS_CREATED.set([name], row.fragments_created);
    HANDED_OVER.set([name], row.handed_over);
    DELIVERED.set([name], row.delivered);
    TO_OWNER.set([name], row.to_owner);
    DECAPSULATED.set([name], row.decapsulated);
    FORWARDED.set([name], row.forwarded);
    TO_KERNEL.set([name], row.to_kernel);
    CONSUMED.set([name], row.consumed);
    HELD.set_count([name], row.held);
    for (reason, &packets) in &row.drops {
        DROPS.set([name, reason], packets);
    }
    RX_RATE.set([name], row.rx_rate_pps);
    TX_RATE.set([name], row.tx_rate_pps);
}

fn worker(row: &WorkerStatus) {
    let id = row.id.to_string();
    TURNS.set([&id], row.turns);
    for at_least_ns in LONG_TURNS_NS {
        let long = row.long_turns.iter().filter(|turns| turns.below_ns > at_least_ns);
        LONG_TURNS.set([&id, &at_least_ns.to_string()], long.map(|turns| turns.turns).sum());
    }
    KICKS.set([&id], row.kicks);
    BUSY.set([&id], row.busy_fraction);
    BATCH.set([&id], row.batch_mean);
    BUSY_TURNS.set([&id], row.busy_turns);
    TIMED_PACKETS.set([&id], row.timed_packets);
    for stage in &row.stages {
        STAGE_CLOCKS.set([&id, &stage.stage], stage.clocks);
    }
    for (place, frames) in [
        ("free", row.frames.free),
        ("receiving", row.frames.receiving),
        ("transmitting", row.frames.transmitting),
        ("held", row.frames.held),
        ("total", row.frames.total),
    ] {
        FRAMES.set_count([&id, place], frames);
    }
}

/// A plugin without a name has no series; a missing number has none either.
fn plugin(status: &Value) {
    let Some(name) = status.get("name").and_then(Value::as_str) else { return };
    let field =
        |key| status.get("total").and_then(|total| total.get(key)).or_else(|| status.get(key));
    let number = |key| field(key).and_then(Value::as_u64);
    if let Some(generation) = number("generation") {
        PLUGIN_GENERATION.set_count([name], generation);
    }
    if let Some(packets) = number("packets") {
        PLUGIN_PACKETS.set([name], packets);
    }
    if let Some(drops) = number("drops") {
        PLUGIN_DROPS.set([name], drops);
    }
    if let Some(traps) = number("traps") {
        PLUGIN_TRAPS.set([name], traps);
    }
    if let Some(cycles) = field("cycles_per_packet").and_then(Value::as_f64) {
        PLUGIN_CYCLES.set([name], cycles);
    }
    if let Some(refused) = number("refused") {
        PLUGIN_REFUSED.set([name], refused);
    }
    // A plugin that trapped on everything has cost nothing that was measured.
    if let Some(price) = status.get("price").filter(|of| of.get("cycles_per_packet").is_some()) {
        for (of, key) in [(&PLUGIN_PRICE, "cycles_per_packet"), (&PLUGIN_CORES, "cores")] {
            if let Some(value) = price.get(key).and_then(Value::as_f64) {
                of.set([name], value);
            }
        }
    }
    for (verdict, key) in [
        ("continue", "continued"),
        ("drop", "drops"),
        ("default-drop", "default_drops"),
        ("transmit", "transmitted"),
        ("bad", "bad_verdicts"),
        ("unjudged", "unjudged"),
        ("last-good", "stood_in"),
    ] {
        if let Some(packets) = number(key) {
            PLUGIN_VERDICTS.set([name, verdict], packets);
        }
    }
    for (of, label, key) in [
        (&PLUGIN_FLOWS, "hit", "flow_hits"),
        (&PLUGIN_FLOWS, "miss", "flow_misses"),
        (&PLUGIN_FLOWS, "eviction", "flow_evictions"),
        (&PLUGIN_STATES, "taken", "states_taken"),
        (&PLUGIN_STATES, "lost", "states_lost"),
    ] {
        if let Some(count) = number(key) {
            of.set([name, label], count);
        }
    }
    let own = |key| field(key).and_then(Value::as_object).into_iter().flatten();
    for (counter, value) in own("counters") {
        PLUGIN_COUNTER.set([name, counter], value.as_u64().unwrap_or_default());
    }
    for (gauge, value) in own("gauges") {
        PLUGIN_GAUGE.set_count([name, gauge], value.as_u64().unwrap_or_default());
    }
    let hook = status.get("hook").and_then(Value::as_str).unwrap_or("-");
    let workers = status.get("workers").and_then(Value::as_array).into_iter().flatten();
    for (worker, counts) in workers.enumerate() {
        let worker = worker.to_string();
        for (of, quantile, key) in [
            (&PLUGIN_CALL_CYCLES, "0.5", "call_cycles_p50"),
            (&PLUGIN_CALL_CYCLES, "0.99", "call_cycles_p99"),
            (&PLUGIN_PACKET_CYCLES, "0.5", "packet_cycles_p50"),
            (&PLUGIN_PACKET_CYCLES, "0.99", "packet_cycles_p99"),
        ] {
            if let Some(cycles) = counts.get(key).and_then(Value::as_u64) {
                of.set_count([name, hook, &worker, quantile], cycles);
            }
        }
    }
}

/// Counts `rows` by group and state, with a 0 for each state of each known group.
fn tally<'a>(
    groups: impl Iterator<Item = &'a str>,
    states: &'a [&'a str],
    rows: impl Iterator<Item = (&'a str, &'a str)>,
) -> BTreeMap<(&'a str, &'a str), u64> {
    let mut counts = BTreeMap::new();
    for group in groups {
        for state in states {
            counts.insert((group, *state), 0);
        }
    }
    for row in rows {
        *counts.entry(row).or_default() += 1;
    }
    counts
}

fn routes(routes: &RouteCounts) {
    for source in ROUTE_SOURCES {
        let row = routes.by_source.iter().find(|row| row.source == source);
        let (v4, v6) = row.map_or((0, 0), |row| (row.v4, row.v6));
        ROUTES_BY_SOURCE.set_count(["ipv4", source], v4);
        ROUTES_BY_SOURCE.set_count(["ipv6", source], v6);
    }
    for reason in ROUTE_REASONS {
        let row = routes.unexpressible_by_reason.iter().find(|row| row.reason == reason);
        UNEXPRESSIBLE.set_count([reason], row.map_or(0, |row| row.prefixes));
    }
    GROUPS.set_count([], routes.groups);
    ROUTE_BYTES.set_count(["rib"], routes.rib_bytes);
    ROUTE_BYTES.set_count(["fib4"], routes.fib4_bytes);
    ROUTE_BYTES.set_count(["fib6"], routes.fib6_bytes);
    let mirror = &routes.mirror;
    ROUTE_CHANGES.set([], mirror.route_changes);
    RESYNCS.set([], mirror.resyncs);
    OVERRUNS.set([], mirror.overruns);
    PUBLICATIONS.set([], mirror.publications);
    ROUTE_DELAY.set([], mirror.last_delay_us as f64 / 1e6);
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;
    use crate::metrics::METRICS;
    use crate::status::{OwnerStatus, sample};

    fn exported(reports: &[StatusReport]) -> String {
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            describe();
            reports.iter().for_each(record);
        });
        recorder.handle().render()
    }

    #[test]
    fn every_metric_of_the_table_is_set_and_described() {
        let text = exported(&[sample::report()]);
        for metric in METRICS {
            assert!(text.contains(&format!("# HELP {} ", metric.name)), "{}\n{text}", metric.name);
            assert!(
                text.lines().any(|line| line
                    .strip_prefix(metric.name)
                    .is_some_and(|rest| rest.starts_with(' ') != rest.starts_with('{'))),
                "no series of {} in\n{text}",
                metric.name
            );
        }
        let series = |line: &str| !line.is_empty() && !line.starts_with('#');
        for line in text.lines().filter(|line| series(line)) {
            let name = line.split(['{', ' ']).next().unwrap_or_default();
            assert!(METRICS.iter().any(|metric| metric.name == name), "undocumented: {line}");
        }
    }

    #[test]
    fn values_and_labels_are_the_reports() {
        let text = exported(&[sample::report()]);
        for line in [
            r#"sluice_rx_packets_total{interface="ens5"} 12345678901"#,
            r#"sluice_drops_total{interface="ens5",reason="ttl_expired"} 200"#,
            r#"sluice_drops_total{interface="ens5",reason="source_route"} 0"#,
            r#"sluice_worker_frames{worker="0",place="free"} 9000"#,
            r#"sluice_xdp_statistics_total{interface="ens5",queue="1",statistic="tx_ring_empty_descs"} 5"#,
            r#"sluice_neighbors{interface="ens6",state="reachable"} 1"#,
            r#"sluice_neighbors{interface="ens5",state="reachable"} 0"#,
            r#"sluice_slices{owner="node-a",state="owned"} 1"#,
            r#"sluice_slices{owner="node-a",state="draining"} 0"#,
            "sluice_slices_left_out 0",
            "sluice_egress_prefixes 1",
            r#"sluice_plugin_cycles_per_packet{plugin="filter"} 11.25"#,
            r#"sluice_plugin_price_cycles_per_packet{plugin="filter"} 14.5"#,
            r#"sluice_plugin_price_cores{plugin="filter"} 0.25"#,
            r#"sluice_plugin_refused_loads_total{plugin="filter"} 3"#,
            r#"sluice_plugin_packets_total{plugin="filter"} 1000000"#,
            r#"sluice_plugin_verdicts_total{plugin="filter",verdict="continue"} 999988"#,
            r#"sluice_plugin_flows_total{plugin="filter",event="hit"} 700"#,
            r#"sluice_plugin_flows_total{plugin="filter",event="miss"} 300"#,
            r#"sluice_plugin_flows_total{plugin="filter",event="eviction"} 4"#,
            r#"sluice_plugin_states_total{plugin="filter",outcome="taken"} 2"#,
            r#"sluice_plugin_states_total{plugin="filter",outcome="lost"} 1"#,
            r#"sluice_plugin_counter_total{plugin="filter",counter="rule-hits[3]"} 12"#,
            r#"sluice_plugin_gauge{plugin="filter",gauge="flows"} 250"#,
            r#"sluice_plugin_call_cycles{plugin="filter",hook="ingress",worker="0",quantile="0.99"} 2560"#,
            r#"sluice_action_bytes_total{kind="class",name="voice"} 4000000"#,
            r#"sluice_egress_tag_missed_packets_total{tag="cheap"} 5"#,
            r#"sluice_action_usable{kind="egress-tag",name="cheap"} 0"#,
            r#"sluice_routes{family="ipv4"} 1190000"#,
            r#"sluice_route_bytes{table="fib6"} 1300000"#,
            "sluice_confirmation_pending 1",
            "sluice_confirmation_seconds_left 42",
            "sluice_configurations_gone_back_total 1",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
        }
    }

    #[test]
    fn owners_beyond_the_bound_have_no_series_and_are_counted() {
        let mut report = sample::report();
        let owner = |number: usize| OwnerStatus {
            owner: format!("w{number}"),
            is_here: true,
            state: "owned".into(),
            slices: 3,
        };
        let owners = (0..SHARED_ROWS_MAX + 1000).map(owner).collect();
        report.sharing = SharingStatus::new(std::iter::empty(), 0, Vec::new(), owners).0;
        let text = exported(&[report]);
        let series = text.lines().filter(|line| line.starts_with("sluice_slices{"));
        assert_eq!(series.count(), SHARED_ROWS_MAX * SLICE_STATES.len());
        for line in ["\nsluice_slices_left_out 3000\n", "\nsluice_slice_owners_left_out 1000\n"] {
            assert!(text.contains(line), "no {line} in\n{text}");
        }
    }

    #[test]
    fn a_second_report_sets_and_does_not_add() {
        let mut later = sample::report();
        later.interfaces[0].consumed += 1;
        later.neighbors.clear();
        later.confirmation = None;
        let text = exported(&[sample::report(), later]);
        assert!(text.contains("sluice_consumed_packets_total{interface=\"ens5\"} 101\n"), "{text}");
        assert!(text.contains("sluice_tx_packets_total{interface=\"ens5\"} 9876543210\n"));
        assert!(text.contains("{interface=\"ens6\",state=\"reachable\"} 0\n"), "{text}");
        assert!(text.contains("\nsluice_confirmation_pending 0\n"), "{text}");
        assert!(text.contains("\nsluice_confirmation_seconds_left 0\n"), "{text}");
    }
}
