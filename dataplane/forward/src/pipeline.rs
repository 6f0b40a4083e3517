//! [`Pipeline`]: the stages of a turn, in their order.

use frame::{
    Batch, Descriptor, DropReason, Frame, Hook, HookPoint, Nanos, PacketEdit, QueueIo, Verdict,
};
use sluice_abi::flags;
use tables::Snapshot;
use wire::{IpVersion, ethernet};

use crate::account;
use crate::detour;
use crate::edits;
use crate::fragments::{self, First, Tracker};
use crate::handoff::Handoff;
use crate::hold::{Held, Hold};
use crate::icmp_errors::{Dropped, IcmpErrors, Silence};
use crate::io::{Io, Origin, Run};
use crate::lookup::Lookup;
use crate::path::{Path, Paths};
use crate::punt::PuntSender;
use crate::sources::Sources;
use crate::stages::{Stage, Stopwatch};
use crate::witness::Witness;
use crate::{Sampler, decap, icmp_errors, parse, rewrite};

/// How often, in turns, the levels (free frames and the like) are written for readers. More often
/// costs the packet path, less often makes a status stale; at a million turns a second, 1024 is a
/// millisecond.
const LEVELS_EVERY_TURNS: u64 = 1024;

/// What a turn works on: all of a worker but the snapshot, which a turn borrows from the worker's reader.
/// An [`Arc`](std::sync::Arc) of it for each turn would write to a word that all workers share.
#[derive(Debug)]
pub(crate) struct Pipeline<Q, H> {
    pub(crate) io: Io<Q>,
    pub(crate) hook: H,
    pub(crate) batch: Batch,
    pub(crate) paths: Paths,
    pub(crate) originated: Vec<Frame>,
    pub(crate) sources: Sources,
    pub(crate) lookup: Lookup,
    pub(crate) hold: Hold,
    pub(crate) fragments: Tracker,
    /// What the first fragments of released ones said, by position in the batch.
    pub(crate) firsts: Vec<First>,
    pub(crate) icmp: IcmpErrors,
    pub(crate) watch: Stopwatch,
    pub(crate) witness: Witness,
    pub(crate) sampler: Option<Sampler>,
    pub(crate) turns: u64,
    pub(crate) first_queue: usize,
    pub(crate) batch_frames: usize,
}

/// Where the frames of a batch come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Arrival {
    /// From the receive rings.
    Received,
    /// From another worker, which received them.
    HandedOver,
    /// They waited for their first fragment, on this worker.
    Released,
}

impl<Q: QueueIo, H: Hook> Pipeline<Q, H> {
    /// One turn under `snapshot`, which may have `changed` since the last one. Returns how many frames came.
    #[inline]
    pub(crate) fn turn(&mut self, snapshot: &Snapshot, changed: bool, now: Nanos) -> usize {
        if changed {
            self.hook.tables_are_of(snapshot.configuration);
            self.batch.edits.known = edits::known(&snapshot.actions);
        }
        self.hook.begin_turn(now);
        if let Some(is_watched) = self.witness.begin_turn(now, snapshot.epoch) {
            self.hook.watch(is_watched);
        }
        self.watch.start();
        self.io.reclaim_and_refill();
        self.watch.lap(Stage::Reclaim);
        // Before what comes now, so that a flow's packets leave in their order.
        if changed || self.hold.is_due(now) {
            self.release_held(snapshot, now);
        }
        if self.fragments.is_due(now) {
            self.fragments.expire(now);
            self.drop_doomed();
        }
        let received = self.receive();
        self.watch.lap(Stage::Receive);
        if received > 0 {
            if let Some(sampler) = &mut self.sampler {
                sampler.received(&self.batch.frames, now);
            }
            self.process(Arrival::Received, snapshot, now);
        }
        let taken_over = if self.io.has_mail() { self.take_over(snapshot, now) } else { 0 };
        self.io.flush();
        self.watch.lap(Stage::Flush);
        self.watch.commit(received, &self.io.counters.stages);
        self.turns += 1;
        if self.turns.is_multiple_of(LEVELS_EVERY_TURNS) || changed {
            self.publish_levels(snapshot.epoch);
        }
        if received > 0 {
            self.io.counters.busy_turns.add(1);
        }
        self.io.counters.turns.add(1);
        received + taken_over
    }

