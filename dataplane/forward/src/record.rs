//! [`PacketRecord`]: what every stage made of one packet, written down by the worker's own turn.
//!
//! A worker that records costs many times what it does otherwise, allocates, and is never one that
//! carries traffic: it is made aside, on the tables in force, to tell what becomes of a packet; or it
//! belongs to a replay.

use frame::{Batch, Blame, Deed, Descriptor, DropReason, Frame, Hook, PacketEdit, Verdict};
use tables::{EgressId, RouteId, SliceHit, Snapshot};
use wire::{InterfaceId, ethernet};

use crate::icmp_errors::Silence;
use crate::ownership::{self, End};
use crate::path::Path;
use crate::sources;
use crate::stages::Stage;

/// What every stage made of one packet.
#[derive(Clone, Debug)]
pub struct PacketRecord {
    /// The interface that received it.
    pub ingress: InterfaceId,
    /// The frame as it was received.
    pub received: Vec<u8>,
    /// It had been held before: what stood before the look-up is told in the record of then.
    pub was_held: bool,
    /// What was known after each stage, in their order.
    pub stages: Vec<StageRecord>,
    /// The route back to the source, where the interface had it looked up; [`RouteId::NONE`] if there is
    /// none.
    pub route_back: Option<RouteId>,
    /// The slice that the source lies in, if it is an egress address.
    pub sender: Option<SliceRecord>,
    /// The slice that the destination lies in, if it is an egress address and was asked for.
    pub owner: Option<SliceRecord>,
    /// The frame that leaves, or the packet that goes to the kernel; empty for any other.
    pub sent: Vec<u8>,
    /// What became of it.
    pub verdict: Verdict,
    /// The plugin that dropped it, if one did.
    pub blame: Option<Blame>,
    /// What plugins did with it, in their order.
    pub deeds: Vec<Deed>,
    /// What they set on it in all.
    pub edit: PacketEdit,
    /// What its sender is told of the drop.
    pub complaint: Option<ComplaintRecord>,
}

/// What was known of a packet after a stage.
#[derive(Clone, Copy, Debug)]
pub struct StageRecord {
    /// The stage.
    pub stage: Stage,
    /// What plugins may read.
    pub descriptor: Descriptor,
    /// The router's own notes.
    pub path: Path,
    /// The verdict so far.
    pub verdict: Verdict,
}

/// One look-up of a slice.
#[derive(Clone, Copy, Debug)]
pub struct SliceRecord {
    /// The egress prefix.
    pub egress: EgressId,
    /// The slice and its owner, or why the packet names none.
    pub hit: Result<SliceHit, DropReason>,
}

/// An ICMP error about a dropped packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComplaintRecord {
    /// It was made, with this type and code.
    Made {
        /// The ICMP type.
        kind: u8,
        /// The ICMP code.
        code: u8,
    },
    /// The rate limit forbade it.
    Limited,
    /// There was no chunk, or no address to send it from.
    Lost,
}

impl PacketRecord {
    /// What was known after `stage`, if the packet came that far.
    #[must_use]
    pub fn after(&self, stage: Stage) -> Option<&StageRecord> {
        self.stages.iter().find(|record| record.stage == stage)
    }

    /// The stage that dropped the packet; [`Stage::Dispatch`] when its verdict could not be carried
    /// out; none for a packet that was not dropped.
    #[must_use]
    pub fn dropped_by(&self) -> Option<Stage> {
        let Verdict::Drop(reason) = self.verdict else { return None };
        let is_it = |record: &&StageRecord| record.verdict == Verdict::Drop(reason);
        Some(self.stages.iter().find(is_it).map_or(Stage::Dispatch, |record| record.stage))
    }
}

/// Writes records for the batches of one worker.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    /// Of the batch at hand, by position.
    open: Vec<PacketRecord>,
    done: Vec<PacketRecord>,
}

impl Recorder {
    pub(crate) fn take(&mut self) -> Vec<PacketRecord> {
        std::mem::take(&mut self.done)
    }

    pub(crate) fn received(&mut self, batch: &Batch, was_held: bool) {
        self.open = batch
            .frames
            .iter()
            .map(|frame| PacketRecord {
                ingress: frame.ingress(),
                received: frame.bytes().to_vec(),
                was_held,
                stages: Vec::new(),
                route_back: None,
                sender: None,
                owner: None,
                sent: Vec::new(),
                verdict: Verdict::Continue,
                blame: None,
                deeds: Vec::new(),
                edit: PacketEdit::default(),
                complaint: None,
            })
            .collect();
    }

