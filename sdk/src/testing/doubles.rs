//! The host's services, played natively. Those of the running [`Bench`](crate::testing::Bench) are found
//! through the thread; without one there is a host that has nothing.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    rc::Rc,
    string::{String, ToString as _},
    vec::Vec,
};

use sluice_abi::meter::{ENTRIES_IN_ALL_MAX, Rate, open_error, units};
use sluice_abi::quota::MEMBERS_IN_ALL_MAX;

use crate::testing::Host;

/// The most meters, and the most quotas, that a plugin opens.
const OPENED_MAX: usize = 16;
const ENTRIES_MAX: u32 = 1 << 22;
const LIFETIME_MS_MAX: u64 = 86_400_000;

type Shared<T> = Rc<RefCell<T>>;

/// What was opened, in that order, with the size that each was opened with.
type Opened<S, T> = Shared<Vec<(S, Shared<T>)>>;

/// What one plugin's instances share.
#[derive(Debug, Default)]
pub(crate) struct Services(State);

#[derive(Debug, Default)]
struct State {
    host: Host,
    is_judging: bool,
    random: u64,
    /// They go on after a reload, and other workers' instances open the same.
    meters: Opened<u32, Buckets>,
    quotas: Opened<(u32, u32, u64), Members>,
    meters_opened: usize,
    quotas_opened: usize,
    /// Of the meters and quotas that are opened.
    entries_in_all: u32,
    members_in_all: u32,
    tables: HashMap<String, Rc<Lines>>,
}

std::thread_local! {
    static CURRENT: RefCell<State> = RefCell::default();
}

impl Services {
    pub(crate) fn new(host: &Host) -> Self {
        let tables =
            host.tables.iter().map(|(name, text)| (name.clone(), Rc::new(Lines::new(text))));
        let tables = tables.collect();
        Self(State { host: host.clone(), random: host.seed, tables, ..State::default() })
    }

    /// Those of another worker: meters, quotas and tables are the same, random numbers follow from the host's
    /// seed and the worker's number.
    pub(crate) fn beside(&self, worker: u64) -> Self {
        let State { host, meters, quotas, tables, .. } = &self.0;
        let mut host = host.clone();
        host.seed = host.seed.wrapping_add(worker);
        Self(State {
            random: host.seed,
            host,
            meters: Rc::clone(meters),
            quotas: Rc::clone(quotas),
            tables: tables.clone(),
            ..State::default()
        })
    }

    pub(crate) fn configuring<R>(&mut self, run: impl FnOnce() -> R) -> R {
        self.0.meters_opened = 0;
        self.0.quotas_opened = 0;
        self.0.entries_in_all = 0;
        self.0.members_in_all = 0;
        self.0.is_judging = false;
        self.with(run)
    }

    pub(crate) fn judging<R>(&mut self, run: impl FnOnce() -> R) -> R {
        self.0.is_judging = true;
        self.with(run)
    }

    /// Begins again with random numbers; returns where they stood.
    pub(crate) fn rewind_random(&mut self) -> u64 {
        std::mem::replace(&mut self.0.random, self.0.host.seed)
    }

    /// Goes on with random numbers from there.
    pub(crate) fn set_random(&mut self, position: u64) {
        self.0.random = position;
    }

    fn with<R>(&mut self, run: impl FnOnce() -> R) -> R {
        /// Puts the thread's services back, also when a test panics.
        struct Back<'s>(&'s mut State);
        impl Drop for Back<'_> {
            fn drop(&mut self) {
                CURRENT.with_borrow_mut(|current| std::mem::swap(current, self.0));
            }
        }
        CURRENT.with_borrow_mut(|current| std::mem::swap(current, &mut self.0));
        let _back = Back(&mut self.0);
        run()
    }
}

pub(crate) fn log(level: i32, text: &str) {
    std::eprintln!("plugin log, level {level}: {text}");
}

