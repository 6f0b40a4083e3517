//! The report for people: one table a subject, readable at 100 columns, zero drops hidden.

use std::fmt::Write as _;

use serde_json::Value;

use super::table::{Align, Table, count, counted, duration, rate, size};
use super::{InterfaceStatus, RouteCounts, StatusReport, WorkerStatus};

use Align::{Left, Right};

/// Slices, and egress prefixes, that are listed one by one. Of more the report has a summary:
/// `sluice slice show` lists them.
const LISTED_ROWS_MAX: usize = 32;

/// Rows of a summary.
const MOST_ROWS: usize = 8;

/// Renders `report` as aligned text tables. Subjects without rows, drop reasons without drops and
/// sockets without losses are left out; the whole ends with a newline.
#[must_use]
pub fn render(report: &StatusReport) -> String {
    let mut out = String::new();
    let router = &report.router;
    // A String takes writes without an error.
    let _ = writeln!(
        out,
        "{} · sluice {} · up {} · configuration {}\n{} polling · batches of {} · rings: RX {}, TX {}\n",
        router.name,
        router.version,
        duration(router.uptime_s),
        router.configuration_generation,
        router.poll,
        router.batch_frames,
        router.rx_ring_entries,
        router.tx_ring_entries,
    );
    for table in [
        interfaces(report),
        traffic(report),
        fates(report),
        drops(report),
        workers(report),
        frames(report),
        stages(report),
        classifier(report),
        losses(report),
        egress(report),
        slices(report),
        owners(report),
        nodes(report),
        neighbors(report),
        actions(report),
        plugins(report),
    ] {
        table.render(&mut out);
    }
    for interface in report.interfaces.iter().filter(|interface| interface.link == "made-anew") {
        let _ = writeln!(
            out,
            "{} was taken away and made anew: nothing is received or sent there before a restart\n",
            interface.name,
        );
    }
    super::plugins::render(report, &mut out);
    shared(&mut out, report);
    let _ = writeln!(
        out,
        "routes     {} IPv4, {} IPv6, {} left to the kernel",
        count(report.routes.v4),
        count(report.routes.v6),
        count(report.routes.unexpressible),
    );
    routes(&mut out, &report.routes);
    let reloads = &report.reloads;
    let _ = write!(out, "reloads    {} ok, {} refused", reloads.ok, reloads.refused);
    if reloads.gone_back > 0 {
        let _ = write!(out, ", {} not confirmed", reloads.gone_back);
    }
    out.push('\n');
    if let Some(error) = &report.reloads.last_error {
        for (number, line) in error.lines().enumerate() {
            let _ = writeln!(out, "{}{line}", if number == 0 { "  last refusal: " } else { "  " });
        }
    }
    if let Some(pending) = &report.confirmation {
        let _ = writeln!(
            out,
            "confirm    configuration {} waits for 'sluice confirm'; in {} s the router goes back to {}",
            router.configuration_generation, pending.seconds_left, pending.back_to,
        );
        if let Some(error) = &pending.last_error {
            let _ = writeln!(out, "  going back failed: {error}");
        }
    }
    out
}

fn interfaces(report: &StatusReport) -> Table {
    let mut table = Table::new(
        "interfaces",
        &[
            ("name", Left),
            ("role", Left),
            ("link", Left),
            ("driver", Left),
            ("xdp", Left),
            ("bind", Left),
            ("queues", Right),
            ("mtu", Right),
            ("mac", Left),
        ],
    );
    for interface in &report.interfaces {
        table.row([
            interface.name.clone(),
            interface.role.clone(),
            interface.link.clone(),
            interface.driver.clone(),
            interface.xdp_mode.clone(),
            interface.bind_mode.clone(),
            interface.queues.to_string(),
            interface.mtu.to_string(),
            interface.mac.clone(),
        ]);
    }
    table
}

fn traffic(report: &StatusReport) -> Table {
    let mut table = Table::new(
        "traffic",
        &[
            ("name", Left),
            ("rx packets", Right),
            ("rx bytes", Right),
            ("rx/s", Right),
            ("tx packets", Right),
            ("tx bytes", Right),
            ("tx/s", Right),
        ],
    );
    for interface in &report.interfaces {
        table.row([
            interface.name.clone(),
            count(interface.rx_packets),
            count(interface.rx_bytes),
            rate(interface.rx_rate_pps),
            count(interface.tx_packets),
            count(interface.tx_bytes),
            rate(interface.tx_rate_pps),
        ]);
    }
    table
}

