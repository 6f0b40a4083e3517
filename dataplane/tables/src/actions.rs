//! [`Actions`]: what the numbers mean that plugins give: named next hops, egress tags, classes.
//!
//! A number is a position. Numbers count from 1 and keep their meaning as long as the process runs: one
//! whose name is no longer configured stands for nothing, and its position stays empty.

use std::sync::Arc;

use crate::{NodeId, RouteId, SiteId};

/// The most numbers of next hops and of egress tags.
pub const NUMBERS_MAX: u16 = 1023;
/// The most numbers of classes: what a plugin's edit has room for.
pub const CLASSES_MAX: u8 = 255;

/// A place that packets can be sent to, by a plugin's transmit or tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detour {
    /// What the configuration calls it.
    pub name: Arc<str>,
    /// How packets get there.
    pub way: Way,
}

/// How packets get to where a plugin sends them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By the group of its next hops that can be used; [`RouteId::NONE`] if there is none: of an egress tag the
    /// packets then take their routes.
    Group(RouteId),
    /// Through the tunnel to another node of this site.
    Node(NodeId),
    /// Through the tunnel to another site.
    Site(SiteId),
    /// It is here: packets take slices and routes.
    Here,
}

/// A class that packets are counted by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// What the configuration calls it.
    pub name: Arc<str>,
    /// The DSCP that its packets leave with, if no plugin sets another.
    pub dscp: Option<u8>,
}

/// Next hops, egress tags and classes, by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actions {
    /// Next hops; position 0 is empty.
    pub next_hops: Vec<Option<Detour>>,
    /// Egress tags; position 0 is empty.
    pub tags: Vec<Option<Detour>>,
    /// Classes; position 0 is empty.
    pub classes: Vec<Option<Class>>,
}

impl Actions {
    /// The next hop of this number.
    #[must_use]
    pub fn next_hop(&self, number: u16) -> Option<&Detour> {
        self.next_hops.get(usize::from(number))?.as_ref()
    }

    /// The egress tag of this number.
    #[must_use]
    pub fn tag(&self, number: u16) -> Option<&Detour> {
        self.tags.get(usize::from(number))?.as_ref()
    }

    /// The class of this number.
    #[must_use]
    pub fn class(&self, number: u8) -> Option<&Class> {
        self.classes.get(usize::from(number))?.as_ref()
    }
}
