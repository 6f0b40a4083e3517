//! `sluice plan`: what a new configuration would do to the packets that workers remember.
//!
//! ```text
//!  samples of all workers --+--> worker aside, tables and plugins in force --> Outcome --+
//!                           |                                                            +-> groups
//!                           +--> worker aside, those of the new file       --> Outcome --+     |
//!                                                                                              v
//!                                                        report: old -> new, flows, packets, percent
//! ```
//!
//! Both sides are made by the same code from the same state of the machine, so that what differs, differs
//! by the configuration. Each packet is judged alone: enough virtual time passes between two of them for
//! every bucket to fill and for what waits to time out.
//!
//! Absent, as in an explanation: what the moment decides (full rings, rates that are used up), and what
//! the classifier leaves to the kernel, which no worker remembers. Later fragments follow their first.

mod limit;
mod outcome;
mod report;
mod text;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use config::Checked;
use control::publication::{HostView, Publication, RoutesAside};
use forward::{PacketRecord, Sample, Stage};
use frame::{DropReason, Nanos, Verdict};
use policy::{AsidePlugins, AsideTraps, Asked, ListedPlugin, WorkerChain};
use sluice_abi::{Descriptor, flags};
use tables::Snapshot;
#[cfg(test)]
use wire::InterfaceId;

use crate::explain::{Aside, Names, describe, interface_name, traps};

pub(crate) use limit::MaxChanged;
pub(crate) use outcome::Outcome;
pub(crate) use report::PlanReport;
pub(crate) use text::{render, summary, top_changes};

/// Virtual time between two packets: longer than anything waits (a minute is the most that a
/// configuration allows), and long enough to fill the bucket of any rate.
const STEP_NANOS: u64 = 61_000_000_000;

/// Samples that are judged at most, over all workers: a second's work.
const JUDGED_MAX: usize = 65_536;

/// Bytes behind the start of the transport header that decide: ports, and the type of an ICMP message.
const TRANSPORT_BYTES: usize = 8;

/// What a plan is made from.
pub(crate) struct Question {
    pub(crate) old: Arc<Checked>,
    pub(crate) new: Arc<Checked>,
    pub(crate) host: HostView,
    /// The routes that the machine has.
    pub(crate) routes: RoutesAside,
    /// The samples of each worker, in their order.
    pub(crate) samples: Vec<Vec<Sample>>,
    /// The plugins that run, and those of the new configuration.
    pub(crate) asides: (AsidePlugins, AsidePlugins),
}

/// What tells one flow from another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Flow {
    pub(crate) ingress: u8,
    pub(crate) source: [u8; 16],
    pub(crate) destination: [u8; 16],
    pub(crate) protocol: u8,
    pub(crate) ports: (u16, u16),
}

/// One packet, on both sides.
#[derive(Clone, Debug)]
pub(crate) struct Judged {
    pub(crate) flow: Flow,
    /// The packet and the interface that receives it, in words.
    pub(crate) packet: String,
    /// Packets that it stands for.
    pub(crate) weight: u64,
    pub(crate) before: Outcome,
    pub(crate) after: Outcome,
}

/// What became of the samples.
#[derive(Clone, Debug, Default)]
pub(crate) struct Judgement {
    pub(crate) judged: Vec<Judged>,
    /// Samples that cannot be judged, by the reason.
    pub(crate) not_judged: BTreeMap<String, u64>,
    /// When the first and the last sample came.
    pub(crate) times: Option<(Nanos, Nanos)>,
    /// Plugins that are not asked.
    pub(crate) not_asked: Vec<String>,
    /// What else is to be said.
    pub(crate) notes: Vec<String>,
}

/// One configuration with its tables, its plugins and a worker aside.
struct Side<'a> {
    aside: Aside<WorkerChain>,
    names: Names<'a>,
    traps: AsideTraps,
}

