//! `random`: a generator for each instance, which nobody outside can guess.
//!
//! ChaCha8 rather than something quicker: what a plugin draws may decide which packets pass, and an
//! attacker sees that. It costs some 3 ns a number.

use std::sync::atomic::{AtomicU64, Ordering};

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore as _, SeedableRng as _},
};
use wasmtime::Caller;

use super::HostState;
use crate::PluginFault;

/// The generator of one instance.
#[derive(Clone, Debug)]
pub(crate) enum Generator {
    /// What nobody can guess.
    ChaCha(Box<ChaCha8Rng>),
    /// `SplitMix64` (Steele, Lea, Flood 2014), as the SDK's double has it: for rehearsals, which compare
    /// the two.
    SplitMix(u64),
}

impl Generator {
    #[inline]
    fn next(&mut self) -> u64 {
        match self {
            Self::ChaCha(generator) => generator.next_u64(),
            Self::SplitMix(state) => {
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut z = *state;
                z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                z ^ (z >> 31)
            }
        }
    }
}

/// Where the generators of instances get their seeds from.
#[derive(Debug)]
pub(crate) enum Seeds {
    /// From the operating system.
    System,
    /// One after the other from this number on, so that a run can be repeated.
    Fixed(AtomicU64),
    /// All from this one, with the SDK's generator.
    Rehearsed(u64),
}

impl Seeds {
    pub(crate) fn new(fixed: Option<u64>) -> Self {
        fixed.map_or(Self::System, |seed| Self::Fixed(AtomicU64::new(seed)))
    }

    /// The generator of another instance.
    pub(crate) fn generator(&self) -> Result<Generator, PluginFault> {
        match self {
            Self::System => ChaCha8Rng::try_from_os_rng()
                .map(|generator| Generator::ChaCha(Box::new(generator)))
                .map_err(|error| PluginFault::Randomness(error.to_string())),
            Self::Fixed(next) => {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                Ok(Generator::ChaCha(Box::new(ChaCha8Rng::seed_from_u64(seed))))
            }
            Self::Rehearsed(seed) => Ok(Generator::SplitMix(*seed)),
        }
    }
}

pub(super) fn random(mut caller: Caller<'_, HostState>) -> i64 {
    caller.data_mut().random.next().cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(seeds: &Seeds) -> u64 {
        seeds.generator().expect("a seed").next()
    }

    #[test]
    fn fixed_seeds_repeat_and_no_two_instances_draw_alike() {
        let run = || {
            let seeds = Seeds::new(Some(7));
            [first(&seeds), first(&seeds)]
        };
        assert_eq!(run(), run());
        assert_ne!(run()[0], run()[1]);
        let system = Seeds::new(None);
        assert_ne!(first(&system), first(&system));
    }
}
