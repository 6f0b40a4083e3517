//! [`Map6`]: a value for each IPv6 address, found by binary search.
//!
//! Prefixes seldom end behind the first 64 bits, so that these decide but for a few addresses, which are looked
//! at once more. To compare both halves in every step would be a branch a step, of which none can be foreseen.

use std::hint::select_unpredictable;

use crate::TooLarge;

/// A value for each IPv6 address.
#[derive(Clone, Debug)]
pub struct Map6 {
    /// First halves of the addresses where the values begin.
    high: Vec<u64>,
    /// Their second halves; empty when all are zero.
    low: Vec<u64>,
    values: Vec<u16>,
}

impl Map6 {
    /// A map in which each value holds from its address up to the next one. The first address must
    /// be 0, and they must rise.
    ///
    /// # Errors
    /// [`TooLarge`], when there are more than 65,536.
    ///
    /// # Panics
    /// If the first address is not 0.
    pub fn new(starts: &[(u128, u16)]) -> Result<Self, TooLarge> {
        assert_eq!(starts.first().map(|(start, _)| *start), Some(0), "all addresses have a value");
        if starts.len() > 1 << 16 {
            return Err(TooLarge);
        }
        let low: Vec<u64> = starts.iter().map(|(start, _)| *start as u64).collect();
        Ok(Self {
            high: starts.iter().map(|(start, _)| (*start >> 64) as u64).collect(),
            low: if low.iter().all(|low| *low == 0) { Vec::new() } else { low },
            values: starts.iter().map(|(_, value)| *value).collect(),
        })
    }

    /// The value of an address.
    #[inline]
    #[must_use]
    pub fn get(&self, address: u128) -> u16 {
        let [value] = self.get_each([address]);
        value
    }

    /// The values of several addresses. Their searches go in step: one waits for memory while others compare.
    #[inline]
    #[must_use]
    pub fn get_each<const N: usize>(&self, addresses: [u128; N]) -> [u16; N] {
        let positions = self.search(addresses.map(|address| (address >> 64) as u64));
        std::array::from_fn(|n| {
            let (position, high, low) =
                (positions[n], (addresses[n] >> 64) as u64, addresses[n] as u64);
            // Of starts with the same first half it is the last one.
            let is_behind = self.low.get(position).is_some_and(|start| *start > low);
            if is_behind && self.high[position] == high {
                return self.values[self.search_low(position, high, low)];
            }
            self.values[position]
        })
    }

    /// The value, where all addresses have the same.
    #[inline]
    #[must_use]
    pub fn only_value(&self) -> Option<u16> {
        match self.values[..] {
            [only] => Some(only),
            _ => None,
        }
    }

    /// The last positions whose first halves are not above these. As many steps for every address.
    #[inline]
    fn search<const N: usize>(&self, high: [u64; N]) -> [usize; N] {
        let (mut bases, mut size) = ([0; N], self.high.len());
        while size > 1 {
            let half = size / 2;
            for (base, high) in bases.iter_mut().zip(high) {
                let at = *base + half;
                *base = select_unpredictable(self.high[at] <= high, at, *base);
            }
            size -= half;
        }
        bases
    }

    /// The last position that is not behind the address, if its first half begins several values, of which
    /// `last` is behind it.
    #[cold]
    fn search_low(&self, last: usize, high: u64, low: u64) -> usize {
        let first = self.high[..last].partition_point(|start| *start < high);
        let below = self.low[first..last].partition_point(|start| *start <= low);
        // The address 0 begins a value, so that there is one before.
        (first + below).saturating_sub(1)
    }

    /// Bytes that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.high.len() * 10 + self.low.len() * 8
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn starts(low_too: bool) -> impl Strategy<Value = Vec<(u128, u16)>> {
        let half = || prop::sample::select(vec![0_u64, 1, 2, 1 << 32, u64::MAX]);
        let address = (half(), half()).prop_map(move |(high, low)| {
            u128::from(high) << 64 | if low_too { u128::from(low) } else { 0 }
        });
        prop::collection::btree_map(address, 0_u16..5, 0..25).prop_map(|map| {
            let mut starts = vec![(0, 9)];
            starts.extend(map.into_iter().filter(|(start, _)| *start != 0));
            starts
        })
    }

    proptest! {
        #[test]
        fn a_map_is_its_starts(starts in prop_oneof![starts(false), starts(true)]) {
            let map = Map6::new(&starts).expect("it fits");
            for (start, _) in &starts {
                for address in [*start, start.wrapping_sub(1), start.wrapping_add(1)] {
                    let after = starts.partition_point(|(start, _)| *start <= address);
                    let value = starts[after - 1].1;
                    prop_assert_eq!(map.get(address), value, "{:#x}", address);
                    let first = map.get(0);
                    prop_assert_eq!(map.get_each([address, 0, address]), [value, first, value]);
                }
            }
        }
    }
}
