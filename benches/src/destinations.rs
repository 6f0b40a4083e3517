//! Destinations to look up: how they are spread decides how much of a table is in the caches.

use ipnet::{Ipv4Net, Ipv6Net};
use tables::RouteId;

use crate::random::Random;

/// Destinations of one list: far more than caches hold.
pub const COUNT: usize = 1 << 20;

/// How destinations are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// Over the whole address space.
    Random,
    /// Within routes, each route as often as any other.
    InPrefix,
    /// A million addresses within routes, the n-th of them with a share of 1/n, as flows are (G. K.
    /// Zipf; V. Paxson, S. Floyd, "Wide-area traffic", 1995).
    Zipf,
}

impl Spread {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Random, Self::InPrefix, Self::Zipf];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::InPrefix => "in-prefix",
            Self::Zipf => "zipf",
        }
    }
}

fn spread<A: Copy>(
    spread: Spread,
    anywhere: impl Fn(&mut Random) -> A,
    in_prefix: impl Fn(&mut Random) -> A,
) -> Vec<A> {
    let mut random = Random(1);
    match spread {
        Spread::Random => (0..COUNT).map(|_| anywhere(&mut random)).collect(),
        Spread::InPrefix => (0..COUNT).map(|_| in_prefix(&mut random)).collect(),
        Spread::Zipf => {
            let flows: Vec<A> = (0..COUNT).map(|_| in_prefix(&mut random)).collect();
            // The harmonic distribution's inverse, but for a constant.
            let rank = |random: &mut Random| (COUNT as f64).powf(random.unit()) as usize - 1;
            (0..COUNT).map(|_| flows[rank(&mut random)]).collect()
        }
    }
}

/// IPv4 destinations for these routes.
#[must_use]
pub fn v4(kind: Spread, routes: &[(Ipv4Net, RouteId)]) -> Vec<u32> {
    let in_prefix = |random: &mut Random| {
        let (prefix, _) = random.pick(routes);
        prefix.network().to_bits() | (random.next() as u32 & prefix.hostmask().to_bits())
    };
    spread(kind, |random| random.next() as u32, in_prefix)
}

/// IPv6 destinations for these routes. Those anywhere are in 2000::/3, where the Internet is.
#[must_use]
pub fn v6(kind: Spread, routes: &[(Ipv6Net, RouteId)]) -> Vec<u128> {
    let in_prefix = |random: &mut Random| {
        let (prefix, _) = random.pick(routes);
        prefix.network().to_bits() | (random.wide() & prefix.hostmask().to_bits())
    };
    spread(kind, |random| 1 << 125 | random.wide() >> 3, in_prefix)
}
