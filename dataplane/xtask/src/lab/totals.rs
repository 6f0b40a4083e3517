//! What happened in all, over both nodes and every run of their routers.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

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
    let totals = stage.totals;
    for (name, value) in [
        ("TCP connections completed", totals.flows.into()),
        ("bytes compared", totals.bytes.into()),
        ("echoes answered", totals.echoes.into()),
        ("packets received by the routers", sum("rx_packets").into()),
        ("packets forwarded", sum("forwarded").into()),
        ("packets delivered to owners", sum("delivered").into()),
        ("packets sent on to the owning node", sum("to_owner").into()),
        ("packets refused as expected", totals.refused.into()),
        ("packets dropped", json!(drops)),
        ("plugin reloads under traffic", totals.plugin_reloads.into()),
        ("packets lost to plugin reloads", totals.plugin_reload_losses.into()),
        ("seconds", elapsed.as_secs().into()),
    ] as [(&str, Value); 12]
    {
        report.total(name, value);
    }
}
