//! [`PrefixMap`]: the value of the longest prefix that holds an address, of either family.

use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::{Map4, Map6, TooLarge, v4_bits};

/// The value of the longest prefix that holds an address.
#[derive(Clone, Debug)]
pub struct PrefixMap {
    v4: Map4,
    v6: Map6,
}

/// Where values begin, while they are collected in order.
struct Starts(Vec<(u128, u16)>);

impl Starts {
    fn begin(&mut self, start: u128, value: u16) {
        if self.0.last().is_some_and(|(last, _)| *last == start) {
            self.0.pop();
        }
        if self.0.last().is_none_or(|(_, last)| *last != value) {
            self.0.push((start, value));
        }
    }
}

/// The prefixes of one family by first address and length, which is a walk from each to those in it,
/// as starts of values. `top` is the last address of the family.
fn flatten(
    prefixes: BTreeMap<(u128, u8), (u128, u16)>,
    top: u128,
    default: u16,
) -> Vec<(u128, u16)> {
    let mut starts = Starts(vec![(0, default)]);
    // The prefixes that hold the place where the walk is: their last addresses and values.
    let mut open: Vec<(u128, u16)> = Vec::new();
    let close = |open: &mut Vec<(u128, u16)>, starts: &mut Starts, until: Option<u128>| {
        while let Some((last, _)) = open.pop_if(|(last, _)| until.is_none_or(|start| *last < start))
        {
            if last < top {
                starts.begin(last + 1, open.last().map_or(default, |(_, value)| *value));
            }
        }
    };
    for ((first, _), (last, value)) in prefixes {
        close(&mut open, &mut starts, Some(first));
        starts.begin(first, value);
        open.push((last, value));
    }
    close(&mut open, &mut starts, None);
    starts.0
}

impl PrefixMap {
    /// A map of prefixes; addresses in none of them have the value `default`. Of equal prefixes the
    /// last one counts.
    ///
    /// # Errors
    /// [`TooLarge`].
    pub fn new(
        prefixes: impl IntoIterator<Item = (IpNet, u16)>,
        default: u16,
    ) -> Result<Self, TooLarge> {
        let (mut v4, mut v6) = (BTreeMap::new(), BTreeMap::new());
        for (net, value) in prefixes {
            match net {
                IpNet::V4(net) => {
                    let [first, last] =
                        [net.network(), net.broadcast()].map(|end| end.to_bits().into());
                    v4.insert((first, net.prefix_len()), (last, value));
                }
                IpNet::V6(net) => {
                    let [first, last] = [net.network(), net.broadcast()].map(|end| end.to_bits());
                    v6.insert((first, net.prefix_len()), (last, value));
                }
            }
        }
        let v4 = flatten(v4, u32::MAX.into(), default);
        let v4: Vec<_> = v4.into_iter().map(|(start, value)| (start as u32, value)).collect();
        Ok(Self { v4: Map4::new(&v4)?, v6: Map6::new(&flatten(v6, u128::MAX, default))? })
    }

    /// The value of an address as a descriptor holds it.
    #[inline]
    #[must_use]
    pub fn get(&self, address: &[u8; 16], is_v6: bool) -> u16 {
        if is_v6 {
            self.v6.get(u128::from_be_bytes(*address))
        } else {
            self.v4.get(v4_bits(address))
        }
    }

    /// Bytes that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.v4.bytes() + self.v6.bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn net() -> impl Strategy<Value = IpNet> {
        let v4 = (0_u8..3, 0_u8..3, prop::sample::select(vec![0_u8, 1, 7, 8, 9, 16, 31, 32]));
        let v4 = v4.prop_map(|(a, b, len)| {
            IpNet::new(IpAddr::from([a * 127, b, 0, b]), len).expect("a length").trunc()
        });
        let v6 = (0_u16..3, 0_u16..3, prop::sample::select(vec![0_u8, 1, 32, 64, 65, 127, 128]));
        let v6 = v6.prop_map(|(a, b, len)| {
            let address = Ipv6Addr::from([a * 0x7fff, b, 0, 0, 0x8000, 0, 0, b]);
            IpNet::new(address.into(), len).expect("a length").trunc()
        });
        prop_oneof![v4, v6]
    }

    fn bytes(address: IpAddr) -> ([u8; 16], bool) {
        match address {
            IpAddr::V4(v4) => (v4.to_ipv6_mapped().octets(), false),
            IpAddr::V6(v6) => (v6.octets(), true),
        }
    }

    proptest! {
        #[test]
        fn the_longest_prefix_decides(nets in prop::collection::btree_map(net(), 0_u16..9, 0..30)) {
            let map = PrefixMap::new(nets.clone(), 99).expect("it fits");
            let ends = nets.keys().flat_map(|net| [net.network(), net.broadcast()]);
            let around = ends.flat_map(|end| [-1_i8, 0, 1].map(|n| match end {
                IpAddr::V4(v4) => IpAddr::V4(v4.to_bits().wrapping_add(n as u32).into()),
                IpAddr::V6(v6) => IpAddr::V6(v6.to_bits().wrapping_add(n as u128).into()),
            }));
            for asked in around {
                let longest = nets.iter().filter(|(net, _)| net.contains(&asked));
                let longest = longest.max_by_key(|(net, _)| net.prefix_len());
                let (bytes, is_v6) = bytes(asked);
                prop_assert_eq!(
                    map.get(&bytes, is_v6), longest.map_or(99, |(_, value)| *value), "{}", asked
                );
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        // A /32 in each of 65,537 /24, every other with its own value: pages of the last level.
        let nets = (0..65_537_u32).map(|n| {
            let address = (n << 8 | n & 0xff) + (n >> 16);
            (IpNet::new(IpAddr::V4(address.into()), 32).expect("a length"), n as u16)
        });
        assert_eq!(PrefixMap::new(nets, 65_535).err(), Some(TooLarge));
    }
}
