//! Addresses and prefixes from text: the one place where IPv4-mapped IPv6 addresses become IPv4.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use wire::MacAddress;

use crate::reason::Reason;

/// Length of `::ffff:0:0/96`, the prefix of IPv4-mapped IPv6 addresses (RFC 4291 section 2.5.5.2).
const MAPPED_PREFIX_LEN: u8 = 96;

/// An address; `::ffff:192.0.2.1` is 192.0.2.1.
pub(crate) fn parse_address(text: &str) -> Result<IpAddr, Reason> {
    text.parse::<IpAddr>()
        .map(|address| address.to_canonical())
        .map_err(|_| Reason::BadAddress(text.to_owned()))
}

/// An address that a packet can be sent to over a link.
pub(crate) fn parse_unicast(text: &str) -> Result<IpAddr, Reason> {
    let address = parse_address(text)?;
    let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    if address.is_unspecified() || address.is_multicast() || address.is_loopback() || broadcast {
        return Err(Reason::NotUnicast(address));
    }
    Ok(address)
}

/// A prefix whose host bits are zero; `::ffff:192.0.2.0/120` is 192.0.2.0/24.
pub(crate) fn parse_prefix(text: &str) -> Result<IpNet, Reason> {
    let written: IpNet = text.parse().map_err(|_| Reason::BadPrefix(text.to_owned()))?;
    let written = canonical_prefix(written);
    let meant = written.trunc();
    if meant == written { Ok(meant) } else { Err(Reason::HostBits { written, meant }) }
}

/// A prefix, or an address that stands for itself.
pub(crate) fn parse_address_or_prefix(text: &str) -> Result<IpNet, Reason> {
    if text.contains('/') { parse_prefix(text) } else { parse_address(text).map(IpNet::from) }
}

fn canonical_prefix(prefix: IpNet) -> IpNet {
    let IpNet::V6(prefix6) = prefix else { return prefix };
    let Some(address) = prefix6.addr().to_ipv4_mapped() else { return prefix };
    let Some(length) = prefix6.prefix_len().checked_sub(MAPPED_PREFIX_LEN) else { return prefix };
    Ipv4Net::new(address, length).map_or(prefix, IpNet::V4)
}

/// Whether all of the prefix is space that a packet from the Internet can be addressed to. Private
/// space is, since a cloud may translate it one to one.
pub(crate) fn is_egress_space(prefix: IpNet) -> bool {
    let apart = |reserved: IpNet| !reserved.contains(&prefix) && !prefix.contains(&reserved);
    let v4 = |address: [u8; 4], length| Ipv4Net::new(Ipv4Addr::from(address), length);
    let v6 = |upper: u16, length| Ipv6Net::new(Ipv6Addr::new(upper, 0, 0, 0, 0, 0, 0, 0), length);
    let reserved4 = [
        v4([0, 0, 0, 0], 8),
        v4([127, 0, 0, 0], 8),
        v4([169, 254, 0, 0], 16),
        v4([224, 0, 0, 0], 3),
    ];
    // ::/16 holds the unspecified and loopback addresses and all embedded IPv4 ones.
    let reserved6 = [v6(0, 16), v6(0xfe80, 10), v6(0xff00, 8)];
    reserved4.into_iter().flatten().all(|reserved| apart(reserved.into()))
        && reserved6.into_iter().flatten().all(|reserved| apart(reserved.into()))
}

