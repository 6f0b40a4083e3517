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

/// Where the generators of instances get their seeds from.
#[derive(Debug)]
pub(crate) enum Seeds {
    /// From the operating system.
    System,
    /// One after the other from this number on, so that a run can be repeated.
    Fixed(AtomicU64),
}

impl Seeds {
    pub(crate) fn new(fixed: Option<u64>) -> Self {
        fixed.map_or(Self::System, |seed| Self::Fixed(AtomicU64::new(seed)))
    }

    /// The generator of another instance.
    pub(crate) fn generator(&self) -> Result<ChaCha8Rng, PluginFault> {
        match self {
            Self::System => ChaCha8Rng::try_from_os_rng()
                .map_err(|error| PluginFault::Randomness(error.to_string())),
            Self::Fixed(next) => {
                Ok(ChaCha8Rng::seed_from_u64(next.fetch_add(1, Ordering::Relaxed)))
            }
        }
    }
}

pub(super) fn random(mut caller: Caller<'_, HostState>) -> i64 {
    caller.data_mut().random.next_u64().cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(seeds: &Seeds) -> u64 {
        seeds.generator().expect("a seed").next_u64()
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