/// Judges every sample by both configurations. Takes long: tables are built, and each sample costs some
/// microseconds.
pub(crate) fn judge(question: Question, now: Nanos) -> Result<Judgement> {
    let Question { old, new, host, routes, samples, asides } = question;
    let before =
        routes.publication(Arc::clone(&old), &host).context("the tables in force, built anew")?;
    let after = routes.publication(Arc::clone(&new), &host)?;
    let snapshots = (before.current(), after.current());
    let (old_plugins, new_plugins) = asides;
    let mut judgement = Judgement::default();
    judgement.tell_of_plugins(&old_plugins.plugins, &new_plugins.plugins);
    let (old_list, new_list) = (old_plugins.plugins, new_plugins.plugins);
    let side = |publication, config, snapshot, plugins, chain, traps| {
        let names = Names { config, publication, snapshot, plugins };
        Side { aside: Aside::new(Publication::reader(publication), chain, now), names, traps }
    };
    let snapshot: &Snapshot = &snapshots.0;
    let mut one = side(&before, &*old, snapshot, &*old_list, old_plugins.chain, old_plugins.traps);
    let snapshot: &Snapshot = &snapshots.1;
    let mut other = side(&after, &*new, snapshot, &*new_list, new_plugins.chain, new_plugins.traps);

    let each = JUDGED_MAX / samples.len().max(1);
    let last_of_each = samples.iter().flat_map(|of_one| of_one.iter().rev().take(each).rev());
    let mut time = now;
    for sample in last_of_each {
        time = Nanos(time.0 + STEP_NANOS);
        let frame = sample.frame();
        let records = (
            one.aside.ask(sample.ingress, &frame, time)?,
            other.aside.ask(sample.ingress, &frame, time)?,
        );
        let (first, last) = judgement.times.unwrap_or((sample.time, sample.time));
        judgement.times = Some((first.min(sample.time), last.max(sample.time)));
        if let Some(reason) = cannot_judge(sample, &records.0).or(cannot_judge(sample, &records.1))
        {
            *judgement.not_judged.entry(reason.to_owned()).or_default() += 1;
            continue;
        }
        let (flow, packet) = known(&records.0, one.names);
        judgement.judged.push(Judged {
            flow,
            packet,
            weight: sample.weight,
            before: Outcome::new(&records.0, one.names),
            after: Outcome::new(&records.1, other.names),
        });
    }
    judgement.tell_of_traps(&one, "now");
    judgement.tell_of_traps(&other, "in the new configuration");
    one.aside.end();
    other.aside.end();
    Ok(judgement)
}

/// Why what became of a packet says nothing, if that is so.
fn cannot_judge(sample: &Sample, record: &PacketRecord) -> Option<&'static str> {
    if record.verdict == Verdict::Wait {
        return Some("later fragments, which follow the first of their packet");
    }
    if sample.is_whole() {
        return None;
    }
    let broken = [DropReason::TunnelMalformed, DropReason::TunnelIcmp];
    if matches!(record.verdict, Verdict::Drop(reason) if broken.contains(&reason)) {
        return Some("tunnel packets with a checksum over more than is remembered");
    }
    let end = |at: &Descriptor| usize::from(at.l4_offset) + TRANSPORT_BYTES;
    let is_beyond = record.stages.iter().any(|stage| end(&stage.descriptor) > sample.head.len());
    is_beyond.then_some("packets with more headers than is remembered")
}

/// The flow of a packet, inside of a tunnel that ends here, and the packet in words.
fn known(record: &PacketRecord, names: Names<'_>) -> (Flow, String) {
    let interface = interface_name(record.ingress, names);
    let seen = record.after(Stage::Decap).or(record.after(Stage::Parse));
    let parsed = seen.filter(|seen| {
        !matches!(record.after(Stage::Parse).map(|it| it.verdict), Some(Verdict::Drop(_)))
            && seen.descriptor.l3_offset != 0
    });
    let Some(parsed) = parsed else {
        let flow = Flow { ingress: record.ingress.0, ..Flow::default() };
        return (flow, format!("{} bytes by {interface}", record.received.len()));
    };
    let known = &parsed.descriptor;
    let has_ports = known.flags & flags::PORTS != 0;
    let flow = Flow {
        ingress: record.ingress.0,
        source: known.source,
        destination: known.destination,
        protocol: known.protocol,
        ports: if has_ports { (known.source_port, known.destination_port) } else { (0, 0) },
    };
    (flow, format!("{} by {interface}", describe(known, &record.received)))
}

impl Judgement {
    fn tell_of_plugins(&mut self, old: &[ListedPlugin], new: &[ListedPlugin]) {
        let named = |wanted: Asked| {
            let mut names: Vec<String> = Vec::new();
            for plugin in old.iter().chain(new).filter(|plugin| plugin.asked == wanted) {
                if !names.contains(&plugin.name) {
                    names.push(plugin.name.clone());
                }
            }
            names
        };
        self.not_asked = named(Asked::Not);
        for name in named(Asked::CopiedMeters) {
            self.notes.push(format!(
                "plugin {name} keeps rates, which are not foreseen: each packet is judged alone"
            ));
        }
    }

    fn tell_of_traps(&mut self, side: &Side<'_>, which: &str) {
        let mut told = Vec::new();
        for (generation, text) in traps(&side.traps) {
            let plugin = side.names.plugins.iter().find(|plugin| plugin.generation == generation);
            let name = plugin.map_or("a plugin", |plugin| plugin.name.as_str());
            let note = format!("plugin {name} failed {which}: {text}");
            if !told.contains(&note) {
                told.push(note);
            }
        }
        self.notes.append(&mut told);
    }
}

#[cfg(test)]
impl Flow {
    /// A flow on an interface.
    pub(crate) fn on(ingress: InterfaceId, ports: (u16, u16)) -> Self {
        Self { ingress: ingress.0, ports, ..Self::default() }
    }
}
