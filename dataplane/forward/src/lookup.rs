//! Where a packet goes: slices first, then the FIB, then the adjacency, each for the whole batch.
//!
//! ```text
//!               source in an egress prefix? -- may this sender use it? --+
//!                                                                       v
//!  destination in an egress prefix? -- slice -> owner:  local  -> kernel or workload
//!          | no                                         node   -> tunnel to that node
//!          v                                            site   -> tunnel to that site
//!         FIB -> next-hop group -> adjacency
//! ```

use frame::{BATCH_MAX, Batch, Descriptor, DropReason, Frame, Verdict};
use sluice_abi::{direction, flags};
use tables::{EgressId, RouteId, SliceHit, SliceKey, Snapshot};

use crate::address::{ip, v4_bits, v6_bits};
use crate::detour;
use crate::io::Origin;
use crate::ownership::{self, Steering, admit, deliver, egresses};
use crate::path::{Next, Path};
use crate::resolve::{leads_to_one, outwards, resolve, resolve_to};
use crate::stages::{Stage, Stopwatch};

/// Lists of positions that wait for the same kind of look-up, kept between turns for their memory.
#[derive(Debug)]
pub(crate) struct Lookup {
    /// Packets with ports that have an end in an egress prefix, and the slices they ask for: for each the
    /// source's, then the destination's.
    shared: Vec<Shared>,
    keys: Vec<SliceKey>,
    hits: Vec<SliceHit>,
    /// Packets that go by the tables.
    routed: Routed,
    /// Packets that go into tunnels, whose routes are known.
    positions_through: Vec<u16>,
    routes_through: Vec<RouteId>,
}

/// A packet whose ends, one or both, are in egress prefixes.
#[derive(Clone, Copy, Debug)]
struct Shared {
    position: u16,
    source: bool,
    destination: bool,
}

/// Packets whose destinations are looked up in the tables.
#[derive(Debug)]
struct Routed {
    positions4: Vec<u16>,
    destinations4: Vec<u32>,
    positions6: Vec<u16>,
    destinations6: Vec<u128>,
    routes: Box<[RouteId; BATCH_MAX]>,
}

impl Routed {
    fn clear(&mut self) {
        self.positions4.clear();
        self.destinations4.clear();
        self.positions6.clear();
        self.destinations6.clear();
    }

    #[inline(always)]
    fn push(
        &mut self,
        position: u16,
        descriptor: &Descriptor,
        verdict: &mut Verdict,
        snapshot: &Snapshot,
    ) {
        // RFC 1812 section 5.3.7. Two slices of one shared address may talk to each other; no other
        // address is both ends of a packet on a wire.
        if descriptor.source == descriptor.destination {
            *verdict = Verdict::Drop(DropReason::MartianSource);
        } else if descriptor.flags & flags::IPV6 == 0 {
            let destination = v4_bits(&descriptor.destination);
            // The miss passes while the rest of the batch is steered.
            snapshot.fib4.prefetch(destination);
            self.positions4.push(position);
            self.destinations4.push(destination);
        } else {
            self.positions6.push(position);
            self.destinations6.push(v6_bits(&descriptor.destination));
        }
    }
}

impl Lookup {
    pub(crate) fn new() -> Self {
        Self {
            shared: Vec::with_capacity(BATCH_MAX),
            keys: Vec::with_capacity(2 * BATCH_MAX),
            hits: Vec::with_capacity(2 * BATCH_MAX),
            routed: Routed {
                positions4: Vec::with_capacity(BATCH_MAX),
                destinations4: Vec::with_capacity(BATCH_MAX),
                positions6: Vec::with_capacity(BATCH_MAX),
                destinations6: Vec::with_capacity(BATCH_MAX),
                routes: Box::new([RouteId::NONE; BATCH_MAX]),
            },
            positions_through: Vec::with_capacity(BATCH_MAX),
            routes_through: Vec::with_capacity(BATCH_MAX),
        }
    }

