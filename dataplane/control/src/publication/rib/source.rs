//! Who gives routes, and which of them is preferred.

use std::fmt;

use config::{RoutesFrom, protocol_name};

/// Who gave a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteSource {
    /// An address of this machine, or a prefix that is all its own.
    OwnAddress,
    /// A broadcast address of a connected subnet.
    Broadcast,
    /// The configuration or one of its route files.
    Configuration,
    /// The machine as it was described in whole ([`HostView::routes`](super::super::HostView::routes)):
    /// a replay or a simulation.
    Machine,
    /// A table of the kernel, where a routing daemon or the operator put it, or an interface's own prefix.
    Kernel {
        /// Number of the table.
        table: u32,
        /// Who put it there (`RTPROT_*`).
        protocol: u8,
    },
    /// It was withdrawn, and is kept for `routes.withdraw_hold_ms`.
    Withdrawn,
}

impl RouteSource {
    /// The source in a word, for metrics and filters. All protocols of the kernel are one.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::OwnAddress => "own-address",
            Self::Broadcast => "broadcast",
            Self::Configuration => "static",
            Self::Machine => "machine",
            Self::Kernel { .. } => "kernel",
            Self::Withdrawn => "withdrawn",
        }
    }
}

impl fmt::Display for RouteSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnAddress => f.write_str("this machine's addresses"),
            Self::Broadcast => f.write_str("the broadcast addresses of connected subnets"),
            Self::Configuration => f.write_str("the configuration"),
            Self::Machine => f.write_str("the machine"),
            Self::Kernel { table, protocol } => {
                write!(f, "the kernel (protocol {}", protocol_name(*protocol))?;
                match table {
                    254 => f.write_str(")"),
                    table => write!(f, ", table {table})"),
                }
            }
            Self::Withdrawn => f.write_str("a withdrawn route that is held"),
        }
    }
}

/// A source in the bytes that a million candidates can afford.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Class {
    OwnAddress,
    Broadcast,
    Configuration,
    Machine,
    Kernel,
    Withdrawn,
}

impl Class {
    /// As [`RouteSource::label`].
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::OwnAddress => RouteSource::OwnAddress.label(),
            Self::Broadcast => RouteSource::Broadcast.label(),
            Self::Configuration => RouteSource::Configuration.label(),
            Self::Machine => RouteSource::Machine.label(),
            Self::Kernel => RouteSource::Kernel { table: 0, protocol: 0 }.label(),
            Self::Withdrawn => RouteSource::Withdrawn.label(),
        }
    }
}

/// Which source wins where several give a route for one prefix.
///
/// In this order: this machine's own addresses; broadcast addresses of its subnets; what
/// `routes.preference` says, by default the configuration and then the kernel; routes that were withdrawn
/// and are held. Within one place of that order the kernel's table that `kernel.tables` names first wins,
/// whatever the metrics, as `ip rule` has it; in one table the lowest metric, and of equal ones the one that
/// the kernel uses itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Preference {
    configuration: u8,
    /// By protocol.
    kernel: [u8; 256],
}

impl Preference {
    pub(super) fn new(order: &[RoutesFrom]) -> Self {
        // Those that are not named come behind those that are.
        let unnamed = u8::try_from(order.len()).unwrap_or(u8::MAX - 3);
        let mut preference = Self { configuration: unnamed, kernel: [unnamed + 1; 256] };
        let places = || (0..unnamed).zip(order);
        for (place, entry) in places() {
            match *entry {
                RoutesFrom::Configuration => preference.configuration = place,
                RoutesFrom::Kernel(None) => preference.kernel = [place; 256],
                RoutesFrom::Kernel(Some(_)) => {}
            }
        }
        for (place, entry) in places() {
            if let RoutesFrom::Kernel(Some(protocol)) = *entry {
                preference.kernel[usize::from(protocol)] = place;
            }
        }
        preference
    }

    /// The place of a source, the first of which wins.
    pub(super) fn place(&self, class: Class, protocol: u8) -> u16 {
        match class {
            Class::OwnAddress => 0,
            Class::Broadcast => 1,
            Class::Configuration => 2 + u16::from(self.configuration),
            Class::Machine => 2 + u16::from(self.kernel[0]),
            Class::Kernel => 2 + u16::from(self.kernel[usize::from(protocol)]),
            Class::Withdrawn => u16::MAX,
        }
    }
}
