//! Which next hop of several a flow takes: a table of buckets that changes as little as it can.
//!
//! ```text
//!   flow's hash (32 bits) -- upper bits --> bucket 0 ..= BUCKETS - 1 --> next hop
//!
//!   in a bucket every next hop draws a number that depends on the bucket and on the next hop alone;
//!   the best draw, divided by the weight, has the bucket (rendezvous hashing)
//! ```
//!
//! RFC 2992 section 3 counts the flows that move when a next hop of *n* leaves: with hash-threshold, a
//! quarter to a half of all of them, although 1/*n* had to; that breaks TCP to anycast and to machines
//! that keep state. Linux's resilient groups (`ip nexthop … type resilient`) keep the table of a group and
//! hand on the buckets of the one that left. Here the same follows without a memory: a bucket changes hands
//! only if its owner leaves, or if somebody who comes, or grows, draws better. So a group is the same after
//! a flap, after a restart, and on every machine that has the same next hops on the same links.
//!
//! What it costs: shares are drawn and not dealt. A next hop's draws over all buckets are a permutation,
//! which takes off some of the error of independent ones. What is left, over 200 groups, `tests` bounds: two
//! next hops of equal weight are within 3 % of their shares, eight within 12 %, sixteen within 20 %.
//!
//! Sources: C. Hopps, RFC 2992; D. Thaler, C. Ravishankar, "Using Name-Based Mappings to Increase Hit
//! Rates", IEEE/ACM Transactions on Networking 6(1), 1998.

use std::net::IpAddr;
use std::sync::OnceLock;

use wire::InterfaceId;

/// Buckets of a group, 16 KiB: a group that is in use stays in the second-level cache. Fewer make shares
/// coarser (1024 have twice the error), more take cache from the FIB.
pub(super) const BUCKETS: usize = 4096;
const BITS: u32 = BUCKETS.trailing_zeros();
const MASK: u32 = BUCKETS as u32 - 1;

/// What a next hop's draws depend on, and its weight, at least 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) interface: InterfaceId,
    pub(super) address: IpAddr,
    pub(super) weight: u16,
}

/// The position in `members` of each bucket's owner. `members` are different and at least one.
pub(super) fn assign(members: &[Member]) -> Vec<usize> {
    let costs = costs();
    let keys: Vec<[u32; ROUNDS]> = members.iter().map(round_keys).collect();
    (0..BUCKETS as u32)
        .map(|bucket| {
            let draw = |position: &usize| {
                let rank = permute(bucket, &keys[*position]) as usize;
                // cost / weight, as a fraction that loses nothing: compared crosswise below.
                (u64::from(costs[rank]), u64::from(members[*position].weight.max(1)))
            };
            (0..members.len())
                .min_by(|a, b| {
                    let ((cost_a, weight_a), (cost_b, weight_b)) = (draw(a), draw(b));
                    let order = (cost_a * weight_b).cmp(&(cost_b * weight_a));
                    // A tie must not depend on the order in which next hops are given.
                    order.then_with(|| keys[*a].cmp(&keys[*b]))
                })
                .unwrap_or_default()
        })
        .collect()
}

const ROUNDS: usize = 6;

/// A permutation of all buckets: an unbalanced Feistel network would need two widths, so the halves are
/// equal and the bits even.
const fn permute(bucket: u32, keys: &[u32; ROUNDS]) -> u32 {
    const HALF: u32 = BITS / 2;
    const HALF_MASK: u32 = (1 << HALF) - 1;
    let (mut left, mut right) = (bucket >> HALF, bucket & HALF_MASK);
    let mut round = 0;
    while round < ROUNDS {
        let mixed = (right ^ keys[round]).wrapping_mul(0x9e37_79b1).rotate_left(15);
        let mixed = (mixed ^ mixed >> 13).wrapping_mul(0x85eb_ca77);
        (left, right) = (right, left ^ (mixed >> 16 & HALF_MASK));
        round += 1;
    }
    (left << HALF | right) & MASK
}

/// Keys for the rounds, from the next hop's address and link.
fn round_keys(member: &Member) -> [u32; ROUNDS] {
    let address = match member.address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    };
    let mut state = (address >> 64) as u64;
    state = splitmix(&mut state) ^ address as u64;
    state = splitmix(&mut state) ^ u64::from(member.interface.0);
    std::array::from_fn(|_| (splitmix(&mut state) >> 32) as u32)
}

/// The generator of G. Steele, D. Lea, C. Flood, "Fast Splittable Pseudorandom Number Generators" (2014).
const fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

/// What a draw costs: -log2((rank + 1/2) / BUCKETS) in units of 2^-20. The least of costs over weights is
/// then each next hop's as often as its weight says (the minimum of exponentially distributed times).
fn costs() -> &'static [u32; BUCKETS] {
    static COSTS: OnceLock<Box<[u32; BUCKETS]>> = OnceLock::new();
    COSTS.get_or_init(|| {
        let cost = |rank: usize| (BITS + 1) * FRACTION - log2(2 * rank as u32 + 1);
        Box::new(std::array::from_fn(cost))
    })
}

const FRACTION_BITS: u32 = 20;
const FRACTION: u32 = 1 << FRACTION_BITS;

