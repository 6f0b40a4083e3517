//! Tables that allocate once, when they are made, and never while packets are judged.
//!
//! ```
//! use sluice_sdk::fixed::{ExpiringMap, RecentSet, Ring};
//!
//! let mut seen = ExpiringMap::<[u8; 16], u32>::new(1024, 30_000_000_000, 7);
//! *seen.get_or_insert_with([1; 16], 0, || 0).value += 1;
//! assert_eq!(seen.get(&[1; 16], 29_999_999_999), Some(&1));
//! assert_eq!(seen.get(&[1; 16], 60_000_000_000), None);
//!
//! let mut recent = RecentSet::<u32>::new(64, 7);
//! assert!(!recent.insert(5));
//! assert!(recent.insert(5));
//!
//! let mut last = Ring::<u64>::new(2);
//! for n in 1..=3 {
//!     last.push(n);
//! }
//! assert_eq!(last.iter().copied().collect::<Vec<_>>(), [2, 3]);
//! ```
//!
//! A key may lie in one of eight places, so that nothing takes longer when a table is full; which eight
//! depends on the seed. Give it one from [`random`](crate::random) where senders choose the keys, or they
//! can make them meet.

mod expiring_map;
mod recent_set;
mod ring;

pub use expiring_map::{ExpiringMap, Slot};
pub use recent_set::RecentSet;
pub use ring::Ring;
