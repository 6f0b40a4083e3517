//! Verdicts of flows: packets whose verdict is kept are given it, only the others go to the guest.
//!
//! What is kept is applied as a verdict of a call is, by the same checks.

use frame::{BATCH_MAX, Blame, DropReason, Verdict};
use sluice_abi::REASON_DEFAULT;

use super::{Context, Open};
use crate::{
    flow_cache::{FlowCache, Place, has_lifetime, is_of_a_flow},
    instance::Instance,
};

impl Context<'_> {
    /// Gives packets the verdicts that are kept for their flows. What it returns are the positions of
    /// those that the plugin has to be asked about.
    pub(super) fn recall<'m>(
        &self,
        flows: &FlowCache,
        open: &mut Open<'_>,
        misses: &'m mut [u8; BATCH_MAX],
        mut blames: Option<&mut [Option<Blame>]>,
    ) -> &'m [u8] {
        // Two passes: by the second the tags that the first touched have come.
        let mut places = [Place::default(); BATCH_MAX];
        for (place, descriptor) in places.iter_mut().zip(open.packets()) {
            *place = flows.place(descriptor);
        }
        let (mut count, mut hits, mut of_flows) = (0, 0, 0);
        for (index, place) in places.iter().enumerate().take(open.len()) {
            let Some(position) = open.position(index) else { break };
            let Some(descriptor) = open.descriptors.get(position) else { break };
            let mut kept = None;
            if is_of_a_flow(descriptor) {
                of_flows += 1;
                kept = flows.get(*place, descriptor, self.now);
            }
            if let Some((word, edit)) = kept {
                hits += 1;
                if self.apply(word, position, open, || Some(edit)).is_none() {
                    break;
                }
                let verdict = open.verdicts.get(position).copied().unwrap_or_default();
                if let Some(blames) = &mut blames {
                    self.blame(word, verdict, blames.get_mut(position));
                }
            } else if let (Some(miss), Ok(position)) =
                (misses.get_mut(count), u8::try_from(position))
            {
                *miss = position;
                count += 1;
            }
        }
        self.counters.packets.add(hits);
        self.counters.flows.hits.add(hits);
        self.counters.flows.misses.add(of_flows - hits);
        misses.get(..count).unwrap_or_default()
    }

    /// Keeps the verdicts of a call that have a lifetime and make sense.
    pub(super) fn keep(&self, flows: &mut FlowCache, instance: &Instance, open: &Open<'_>) {
        let mut evictions = 0;
        for (index, descriptor) in open.packets().enumerate() {
            let Some(word) = instance.verdict_word(index) else { break };
            let edit = instance.raw_edit(index);
            if has_lifetime(word) && is_of_a_flow(descriptor) && self.makes_sense(word, edit, open)
            {
                evictions += u64::from(flows.keep(descriptor, word, edit, self.now));
            }
        }
        self.counters.flows.evictions.add(evictions);
    }

    /// Notes who dropped a packet by a verdict that was kept.
    #[cold]
    fn blame(&self, word: u64, verdict: Verdict, blame: Option<&mut Option<Blame>>) {
        let reason = match verdict {
            Verdict::Drop(DropReason::Plugin) => u32::try_from(word >> 32).ok(),
            Verdict::Drop(DropReason::PluginDefault) => None,
            _ => return,
        };
        let (plugin, generation) = (self.terms.plugin, self.terms.generation);
        if let Some(blame) = blame {
            let reason = reason.unwrap_or(REASON_DEFAULT);
            *blame = Some(Blame { plugin, generation, reason });
        }
    }
}
