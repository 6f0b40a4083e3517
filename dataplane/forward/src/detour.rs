//! Detours: packets that a plugin sent to a named next hop, or gave an egress tag, go there instead of
//! where slices and routes lead.
//!
//! ```text
//!  set at ingress   sender's slice checked as ever -> next hop or tag's group -> adjacency
//!  set at forward   what was looked up is forgotten -> the same
//!  tag, no next hop of it can be used               -> slices and routes, as if there were no tag
//! ```
//!
//! What follows is the same as for routed packets: TTL, MTU, ICMP errors, holds, the choice by the flow's
//! hash. A transmit goes before a tag.

use frame::{Batch, Descriptor, DropReason, Frame, PacketEdit};
use sluice_abi::direction;
use tables::{RouteId, Snapshot};

use crate::path::{Next, Path};
use crate::{lookup, ownership, resolve};

/// Where a plugin sends a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detour {
    /// Nowhere: slices and routes say where it goes.
    #[default]
    None,
    /// To the next hop of this number.
    NextHop(u16),
    /// The way of the egress tag of this number.
    Tag(u16),
    /// It has the egress tag of this number, none of whose next hops can be used.
    Missed(u16),
}

impl Detour {
    /// What is wanted of a packet with this edit.
    #[inline]
    fn of(edit: PacketEdit) -> Self {
        match (edit.next_hop, edit.tag) {
            (0, 0) => Self::None,
            (0, tag) => Self::Tag(tag),
            (next_hop, _) => Self::NextHop(next_hop),
        }
    }

    /// Whether the packet goes where a plugin said, and not where slices and routes say.
    #[must_use]
    pub const fn is_taken(self) -> bool {
        matches!(self, Self::NextHop(_) | Self::Tag(_))
    }

    /// The group that it leads to; `None` for a packet that takes its route.
    fn route(self, snapshot: &Snapshot) -> Option<RouteId> {
        match self {
            Self::None | Self::Missed(_) => None,
            // A packet that is sent to a next hop goes there or nowhere.
            Self::NextHop(number) => {
                Some(snapshot.actions.next_hop(number).map_or(RouteId::NONE, |hop| hop.route))
            }
            Self::Tag(number) => {
                let tag = snapshot.actions.tag(number)?;
                (tag.route != RouteId::NONE).then_some(tag.route)
            }
        }
    }
}

/// Where the look-up is to send a packet with this edit; `None`: where slices and routes say.
#[cold]
pub(crate) fn steer(
    frame: &Frame,
    descriptor: &mut Descriptor,
    path: &mut Path,
    edit: PacketEdit,
    snapshot: &Snapshot,
) -> Option<Result<Next, DropReason>> {
    let wanted = Detour::of(edit);
    let Some(route) = wanted.route(snapshot) else {
        path.detour = missed(wanted);
        return None;
    };
    path.detour = wanted;
    let mut is_shared = false;
    if !snapshot.slices.is_empty() {
        let (source, destination) = ownership::egresses(descriptor, snapshot);
        is_shared = destination.is_some();
        if let Some(egress) = source {
            descriptor.direction = direction::OUTBOUND;
            // No plugin lets anybody send under an address that is not his.
            if let Err(reason) = ownership::admit_sender(egress, frame, descriptor, path, snapshot)
            {
                return Some(Err(reason));
            }
        } else if is_shared {
            descriptor.direction = direction::INBOUND;
        }
    }
    // RFC 1812 section 5.3.7, as for routed packets.
    if descriptor.source == descriptor.destination && !is_shared {
        return Some(Err(DropReason::MartianSource));
    }
    Some(resolve(route, descriptor, path, snapshot))
}

/// Sends the packets elsewhere for which a plugin at `forward` set where to.
#[cold]
#[inline(never)]
pub(crate) fn redirect(batch: &mut Batch, paths: &mut [Path], snapshot: &Snapshot) {
    let Batch { frames, descriptors, verdicts, edits } = batch;
    for (position, (((frame, descriptor), verdict), path)) in
        frames.iter().zip(descriptors.iter_mut()).zip(verdicts.iter_mut()).zip(paths).enumerate()
    {
        let wanted = Detour::of(edits.get(position));
        if !verdict.is_open() || wanted == Detour::None || is_known(path.detour, wanted) {
            continue;
        }
        let before = path.detour;
        let next = match wanted.route(snapshot) {
            Some(route) => {
                forget(path);
                path.detour = wanted;
                resolve(route, descriptor, path, snapshot)
            }
            None => {
                path.detour = missed(wanted);
                if matches!(before, Detour::None | Detour::Missed(_)) {
                    // Where it goes was looked up.
                    continue;
                }
                forget(path);
                lookup::alone(frame, descriptor, path, snapshot)
            }
        };
        lookup::settle(next, path, verdict);
    }
}

const fn missed(wanted: Detour) -> Detour {
    match wanted {
        Detour::Tag(number) => Detour::Missed(number),
        other => other,
    }
}

/// Whether what is wanted was asked for already, with whatever success.
fn is_known(detour: Detour, wanted: Detour) -> bool {
    detour == wanted || detour == missed(wanted)
}

/// Forgets what the look-up found.
fn forget(path: &mut Path) {
    path.encapsulate = None;
    path.delivered = false;
    path.route_mtu = 0;
}

fn resolve(
    route: RouteId,
    descriptor: &mut Descriptor,
    path: &mut Path,
    snapshot: &Snapshot,
) -> Result<Next, DropReason> {
    if route == RouteId::NONE {
        return Err(DropReason::PluginNextHop);
    }
    resolve::resolve(route, descriptor, path, snapshot).and_then(resolve::outwards)
}
