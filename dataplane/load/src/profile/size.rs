//! Frame sizes: one, or a mix.

use std::fmt;
use std::str::FromStr;

/// The shortest frame of Ethernet without its check sequence ("64 bytes on the wire").
pub const FRAME_BYTES_MIN: u16 = 60;

/// The longest frame that fits a chunk (`xdp::MTU_MAX` and an Ethernet header).
pub const FRAME_BYTES_MAX: u16 = 3512;

const _: () = assert!(FRAME_BYTES_MAX as u32 == xdp::MTU_MAX + wire::ethernet::HEADER_LEN as u32);

/// Frame sizes in bytes without check sequence, and how many of 100 packets have each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes {
    shares: Vec<(u16, u32)>,
    name: String,
}

impl Sizes {
    /// All frames have the same size.
    ///
    /// # Errors
    /// What is wrong with the size, in words.
    pub fn fixed(frame_bytes: u16) -> Result<Self, ParseSizesError> {
        if !(FRAME_BYTES_MIN..=FRAME_BYTES_MAX).contains(&frame_bytes) {
            return Err(ParseSizesError(frame_bytes.to_string()));
        }
        Ok(Self { shares: vec![(frame_bytes, 100)], name: format!("{frame_bytes} B") })
    }

    /// The Internet mix: of 100 packets 58 of 60 bytes, 33 of 590 and 9 of 1514, which is the "simple
    /// IMIX" of 7:4:1 in hundredths.
    #[must_use]
    pub fn imix() -> Self {
        Self { shares: vec![(60, 58), (590, 33), (1514, 9)], name: "IMIX".into() }
    }

    /// The sizes, and how many of 100 packets have each.
    #[must_use]
    pub fn shares(&self) -> &[(u16, u32)] {
        &self.shares
    }

    /// The one size, or `None` for a mix.
    #[must_use]
    pub fn one(&self) -> Option<u16> {
        match self.shares[..] {
            [(frame_bytes, _)] => Some(frame_bytes),
            _ => None,
        }
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name)
    }
}

/// The text is no frame size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseSizesError(String);

impl fmt::Display for ParseSizesError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{:?} is no frame size: write bytes without check sequence, {FRAME_BYTES_MIN} (64 on \
             the wire) to {FRAME_BYTES_MAX}, or imix",
            self.0
        )
    }
}

impl std::error::Error for ParseSizesError {}

impl FromStr for Sizes {
    type Err = ParseSizesError;

    fn from_str(text: &str) -> Result<Self, ParseSizesError> {
        if text.eq_ignore_ascii_case("imix") {
            return Ok(Self::imix());
        }
        Self::fixed(text.parse().map_err(|_| ParseSizesError(text.into()))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_they_are_written() {
        assert_eq!("60".parse(), Sizes::fixed(60));
        assert_eq!("1514".parse::<Sizes>().expect("a size").one(), Some(1514));
        let imix: Sizes = "imix".parse().expect("a mix");
        assert_eq!(imix.shares().iter().map(|share| share.1).sum::<u32>(), 100);
        for text in ["", "59", "3513", "64B", "-60", "99999"] {
            assert!(text.parse::<Sizes>().is_err(), "{text}");
        }
    }
}
