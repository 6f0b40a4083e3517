//! Any frames, changes and times, through up to four routers that are joined by tunnels of each kind.
//!
//! ```text
//!  steps: tag u8, then by its three highest bits
//!    0-3  a frame: node in bits 0-1, interface in bit 2, repaired if bit 3 is set | length u16 | bytes
//!    4    time passes: milliseconds u16
//!    5    a link goes up or down: node, interface, bit 3
//!    6    a neighbor's state: node, interface | which u8 | state u8
//!    7    another configuration: node | which u8
//! ```
//!
//! A frame that is repaired has the link-layer addresses of its receiver, and right IPv4 header checksums
//! outside and in a tunnel; else all but a few would end there. The properties stand in
//! `forward/tests/common/network.rs`.

use frame::DropReason;
use tables::AdjacencyState;

use crate::common::network::Network;
use crate::common::{CONFIGURATIONS, LAN, Plan, Rig, WAN, WHOLE, address, packets};
use crate::cursor::Cursor;
use crate::planted::{self, Defect};

/// Steps of an input that are carried out: a longer one finds nothing that two short ones do not.
const STEPS_MAX: usize = 48;

const NEIGHBORS: &[(u8, &str)] = &[
    (WAN, "10.0.0.1"),
    (WAN, "10.0.0.12"),
    (WAN, "10.0.0.13"),
    (WAN, "10.0.0.14"),
    (WAN, "fd00::1"),
    (WAN, "fd00::15"),
    (LAN, "10.1.0.2"),
    (LAN, "10.1.0.5"),
];

/// The target.
pub fn run(bytes: &[u8]) {
    let plan = Plan { frames: 320, ..Plan::default() };
    let mut network = Network::new(&plan, WHOLE);
    let mut input = Cursor::new(bytes);
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        let tag = input.u8();
        let (node, position) = (usize::from(tag & 3), tag >> 2 & 1);
        let flag = tag & 8 != 0;
        match tag >> 5 {
            4 => network.advance_ms(u64::from(input.u16())),
            5 => network.rig(node).queue(position).set_link(flag),
            6 => {
                let (position, of) = input.choose(NEIGHBORS);
                let state = input.choose(&[
                    AdjacencyState::Resolved,
                    AdjacencyState::Unresolved,
                    AdjacencyState::Failed,
                ]);
                network.rig(node).neighbor(position, address(of), state);
            }
            7 => {
                let configuration = usize::from(input.u8()) % CONFIGURATIONS;
                network.rig(node).configure(configuration);
            }
            _ => {
                let len = usize::from(input.u16());
                let mut frame = input.bytes(len).to_vec();
                if flag {
                    repair(position, &mut frame);
                }
                network.carry(node, position, &frame);
                if planted::is(Defect::CountedTwice) {
                    count_twice(network.rig(node));
                }
            }
        }
    }
    network.finish();
}

/// Adds a drop where some were counted.
fn count_twice(rig: &mut Rig) {
    let is_counted = rig.drops().iter().any(|(reason, _)| *reason == DropReason::TtlExceeded);
    if let (true, Some(interface)) = (is_counted, rig.worker.counters().interfaces.first()) {
        interface.drop(DropReason::TtlExceeded);
    }
}

fn repair(position: u8, frame: &mut Vec<u8>) {
    let Some(packet) = frame.get_mut(14..) else { return };
    // From the inside out: a checksum of GRE covers what is inside.
    for at in [44, 28, 24, 20, 40, 48] {
        if packet.get(at).is_some_and(|byte| (0x45..=0x4f).contains(byte)) {
            packets::repair_ipv4(&mut packet[at..]);
        }
    }
    if packet.first().is_some_and(|byte| byte >> 4 == 4) {
        packets::repair_ipv4(packet);
    }
    *frame = packets::frame(position, packet);
}
