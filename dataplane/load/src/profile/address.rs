//! Addresses drawn from prefixes, or from the whole Internet.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rand::Rng;

/// Where addresses are drawn from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// The hosts of these prefixes.
    Prefixes(Vec<IpNet>),
    /// Every address that a host on the Internet may have.
    Internet,
}

/// IPv4 prefixes that no host on the Internet has (the registry of RFC 6890, as far as it is not
/// globally reachable; 192.88.99.0/24 was, but is deprecated by RFC 7526), with multicast and 240/4.
const NOT_ON_THE_INTERNET_V4: [(Ipv4Addr, u8); 14] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 3),
];

/// The same of 2000::/3, outside which nothing is allocated: protocol assignments with Teredo and
/// ORCHID (2001::/23), documentation (RFC 3849, RFC 9637) and 6to4 (RFC 7526).
const NOT_ON_THE_INTERNET_V6: [(Ipv6Addr, u8); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

/// The text is no list of prefixes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseAddressesError(String);

impl fmt::Display for ParseAddressesError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{:?} is no prefix: write 10.1.0.0/16, 2001:db8::/64, an address, several with commas in \
             between, or internet",
            self.0
        )
    }
}

impl std::error::Error for ParseAddressesError {}

impl FromStr for Addresses {
    type Err = ParseAddressesError;

    fn from_str(text: &str) -> Result<Self, ParseAddressesError> {
        if text == "internet" {
            return Ok(Self::Internet);
        }
        let prefix = |part: &str| {
            let part = part.trim();
            let address = || Some(IpNet::from(part.parse::<IpAddr>().ok()?));
            let prefix = part.parse::<IpNet>().ok().or_else(address);
            prefix.map(|prefix| prefix.trunc()).ok_or_else(|| ParseAddressesError(part.into()))
        };
        Ok(Self::Prefixes(text.split(',').map(prefix).collect::<Result<_, _>>()?))
    }
}

impl Addresses {
    /// Whether there are addresses of the family.
    #[must_use]
    pub fn has_family(&self, is_ipv6: bool) -> bool {
        match self {
            Self::Prefixes(prefixes) => {
                prefixes.iter().any(|prefix| matches!(prefix, IpNet::V6(_)) == is_ipv6)
            }
            Self::Internet => true,
        }
    }

    /// How many addresses of the family there are, at most `u64::MAX`.
    #[must_use]
    pub fn count(&self, is_ipv6: bool) -> u64 {
        match self {
            Self::Prefixes(prefixes) => prefixes
                .iter()
                .filter(|prefix| matches!(prefix, IpNet::V6(_)) == is_ipv6)
                .map(hosts)
                .fold(0, u64::saturating_add),
            Self::Internet => u64::MAX,
        }
    }

    /// Draws an address of the family, or `None` if there is none. Each prefix is as likely as any
    /// other, and each host of a prefix as any other of it.
    pub fn draw(&self, is_ipv6: bool, random: &mut impl Rng) -> Option<IpAddr> {
        match self {
            Self::Prefixes(prefixes) => {
                let of_family =
                    || prefixes.iter().filter(|net| matches!(net, IpNet::V6(_)) == is_ipv6);
                let count = of_family().count();
                if count == 0 {
                    return None;
                }
                of_family().nth(random.random_range(0..count)).map(|net| draw_host(net, random))
            }
            Self::Internet if is_ipv6 => Some(IpAddr::V6(draw_internet_v6(random))),
            Self::Internet => Some(IpAddr::V4(draw_internet_v4(random))),
        }
    }
}

/// Addresses of a prefix that a host may have, at most `u64::MAX`. Without the first one (IPv4's
/// network, IPv6's subnet router), and IPv4's last one (broadcast), where there are more than two.
fn hosts(prefix: &IpNet) -> u64 {
    let bits = u32::from(prefix.max_prefix_len() - prefix.prefix_len());
    let all = 1_u64.checked_shl(bits).unwrap_or(u64::MAX);
    match prefix {
        _ if bits < 2 => all,
        IpNet::V4(_) => all - 2,
        IpNet::V6(_) => all - 1,
    }
}

