//! [`Explanation`]: the report, for programs as JSON. It names no positions of tables, which differ
//! from run to run, so that the same packet on the same tables gives the same bytes.

use std::collections::BTreeMap;

use forward::{ComplaintRecord, Detour, PacketRecord, Stage, StageRecord};
use frame::{Act, Blame, Deed, DropReason, HookPoint, Verdict};
use policy::{Asked, ListedPlugin};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sluice_abi::{Descriptor, flags};
use tables::{Owner, Role, RouteId, SourceValidation, Way};

use super::Names;
use super::deeds::deed_words;
use super::entries::{
    changed_bytes, describe, group_words, ip, next_hop_words, owner_words, peer_words, slice_words,
};

/// What a step says of a plugin that could not be asked.
const NOT_ASKED: &str = "not-asked";

/// What becomes of a packet, step by step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Explanation {
    /// The packet in a line.
    pub(crate) packet: String,
    /// The interface that receives it.
    pub(crate) interface: String,
    /// What each stage made of it, as far as it came.
    pub(crate) steps: Vec<Step>,
    /// The end.
    pub(crate) verdict: VerdictReport,
}

/// What one stage made of the packet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Step {
    /// The stage, as in the timings of `sluice status`.
    pub(crate) stage: String,
    /// What happened, in words.
    pub(crate) result: String,
    /// The table that was asked.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) table: Option<String>,
    /// The entry that decided.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) entry: Option<String>,
    /// The same for programs.
    pub(crate) details: BTreeMap<String, Value>,
}

impl Step {
    fn new(stage: Stage, result: impl Into<String>) -> Self {
        let stage = stage.label().to_owned();
        let (table, entry, details) = (None, None, BTreeMap::new());
        Self { stage, result: result.into(), table, entry, details }
    }

    fn from(mut self, table: &str, entry: impl Into<String>) -> Self {
        self.table = Some(table.to_owned());
        self.entry = Some(entry.into());
        self
    }

    fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.details.insert(key.to_owned(), value.into());
        self
    }
}

/// The end of a packet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct VerdictReport {
    /// `transmit`, `drop`, `punt`, `hold` or `consumed`.
    pub(crate) kind: String,
    /// The interface that it leaves by.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) interface: Option<String>,
    /// Label of the drop reason.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) reason: Option<String>,
    /// The reason in a sentence.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) help: Option<String>,
    /// The plugin that dropped it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) plugin: Option<String>,
    /// The plugin's own reason.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) plugin_reason: Option<String>,
    /// The stage that dropped it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) stage: Option<String>,
    /// Plugins that could not be asked: all this holds only if each of them lets the packet pass as it is.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) if_passed_by: Vec<String>,
}

impl VerdictReport {
    /// In a line.
    pub(crate) fn words(&self) -> String {
        match (self.kind.as_str(), &self.reason, &self.plugin) {
            ("drop", Some(reason), Some(plugin)) => format!(
                "dropped: {reason}: {plugin}: {}",
                self.plugin_reason.as_deref().unwrap_or("default")
            ),
            ("drop", Some(reason), None) => format!("dropped: {reason}"),
            ("transmit", ..) => {
                format!("sent by {}", self.interface.as_deref().unwrap_or("an interface"))
            }
            ("punt", ..) => "to the kernel".to_owned(),
            ("fragment", ..) => {
                format!(
                    "sent in fragments by {}",
                    self.interface.as_deref().unwrap_or("an interface")
                )
            }
            ("handoff", ..) => "handed to the worker that follows its fragments".to_owned(),
            ("hold", ..) => "held: its next hop is being resolved".to_owned(),
            ("wait", ..) => "held: it waits for the first fragment of its packet".to_owned(),
            _ => self.kind.clone(),
        }
    }
}

