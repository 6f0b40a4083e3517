//! How far packets came, by their TTL, and refusal of what came from too far or too near. See
//! `README.md`.
//!
//! ```text
//!  TTL 57 --by table--> 7 hops (from 64)       source --longest prefix--> limits 3..=20
//!                           7 within 3..=20? --> continue | too-far | too-near
//! ```
//!
//! Deliberately absent: learning. What a source's distance should be is written down by the operator,
//! who has seen the counters; a plugin that learns it learns from the forger, too.
#![deny(unsafe_code)]

mod config;

use config::Limits;
use prefixes::PrefixMap;
use sluice_sdk::{Batch, Plugin, Verdict, flags};

pub use config::{Config, INITIAL_MAX, PREFIXES_MAX};

/// The distance from which on all packets share a counter.
pub const HOPS_COUNTED: usize = 64;

/// The hops that a packet came by its TTL, given the initial ones in rising order.
#[must_use]
pub fn distance(initial: &[u8], ttl: u8) -> u8 {
    let from = initial.iter().copied().find(|initial| *initial >= ttl);
    from.unwrap_or(u8::MAX) - ttl
}

/// The plugin.
#[derive(Debug)]
pub struct HopDistance {
    /// The hops by TTL.
    hops: Box<[u8; 256]>,
    /// Which directions are judged, by number.
    directions: Box<[bool; 256]>,
    /// The position in `limits` by source.
    sources: Option<PrefixMap>,
    limits: Vec<Limits>,
    too_far: Verdict,
    too_near: Verdict,
}

#[sluice_sdk::plugin(manifest = "manifest.toml", config_capacity = 1 << 20)]
impl Plugin for HopDistance {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, String> {
        let initial = config.initial()?;
        let mut hops = Box::new([0; 256]);
        for (ttl, hops) in (0..=u8::MAX).zip(hops.iter_mut()) {
            *hops = distance(&initial, ttl);
        }
        // Few limits serve many prefixes, but as many as there are prefixes fit as well.
        let mut limits = vec![config.limits()?];
        let prefixes: Vec<_> = config
            .prefixes()?
            .into_iter()
            .map(|(net, wanted)| {
                let position = limits.iter().position(|known| *known == wanted);
                let position = position.unwrap_or_else(|| {
                    limits.push(wanted);
                    limits.len() - 1
                });
                (net, position as u16)
            })
            .collect();
        let sources = if prefixes.is_empty() {
            None
        } else {
            Some(PrefixMap::new(prefixes, 0).map_err(|error| format!("`prefixes`: {error}"))?)
        };
        let verdict = |verdict| if config.enforce { verdict } else { Verdict::CONTINUE };
        Ok(Self {
            hops,
            directions: Box::new(config.directions()?),
            sources,
            limits,
            too_far: verdict(reason::TOO_FAR.verdict()),
            too_near: verdict(reason::TOO_NEAR.verdict()),
        })
    }

    fn process(&mut self, batch: &mut Batch<'_>) {
        let (mut checked, mut too_far, mut too_near) = (0, 0, 0);
        let (packets, mut counters) = batch.split();
        for mut packet in packets {
            if !self.directions[usize::from(packet.direction)] {
                packet.set_verdict(Verdict::CONTINUE);
                continue;
            }
            let hops = self.hops[usize::from(packet.ttl)];
            let limits = match &self.sources {
                None => self.limits[0],
                Some(sources) => {
                    let is_v6 = packet.flags & flags::IPV6 != 0;
                    self.limits[usize::from(sources.get(&packet.source, is_v6))]
                }
            };
            checked += 1;
            counters.add(counter::HOPS.at(usize::from(hops).min(HOPS_COUNTED)), 1);
            packet.set_verdict(if hops > limits.max_hops {
                too_far += 1;
                self.too_far
            } else if hops < limits.min_hops {
                too_near += 1;
                self.too_near
            } else {
                Verdict::CONTINUE
            });
        }
        counters.add(counter::CHECKED, checked);
        counters.add(counter::TOO_FAR, too_far);
        counters.add(counter::TOO_NEAR, too_near);
    }
}

#[cfg(test)]
mod tests;