    /// Takes what other workers handed over, at most a batch, and gives it its verdicts. Returns how many.
    #[cold]
    #[inline(never)]
    fn take_over(&mut self, snapshot: &Snapshot, now: Nanos) -> usize {
        let Self { io, batch, .. } = self;
        while batch.room() > 0 {
            let Some(frame) = io.handoff.as_mut().and_then(Handoff::take) else { break };
            if let Some(counters) = io.counters.interfaces.get(frame.ingress().index()) {
                counters.taken_over.add(1);
            }
            if let Err(frame) = batch.push(frame) {
                io.drop_frame(frame, DropReason::HandoffFull);
            }
        }
        let count = self.batch.len();
        self.process(Arrival::HandedOver, snapshot, now);
        count
    }

    /// RX to batch. The queue that comes first changes from turn to turn, so that a full one cannot
    /// starve the others.
    #[inline]
    fn receive(&mut self) -> usize {
        let Self { io, batch, first_queue, batch_frames, .. } = self;
        let count = io.queues.len();
        for step in 0..count {
            let position = (*first_queue + step) % count;
            let Some(queue) = io.queues.get_mut(position) else { continue };
            let before = batch.len();
            let room = batch_frames.saturating_sub(before);
            if room == 0 {
                break;
            }
            let received = queue.receive(batch, &mut io.pool, room);
            if received == 0 {
                continue;
            }
            if let Some(counters) = io.counters.interfaces.get(position) {
                let bytes: usize = batch.frames.iter().skip(before).map(Frame::len).sum();
                counters.rx_packets.add(received as u64);
                counters.rx_bytes.add(bytes as u64);
            }
        }
        *first_queue = if *first_queue + 1 >= count { 0 } else { *first_queue + 1 };
        self.batch.len()
    }

    /// The stages of DESIGN's turn, in their order.
    #[inline]
    fn process(&mut self, arrival: Arrival, snapshot: &Snapshot, now: Nanos) {
        let has_fragments = self.judge(arrival, snapshot, now);
        if has_fragments {
            self.fragments.end_batch();
            self.process_released(snapshot, now);
        }
    }

