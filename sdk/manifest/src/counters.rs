//! [`CounterDeclaration`]: counters as a manifest lists them, and the name of each.

use serde::Deserialize;

/// A counter, or several that share a name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum CounterDeclaration {
    /// One counter: `"name"`.
    One(String),
    /// One or several: `{ name = "name", len = 16, gauge = true }`.
    More(CounterTable),
}

/// A counter with more than its name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CounterTable {
    /// Its name, or the name that they share.
    pub name: String,
    /// How many they are, shown as `name[0]` and so on; without it, one.
    #[serde(default)]
    pub len: Option<usize>,
    /// Whether they say how things stand, and so can fall, rather than how often something happened.
    #[serde(default)]
    pub gauge: bool,
}

impl CounterDeclaration {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::One(name) | Self::More(CounterTable { name, .. }) => name,
        }
    }

    /// How many counters it stands for.
    #[must_use]
    pub fn count(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::More(table) => table.len.unwrap_or(1),
        }
    }

    /// Whether they are several, with an index each.
    #[must_use]
    pub fn is_array(&self) -> bool {
        matches!(self, Self::More(CounterTable { len: Some(_), .. }))
    }

    /// Whether it can fall.
    #[must_use]
    pub fn is_gauge(&self) -> bool {
        matches!(self, Self::More(CounterTable { gauge: true, .. }))
    }

    /// Each of them, in their order in memory.
    pub(crate) fn each(&self) -> impl Iterator<Item = NamedCounter> {
        (0..self.count()).map(|index| NamedCounter {
            name: if self.is_array() {
                format!("{}[{index}]", self.name())
            } else {
                self.name().to_owned()
            },
            is_gauge: self.is_gauge(),
        })
    }
}

/// One counter, as status and metrics name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedCounter {
    /// Its name, with its index if it is one of several.
    pub name: String,
    /// Whether it can fall.
    pub is_gauge: bool,
}