/// Puts a verdict into words. `plugins` are those that may be to blame.
pub(crate) fn verdict_report(
    verdict: Verdict,
    blame: Option<Blame>,
    interfaces: &[config::Interface],
    plugins: &[ListedPlugin],
) -> VerdictReport {
    let mut report = VerdictReport {
        kind: String::new(),
        interface: None,
        reason: None,
        help: None,
        plugin: None,
        plugin_reason: None,
        stage: None,
        if_passed_by: Vec::new(),
    };
    report.kind = match verdict {
        Verdict::Transmit(egress) => {
            report.interface = interfaces.get(egress.index()).map(|each| each.name.clone());
            "transmit"
        }
        Verdict::Fragment(egress) => {
            report.interface = interfaces.get(egress.index()).map(|each| each.name.clone());
            "fragment"
        }
        Verdict::Handoff => "handoff",
        Verdict::Wait => "wait",
        Verdict::Punt => "punt",
        Verdict::Hold => "hold",
        Verdict::Consumed => "consumed",
        Verdict::Continue => "undecided",
        Verdict::Drop(reason) => {
            report.reason = Some(reason.label().to_owned());
            report.help = Some(reason.help().to_owned());
            if let Some(blame) = blame {
                let plugin = plugins.iter().find(|each| each.plugin == blame.plugin);
                report.plugin = plugin.map(|plugin| plugin.name.clone());
                report.plugin_reason = plugin.map(|plugin| plugin.reason(blame.reason).to_owned());
            }
            "drop"
        }
    }
    .to_owned();
    report
}

impl Explanation {
    /// Makes the report of a record. `traps` are what went wrong in plugins' calls, by generation.
    pub(crate) fn new(record: &PacketRecord, names: Names<'_>, traps: &[(u64, String)]) -> Self {
        let mut verdict =
            verdict_report(record.verdict, record.blame, &names.config.interfaces, names.plugins);
        verdict.stage = record.dropped_by().map(|stage| match stage {
            // The look-up is one stage to the recorder: which half of it dropped, the reason says.
            Stage::Routes if is_of_slices(record.verdict) => Stage::Slices.label().to_owned(),
            stage => stage.label().to_owned(),
        });
        let first = record.after(Stage::Parse).or(record.stages.first());
        let is_parsed = first.is_some_and(|first| !matches!(first.verdict, Verdict::Drop(_)));
        let packet = match first {
            Some(first) if is_parsed => describe(&first.descriptor, &record.received),
            _ => format!("{} bytes", record.received.len()),
        };
        let builder = Builder { record, names, traps };
        let (interface, steps) = (builder.interface(), builder.steps());
        let not_asked =
            steps.iter().filter(|step| step.details.get("verdict") == Some(&json!(NOT_ASKED)));
        verdict.if_passed_by = not_asked.filter_map(|step| step.entry.clone()).collect();
        Self { packet, interface, steps, verdict }
    }
}

fn is_of_slices(verdict: Verdict) -> bool {
    matches!(
        verdict,
        Verdict::Drop(
            DropReason::SpoofedSource
                | DropReason::SliceSender
                | DropReason::SliceUnowned
                | DropReason::SliceDefault
                | DropReason::SlicePortless
                | DropReason::SliceFragment
                | DropReason::SliceIcmp
                | DropReason::IcmpInnerTruncated
                | DropReason::TransportTruncated
                | DropReason::TunnelLoop
        )
    )
}

struct Builder<'a> {
    record: &'a PacketRecord,
    names: Names<'a>,
    traps: &'a [(u64, String)],
}