    /// One batch through all stages. Returns whether a fragment of a packet that is followed was in it.
    #[inline]
    fn judge(&mut self, arrival: Arrival, snapshot: &Snapshot, now: Nanos) -> bool {
        let count = self.batch.len();
        if let Some(paths) = self.paths.get_mut(..count) {
            paths.fill(Path::default());
        }
        self.witness.received(&self.batch, arrival != Arrival::Received);
        let mut seen = parse::run(&mut self.batch, snapshot);
        self.watch.lap(Stage::Parse);
        self.seen(Stage::Parse, snapshot);
        // Another worker, or this one when it received them, has asked about the others.
        if snapshot.validates_sources && arrival == Arrival::Received {
            self.sources.run(&mut self.batch, snapshot);
            self.watch.lap(Stage::Sources);
            self.seen(Stage::Sources, snapshot);
        }
        if !snapshot.peers.is_empty() {
            let counters = (arrival == Arrival::Received).then_some(&*self.io.counters);
            seen |= decap::run(&mut self.batch, &mut *self.paths, snapshot, counters);
        }
        let has_fragments = seen & flags::FRAGMENT != 0 && !snapshot.slices.is_empty();
        if has_fragments {
            self.follow_fragments(arrival, snapshot, now);
        }
        self.watch.lap(Stage::Decap);
        self.seen(Stage::Decap, snapshot);
        self.call_hook(HookPoint::Ingress, now);
        self.watch.lap(Stage::Ingress);
        self.seen(Stage::Ingress, snapshot);
        self.lookup.run(
            &mut self.batch,
            &mut *self.paths,
            snapshot,
            Origin::Received,
            &mut self.watch,
        );
        self.seen(Stage::Routes, snapshot);
        self.call_hook(HookPoint::Forward, now);
        self.watch.lap(Stage::Forward);
        if self.batch.edits.is_touched() {
            detour::redirect(&mut self.batch, &mut *self.paths, snapshot);
            edits::carry_out(&mut self.batch, &*self.paths, snapshot);
        }
        self.seen(Stage::Forward, snapshot);
        rewrite::run(&mut self.batch, &mut *self.paths, snapshot);
        self.watch.lap(Stage::Rewrite);
        self.seen(Stage::Rewrite, snapshot);
        self.call_hook(HookPoint::Egress, now);
        self.watch.lap(Stage::Egress);
        self.seen(Stage::Egress, snapshot);
        self.complain(snapshot, now);
        self.watch.lap(Stage::Icmp);
        self.dispatch(Origin::Received, snapshot, now);
        self.watch.lap(Stage::Dispatch);
        self.send_originated(snapshot, now);
        self.watch.lap(Stage::Icmp);
        has_fragments
    }

    /// Fragments to and from shared addresses: to the worker that follows their packet, or after its first.
    #[cold]
    fn follow_fragments(&mut self, arrival: Arrival, snapshot: &Snapshot, now: Nanos) {
        let Self { batch, paths, fragments, io, firsts, .. } = self;
        if arrival == Arrival::Released {
            let notes = batch.descriptors.iter_mut().zip(paths.iter_mut());
            for (first, (descriptor, path)) in firsts.drain(..).zip(notes) {
                fragments::follow(first, descriptor, path);
            }
            return;
        }
        let handoff = io.handoff.as_ref().filter(|_| arrival == Arrival::Received);
        fragments::run(batch, &mut **paths, fragments, handoff, snapshot, now);
        self.drop_doomed();
    }

    /// What waited for a first fragment that came in the batch before goes on, in batches of its own.
    #[cold]
    #[inline(never)]
    fn process_released(&mut self, snapshot: &Snapshot, now: Nanos) {
        while self.fragments.has_ready() {
            let Self { batch, fragments, io, firsts, .. } = self;
            firsts.clear();
            while batch.room() > 0 {
                let Some((frame, first)) = fragments.take_ready() else { break };
                io.no_longer_held(&frame);
                match batch.push(frame) {
                    Ok(()) => firsts.push(first),
                    Err(frame) => io.drop_frame(frame, DropReason::FragmentFull),
                }
            }
            self.judge(Arrival::Released, snapshot, now);
        }
    }

    /// Drops what waited for a first fragment in vain.
    fn drop_doomed(&mut self) {
        while let Some((frame, reason)) = self.fragments.take_doomed() {
            self.io.no_longer_held(&frame);
            self.io.drop_frame(frame, reason);
        }
    }

    /// Shows a stage's outcome to whoever looks on.
    #[inline]
    fn seen(&mut self, stage: Stage, snapshot: &Snapshot) {
        self.witness.after(stage, &self.batch, &*self.paths, snapshot);
    }

    #[inline]
    fn call_hook(&mut self, point: HookPoint, now: Nanos) {
        if self.hook.is_active(point) {
            self.hook.run(point, &mut self.batch, now);
        }
    }

    /// Makes the ICMP errors for those frames of the batch that were dropped for a reason which
    /// their senders are to be told, and for those that tell of such drops in a tunnel.
    #[inline]
    fn complain(&mut self, snapshot: &Snapshot, now: Nanos) {
        let count = self.batch.len();
        let dropped = |verdict: &Verdict| matches!(verdict, Verdict::Drop(_) | Verdict::Consumed);
        if self.batch.verdicts.iter().take(count).any(dropped) {
            for position in 0..count {
                self.complain_about(position, snapshot, now);
            }
        }
    }