    /// Decides for every open frame of the batch either an adjacency or a verdict.
    #[inline]
    pub(crate) fn run(
        &mut self,
        batch: &mut Batch,
        paths: &mut [Path],
        snapshot: &Snapshot,
        origin: Origin,
        watch: &mut Stopwatch,
    ) {
        self.shared.clear();
        self.keys.clear();
        self.routed.clear();
        self.positions_through.clear();
        self.routes_through.clear();
        if batch.edits.is_touched() {
            self.steer::<true>(batch, paths, snapshot, origin);
        } else {
            self.steer::<false>(batch, paths, snapshot, origin);
        }
        if !self.shared.is_empty() {
            self.steer_shared(batch, paths, snapshot);
        }
        watch.lap(Stage::Slices);
        self.route(batch, paths, snapshot);
        watch.lap(Stage::Routes);
    }

    /// Slices: who may send, and who owns. `HAS_EDITS`: plugins may have set where some packets go.
    fn steer<const HAS_EDITS: bool>(
        &mut self,
        batch: &mut Batch,
        paths: &mut [Path],
        snapshot: &Snapshot,
        origin: Origin,
    ) {
        let Batch { frames, descriptors, verdicts, edits, .. } = batch;
        let has_slices = !snapshot.slices.is_empty();
        for (position, (((frame, descriptor), verdict), path)) in (0_u16..)
            .zip(frames.iter().zip(descriptors.iter_mut()).zip(verdicts.iter_mut()).zip(paths))
        {
            if !verdict.is_open() {
                continue;
            }
            descriptor.direction = direction::TRANSIT;
            // RFC 1812 section 5.3.7. It could pass for a packet of a tunnel from here, at the other end.
            if origin == Origin::Received
                && snapshot.locals.may_contain(v4_bits(&descriptor.source))
                && snapshot.locals.contains(&ip(&descriptor.source))
            {
                *verdict = Verdict::Drop(DropReason::MartianSource);
                continue;
            }
            if HAS_EDITS {
                let edit = edits.get(usize::from(position));
                if let Some(next) = detour::steer(frame, descriptor, path, edit, snapshot) {
                    settle(next, path, verdict);
                    continue;
                }
            }
            if has_slices {
                let (source, destination) = egresses(descriptor, snapshot);
                if source.or(destination).is_some() {
                    if descriptor.flags & flags::PORTS != 0 {
                        self.ask(position, source, destination, descriptor);
                    } else {
                        let ends = (source, destination);
                        let steering = ownership::steer(ends, frame, descriptor, path, snapshot);
                        self.follow(steering, position, descriptor, path, verdict, snapshot);
                    }
                    continue;
                }
            }
            self.routed.push(position, descriptor, verdict, snapshot);
        }
    }

    /// Notes which slices a packet with ports asks for.
    #[inline]
    fn ask(
        &mut self,
        position: u16,
        source: Option<EgressId>,
        destination: Option<EgressId>,
        descriptor: &mut Descriptor,
    ) {
        self.shared.push(Shared {
            position,
            source: source.is_some(),
            destination: destination.is_some(),
        });
        descriptor.direction = direction::INBOUND;
        if let Some(egress) = source {
            descriptor.direction = direction::OUTBOUND;
            self.keys.push(SliceKey { egress, port: descriptor.source_port });
        }
        if let Some(egress) = destination {
            self.keys.push(SliceKey { egress, port: descriptor.destination_port });
        }
    }

    /// The packets of `shared`, whose slices are looked up together.
    #[inline(never)]
    fn steer_shared(&mut self, batch: &mut Batch, paths: &mut [Path], snapshot: &Snapshot) {
        let Batch { frames, descriptors, verdicts, .. } = batch;
        self.hits.resize(self.keys.len(), SliceHit::MISS);
        snapshot.slices.lookup_batch(&self.keys, &mut self.hits);
        let hits = std::mem::take(&mut self.hits);
        let shared = std::mem::take(&mut self.shared);
        let mut left = hits.iter();
        for &Shared { position, source, destination } in &shared {
            let source = if source { left.next() } else { None };
            let destination = if destination { left.next() } else { None };
            let at = usize::from(position);
            let (Some(frame), Some(descriptor), Some(verdict), Some(path)) =
                (frames.get(at), descriptors.get_mut(at), verdicts.get_mut(at), paths.get_mut(at))
            else {
                continue;
            };
            if let Some(hit) = source
                && let Err(reason) = admit(*hit, frame, path, snapshot)
            {
                *verdict = Verdict::Drop(reason);
                continue;
            }
            let steering = match destination {
                Some(hit) => deliver(*hit, descriptor, path, snapshot),
                None => Steering::Route,
            };
            self.follow(steering, position, descriptor, path, verdict, snapshot);
        }
        (self.hits, self.shared) = (hits, shared);
    }

