//! Port ranges, in each notation that the configuration knows.
//!
//! RFC 7597 section 5.1: a port number is `[A: a bits][PSID: k bits][j: m bits]` with
//! a + k + m = 16, where a is the PSID offset and k the PSID length. With a = 0 the port set of a
//! PSID is the one contiguous range `[PSID << m, (PSID << m) + 2^m - 1]`; with a > 0 it is 2^a - 1
//! ranges (the one with A = 0 is excluded), which a [`PortRange`] does not hold.

use std::fmt;

use crate::reason::Reason;

/// An inclusive range of ports; never empty, never reversed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// All 65,536 ports.
    pub const ALL: Self = Self { first: 0, last: u16::MAX };

    /// The range from `first` to `last`, both included; `None` if `last` is below `first`.
    #[must_use]
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        if first <= last { Some(Self { first, last }) } else { None }
    }

    /// The least port.
    #[must_use]
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The greatest port.
    #[must_use]
    pub const fn last(self) -> u16 {
        self.last
    }

    /// The number of ports: 1 to 65,536.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a range is never empty")]
    pub const fn len(self) -> u32 {
        self.last as u32 - self.first as u32 + 1
    }

    /// Whether `port` is one of them.
    #[must_use]
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// Whether a port is in both.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// The range of a PSID of `psid_len` bits (k) with `psid_offset` (a), RFC 7597 section 5.1.
    ///
    /// # Errors
    /// If a is not 0, k is not 0 to 16, or the PSID does not fit k bits.
    pub fn from_psid(psid: i64, psid_len: i64, psid_offset: i64) -> Result<Self, Reason> {
        if psid_offset != 0 {
            return Err(Reason::PsidOffset(psid_offset));
        }
        let Some(k) = u32::try_from(psid_len).ok().filter(|&k| k <= 16) else {
            return Err(Reason::OutOfBounds { value: psid_len, least: 0, most: 16 });
        };
        let most = (1u32 << k) - 1;
        let Some(psid_bits) = u32::try_from(psid).ok().filter(|&psid| psid <= most) else {
            return Err(Reason::PsidTooBig { psid, psid_len: k, most });
        };
        let m = 16 - k;
        let first = psid_bits << m;
        let last = first + ((1u32 << m) - 1);
        match (u16::try_from(first), u16::try_from(last)) {
            (Ok(first), Ok(last)) => Ok(Self { first, last }),
            // k + m = 16, so this arm is never taken; it costs nothing to be an error.
            _ => Err(Reason::PsidTooBig { psid, psid_len: k, most }),
        }
    }

    /// Parses `FIRST-LAST` (both included), `START+COUNT`, or `PORT`.
    ///
    /// # Errors
    /// If the text has another form, a number is above 65535, or the range is reversed.
    pub fn parse(text: &str) -> Result<Self, Reason> {
        let bad = || Reason::BadPorts(text.to_owned());
        let number = |digits: &str| -> Result<u32, Reason> {
            let digits = digits.trim();
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(bad());
            }
            digits.parse().map_err(|_| bad())
        };
        let port = |value: u32| u16::try_from(value).map_err(|_| bad());
        if let Some((first, last)) = text.split_once('-') {
            let (first, last) = (port(number(first)?)?, port(number(last)?)?);
            return Self::new(first, last).ok_or(Reason::ReversedPorts { first, last });
        }
        if let Some((start, count)) = text.split_once('+') {
            let (start, count) = (number(start)?, number(count)?);
            let last = start.checked_add(count).and_then(|end| end.checked_sub(1));
            let (first, last) = (port(start)?, port(last.ok_or_else(bad)?)?);
            return Self::new(first, last).ok_or_else(bad);
        }
        let only = port(number(text)?)?;
        Ok(Self { first: only, last: only })
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl fmt::Debug for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(first: u16, last: u16) -> PortRange {
        PortRange::new(first, last).unwrap()
    }

    #[test]
    fn every_notation_gives_the_range_that_it_says() {
        assert_eq!(PortRange::parse("1024-2047"), Ok(range(1024, 2047)));
        assert_eq!(PortRange::parse("1024+1024"), Ok(range(1024, 2047)));
        assert_eq!(PortRange::parse(" 1024 - 2047 "), Ok(range(1024, 2047)));
        assert_eq!(PortRange::parse("443"), Ok(range(443, 443)));
        assert_eq!(PortRange::parse("0-65535"), Ok(PortRange::ALL));
        assert_eq!(PortRange::parse("0+65536"), Ok(PortRange::ALL));
        assert_eq!(PortRange::ALL.len(), 65_536);
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in [
            "",
            "-",
            "1-",
            "-1",
            "+1",
            "1+0",
            "65535+2",
            "0-65536",
            "a-b",
            "1-2-3",
            "0x10-0x20",
            "1..2",
            "１-２",
            "0+4294967295",
            "4294967296",
        ] {
            assert_eq!(
                PortRange::parse(text),
                Err(Reason::BadPorts(text.to_owned())),
                "for {text:?}"
            );
        }
        assert_eq!(PortRange::parse("9-8"), Err(Reason::ReversedPorts { first: 9, last: 8 }));
    }

    /// RFC 7597 section 5.1 by enumeration: with a = 0 the ports of a PSID are those whose upper k
    /// bits are the PSID.
    #[test]
    fn a_psid_has_the_ports_whose_upper_bits_it_is() {
        for k in 0..=16u32 {
            let last_psid = (1i64 << k) - 1;
            for psid in [0, 1, last_psid / 2, last_psid].into_iter().filter(|p| *p <= last_psid) {
                let range = PortRange::from_psid(psid, i64::from(k), 0).unwrap();
                for port in 0..=u16::MAX {
                    let upper = i64::from(u32::from(port) >> (16 - k));
                    assert_eq!(
                        range.contains(port),
                        upper == psid,
                        "k {k} psid {psid} port {port}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_psid_out_of_bounds_is_refused() {
        assert_eq!(PortRange::from_psid(3, 6, 4), Err(Reason::PsidOffset(4)));
        assert_eq!(
            PortRange::from_psid(64, 6, 0),
            Err(Reason::PsidTooBig { psid: 64, psid_len: 6, most: 63 })
        );
        assert_eq!(
            PortRange::from_psid(-1, 6, 0),
            Err(Reason::PsidTooBig { psid: -1, psid_len: 6, most: 63 })
        );
        assert_eq!(
            PortRange::from_psid(0, 17, 0),
            Err(Reason::OutOfBounds { value: 17, least: 0, most: 16 })
        );
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused(text in ".{0,16}") {
            let _ = PortRange::parse(&text);
        }
    }
}
