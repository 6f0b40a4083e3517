//! Link-layer addresses, and their text form `02:00:00:00:00:2a`.

use core::fmt;
use core::str::FromStr;

/// A link-layer address of 48 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// The address that every station on a link receives.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// The group bit: the frame is meant for several stations. Broadcast is one such group.
    #[inline]
    #[must_use]
    pub const fn is_multicast(self) -> bool {
        let [first, ..] = self.0;
        first & 1 != 0
    }

    /// The frame is meant for every station on the link.
    #[inline]
    #[must_use]
    pub fn is_broadcast(self) -> bool {
        self == Self::BROADCAST
    }

    /// All bits are zero: a place-holder, never the address of a station.
    #[inline]
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.0 == [0; 6]
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The text is not six groups of two hexadecimal digits with `:` between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseMacAddressError;

impl fmt::Display for ParseMacAddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a link-layer address is written as six pairs of hexadecimal digits, aa:bb:cc:dd:ee:ff",
        )
    }
}

impl core::error::Error for ParseMacAddressError {}

impl FromStr for MacAddress {
    type Err = ParseMacAddressError;

    /// Reads exactly the form that `Display` writes; the digits may be in either case.
    ///
    /// # Errors
    ///
    /// [`ParseMacAddressError`] for any other text.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut octets = [0; 6];
        let mut groups = text.split(':');
        for octet in &mut octets {
            let group = groups.next().ok_or(ParseMacAddressError)?;
            // `from_str_radix` alone would take a sign and a single digit.
            if group.len() != 2 || !group.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(ParseMacAddressError);
            }
            *octet = u8::from_str_radix(group, 16).map_err(|_| ParseMacAddressError)?;
        }
        if groups.next().is_some() {
            return Err(ParseMacAddressError);
        }
        Ok(Self(octets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn text_round_trip() {
        let address = MacAddress([0x02, 0, 0xab, 0xcd, 0xef, 0x2a]);
        assert_eq!(address.to_string(), "02:00:ab:cd:ef:2a");
        assert_eq!("02:00:ab:cd:ef:2a".parse(), Ok(address));
        assert_eq!("02:00:AB:CD:EF:2A".parse(), Ok(address));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "02:00:ab:cd:ef",
            "02:00:ab:cd:ef:2a:00",
            "02:00:ab:cd:ef:2a:",
            "2:00:ab:cd:ef:2a",
            "02:00:ab:cd:ef:+a",
            "02-00-ab-cd-ef-2a",
            "02:00:ab:cd:ef:2g",
            "02:00:ab:cd:ef:2\u{e9}",
            " 02:00:ab:cd:ef:2a",
        ] {
            assert_eq!(text.parse::<MacAddress>(), Err(ParseMacAddressError), "{text:?}");
        }
    }

    #[test]
    fn groups() {
        assert!(MacAddress::BROADCAST.is_multicast());
        assert!(MacAddress::BROADCAST.is_broadcast());
        assert!(MacAddress([0x33, 0x33, 0, 0, 0, 1]).is_multicast());
        assert!(!MacAddress([0x33, 0x33, 0, 0, 0, 1]).is_broadcast());
        assert!(!MacAddress([0x02, 0xff, 0xff, 0xff, 0xff, 0xff]).is_multicast());
        assert!(MacAddress::default().is_zero());
    }
}
