//! Fragments to and from shared addresses: only the first one of a packet has ports, and the others go
//! where it went.
//!
//! ```text
//!  parse -> decap -> [ fragments ] -> ingress ...
//!                         |
//!                         +-- another worker follows this packet: Handoff, as the frame came
//!                         +-- the first fragment is known: its ports stand in the descriptor
//!                         +-- it is not: Wait, and a batch of its own behind the first one's
//! ```
//!
//! RSS hashes fragments by their addresses, or the first by its ports too, so that those of one packet
//! may come to several workers: the one that a hash of [`header::Key`] names follows it.
//!
//! A later fragment then passes the same tests as its first: the sender's slice, the owner, plugins
//! that look at ports. A whole packet with a fragment header (RFC 6946) is none of this module's affair,
//! and neither is transit, which is forwarded fragment by fragment.

pub(crate) mod header;
mod ranges;
mod tracker;

use frame::{Batch, Descriptor, Frame, Nanos, Verdict};
use sluice_abi::flags;
use tables::{EgressId, Role, Snapshot};

use crate::address::{v4_bits, v6_bits};
use crate::handoff::Handoff;
use crate::ownership::quoted_packet;
use crate::path::Path;
use tracker::Admission;
pub(crate) use tracker::{First, Tracker};

/// The ends of a packet that are shared addresses.
struct Shared {
    source: Option<EgressId>,
    destination: Option<EgressId>,
}

/// Decides for every fragment of the batch that is to or from a shared address. Frames that come from
/// other workers are not handed over again, for which `handoff` is `None`.
#[cold]
pub(crate) fn run(
    batch: &mut Batch,
    paths: &mut [Path],
    tracker: &mut Tracker,
    handoff: Option<&Handoff>,
    snapshot: &Snapshot,
    now: Nanos,
) {
    let Batch { frames, descriptors, verdicts, .. } = batch;
    for (((frame, descriptor), verdict), path) in
        frames.iter().zip(descriptors.iter_mut()).zip(verdicts.iter_mut()).zip(paths)
    {
        if descriptor.flags & flags::FRAGMENT == 0 || !verdict.is_open() {
            continue;
        }
        let Some(shared) = shared(frame, descriptor, path, snapshot) else { continue };
        let piece = match header::read(frame, descriptor) {
            Ok(piece) => piece,
            Err(reason) => {
                *verdict = Verdict::Drop(reason);
                continue;
            }
        };
        if let Some(handoff) = handoff {
            let worker = handoff.worker_for(piece.key.hash());
            if worker != handoff.id() {
                path.worker = worker;
                *verdict = Verdict::Handoff;
                continue;
            }
        }
        let first = (piece.start == 0).then(|| first(frame, descriptor, &shared));
        match tracker.admit(&piece, first, &snapshot.fragments, now) {
            Admission::Pass(first) => follow(first, descriptor, path),
            Admission::Wait => *verdict = Verdict::Wait,
            Admission::Drop(reason) => *verdict = Verdict::Drop(reason),
        }
    }
}

/// Writes what the first fragment said where the later stages look for it.
pub(crate) fn follow(first: First, descriptor: &mut Descriptor, path: &mut Path) {
    if descriptor.flags & flags::LATER_FRAGMENT == 0 {
        return;
    }
    path.follows_first = true;
    // In IPv6 a later fragment tells only what its part of the header chain begins with.
    descriptor.protocol = first.protocol;
    descriptor.hash = first.hash;
    if let Some((source, destination)) = first.ports {
        descriptor.source_port = source;
        descriptor.destination_port = destination;
        descriptor.flags |= flags::PORTS;
    }
}

/// Which ends are shared; `None` if that is neither, or if the source is spoofed, which the look-up
/// finds out without knowing any port.
fn shared(
    frame: &Frame,
    descriptor: &Descriptor,
    path: &Path,
    snapshot: &Snapshot,
) -> Option<Shared> {
    let slices = &snapshot.slices;
    let egress = |address: &[u8; 16]| {
        if descriptor.flags & flags::IPV6 == 0 {
            slices.egress4(v4_bits(address))
        } else {
            slices.egress6(v6_bits(address))
        }
    };
    let source = egress(&descriptor.source);
    let destination = egress(&descriptor.destination);
    let role = snapshot.interface(frame.ingress()).map(|interface| interface.role);
    let is_spoofed = source.is_some() && path.decapsulated.is_none() && role == Some(Role::Outside);
    let is_shared = source.is_some() || destination.is_some();
    (is_shared && !is_spoofed).then_some(Shared { source, destination })
}

/// What a first fragment says that the later ones do not.
fn first(frame: &Frame, descriptor: &Descriptor, shared: &Shared) -> First {
    let ports = if descriptor.flags & flags::PORTS != 0 {
        Some((descriptor.source_port, descriptor.destination_port))
    } else if descriptor.flags & flags::ICMP_ERROR != 0 {
        quoted_ports(frame, descriptor, shared)
    } else {
        None
    };
    First { protocol: descriptor.protocol, hash: descriptor.hash, ports }
}

/// The ports by which an ICMP error finds its slices: those of the quoted packet, the other way round,
/// if its addresses are those of the error.
fn quoted_ports(frame: &Frame, descriptor: &Descriptor, shared: &Shared) -> Option<(u16, u16)> {
    let flow = quoted_packet(frame, descriptor).ok()?.flow().ok()?;
    let is_ours = (shared.source.is_none() || descriptor.source == flow.destination)
        && (shared.destination.is_none() || descriptor.destination == flow.source);
    is_ours.then_some((flow.destination_port, flow.source_port))
}
