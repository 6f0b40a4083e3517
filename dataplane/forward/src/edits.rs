//! What plugins set on packets, carried out: before the rewrite, so that encapsulation, fragments and
//! plugins at `egress` find the packet as it leaves.
//!
//! ```text
//!  DSCP          IPv4 type of service or IPv6 traffic class; ECN stays (RFC 3168 section 5)
//!  MSS, options  of a TCP SYN that is no fragment
//! ```
//!
//! Every edit may be carried out twice and changes nothing the second time: a packet that had to wait for
//! its neighbor comes by again.
//!
//! A tunnel that is entered afterwards copies the new DSCP or none (RFC 2983 section 3), as it would copy
//! the old one.

use frame::{Batch, Descriptor, Frame, KnownNumbers, PacketEdit};
use sluice_abi::{flags, tcp_option};
use tables::{Actions, Snapshot};
use wire::{ecn, ipv4, ipv6, protocol, tcp};

use crate::path::{Next, Path};

/// Bits of [`sluice_abi::tcp_option`] with the kinds that they stand for.
const TCP_OPTIONS: [(u8, u8); 5] = [
    (tcp_option::WINDOW_SCALE, tcp::option::WINDOW_SCALE),
    (tcp_option::SACK_PERMITTED, tcp::option::SACK_PERMITTED),
    (tcp_option::TIMESTAMPS, tcp::option::TIMESTAMPS),
    (tcp_option::MULTIPATH, tcp::option::MULTIPATH),
    (tcp_option::FAST_OPEN, tcp::option::FAST_OPEN),
];

/// The numbers that a snapshot has names for.
pub(crate) fn known(actions: &Actions) -> KnownNumbers {
    let mut known = KnownNumbers::NONE;
    let numbers = || 0..=tables::NUMBERS_MAX;
    for number in numbers().filter(|number| actions.next_hop(*number).is_some()) {
        known.next_hops.insert(number);
    }
    for number in numbers().filter(|number| actions.tag(*number).is_some()) {
        known.tags.insert(number);
    }
    for number in (0..=tables::CLASSES_MAX).filter(|number| actions.class(*number).is_some()) {
        known.classes.insert(u16::from(number));
    }
    known
}

/// Carries out the edits of every packet that is about to leave or to go to the kernel.
#[cold]
#[inline(never)]
pub(crate) fn carry_out(batch: &mut Batch, paths: &[Path], snapshot: &Snapshot) {
    let Batch { frames, descriptors, verdicts, edits } = batch;
    for (position, (((frame, descriptor), verdict), path)) in
        frames.iter_mut().zip(descriptors.iter_mut()).zip(verdicts.iter()).zip(paths).enumerate()
    {
        let is_leaving = matches!(path.next, Next::Send(_) | Next::Punt);
        if verdict.is_open() && is_leaving {
            carry_out_one(frame, descriptor, edits.get(position), snapshot);
        }
    }
}

fn carry_out_one(
    frame: &mut Frame,
    descriptor: &mut Descriptor,
    edit: PacketEdit,
    snapshot: &Snapshot,
) {
    let of_class = || snapshot.actions.class(edit.class).and_then(|class| class.dscp);
    if let Some(dscp) = edit.dscp.or_else(of_class) {
        set_dscp(frame, descriptor, dscp);
    }
    let is_tcp = descriptor.protocol == protocol::TCP && descriptor.flags & flags::FRAGMENT == 0;
    let is_syn = is_tcp && descriptor.tcp_flags & tcp::flags::SYN != 0;
    if is_syn && (edit.mss != 0 || edit.tcp_options != 0) {
        edit_syn(frame, descriptor, edit);
    }
}

fn set_dscp(frame: &mut Frame, descriptor: &mut Descriptor, dscp: u8) {
    let traffic_class = dscp << 2 | descriptor.traffic_class & ecn::MASK;
    let Some(packet) = frame.bytes_mut().get_mut(usize::from(descriptor.l3_offset)..) else {
        return;
    };
    if descriptor.flags & flags::IPV6 == 0 {
        let Some(header) = packet.first_chunk_mut::<{ ipv4::HEADER_LEN }>() else { return };
        ecn::set_traffic_class_v4(header, traffic_class);
    } else {
        let Some(header) = packet.first_chunk_mut::<{ ipv6::HEADER_LEN }>() else { return };
        ecn::set_traffic_class_v6(header, traffic_class);
    }
    descriptor.traffic_class = traffic_class;
}

fn edit_syn(frame: &mut Frame, descriptor: &Descriptor, edit: PacketEdit) {
    let end = usize::from(descriptor.l3_offset) + usize::from(descriptor.length);
    let start = usize::from(descriptor.l4_offset);
    let Some(segment) = frame.bytes_mut().get_mut(start..end) else { return };
    if edit.mss != 0 {
        tcp::clamp_mss(segment, edit.mss);
    }
    if edit.tcp_options != 0 {
        let is_asked = |bit: u8| edit.tcp_options & bit != 0;
        // 0 ends the list of options, and is never an option to be erased.
        let kinds = TCP_OPTIONS.map(|(bit, kind)| if is_asked(bit) { kind } else { 0 });
        tcp::erase_options(segment, &kinds);
    }
}