fn fates(report: &StatusReport) -> Table {
    let mut table = Table::new(
        "packets by where they went",
        &[
            ("received on", Left),
            ("forwarded", Right),
            ("to kernel", Right),
            ("consumed", Right),
            ("held", Right),
            ("dropped", Right),
            ("originated", Right),
        ],
    );
    for interface in &report.interfaces {
        table.row([
            interface.name.clone(),
            count(interface.forwarded),
            count(interface.to_kernel),
            count(interface.consumed),
            count(interface.held),
            count(interface.dropped()),
            count(interface.originated),
        ]);
    }
    table
}

fn drops(report: &StatusReport) -> Table {
    let mut table =
        Table::new("drops", &[("received on", Left), ("reason", Left), ("packets", Right)]);
    for InterfaceStatus { name, drops, .. } in &report.interfaces {
        for (reason, &packets) in drops.iter().filter(|(_, packets)| **packets > 0) {
            table.row([name.clone(), reason.clone(), count(packets)]);
        }
    }
    table
}

fn workers(report: &StatusReport) -> Table {
    let mut table = Table::new(
        "workers",
        &[
            ("id", Right),
            ("core", Right),
            ("queues", Right),
            ("turns", Right),
            ("longest", Right),
            ("busy", Right),
            ("batch", Right),
            ("kicks", Right),
        ],
    );
    for worker in &report.workers {
        table.row([
            worker.id.to_string(),
            worker.core.map_or_else(|| "-".into(), |core| core.to_string()),
            worker.queues.to_string(),
            count(worker.turns),
            longest_turn(worker),
            format!("{:.1} %", worker.busy_fraction * 100.0),
            format!("{:.1}", worker.batch_mean),
            count(worker.kicks),
        ]);
    }
    table
}

/// The longest turn since the start, rounded up.
// Nanoseconds of seconds are far below 2^53, where f64 is exact.
#[allow(clippy::cast_precision_loss)]
fn longest_turn(worker: &WorkerStatus) -> String {
    let longest = worker.long_turns.last();
    longest.map_or_else(|| "-".into(), |turns| format!("{:.1} ms", turns.below_ns as f64 / 1e6))
}

/// The mean since the start, over all workers; stages that took no time worth a digit are left out.
// Sums of clocks are far below 2^53, where f64 is exact.
#[allow(clippy::cast_precision_loss)]
fn stages(report: &StatusReport) -> Table {
    let mut table = Table::new("stages", &[("stage", Left), ("clocks/packet", Right)]);
    let packets: u64 = report.workers.iter().map(|worker| worker.timed_packets).sum();
    let names = report.workers.first().map_or(&[][..], |worker| &worker.stages);
    for (position, name) in names.iter().enumerate() {
        let of_worker = report.workers.iter().filter_map(|worker| worker.stages.get(position));
        let clocks: u64 = of_worker.map(|row| row.clocks).sum();
        let mean = clocks as f64 / packets.max(1) as f64;
        if mean >= 0.05 {
            table.row([name.stage.clone(), format!("{mean:.1}")]);
        }
    }
    table
}

fn frames(report: &StatusReport) -> Table {
    let mut table = Table::new(
        "frames",
        &[
            ("worker", Right),
            ("free", Right),
            ("receiving", Right),
            ("transmitting", Right),
            ("held", Right),
            ("total", Right),
        ],
    );
    for worker in &report.workers {
        let frames = worker.frames;
        table.row([
            worker.id.to_string(),
            count(frames.free),
            count(frames.receiving),
            count(frames.transmitting),
            count(frames.held),
            count(frames.total),
        ]);
    }
    table
}

fn classifier(report: &StatusReport) -> Table {
    let mut table =
        Table::new("classifier", &[("interface", Left), ("reason", Left), ("packets", Right)]);
    for row in report.classifier.iter().filter(|row| row.packets > 0) {
        table.row([row.interface.clone(), row.reason.clone(), count(row.packets)]);
    }
    table
}

