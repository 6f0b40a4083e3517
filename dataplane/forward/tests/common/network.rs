//! [`Network`]: several routers on one link, joined by their tunnels, with one packet under way at a time.
//!
//! ```text
//!        world                       what leaves by wan0 to the address of a node is received by
//!   ----+-----+------+----- link     that node; all else leaves the network
//!       a     b ...  f
//!       |     |      |      lan0
//! ```
//!
//! Invariants, asserted at every router that a packet comes to: it has one end or is held; as many
//! packets leave as the counters say; and it is passed from router to router no more often than slices
//! and tunnel headers account for.
//!
//! Deliberately absent: time and loss on the link, and MAC addresses: the link reads destinations.

use std::collections::VecDeque;
use std::net::IpAddr;

use tables::AdjacencyState;

use super::{LAN, NODES, Plan, Rig, WAN, packets};

/// How often a packet without tunnel headers of its own is passed from one router to another at most: to
/// the site, to the node, and an error about it back. Each tunnel header that it brings may be one more.
pub(crate) const HOPS_MAX: usize = 3;

/// A packet that left the network.
#[derive(Clone, Debug)]
pub(crate) struct Left {
    /// The router that it left.
    pub(crate) node: usize,
    /// By which interface; `None`: it went to the kernel of that machine.
    pub(crate) position: Option<u8>,
    /// A frame, or what the kernel got: a packet.
    pub(crate) bytes: Vec<u8>,
    /// How many routers had passed it on.
    pub(crate) hops: usize,
}

/// What is compared before and after a packet came to a router.
#[derive(Clone, Copy, Debug)]
struct Totals {
    forwarded: u64,
    to_kernel: u64,
    consumed: u64,
    held: u64,
    dropped: u64,
    originated: u64,
    originated_to_kernel: u64,
    fragmented: u64,
    fragments_created: u64,
}

impl Totals {
    fn of(rig: &Rig) -> Self {
        Self {
            forwarded: rig.sum("forwarded"),
            to_kernel: rig.sum("to_kernel"),
            consumed: rig.sum("consumed"),
            held: rig.sum("held"),
            dropped: rig.drops().iter().map(|(_, count)| count).sum(),
            originated: rig.sum("originated"),
            originated_to_kernel: rig.sum("originated_to_kernel"),
            fragmented: rig.sum("fragmented"),
            fragments_created: rig.sum("fragments_created"),
        }
    }

    fn ends(&self) -> u64 {
        self.forwarded + self.to_kernel + self.consumed + self.dropped
    }
}

/// Routers on one link. They are made when a packet first comes to them.
pub(crate) struct Network {
    plan: Plan,
    rigs: [Option<Rig>; NODES.len()],
    pushed: [u64; NODES.len()],
    /// Configuration of routers that are not made yet.
    configuration: usize,
}

impl Network {
    /// Routers that all run one of the configurations.
    pub(crate) fn new(plan: &Plan, configuration: usize) -> Self {
        Self { plan: *plan, rigs: Default::default(), pushed: [0; NODES.len()], configuration }
    }

    /// The router of a node. Each other node is a resolved neighbor on the link.
    pub(crate) fn rig(&mut self, node: usize) -> &mut Rig {
        let (plan, configuration) = (&self.plan, self.configuration);
        self.rigs[node].get_or_insert_with(|| {
            let mut rig = Rig::of(node, plan);
            rig.configure(configuration);
            let mut resolve = |position, address: String| {
                rig.neighbor(position, super::address(&address), AdjacencyState::Resolved);
            };
            for (_, digits, ..) in NODES.iter().filter(|other| other.0 != NODES[node].0) {
                resolve(WAN, format!("10.0.0.{digits}"));
                resolve(WAN, format!("fd00::{digits}"));
            }
            resolve(LAN, "10.1.0.2".to_owned());
            resolve(LAN, "10.1.0.5".to_owned());
            rig.turn();
            rig
        })
    }

    /// The routers that were made.
    pub(crate) fn rigs(&mut self) -> impl Iterator<Item = &mut Rig> {
        self.rigs.iter_mut().flatten()
    }

    /// Time passes for all.
    pub(crate) fn advance_ms(&mut self, ms: u64) {
        for rig in self.rigs() {
            rig.advance_ms(ms);
        }
    }

