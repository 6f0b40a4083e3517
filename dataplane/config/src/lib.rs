//! Configuration: TOML text to raw to checked, and the difference of two configurations as actions.
//!
//! ```text
//!   text --read--> raw --check--> Checked --slice_blocks--> tables
//!                                    |
//!          Checked (running) --------+--diff--> actions, or what needs a restart
//! ```
//!
//! * *raw* is the file as it is written: one type a table, every key optional, unknown keys refused.
//! * *checked* is what the router runs: names are resolved to ids, addresses and ranges are parsed,
//!   defaults are filled in. Nothing behind it checks again.
//!
//! Invariants. Every error of a file is reported at once, with line and key, and a key is reported
//! once. An overlap names both sides. No text makes this crate panic, and a refused configuration
//! leaves the running one in force.
//!
//! Deliberately absent: whether interfaces, cores and plugin files exist on this machine. That is
//! found out where they are opened, so that a configuration can be checked on another machine.
#![forbid(unsafe_code)]

mod address;
mod check;
mod covered;
mod diff;
mod draft;
mod error;
mod load;
mod model;
mod ports;
mod raw;
mod read;
mod reason;
mod reference;
mod route_file;
mod slice_blocks;
mod word_or;

pub use diff::{Action, PluginChanges, diff};
pub use draft::{HostFacts, HostInterface, draft};
pub use error::{ConfigError, ConfigErrors};
pub use model::{
    Checked, Class, Delivery, Egress, EgressTag, Endpoints, Fragments, Grant, Gre, Hold, Icmp,
    Interface, Kernel, LocalOwner, MssClamp, Neighbor, NextHop, Node, OnExit, OnTrap, Plugin,
    PluginConfig, PluginDefault, PluginHook, PluginOptions, Poll, Punt, ReplayFacts, Role, Route,
    RouteOptions, RouteTarget, Router, RoutesFrom, Site, SitePorts, Slice, SourceValidation,
    TagMember, Tunnel, TunnelKind, Validation, Way, Workers, XdpMode, ZeroCopy, protocol_name,
};
pub use ports::PortRange;
pub use reason::{Known, NoEndpoint, Place, Reason};
pub use reference::reference;
pub use route_file::RouteFile;
// Ids and owners are those of the tables, so that nobody has to translate them.
pub use tables::{EgressBlock, LocalOwnerId, NodeId, Owner, SiteId, SliceId, SliceRange};

/// [`Checked`] where it is made: `Config::load(path)`.
pub type Config = Checked;