pub(crate) fn random() -> u64 {
    // SplitMix64 (Steele, Lea, Flood 2014).
    CURRENT.with_borrow_mut(|state| {
        state.random = state.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

pub(crate) fn name_number(kind: i32, name: &str) -> i32 {
    CURRENT.with_borrow(|state| if state.is_judging { -2 } else { state.host.number(kind, name) })
}

/// A bucket for every key: what the host's table is as long as it has room.
type Buckets = HashMap<[u8; 16], u64>;

#[derive(Debug)]
pub(crate) struct Meter {
    rate: Rate,
    buckets: Shared<Buckets>,
}

impl Meter {
    pub(crate) fn open(rate_milli: i64, burst: i64, entries: u32) -> Result<Self, i32> {
        CURRENT.with_borrow_mut(|state| {
            if state.is_judging {
                return Err(open_error::NOT_CONFIGURING);
            }
            let rate = Rate::new(rate_milli, burst).map_err(|error| error as i32)?;
            let in_all = state.entries_in_all.saturating_add(entries);
            if entries == 0 || entries > ENTRIES_MAX || in_all > ENTRIES_IN_ALL_MAX {
                return Err(open_error::ENTRIES);
            }
            let meters = &mut *state.meters.borrow_mut();
            let buckets = reopened(meters, &mut state.meters_opened, entries)?;
            state.entries_in_all = in_all;
            Ok(Self { rate, buckets })
        })
    }

    pub(crate) fn take(
        &mut self,
        keys: &[[u8; 16]],
        now_ns: u64,
        costs: Option<&[u32]>,
        admitted: &mut [u8],
    ) {
        for (index, (key, admitted)) in keys.iter().zip(admitted).enumerate() {
            *admitted = self.take_one(*key, costs.map_or(1, |costs| costs[index]), now_ns);
        }
    }

    pub(crate) fn take_prefixes(
        &mut self,
        addresses: &[u8],
        stride: usize,
        (len4, len6): (u32, u32),
        now_ns: u64,
        admitted: &mut [u8],
    ) {
        for (address, admitted) in addresses.chunks(stride).zip(admitted) {
            let address = u128::from_be_bytes(*address.first_chunk().expect("16 bytes"));
            let is_mapped = address >> 32 == 0xffff;
            let key = address & mask(if is_mapped { 96 + len4 } else { len6 });
            *admitted = self.take_one(key.to_be_bytes(), 1, now_ns);
        }
    }

    fn take_one(&self, key: [u8; 16], cost: u32, now_ns: u64) -> u8 {
        let mut buckets = self.buckets.borrow_mut();
        let tat = buckets.entry(key).or_default();
        let next = self.rate.take(*tat, units(now_ns), cost);
        *tat = next.unwrap_or(*tat);
        u8::from(next.is_some())
    }
}

/// What was opened at this place before, if its size is the same; else a new one.
fn reopened<S: PartialEq, T: Default>(
    known: &mut Vec<(S, Shared<T>)>,
    opened: &mut usize,
    size: S,
) -> Result<Shared<T>, i32> {
    let place = *opened;
    if place >= OPENED_MAX {
        return Err(-5);
    }
    *opened += 1;
    match known.get_mut(place) {
        Some((before, shared)) if *before == size => Ok(Rc::clone(shared)),
        Some(entry) => {
            *entry = (size, Shared::default());
            Ok(Rc::clone(&entry.1))
        }
        None => {
            let shared = Shared::default();
            known.push((size, Rc::clone(&shared)));
            Ok(shared)
        }
    }
}

/// When the membership of each member of each group ends.
type Members = HashMap<[u8; 16], HashMap<[u8; 16], u64>>;

#[derive(Debug)]
pub(crate) struct Quota {
    budget: u32,
    members_max: u32,
    lifetime_ns: u64,
    members: Shared<Members>,
}

impl Quota {
    pub(crate) fn open(budget: u32, members: u32, lifetime_ms: u64) -> Result<Self, i32> {
        CURRENT.with_borrow_mut(|state| {
            if state.is_judging {
                return Err(-1);
            }
            if i32::try_from(budget).is_err() || budget == 0 {
                return Err(-2);
            }
            let in_all = state.members_in_all.saturating_add(members);
            if members == 0 || members > ENTRIES_MAX || in_all > MEMBERS_IN_ALL_MAX {
                return Err(-3);
            }
            if lifetime_ms == 0 || lifetime_ms > LIFETIME_MS_MAX {
                return Err(-4);
            }
            let size = (budget, members, lifetime_ms);
            let quotas = &mut *state.quotas.borrow_mut();
            let members_of = reopened(quotas, &mut state.quotas_opened, size)?;
            state.members_in_all = in_all;
            Ok(Self {
                budget,
                members_max: members,
                lifetime_ns: lifetime_ms * 1_000_000,
                members: members_of,
            })
        })
    }

    pub(crate) fn admit(
        &mut self,
        groups: &[[u8; 16]],
        members: &[[u8; 16]],
        now_ns: u64,
        answers: &mut [u8],
    ) {
        let mut all = self.members.borrow_mut();
        for members in all.values_mut() {
            members.retain(|_, end| *end > now_ns);
        }
        for ((group, member), answer) in groups.iter().zip(members).zip(answers) {
            let remembered: usize = all.values().map(HashMap::len).sum();
            let end = now_ns.saturating_add(self.lifetime_ns);
            let group = all.entry(*group).or_default();
            *answer = if let Some(known) = group.get_mut(member) {
                *known = end;
                1
            } else if group.len() >= self.budget as usize {
                0
            } else if remembered >= self.members_max as usize {
                2
            } else {
                group.insert(*member, end);
                1
            };
        }
    }

    pub(crate) fn contains(
        &self,
        groups: &[[u8; 16]],
        members: &[[u8; 16]],
        now_ns: u64,
        present: &mut [u8],
    ) {
        let all = self.members.borrow();
        for ((group, member), present) in groups.iter().zip(members).zip(present) {
            let end = all.get(group).and_then(|members| members.get(member));
            *present = u8::from(end.is_some_and(|end| *end > now_ns));
        }
    }

    pub(crate) fn leave(
        &mut self,
        groups: &[[u8; 16]],
        members: &[[u8; 16]],
        now_ns: u64,
        departures: &mut [u8],
    ) {
        let mut all = self.members.borrow_mut();
        for ((group, member), departure) in groups.iter().zip(members).zip(departures) {
            let end = all.get_mut(group).and_then(|members| members.remove(member));
            *departure = u8::from(end.is_some_and(|end| end > now_ns));
        }
    }
}

/// A table's file, read.
#[derive(Debug, Default)]
struct Lines {
    /// By the length of the prefix.
    prefixes: BTreeMap<u32, HashMap<u128, u32>>,
    words: HashMap<String, u32>,
}

impl Lines {
    fn new(text: &str) -> Self {
        let mut lines = Self::default();
        for line in text.lines() {
            let mut fields = line.split_whitespace();
            let Some(key) = fields.next().filter(|key| !key.starts_with('#')) else { continue };
            let (bits, len) = key_of(key).unwrap_or_else(|| panic!("{key:?} is no key of a table"));
            let value = match fields.next() {
                None => 1,
                Some(word) => word.parse().unwrap_or_else(|_| {
                    let next = lines.words.len() as u32 + 1;
                    *lines.words.entry(word.to_string()).or_insert(next)
                }),
            };
            lines.prefixes.entry(len).or_default().insert(bits & mask(len), value);
        }
        lines
    }

    fn lookup(&self, key: u128) -> u32 {
        let found =
            self.prefixes.iter().rev().find_map(|(len, known)| known.get(&(key & mask(*len))));
        found.copied().unwrap_or(0)
    }
}

fn mask(len: u32) -> u128 {
    u128::MAX.checked_shl(128 - len).unwrap_or(0)
}

fn key_of(text: &str) -> Option<(u128, u32)> {
    if text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Some((u128::from_str_radix(text, 16).ok()?, 128));
    }
    let (address, len) = match text.split_once('/') {
        Some((address, len)) => (address, Some(len.parse::<u32>().ok()?)),
        None => (text, None),
    };
    match address.parse().ok()? {
        IpAddr::V4(address) => {
            let len = len.unwrap_or(32);
            (len <= 32).then(|| (u128::from(address.to_ipv6_mapped()), 96 + len))
        }
        IpAddr::V6(address) => {
            let len = len.unwrap_or(128);
            (len <= 128).then(|| (u128::from(address), len))
        }
    }
}

#[derive(Debug)]
pub(crate) struct Table(Rc<Lines>);

impl Table {
    pub(crate) fn open(name: &str) -> Result<Self, i32> {
        CURRENT.with_borrow(|state| {
            if state.is_judging {
                return Err(-1);
            }
            state.tables.get(name).map(|lines| Self(Rc::clone(lines))).ok_or(-2)
        })
    }

    pub(crate) fn word(&self, word: &str) -> u32 {
        self.0.words.get(word).copied().unwrap_or(0)
    }

    pub(crate) fn lookup(&self, keys: &[u8], stride: usize, n: usize, values: &mut [u32]) {
        for (index, value) in values.iter_mut().take(n).enumerate() {
            let at = index * stride;
            let key = keys[at..at + 16].try_into().expect("16 bytes");
            *value = self.0.lookup(u128::from_be_bytes(key));
        }
    }
}
