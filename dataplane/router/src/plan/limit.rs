//! [`MaxChanged`]: how much a reload may change.

use std::fmt;
use std::str::FromStr;

use super::report::Share;

/// How much may change: `0.1%` is a part of the packets that samples stand for, `10 flows` a number of
/// flows in the sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum MaxChanged {
    /// Percent of the packets, 0 to 100.
    Percent(f64),
    /// Flows.
    Flows(u64),
}

impl FromStr for MaxChanged {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("{text:?}: such as 0.1% of the packets, or '10 flows'");
        let text = text.trim();
        if let Some(number) = text.strip_suffix('%') {
            let percent: f64 = number.trim().parse().map_err(|_| expected())?;
            // A comparison that refuses what is no number too.
            return if (0.0..=100.0).contains(&percent) {
                Ok(Self::Percent(percent))
            } else {
                Err(expected())
            };
        }
        let number = text.strip_suffix("flows").or(text.strip_suffix("flow"));
        let number = number.ok_or_else(expected)?.trim();
        number.parse().map(Self::Flows).map_err(|_| expected())
    }
}

impl fmt::Display for MaxChanged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Flows(flows) => write!(f, "{flows} flows"),
        }
    }
}

impl MaxChanged {
    /// Whether this is more than may change.
    pub(crate) fn is_exceeded(&self, changed: &Share) -> bool {
        match *self {
            Self::Percent(percent) => changed.percent > percent,
            Self::Flows(flows) => changed.flows > flows,
        }
    }
}