fn draw_host(prefix: &IpNet, random: &mut impl Rng) -> IpAddr {
    let few = u64::from(prefix.max_prefix_len() - prefix.prefix_len() >= 2);
    let host = random.random_range(0..hosts(prefix)) + few;
    match prefix.network() {
        #[expect(clippy::cast_possible_truncation, reason = "a host of 32 bits at most")]
        IpAddr::V4(network) => IpAddr::V4(Ipv4Addr::from_bits(network.to_bits() | host as u32)),
        IpAddr::V6(network) => {
            IpAddr::V6(Ipv6Addr::from_bits(network.to_bits() | u128::from(host)))
        }
    }
}

fn draw_internet_v4(random: &mut impl Rng) -> Ipv4Addr {
    loop {
        let address = Ipv4Addr::from_bits(random.random());
        let is_special = NOT_ON_THE_INTERNET_V4.iter().any(|&(network, bits)| {
            Ipv4Net::new(network, bits).is_ok_and(|prefix| prefix.contains(&address))
        });
        if !is_special {
            return address;
        }
    }
}

fn draw_internet_v6(random: &mut impl Rng) -> Ipv6Addr {
    loop {
        let address = Ipv6Addr::from_bits(random.random::<u128>() >> 3 | 1 << 125);
        let is_special = NOT_ON_THE_INTERNET_V6.iter().any(|&(network, bits)| {
            Ipv6Net::new(network, bits).is_ok_and(|prefix| prefix.contains(&address))
        });
        if !is_special {
            return address;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    proptest! {
        #[test]
        fn hosts_lie_in_their_prefix(bits: u32, len in 0_u8..=32, seed: u64) {
            let prefix = Ipv4Net::new(bits.into(), len).expect("at most 32").trunc();
            let mut random = StdRng::seed_from_u64(seed);
            let address = Addresses::Prefixes(vec![prefix.into()])
                .draw(false, &mut random)
                .expect("every prefix has a host");
            prop_assert!(IpNet::from(prefix).contains(&address), "{}", address);
            if len < 31 {
                prop_assert_ne!(address, IpAddr::V4(prefix.network()));
                prop_assert_ne!(address, IpAddr::V4(prefix.broadcast()));
            }
        }

        #[test]
        fn hosts_of_ipv6_lie_in_their_prefix(bits: u128, len in 0_u8..=128, seed: u64) {
            let prefix = Ipv6Net::new(bits.into(), len).expect("at most 128").trunc();
            let mut random = StdRng::seed_from_u64(seed);
            let address = Addresses::Prefixes(vec![prefix.into()])
                .draw(true, &mut random)
                .expect("every prefix has a host");
            prop_assert!(IpNet::from(prefix).contains(&address));
        }
    }

    #[test]
    fn the_internet_has_no_private_hosts() {
        let mut random = StdRng::seed_from_u64(7);
        for _ in 0..10_000 {
            let Some(IpAddr::V4(address)) = Addresses::Internet.draw(false, &mut random) else {
                panic!("an address of IPv4");
            };
            assert!(!address.is_private() && !address.is_loopback() && !address.is_multicast());
            let Some(IpAddr::V6(address)) = Addresses::Internet.draw(true, &mut random) else {
                panic!("an address of IPv6");
            };
            assert_eq!(address.segments()[0] >> 13, 1, "{address} is in 2000::/3");
        }
    }

    #[test]
    fn addresses_as_they_are_written() {
        assert_eq!("internet".parse(), Ok(Addresses::Internet));
        let both: Addresses = "10.1.2.3/16, 2001:db8::1".parse().expect("prefixes");
        assert_eq!((both.count(false), both.count(true)), (65_534, 1));
        for text in ["", "10.0.0.0/33", "10.0.0.0/8,", "here"] {
            assert!(text.parse::<Addresses>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_family_without_prefixes_has_no_addresses() {
        let prefix: IpNet = "10.0.0.0/30".parse().expect("a prefix");
        let addresses = Addresses::Prefixes(vec![prefix]);
        assert_eq!(addresses.count(false), 2);
        assert_eq!(addresses.count(true), 0);
        assert_eq!(addresses.draw(true, &mut StdRng::seed_from_u64(1)), None);
    }
}