/// log2 of a number of at most 16 bits, in units of 2^-20, rounded down: in integers, so that all
/// machines agree. (C. Turner, "A Fast Binary Logarithm Algorithm", IEEE Signal Processing Magazine 27(5),
/// 2010.)
fn log2(number: u32) -> u32 {
    let whole = number.ilog2();
    let mut fraction = u64::from(number) << (31 - whole);
    let mut result = whole * FRACTION;
    for bit in (0..FRACTION_BITS).rev() {
        fraction = (fraction * fraction) >> 31;
        if fraction >= 1 << 32 {
            fraction >>= 1;
            result |= 1 << bit;
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(weights: &[u16]) -> Vec<Member> {
        (1..)
            .zip(weights)
            .map(|(last, &weight)| Member {
                interface: InterfaceId(0),
                address: IpAddr::from([192, 0, 2, last]),
                weight,
            })
            .collect()
    }

    fn shares(members: &[Member]) -> Vec<usize> {
        let mut shares = vec![0; members.len()];
        assign(members).into_iter().for_each(|owner| shares[owner] += 1);
        shares
    }

    #[test]
    fn the_logarithm_is_that_of_mathematics() {
        for number in [1_u32, 2, 3, 5, 1000, 2047, 65_535] {
            let exact = f64::from(number).log2() * f64::from(FRACTION);
            assert!((f64::from(log2(number)) - exact).abs() < 2.0, "{number}");
        }
    }

    #[test]
    fn draws_are_permutations() {
        for member in members(&[1; 50]) {
            let keys = round_keys(&member);
            let mut seen = [false; BUCKETS];
            for bucket in 0..BUCKETS as u32 {
                let rank = permute(bucket, &keys) as usize;
                assert!(!std::mem::replace(&mut seen[rank], true), "{rank} twice");
            }
        }
    }

    /// Over many groups of other addresses the share of a next hop is what its weight says, and no
    /// group is far from it.
    #[test]
    fn shares_follow_weights() {
        for (weights, tolerance) in [
            (&[1, 1][..], 0.03),
            (&[1, 1, 1], 0.05),
            (&[1; 8], 0.12),
            (&[1; 16], 0.20),
            (&[3, 1], 0.06),
            (&[1, 2, 3, 4], 0.15),
            (&[256, 1], 0.60),
        ] {
            let total: u32 = weights.iter().map(|&weight| u32::from(weight)).sum();
            let (mut sums, mut worst) = (vec![0; weights.len()], 0.0_f64);
            const GROUPS: usize = 200;
            for third in 0..GROUPS as u8 {
                let mut members = members(weights);
                for member in &mut members {
                    let IpAddr::V4(address) = member.address else { unreachable!() };
                    let [a, b, _, d] = address.octets();
                    member.address = IpAddr::from([a, b, third, d]);
                }
                for ((share, &weight), sum) in
                    shares(&members).into_iter().zip(weights).zip(&mut sums)
                {
                    let expected = BUCKETS as f64 * f64::from(weight) / f64::from(total);
                    worst = worst.max((share as f64 / expected - 1.0).abs());
                    *sum += share;
                }
            }
            assert!(worst < tolerance, "{weights:?}: off by {worst}");
            for (sum, &weight) in sums.into_iter().zip(weights) {
                let share = sum as f64 / (GROUPS * BUCKETS) as f64;
                let expected = f64::from(weight) / f64::from(total);
                assert!(
                    (share / expected - 1.0).abs() < 0.03,
                    "{weights:?}: {share} of {expected}"
                );
            }
        }
    }

    /// The property for which the table is there, exactly.
    #[test]
    fn only_the_buckets_of_a_next_hop_that_leaves_change_hands() {
        let all = members(&[1, 5, 2, 1, 1, 9, 1]);
        let before = assign(&all);
        for gone in 0..all.len() {
            let rest: Vec<Member> =
                (0..all.len()).filter(|at| *at != gone).map(|at| all[at]).collect();
            let after = assign(&rest);
            for bucket in 0..BUCKETS {
                let owner = rest[after[bucket]].address;
                if before[bucket] == gone {
                    assert_ne!(owner, all[gone].address);
                } else {
                    assert_eq!(owner, all[before[bucket]].address, "bucket {bucket} moved");
                }
            }
        }
    }

    #[test]
    fn a_next_hop_that_gains_weight_takes_buckets_and_no_others_move() {
        let (mut all, mut before) = (members(&[2, 2, 2, 2]), Vec::new());
        for weight in 2..20 {
            all[1].weight = weight;
            let after = assign(&all);
            for (bucket, (&was, &is)) in before.iter().zip(&after).enumerate() {
                assert!(was == is || is == 1, "bucket {bucket} went from {was} to {is}");
            }
            before = after;
        }
    }

    #[test]
    fn the_order_of_next_hops_says_nothing() {
        let all = members(&[1, 2, 3, 1, 1]);
        let addresses = |members: &[Member]| -> Vec<IpAddr> {
            assign(members).into_iter().map(|owner| members[owner].address).collect()
        };
        let mut turned = all.clone();
        turned.reverse();
        assert_eq!(addresses(&all), addresses(&turned));
    }
}
