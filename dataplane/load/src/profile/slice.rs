//! A slice as the destination of return traffic: an address and a range of its ports.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// An egress address and the ports of it that one slice owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceRange {
    /// The egress address.
    pub address: IpAddr,
    /// The first port of the range.
    pub first: u16,
    /// The last port of the range, which belongs to it.
    pub last: u16,
}

/// The text is no slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseSliceError(String);

impl fmt::Display for ParseSliceError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{:?} is no slice: write ADDRESS:FIRST-LAST, for instance 192.0.2.1:1024-2047 or \
             [2001:db8::1]:1024-2047",
            self.0
        )
    }
}

impl std::error::Error for ParseSliceError {}

impl FromStr for SliceRange {
    type Err = ParseSliceError;

    fn from_str(text: &str) -> Result<Self, ParseSliceError> {
        parse(text).ok_or_else(|| ParseSliceError(text.into()))
    }
}

fn parse(text: &str) -> Option<SliceRange> {
    let (address, ports) = text.trim().rsplit_once(':')?;
    let address = match address.strip_prefix('[') {
        Some(rest) => IpAddr::V6(rest.strip_suffix(']')?.parse().ok()?),
        None => IpAddr::V4(address.parse().ok()?),
    };
    let (first, last) = ports.split_once('-')?;
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some(SliceRange { address, first, last })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_as_they_are_written() {
        let slice: SliceRange = "192.0.2.1:1024-2047".parse().expect("a slice");
        assert_eq!((slice.address.is_ipv4(), slice.first, slice.last), (true, 1024, 2047));
        let slice: SliceRange = "[2001:db8::1]:5-5".parse().expect("a slice");
        assert_eq!((slice.address.is_ipv6(), slice.first, slice.last), (true, 5, 5));
        for text in ["", "192.0.2.1", "192.0.2.1:5", "192.0.2.1:9-5", "2001:db8::1:1-2", "a:1-2"] {
            assert!(text.parse::<SliceRange>().is_err(), "{text}");
        }
    }
}
