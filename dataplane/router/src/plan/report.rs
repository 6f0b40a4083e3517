//! [`PlanReport`]: the changes, grouped, with how much of the traffic each concerns.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::outcome::Kind;
use super::{Flow, Judged, Judgement};

/// Groups that a report shows; the rest is counted.
pub(crate) const GROUPS_MAX: usize = 20;

/// Packets of different flows that are shown of each group.
const EXAMPLES_MAX: usize = 3;

/// What a new configuration would change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct PlanReport {
    /// The file of the new configuration.
    pub(crate) file: String,
    /// Number of the configuration in force.
    pub(crate) configuration: u64,
    /// The parts of the configuration that differ, as `sluice reload` names them.
    pub(crate) differs: Vec<String>,
    /// What was judged.
    pub(crate) sample: SampleReport,
    /// What would change of it.
    pub(crate) changed: Share,
    /// The changes, the largest first.
    pub(crate) groups: Vec<Group>,
    /// Changes that are not among the groups.
    pub(crate) rest: Rest,
    /// Plugins that could not be asked: what they decide by lies in the workers' instances.
    pub(crate) not_asked: Vec<String>,
    /// What else is to be said.
    pub(crate) notes: Vec<String>,
}

/// The packets that a plan was made from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct SampleReport {
    /// Workers that they come from.
    pub(crate) workers: usize,
    /// Those that were judged; their `percent` is 100.
    pub(crate) judged: Share,
    /// Whether every packet of the time was remembered, rather than one of some.
    pub(crate) is_every_packet: bool,
    /// Seconds since the first of them was received.
    pub(crate) oldest_s: f64,
    /// Seconds since the last of them was received.
    pub(crate) newest_s: f64,
    /// Remembered packets that cannot be judged, by the reason.
    pub(crate) not_judged: BTreeMap<String, u64>,
}

/// A part of the traffic.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Share {
    /// Flows: receiving interface, addresses, protocol and ports.
    pub(crate) flows: u64,
    /// Packets of the sample.
    pub(crate) sampled: u64,
    /// Packets that these stand for.
    pub(crate) packets: u64,
    /// The latter as a part of all that were judged.
    pub(crate) percent: f64,
}

/// Packets for which the same changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Group {
    /// What changes.
    pub(crate) kind: Kind,
    /// What becomes of them now.
    pub(crate) before: String,
    /// What would become of them.
    pub(crate) after: String,
    /// How many these are.
    pub(crate) share: Share,
    /// Some of them.
    pub(crate) examples: Vec<String>,
}

/// Groups that are counted only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rest {
    /// How many.
    pub(crate) groups: usize,
    /// What they hold.
    pub(crate) share: Share,
}

/// A share in the making.
#[derive(Debug, Default)]
struct Tally {
    flows: BTreeSet<Flow>,
    sampled: u64,
    packets: u64,
}

impl Tally {
    fn add(&mut self, judged: &Judged) -> bool {
        self.sampled += 1;
        self.packets += judged.weight;
        self.flows.insert(judged.flow)
    }

    fn merge(&mut self, other: &Self) {
        self.sampled += other.sampled;
        self.packets += other.packets;
        self.flows.extend(&other.flows);
    }

    fn share(&self, all: u64) -> Share {
        let percent = if all == 0 { 0.0 } else { self.packets as f64 * 100.0 / all as f64 };
        Share {
            flows: self.flows.len() as u64,
            sampled: self.sampled,
            packets: self.packets,
            percent,
        }
    }
}

impl PlanReport {
    /// Groups what was judged at `now_s` of the workers' clock, in seconds.
    pub(crate) fn new(judgement: Judgement, workers: usize, now_s: f64) -> Self {
        let Judgement { judged, not_judged, times, not_asked, notes } = judgement;
        let mut groups: HashMap<(Kind, String, String), (Tally, Vec<String>)> = HashMap::new();
        let (mut all, mut changed) = (Tally::default(), Tally::default());
        for one in &judged {
            all.add(one);
            let Some(difference) = one.before.difference(&one.after) else { continue };
            changed.add(one);
            let (tally, examples) = groups.entry(difference).or_default();
            if tally.add(one) && examples.len() < EXAMPLES_MAX {
                examples.push(one.packet.clone());
            }
        }
        let mut groups: Vec<_> = groups.into_iter().collect();
        // The most packets first; then by kind and words, so that the same sample gives the same report.
        groups.sort_by(|(a, (left, _)), (b, (right, _))| {
            right.packets.cmp(&left.packets).then_with(|| a.cmp(b))
        });
        let hidden = groups.split_off(groups.len().min(GROUPS_MAX));
        let mut rest = Tally::default();
        for (_, (tally, _)) in &hidden {
            rest.merge(tally);
        }
        let ago = |time: frame::Nanos| (now_s - time.0 as f64 / 1e9).max(0.0);
        Self {
            sample: SampleReport {
                workers,
                judged: all.share(all.packets),
                is_every_packet: judged.iter().all(|one| one.weight == 1),
                oldest_s: times.map_or(0.0, |(first, _)| ago(first)),
                newest_s: times.map_or(0.0, |(_, last)| ago(last)),
                not_judged,
            },
            changed: changed.share(all.packets),
            groups: groups
                .into_iter()
                .map(|((kind, before, after), (tally, examples))| Group {
                    kind,
                    before,
                    after,
                    share: tally.share(all.packets),
                    examples,
                })
                .collect(),
            rest: Rest { groups: hidden.len(), share: rest.share(all.packets) },
            not_asked,
            notes,
            ..Self::default()
        }
    }

    /// Whether there is nothing to judge by, although something differs.
    pub(crate) fn is_blind(&self) -> bool {
        !self.differs.is_empty() && self.sample.judged.sampled == 0
    }
}
