//! Detours: packets that a plugin sent to a named next hop, or gave an egress tag, go there instead of
//! where slices and routes lead.
//!
//! ```text
//!  set at ingress   sender's slice checked as ever -> next hop or tag's group -> adjacency
//!                                                     or a tunnel to a node or site
//!  set at forward   what was looked up is forgotten -> the same
//!  tag, no next hop of it can be used               -> slices and routes, as if there were no tag
//! ```
//!
//! A packet that came by a tunnel enters none again, as slices have it (`ownership`): with a tag it takes slices
//! and routes, so that two sites which would each send it to the other do not.
//!
//! What follows is the same as for routed packets: TTL, MTU, ICMP errors, holds, the choice by the flow's
//! hash. A transmit goes before a tag.

use frame::{Batch, Descriptor, DropReason, Frame, PacketEdit};
use sluice_abi::direction;
use tables::{PeerId, RouteId, Snapshot, Way};

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
    /// What is wanted of a packet with this edit. What leads here is no detour.
    #[inline]
    fn of(edit: PacketEdit, snapshot: &Snapshot) -> Self {
        let wanted = match (edit.next_hop, edit.tag) {
            (0, 0) => return Self::None,
            (0, tag) => Self::Tag(tag),
            (next_hop, _) => Self::NextHop(next_hop),
        };
        if wanted.way(snapshot) == Some(Way::Here) { Self::None } else { wanted }
    }

    /// Whether the packet goes where a plugin said, and not where slices and routes say.
    #[must_use]
    pub const fn is_taken(self) -> bool {
        matches!(self, Self::NextHop(_) | Self::Tag(_))
    }

    /// How packets get where they are sent.
    fn way(self, snapshot: &Snapshot) -> Option<Way> {
        let detour = match self {
            Self::None | Self::Missed(_) => return None,
            Self::NextHop(number) => snapshot.actions.next_hop(number),
            Self::Tag(number) => snapshot.actions.tag(number),
        };
        Some(detour.map_or(Way::Group(RouteId::NONE), |detour| detour.way))
    }

    /// Where it leads for this packet; `None` for one that takes slices and routes.
    fn leads_to(self, path: &Path, snapshot: &Snapshot) -> Option<Result<Entry, DropReason>> {
        let entry = enter(self.way(snapshot)?, path, snapshot);
        match self {
            // A packet that is sent to a next hop goes there or nowhere.
            Self::NextHop(_) => Some(entry),
            _ => entry.ok().map(Ok),
        }
    }
}

/// The beginning of a way: a route, and the tunnel that a packet goes through on it.
#[derive(Clone, Copy)]
struct Entry {
    route: RouteId,
    tunnel: Option<PeerId>,
}

fn enter(way: Way, path: &Path, snapshot: &Snapshot) -> Result<Entry, DropReason> {
    let tunnel = match way {
        Way::Group(RouteId::NONE) | Way::Here => return Err(DropReason::PluginNextHop),
        Way::Group(route) => return Ok(Entry { route, tunnel: None }),
        Way::Node(node) => ownership::tunnel_to_node(node, path, snapshot),
        Way::Site(site) => ownership::tunnel_to_site(site, path, snapshot),
    };
    let (id, peer) = tunnel?;
    if !resolve::leads_out(peer.route, peer.remote, snapshot) {
        return Err(DropReason::PluginNextHop);
    }
    Ok(Entry { route: peer.route, tunnel: Some(id) })
}

/// Whether a plugin's packets that came by no tunnel get anywhere by this way now.
#[must_use]
pub fn is_usable(way: Way, snapshot: &Snapshot) -> bool {
    way == Way::Here || enter(way, &Path::default(), snapshot).is_ok()
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
    let wanted = Detour::of(edit, snapshot);
    let Some(way) = wanted.leads_to(path, snapshot) else {
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
    Some(way.and_then(|way| resolve(way, descriptor, path, snapshot)))
}

/// Sends the packets elsewhere for which a plugin at `forward` set where to.
#[cold]
#[inline(never)]
pub(crate) fn redirect(batch: &mut Batch, paths: &mut [Path], snapshot: &Snapshot) {
    let Batch { frames, descriptors, verdicts, edits } = batch;
    for (position, (((frame, descriptor), verdict), path)) in
        frames.iter().zip(descriptors.iter_mut()).zip(verdicts.iter_mut()).zip(paths).enumerate()
    {
        let wanted = Detour::of(edits.get(position), snapshot);
        if !verdict.is_open() || is_known(path.detour, wanted) {
            continue;
        }
        let before = path.detour;
        let next = match wanted.leads_to(path, snapshot) {
            Some(way) => {
                forget(path);
                path.detour = wanted;
                way.and_then(|way| resolve(way, descriptor, path, snapshot))
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
    way: Entry,
    descriptor: &mut Descriptor,
    path: &mut Path,
    snapshot: &Snapshot,
) -> Result<Next, DropReason> {
    path.encapsulate = way.tunnel;
    resolve::resolve(way.route, descriptor, path, snapshot).and_then(resolve::outwards)
}