/// Whether the address has a meaning on one link only.
pub(crate) fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// The MAC address of one machine, as six hexadecimal bytes with `:` or `-` between them.
pub(crate) fn parse_mac(text: &str) -> Result<MacAddress, Reason> {
    let bad = || Reason::BadMac(text.to_owned());
    let separator = if text.contains('-') { '-' } else { ':' };
    let mut bytes = [0u8; 6];
    let mut parts = text.split(separator);
    for byte in &mut bytes {
        let part = parts.next().ok_or_else(bad)?;
        if part.len() != 2 || !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(bad());
        }
        *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
    }
    if parts.next().is_some() {
        return Err(bad());
    }
    // The lowest bit of the first byte marks a group address (IEEE 802 section 8.2.2).
    if bytes[0] & 1 == 1 || bytes == [0; 6] {
        return Err(Reason::NotUnicastMac(text.to_owned()));
    }
    Ok(MacAddress(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn mapped_addresses_are_ipv4() {
        assert_eq!(parse_address("::ffff:192.0.2.1"), Ok("192.0.2.1".parse().unwrap()));
        assert_eq!(parse_prefix("::ffff:192.0.2.0/120"), Ok("192.0.2.0/24".parse().unwrap()));
        assert_eq!(parse_prefix("::ffff:0.0.0.0/96"), Ok("0.0.0.0/0".parse().unwrap()));
        // Shorter prefixes hold other addresses too.
        assert_eq!(parse_prefix("::/0"), Ok("::/0".parse().unwrap()));
        assert!(matches!(parse_prefix("::ffff:0:0/80"), Err(Reason::HostBits { .. })));
    }

    #[test]
    fn egress_space_leaves_out_what_no_packet_is_sent_to() {
        for prefix in
            ["192.0.2.1/32", "10.0.0.0/8", "2001:db8::/32", "fd00::/8", "223.255.255.0/24"]
        {
            assert!(is_egress_space(prefix.parse().unwrap()), "{prefix}");
        }
        for prefix in [
            "0.0.0.0/0",
            "127.0.0.1/32",
            "224.0.0.1/32",
            "255.255.255.255/32",
            "0.0.0.0/32",
            "169.254.1.0/24",
            "::/0",
            "::1/128",
            "fe80::/64",
            "ff02::/16",
            "192.0.0.0/2",
        ] {
            assert!(!is_egress_space(prefix.parse().unwrap()), "{prefix}");
        }
    }

    #[test]
    fn macs() {
        let mac = MacAddress([2, 0, 0xab, 0, 0, 1]);
        assert_eq!(parse_mac("02:00:ab:00:00:01"), Ok(mac));
        assert_eq!(parse_mac("02-00-AB-00-00-01"), Ok(mac));
        for text in [
            "",
            "02:00:ab:00:00",
            "02:00:ab:00:00:01:02",
            "2:0:ab:0:0:1",
            "0200ab000001",
            "02:00:ab:00:00:0g",
            "02:00:ab-00:00:01",
            "02:00:ab:00:00:+1",
        ] {
            assert_eq!(parse_mac(text), Err(Reason::BadMac(text.to_owned())), "for {text:?}");
        }
        for text in ["00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01"] {
            assert_eq!(parse_mac(text), Err(Reason::NotUnicastMac(text.to_owned())));
        }
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused(text in ".{0,40}") {
            let _ = parse_address(&text);
            let _ = parse_unicast(&text);
            let _ = parse_address_or_prefix(&text);
            let _ = parse_mac(&text);
        }

        #[test]
        fn every_prefix_that_is_accepted_is_canonical(
            address in any::<u128>(), mapped in any::<bool>(), length in 0u8..=128
        ) {
            let address = if mapped { 0xffff_0000_0000 | (address & 0xffff_ffff) } else { address };
            let written = Ipv6Net::new(Ipv6Addr::from(address), length).unwrap().trunc();
            match parse_prefix(&written.to_string()).unwrap() {
                IpNet::V6(prefix) => {
                    prop_assert_eq!(prefix, written);
                    prop_assert!(prefix.addr().to_ipv4_mapped().is_none() || length < 96);
                }
                IpNet::V4(prefix) => {
                    prop_assert_eq!(prefix.addr().to_ipv6_mapped(), written.addr());
                    prop_assert_eq!(prefix.prefix_len() + 96, length);
                }
            }
        }
    }
}
