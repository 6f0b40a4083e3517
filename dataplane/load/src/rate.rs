//! The rate that a run offers, as it is written: `1M`, `500kpps`, `2Gbit`, `max`.

use std::fmt;
use std::str::FromStr;

/// Bytes of a frame's check sequence, which count for a rate in bits.
const FCS_LEN: f64 = 4.0;

/// The rate that a run offers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// As much as the generator can.
    Max,
    /// Packets per second, of all workers together.
    Packets(f64),
    /// Bits per second of layer 2: frames with their check sequence, without preamble and gap.
    Bits(f64),
}

impl Rate {
    /// Packets per second for frames of `frame_bytes` on the average (without check sequence);
    /// `None` for as much as the generator can.
    #[must_use]
    pub fn pps(self, frame_bytes: f64) -> Option<f64> {
        match self {
            Self::Max => None,
            Self::Packets(pps) => Some(pps),
            Self::Bits(bits) => Some(bits / (8.0 * (frame_bytes + FCS_LEN))),
        }
    }
}

/// The text is no rate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseRateError(String);

impl fmt::Display for ParseRateError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{:?} is no rate: write packets per second (250000, 500k, 1.5Mpps), bits per second of \
             layer 2 with check sequence (2Gbit), or max",
            self.0
        )
    }
}

impl std::error::Error for ParseRateError {}

impl FromStr for Rate {
    type Err = ParseRateError;

    fn from_str(text: &str) -> Result<Self, ParseRateError> {
        parse(text).ok_or_else(|| ParseRateError(text.into()))
    }
}

/// Parses a number of things: `10000`, `10k`, `1M`.
///
/// # Errors
/// What is wrong with the text, in words.
pub fn count(text: &str) -> Result<u64, String> {
    match parse(text) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked")]
        Some(Rate::Packets(number))
            if number.fract() == 0.0 && !text.to_ascii_lowercase().ends_with("pps") =>
        {
            Ok(number as u64)
        }
        _ => Err(format!("{text:?} is no number of things: write 10000, 10k or 1M")),
    }
}

fn parse(text: &str) -> Option<Rate> {
    if text.eq_ignore_ascii_case("max") {
        return Some(Rate::Max);
    }
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    let number: f64 = number.parse().ok()?;
    let rest = rest.trim_start();
    let (factor, unit) = match rest.chars().next() {
        Some('k' | 'K') => (1e3, &rest[1..]),
        Some('m' | 'M') => (1e6, &rest[1..]),
        Some('g' | 'G') => (1e9, &rest[1..]),
        _ => (1.0, rest),
    };
    let value = number * factor;
    // Below one packet a day nothing would ever be sent; above 10^12 no interface follows.
    if !(1e-5..=1e12).contains(&value) {
        return None;
    }
    match unit.to_ascii_lowercase().as_str() {
        "" | "pps" => Some(Rate::Packets(value)),
        "bit" | "bit/s" | "bps" => Some(Rate::Bits(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rates_as_they_are_written() {
        for (text, rate) in [
            ("max", Rate::Max),
            ("250000", Rate::Packets(250_000.0)),
            ("1M", Rate::Packets(1e6)),
            ("1.5Mpps", Rate::Packets(1.5e6)),
            ("500kpps", Rate::Packets(500e3)),
            ("500 kpps", Rate::Packets(500e3)),
            ("2Gbit", Rate::Bits(2e9)),
            ("100Mbit/s", Rate::Bits(1e8)),
        ] {
            assert_eq!(text.parse(), Ok(rate), "{text}");
        }
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for text in ["", "fast", "1X", "1Mb", "-1", "0", "1e6", "1.2.3", "M", "NaN", "inf", "1M pp"]
        {
            let error = text.parse::<Rate>().expect_err(text).to_string();
            assert!(error.contains("is no rate"), "{error}");
        }
    }

    #[test]
    fn bits_count_frames_with_their_check_sequence() {
        // 64 bytes on the wire: 60 and the check sequence.
        assert_eq!(Rate::Bits(512e6).pps(60.0), Some(1e6));
        assert_eq!(Rate::Max.pps(60.0), None);
    }

    #[test]
    fn counts_are_whole() {
        assert_eq!(count("1"), Ok(1));
        assert_eq!(count("10k"), Ok(10_000));
        assert_eq!(count("1M"), Ok(1_000_000));
        for text in ["", "0", "1.5", "1kpps", "1kbit", "max", "-1"] {
            assert!(count(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,20}") {
            let _ = text.parse::<Rate>();
        }
    }
}
