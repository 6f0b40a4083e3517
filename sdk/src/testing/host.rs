//! [`Host`]: what an operator would give a plugin, for tests.

use std::collections::BTreeMap;
use std::{string::String, vec::Vec};

use serde::{Deserialize, Serialize};
use sluice_abi::name_kind;

/// The operator's side of a plugin under test: names, tables, and a seed for what is random.
///
/// ```
/// use sluice_sdk::testing::Host;
///
/// let host = Host::new()
///     .next_hop("east")
///     .table("countries", "10.0.0.0/8 nl\n2001:db8::/32 7\n");
/// # let _ = host;
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    pub(crate) next_hops: Vec<String>,
    pub(crate) egress_tags: Vec<String>,
    pub(crate) classes: Vec<String>,
    pub(crate) interfaces: Vec<String>,
    pub(crate) tables: BTreeMap<String, String>,
    pub(crate) seed: u64,
}

impl Host {
    /// One without names and tables.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a next hop. Numbers of names count from 1 in the order of adding.
    #[must_use]
    pub fn next_hop(mut self, name: &str) -> Self {
        self.next_hops.push(name.into());
        self
    }

    /// Adds an egress tag.
    #[must_use]
    pub fn egress_tag(mut self, name: &str) -> Self {
        self.egress_tags.push(name.into());
        self
    }

    /// Adds a class.
    #[must_use]
    pub fn class(mut self, name: &str) -> Self {
        self.classes.push(name.into());
        self
    }

    /// Adds an interface.
    #[must_use]
    pub fn interface(mut self, name: &str) -> Self {
        self.interfaces.push(name.into());
        self
    }

    /// Gives a table of the manifest's `tables` its lines: an address, a prefix or a key of 32 hexadecimal
    /// digits, then a number, a word, or nothing.
    #[must_use]
    pub fn table(mut self, name: &str, lines: &str) -> Self {
        self.tables.insert(name.into(), lines.into());
        self
    }

    /// What the numbers of [`random`](crate::random) follow from.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    pub(crate) fn number(&self, kind: i32, name: &str) -> i32 {
        let names = match kind {
            name_kind::NEXT_HOP => &self.next_hops,
            name_kind::EGRESS_TAG => &self.egress_tags,
            name_kind::CLASS => &self.classes,
            name_kind::INTERFACE => &self.interfaces,
            _ => return -1,
        };
        let position = names.iter().position(|known| known == name);
        position.and_then(|position| i32::try_from(position + 1).ok()).unwrap_or(-1)
    }
}