    /// Does what the slices say.
    #[inline(always)]
    fn follow(
        &mut self,
        steering: Steering,
        position: u16,
        descriptor: &Descriptor,
        path: &mut Path,
        verdict: &mut Verdict,
        snapshot: &Snapshot,
    ) {
        match steering {
            Steering::Route => self.routed.push(position, descriptor, verdict, snapshot),
            Steering::Decided(next) => settle(next, path, verdict),
            Steering::Through(route) => {
                self.positions_through.push(position);
                self.routes_through.push(route);
            }
            Steering::To(adjacency) => settle(resolve_to(adjacency, snapshot), path, verdict),
        }
    }

    /// FIB, then next-hop group, then adjacency.
    fn route(&mut self, batch: &mut Batch, paths: &mut [Path], snapshot: &Snapshot) {
        let Batch { descriptors, verdicts, .. } = batch;
        let mut settle_all = |positions: &[u16], routes: &[RouteId], is_into_tunnel: bool| {
            // Packets come in runs to one next hop, which is then resolved once.
            let mut known = None;
            for (&position, &route) in positions.iter().zip(routes) {
                let position = usize::from(position);
                if let (Some(descriptor), Some(verdict), Some(path)) = (
                    descriptors.get_mut(position),
                    verdicts.get_mut(position),
                    paths.get_mut(position),
                ) {
                    if let Some((route_before, next)) = known
                        && route_before == route
                    {
                        descriptor.next_hop = route.0.saturating_add(1);
                        path.next = next;
                        continue;
                    }
                    let mut next = resolve(route, descriptor, path, snapshot);
                    if is_into_tunnel {
                        next = next.and_then(outwards);
                    }
                    known = match next {
                        Ok(next) if leads_to_one(route, snapshot) => Some((route, next)),
                        _ => None,
                    };
                    settle(next, path, verdict);
                }
            }
        };
        let Routed { positions4, destinations4, positions6, destinations6, routes } =
            &mut self.routed;
        if let Some(routes) = routes.get_mut(..destinations4.len()) {
            snapshot.fib4.lookup_batch(destinations4, routes);
            settle_all(positions4, routes, false);
        }
        if let Some(routes) = routes.get_mut(..destinations6.len()) {
            snapshot.fib6.lookup_batch(destinations6, routes);
            settle_all(positions6, routes, false);
        }
        settle_all(&self.positions_through, &self.routes_through, true);
    }
}

#[inline]
pub(crate) fn settle(next: Result<Next, DropReason>, path: &mut Path, verdict: &mut Verdict) {
    match next {
        Ok(next) => path.next = next,
        Err(reason) => *verdict = Verdict::Drop(reason),
    }
}

/// Looks up where one packet goes, as for a whole batch; its source was judged before.
#[cold]
pub(crate) fn alone(
    frame: &Frame,
    descriptor: &mut Descriptor,
    path: &mut Path,
    snapshot: &Snapshot,
) -> Result<Next, DropReason> {
    let steering = if snapshot.slices.is_empty() {
        Steering::Route
    } else {
        let ends = egresses(descriptor, snapshot);
        ownership::steer(ends, frame, descriptor, path, snapshot)
    };
    match steering {
        Steering::Route => {
            let route = if descriptor.flags & flags::IPV6 == 0 {
                snapshot.fib4.lookup(v4_bits(&descriptor.destination))
            } else {
                snapshot.fib6.lookup(v6_bits(&descriptor.destination))
            };
            resolve(route, descriptor, path, snapshot)
        }
        Steering::Decided(next) => next,
        Steering::Through(route) => resolve(route, descriptor, path, snapshot).and_then(outwards),
        Steering::To(adjacency) => resolve_to(adjacency, snapshot),
    }
}