/// Sockets that lost something. `tx_ring_empty_descs` is left to the metrics: an idle ring is no
/// loss.
fn losses(report: &StatusReport) -> Table {
    let mut table = Table::new(
        "lost before the rings",
        &[
            ("interface", Left),
            ("queue", Right),
            ("rx dropped", Right),
            ("rx ring full", Right),
            ("fill empty", Right),
            ("rx invalid", Right),
            ("tx invalid", Right),
        ],
    );
    for xdp in &report.xdp {
        let losses = [
            xdp.rx_dropped,
            xdp.rx_ring_full,
            xdp.rx_fill_ring_empty_descs,
            xdp.rx_invalid_descs,
            xdp.tx_invalid_descs,
        ];
        if losses.iter().any(|&packets| packets > 0) {
            let [dropped, full, empty, rx_invalid, tx_invalid] = losses.map(count);
            table.row([
                xdp.interface.clone(),
                xdp.queue.to_string(),
                dropped,
                full,
                empty,
                rx_invalid,
                tx_invalid,
            ]);
        }
    }
    table
}

fn egress(report: &StatusReport) -> Table {
    let is_whole = lists_egress(report);
    let title = if is_whole { "egress" } else { "egress, most slices first" };
    let mut table = Table::new(title, &[("prefix", Left), ("slices", Right), ("default", Left)]);
    let mut rows: Vec<_> = report.egress.iter().collect();
    if !is_whole {
        rows.sort_by_key(|row| std::cmp::Reverse(row.slices));
        rows.truncate(MOST_ROWS);
    }
    for egress in rows {
        table.row([egress.prefix.clone(), count(egress.slices), egress.default.clone()]);
    }
    table
}

fn actions(report: &StatusReport) -> Table {
    let mut table = Table::new(
        "sent by plugins' orders",
        &[
            ("", Left),
            ("name", Left),
            ("packets", Right),
            ("bytes", Right),
            ("missed", Right),
            ("", Left),
        ],
    );
    for row in &report.actions {
        table.row([
            row.kind.clone(),
            row.name.clone(),
            count(row.packets),
            count(row.bytes),
            if row.kind == "egress-tag" { count(row.missed_packets) } else { String::new() },
            if row.usable == Some(false) { "no next hop usable".to_owned() } else { String::new() },
        ]);
    }
    table
}

fn slices(report: &StatusReport) -> Table {
    let mut table = Table::new(
        "slices",
        &[("name", Left), ("egress", Left), ("ports", Left), ("owner", Left), ("state", Left)],
    );
    for slice in report.slices.iter().filter(|_| lists_slices(report)) {
        table.row([
            slice.name.clone(),
            slice.egress.clone(),
            slice.ports.clone(),
            slice.owner.clone(),
            slice.state.clone(),
        ]);
    }
    table
}

/// Whether every egress prefix has a line.
fn lists_egress(report: &StatusReport) -> bool {
    report.egress.len() <= LISTED_ROWS_MAX && report.sharing.egress_left_out == 0
}

/// Whether every slice has a line.
fn lists_slices(report: &StatusReport) -> bool {
    report.slices.len() <= LISTED_ROWS_MAX && report.sharing.slices_left_out == 0
}

/// In place of the slices, where there are many.
fn owners(report: &StatusReport) -> Table {
    let mut table = Table::new(
        "owners, most slices first",
        &[("name", Left), ("state", Left), ("slices", Right)],
    );
    let rows = report.sharing.owners.iter().filter(|row| row.slices > 0 && !lists_slices(report));
    for row in rows.take(MOST_ROWS) {
        table.row([row.owner.clone(), row.state.clone(), count(row.slices)]);
    }
    table
}

