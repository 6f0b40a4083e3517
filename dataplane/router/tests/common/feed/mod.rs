//! A router with a BIRD or an FRR beside it that learns routes of the Internet over BGP and tells them to the
//! kernel, and traffic that shows by which next hop each packet goes.
//!
//! ```text
//!  sender ---- lan0 [ router: sluice, BIRD ] wan0 ---- hops (their link-layer addresses tell them apart)
//!                         | bgp0
//!                   [ feeder, with routes of the Internet, each by one of five next hops ]
//! ```
//!
//! What a packet may meet is worked out from the same routes by a longest-prefix match of its own. While
//! routes change, each prefix has its old or its new next hop and nothing else; when they have settled, the
//! new one. Packets that do not arrive are counted.

#![allow(
    dead_code,
    unused_imports,
    reason = "each test file is a program of its own, and not all need everything"
)]

mod bed;
mod bird;
mod feeder;
mod frr;
mod table;
mod traffic;

pub(crate) use bed::Bed;
pub(crate) use bird::{Bird, ROUTER_BIRD, has_bird};
pub(crate) use feeder::Feeder;
pub(crate) use frr::{Frr, has_frr};
pub(crate) use table::Table;
pub(crate) use traffic::Traffic;

/// The routes are dealt to so many groups, each of which has a next hop of its own.
pub(crate) const GROUPS: usize = 5;
/// The group that moves to another next hop and back, and the one that goes and comes back.
pub(crate) const FLAPPING: usize = 3;
pub(crate) const WITHDRAWN: usize = 4;
/// The number of the next hop that the flapping group moves to.
pub(crate) const BACKUP: u8 = 9;
/// The number of the next hop of a static route, which nothing may disturb.
pub(crate) const STEADY: u8 = 20;
pub(crate) const STEADY_PREFIX: &str = "198.18.0.0/15";

/// What a group's routes lead to.
pub(crate) type Groups = [Option<u8>; GROUPS];

pub(crate) fn normal() -> Groups {
    std::array::from_fn(|group| Some(group as u8))
}

pub(crate) fn hop_mac(number: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0xbe, number]
}

fn text_of(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