    #[cold]
    fn complain_about(&mut self, position: usize, snapshot: &Snapshot, now: Nanos) {
        let Self { batch, paths, icmp, io, originated, witness, .. } = self;
        let (Some(frame), Some(descriptor), Some(verdict), Some(path)) = (
            batch.frames.get(position),
            batch.descriptors.get(position),
            batch.verdicts.get(position),
            paths.get(position),
        ) else {
            return;
        };
        let reason = match (verdict, path.told) {
            (Verdict::Drop(reason), _) => *reason,
            (Verdict::Consumed, Some(reason)) => reason,
            _ => return,
        };
        // The sender's own address names a slice that is not its own: the one way back is the one that
        // the packet came, and through a tunnel there is none. Routed, the error would reach the owner.
        let is_reflected = reason == DropReason::SliceSender;
        if is_reflected && path.decapsulated.is_some() {
            return;
        }
        let about = Dropped { frame, descriptor, reason, mtu: path.mtu };
        let made = icmp.originate(&about, snapshot, &mut io.pool, now);
        witness.complained(position, made.as_ref().map_err(|silence| *silence));
        let Some(counters) = io.counters.interfaces.get(frame.ingress().index()) else { return };
        match made {
            Ok(error) if is_reflected => io.reflect(error, frame, snapshot, witness),
            Ok(error) => originated.push(error),
            Err(Silence::Proper) => {}
            Err(Silence::Limited) => counters.icmp_limited.add(1),
            Err(Silence::Lost) => counters.originated_lost.add(1),
        }
    }

    /// Routes and sends what the router made itself. Called with an empty batch.
    fn send_originated(&mut self, snapshot: &Snapshot, now: Nanos) {
        if self.originated.is_empty() {
            return;
        }
        let Self { batch, paths, originated, io, .. } = self;
        for frame in originated.drain(..) {
            let position = batch.len();
            let (Some(descriptor), Some(path)) =
                (batch.descriptors.get_mut(position), paths.get_mut(position))
            else {
                io.lose_originated(frame);
                continue;
            };
            *path = Path { originated: true, ..Path::default() };
            *descriptor =
                Descriptor { ingress: u16::from(frame.ingress().0), ..Default::default() };
            let first = frame.bytes().get(ethernet::HEADER_LEN).copied().unwrap_or_default();
            let parsed = match IpVersion::of_first_byte(first) {
                Some(IpVersion::V6) => parse::packet_v6(
                    frame.bytes(),
                    ethernet::HEADER_LEN,
                    0,
                    snapshot.rules,
                    descriptor,
                ),
                _ => parse::packet_v4(
                    frame.bytes(),
                    ethernet::HEADER_LEN,
                    0,
                    snapshot.rules,
                    descriptor,
                ),
            };
            let pushed = match parsed {
                Ok(()) => batch.push(frame),
                Err(_) => Err(frame),
            };
            if let Err(frame) = pushed {
                io.lose_originated(frame);
            }
        }
        self.lookup.run(
            &mut self.batch,
            &mut *self.paths,
            snapshot,
            Origin::Originated,
            &mut self.watch,
        );
        let Batch { frames, descriptors, .. } = &mut self.batch;
        for ((frame, descriptor), path) in
            frames.iter_mut().zip(descriptors.iter()).zip(&*self.paths)
        {
            if let Some(egress) = path.egress(snapshot) {
                icmp_errors::leave_by(frame, descriptor, egress);
            }
        }
        rewrite::run(&mut self.batch, &mut *self.paths, snapshot);
        self.dispatch(Origin::Originated, snapshot, now);
    }