/// Slices and egress prefixes in numbers, what became of their packets, and where all of them are listed.
fn shared(out: &mut String, report: &StatusReport) {
    let sharing = &report.sharing;
    if sharing.egress == 0 {
        return;
    }
    let sum =
        |packets: fn(&InterfaceStatus) -> u64| count(report.interfaces.iter().map(packets).sum());
    let _ = writeln!(
        out,
        "shared     {}, {}: {} here, {} elsewhere",
        counted(sharing.egress, "prefix", "prefixes"),
        counted(sharing.slices, "slice", "slices"),
        count(sharing.slices_here),
        count(sharing.slices.saturating_sub(sharing.slices_here)),
    );
    let _ = writeln!(
        out,
        "  packets: {} delivered here, {} sent on to owners elsewhere",
        sum(|interface| interface.delivered),
        sum(|interface| interface.to_owner),
    );
    let left_out: Vec<String> = [
        (!lists_egress(report)).then(|| {
            format!("{} prefixes", count(sharing.egress.saturating_sub(MOST_ROWS as u64)))
        }),
        (!lists_slices(report)).then(|| format!("{} slices", count(sharing.slices))),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !left_out.is_empty() {
        let _ = writeln!(out, "  not listed: {} (sluice slice show)", left_out.join(" and "));
    }
}

fn nodes(report: &StatusReport) -> Table {
    let mut table = Table::new("nodes", &[("name", Left), ("address", Left), ("next hop", Left)]);
    for node in &report.nodes {
        table.row([node.name.clone(), node.address.clone(), node.next_hop_state.clone()]);
    }
    table
}

fn neighbors(report: &StatusReport) -> Table {
    let mut table = Table::new(
        "neighbors",
        &[("address", Left), ("interface", Left), ("mac", Left), ("state", Left), ("", Left)],
    );
    for neighbor in &report.neighbors {
        table.row([
            neighbor.address.clone(),
            neighbor.interface.clone(),
            neighbor.mac.clone().unwrap_or_else(|| "-".into()),
            neighbor.state.clone(),
            if neighbor.managed { "managed".into() } else { String::new() },
        ]);
    }
    table
}

/// A value of a plugin; sums over all workers stand in `total`.
fn field<'v>(plugin: &'v Value, key: &str) -> Option<&'v Value> {
    plugin.get("total").and_then(|total| total.get(key)).or_else(|| plugin.get(key))
}

fn plugins(report: &StatusReport) -> Table {
    let mut table = Table::new(
        "plugins",
        &[
            ("name", Left),
            ("generation", Right),
            ("packets", Right),
            ("drops", Right),
            ("traps", Right),
            ("unjudged", Right),
            ("cycles/packet", Right),
            ("p50", Right),
            ("p99", Right),
            ("price", Right),
            ("cores", Right),
        ],
    );
    for plugin in &report.plugins {
        let price = |key: &str, digits: usize| {
            let value =
                plugin.get("price").and_then(|price| price.get(key)).and_then(Value::as_f64);
            value.map_or_else(|| "-".into(), |value| format!("{value:.digits$}"))
        };
        let number = |key: &str| match field(plugin, key) {
            Some(value) if value.is_u64() => value.as_u64().map_or_else(|| "-".into(), count),
            Some(value) if value.is_f64() => {
                value.as_f64().map_or_else(|| "-".into(), |value| format!("{value:.1}"))
            }
            _ => "-".into(),
        };
        table.row([
            plugin.get("name").and_then(Value::as_str).unwrap_or("-").into(),
            number("generation"),
            number("packets"),
            number("drops"),
            number("traps"),
            number("unjudged"),
            number("cycles_per_packet"),
            number("packet_cycles_p50"),
            number("packet_cycles_p99"),
            price("cycles_per_packet", 1),
            // Without cycles there is nothing that the cores would come from.
            match price("cycles_per_packet", 1).as_str() {
                "-" => "-".into(),
                _ => price("cores", 3),
            },
        ]);
    }
    table
}

