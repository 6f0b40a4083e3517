//! Which five-tuples a profile has, all of them different.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use rand::Rng;

use super::address::Addresses;
use super::packet::Flow;
use super::slice::SliceRange;
use crate::LoadError;

/// Ports that sources use, and destinations unless something else is asked for.
pub const PORTS: RangeInclusive<u16> = 1024..=65535;

/// Where packets go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destinations {
    /// To any port of a range, of any of these addresses.
    Addresses(Addresses, RangeInclusive<u16>),
    /// To slices, one after the other, so that each gets as many flows as any other; within a slice
    /// to any of its ports.
    Slices(Vec<SliceRange>),
}

impl Destinations {
    /// Whether there are destinations of the family.
    #[must_use]
    pub fn has_family(&self, is_ipv6: bool) -> bool {
        match self {
            Self::Addresses(addresses, _) => addresses.has_family(is_ipv6),
            Self::Slices(slices) => slices.iter().any(|slice| slice.address.is_ipv6() == is_ipv6),
        }
    }

    /// How many different destinations of the family there are, at most `u64::MAX`.
    fn count(&self, is_ipv6: bool) -> u64 {
        match self {
            Self::Addresses(addresses, ports) => {
                addresses.count(is_ipv6).saturating_mul(ports.len() as u64)
            }
            Self::Slices(slices) => slices
                .iter()
                .filter(|slice| slice.address.is_ipv6() == is_ipv6)
                .map(|slice| u64::from(slice.last - slice.first) + 1)
                .sum(),
        }
    }
}

/// So many draws in a row that give no new flow say that there is none left. Where half of the flows
/// are still to be had, they all fail once in 2^1000 times.
const DRAWS_IN_VAIN_MAX: u32 = 1000;

/// Draws `count` different flows of one family.
///
/// # Errors
/// [`LoadError::Plan`] when there are not that many.
pub(super) fn draw_flows(
    sources: &Addresses,
    destinations: &Destinations,
    is_ipv6: bool,
    count: usize,
    random: &mut impl Rng,
) -> Result<Vec<Flow>, LoadError> {
    let family = if is_ipv6 { "IPv6" } else { "IPv4" };
    let possible = (sources.count(is_ipv6).saturating_mul(PORTS.len() as u64))
        .saturating_mul(destinations.count(is_ipv6));
    // Drawing goes on until a flow is new: with most of them taken that would not end in time.
    if possible / 2 < count as u64 {
        return Err(LoadError::Plan(format!(
            "{count} {family} flows are too many: sources and destinations give {possible} \
             five-tuples, of which half can be drawn; widen --src or --dst"
        )));
    }
    let mut in_vain = 0;
    let slices: Vec<SliceRange> = match destinations {
        Destinations::Slices(slices) => {
            slices.iter().filter(|slice| slice.address.is_ipv6() == is_ipv6).copied().collect()
        }
        Destinations::Addresses(..) => Vec::new(),
    };
    let mut seen = HashSet::with_capacity(count);
    let mut flows = Vec::with_capacity(count);
    while flows.len() < count {
        let Some(source) = sources.draw(is_ipv6, random) else { break };
        let source = SocketAddr::new(source, random.random_range(PORTS));
        let destination: Option<(IpAddr, u16)> = match destinations {
            Destinations::Addresses(addresses, ports) => addresses
                .draw(is_ipv6, random)
                .map(|address| (address, random.random_range(ports.clone()))),
            Destinations::Slices(_) => slices
                .get(flows.len() % slices.len().max(1))
                .map(|slice| (slice.address, random.random_range(slice.first..=slice.last))),
        };
        let Some(destination) = destination else { break };
        let flow = Flow { source, destination: destination.into() };
        if seen.insert(flow) {
            flows.push(flow);
            in_vain = 0;
            continue;
        }
        in_vain += 1;
        if in_vain == DRAWS_IN_VAIN_MAX {
            // Prefixes or slices overlap, or one slice has fewer ports than its part of the flows.
            return Err(LoadError::Plan(format!(
                "{count} {family} flows are too many: after {} of them there is no other for the next \
                 place; widen --src, or --dst or the smallest slice, and name nothing twice",
                flows.len()
            )));
        }
    }
    Ok(flows)
}
