//! What the configuration says, checked and ready for use.

use ipnet::IpNet;
use serde::Deserialize;
use sluice_sdk::direction;

/// The most prefixes with limits of their own.
pub const PREFIXES_MAX: usize = 4096;
/// The most initial TTLs.
pub const INITIAL_MAX: usize = 8;

/// The configuration.
#[derive(Clone, Debug, Deserialize)]
pub struct Config {
    min_hops: Option<u8>,
    max_hops: Option<u8>,
    initial: Option<Vec<u8>>,
    directions: Option<Vec<Direction>>,
    #[serde(default)]
    prefixes: Vec<PrefixConfig>,
    #[serde(default = "yes")]
    pub(crate) enforce: bool,
}

#[derive(Clone, Debug, Deserialize)]
struct PrefixConfig {
    prefix: String,
    min_hops: Option<u8>,
    max_hops: Option<u8>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Direction {
    Transit,
    Outbound,
    Inbound,
}

/// From how far packets may come, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) min_hops: u8,
    pub(crate) max_hops: u8,
}

fn yes() -> bool {
    true
}

impl Limits {
    fn new(place: &str, min_hops: Option<u8>, max_hops: Option<u8>) -> Result<Self, String> {
        let limits =
            Self { min_hops: min_hops.unwrap_or(0), max_hops: max_hops.unwrap_or(u8::MAX) };
        if limits.min_hops > limits.max_hops {
            return Err(format!(
                "`{place}min_hops` is above `{place}max_hops`: nothing would pass"
            ));
        }
        Ok(limits)
    }
}

impl Config {
    /// The limits of sources that no prefix holds.
    pub(crate) fn limits(&self) -> Result<Limits, String> {
        Limits::new("", self.min_hops, self.max_hops)
    }

    /// Initial TTLs, rising, of which the last is 255.
    pub(crate) fn initial(&self) -> Result<Vec<u8>, String> {
        let mut initial = self.initial.clone().unwrap_or_else(|| vec![32, 64, 128, 255]);
        if initial.len() > INITIAL_MAX {
            return Err(format!("`initial`: more than {INITIAL_MAX}"));
        }
        let mut before = 0;
        for (index, ttl) in initial.iter().enumerate() {
            if *ttl <= before {
                return Err(format!("`initial[{index}]`: {ttl} is not above {before}"));
            }
            before = *ttl;
        }
        if before != u8::MAX {
            initial.push(u8::MAX);
        }
        Ok(initial)
    }

    /// Which directions are judged, by number.
    pub(crate) fn directions(&self) -> Result<[bool; 256], String> {
        let usual = [Direction::Inbound, Direction::Transit];
        let directions = self.directions.as_deref().unwrap_or(&usual);
        if directions.is_empty() {
            return Err("`directions`: the list is empty, and nothing would be judged".to_owned());
        }
        let mut judged = [false; 256];
        for named in directions {
            let number = match named {
                Direction::Transit => direction::TRANSIT,
                Direction::Outbound => direction::OUTBOUND,
                Direction::Inbound => direction::INBOUND,
            };
            judged[usize::from(number)] = true;
        }
        Ok(judged)
    }

    /// Prefixes with limits of their own.
    pub(crate) fn prefixes(&self) -> Result<Vec<(IpNet, Limits)>, String> {
        if self.prefixes.len() > PREFIXES_MAX {
            return Err(format!("`prefixes`: more than {PREFIXES_MAX}"));
        }
        let mut prefixes: Vec<(IpNet, Limits)> = Vec::new();
        for (index, config) in self.prefixes.iter().enumerate() {
            let place = format!("prefixes[{index}].");
            let net = ::prefixes::parse(&config.prefix)
                .map_err(|error| format!("`{place}prefix`: {error}"))?;
            prefixes.push((net, Limits::new(&place, config.min_hops, config.max_hops)?));
        }
        let mut nets: Vec<_> = prefixes.iter().map(|(net, _)| *net).collect();
        nets.sort_unstable();
        match nets.windows(2).find(|two| two[0] == two[1]) {
            Some(two) => Err(format!("`prefixes`: {} stands there twice", two[0])),
            None => Ok(prefixes),
        }
    }
}