/// Where routes come from, which ones are left to the kernel and why, and how late the last was.
fn routes(out: &mut String, routes: &RouteCounts) {
    let by_source: Vec<String> = routes
        .by_source
        .iter()
        .map(|row| format!("{} {}+{}", row.source, count(row.v4), count(row.v6)))
        .collect();
    if !by_source.is_empty() {
        let _ = writeln!(
            out,
            "  in force from {}; {} groups",
            by_source.join(", "),
            count(routes.groups),
        );
        let _ = writeln!(
            out,
            "  memory: {} of routes, {} of look-up tables of IPv4, {} of IPv6",
            size(routes.rib_bytes),
            size(routes.fib4_bytes),
            size(routes.fib6_bytes),
        );
    }
    let reasons: Vec<String> = routes
        .unexpressible_by_reason
        .iter()
        .map(|row| format!("{} {}", row.reason, count(row.prefixes)))
        .collect();
    if !reasons.is_empty() {
        let _ = writeln!(
            out,
            "  left to the kernel: {} (sluice route show --unexpressible)",
            reasons.join(", ")
        );
    }
    let mirror = &routes.mirror;
    let ms = |us: u64| format!("{}.{} ms", us / 1000, us % 1000 / 100);
    let _ = writeln!(
        out,
        "  kernel: {} changes, {} full readings, {} overruns; in force after {}, at most {}",
        count(mirror.route_changes),
        count(mirror.resyncs),
        count(mirror.overruns),
        ms(mirror.last_delay_us),
        ms(mirror.max_delay_us),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::sample::report;
    use crate::status::{EgressStatus, OwnerStatus, SharingStatus};

    #[test]
    fn every_subject_is_there_and_fits_100_columns() {
        let text = render(&report());
        for title in [
            "interfaces",
            "traffic",
            "drops",
            "workers",
            "frames",
            "classifier",
            "slices",
            "egress",
            "nodes",
            "neighbors",
            "plugins",
            "shared",
            "routes",
            "reloads",
            "confirm",
        ] {
            assert!(
                text.lines().any(|line| line.starts_with(title)),
                "no section {title} in:\n{text}"
            );
        }
        for line in text.lines() {
            assert!(line.chars().count() <= 100, "{} columns: {line}", line.chars().count());
            assert_eq!(line, line.trim_end());
        }
    }

    #[test]
    fn many_slices_and_prefixes_are_summed_up() {
        let mut report = report();
        let slice = report.slices[0].clone();
        let egress = |number: u64| EgressStatus {
            prefix: format!("192.0.{}.{}/32", number / 256, number % 256),
            slices: u64::from(number == 40_000) + 30,
            default: "drop".into(),
        };
        let owner = |number: u64| OwnerStatus {
            owner: format!("w{number}"),
            is_here: number < 10,
            state: "owned".into(),
            slices: 1,
        };
        (report.sharing, report.slices, report.egress) = SharingStatus::new(
            std::iter::repeat(slice),
            1_966_051,
            (0..65_535).map(egress).collect(),
            (0..1000).map(owner).collect(),
        );
        let few = render(&self::report()).lines().count();
        let text = render(&report);
        assert!(text.lines().count() < few + 40, "{text}");
        for line in [
            "shared     65,535 prefixes, 1,966,051 slices: 10 here, 1,966,041 elsewhere",
            "  packets: 400 delivered here, 300 sent on to owners elsewhere",
            "  not listed: 65,527 prefixes and 1,966,051 slices (sluice slice show)",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line} in:\n{text}");
        }
        let titled = |title: &str| {
            let mut rows = text.lines().skip_while(|line| !line.starts_with(title));
            rows.nth(2).map(str::to_owned).unwrap_or_default()
        };
        assert!(titled("egress, most").contains("192.0.156.64/32"), "{text}");
        assert!(titled("owners, most").contains("w0"), "{text}");
        let json = serde_json::to_string(&report).expect("serializes");
        assert!(json.len() < 100_000, "{} bytes", json.len());
    }

    #[test]
    fn drops_without_packets_are_hidden() {
        let text = render(&report());
        assert!(text.contains("ttl_expired"), "{text}");
        assert!(!text.contains("source_route"), "{text}");
        assert!(!text.contains("lost before the rings"), "no socket lost anything:\n{text}");
    }

    #[test]
    fn a_plugin_with_missing_keys_is_shown_all_the_same() {
        let mut report = report();
        report.plugins = vec![serde_json::json!({"name": "bare"}), Value::Null];
        let text = render(&report);
        let row = text.lines().find(|line| line.contains("bare")).expect("the plugin's row");
        let mut cells = row.split_whitespace();
        assert_eq!(cells.next(), Some("bare"));
        assert!(cells.all(|cell| cell == "-"), "{row}");
    }

    #[test]
    fn json_keeps_the_report() {
        let report = report();
        let text = serde_json::to_string(&report).expect("serializes");
        let back: StatusReport = serde_json::from_str(&text).expect("parses");
        assert_eq!(back, report);
    }
}
