//! Which words are free: lists of pieces by their size, and what was never taken.
//!
//! A piece that fits a cache line lies in one, so that a look-up in a block of few routes misses once.
//! What is left over before the next line is a piece of its own.
//!
//! Absent: merging of pieces. Sizes recur, and a table that is full of pieces of other sizes is built
//! anew.

use super::WORDS;

/// Words of a cache line.
const LINE: u32 = 8;
/// The most words that a block has, and one.
const SIZES: usize = 160;

/// The free words.
#[derive(Debug)]
pub(super) struct Room {
    /// First words of free pieces, by their size.
    free: Vec<Vec<u32>>,
    /// The first word that was never taken.
    next: u32,
    taken: usize,
}

impl Room {
    /// All words are free but the first line, in which no block begins: 0 stands for no block.
    pub(super) fn new() -> Self {
        Self { free: vec![Vec::new(); SIZES], next: LINE, taken: 0 }
    }

    /// The first of `size` words; nothing if there are not as many, or the last `kept` would be touched.
    pub(super) fn take(&mut self, size: usize, kept: usize) -> Option<u32> {
        let first = self.piece(size, WORDS - kept)?;
        self.taken += size;
        Some(first)
    }

    fn piece(&mut self, size: usize, end: usize) -> Option<u32> {
        if let Some(first) = self.free[size].pop() {
            return Some(first);
        }
        let words = size as u32;
        let left = LINE - self.next % LINE;
        let skipped = if words <= LINE && words > left { left } else { 0 };
        if (self.next + skipped + words) as usize <= end {
            if skipped > 0 {
                self.free[skipped as usize].push(self.next);
            }
            let first = self.next + skipped;
            self.next = first + words;
            return Some(first);
        }
        let found = (size + 1..SIZES).find(|&size| !self.free[size].is_empty())?;
        let first = self.free[found].pop()?;
        self.free[found - size].push(first + words);
        Some(first)
    }

    /// Gives back what was taken.
    pub(super) fn give(&mut self, first: u32, size: usize) {
        self.taken -= size;
        self.free[size].push(first);
    }

    /// Words that blocks have.
    pub(super) const fn taken(&self) -> usize {
        self.taken
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn small_pieces_lie_in_one_line() {
        let mut room = Room::new();
        let pieces: Vec<(u32, u32)> = (0..1_000)
            .map(|n| (n * 7 % 8 + 1, room.take((n * 7 % 8 + 1) as usize, 0).unwrap()))
            .collect();
        for &(size, first) in &pieces {
            assert_eq!(first / LINE, (first + size - 1) / LINE, "{size} words from {first}");
        }
        let mut words: Vec<u32> =
            pieces.iter().flat_map(|&(size, first)| first..first + size).collect();
        let all = words.len();
        words.sort_unstable();
        words.dedup();
        assert_eq!((words.len(), room.taken()), (all, all), "no word twice");
    }

    #[test]
    fn when_all_is_taken_larger_pieces_are_cut() {
        let mut room = Room::new();
        let mut pieces = Vec::new();
        while let Some(first) = room.take(145, 0) {
            pieces.push(first);
        }
        assert!(pieces.len() > WORDS / 145 - 2);
        let first = pieces[3];
        assert_eq!((room.take(145, 0), room.take(8, WORDS / 2)), (None, None));
        while room.take(1, 0).is_some() {}
        room.give(first, 145);
        assert_eq!(room.take(100, 0), Some(first));
        assert_eq!(room.take(46, 0), None);
        assert_eq!(room.take(45, 0), Some(first + 100));
    }
}
