//! [`Table`]: routes by the thousand or million for node a, and a linear scan over them that says
//! where a packet must go.
//!
//! The real table (`SLUICE_TESTDATA`) is a list of prefixes; without it a committed sample serves,
//! which a test draws from a fixed seed. In both a prefix decides by itself which half of the Internet
//! is its next hop.

#[cfg(test)]
use std::collections::HashSet;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::plan::{INET1, INET2};
use super::random::Random;
use crate::command;

/// The sample: a prefix a line.
const SAMPLE: &str = include_str!("../../data/routes-sample.txt");

/// Routes of the sample.
#[cfg(test)]
const SYNTHETIC_ROUTES: usize = 1000;

/// A prefix: the address in the upper bits, and the length. IPv4 addresses are the upper 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Prefix {
    is_v6: bool,
    bits: u128,
    length: u8,
}

impl Prefix {
    fn new(is_v6: bool, bits: u128, length: u8) -> Self {
        Self { is_v6, bits: bits & mask(length), length }
    }

    fn parse(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        Some(Self::new(address.is_ipv6(), to_bits(address), length.parse().ok()?))
    }

    fn holds(self, bits: u128) -> bool {
        (bits ^ self.bits) & mask(self.length) == 0
    }

    /// Half of the prefixes are behind inet1, the others behind inet2.
    fn is_behind_inet1(self) -> bool {
        let mixed = Random::new((self.bits >> 64) as u64 ^ self.bits as u64).draw();
        (mixed ^ u64::from(self.length)) & 1 == 0
    }
}

fn mask(length: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)
}

fn to_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn to_address(is_v6: bool, bits: u128) -> IpAddr {
    if is_v6 {
        Ipv6Addr::from_bits(bits).into()
    } else {
        Ipv4Addr::from_bits((bits >> 96) as u32).into()
    }
}

/// A routing table.
#[derive(Clone, Debug)]
pub struct Table {
    prefixes: Vec<Prefix>,
    origin: &'static str,
}

impl Table {
    /// The real table if `test_data` has it, else the sample.
    ///
    /// # Errors
    /// When the real one is there but cannot be read.
    pub fn load(test_data: Option<&Path>) -> Result<Self> {
        let real = test_data.map(|folder| folder.join("routes/internet-2024.txt.gz"));
        match real.filter(|file| file.exists()) {
            Some(file) => Self::read(&file),
            None => Ok(Self::sample()),
        }
    }

    fn read(file: &Path) -> Result<Self> {
        let text = command::output(Command::new("gzip").arg("-dc").arg(file))?;
        let mut prefixes: Vec<_> = text
            .lines()
            .filter_map(|line| Prefix::parse(line.split_whitespace().next()?))
            .collect();
        prefixes.sort_unstable();
        prefixes.dedup();
        ensure!(!prefixes.is_empty(), "{}: it has no routes", file.display());
        Ok(Self { prefixes, origin: "the real table of 2024" })
    }

    fn sample() -> Self {
        Self { prefixes: SAMPLE.lines().filter_map(Prefix::parse).collect(), origin: "the sample" }
    }

    /// Prefixes of which a third lies within others.
    #[cfg(test)]
    fn synthetic(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut known = HashSet::new();
        let mut prefixes = vec![Prefix::new(false, 0, 0), Prefix::new(true, 0, 0)];
        while prefixes.len() < SYNTHETIC_ROUTES {
            let is_v6 = random.below(4) == 0;
            let bits = u128::from(random.draw()) << 64 | u128::from(random.draw());
            let outer = &prefixes[random.below(prefixes.len() as u64) as usize];
            let prefix = if random.below(3) == 0 && outer.length > 0 && outer.length < 28 {
                let length = outer.length + 1 + random.below(4) as u8;
                Prefix::new(outer.is_v6, outer.bits | bits & !mask(outer.length), length)
            } else if is_v6 {
                // 2000::/3 is what the Internet is made of.
                let length = 20 + random.below(29) as u8;
                Prefix::new(true, bits >> 3 | 1 << 125, length)
            } else {
                Prefix::new(false, bits, 8 + random.below(17) as u8)
            };
            if is_ordinary(to_address(prefix.is_v6, prefix.bits)) && known.insert(prefix) {
                prefixes.push(prefix);
            }
        }
        Self { prefixes, origin: "a synthetic table" }
    }

    /// What it is, in words.
    #[must_use]
    pub fn describe(&self) -> String {
        format!("{}, {} routes", self.origin, self.prefixes.len())
    }

