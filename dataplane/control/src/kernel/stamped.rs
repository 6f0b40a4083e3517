//! A map that is kept by news and by dumps at the same time.
//!
//! A dump of the kernel's table takes a while, and news arrives meanwhile on another socket. Which
//! of two contradicting statements is older cannot be told: a part of a dump may have been written
//! before a change and be read after the news of it. But the last news of a key is its final state,
//! whatever a dump says. So: **while a dump runs, news wins for every key that it names**; the dump
//! decides over all others, and what neither named when the dump ends is gone.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;

/// Where a statement comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    News,
    Dump,
}

/// The age of a statement: which dump was the latest, and whether it was news after its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stamp(u32);

impl Stamp {
    pub(super) const fn new(generation: u32, origin: Origin) -> Self {
        Self((generation << 1) | matches!(origin, Origin::News) as u32)
    }
}

/// The map.
#[derive(Debug)]
pub(super) struct Stamped<K, V> {
    entries: HashMap<K, (V, Stamp)>,
    generation: u32,
    /// Present while a dump runs: the keys that news removed since its start.
    removed: Option<HashSet<K>>,
}

impl<K, V> Default for Stamped<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), generation: 0, removed: None }
    }
}

impl<K: Hash + Eq + Clone, V: PartialEq> Stamped<K, V> {
    /// A dump starts, or starts again.
    pub(super) fn begin(&mut self) {
        self.generation = self.generation.wrapping_add(1) & (u32::MAX >> 1);
        self.removed = Some(HashSet::new());
    }

    /// Takes a statement in; true if it changed something.
    pub(super) fn set(&mut self, key: K, value: V, origin: Origin) -> bool {
        let news = Stamp::new(self.generation, Origin::News);
        if origin == Origin::Dump && self.removed.as_ref().is_none_or(|keys| keys.contains(&key)) {
            return false;
        }
        match self.entries.entry(key) {
            Entry::Occupied(entry) if origin == Origin::Dump && entry.get().1 == news => false,
            Entry::Occupied(mut entry) => {
                let (old, stamp) = entry.get_mut();
                *stamp = Stamp::new(self.generation, origin);
                let changed = *old != value;
                *old = value;
                changed
            }
            Entry::Vacant(entry) => {
                entry.insert((value, Stamp::new(self.generation, origin)));
                true
            }
        }
    }

    /// News: the key is gone. The value that it had.
    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        if let Some(removed) = &mut self.removed {
            removed.insert(key.clone());
        }
        self.entries.remove(key).map(|(value, _)| value)
    }

    /// The dump has ended: removes and gives what neither it nor news named.
    pub(super) fn finish(&mut self) -> Vec<(K, V)> {
        let oldest = Stamp::new(self.generation, Origin::Dump);
        self.removed = None;
        self.entries
            .extract_if(|_, (_, stamp)| *stamp < oldest)
            .map(|(key, (value, _))| (key, value))
            .collect()
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|(value, _)| value)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, (value, _))| (key, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(map: &Stamped<u8, char>) -> Vec<(u8, char)> {
        let mut content: Vec<_> = map.iter().map(|(key, value)| (*key, *value)).collect();
        content.sort_unstable();
        content
    }

    #[test]
    fn a_dump_replaces_what_was_known() {
        let mut map = Stamped::default();
        for _ in 0..3 {
            map.begin();
            map.set(1, 'a', Origin::Dump);
            map.set(2, 'b', Origin::Dump);
            assert!(map.finish().is_empty());
        }
        map.begin();
        assert!(!map.set(1, 'a', Origin::Dump), "unchanged");
        assert!(map.set(3, 'c', Origin::Dump), "new");
        assert_eq!(content(&map), [(1, 'a'), (2, 'b'), (3, 'c')], "nothing is lost meanwhile");
        assert_eq!(map.finish(), [(2, 'b')]);
        assert_eq!(content(&map), [(1, 'a'), (3, 'c')]);
    }

    #[test]
    fn news_during_a_dump_wins_before_and_after_the_dumps_word() {
        let mut map = Stamped::default();
        map.begin();
        map.set(1, 'a', Origin::Dump);
        map.set(2, 'b', Origin::Dump);
        map.finish();

        map.begin();
        map.set(1, 'n', Origin::News);
        assert!(!map.set(1, 'a', Origin::Dump), "the dump's word may be older");
        assert_eq!(map.remove(&2), Some('b'));
        assert!(!map.set(2, 'b', Origin::Dump), "removed by news");
        map.set(3, 'd', Origin::Dump);
        map.set(3, 'n', Origin::News);
        map.set(4, 'n', Origin::News);
        assert!(map.finish().is_empty(), "what news named stays");
        assert_eq!(content(&map), [(1, 'n'), (3, 'n'), (4, 'n')]);

        map.begin();
        map.set(1, 'a', Origin::Dump);
        assert_eq!(map.finish().len(), 2, "news from before this dump is the dump's to judge");
        assert_eq!(content(&map), [(1, 'a')]);
    }

    #[test]
    fn a_dump_that_nobody_began_is_ignored() {
        let mut map = Stamped::default();
        assert!(!map.set(1, 'a', Origin::Dump));
        assert!(content(&map).is_empty());
    }
}
