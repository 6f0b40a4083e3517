//! [`Witness`]: who looks on while a worker handles a batch: taps of a live worker, or the recorder of
//! one that was made to explain. Nobody, as a rule, which costs a branch where it is asked.

use frame::{Batch, Frame, Hook, Nanos, Verdict};
use tables::Snapshot;
use wire::InterfaceId;

use crate::icmp_errors::Silence;
use crate::path::Path;
use crate::record::{PacketRecord, Recorder};
use crate::stages::Stage;
use crate::tap::{Moment, TapReader};

/// Who looks on.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    is_on: bool,
    taps: Option<TapReader>,
    recorder: Option<Box<Recorder>>,
    moment: Moment,
}

impl Witness {
    pub(crate) fn set_taps(&mut self, taps: TapReader) {
        self.taps = Some(taps);
    }

    pub(crate) fn record(&mut self) {
        self.recorder = Some(Box::default());
        self.is_on = true;
    }

    pub(crate) fn take_records(&mut self) -> Vec<PacketRecord> {
        self.recorder.as_mut().map(|recorder| recorder.take()).unwrap_or_default()
    }

    /// A turn begins. Returns whether somebody looks on, if that changed.
    #[inline]
    pub(crate) fn begin_turn(&mut self, now: Nanos, epoch: u64) -> Option<bool> {
        let changed = self.taps.as_mut().is_some_and(TapReader::refresh);
        if changed {
            let taps = self.taps.as_ref().is_some_and(TapReader::is_on);
            self.is_on = taps || self.recorder.is_some();
        }
        if self.is_on {
            self.moment = Moment { now, epoch };
        }
        changed.then_some(self.is_on)
    }

    /// A batch was received, or waited until now.
    #[inline]
    pub(crate) fn received(&mut self, batch: &Batch, was_held: bool) {
        if self.is_on {
            self.see_received(batch, was_held);
        }
    }

    #[cold]
    fn see_received(&mut self, batch: &Batch, was_held: bool) {
        if let Some(taps) = &mut self.taps {
            taps.received(batch, self.moment, was_held);
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.received(batch, was_held);
        }
    }

    /// A stage is over.
    #[inline]
    pub(crate) fn after(
        &mut self,
        stage: Stage,
        batch: &Batch,
        paths: &[Path],
        snapshot: &Snapshot,
    ) {
        if self.is_on {
            self.see_stage(stage, batch, paths, snapshot);
        }
    }

    #[cold]
    fn see_stage(&mut self, stage: Stage, batch: &Batch, paths: &[Path], snapshot: &Snapshot) {
        if let Some(recorder) = &mut self.recorder {
            recorder.after(stage, batch, paths, snapshot);
        }
    }

    /// The sender of a dropped packet is told, or not.
    pub(crate) fn complained(&mut self, position: usize, made: Result<&Frame, Silence>) {
        if let Some(recorder) = &mut self.recorder {
            recorder.complained(position, made);
        }
    }

    /// Every frame of the batch has its verdict, and none has left yet.
    #[inline]
    pub(crate) fn leaving(&mut self, batch: &Batch, originated: bool, hook: &impl Hook) {
        if self.is_on {
            self.see_leaving(batch, originated, hook);
        }
    }

    #[cold]
    fn see_leaving(&mut self, batch: &Batch, originated: bool, hook: &impl Hook) {
        if let Some(taps) = &mut self.taps {
            taps.leaving(batch, originated, self.moment, hook);
        }
        if let (Some(recorder), false) = (&mut self.recorder, originated) {
            recorder.leaving(batch, hook);
        }
    }

    /// Every frame of the batch has met its end, which `verdicts` says.
    #[inline]
    pub(crate) fn dispatched(&mut self, verdicts: &[Verdict], originated: bool) {
        if self.is_on {
            self.see_dispatched(verdicts, originated);
        }
    }

    #[cold]
    fn see_dispatched(&mut self, verdicts: &[Verdict], originated: bool) {
        if let Some(taps) = &mut self.taps {
            taps.dispatched(verdicts);
        }
        if let (Some(recorder), false) = (&mut self.recorder, originated) {
            recorder.dispatched(verdicts);
        }
    }

    /// A frame that the router made leaves by `egress`, outside of any batch, if `send` succeeds.
    pub(crate) fn sent_alone<E>(
        &mut self,
        frame: Frame,
        egress: InterfaceId,
        send: impl FnOnce(Frame) -> Result<(), E>,
    ) -> Result<(), E> {
        let taps = self.taps.as_mut().filter(|taps| taps.is_on());
        let Some(taps) = taps else { return send(frame) };
        let moment = self.moment;
        taps.copy_alone(&frame, egress, moment);
        let sent = send(frame);
        taps.settle_alone(sent.is_ok());
        sent
    }
}
