//! Routes that were withdrawn and are kept for a while.
//!
//! A routing daemon that restarts, or a session that flaps, takes routes away and gives them back within
//! seconds. With `routes.withdraw_hold_ms` the packets meanwhile take the old way instead of none.
//!
//! Exactly: when the last route of a prefix goes, and that route led to next hops with addresses, it stays
//! in force until the time is over, or until any source gives the prefix a route, or until one of its links
//! goes down; whichever is first. While it stays, a shorter prefix does not take over. A route that is
//! replaced, and one that dropped packets, is never held.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use ipnet::IpNet;

/// The prefixes that are held, in the order in which their time ends.
#[derive(Clone, Debug, Default)]
pub(super) struct Withdrawn {
    until: HashMap<IpNet, Instant>,
    /// Entries that no longer agree with `until` mean nothing.
    order: VecDeque<(Instant, IpNet)>,
}

impl Withdrawn {
    pub(super) fn hold(&mut self, prefix: IpNet, until: Instant) {
        self.until.insert(prefix, until);
        self.order.push_back((until, prefix));
    }

    /// The hold has ended, for whatever reason.
    pub(super) fn forget(&mut self, prefix: IpNet) {
        self.until.remove(&prefix);
    }

    /// One of those whose time is over.
    pub(super) fn due(&mut self, now: Instant) -> Option<IpNet> {
        while let Some((until, prefix)) = self.order.pop_front_if(|(until, _)| *until <= now) {
            if self.until.get(&prefix) == Some(&until) {
                return Some(prefix);
            }
        }
        None
    }

    pub(super) fn prefixes(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.until.keys().copied()
    }

    /// When a prefix's time is over.
    pub(super) fn until(&self, prefix: IpNet) -> Option<Instant> {
        self.until.get(&prefix).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.until.len()
    }
}
