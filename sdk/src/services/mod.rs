//! What the host does for a plugin. Natively it is done by [`testing::Host`](crate::testing::Host), with the
//! host's own arithmetic, so that tests see what the router would do.

use alloc::{borrow::ToOwned as _, format, string::String};
use core::mem::offset_of;

use sluice_abi::{BATCH_MAX, Descriptor};

#[cfg(not(target_family = "wasm"))]
use crate::testing::doubles as imp;
#[cfg(target_family = "wasm")]
#[path = "imports.rs"]
mod imp;

/// Writes a line to the router's log. `level` is 1 for an error, 2 a warning, 3 information, 4
/// debugging. Needs the capability `log`. At most 16 lines a second of 240 bytes each are kept.
pub fn log(level: i32, text: &str) {
    imp::log(level, text);
}

/// 64 random bits, from a generator of this instance that the system seeded. Needs the capability
/// `random`. Natively they come from [`testing::Host::seed`](crate::testing::Host::seed), the same each
/// time.
#[must_use]
pub fn random() -> u64 {
    imp::random()
}

/// The number of a name, or a negative error of `name_number`.
pub(crate) fn name_number(kind: i32, name: &str) -> i32 {
    imp::name_number(kind, name)
}

/// What opening returns outside of `configure`.
const NOT_CONFIGURING: i32 = -1;

/// Token buckets by key, shared by the plugin's instances on all workers: the rate holds for the
/// whole router. The buckets go on when the plugin is reloaded with the same number of entries.
/// Needs the capability `meter`.
#[derive(Debug)]
pub struct Meter(imp::Meter);

impl Meter {
    /// Opens a meter: `rate_per_s_milli` thousandths of a token a second for each key, up to `burst`
    /// tokens at once. Of keys in use at the same time it keeps about `entries` apart; give it twice
    /// as many as are expected. Only [`Plugin::configure`](crate::Plugin::configure) may open one.
    ///
    /// # Errors
    /// Says which argument is out of range.
    pub fn open(rate_per_s_milli: i64, burst: i64, entries: u32) -> Result<Self, String> {
        use sluice_abi::meter::{RateError, open_error};
        imp::Meter::open(rate_per_s_milli, burst, entries).map(Self).map_err(|code| {
            let text = if code == RateError::Rate as i32 {
                "the rate must be from 0.001 to 2000000000 a second"
            } else if code == RateError::Burst as i32 {
                "the burst must be positive and filled within a year"
            } else if code == open_error::ENTRIES {
                "the number of entries must be from 1 to 4194304, and of all meters together at most 8388608"
            } else if code == open_error::TOO_MANY {
                "a plugin may open 16 meters"
            } else {
                "a meter can be opened by `configure` only"
            };
            text.to_owned()
        })
    }

    /// Takes one token for each key, in order, and says in `admitted` for which there was one (1) or
    /// none (0). At most [`BATCH_MAX`] keys.
    ///
    /// # Panics
    /// If there are more keys than that, or fewer places in `admitted` than keys.
    pub fn take(&mut self, keys: &[[u8; 16]], now_ns: u64, admitted: &mut [u8]) {
        assert!(keys.len() <= BATCH_MAX && admitted.len() >= keys.len());
        self.0.take(keys, now_ns, None, admitted);
    }

    /// Takes `costs[i]` tokens for key number i: as [`Self::take`] else.
    ///
    /// # Panics
    /// As [`Self::take`], or if there are fewer costs than keys.
    pub fn take_costs(
        &mut self,
        keys: &[[u8; 16]],
        costs: &[u32],
        now_ns: u64,
        admitted: &mut [u8],
    ) {
        assert!(keys.len() <= BATCH_MAX && admitted.len() >= keys.len());
        assert!(costs.len() >= keys.len());
        self.0.take(keys, now_ns, Some(costs), admitted);
    }

    /// Takes one token for the prefix of each source address, where it lies in the descriptors: as
    /// [`Self::take`] else, and quicker. The prefix's key is the address without the bits behind it.
    ///
    /// # Panics
    /// If there are more than [`BATCH_MAX`] packets, or fewer places in `admitted` than packets.
    pub fn take_sources(
        &mut self,
        packets: &[Descriptor],
        lens: PrefixLens,
        now_ns: u64,
        admitted: &mut [u8],
    ) {
        self.take_field(packets, offset_of!(Descriptor, source), lens, now_ns, admitted);
    }

