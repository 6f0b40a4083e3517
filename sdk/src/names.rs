//! Numbers that stand for the operator's names, and for the plugin's own reasons.

use alloc::{format, string::String};

use sluice_abi::{Verdict, name_kind};

use crate::services::name_number;

/// One of the plugin's own reasons for drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason(u32);

impl Reason {
    /// The reason at this index of the manifest's `reasons`.
    #[must_use]
    pub const fn new(index: u32) -> Self {
        Self(index)
    }

    /// Its index.
    #[must_use]
    pub const fn index(self) -> u32 {
        self.0
    }

    /// The verdict that drops for it.
    #[must_use]
    pub const fn verdict(self) -> Verdict {
        Verdict::drop(self.0)
    }
}

/// A next hop that the operator's configuration names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop(u32);

/// An egress tag that the operator's configuration names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EgressTag(u16);

/// A class that the operator's configuration names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class(u8);

impl NextHop {
    /// The next hop of this name. Only [`Plugin::configure`](crate::Plugin::configure) may ask; needs the
    /// capability `names`.
    ///
    /// # Errors
    /// A text that quotes the name, if there is none of it.
    pub fn named(name: &str) -> Result<Self, String> {
        number(name_kind::NEXT_HOP, "next hop", name).map(Self)
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl EgressTag {
    /// The egress tag of this name, as [`NextHop::named`].
    ///
    /// # Errors
    /// A text that quotes the name, if there is none of it.
    pub fn named(name: &str) -> Result<Self, String> {
        number(name_kind::EGRESS_TAG, "egress tag", name).map(Self)
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }
}

impl Class {
    /// The class of this name, as [`NextHop::named`].
    ///
    /// # Errors
    /// A text that quotes the name, if there is none of it.
    pub fn named(name: &str) -> Result<Self, String> {
        number(name_kind::CLASS, "class", name).map(Self)
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// What [`Descriptor::ingress`](crate::Descriptor::ingress) says of packets that this interface received,
/// as [`NextHop::named`].
///
/// # Errors
/// A text that quotes the name, if there is none of it.
pub fn interface_named(name: &str) -> Result<u16, String> {
    let number: u16 = number(name_kind::INTERFACE, "interface", name)?;
    Ok(number - 1)
}

fn number<N: TryFrom<i32>>(kind: i32, what: &str, name: &str) -> Result<N, String> {
    match name_number(kind, name) {
        -2 => Err(format!("the {what} `{name}` can be looked up by `configure` only")),
        number if number > 0 => N::try_from(number).map_err(|_| {
            format!("the {what} `{name}` has the number {number}, which is too large")
        }),
        _ => Err(format!("the configuration names no {what} `{name}`")),
    }
}
