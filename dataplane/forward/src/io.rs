//! [`Io`]: a worker's rings, free chunks and counters, and the ends that a frame can meet there. Each
//! way to end a frame counts it, under the interface that received it.

use std::sync::Arc;

use crossbeam::channel::Sender;
use frame::{Descriptor, DropReason, Frame, Nanos, Pool, QueueIo};
use tables::Snapshot;
use wire::{IpVersion, ethernet};

use crate::Neighbor;
use crate::bucket::Bucket;
use crate::counters::WorkerCounters;
use crate::fragments::{self, Tracker};
use crate::handoff::Handoff;
use crate::path::Path;
use crate::punt::PuntSender;
use crate::witness::Witness;

/// The worker's rings, its free chunks and its counters: what dispatch needs.
#[derive(Debug)]
pub(crate) struct Io<Q> {
    pub(crate) queues: Vec<Q>,
    pub(crate) pool: Pool,
    pub(crate) punt: Option<PuntSender>,
    pub(crate) handoff: Option<Handoff>,
    pub(crate) wanted: Sender<Neighbor>,
    pub(crate) counters: Arc<WorkerCounters>,
    pub(crate) split_limit: Bucket,
}

/// What the frames of a dispatched batch are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Received,
    Originated,
}

impl<Q: QueueIo> Io<Q> {
    #[inline]
    pub(crate) fn reclaim_and_refill(&mut self) {
        for queue in &mut self.queues {
            queue.reclaim(&mut self.pool);
        }
        if let Some(punt) = &mut self.punt {
            punt.reclaim(&mut self.pool);
        }
        if let Some(handoff) = &mut self.handoff {
            handoff.reclaim(&mut self.pool);
        }
        for queue in &mut self.queues {
            queue.refill(&mut self.pool);
        }
    }

    #[inline]
    pub(crate) fn flush(&mut self) {
        for queue in &mut self.queues {
            queue.flush();
        }
        if let Some(punt) = &mut self.punt {
            punt.flush();
        }
        if let Some(handoff) = &mut self.handoff {
            handoff.flush();
        }
    }

    #[inline]
    pub(crate) fn has_mail(&self) -> bool {
        self.handoff.as_ref().is_some_and(Handoff::has_mail)
    }

    /// Gives a frame to the worker that finishes it.
    #[cold]
    pub(crate) fn hand_over(&mut self, frame: Frame, worker: u16) -> Result<(), DropReason> {
        let ingress = frame.ingress().index();
        let handed = match &mut self.handoff {
            Some(handoff) => handoff.hand_over(frame, worker),
            None => Err(frame),
        };
        if let Err(frame) = handed {
            self.drop_frame(frame, DropReason::HandoffFull);
            return Err(DropReason::HandoffFull);
        }
        if let Some(counters) = self.counters.interfaces.get(ingress) {
            counters.handed_over.add(1);
        }
        Ok(())
    }

    /// Makes a fragment wait for its first.
    #[cold]
    pub(crate) fn keep_fragment(
        &mut self,
        frame: Frame,
        descriptor: &Descriptor,
        fragments: &mut Tracker,
        snapshot: &Snapshot,
    ) -> Result<(), DropReason> {
        let ingress = frame.ingress().index();
        let kept = match fragments::header::read(&frame, descriptor) {
            Ok(piece) => fragments.keep(frame, &piece.key, &snapshot.fragments),
            Err(reason) => Err((frame, reason)),
        };
        match kept {
            Ok(()) => {
                if let Some(counters) = self.counters.interfaces.get(ingress) {
                    counters.held.add(1);
                }
                Ok(())
            }
            Err((frame, reason)) => {
                self.drop_frame(frame, reason);
                Err(reason)
            }
        }
    }

    #[cold]
    pub(crate) fn no_longer_held(&self, frame: &Frame) {
        if let Some(counters) = self.counters.interfaces.get(frame.ingress().index()) {
            counters.held.set(counters.held.get().saturating_sub(1));
        }
    }

    /// One kick for a full ring, then the frame is given back.
    #[inline]
    pub(crate) fn transmit(
        &mut self,
        egress: wire::InterfaceId,
        frame: Frame,
    ) -> Result<(), Frame> {
        let Some(queue) = self.queues.get_mut(egress.index()) else { return Err(frame) };
        match queue.transmit(frame) {
            Ok(()) => Ok(()),
            Err(frame) => {
                queue.flush();
                queue.reclaim(&mut self.pool);
                queue.transmit(frame)
            }
        }
    }

    #[inline]
    pub(crate) fn count_steering(&self, ingress: usize, path: &Path) {
        if !path.delivered && path.encapsulate.is_none() {
            return;
        }
        if let Some(counters) = self.counters.interfaces.get(ingress) {
            counters.delivered.add(u64::from(path.delivered));
            counters.to_owner.add(u64::from(path.encapsulate.is_some()));
        }
    }