    /// The same for the destination addresses.
    ///
    /// # Panics
    /// As [`Self::take_sources`].
    pub fn take_destinations(
        &mut self,
        packets: &[Descriptor],
        lens: PrefixLens,
        now_ns: u64,
        admitted: &mut [u8],
    ) {
        self.take_field(packets, offset_of!(Descriptor, destination), lens, now_ns, admitted);
    }

    fn take_field(
        &mut self,
        packets: &[Descriptor],
        offset: usize,
        lens: PrefixLens,
        now_ns: u64,
        admitted: &mut [u8],
    ) {
        assert!(packets.len() <= BATCH_MAX && admitted.len() >= packets.len());
        let addresses = field(packets, offset);
        let lens = (lens.v4.into(), lens.v6.into());
        let admitted = &mut admitted[..packets.len()];
        self.0.take_prefixes(addresses, size_of::<Descriptor>(), lens, now_ns, admitted);
    }
}

/// How many leading bits of an address make a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixLens {
    v4: u8,
    v6: u8,
}

impl PrefixLens {
    /// Of IPv4 and of IPv6 addresses.
    ///
    /// # Errors
    /// Says which is longer than such an address.
    pub fn new(v4: u32, v6: u32) -> Result<Self, String> {
        let len = |name, len, bits: u8| match u8::try_from(len) {
            Ok(len) if len <= bits => Ok(len),
            _ => Err(format!("the length of {name} prefixes must be from 0 to {bits}")),
        };
        Ok(Self { v4: len("IPv4", v4, 32)?, v6: len("IPv6", v6, 128)? })
    }
}

/// What a [`Quota`] says of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaAnswer {
    /// It was admitted to its group, before or now.
    Admitted,
    /// The group's budget is used up.
    UsedUp,
    /// There is no room to remember it. It counts against nothing.
    NoRoom,
}

/// What a [`Quota`] says of a member that is to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaDeparture {
    /// It was in, and has left: its budget has returned.
    Left,
    /// It was not in.
    Absent,
    /// A worker was interrupted in the middle of a change, and nothing has changed: if the member is in, it
    /// stays until it leaves or its lifetime is over.
    Busy,
}

/// A budget of members for each group, shared by the plugin's instances on all workers: of a budget of
/// 10, whatever the workers ask at once, exactly 10 members are admitted to a group. Needs the capability
/// `quota`.
#[derive(Debug)]
pub struct Quota(imp::Quota);

impl Quota {
    /// Opens a quota: each group admits up to `budget` members, and one that is not asked about for
    /// `lifetime_ms` is forgotten. `members` is how many are remembered over all groups. Only
    /// [`Plugin::configure`](crate::Plugin::configure) may open one.
    ///
    /// # Errors
    /// Says which argument is out of range.
    pub fn open(budget: u32, members: u32, lifetime_ms: u64) -> Result<Self, String> {
        imp::Quota::open(budget, members, lifetime_ms).map(Self).map_err(|code| {
            let text = match code {
                NOT_CONFIGURING => "a quota can be opened by `configure` only",
                -2 => "the budget must be from 1 to 2147483647",
                -3 => "the number of members must be from 1 to 4194304, and of all quotas together at most 8388608",
                -4 => "the lifetime must be from 1 to 86400000 ms",
                _ => "a plugin may open 16 quotas",
            };
            text.to_owned()
        })
    }

    /// Asks for `members[i]` of group `groups[i]`, in order, and writes an answer for each: 1 admitted, 0
    /// used up, 2 no room; [`QuotaAnswer::from`] reads them. At most [`BATCH_MAX`] pairs.
    ///
    /// # Panics
    /// If there are more pairs than that, or the three slices differ in length.
    pub fn admit(
        &mut self,
        groups: &[[u8; 16]],
        members: &[[u8; 16]],
        now_ns: u64,
        answers: &mut [u8],
    ) {
        assert!(groups.len() <= BATCH_MAX && groups.len() == members.len());
        assert!(answers.len() == groups.len());
        self.0.admit(groups, members, now_ns, answers);
    }

    /// Whether `members[i]` is admitted to group `groups[i]`, on whichever worker that was: writes 1 or 0 for
    /// each. Nothing changes by it: nobody is admitted, and nobody's lifetime begins anew. At most [`BATCH_MAX`]
    /// pairs.
    ///
    /// With it a quota is a set that all workers share, put into by [`Self::admit`].
    ///
    /// # Panics
    /// As [`Self::admit`].
    pub fn contains(
        &self,
        groups: &[[u8; 16]],
        members: &[[u8; 16]],
        now_ns: u64,
        present: &mut [u8],
    ) {
        assert!(groups.len() <= BATCH_MAX && groups.len() == members.len());
        assert!(present.len() == groups.len());
        self.0.contains(groups, members, now_ns, present);
    }

