//! What happened in all, over both nodes and every run of their routers.

use std::collections::BTreeMap;
use std::time::Duration;

use super::report::Report;
use super::stage::Stage;
use super::status::Status;

/// Adds the totals to the report.
pub fn add(stage: &Stage, report: &mut Report, elapsed: Duration) {
    let running = [&stage.a, &stage.b].into_iter().filter_map(|node| node.status().ok());
    let ended = stage.a.ended.iter().chain(&stage.b.ended).cloned();
    let reports: Vec<Status> = ended.chain(running).collect();
    let sum = |counter: &str| reports.iter().map(|status| status.total(counter)).sum::<u64>();
    let mut drops = BTreeMap::<String, u64>::new();
    for (reason, count) in reports.iter().flat_map(Status::drops) {
        *drops.entry(reason).or_default() += count;
    }
    let drops = if drops.is_empty() {
        "none".to_owned()
    } else {
        let words: Vec<_> =
            drops.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        words.join(", ")
    };
    let totals = stage.totals;
    for (name, value) in [
        ("TCP connections completed", totals.flows.to_string()),
        ("bytes compared", totals.bytes.to_string()),
        ("echoes answered", totals.echoes.to_string()),
        ("packets received by the routers", sum("rx_packets").to_string()),
        ("packets forwarded", sum("forwarded").to_string()),
        ("packets delivered to owners", sum("delivered").to_string()),
        ("packets sent on to the owning node", sum("to_owner").to_string()),
        ("packets refused as expected", totals.refused.to_string()),
        ("packets dropped, by reason", drops),
        ("plugin reloads under traffic", totals.plugin_reloads.to_string()),
        ("packets lost to plugin reloads", totals.plugin_reload_losses.to_string()),
        ("seconds", format!("{:.1}", elapsed.as_secs_f64())),
    ] {
        report.total(name, value);
    }
}