    pub(crate) fn after(
        &mut self,
        stage: Stage,
        batch: &Batch,
        paths: &[Path],
        snapshot: &Snapshot,
    ) {
        let Batch { frames, descriptors, verdicts, .. } = batch;
        let known = frames.iter().zip(descriptors.iter().zip(verdicts.iter()).zip(paths));
        for (record, (frame, ((descriptor, verdict), path))) in self.open.iter_mut().zip(known) {
            let is_over = |last: &StageRecord| matches!(last.verdict, Verdict::Drop(_));
            if record.stages.last().is_some_and(is_over) {
                continue;
            }
            if stage == Stage::Sources
                && sources::is_validated(frame.ingress(), descriptor, snapshot)
            {
                record.route_back = Some(sources::route_back(descriptor, snapshot));
            }
            if stage == Stage::Routes {
                record.steered(frame, descriptor, path, *verdict, snapshot);
            }
            let (descriptor, path, verdict) = (*descriptor, *path, *verdict);
            record.stages.push(StageRecord { stage, descriptor, path, verdict });
        }
    }

    pub(crate) fn complained(&mut self, position: usize, made: Result<&Frame, Silence>) {
        let Some(record) = self.open.get_mut(position) else { return };
        record.complaint = match made {
            Ok(error) => kind_and_code(error),
            Err(Silence::Proper) => None,
            Err(Silence::Limited) => Some(ComplaintRecord::Limited),
            Err(Silence::Lost) => Some(ComplaintRecord::Lost),
        };
    }

    pub(crate) fn leaving(&mut self, batch: &Batch, hook: &impl Hook) {
        let known = batch.frames.iter().zip(batch.verdicts.iter());
        for (position, (record, (frame, verdict))) in self.open.iter_mut().zip(known).enumerate() {
            let is_its = |deed: &&Deed| usize::from(deed.position) == position;
            record.deeds = batch.edits.deeds().iter().filter(is_its).copied().collect();
            record.edit = batch.edits.get(position);
            if matches!(verdict, Verdict::Transmit(_) | Verdict::Punt) {
                record.sent = frame.bytes().to_vec();
            }
            if matches!(verdict, Verdict::Drop(DropReason::Plugin | DropReason::PluginDefault)) {
                record.blame = hook.blame(position);
            }
        }
    }

    pub(crate) fn dispatched(&mut self, verdicts: &[Verdict]) {
        for (mut record, verdict) in self.open.drain(..).zip(verdicts) {
            record.verdict = *verdict;
            if let Verdict::Drop(_) = verdict {
                record.sent.clear();
            }
            self.done.push(record);
        }
    }
}

impl PacketRecord {
    /// Asks again what the look-up asked of the slices, by the same functions.
    fn steered(
        &mut self,
        frame: &Frame,
        descriptor: &Descriptor,
        path: &Path,
        verdict: Verdict,
        snapshot: &Snapshot,
    ) {
        if snapshot.slices.is_empty() {
            return;
        }
        let (source, destination) = ownership::egresses(descriptor, snapshot);
        let find = |egress, end| SliceRecord {
            egress,
            hit: ownership::find_slice(egress, end, frame, descriptor, path, snapshot),
        };
        self.sender = source.map(|egress| find(egress, End::Source));
        let was_refused =
            matches!(verdict, Verdict::Drop(DropReason::SpoofedSource | DropReason::SliceSender));
        if !was_refused && !path.detour.is_taken() {
            self.owner = destination.map(|egress| find(egress, End::Destination));
        }
    }
}

/// Of an error that begins with room for an Ethernet header. Errors of the router have no options or
/// extension headers.
fn kind_and_code(error: &Frame) -> Option<ComplaintRecord> {
    let packet = error.bytes().get(ethernet::HEADER_LEN..)?;
    let header_len = if packet.first()? >> 4 == 6 { 40 } else { 20 };
    let &[kind, code] = packet.get(header_len..)?.first_chunk::<2>()?;
    Some(ComplaintRecord::Made { kind, code })
}
