//! IPv4 packets that leave in fragments: RFC 791 section 3.2, RFC 1812 section 5.2.6.
//!
//! ```text
//!  | packet without DF, above the MTU |
//!  | link | part |   | link | part |   | link | part |      into a tunnel: | link | outer | part |
//! ```
//!
//! Each fragment is written to a chunk of the pool. A packet enters a tunnel in fragments that fit it, so
//! that no outer packet is ever fragmented. The packet itself counts as forwarded once, and only if all of
//! its fragments were sent.

use frame::{Descriptor, DropReason, Frame, Nanos, QueueIo};
use tables::Snapshot;
use wire::fragmentation::Fragmenter;
use wire::{ethernet, ipv4};

use crate::io::{Io, Origin};
use crate::path::{Next, Path};
use crate::rewrite;

impl<Q: QueueIo> Io<Q> {
    /// Sends a packet in fragments of `path.mtu` bytes at most, and gives its own chunk home.
    #[cold]
    pub(crate) fn transmit_in_fragments(
        &mut self,
        frame: Frame,
        origin: Origin,
        descriptor: &Descriptor,
        path: &Path,
        (snapshot, now): (&Snapshot, Nanos),
    ) -> Result<(), DropReason> {
        match self.split(&frame, descriptor, path, (snapshot, now)) {
            Ok(egress) => {
                let ingress = frame.ingress().index();
                let interfaces = &self.counters.interfaces;
                if let Some(egress) = interfaces.get(egress) {
                    egress.fragmented.add(1);
                    egress.originated.add(u64::from(origin == Origin::Originated));
                }
                if origin == Origin::Received {
                    if let Some(ingress) = interfaces.get(ingress) {
                        ingress.forwarded.add(1);
                    }
                    self.count_steering(ingress, path);
                }
                self.give_home(frame);
                Ok(())
            }
            Err(reason) => {
                self.refuse(frame, origin, reason);
                Err(reason)
            }
        }
    }

    /// Makes and sends the fragments. Returns the interface that they left by.
    fn split(
        &mut self,
        frame: &Frame,
        descriptor: &Descriptor,
        path: &Path,
        (snapshot, now): (&Snapshot, Nanos),
    ) -> Result<usize, DropReason> {
        let Next::Send(id) = path.next else { return Err(DropReason::NoRoute) };
        let adjacency = snapshot.adjacency(id).ok_or(DropReason::NoRoute)?;
        let peer = path.encapsulate.and_then(|peer| snapshot.peer(peer));
        let packet = frame.bytes().get(usize::from(descriptor.l3_offset)..).unwrap_or_default();
        let packet = ipv4::Ipv4::parse(packet).map_err(|_| DropReason::FragmentMalformed)?;
        let fragments = Fragmenter::new(packet, path.mtu).ok_or(DropReason::FragmentMalformed)?;
        // Before the rate is charged, so that it counts what is fragmented.
        if fragments.count() > self.pool.free() {
            return Err(DropReason::FragmentationFrames);
        }
        if !self.split_limit.take(snapshot.fragments.egress_packets_per_s, now) {
            return Err(DropReason::FragmentationLimited);
        }
        for number in 0..fragments.count() {
            let mut part = self.pool.take().ok_or(DropReason::FragmentationFrames)?;
            part.set_ingress(frame.ingress());
            let sent = match write(&mut part, &fragments, number, descriptor) {
                Ok(of_part) => rewrite::wrap(&mut part, &of_part, peer, adjacency),
                Err(reason) => Err(reason),
            };
            if let Err(reason) = sent {
                self.give_home(part);
                return Err(reason);
            }
            let len = part.len();
            if let Err(part) = self.transmit(adjacency.interface, part) {
                self.give_home(part);
                return Err(DropReason::TransmitFull);
            }
            if let Some(egress) = self.counters.interfaces.get(adjacency.interface.index()) {
                egress.tx_packets.add(1);
                egress.tx_bytes.add(len as u64);
                egress.fragments_created.add(1);
            }
        }
        Ok(adjacency.interface.index())
    }
}

/// Writes a fragment behind room for a link-layer header. Returns its descriptor.
fn write(
    part: &mut Frame,
    fragments: &Fragmenter<'_>,
    number: usize,
    descriptor: &Descriptor,
) -> Result<Descriptor, DropReason> {
    let room = frame::CHUNK_BYTES - frame::HEADROOM_BYTES;
    let out = part.reset(room).and_then(|out| out.get_mut(ethernet::HEADER_LEN..));
    let len = out
        .and_then(|out| fragments.emit(number, out))
        .filter(|len| part.set_len(ethernet::HEADER_LEN + len))
        .and_then(|len| u16::try_from(len).ok())
        .ok_or(DropReason::FragmentMalformed)?;
    let l3_offset = u16::try_from(ethernet::HEADER_LEN).unwrap_or_default();
    Ok(Descriptor { l3_offset, length: len, ..*descriptor })
}
