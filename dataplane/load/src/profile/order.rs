//! In which order the packets of a profile come.

use rand::Rng;
use rand::distr::Distribution;
use rand::seq::SliceRandom;
use rand_distr::Zipf;

use super::{Bursts, Popularity, Profile};
use crate::LoadError;

/// Positions of an order that is drawn rather than dealt out: enough that the frequencies of a
/// thousand flows come out to some percent; 4 MiB.
const DRAWN_POSITIONS: usize = 1 << 20;

/// The most positions of an order, 16 MiB. Bursts of a million flows would need more: then the
/// first flows of the shuffled deck have bursts, and all of them are in the tails.
const POSITIONS_MAX: usize = 1 << 22;

/// Packets over which a mix of sizes is exact.
const MIX: usize = 100;

/// One position of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Packet {
    pub(super) is_ipv6: bool,
    pub(super) flow: usize,
    pub(super) frame_bytes: u16,
}

/// Deals out flows of one family: all of a shuffled deck before it starts again, or drawn by Zipf.
struct Deck {
    flows: Vec<usize>,
    dealt: usize,
    /// After so many flows, a whole number of turns of the deck, one is left out.
    period: usize,
    zipf: Option<Zipf<f64>>,
}

impl Deck {
    /// A deck of `count` flows of which `draws` at a time belong together: one for a burst, and those
    /// of its tail. If that divided the deck evenly, the same flows would have all the bursts, hence
    /// the flow that is left out now and then.
    fn new(
        count: usize,
        draws: usize,
        popularity: Popularity,
        random: &mut impl Rng,
    ) -> Result<Self, LoadError> {
        let mut flows: Vec<usize> = (0..count).collect();
        flows.shuffle(random);
        #[expect(clippy::cast_precision_loss, reason = "a few million flows")]
        let zipf = match popularity {
            Popularity::Zipf(exponent) if count > 0 => {
                Some(Zipf::new(count as f64, exponent).map_err(|error| {
                    LoadError::Plan(format!("Zipf's exponent {exponent}: {error}"))
                })?)
            }
            _ => None,
        };
        let period =
            if draws > 1 { count / common_divisor(count, draws) * draws } else { usize::MAX };
        Ok(Self { flows, dealt: 0, period: period.max(1), zipf })
    }

    fn deal(&mut self, random: &mut impl Rng) -> usize {
        if let Some(zipf) = &self.zipf {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a rank from 1 to the number of flows"
            )]
            let rank = zipf.sample(random) as usize;
            return self.flows[(rank - 1).min(self.flows.len() - 1)];
        }
        let place = self.dealt + self.dealt / self.period;
        self.dealt += 1;
        self.flows[place % self.flows.len()]
    }
}

/// The order of a profile whose families (IPv4, IPv6) have these numbers of flows.
pub(super) fn order(
    profile: &Profile,
    ipv6_share: f64,
    flows: [usize; 2],
    random: &mut impl Rng,
) -> Result<Vec<Packet>, LoadError> {
    let draws = profile.bursts.map_or(1, |bursts| 1 + usize::from(bursts.tail));
    let mut decks = [
        Deck::new(flows[0], draws, profile.popularity, random)?,
        Deck::new(flows[1], draws, profile.popularity, random)?,
    ];
    let positions = positions(profile, ipv6_share);
    let mut mix: Vec<u16> = profile
        .sizes
        .shares()
        .iter()
        .flat_map(|&(frame_bytes, share)| std::iter::repeat_n(frame_bytes, share as usize))
        .collect();

    let mut order = Vec::with_capacity(positions);
    // The families take turns by Bresenham's rule, so that their share holds from the start. It is one
    // of packets: a burst takes what its family is owed, and more of the other one follows.
    let mut owed = 0.0;
    let mut burst: Option<(bool, usize)> = None;
    while order.len() < positions {
        let position = order.len();
        if position.is_multiple_of(MIX) {
            mix.shuffle(random);
        }
        let place = profile
            .bursts
            .map(|bursts| position % (usize::from(bursts.packets) + usize::from(bursts.tail)));
        let packets = profile.bursts.map_or(1, |bursts| usize::from(bursts.packets));
        owed += ipv6_share;
        let (is_ipv6, flow) = match (place.unwrap_or(0), burst) {
            (1.., Some(burst)) if place < Some(packets) => burst,
            _ => {
                let is_ipv6 = owed >= 1.0 - 1e-9;
                (is_ipv6, decks[usize::from(is_ipv6)].deal(random))
            }
        };
        burst = Some((is_ipv6, flow));
        if is_ipv6 {
            owed -= 1.0;
        }
        order.push(Packet { is_ipv6, flow, frame_bytes: mix[position % mix.len()] });
    }
    Ok(order)
}

/// Length of an order: every flow comes as often as it should, and mixes come out even.
fn positions(profile: &Profile, ipv6_share: f64) -> usize {
    let mut positions = profile.flows;
    if matches!(profile.popularity, Popularity::Zipf(_)) {
        positions = positions.max(DRAWN_POSITIONS);
    }
    let is_mixed = profile.sizes.one().is_none() || (ipv6_share > 0.0 && ipv6_share < 1.0);
    if let Some(Bursts { packets, tail }) = profile.bursts {
        let group = usize::from(packets) + usize::from(tail);
        positions = positions.saturating_mul(group);
        let mut whole = group;
        if is_mixed {
            // A family is ahead by a burst at most, which has to vanish in the whole.
            positions = positions.max(DRAWN_POSITIONS);
            let even = group / common_divisor(group, MIX) * MIX;
            whole = if even <= POSITIONS_MAX { even } else { group };
        }
        return positions
            .min(POSITIONS_MAX)
            .next_multiple_of(whole)
            .min(POSITIONS_MAX / whole * whole);
    }
    if is_mixed {
        // All combinations of a flow and a place in the mix, if that is not too long.
        let whole = positions.saturating_mul(MIX);
        positions = if whole <= DRAWN_POSITIONS { whole } else { positions.next_multiple_of(MIX) };
    }
    positions
}

/// The greatest common divisor of two numbers above 0 (Euclid).
fn common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { common_divisor(b, a % b) }
}
