//! What left by plugins' orders, summed over workers and under the names of the configuration.

use control::status::ActionStatus;
use forward::{Traffic, WorkerCounters, is_usable};
use tables::Snapshot;

/// One row for each class, egress tag and next hop that has a name now.
pub(crate) fn action_totals(snapshot: &Snapshot, workers: &[&WorkerCounters]) -> Vec<ActionStatus> {
    let actions = &*snapshot.actions;
    let sum = |traffic: &dyn Fn(&WorkerCounters) -> Option<&Traffic>| {
        workers.iter().filter_map(|worker| traffic(worker)).fold((0, 0), |(packets, bytes), one| {
            (packets + one.packets.get(), bytes + one.bytes.get())
        })
    };
    let mut rows = Vec::new();
    for (number, class) in actions.classes.iter().enumerate() {
        let Some(class) = class else { continue };
        let (packets, bytes) = sum(&|worker| worker.actions.classes.get(number));
        rows.push(row("class", &class.name, (packets, bytes)));
    }
    for (number, tag) in actions.tags.iter().enumerate() {
        let Some(tag) = tag else { continue };
        let taken = sum(&|worker| worker.actions.tags.get(number).map(|tag| &tag.taken));
        let (missed_packets, missed_bytes) =
            sum(&|worker| worker.actions.tags.get(number).map(|tag| &tag.missed));
        rows.push(ActionStatus {
            missed_packets,
            missed_bytes,
            usable: Some(is_usable(tag.way, snapshot)),
            ..row("egress-tag", &tag.name, taken)
        });
    }
    for (number, hop) in actions.next_hops.iter().enumerate() {
        let Some(hop) = hop else { continue };
        let sent = sum(&|worker| worker.actions.next_hops.get(number));
        rows.push(ActionStatus {
            usable: Some(is_usable(hop.way, snapshot)),
            ..row("next-hop", &hop.name, sent)
        });
    }
    rows
}

fn row(kind: &str, name: &str, (packets, bytes): (u64, u64)) -> ActionStatus {
    let (kind, name) = (kind.to_owned(), name.to_owned());
    ActionStatus { kind, name, packets, bytes, ..ActionStatus::default() }
}
