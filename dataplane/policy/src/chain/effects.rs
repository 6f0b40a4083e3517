//! What verdicts do to packets: each word is judged, and carried out or void.

use frame::{Act, Deed, DropReason, Verdict};
use sluice_abi::{Edit, edit};

use super::{Context, Open, Terms};
use crate::{
    DefaultVerdict,
    judgement::{Bad, CONTINUE, Judgement, Ruling, judge},
};

impl Context<'_> {
    /// Whether a verdict with this edit is none that costs the default.
    pub(super) fn makes_sense(&self, word: u64, edit: Edit, open: &Open<'_>) -> bool {
        judge(word, &self.terms.allowed, &open.edits.known, || Some(edit)).is_ok()
    }

    /// Does with the packet at `position` of the batch what `word` says, with the edit that `read_edit`
    /// gives where it is wanted.
    #[inline]
    pub(super) fn apply(
        &self,
        word: u64,
        position: usize,
        open: &mut Open<'_>,
        read_edit: impl FnOnce() -> Option<Edit>,
    ) -> Option<()> {
        if word == CONTINUE {
            return Some(());
        }
        match judge(word, &self.terms.allowed, &open.edits.known, read_edit) {
            Ok(judgement) => self.carry_out(&judgement, position, open),
            Err(bad) => self.void(bad, position, open),
        }
    }

    /// Does with the packet at `position` of the batch what the plugin asks for.
    #[inline]
    fn carry_out(&self, judgement: &Judgement, position: usize, open: &mut Open<'_>) -> Option<()> {
        let Judgement { ruling, flags, edit: wanted, .. } = judgement;
        if let Ruling::Drop(reason) = *ruling {
            // The plugin's own reasons come first, the default is the last.
            let last = self.counters.reasons.len().saturating_sub(1);
            self.counters.reasons.get(last.min(reason as usize))?.add(1);
            *open.verdicts.get_mut(position)? = Verdict::Drop(DropReason::Plugin);
        } else {
            self.edit(judgement, position, open);
        }
        if *flags & edit::MIRROR != 0 {
            self.counters.mirrored.add(1);
        }
        if self.is_watched {
            let act = match *ruling {
                Ruling::Continue => Act::Edit,
                Ruling::Drop(_) => Act::Drop,
                Ruling::Transmit(next_hop) => Act::Transmit(next_hop),
            };
            self.note(act, *flags, *wanted, position, open);
        }
        Some(())
    }

    #[inline(never)]
    fn edit(&self, judgement: &Judgement, position: usize, open: &mut Open<'_>) {
        let Judgement { ruling, flags, edit: wanted, .. } = judgement;
        let next_hop = match *ruling {
            Ruling::Transmit(next_hop) => next_hop,
            _ => 0,
        };
        if next_hop == 0 && *flags & !edit::MIRROR == 0 {
            return;
        }
        self.counters.transmitted.add(u64::from(next_hop != 0));
        self.counters.edited.add(u64::from(*flags & !edit::MIRROR != 0));
        open.edits.change(position, |entry| {
            entry.take(*flags, wanted);
            if next_hop != 0 {
                entry.next_hop = next_hop;
            }
        });
    }

    /// Gives the packet at `position` of the batch the plugin's default.
    #[cold]
    fn void(&self, bad: Bad, position: usize, open: &mut Open<'_>) -> Option<()> {
        self.counters.bad_verdicts.add(1);
        if self.terms.default == DefaultVerdict::Drop {
            self.counters.default_drops.add(1);
            *open.verdicts.get_mut(position)? = Verdict::Drop(DropReason::PluginDefault);
        }
        if self.is_watched {
            self.note(Act::Bad(bad.text()), 0, Edit::default(), position, open);
        }
        Some(())
    }

    /// Notes what the plugin did, for whoever looks on.
    #[cold]
    fn note(&self, act: Act, flags: u8, edit: Edit, position: usize, open: &mut Open<'_>) {
        let Ok(position) = u8::try_from(position) else { return };
        let Terms { plugin, generation, .. } = *self.terms;
        let point = open.point;
        open.edits.note(Deed { position, point, plugin, generation, act, flags, edit });
    }
}
