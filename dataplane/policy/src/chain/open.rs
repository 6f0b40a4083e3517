//! [`Open`]: the packets of a batch that a plugin is asked about.

use frame::{BATCH_MAX, Blame, DropReason, Edits, Frame, HookPoint, Verdict};
use sluice_abi::{Descriptor, REASON_DEFAULT};

use super::Terms;
use crate::{OnTrap, instance::Instance};

/// The packets of a batch that are asked about.
pub(super) struct Open<'a> {
    pub(super) point: HookPoint,
    pub(super) frames: &'a [Frame],
    pub(super) descriptors: &'a [Descriptor],
    pub(super) verdicts: &'a mut [Verdict],
    pub(super) edits: &'a mut Edits,
    /// Some of the batch are transmitted, which ends their chains before they leave.
    pub(super) has_transmits: bool,
    /// Their positions; `None` when they are all of the batch.
    pub(super) some: Option<&'a [u8]>,
}

impl Open<'_> {
    pub(super) fn len(&self) -> usize {
        self.some.map_or(self.descriptors.len(), <[u8]>::len)
    }

    /// Their descriptors.
    pub(super) fn packets(&self) -> impl Iterator<Item = &Descriptor> {
        let all = if self.some.is_none() { self.descriptors } else { &[] };
        let some = self.some.unwrap_or_default().iter();
        all.iter().chain(Selected { descriptors: self.descriptors, some })
    }

    /// Whether the packet at a position of the batch is asked about.
    #[inline]
    pub(super) fn asks(&self, position: usize) -> bool {
        self.verdicts.get(position).is_some_and(|verdict| self.point.asks_about(*verdict))
            && !(self.has_transmits && self.edits.get(position).next_hop != 0)
    }

    /// Whether every packet of the batch is asked about, as is the rule.
    #[inline]
    pub(super) fn are_all(&self) -> bool {
        // Each with a question of its own, which the loop then does not ask anew for each verdict.
        let fit = match self.point {
            HookPoint::Egress => all(self.verdicts, |it| HookPoint::Egress.asks_about(it)),
            HookPoint::Ingress => all(self.verdicts, |it| HookPoint::Ingress.asks_about(it)),
            HookPoint::Forward => all(self.verdicts, |it| HookPoint::Forward.asks_about(it)),
        };
        fit && !self.has_transmits
    }

    /// The position in the batch of the packet that is number `index` of those open.
    #[inline]
    pub(super) fn position(&self, index: usize) -> Option<usize> {
        match self.some {
            None => Some(index),
            Some(some) => some.get(index).copied().map(usize::from),
        }
    }

    /// Decides all of them as `on_trap` says; returns how many were dropped.
    #[cold]
    pub(super) fn fail(&mut self, on_trap: OnTrap) -> usize {
        match on_trap {
            OnTrap::Open | OnTrap::LastGood => 0,
            OnTrap::Closed => {
                // Not whatever is asked about: some may have verdicts that were kept.
                for index in 0..self.len() {
                    let position = self.position(index);
                    if let Some(verdict) = position.and_then(|at| self.verdicts.get_mut(at)) {
                        *verdict = Verdict::Drop(DropReason::PluginDefault);
                    }
                }
                self.len()
            }
        }
    }

    /// Notes for each packet that was just dropped which plugin it was, and why.
    #[cold]
    pub(super) fn note(
        &self,
        terms: &Terms,
        instance: Option<&Instance>,
        blames: &mut [Option<Blame>],
    ) {
        for index in 0..self.len() {
            let position = self.position(index).unwrap_or(usize::MAX);
            let reason = match self.verdicts.get(position) {
                Some(Verdict::Drop(DropReason::Plugin)) => instance
                    .and_then(|instance| instance.verdict_word(index))
                    .and_then(|word| u32::try_from(word >> 32).ok()),
                Some(Verdict::Drop(DropReason::PluginDefault)) => None,
                _ => continue,
            };
            let (plugin, generation) = (terms.plugin, terms.generation);
            let reason = reason.unwrap_or(REASON_DEFAULT);
            if let Some(blame) = blames.get_mut(position) {
                *blame = Some(Blame { plugin, generation, reason });
            }
        }
    }
}

/// Whether all verdicts are such. One branch for 16 of them: one for each takes five times as long.
#[inline]
fn all(verdicts: &[Verdict], is_such: impl Fn(Verdict) -> bool) -> bool {
    let (pieces, rest) = verdicts.as_chunks::<16>();
    let whole = |piece: &[Verdict]| piece.iter().fold(true, |all, it| all & is_such(*it));
    pieces.iter().all(|piece| whole(piece)) && whole(rest)
}

/// Writes the positions of the packets that are asked about, of which there are at most 256.
pub(super) fn select<'a>(packets: &Open<'_>, open: &'a mut [u8; BATCH_MAX]) -> &'a [u8] {
    let mut count = 0;
    for (position, index) in (0..=u8::MAX).zip(0..packets.verdicts.len()) {
        if let Some(place) = open.get_mut(count) {
            *place = position;
        }
        count += usize::from(packets.asks(index));
    }
    open.get(..count).unwrap_or_default()
}

/// The descriptors at some positions of a batch.
pub(super) struct Selected<'a> {
    pub(super) descriptors: &'a [Descriptor],
    pub(super) some: std::slice::Iter<'a, u8>,
}

impl<'a> Iterator for Selected<'a> {
    type Item = &'a Descriptor;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.descriptors.get(usize::from(*self.some.next()?))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.some.size_hint()
    }
}

impl ExactSizeIterator for Selected<'_> {}