    /// Writes it as a route file of the router.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut text = String::with_capacity(self.prefixes.len() * 48);
        for prefix in &self.prefixes {
            let hop = if prefix.is_behind_inet1() { INET1 } else { INET2 };
            let address = to_address(prefix.is_v6, prefix.bits);
            writeln!(text, "{address}/{} via {} dev wan0", prefix.length, hop.like(address))?;
        }
        std::fs::write(path, text).with_context(|| path.display().to_string())
    }

    /// Draws destinations, each a random address within a random prefix, a quarter of them IPv6.
    #[must_use]
    pub fn destinations(&self, count: usize, seed: u64) -> Vec<IpAddr> {
        let mut random = Random::new(seed);
        // Sorted: IPv4 prefixes first. The synthetic table is small enough to try.
        let mut destinations = Vec::with_capacity(count);
        while destinations.len() < count {
            let wants_v6 = destinations.len() % 4 == 3;
            let prefix = self.prefixes[random.below(self.prefixes.len() as u64) as usize];
            if prefix.is_v6 != wants_v6 {
                continue;
            }
            let bits = u128::from(random.draw()) << 64 | u128::from(random.draw());
            let address = to_address(prefix.is_v6, prefix.bits | bits & !mask(prefix.length));
            if is_ordinary(address) {
                destinations.push(address);
            }
        }
        destinations
    }

    /// For each destination, by looking at every route: whether it is behind inet1, and the length of
    /// its prefix. `None` where no route leads.
    #[must_use]
    pub fn scan(&self, destinations: &[IpAddr]) -> Vec<Option<(bool, u8)>> {
        let keys: Vec<_> =
            destinations.iter().map(|&address| (address.is_ipv6(), to_bits(address))).collect();
        let mut longest: Vec<Option<Prefix>> = vec![None; keys.len()];
        for prefix in &self.prefixes {
            for ((is_v6, bits), best) in keys.iter().zip(&mut longest) {
                if prefix.is_v6 == *is_v6
                    && prefix.holds(*bits)
                    && best.is_none_or(|best| best.length < prefix.length)
                {
                    *best = Some(*prefix);
                }
            }
        }
        longest
            .into_iter()
            .map(|best| best.map(|prefix| (prefix.is_behind_inet1(), prefix.length)))
            .collect()
    }
}

/// Whether a packet there is routed by the table alone, and is not dropped as a martian.
fn is_ordinary(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let octets = address.octets();
            !(matches!(octets[0], 0 | 10 | 127 | 224..)
                || address.is_private()
                || address.is_link_local()
                || address.is_documentation())
        }
        IpAddr::V6(address) => {
            let segments = address.segments();
            segments[0] & 0xe000 == 0x2000 && !(segments[0] == 0x2001 && segments[1] == 0xdb8)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scan_prefers_the_longest_prefix() {
        let parse = |text| Prefix::parse(text).expect("a prefix");
        let prefixes = ["0.0.0.0/0", "11.0.0.0/8", "11.1.0.0/16", "2600::/12"].map(parse).to_vec();
        let table = Table { prefixes: prefixes.clone(), origin: "" };
        let destinations = ["11.1.2.3", "11.2.2.3", "12.0.0.1", "2601::1", "2700::1"]
            .map(|address| address.parse().expect("an address"));
        let lengths: Vec<_> = table
            .scan(&destinations)
            .into_iter()
            .map(|found| found.map(|(_, length)| length))
            .collect();
        assert_eq!(lengths, [Some(16), Some(8), Some(0), Some(12), None]);
        assert_eq!(
            table.scan(&destinations)[0].map(|found| found.0),
            Some(prefixes[2].is_behind_inet1())
        );
    }

    /// With `SLUICE_BLESS=1` the sample is written instead of compared.
    #[test]
    fn the_sample_is_the_synthetic_table() {
        let mut text = String::new();
        for prefix in Table::synthetic(1).prefixes {
            let address = to_address(prefix.is_v6, prefix.bits);
            writeln!(text, "{address}/{}", prefix.length).expect("a string");
        }
        if std::env::var_os("SLUICE_BLESS").is_some() {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/data/routes-sample.txt");
            std::fs::write(path, &text).expect("the sample can be written");
            return;
        }
        assert!(text == SAMPLE, "the sample is out of date: run this test with SLUICE_BLESS=1");
        assert_eq!(Table::sample().prefixes, Table::synthetic(1).prefixes);
    }

    #[test]
    fn the_synthetic_table_is_nested_and_split_and_always_the_same() {
        let table = Table::synthetic(1);
        assert_eq!(table.prefixes, Table::synthetic(1).prefixes);
        assert_eq!(table.prefixes.len(), SYNTHETIC_ROUTES);
        let nested = table.prefixes.iter().filter(|inner| {
            table.prefixes.iter().any(|outer| {
                outer.is_v6 == inner.is_v6
                    && (1..inner.length).contains(&outer.length)
                    && outer.holds(inner.bits)
            })
        });
        assert!(nested.count() > SYNTHETIC_ROUTES / 5);
        let behind_inet1 = table.prefixes.iter().filter(|prefix| prefix.is_behind_inet1()).count();
        assert!((400..600).contains(&behind_inet1), "{behind_inet1}");
        let destinations = table.destinations(1000, 7);
        assert_eq!(destinations.iter().filter(|address| address.is_ipv6()).count(), 250);
        assert!(table.scan(&destinations).iter().all(Option::is_some), "there are default routes");
    }
}
