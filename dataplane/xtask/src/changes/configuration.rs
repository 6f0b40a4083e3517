//! The configuration files of both nodes, in each of their two states.

use std::path::Path;

use anyhow::{Context, Result};

use super::bed::{E0, Shape, T1_SECOND_V4};
use crate::lab::configuration::replace;
use crate::peers::bed::{D0, D1, T1};

/// The address whose slice moves. It is one of those that traffic goes to.
pub const SHARED: &str = "198.19.200.1";

/// The ports of the slice that moves: all that the generator sends to.
pub const PORTS: &str = "1024-65535";

/// The name of that slice.
pub const SLICE: &str = "moving";

/// The name of the slice's owner, on either node.
pub const OWNER: &str = "host";

/// The name of the plugin.
pub const PLUGIN: &str = "filter";

/// One of the two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The device under test.
    A,
    /// The other owner of a slice.
    B,
}

impl Which {
    /// `a` or `b`.
    #[must_use]
    pub fn letter(self) -> char {
        if self == Self::A { 'a' } else { 'b' }
    }
}

/// What a reload switches between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// What a router starts with; the slice is node a's.
    First,
    /// Other slices and routes; the slice is node b's.
    Second,
}

impl State {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        if self == Self::First { Self::Second } else { Self::First }
    }
}

/// What is the same in both states.
#[derive(Clone, Copy, Debug)]
pub struct Fixed<'a> {
    /// Which node.
    pub which: Which,
    /// Which bed it is in.
    pub shape: Shape,
    /// The core of its worker.
    pub core: usize,
    /// The router's name, of which its pins have theirs.
    pub name: &'a str,
    /// The folder of its files.
    pub folder: &'a Path,
}

/// Writes the rules of the filter, which let all traffic of the bed pass. They are read again with
/// the plugin.
///
/// # Errors
/// When they cannot be written.
pub fn write_rules(folder: &Path) -> Result<()> {
    let rules = "default = \"allow\"\n\n[[rules]]\naction = \"drop\"\nprotocol = \"udp\"\n\
        destination_ports = [19]\n";
    replace(&folder.join("filter.toml"), rules)
}

/// Writes the filter's module, which custom sections make different without making it do anything
/// else (WebAssembly core specification 2.0, section 5.5.3).
///
/// # Errors
/// When it cannot be read or written.
pub fn write_module(from: &Path, folder: &Path, number: u32) -> Result<()> {
    let mut module = std::fs::read(from).with_context(|| from.display().to_string())?;
    if number > 0 {
        // Id 0, size, then the length of the name and the name; all sizes are below 128, one byte.
        module.extend([0, 10, 5]);
        module.extend(b"again");
        module.extend(number.to_le_bytes());
    }
    replace(&folder.join("filter.wasm"), module)
}

/// The text of a node's configuration.
#[must_use]
pub fn text(fixed: Fixed<'_>, state: State) -> String {
    let Fixed { which, shape, core, name, folder } = fixed;
    let letter = which.letter();
    let socket = folder.join(format!("{letter}.sock")).display().to_string();
    let (d0, d1, e0) = (D0.name, D1.name, E0.name);
    let interfaces = match which {
        Which::A => format!(
            "[[interface]]\nname = \"{d0}\"\nrole = \"outside\"\n\n\
             [[interface]]\nname = \"{d1}\"\nrole = \"inside\"\n"
        ),
        Which::B => format!("[[interface]]\nname = \"{e0}\"\nrole = \"both\"\n"),
    };
    let out = if which == Which::A { d1 } else { e0 };
    let node = |name, address| format!("[[node]]\nname = \"{name}\"\naddress = \"{address}\"\n");
    let (nodes, sharing) = match shape {
        Shape::Transit => (node("a", D1.v4), transit(state)),
        Shape::Slice => {
            (format!("{}\n{}", node("a", D1.v4), node("b", E0.v4)), slice(which, state))
        }
    };
    format!(
        r#"[router]
name = "{name}"
node = "{letter}"
poll = "adaptive"
control_socket = "{socket}"

[workers]
cores = [{core}]

{interfaces}
{nodes}
[[owner]]
name = "{OWNER}"
node = "{letter}"
deliver = {{ next_hop = "{}", interface = "{out}" }}

[[plugin]]
name = "{PLUGIN}"
path = "filter.wasm"
hook = "ingress"
config_file = "filter.toml"

{sharing}"#,
        T1.v4
    )
}

/// Slices and routes beside the traffic. Between the states a boundary moves, a next hop changes, and
/// a route comes and goes.
fn transit(state: State) -> String {
    let (last, next, via, more) = match state {
        State::First => (33_791, 33_792, T1.v4, ""),
        State::Second => (
            40_959,
            40_960,
            T1_SECOND_V4,
            "\n[[route]]\nprefix = \"198.51.100.0/24\"\ntype = \"blackhole\"\n",
        ),
    };
    format!(
        r#"[[egress]]
prefix = "192.0.2.1/32"
default = "drop"

[[egress.slice]]
name = "lower"
ports = "1024-{last}"
owner = "host"

[[egress.slice]]
name = "upper"
ports = "{next}-65535"
node = "a"

[[route]]
prefix = "203.0.113.0/24"
via = "{via}"
interface = "{}"
{more}"#,
        D1.name
    )
}

/// The slice that the traffic goes to.
fn slice(which: Which, state: State) -> String {
    let holder = match (which, state) {
        (Which::A, State::First) | (Which::B, State::Second) => "owner = \"host\"",
        (Which::A, State::Second) => "node = \"b\"",
        (Which::B, State::First) => "node = \"a\"",
    };
    format!(
        r#"[[egress]]
prefix = "{SHARED}/32"
default = "drop"

[[egress.slice]]
name = "{SLICE}"
ports = "{PORTS}"
{holder}
"#
    )
}
