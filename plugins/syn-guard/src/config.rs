//! What the configuration says, checked and with what it leaves out.

use serde::Deserialize;
use sluice_sdk::direction;

/// The configuration.
#[derive(Clone, Debug, Deserialize)]
pub struct Config {
    syn_per_s: f64,
    burst: Option<u32>,
    fallback_per_s: Option<f64>,
    destinations: Option<u32>,
    half_open_max: Option<u32>,
    half_open_s: Option<u32>,
    half_open_entries: Option<u32>,
    verified_s: Option<u32>,
    retry_min_ms: Option<u32>,
    entries: Option<u32>,
    sources: Option<u32>,
    proof: Option<ProofBy>,
    answers: Option<u32>,
    directions: Option<Vec<Direction>>,
}

/// What completes a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ProofBy {
    /// Any ACK of the client.
    Ack,
    /// One that acknowledges the server's answer.
    Answer,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Direction {
    Transit,
    Outbound,
    Inbound,
}

/// The same with every value known and in its range.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// SYNs a second to one destination that begin a handshake without being challenged.
    pub(crate) syn_per_s: f64,
    /// As many of them at once.
    pub(crate) burst: u32,
    /// SYNs a second to one destination that pass a challenge that cannot be remembered.
    pub(crate) fallback_per_s: f64,
    /// Destinations whose rates are kept apart.
    pub(crate) destinations: u32,
    /// Handshakes that a source may leave half-open; 0 for any number.
    pub(crate) half_open_max: u32,
    /// How long a handshake counts as half-open, in seconds.
    pub(crate) half_open_s: u32,
    /// Half-open handshakes that are counted, of all sources and on all workers.
    pub(crate) half_open_entries: u32,
    /// How long a source that completed a handshake is trusted, in seconds.
    pub(crate) verified_s: u32,
    /// How soon a challenged SYN may be repeated, in milliseconds.
    pub(crate) retry_min_ms: u32,
    /// Handshakes that a worker remembers.
    pub(crate) entries: u32,
    /// Sources that a worker remembers.
    pub(crate) sources: u32,
    /// What completes a handshake.
    pub(crate) proof: ProofBy,
    /// Answers that are remembered until they are acknowledged, on all workers.
    pub(crate) answers: u32,
    /// Which directions are guarded, by number.
    pub(crate) directions: [bool; 256],
}

fn whole(key: &str, value: Option<u32>, least: u32, most: u32, usual: u32) -> Result<u32, String> {
    let value = value.unwrap_or(usual);
    if !(least..=most).contains(&value) {
        return Err(format!("`{key}`: {value} is not from {least} to {most}"));
    }
    Ok(value)
}

fn rate(key: &str, value: f64) -> Result<f64, String> {
    if !(0.001..=1e9).contains(&value) {
        return Err(format!("`{key}`: {value} is not from 0.001 to 1000000000 SYNs a second"));
    }
    Ok(value)
}

impl Config {
    pub(crate) fn settings(&self) -> Result<Settings, String> {
        let syn_per_s = rate("syn_per_s", self.syn_per_s)?;
        let twice = (syn_per_s as u32).saturating_mul(2).max(1);
        let quarter = (syn_per_s / 4.0).max(0.001);
        let usual = [Direction::Inbound, Direction::Transit];
        let named = self.directions.as_deref().unwrap_or(&usual);
        if named.is_empty() {
            return Err("`directions`: the list is empty, and nothing would be judged".to_owned());
        }
        let mut directions = [false; 256];
        for named in named {
            let number = match named {
                Direction::Transit => direction::TRANSIT,
                Direction::Outbound => direction::OUTBOUND,
                Direction::Inbound => direction::INBOUND,
            };
            directions[usize::from(number)] = true;
        }
        Ok(Settings {
            syn_per_s,
            burst: whole("burst", self.burst, 1, u32::MAX, twice)?,
            fallback_per_s: rate("fallback_per_s", self.fallback_per_s.unwrap_or(quarter))?,
            destinations: whole("destinations", self.destinations, 1, 1 << 22, 4096)?,
            half_open_max: whole("half_open_max", self.half_open_max, 0, 65_536, 0)?,
            half_open_s: whole("half_open_s", self.half_open_s, 1, 600, 20)?,
            half_open_entries: whole(
                "half_open_entries",
                self.half_open_entries,
                8,
                1 << 22,
                1 << 17,
            )?,
            verified_s: whole("verified_s", self.verified_s, 0, 86_400, 600)?,
            retry_min_ms: whole("retry_min_ms", self.retry_min_ms, 0, 900, 500)?,
            entries: whole("entries", self.entries, 8, 1 << 20, 1 << 16)?,
            sources: whole("sources", self.sources, 8, 1 << 19, 1 << 14)?,
            proof: self.proof.unwrap_or(ProofBy::Ack),
            answers: whole("answers", self.answers, 8, 1 << 22, 1 << 17)?,
            directions,
        })
    }
}
