//! Whether packets may come from where they say, by the way that they came: RFC 2827 (BCP 38), and the
//! reverse path forwarding of RFC 3704 (BCP 84), for each receiving interface.
//!
//! ```text
//!  source -> FIB -> group:  next hops, link   off this interface     passes: strict, loose
//!                                             off another one        passes: loose
//!                           kernel            no address of its own  passes: loose
//!                           blackhole         reverse path is none   dropped, with a reason of its own
//!                           anything else, or none                   dropped
//! ```
//!
//! - *strict* is the feasible-path form of section 2.3 as far as a FIB tells: any of several next hops
//!   of the best route will do. RFC 8704 section 3 widens it by what BGP neighbors announce, which is not
//!   known here.
//! - *loose*, section 2.4: "it checks only for the existence of a route (even a default route, if
//!   applicable), not where the route points to". *Loose ignoring default routes* is section 2.5.
//! - A source on the way to a blackhole fails each of them, so that a blackhole route drops what comes
//!   from a prefix too (RFC 5635 section 4).
//!
//! Asked is the outermost header, before tunnels are opened: what comes out of a tunnel came by no
//! interface of this machine, and the node at its far end asked before. Shared addresses are left to the
//! slices (`ownership`), which know more about them than routes do. Nobody is told about a drop: the address
//! names somebody else.
//!
//! Absent: a look-up where no interface wants one; lists of prefixes beside the FIB.

use core::net::IpAddr;

use frame::{BATCH_MAX, Batch, Descriptor, DropReason, Verdict};
use sluice_abi::flags;
use tables::{AdjacencyId, Group, Role, RouteId, Snapshot, SourceValidation};
use wire::InterfaceId;

use crate::address::{ip, v4_bits, v6_bits};
use crate::ownership;

/// Lists of positions whose sources are looked up, kept between turns for their memory.
#[derive(Debug)]
pub(crate) struct Sources {
    positions4: Vec<u16>,
    sources4: Vec<u32>,
    positions6: Vec<u16>,
    sources6: Vec<u128>,
    routes: Box<[RouteId; BATCH_MAX]>,
}

impl Sources {
    pub(crate) fn new() -> Self {
        Self {
            positions4: Vec::with_capacity(BATCH_MAX),
            sources4: Vec::with_capacity(BATCH_MAX),
            positions6: Vec::with_capacity(BATCH_MAX),
            sources6: Vec::with_capacity(BATCH_MAX),
            routes: Box::new([RouteId::NONE; BATCH_MAX]),
        }
    }

    /// Drops those open frames of the batch whose interface does not take their source.
    #[inline(never)]
    pub(crate) fn run(&mut self, batch: &mut Batch, snapshot: &Snapshot) {
        self.positions4.clear();
        self.sources4.clear();
        self.positions6.clear();
        self.sources6.clear();
        let Batch { frames, descriptors, verdicts, .. } = batch;
        let known = frames.iter().zip(descriptors.iter()).zip(verdicts.iter());
        for (position, ((frame, descriptor), verdict)) in (0_u16..).zip(known) {
            if !verdict.is_open() || !is_validated(frame.ingress(), descriptor, snapshot) {
                continue;
            }
            if descriptor.flags & flags::IPV6 == 0 {
                self.positions4.push(position);
                self.sources4.push(v4_bits(&descriptor.source));
            } else {
                self.positions6.push(position);
                self.sources6.push(v6_bits(&descriptor.source));
            }
        }
        let mut judge_all = |positions: &[u16], routes: &[RouteId]| {
            // A group of several next hops has thousands of buckets. Packets of forged sources have one route
            // as a rule, which is then judged once.
            let mut known = None;
            for (&position, &route) in positions.iter().zip(routes) {
                let position = usize::from(position);
                if let (Some(frame), Some(descriptor), Some(verdict)) =
                    (frames.get(position), descriptors.get(position), verdicts.get_mut(position))
                {
                    let asked = (route, frame.ingress());
                    let judged = match known {
                        Some((before, judged)) if before == asked => judged,
                        _ => judge(route, frame.ingress(), descriptor, snapshot),
                    };
                    // Of routes to this machine the source itself has to be asked.
                    let is_local = matches!(snapshot.group(route), Some(Group::Local));
                    known = (!is_local).then_some((asked, judged));
                    if let Err(reason) = judged {
                        *verdict = Verdict::Drop(reason);
                    }
                }
            }
        };
        if let Some(routes) = self.routes.get_mut(..self.sources4.len()) {
            snapshot.fib4.lookup_batch(&self.sources4, routes);
            judge_all(&self.positions4, routes);
        }
        if let Some(routes) = self.routes.get_mut(..self.sources6.len()) {
            snapshot.fib6.lookup_batch(&self.sources6, routes);
            judge_all(&self.positions6, routes);
        }
    }
}