    /// A frame comes to a router, and is carried on until all that follows from it has left the network
    /// or waits.
    pub(crate) fn carry(&mut self, node: usize, position: u8, frame: &[u8]) -> Vec<Left> {
        let nesting = self.rig(node).judge.nesting(frame);
        let mut left = Vec::new();
        let mut under_way = VecDeque::from([(node, position, frame.to_vec(), 0)]);
        while let Some((node, position, frame, hops)) = under_way.pop_front() {
            assert!(hops <= HOPS_MAX + nesting, "a loop: {hops} hops, now at {node}: {frame:02x?}");
            for packet in self.visit(node, position, &frame) {
                let hops = hops + 1;
                match (packet.position == Some(WAN)).then(|| recipient(node, &packet.bytes)) {
                    Some(Some(next)) => {
                        let frame = packets::frame(WAN, &packet.bytes[14..]);
                        under_way.push_back((next, WAN, frame, hops));
                    }
                    _ => left.push(Left { hops, ..packet }),
                }
            }
        }
        left
    }

    /// What leaves one router for one frame.
    fn visit(&mut self, node: usize, position: u8, frame: &[u8]) -> Vec<Left> {
        let rig = self.rig(node);
        let bytes = |position, bytes| Left { node, position, bytes, hops: 0 };
        // What waited and is due goes first, so that each effect has one cause.
        rig.turn();
        let mut left = Vec::new();
        for position in [WAN, LAN] {
            left.extend(rig.take(position).into_iter().map(|frame| bytes(Some(position), frame)));
        }
        left.extend(rig.kernel_packets().into_iter().map(|packet| bytes(None, packet)));
        let (before, waited) = (Totals::of(rig), left.len());

        let was_right = rig.judge.transport_checksum(frame);
        let pushed = u64::from(rig.receive(position, frame));
        rig.turn();
        for position in [WAN, LAN] {
            left.extend(rig.take(position).into_iter().map(|frame| bytes(Some(position), frame)));
        }
        left.extend(rig.kernel_packets().into_iter().map(|packet| bytes(None, packet)));
        let after = Totals::of(rig);

        assert_eq!(
            pushed + before.held,
            after.ends() - before.ends() + after.held,
            "one end for each packet: {before:?} {after:?}"
        );
        let sent = after.forwarded - before.forwarded - (after.fragmented - before.fragmented)
            + (after.fragments_created - before.fragments_created)
            + (after.originated - before.originated);
        let to_kernel = after.to_kernel - before.to_kernel + after.originated_to_kernel
            - before.originated_to_kernel;
        let came_out = left.len() - waited;
        // What a link that is down took is sent as well.
        assert!(
            came_out as u64 <= sent + to_kernel,
            "{came_out} packets left for {frame:02x?}: {left:02x?}: {before:?} {after:?}"
        );
        let kernels = left[waited..].iter().filter(|packet| packet.position.is_none()).count();
        assert_eq!(kernels as u64, to_kernel, "the kernel has another count");
        let is_alone = before.held == 0
            && after.originated == before.originated
            && after.originated_to_kernel == before.originated_to_kernel
            && after.fragments_created == before.fragments_created;
        if is_alone {
            assert!(came_out <= 1, "{came_out} packets left for one");
        }
        // What came with a right checksum and was passed on has a right one still.
        if let (true, Some(true), Some(packet)) = (is_alone, was_right, left.get(waited)) {
            let is_right = match packet.position {
                Some(_) => rig.judge.transport_checksum(&packet.bytes),
                None => rig.judge.transport_checksum(&packets::frame(WAN, &packet.bytes)),
            };
            assert_eq!(is_right, Some(true), "{frame:02x?} became {:02x?}", packet.bytes);
        }
        self.pushed[node] += pushed;
        let pushed = self.pushed[node];
        self.rig(node).check_sums(pushed);
        left
    }

    /// Lets all come to its end, and takes everything apart.
    pub(crate) fn finish(self) {
        let frames = self.plan.frames;
        for rig in self.rigs.into_iter().flatten() {
            rig.finish(frames);
        }
    }
}

/// The node, other than the one that sent it, that a frame on the link is for.
fn recipient(sender: usize, frame: &[u8]) -> Option<usize> {
    let packet = frame.get(14..)?;
    let destination: IpAddr = match packet.first()? >> 4 {
        4 => <[u8; 4]>::try_from(packet.get(16..20)?).ok()?.into(),
        _ => <[u8; 16]>::try_from(packet.get(24..40)?).ok()?.into(),
    };
    let mut nodes = NODES.iter();
    let node = nodes.position(|(_, digits, ..)| {
        destination == super::address(&format!("10.0.0.{digits}"))
            || destination == super::address(&format!("fd00::{digits}"))
    })?;
    (node != sender).then_some(node)
}
