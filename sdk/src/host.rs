//! What the host does for a plugin: log lines, and meters that all workers share. Natively, both are
//! done here, with the host's own arithmetic, so that tests see what the router would do.

/// Writes a line to the router's log. `level` is 1 for an error, 2 a warning, 3 information, 4
/// debugging. Needs the capability `log`. At most 16 lines a second of 240 bytes each are kept.
pub fn log(level: i32, text: &str) {
    imp::log(level, text);
}

/// Token buckets by key, shared by the plugin's instances on all workers: the rate holds for the
/// whole router. The buckets go on when the plugin is reloaded with the same number of entries.
/// Needs the capability `meter`.
#[derive(Debug)]
pub struct Meter(imp::Meter);

impl Meter {
    /// Opens a meter: `rate_per_s_milli` thousandths of a token a second for each key, up to `burst`
    /// tokens at once. Of keys in use at the same time it keeps about `entries` apart; give it twice
    /// as many as are expected. Only [`Plugin::configure`](crate::Plugin::configure) may open one.
    ///
    /// # Errors
    /// Says which argument is out of range.
    pub fn open(rate_per_s_milli: i64, burst: i64, entries: u32) -> Result<Self, String> {
        use sluice_abi::meter::{RateError, open_error};
        imp::Meter::open(rate_per_s_milli, burst, entries).map(Self).map_err(|code| {
            let text = if code == RateError::Rate as i32 {
                "the rate must be from 0.001 to 2000000000 a second"
            } else if code == RateError::Burst as i32 {
                "the burst must be positive and filled within a year"
            } else if code == open_error::ENTRIES {
                "the number of entries must be from 1 to 4194304"
            } else if code == open_error::TOO_MANY {
                "a plugin may open 16 meters"
            } else {
                "a meter can be opened by `configure` only"
            };
            text.to_owned()
        })
    }

    /// Takes one token for each key, in order, and says in `admitted` for which there was one (1) or
    /// none (0). At most [`BATCH_MAX`](crate::BATCH_MAX) keys.
    ///
    /// # Panics
    /// If there are more keys than that, or fewer places in `admitted` than keys.
    pub fn take(&mut self, keys: &[[u8; 16]], now_ns: u64, admitted: &mut [u8]) {
        assert!(keys.len() <= sluice_abi::BATCH_MAX && admitted.len() >= keys.len());
        self.0.take(keys, now_ns, None, admitted);
    }

    /// Takes `costs[i]` tokens for key number i: as [`Self::take`] else.
    ///
    /// # Panics
    /// As [`Self::take`], or if there are fewer costs than keys.
    pub fn take_costs(
        &mut self,
        keys: &[[u8; 16]],
        costs: &[u32],
        now_ns: u64,
        admitted: &mut [u8],
    ) {
        assert!(keys.len() <= sluice_abi::BATCH_MAX && admitted.len() >= keys.len());
        assert!(costs.len() >= keys.len());
        self.0.take(keys, now_ns, Some(costs), admitted);
    }
}

#[cfg(target_family = "wasm")]
use crate::glue::host as imp;

#[cfg(not(target_family = "wasm"))]
mod imp {
    use std::collections::HashMap;

    use sluice_abi::meter::{Rate, open_error, units};

    pub(super) fn log(level: i32, text: &str) {
        eprintln!("plugin log, level {level}: {text}");
    }

    /// A bucket for every key: what the host's table is as long as it has room.
    #[derive(Debug)]
    pub(super) struct Meter {
        rate: Rate,
        tats: HashMap<[u8; 16], u64>,
    }

    impl Meter {
        pub(super) fn open(rate_milli: i64, burst: i64, entries: u32) -> Result<Self, i32> {
            let rate = Rate::new(rate_milli, burst).map_err(|error| error as i32)?;
            if entries == 0 || entries > 1 << 22 {
                return Err(open_error::ENTRIES);
            }
            Ok(Self { rate, tats: HashMap::new() })
        }

        pub(super) fn take(
            &mut self,
            keys: &[[u8; 16]],
            now_ns: u64,
            costs: Option<&[u32]>,
            admitted: &mut [u8],
        ) {
            for (index, (key, admitted)) in keys.iter().zip(admitted).enumerate() {
                let cost = costs.map_or(1, |costs| costs[index]);
                let tat = self.tats.entry(*key).or_default();
                let next = self.rate.take(*tat, units(now_ns), cost);
                *admitted = u8::from(next.is_some());
                *tat = next.unwrap_or(*tat);
            }
        }
    }
}