/// Whether the interface wants the packet's source to be looked up, and routes have a say in it.
#[inline]
pub(crate) fn is_validated(
    ingress: InterfaceId,
    descriptor: &Descriptor,
    snapshot: &Snapshot,
) -> bool {
    mode(ingress, snapshot) != SourceValidation::Off
        && ownership::egresses(descriptor, snapshot).0.is_none()
}

/// What the interface wants.
#[inline]
pub(crate) fn mode(ingress: InterfaceId, snapshot: &Snapshot) -> SourceValidation {
    snapshot.interface(ingress).map_or(SourceValidation::Off, |known| known.source_validation)
}

/// The route that leads back to the packet's source: for records.
pub(crate) fn route_back(descriptor: &Descriptor, snapshot: &Snapshot) -> RouteId {
    if descriptor.flags & flags::IPV6 == 0 {
        snapshot.fib4.lookup(v4_bits(&descriptor.source))
    } else {
        snapshot.fib6.lookup(v6_bits(&descriptor.source))
    }
}

/// Whether an error may be sent about a packet that the parser refused, whose source was not asked about.
/// What came out of a tunnel came by no interface of this machine.
pub(crate) fn is_believed(
    ingress: InterfaceId,
    descriptor: &Descriptor,
    snapshot: &Snapshot,
) -> bool {
    if descriptor.flags & flags::DECAPSULATED != 0 {
        return true;
    }
    if ownership::egresses(descriptor, snapshot).0.is_some() {
        return snapshot.interface(ingress).is_some_and(|known| known.role != Role::Outside);
    }
    mode(ingress, snapshot) == SourceValidation::Off
        || judge(route_back(descriptor, snapshot), ingress, descriptor, snapshot).is_ok()
}

/// The largest packet that every next hop on the way back to the packet's source takes, in bytes, where
/// they are next hops of this router's.
pub(crate) fn mtu_back(descriptor: &Descriptor, snapshot: &Snapshot) -> Option<u16> {
    match snapshot.group(route_back(descriptor, snapshot))? {
        Group::Adjacency(only) => snapshot.adjacency(only).map(|adjacency| adjacency.mtu),
        Group::Adjacencies(members) => {
            let members = members.iter().filter_map(|member| snapshot.adjacency(member));
            members.map(|adjacency| adjacency.mtu).min()
        }
        Group::Glean { interface, mtu } => {
            let link = snapshot.interface(interface)?.mtu;
            Some(if mtu == 0 { link } else { link.min(mtu) })
        }
        _ => None,
    }
}

#[inline]
fn judge(
    route: RouteId,
    ingress: InterfaceId,
    descriptor: &Descriptor,
    snapshot: &Snapshot,
) -> Result<(), DropReason> {
    let mode = mode(ingress, snapshot);
    if mode == SourceValidation::LooseIgnoringDefault && snapshot.defaults.contains(&route) {
        return Err(DropReason::ReversePath);
    }
    let is_strict = mode == SourceValidation::Strict;
    let is_there = |member: AdjacencyId| {
        snapshot.adjacency(member).is_some_and(|adjacency| adjacency.interface == ingress)
    };
    let passes = match snapshot.group(route) {
        Some(Group::Adjacency(only)) => !is_strict || is_there(only),
        Some(Group::Adjacencies(members)) => !is_strict || members.iter().any(is_there),
        Some(Group::Glean { interface, .. }) => !is_strict || interface == ingress,
        // A way that is the kernel's leads by another interface. Nobody else has this machine's addresses.
        Some(Group::Local) => !is_strict && !is_own(ip(&descriptor.source), snapshot),
        Some(Group::Blackhole) => return Err(DropReason::SourceBlackhole),
        Some(Group::Unreachable | Group::Prohibit | Group::Broadcast) | None => false,
    };
    if passes { Ok(()) } else { Err(DropReason::ReversePath) }
}

fn is_own(address: IpAddr, snapshot: &Snapshot) -> bool {
    snapshot.locals.contains(&address)
}