    /// Has `members[i]` leave group `groups[i]`, on whichever worker it was admitted, and writes for each: 1 it
    /// was in and has left, its budget with it; 0 it was not in; 2 another worker was interrupted in the middle
    /// of a change, and nothing has changed. [`QuotaDeparture::from`] reads them. At most [`BATCH_MAX`] pairs.
    ///
    /// # Panics
    /// As [`Self::admit`].
    pub fn leave(
        &mut self,
        groups: &[[u8; 16]],
        members: &[[u8; 16]],
        now_ns: u64,
        departures: &mut [u8],
    ) {
        assert!(groups.len() <= BATCH_MAX && groups.len() == members.len());
        assert!(departures.len() == groups.len());
        self.0.leave(groups, members, now_ns, departures);
    }
}

impl From<u8> for QuotaAnswer {
    fn from(answer: u8) -> Self {
        match answer {
            1 => Self::Admitted,
            2 => Self::NoRoom,
            _ => Self::UsedUp,
        }
    }
}

impl From<u8> for QuotaDeparture {
    fn from(departure: u8) -> Self {
        match departure {
            1 => Self::Left,
            2 => Self::Busy,
            _ => Self::Absent,
        }
    }
}

/// A table of prefixes or keys that the router loaded from the operator's file, and loads again when
/// the file changes. Needs the capability `table`, and its name in the manifest's `tables`.
#[derive(Debug)]
pub struct Table(imp::Table);

impl Table {
    /// Opens a table of the manifest's `tables`. Only [`Plugin::configure`](crate::Plugin::configure) may.
    ///
    /// # Errors
    /// Quotes the name, if it is not one of them.
    pub fn open(name: &str) -> Result<Self, String> {
        imp::Table::open(name).map(Self).map_err(|code| match code {
            NOT_CONFIGURING => format!("the table `{name}` can be opened by `configure` only"),
            _ => format!("the manifest's `tables` does not name `{name}`"),
        })
    }

    /// The value that stands for a word of the table's file; `None` if the word does not occur in it.
    #[must_use]
    pub fn word(&self, word: &str) -> Option<u32> {
        Some(self.0.word(word)).filter(|value| *value != 0)
    }

    /// As [`Self::word`] for a word that an operator wrote at `key` of the configuration.
    ///
    /// # Errors
    /// Quotes key and word, if the table does not have it.
    pub fn word_at(&self, key: &str, word: &str) -> Result<u32, String> {
        self.word(word).ok_or_else(|| format!("`{key}`: the table has no {word:?}"))
    }

    /// Looks up the source addresses, where they lie in the descriptors. Writes the value of the longest
    /// prefix for each, or 0 for a miss. At most [`BATCH_MAX`] packets.
    ///
    /// # Panics
    /// If there are more packets than that, or fewer places in `values`.
    pub fn lookup_sources(&self, packets: &[Descriptor], values: &mut [u32]) {
        self.lookup_field(packets, offset_of!(Descriptor, source), values);
    }

    /// The same for the destination addresses.
    ///
    /// # Panics
    /// As [`Self::lookup_sources`].
    pub fn lookup_destinations(&self, packets: &[Descriptor], values: &mut [u32]) {
        self.lookup_field(packets, offset_of!(Descriptor, destination), values);
    }

    /// The same for keys of the plugin's own.
    ///
    /// # Panics
    /// As [`Self::lookup_sources`].
    pub fn lookup(&self, keys: &[[u8; 16]], values: &mut [u32]) {
        assert!(keys.len() <= BATCH_MAX && values.len() >= keys.len());
        self.0.lookup(keys.as_flattened(), 16, keys.len(), values);
    }

    fn lookup_field(&self, packets: &[Descriptor], offset: usize, values: &mut [u32]) {
        assert!(packets.len() <= BATCH_MAX && values.len() >= packets.len());
        self.0.lookup(field(packets, offset), size_of::<Descriptor>(), packets.len(), values);
    }
}

/// The descriptors as bytes, from the first one's field at `offset` on.
fn field(packets: &[Descriptor], offset: usize) -> &[u8] {
    let bytes: &[u8] = bytemuck::cast_slice(packets);
    bytes.get(offset..).unwrap_or_default()
}