    /// Gives another chance to frames whose next hop is no longer being resolved, and drops those
    /// whose time is up.
    #[cold]
    fn release_held(&mut self, snapshot: &Snapshot, now: Nanos) {
        while self.take_settled(Origin::Received, snapshot, now) > 0 {
            self.witness.received(&self.batch, true);
            // What ingress and forward plugins said of these frames they said before.
            self.lookup.run(
                &mut self.batch,
                &mut *self.paths,
                snapshot,
                Origin::Received,
                &mut self.watch,
            );
            self.seen(Stage::Routes, snapshot);
            if self.batch.edits.is_touched() {
                edits::carry_out(&mut self.batch, &*self.paths, snapshot);
            }
            rewrite::run(&mut self.batch, &mut *self.paths, snapshot);
            self.seen(Stage::Rewrite, snapshot);
            self.call_hook(HookPoint::Egress, now);
            self.seen(Stage::Egress, snapshot);
            self.complain(snapshot, now);
            self.dispatch(Origin::Received, snapshot, now);
            self.send_originated(snapshot, now);
        }
        while self.take_settled(Origin::Originated, snapshot, now) > 0 {
            self.lookup.run(
                &mut self.batch,
                &mut *self.paths,
                snapshot,
                Origin::Originated,
                &mut self.watch,
            );
            rewrite::run(&mut self.batch, &mut *self.paths, snapshot);
            self.dispatch(Origin::Originated, snapshot, now);
        }
    }

    /// Moves settled frames of one origin from the hold to the batch, which is empty. Returns how many.
    fn take_settled(&mut self, origin: Origin, snapshot: &Snapshot, now: Nanos) -> usize {
        let is_originated = origin == Origin::Originated;
        while self.batch.room() > 0 {
            let settled = self.hold.pop_settled(is_originated, snapshot, now);
            let Some((held, timed_out)) = settled else { break };
            let Held { frame, descriptor, path, edit, came_from, .. } = held;
            // Positions of far ends are those of the snapshot that the frame waited under.
            let decapsulated = came_from.and_then(|address| snapshot.peer_at(address));
            let is_forsaken = came_from.is_some() && decapsulated.is_none();
            if origin == Origin::Received {
                self.io.no_longer_held(&frame);
            }
            let position = self.batch.len();
            if let Err(frame) = self.batch.push(frame) {
                self.io.refuse(frame, origin, DropReason::HoldFull);
                break;
            }
            if let (Some(known), Some(note), Some(verdict)) = (
                self.batch.descriptors.get_mut(position),
                self.paths.get_mut(position),
                self.batch.verdicts.get_mut(position),
            ) {
                *known = descriptor;
                // Where it goes is looked up anew.
                let Path { originated, follows_first, .. } = path;
                *note = Path { decapsulated, originated, follows_first, ..Path::default() };
                if edit != PacketEdit::default() {
                    self.batch.edits.change(position, |entry| *entry = edit);
                }
                if is_forsaken {
                    *verdict = Verdict::Drop(DropReason::TunnelUnknownPeer);
                } else if timed_out {
                    *verdict = Verdict::Drop(DropReason::HoldTimeout);
                }
            }
        }
        self.batch.len()
    }

