//! [`WorkerSet`]: the plugins of one worker, by hook and in order, and what it has of each.

use std::sync::Arc;

use crate::{
    DefaultVerdict, OnTrap,
    candidate::Candidate,
    counters::GenerationCounters,
    flow_cache::FlowCache,
    instance::Instance,
    judgement::{Allowed, CONTINUE, DROP_BY_DEFAULT},
    last_good::LastGood,
};

/// What a worker needs to know of a generation.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    /// Number of the plugin's name.
    pub(crate) plugin: u32,
    pub(crate) generation: u64,
    pub(crate) allowed: Allowed,
    pub(crate) default: DefaultVerdict,
    pub(crate) on_trap: OnTrap,
}

impl Terms {
    /// What verdicts are filled with before a call.
    pub(crate) const fn default_word(&self) -> u64 {
        match self.default {
            DefaultVerdict::Continue => CONTINUE,
            DefaultVerdict::Drop => DROP_BY_DEFAULT,
        }
    }
}

/// One plugin of one worker.
pub(crate) struct Slot {
    pub(crate) terms: Terms,
    pub(crate) instance: Option<Box<Instance>>,
    pub(crate) spare: Option<Box<Instance>>,
    pub(crate) counters: Arc<GenerationCounters>,
    /// The generation before, if it stands by.
    pub(crate) last_good: Option<Box<LastGood>>,
    /// Verdicts that are kept for flows, of a plugin that judges flows.
    pub(crate) flows: Option<Box<FlowCache>>,
    /// What is asked about the same packets and decides nothing.
    pub(crate) candidate: Option<Box<Candidate>>,
}

impl Slot {
    /// How many instances and candidates it has.
    pub(crate) fn instances(&self) -> usize {
        let last_good = self.last_good.as_ref().is_some_and(|by| by.instance.is_some());
        usize::from(self.instance.is_some())
            + usize::from(self.spare.is_some())
            + usize::from(last_good)
            + self.candidate.as_ref().map_or(0, |candidate| candidate.handed_out())
    }
}

/// A place in a set: a new plugin, or, until the worker takes the set, one to be kept from the old.
pub(crate) struct Place {
    pub(crate) generation: u64,
    pub(crate) slot: Option<Slot>,
}

/// The plugins of one worker, by hook and in order.
#[derive(Default)]
pub(crate) struct WorkerSet {
    pub(crate) hooks: [Vec<Place>; 3],
    /// The configuration whose tables it goes with: it is not taken over before those are.
    pub(crate) configuration: u64,
}

impl WorkerSet {
    pub(crate) fn places_mut(&mut self) -> impl Iterator<Item = &mut Place> {
        self.hooks.iter_mut().flatten()
    }

    pub(super) fn slot_mut(&mut self, generation: u64) -> Option<&mut Slot> {
        self.places_mut().find(|place| place.generation == generation)?.slot.as_mut()
    }
}