impl Builder<'_> {
    fn interface(&self) -> String {
        let interfaces = &self.names.config.interfaces;
        let name = interfaces.get(self.record.ingress.index()).map(|each| each.name.clone());
        name.unwrap_or_default()
    }

    fn steps(&self) -> Vec<Step> {
        let mut steps = vec![self.receive()];
        steps.extend(self.parse());
        steps.extend(self.sources());
        steps.extend(self.decap());
        steps.extend(self.plugins(HookPoint::Ingress));
        steps.extend(self.slices());
        steps.extend(self.route());
        steps.extend(self.plugins(HookPoint::Forward));
        steps.extend(self.redirected());
        steps.extend(self.rewrite());
        steps.extend(self.plugins(HookPoint::Egress));
        steps.extend(self.dispatch());
        steps.extend(self.complaint());
        steps
    }

    fn receive(&self) -> Step {
        let name = self.interface();
        let interface = self.names.snapshot.interface(self.record.ingress);
        let role = match interface.map(|interface| interface.role) {
            Some(Role::Inside) => "inside",
            Some(Role::Outside) => "outside",
            Some(Role::Both) => "both",
            None => "none",
        };
        let length = self.record.received.len();
        let held = if self.record.was_held { ", held until now" } else { "" };
        Step::new(Stage::Receive, format!("{length} bytes by {name}, role {role}{held}"))
            .from("interfaces", name.clone())
            .with("role", role)
            .with("frame_bytes", length)
    }

    fn parse(&self) -> Option<Step> {
        let parsed = self.record.after(Stage::Parse)?;
        if let Verdict::Drop(reason) = parsed.verdict {
            return Some(Step::new(Stage::Parse, format!("refused: {}", reason.help())));
        }
        Some(parsed_step(Stage::Parse, &parsed.descriptor, &self.record.received))
    }

    /// Whether the packet may come from where it says: shown where its interface asks.
    fn sources(&self) -> Option<Step> {
        let known = self.record.after(Stage::Sources)?;
        let route = self.record.route_back?;
        let Names { snapshot, .. } = self.names;
        let mode = match snapshot.interface(self.record.ingress)?.source_validation {
            SourceValidation::Off => return None,
            SourceValidation::Strict => "strict",
            SourceValidation::Loose => "loose",
            SourceValidation::LooseIgnoringDefault => "loose-ignoring-default",
        };
        let source = ip(&known.descriptor.source);
        let judgement = match known.verdict {
            Verdict::Drop(reason) => format!("refused: {}", reason.help()),
            _ => "accepted".to_owned(),
        };
        let entry = self.names.publication.route_entry(source);
        let group = snapshot.groups.copy(route).map(|group| group_words(&group, self.names));
        let step = match (&entry, &group) {
            (Some(entry), Some(group)) => {
                let from = super::entries::source_words(entry);
                let prefix = entry.prefix;
                let words = format!(
                    "back to {source} by {prefix} from {from}: {group}; {mode} on {}: {judgement}",
                    self.interface()
                );
                Step::new(Stage::Sources, words)
                    .from("routes", format!("{prefix} {group}"))
                    .with("prefix", prefix.to_string())
                    .with("next_hops", group.clone())
            }
            _ => {
                let words = format!("no route back to {source}; {mode}: {judgement}");
                Step::new(Stage::Sources, words).from("routes", "none")
            }
        };
        Some(step.with("source", source.to_string()).with("source_validation", mode))
    }

    fn decap(&self) -> Option<Step> {
        let opened = self.record.after(Stage::Decap)?;
        if let Verdict::Drop(reason) = opened.verdict {
            return Some(Step::new(Stage::Decap, format!("refused: {}", reason.help())));
        }
        let from = peer_words(opened.path.decapsulated?, self.names)?;
        let inner = describe(&opened.descriptor, &self.record.received);
        Some(
            Step::new(Stage::Decap, format!("out of the tunnel from {from}: {inner}"))
                .from("tunnels", from)
                .with("inner", inner),
        )
    }

    fn plugins(&self, point: HookPoint) -> Vec<Step> {
        let (before, stage) = match point {
            HookPoint::Ingress => (Stage::Decap, Stage::Ingress),
            HookPoint::Forward => (Stage::Routes, Stage::Forward),
            HookPoint::Egress => (Stage::Rewrite, Stage::Egress),
        };
        let known = self.record.after(before);
        let is_shown = known.is_some_and(|known| point.asks_about(known.verdict));
        if !is_shown || self.record.was_held && point != HookPoint::Egress {
            return Vec::new();
        }
        let is_transmit = |deed: &Deed| matches!(deed.act, Act::Transmit(_));
        let is_sent = |deed: &Deed| is_transmit(deed) && deed.point == HookPoint::Ingress;
        if point == HookPoint::Forward && self.record.deeds.iter().any(is_sent) {
            return Vec::new();
        }
        let mut steps = Vec::new();
        for plugin in self.names.plugins.iter().filter(|plugin| plugin.hook == point) {
            let dropped = self.record.blame.filter(|blame| {
                (blame.plugin, blame.generation) == (plugin.plugin, plugin.generation)
            });
            let (verdict, words) = match (dropped, plugin.asked) {
                (Some(blame), _) => {
                    let reason = plugin.reason(blame.reason);
                    ("drop", format!("{} drops it: {reason}", plugin.name))
                }
                (None, Asked::Not) => {
                    (NOT_ASKED, format!("{} is stateful, not asked", plugin.name))
                }
                (None, Asked::CopiedMeters) => (
                    "continue",
                    format!("{} lets it pass, by its meters as they stand", plugin.name),
                ),
                (None, Asked::Instance) => ("continue", format!("{} lets it pass", plugin.name)),
            };
            let its =
                |deed: &&Deed| (deed.plugin, deed.generation) == (plugin.plugin, plugin.generation);
            let deed = self.record.deeds.iter().find(its);
            let (did, details) =
                deed.map(|deed| deed_words(deed, &self.names.snapshot.actions)).unwrap_or_default();
            let is_last = dropped.is_some() || deed.is_some_and(is_transmit);
            let (verdict, words) = match (dropped, did.is_empty()) {
                (_, true) => (verdict, words),
                (Some(_), false) => (verdict, format!("{words}; it {}", did.join(", "))),
                (None, false) if is_last => {
                    ("transmit", format!("{} {}", plugin.name, did.join(", ")))
                }
                (None, false) => (verdict, format!("{} {}", plugin.name, did.join(", "))),
            };
            let trap = self.traps.iter().find(|(generation, _)| *generation == plugin.generation);
            let words = match trap {
                Some((_, text)) => format!("{words} (its call failed: {text})"),
                None => words,
            };
            let mut step = Step::new(stage, words)
                .from("plugins", plugin.name.clone())
                .with("verdict", verdict)
                .with("generation", plugin.number);
            if let Some(blame) = dropped {
                step = step.with("reason", plugin.reason(blame.reason));
            }
            step.details.extend(details);
            steps.push(step);
            if is_last {
                break;
            }
        }
        steps
    }

    fn slices(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let Some(known) = self.record.after(Stage::Routes) else { return steps };
        let drop = match known.verdict {
            Verdict::Drop(reason) => Some(reason),
            _ => None,
        };
        let sides = [(&self.record.sender, true), (&self.record.owner, false)];
        for (record, is_sender) in sides {
            let Some(record) = record else { continue };
            let prefix = self.names.snapshot.slices.prefix(record.egress).to_string();
            let end = if is_sender { "source" } else { "destination" };
            let refused = is_sender
                && matches!(drop, Some(DropReason::SliceSender | DropReason::SpoofedSource));
            let step = match record.hit {
                Err(reason) => {
                    let words = format!("{end} in {prefix}, but: {}", reason.help());
                    Step::new(Stage::Slices, words).from("slices", prefix.clone())
                }
                Ok(hit) => {
                    let slice = slice_words(hit.slice, hit.owner, self.names);
                    let owner = owner_words(hit.owner, self.names);
                    let may = match (is_sender, refused, drop) {
                        (true, true, Some(reason)) => format!(": refused: {}", reason.help()),
                        (true, ..) => ", which sent it".to_owned(),
                        (false, ..) => String::new(),
                    };
                    let words = format!("{end} in {prefix}, {slice}, of {owner}{may}");
                    Step::new(Stage::Slices, words)
                        .from("slices", format!("{prefix} {slice}"))
                        .with("slice", slice)
                        .with("owner", owner)
                }
            };
            steps.push(step.with("egress_prefix", prefix).with("end", end));
        }
        if let (Some(DropReason::TunnelLoop), Some(step)) = (drop, steps.last_mut()) {
            step.result += "; it came out of a tunnel and would have to enter one again";
        }
        steps
    }

    fn route(&self) -> Option<Step> {
        let known = self.record.after(Stage::Routes)?;
        let Names { snapshot, config, .. } = self.names;
        if is_of_slices(known.verdict) {
            return None;
        }
        let (path, descriptor) = (&known.path, &known.descriptor);
        if let Some(step) = self.detour(Stage::Routes, known) {
            return Some(step);
        }
        let failure = match known.verdict {
            Verdict::Drop(reason) => format!(": {}", reason.help()),
            _ => next_hop_words(path.next, descriptor, path, self.names),
        };
        let owner = self.record.owner.and_then(|record| record.hit.ok()).map(|hit| hit.owner);
        if let Some(Owner::Local(owner)) = owner {
            let owner = config.owners.get(usize::from(owner.0))?.name.clone();
            let words = format!("to owner {owner} on this machine{failure}");
            return Some(
                Step::new(Stage::Routes, words).from("owners", owner.clone()).with("owner", owner),
            );
        }
        let peer = path.encapsulate.and_then(|id| snapshot.peer(id));
        let destination = peer.map_or_else(|| ip(&descriptor.destination), |peer| peer.remote);
        let tunnel = match path.encapsulate.and_then(|id| peer_words(id, self.names)) {
            Some(peer) => format!("into the tunnel to {peer}, by "),
            None => String::new(),
        };
        let entry = self.names.publication.route_entry(destination);
        let group = descriptor
            .next_hop
            .checked_sub(1)
            .and_then(|group| snapshot.groups.copy(RouteId(group)))
            .map(|group| super::entries::group_words(&group, self.names));
        let mut step = match (&entry, &group) {
            (Some(entry), Some(group)) => {
                let source = super::entries::source_words(entry);
                let words = format!("{tunnel}{} from {source}: {group}{failure}", entry.prefix);
                Step::new(Stage::Routes, words)
                    .from("routes", format!("{} {group}", entry.prefix))
                    .with("prefix", entry.prefix.to_string())
                    .with("source", source)
                    .with("next_hops", group.clone())
            }
            _ => Step::new(Stage::Routes, format!("{tunnel}{destination}{failure}"))
                .from("routes", "none"),
        };
        step = step.with("destination", destination.to_string());
        if let Some(adjacency) = super::entries::adjacency_of(path, descriptor, snapshot) {
            step = step.with("neighbor", super::entries::adjacency_json(adjacency, self.names));
        }
        if let Some(members) = group.filter(|group| group.contains(" or ")) {
            step = step.with("chosen_by_hash", json!({ "hash": descriptor.hash, "of": members }));
        }
        Some(step)
    }

    /// Where a plugin behind the look-up sends the packet.
    fn redirected(&self) -> Option<Step> {
        let (before, after) =
            (self.record.after(Stage::Routes)?, self.record.after(Stage::Forward)?);
        if before.path.detour == after.path.detour {
            return None;
        }
        self.detour(Stage::Forward, after)
    }

    /// The way that a plugin gave the packet, instead of slices and routes.
    fn detour(&self, stage: Stage, known: &StageRecord) -> Option<Step> {
        let Names { snapshot, .. } = self.names;
        let (table, detour, words) = match known.path.detour {
            Detour::None => return None,
            Detour::NextHop(number) => {
                ("next_hops", snapshot.actions.next_hop(number), "sent to next hop")
            }
            Detour::Tag(number) => ("egress_tags", snapshot.actions.tag(number), "by egress tag"),
            Detour::Missed(number) => {
                // The route tells the rest.
                if stage == Stage::Routes {
                    return None;
                }
                let name = snapshot.actions.tag(number).map_or("", |tag| &*tag.name);
                let words = format!("egress tag {name} has no next hop that can be used");
                return Some(Step::new(stage, words).from("egress_tags", name));
            }
        };
        let name = detour.map_or("", |detour| &*detour.name);
        let (path, descriptor) = (&known.path, &known.descriptor);
        let group = match detour.map(|detour| detour.way) {
            Some(Way::Group(route)) => snapshot
                .groups
                .copy(route)
                .map_or_else(String::new, |group| format!(": {}", group_words(&group, self.names))),
            Some(Way::Node(_) | Way::Site(_) | Way::Here) | None => path
                .encapsulate
                .and_then(|peer| peer_words(peer, self.names))
                .map_or_else(String::new, |peer| format!(": through the tunnel to {peer}")),
        };
        let end = match known.verdict {
            Verdict::Drop(reason) => format!(": {}", reason.help()),
            _ => next_hop_words(path.next, descriptor, path, self.names),
        };
        let mut step = Step::new(stage, format!("{words} {name}, whatever routes say{group}{end}"))
            .from(table, name);
        if let Some(adjacency) = super::entries::adjacency_of(path, descriptor, snapshot) {
            step = step.with("neighbor", super::entries::adjacency_json(adjacency, self.names));
        }
        Some(step)
    }

    fn rewrite(&self) -> Option<Step> {
        let known = self.record.after(Stage::Rewrite)?;
        match known.verdict {
            Verdict::Drop(reason) => {
                let mut words = format!("refused: {}", reason.help());
                let mut step = Step::new(Stage::Rewrite, "");
                if matches!(reason, DropReason::MtuExceeded | DropReason::FragmentationOff) {
                    let (length, mtu) = (known.descriptor.length, known.path.mtu);
                    words += &format!(" {length} bytes, of which {mtu} fit.");
                    step = step.with("length", length).with("mtu", mtu);
                }
                step.result = words;
                Some(step)
            }
            Verdict::Transmit(_) | Verdict::Punt => Some(self.rewritten(&known.descriptor)),
            _ => None,
        }
    }

    fn rewritten(&self, descriptor: &Descriptor) -> Step {
        let sent = &self.record.sent;
        let length = usize::from(descriptor.length);
        let offset = usize::from(descriptor.l3_offset);
        let before = self.record.received.get(offset..offset + length).unwrap_or_default();
        let after = sent.get(sent.len().saturating_sub(length)..).unwrap_or_default();
        let changed = changed_bytes(before, after);
        let is_v6 = descriptor.flags & flags::IPV6 != 0;
        let ttl_at = if is_v6 { 7 } else { 8 };
        let ttl = |packet: &[u8]| packet.get(ttl_at).copied().unwrap_or_default();
        let mut words = vec![format!("TTL {} to {}", ttl(before), ttl(after))];
        if self.record.verdict == Verdict::Punt {
            words = vec![format!("the packet of {length} bytes, its TTL as it was")];
        }
        let mut step = Step::new(Stage::Rewrite, "")
            .with("ttl", json!([ttl(before), ttl(after)]))
            .with("bytes", sent.len())
            .with("changed", changed);
        let path = self.record.after(Stage::Rewrite).map(|known| known.path);
        if let Some(peer) = path.and_then(|path| path.encapsulate)
            && let Some(far) = peer_words(peer, self.names)
        {
            let overhead = sent.len().saturating_sub(length + wire::ethernet::HEADER_LEN);
            words.push(format!("{overhead} bytes of tunnel header to {far}"));
            step = step.with("encap_bytes", overhead).with("tunnel", far);
        }
        if let (Some(destination), Some(source)) =
            (wire::ethernet::destination(sent), wire::ethernet::source(sent))
            && matches!(self.record.verdict, Verdict::Transmit(_))
        {
            words.push(format!("MAC {source} to {destination}"));
            step = step
                .with("mac_source", source.to_string())
                .with("mac_destination", destination.to_string());
        }
        let adjacency = path
            .and_then(|path| super::entries::adjacency_of(&path, descriptor, self.names.snapshot));
        if let Some(adjacency) = adjacency {
            words.push(format!("{} bytes, MTU {}", sent.len(), adjacency.mtu));
            step = step.with("mtu", adjacency.mtu);
        }
        step.result = words.join(", ");
        step
    }

    fn dispatch(&self) -> Option<Step> {
        let words = match self.record.verdict {
            Verdict::Drop(reason) if self.record.dropped_by() == Some(Stage::Dispatch) => {
                format!("refused: {}", reason.help())
            }
            Verdict::Hold => {
                let hold = &self.names.snapshot.hold;
                format!(
                    "held for {} ms at most, behind at most {} for the same next hop",
                    hold.timeout_ms,
                    hold.frames_max_per_neighbor.saturating_sub(1)
                )
            }
            Verdict::Punt => {
                format!(
                    "to the kernel, {} a second at most",
                    self.names.snapshot.punt_packets_per_s
                )
            }
            _ => return None,
        };
        Some(Step::new(Stage::Dispatch, words))
    }

    fn complaint(&self) -> Option<Step> {
        let words = match self.record.complaint? {
            ComplaintRecord::Made { kind, code } => {
                let step = format!("the sender is told: ICMP type {kind} code {code}");
                return Some(Step::new(Stage::Icmp, step).with("type", kind).with("code", code));
            }
            ComplaintRecord::Limited => {
                "the sender is not told: the rate of ICMP errors is used up"
            }
            ComplaintRecord::Lost => {
                "the sender is not told: no address to send an ICMP error from"
            }
        };
        Some(Step::new(Stage::Icmp, words))
    }
}

fn parsed_step(stage: Stage, descriptor: &Descriptor, received: &[u8]) -> Step {
    let words = describe(descriptor, received);
    let mut marks = Vec::new();
    for (flag, name) in [
        (flags::FRAGMENT, "fragment"),
        (flags::LATER_FRAGMENT, "later-fragment"),
        (flags::ICMP_ERROR, "icmp-error"),
        (flags::OPTIONS, "options"),
    ] {
        if descriptor.flags & flag != 0 {
            marks.push(name);
        }
    }
    Step::new(stage, words)
        .with("source", ip(&descriptor.source).to_string())
        .with("destination", ip(&descriptor.destination).to_string())
        .with("protocol", descriptor.protocol)
        .with("ports", json!([descriptor.source_port, descriptor.destination_port]))
        .with("length", descriptor.length)
        .with("ttl", descriptor.ttl)
        .with("marks", json!(marks))
}