    /// Gives every frame of the batch what its verdict says, and leaves the batch empty.
    #[inline]
    fn dispatch(&mut self, origin: Origin, snapshot: &Snapshot, now: Nanos) {
        let Self { io, batch, paths, hold, fragments, witness, hook, .. } = self;
        witness.leaving(batch, origin == Origin::Originated, hook);
        let mut run = Run::default();
        let count = batch.len();
        let Batch { frames, descriptors, verdicts, edits, .. } = batch;
        let notes = descriptors.iter().zip(verdicts.iter_mut()).zip(paths.iter());
        for (position, (frame, ((descriptor, verdict), path))) in
            frames.drain(..).zip(notes).enumerate()
        {
            match *verdict {
                Verdict::Transmit(egress) => {
                    let (ingress, len) = (frame.ingress(), frame.len());
                    match io.transmit(egress, frame) {
                        Ok(()) => {
                            run.add(&io.counters, origin, ingress.0, egress.0, len);
                            if origin == Origin::Received {
                                io.count_steering(ingress.index(), path);
                            }
                        }
                        Err(frame) => {
                            *verdict = Verdict::Drop(DropReason::TransmitFull);
                            io.refuse(frame, origin, DropReason::TransmitFull);
                        }
                    }
                }
                Verdict::Drop(reason) => io.refuse(frame, origin, reason),
                Verdict::Punt => {
                    let limit = (snapshot.punt_packets_per_s, now);
                    if let Err(reason) = io.punt(frame, origin, path, limit) {
                        *verdict = Verdict::Drop(reason);
                    }
                }
                Verdict::Hold => {
                    let ingress = frame.ingress().index();
                    let notes = (descriptor, *path, edits.get(position));
                    match hold.push(frame, notes, snapshot, now) {
                        Ok(first) => {
                            if let Some(neighbor) = first {
                                // A full queue means that many are being resolved already; a
                                // frame that comes when this one's time is up asks again.
                                let _full = io.wanted.try_send(neighbor);
                            }
                            // What the router made itself was never received.
                            if origin == Origin::Received
                                && let Some(counters) = io.counters.interfaces.get(ingress)
                            {
                                counters.held.add(1);
                            }
                        }
                        Err((frame, reason)) => {
                            *verdict = Verdict::Drop(reason);
                            io.refuse(frame, origin, reason);
                        }
                    }
                }
                Verdict::Fragment(_) => {
                    let world = (snapshot, now);
                    if let Err(reason) =
                        io.transmit_in_fragments(frame, origin, descriptor, path, world)
                    {
                        *verdict = Verdict::Drop(reason);
                    }
                }
                Verdict::Handoff => {
                    if let Err(reason) = io.hand_over(frame, path.worker) {
                        *verdict = Verdict::Drop(reason);
                    }
                }
                Verdict::Wait => {
                    if let Err(reason) = io.keep_fragment(frame, descriptor, fragments, snapshot) {
                        *verdict = Verdict::Drop(reason);
                    }
                }
                Verdict::Consumed => {
                    if let Some(counters) = io.counters.interfaces.get(frame.ingress().index()) {
                        counters.consumed.add(1);
                    }
                    io.give_home(frame);
                }
                // No stage leaves a frame undecided; should one, it is counted rather than lost.
                Verdict::Continue => io.refuse(frame, origin, DropReason::NoRoute),
            }
        }
        run.settle(&io.counters, origin);
        witness.dispatched(&**verdicts, origin == Origin::Originated);
        if batch.edits.is_touched() && origin == Origin::Received {
            account::count(batch, count, &**paths, &io.counters.actions);
        }
        batch.edits.reset();
    }

    /// Writes the levels for readers on other threads, and the number of the snapshot in force.
    pub(crate) fn publish_levels(&self, epoch: u64) {
        let Self { io, hold, fragments, .. } = self;
        let counters = &io.counters;
        let (mut receiving, mut transmitting, mut kicks) = (0, 0, 0);
        for queue in &io.queues {
            let status = queue.status();
            receiving += status.receiving;
            transmitting += status.transmitting;
            kicks += status.kicks;
        }
        counters.frames_free.set(io.pool.free() as u64);
        counters.frames_receiving.set(receiving as u64);
        counters.frames_transmitting.set(transmitting as u64);
        counters.frames_held.set((hold.len() + fragments.frames()) as u64);
        counters.frames_away.set(io.handoff.as_ref().map_or(0, Handoff::away) as u64);
        counters.frames_punting.set(io.punt.as_ref().map_or(0, PuntSender::away) as u64);
        counters.kicks.set(kicks);
        counters.epoch.set(epoch);
    }
}