    /// Hands a frame to the kernel, within its rate a second. Otherwise it is dropped for the reason
    /// that is returned.
    pub(crate) fn punt(
        &mut self,
        frame: Frame,
        origin: Origin,
        path: &Path,
        (per_s, now): (u32, Nanos),
    ) -> Result<(), DropReason> {
        let ingress = frame.ingress().index();
        let Some(punt) = &mut self.punt else {
            self.refuse(frame, origin, DropReason::PuntRefused);
            return Err(DropReason::PuntRefused);
        };
        match (punt.send(frame, per_s, now), origin) {
            (Ok(()), Origin::Received) => {
                if let Some(counters) = self.counters.interfaces.get(ingress) {
                    counters.to_kernel.add(1);
                }
                self.count_steering(ingress, path);
            }
            (Ok(()), Origin::Originated) => {
                if let Some(counters) = self.counters.interfaces.get(ingress) {
                    counters.originated_to_kernel.add(1);
                }
            }
            (Err((frame, reason)), _) => {
                self.refuse(frame, origin, reason);
                return Err(reason);
            }
        }
        Ok(())
    }

    /// Ends a frame that does not go on.
    #[inline]
    pub(crate) fn refuse(&mut self, frame: Frame, origin: Origin, reason: DropReason) {
        match origin {
            Origin::Received => self.drop_frame(frame, reason),
            Origin::Originated => self.lose_originated(frame),
        }
    }

    #[inline]
    pub(crate) fn drop_frame(&mut self, frame: Frame, reason: DropReason) {
        if let Some(counters) = self.counters.interfaces.get(frame.ingress().index()) {
            counters.drop(reason);
        }
        self.give_home(frame);
    }

    pub(crate) fn lose_originated(&mut self, frame: Frame) {
        if let Some(counters) = self.counters.interfaces.get(frame.ingress().index()) {
            counters.originated_lost.add(1);
        }
        self.give_home(frame);
    }

    #[inline]
    pub(crate) fn give_home(&mut self, frame: Frame) {
        self.pool.give(frame);
    }

    /// Sends `error` back the way that `original` came.
    pub(crate) fn reflect(
        &mut self,
        mut error: Frame,
        original: &Frame,
        snapshot: &Snapshot,
        witness: &mut Witness,
    ) {
        let ingress = original.ingress();
        let back = ethernet::source(original.bytes()).zip(snapshot.interface(ingress));
        let first = error.bytes().get(ethernet::HEADER_LEN).copied().unwrap_or_default();
        let ethertype = match IpVersion::of_first_byte(first) {
            Some(IpVersion::V6) => ethernet::ETHERTYPE_IPV6,
            _ => ethernet::ETHERTYPE_IPV4,
        };
        let written = match (back, error.bytes_mut().first_chunk_mut()) {
            // A sender that claims a group address as its own gets no answer, which many would hear.
            (Some((station, interface)), Some(header)) if !station.is_multicast() => {
                ethernet::write_header(header, station, interface.mac, ethertype);
                true
            }
            _ => false,
        };
        let len = error.len();
        let sent = if written {
            witness.sent_alone(error, ingress, |error| self.transmit(ingress, error))
        } else {
            Err(error)
        };
        match sent {
            Ok(()) => {
                let mut run = Run::default();
                run.add(&self.counters, Origin::Originated, ingress.0, ingress.0, len);
                run.settle(&self.counters, Origin::Originated);
            }
            Err(frame) => self.lose_originated(frame),
        }
    }
}

/// Transmitted frames that share both interfaces, counted in one go: frames come in runs, and adding
/// up in registers is cheaper than in memory.
#[derive(Default)]
pub(crate) struct Run {
    ingress: u8,
    egress: u8,
    packets: u64,
    bytes: u64,
}

impl Run {
    #[inline]
    pub(crate) fn add(
        &mut self,
        counters: &WorkerCounters,
        origin: Origin,
        ingress: u8,
        egress: u8,
        len: usize,
    ) {
        if (self.ingress, self.egress) != (ingress, egress) {
            self.settle(counters, origin);
            *self = Self { ingress, egress, packets: 0, bytes: 0 };
        }
        self.packets += 1;
        self.bytes += len as u64;
    }

    #[inline]
    pub(crate) fn settle(&self, counters: &WorkerCounters, origin: Origin) {
        if self.packets == 0 {
            return;
        }
        if let Some(egress) = counters.interfaces.get(usize::from(self.egress)) {
            egress.tx_packets.add(self.packets);
            egress.tx_bytes.add(self.bytes);
            if origin == Origin::Originated {
                egress.originated.add(self.packets);
            }
        }
        if origin == Origin::Received
            && let Some(ingress) = counters.interfaces.get(usize::from(self.ingress))
        {
            ingress.forwarded.add(self.packets);
        }
    }
}
