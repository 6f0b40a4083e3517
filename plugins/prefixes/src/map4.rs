//! [`Map4`]: a value for each IPv4 address, found by four loads at most.
//!
//! A trie of up to four levels, a byte each: as many as the longest prefix needs. Pages of a level that
//! are equal are one page, so that what no prefix divides costs a page a level, and few lines of the
//! cache are touched.
//!
//! ```text
//!  10 . 1 . 2 . 3
//!  root[10] -> second[page][1] -> third[page][2] -> fourth[page][3] = value
//! ```

use std::collections::HashMap;

use crate::TooLarge;

/// What each value of one byte leads to: a page of the next level, or a value in the last.
type Page = [u16; 256];

/// A value for each IPv4 address.
#[derive(Clone, Debug)]
pub struct Map4 {
    root: Box<Page>,
    second: Vec<Page>,
    third: Vec<Page>,
    /// Empty where the pages before hold the values.
    fourth: Vec<Page>,
}

/// The pages of one level while they are made.
#[derive(Default)]
struct Level {
    pages: Vec<Page>,
    known: HashMap<Page, u16>,
    /// The pages that lead to one value only, by that value.
    uniform: HashMap<u16, u16>,
}

impl Level {
    fn add(&mut self, page: Page) -> Result<u16, TooLarge> {
        if let Some(number) = self.known.get(&page) {
            return Ok(*number);
        }
        let number = u16::try_from(self.pages.len()).map_err(|_| TooLarge)?;
        self.pages.push(page);
        self.known.insert(page, number);
        Ok(number)
    }
}

/// The levels under the root.
#[derive(Default)]
struct Maker {
    levels: [Level; 3],
}

impl Maker {
    /// The page of `level` (0 to 2) for a space that has `value` everywhere.
    fn uniform(&mut self, level: usize, value: u16) -> Result<u16, TooLarge> {
        if let Some(number) = self.levels[level].uniform.get(&value) {
            return Ok(*number);
        }
        let below = if level == 2 { value } else { self.uniform(level + 1, value)? };
        let number = self.levels[level].add([below; 256])?;
        self.levels[level].uniform.insert(value, number);
        Ok(number)
    }

    /// What stands for the `1 << bits` addresses from `first` on, of which the first has the value of
    /// `starts[0]`; starts behind these addresses are left alone.
    fn node(&mut self, bits: u32, first: u64, starts: &[(u32, u16)]) -> Result<u16, TooLarge> {
        let inside = starts.partition_point(|(start, _)| u64::from(*start) < first + (1 << bits));
        match (bits, inside) {
            (0, _) => Ok(starts[0].1),
            (_, 1) => self.uniform(3 - bits as usize / 8, starts[0].1),
            _ => {
                let page = self.page(bits, first, &starts[..inside])?;
                self.levels[3 - bits as usize / 8].add(page)
            }
        }
    }

    fn page(&mut self, bits: u32, first: u64, starts: &[(u32, u16)]) -> Result<Page, TooLarge> {
        let mut page = [0; 256];
        for (entry, first) in page.iter_mut().zip((first..).step_by(1 << (bits - 8))) {
            // The last start that is not behind the first address.
            let from = starts.partition_point(|(start, _)| u64::from(*start) <= first) - 1;
            *entry = self.node(bits - 8, first, &starts[from..])?;
        }
        Ok(page)
    }
}

impl Map4 {
    /// A map in which each value holds from its address up to the next one. The first address must
    /// be 0, and they must rise.
    ///
    /// # Errors
    /// [`TooLarge`], when a level would have more pages than 65,536.
    ///
    /// # Panics
    /// If the first address is not 0.
    pub fn new(starts: &[(u32, u16)]) -> Result<Self, TooLarge> {
        assert_eq!(starts.first().map(|(start, _)| *start), Some(0), "all addresses have a value");
        let mut maker = Maker::default();
        let root = Box::new(maker.page(32, 0, starts)?);
        let [second, mut third, mut fourth] = maker.levels.map(|level| level.pages);
        if fourth.iter().all(|page| page.iter().all(|value| *value == page[0])) {
            // No value begins within the last byte: the pages before can hold the values themselves.
            for entry in third.iter_mut().flatten() {
                *entry = fourth[usize::from(*entry)][0];
            }
            fourth.clear();
        }
        Ok(Self { root, second, third, fourth })
    }

    /// The value of an address.
    #[inline]
    #[must_use]
    pub fn get(&self, address: u32) -> u16 {
        let [a, b, c, d] = address.to_be_bytes();
        let page = usize::from(self.root[usize::from(a)]);
        let page = usize::from(self.second[page][usize::from(b)]);
        let found = self.third[page][usize::from(c)];
        if self.fourth.is_empty() { found } else { self.fourth[usize::from(found)][usize::from(d)] }
    }

    /// Bytes that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        (1 + self.second.len() + self.third.len() + self.fourth.len()) * size_of::<Page>()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Starts that lie together and far apart, at the ends of pages and in them.
    fn starts() -> impl Strategy<Value = Vec<(u32, u16)>> {
        let byte = || prop::sample::select(vec![0_u8, 1, 127, 128, 255]);
        let address = (byte(), byte(), byte(), byte()).prop_map(|(a, b, c, d)| [a, b, c, d]);
        let address = address.prop_map(u32::from_be_bytes);
        prop::collection::btree_map(address, 0_u16..5, 0..40).prop_map(|map| {
            let mut starts = vec![(0, 9)];
            starts.extend(map.into_iter().filter(|(start, _)| *start != 0));
            starts
        })
    }

    proptest! {
        #[test]
        fn a_map_is_its_starts(starts in starts(), others in prop::collection::vec(any::<u32>(), 50)) {
            let map = Map4::new(&starts).expect("it fits");
            let near = starts.iter().flat_map(|(start, _)| {
                [*start, start.wrapping_sub(1), start.wrapping_add(1)]
            });
            for address in near.chain(others) {
                let after = starts.partition_point(|(start, _)| *start <= address);
                prop_assert_eq!(map.get(address), starts[after - 1].1, "{:#x}", address);
            }
        }
    }

    #[test]
    fn what_nothing_divides_is_a_page_a_level() {
        let map = Map4::new(&[(0, 7)]).expect("it fits");
        assert_eq!((map.get(0), map.get(u32::MAX), map.bytes()), (7, 7, 3 * 512));
    }
}
