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
    next: usize,
    zipf: Option<Zipf<f64>>,
}

impl Deck {
    fn new(count: usize, popularity: Popularity, random: &mut impl Rng) -> Result<Self, LoadError> {
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
        Ok(Self { flows, next: 0, zipf })
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
        let flow = self.flows[self.next];
        self.next = (self.next + 1) % self.flows.len();
        flow
    }
}

/// The order of a profile whose families (IPv4, IPv6) have these numbers of flows.
pub(super) fn order(
    profile: &Profile,
    ipv6_share: f64,
    flows: [usize; 2],
    random: &mut impl Rng,
) -> Result<Vec<Packet>, LoadError> {
    let mut decks = [
        Deck::new(flows[0], profile.popularity, random)?,
        Deck::new(flows[1], profile.popularity, random)?,
    ];
    let positions = positions(profile, ipv6_share);
    let mut mix: Vec<u16> = profile
        .sizes
        .shares()
        .iter()
        .flat_map(|&(frame_bytes, share)| std::iter::repeat_n(frame_bytes, share as usize))
        .collect();

    let mut order = Vec::with_capacity(positions);
    // The families take turns by Bresenham's rule, so that their share holds from the start.
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
        let in_burst = place
            .zip(profile.bursts)
            .is_some_and(|(place, bursts)| place > 0 && place < usize::from(bursts.packets));
        let (is_ipv6, flow) = match burst {
            Some(flow) if in_burst => flow,
            _ => {
                owed += ipv6_share;
                let is_ipv6 = owed >= 1.0 - 1e-9;
                if is_ipv6 {
                    owed -= 1.0;
                }
                (is_ipv6, decks[usize::from(is_ipv6)].deal(random))
            }
        };
        burst = Some((is_ipv6, flow));
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
    if let Some(Bursts { packets, tail }) = profile.bursts {
        let group = usize::from(packets) + usize::from(tail);
        positions = positions.saturating_mul(group).min(POSITIONS_MAX / group * group).max(group);
        return positions;
    }
    if profile.sizes.one().is_none() || (ipv6_share > 0.0 && ipv6_share < 1.0) {
        // All combinations of a flow and a place in the mix, if that is not too long.
        let whole = positions.saturating_mul(MIX);
        positions = if whole <= DRAWN_POSITIONS { whole } else { positions.next_multiple_of(MIX) };
    }
    positions
}
