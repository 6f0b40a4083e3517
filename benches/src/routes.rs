//! Routes to fill tables with: a full Internet table, or one made up in its shape.
//!
//! Terms: the *shape* of a table is how many prefixes it has of each length, how many of them lie in
//! others, and how the longest crowd into few blocks of 256 addresses. It decides what a look-up costs.

use std::io::Read;
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tables::RouteId;

use crate::random::Random;

/// Next-hop groups that the origins of routes are folded to: as many as a route can name.
const GROUPS: u32 = RouteId::MAX.0 as u32 + 1;

/// Routes of both families, each prefix once, in no order.
#[derive(Clone, Debug)]
pub struct Routes {
    /// Where they come from.
    pub source: &'static str,
    /// IPv4.
    pub v4: Vec<(Ipv4Net, RouteId)>,
    /// IPv6.
    pub v6: Vec<(Ipv6Net, RouteId)>,
}

impl Routes {
    /// The real table, if SLUICE_TESTDATA names it, or the synthetic one and a visible line.
    #[must_use]
    pub fn full() -> Self {
        let mut routes = real().unwrap_or_else(|| {
            eprintln!(
                "SLUICE_TESTDATA does not name the test data: a synthetic table stands for the real one"
            );
            synthetic(1)
        });
        let mut random = Random(7);
        random.shuffle(&mut routes.v4);
        random.shuffle(&mut routes.v6);
        routes
    }
}

/// The table at `routes/internet-2024.txt.gz` of the test data.
#[must_use]
pub fn real() -> Option<Routes> {
    let root = std::env::var_os("SLUICE_TESTDATA")?;
    let path = PathBuf::from(root).join("routes/internet-2024.txt.gz");
    let file = std::fs::File::open(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).expect("gzip");
    let mut routes = Routes { source: "real", v4: Vec::new(), v6: Vec::new() };
    for line in text.lines() {
        let (prefix, origin) = line.split_once(' ').expect("prefix and origin");
        let id = RouteId((origin.parse::<u32>().expect("origin") % GROUPS) as u16);
        match prefix.parse().expect("prefix") {
            IpNet::V4(prefix) => routes.v4.push((prefix, id)),
            IpNet::V6(prefix) => routes.v6.push((prefix, id)),
        }
    }
    Some(routes)
}

/// Prefixes of the real table by length.
const LENGTHS4: [(u8, usize); 26] = [
    (0, 1),
    (4, 2),
    (8, 19),
    (9, 14),
    (10, 38),
    (11, 103),
    (12, 302),
    (13, 578),
    (14, 1194),
    (15, 2053),
    (16, 13414),
    (17, 8141),
    (18, 13694),
    (19, 24715),
    (20, 42430),
    (21, 53632),
    (22, 111_840),
    (23, 103_473),
    (24, 564_494),
    (25, 9848),
    (26, 180),
    (27, 17223),
    (28, 3066),
    (29, 1574),
    (30, 80482),
    (31, 12490),
];
const LENGTHS6: [(u8, usize); 36] = [
    (0, 1),
    (7, 1),
    (8, 1),
    (10, 2),
    (16, 1),
    (19, 1),
    (20, 13),
    (24, 54),
    (26, 15),
    (27, 20),
    (28, 198),
    (29, 4288),
    (30, 597),
    (31, 301),
    (32, 22669),
    (33, 3089),
    (34, 2612),
    (35, 1002),
    (36, 6200),
    (37, 913),
    (38, 1666),
    (39, 1476),
    (40, 13963),
    (41, 938),
    (42, 4917),
    (43, 1075),
    (44, 15460),
    (45, 1901),
    (46, 3428),
    (47, 3853),
    (48, 82899),
    (56, 20),
    (64, 183),
    (80, 7),
    (127, 224),
    (128, 2400),
];
/// How many in a thousand prefixes lie in one that is there already.
const NESTED_PER_MILLE: u64 = 544;
/// How many in a thousand prefixes longer than /24 lie in a /24 that has such already: the real ones are
/// 132,000 in 25,499.
const CROWDED_PER_MILLE: u64 = 843;
/// First 16 bits of what registries have given out of IPv6.
const UPPER6: [u128; 9] = [0x2001, 0x2400, 0x2401, 0x2600, 0x2604, 0x2800, 0x2a00, 0x2a02, 0x2c0f];

/// A table in the shape of the real one; of one seed always the same.
#[must_use]
pub fn synthetic(seed: u64) -> Routes {
    let mut random = Random(seed);
    let mut v4 = std::collections::BTreeMap::new();
    let mut holders: Vec<Ipv4Net> = Vec::new();
    let mut crowded: Vec<u32> = Vec::new();
    for (length, count) in LENGTHS4.into_iter().chain([(32, 7529)]) {
        let fill = v4.len() + count;
        while v4.len() < fill {
            let noise = random.next() as u32;
            // Unicast space: 1.0.0.0 to 223.255.255.255.
            let anywhere = noise % 0xdf00_0000 + 0x0100_0000;
            let address = match length {
                0 => 0,
                25.. if !crowded.is_empty() && random.below(1_000) < CROWDED_PER_MILLE => {
                    random.pick(&crowded) | (noise & 0xff)
                }
                _ if !holders.is_empty() && random.below(1_000) < NESTED_PER_MILLE => {
                    let holder = random.pick(&holders);
                    holder.network().to_bits() | (noise & holder.hostmask().to_bits())
                }
                _ => anywhere,
            };
            let prefix = Ipv4Net::new_assert(address.into(), length).trunc();
            let id = RouteId(random.below(u64::from(GROUPS)) as u16);
            if v4.insert(prefix, id).is_none() {
                match length {
                    12..=22 => holders.push(prefix),
                    25.. => crowded.push(address & !0xff),
                    _ => {}
                }
            }
        }
    }
    let mut v6 = std::collections::BTreeMap::new();
    let mut holders: Vec<Ipv6Net> = Vec::new();
    for (length, count) in LENGTHS6 {
        let fill = v6.len() + count;
        while v6.len() < fill {
            let noise = random.wide();
            // Allocations follow each other, so that few of the bits up to /32 vary.
            let anywhere = random.pick(&UPPER6) << 112 | noise >> 17;
            let address = if !holders.is_empty() && random.below(1_000) < NESTED_PER_MILLE {
                let holder = random.pick(&holders);
                holder.network().to_bits() | (noise & holder.hostmask().to_bits())
            } else {
                anywhere
            };
            let prefix = Ipv6Net::new_assert(address.into(), length).trunc();
            let id = RouteId(random.below(u64::from(GROUPS)) as u16);
            if v6.insert(prefix, id).is_none() && (29..=40).contains(&length) {
                holders.push(prefix);
            }
        }
    }
    Routes { source: "synthetic", v4: v4.into_iter().collect(), v6: v6.into_iter().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_synthetic_table_has_the_shape_of_the_real_one() {
        let routes = synthetic(1);
        assert_eq!(routes.v4.len(), 1_072_529);
        assert_eq!(routes.v6.len(), 176_388);
        let mut blocks: Vec<u32> = routes
            .v4
            .iter()
            .filter(|(prefix, _)| prefix.prefix_len() > 24)
            .map(|(prefix, _)| prefix.network().to_bits() >> 8)
            .collect();
        blocks.sort_unstable();
        blocks.dedup();
        assert!((22_000..29_000).contains(&blocks.len()), "{} blocks", blocks.len());
        assert_eq!(synthetic(1).v4, routes.v4, "a seed gives one table");
    }
}
