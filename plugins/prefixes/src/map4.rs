//! [`Map4`]: a value for each IPv4 address, found by three loads at most.
//!
//! A trie of up to three levels, the first for two bytes of the address and the others for a byte each: as
//! many as the longest prefix needs. Pages of a level that are equal are one page, so that what no prefix
//! divides costs a page a level, and few lines of the cache are touched. All levels lie in one array: one
//! address and one length are all that a loop over packets needs to keep.
//!
//! ```text
//!  10.1 . 2 . 3
//!  cells[10 * 256 + 1] -> cells[page * 256 + 2] -> cells[page * 256 + 3] = value
//! ```

use std::collections::HashMap;

use crate::TooLarge;

/// What each value of one byte leads to: a page of the next level, or a value in the last.
type Page = [u16; 256];

/// The cells of the first level, in pages.
const ROOT_PAGES: usize = 256;

/// A value for each IPv4 address.
#[derive(Clone, Debug)]
pub struct Map4 {
    /// The first level, and behind it the pages of the others, which are known by number.
    cells: Box<[u16]>,
    /// Some value begins within a last byte. Else the pages of the level before hold the values.
    is_deep: bool,
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
    /// [`TooLarge`], when there would be more than 65,536 pages.
    ///
    /// # Panics
    /// If the first address is not 0.
    pub fn new(starts: &[(u32, u16)]) -> Result<Self, TooLarge> {
        assert_eq!(starts.first().map(|(start, _)| *start), Some(0), "all addresses have a value");
        let mut maker = Maker::default();
        let root = maker.page(32, 0, starts)?;
        let [second, mut third, fourth] = maker.levels.map(|level| level.pages);
        let is_deep = fourth.iter().any(|page| page.iter().any(|value| *value != page[0]));
        let first_third = ROOT_PAGES;
        let first_fourth = first_third + third.len();
        let pages = if is_deep { first_fourth + fourth.len() } else { first_fourth };
        if pages > 1 << 16 {
            return Err(TooLarge);
        }
        for entry in third.iter_mut().flatten() {
            *entry =
                if is_deep { *entry + first_fourth as u16 } else { fourth[usize::from(*entry)][0] };
        }
        let mut cells = Vec::with_capacity(pages * 256);
        for page in root {
            let seconds = second[usize::from(page)];
            cells.extend(seconds.map(|page| page + first_third as u16));
        }
        cells.extend(third.iter().flatten());
        if is_deep {
            cells.extend(fourth.iter().flatten());
        }
        Ok(Self { cells: cells.into(), is_deep })
    }

    /// The value of an address.
    #[inline]
    #[must_use]
    pub fn get(&self, address: u32) -> u16 {
        let bytes = address.to_be_bytes();
        if self.is_deep { self.get_by::<true>(bytes) } else { self.get_by::<false>(bytes) }
    }

    /// Whether some value begins within a last byte.
    #[must_use]
    pub const fn is_deep(&self) -> bool {
        self.is_deep
    }

    /// The value of an address, for loops over many that asked [`Self::is_deep`] before.
    #[inline]
    #[must_use]
    pub fn get_by<const IS_DEEP: bool>(&self, [a, b, c, d]: [u8; 4]) -> u16 {
        let below = |page: u16, byte: u8| self.cells[usize::from(page) << 8 | usize::from(byte)];
        // So much is always there: no index of it needs to be looked at.
        let root = self.cells.first_chunk::<{ ROOT_PAGES * 256 }>();
        let second = root.map_or(0, |root| root[usize::from(u16::from_be_bytes([a, b]))]);
        let found = below(second, c);
        if IS_DEEP { below(found, d) } else { found }
    }

    /// Bytes that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.cells)
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
    fn what_nothing_divides_is_a_page() {
        let map = Map4::new(&[(0, 7)]).expect("it fits");
        assert_eq!((map.get(0), map.get(u32::MAX), map.bytes()), (7, 7, (256 + 1) * 512));
    }
}
