//! Why a configuration is refused: every reason that there is, with its words.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::Tunnel;
use crate::ports::PortRange;

/// A place in a file: the other side of a conflict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The key path, such as `egress[0].slice[2]`.
    pub key: String,
    /// The line, from 1.
    pub line: Option<u32>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{} (line {line})", self.key),
            None => f.write_str(&self.key),
        }
    }
}

/// What is wrong with the value of a key. The text completes `FILE:LINE: KEY: …`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    // ---- the file
    /// The file cannot be opened or read, or is not UTF-8.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// The text is not TOML, or a key is unknown or has a value of another type.
    #[error("{0}")]
    Toml(String),
    /// There are so many errors that the rest was not looked for.
    #[error("has more errors; these are the first")]
    MoreErrors,

    // ---- single values
    /// A key without a default is not there.
    #[error("missing: {0}")]
    Missing(String),
    /// A number is out of its bounds.
    #[error("{value} is out of bounds: {least} to {most}")]
    OutOfBounds {
        /// What stands there.
        value: i64,
        /// The least that is accepted.
        least: i64,
        /// The most that is accepted.
        most: i64,
    },
    /// Two keys exclude each other.
    #[error("stands beside {key}; only one of them may be there")]
    NotBeside {
        /// The other one.
        key: &'static str,
    },
    /// A word is not one of those that the key knows.
    #[error("must be {expected}, not \"{value}\"")]
    Word {
        /// What stands there.
        value: String,
        /// The words that the key knows.
        expected: &'static str,
    },
    /// A name of an instance or plugin has another form.
    #[error("\"{0}\" is not a name: 1 to 32 of a-z, 0-9 and -")]
    BadName(String),
    /// A name of a node, site, owner or slice has another form.
    #[error("\"{0}\" is not a name: 1 to 64 letters, digits and any of . _ - : /")]
    BadLabel(String),
    /// A name of an interface has another form than the kernel accepts.
    #[error("\"{0}\" is not an interface name: 1 to 15 bytes, no blank, no / and no :")]
    BadInterfaceName(String),
    /// Not an IP address.
    #[error("\"{0}\" is not an IP address")]
    BadAddress(String),
    /// An address that no packet can be sent to.
    #[error("{0} is not a unicast address of another machine")]
    NotUnicast(IpAddr),
    /// Not a prefix.
    #[error("\"{0}\" is not an address with a prefix length, such as 192.0.2.0/24")]
    BadPrefix(String),
    /// A prefix whose host bits are not zero.
    #[error("{written} has bits set behind its length; did you mean {meant}?")]
    HostBits {
        /// What stands there.
        written: IpNet,
        /// The prefix of that length.
        meant: IpNet,
    },
    /// Not a MAC address.
    #[error("\"{0}\" is not a MAC address, such as 02:00:00:00:00:01")]
    BadMac(String),
    /// A MAC address of a group, or zero.
    #[error("{0} is not the MAC address of one machine")]
    NotUnicastMac(String),
    /// Not an address with a port.
    #[error("\"{0}\" is not an address with a port, such as 127.0.0.1:9090")]
    BadListen(String),
    /// Not a port range.
    #[error(
        "\"{0}\" is not a port range: \"FIRST-LAST\", \"START+COUNT\" or \"PORT\", within 0 to 65535"
    )]
    BadPorts(String),
    /// The first port is behind the last one.
    #[error("port range {first}-{last} is reversed; did you mean {last}-{first}?")]
    ReversedPorts {
        /// The first port as written.
        first: u16,
        /// The last port as written.
        last: u16,
    },
    /// A PSID that does not fit its length.
    #[error("psid {psid} does not fit psid_len {psid_len}: 0 to {most}")]
    PsidTooBig {
        /// What stands there.
        psid: i64,
        /// The number of bits for it.
        psid_len: u32,
        /// The most that fits.
        most: u32,
    },
    /// A port set that is not one range.
    #[error(
        "psid_offset {0} is not supported: it makes a port set of several ranges; \
         only psid_offset = 0 (one contiguous range) is"
    )]
    PsidOffset(i64),
    /// A number that is not a multiple of its unit.
    #[error("{value} is not a multiple of {unit}")]
    NotMultiple {
        /// What stands there.
        value: u32,
        /// The unit.
        unit: u32,
    },
    /// More entries than an id can name.
    #[error("too many {what}: at most {most}")]
    TooMany {
        /// Kind of the entries.
        what: &'static str,
        /// The most that are accepted.
        most: usize,
    },
    /// Not a SHA-256 in hexadecimal.
    #[error("\"{0}\" is not a SHA-256: 64 hexadecimal digits")]
    BadSha256(String),
    /// A path that must be absolute is not.
    #[error("\"{0}\" is not an absolute path")]
    NotAbsolute(String),
    /// A path that does not fit the address of a socket.
    #[error("the path has {bytes} bytes; a socket's path has at most {most}")]
    SocketPathTooLong {
        /// Length of the path.
        bytes: usize,
        /// Bound of the kernel.
        most: usize,
    },
    /// A path is empty.
    #[error("the path is empty")]
    EmptyPath,

    // ---- keys that go together
    /// A key of a tunnel that its kind has no use for.
    #[error("means nothing with kind = \"{kind}\": only {of} has it")]
    TunnelKey {
        /// The kind that stands there, or the default.
        kind: &'static str,
        /// The kind that has the key.
        of: &'static str,
    },
    /// The port of one node's tunnels.
    #[error("is the same on all nodes: set it in [tunnel]")]
    TunnelPort,
    /// Two ends of a tunnel say differently how packets travel in it.
    #[error("is {here}, but this end of the tunnel has another at {other}: {there}")]
    TunnelsDiffer {
        /// How the far end is reached.
        here: Tunnel,
        /// Where this end says something else.
        other: Place,
        /// What it says.
        there: Tunnel,
    },
    /// None or several of the keys of which exactly one is needed.
    #[error("needs exactly one of {expected}; has {found}")]
    NotExactlyOne {
        /// The keys.
        expected: &'static str,
        /// Those that are there, or `none`.
        found: String,
    },
    /// Zero-copy is forced where it cannot be.
    #[error("zero_copy = \"force\" contradicts xdp = \"generic\": zero-copy needs the driver")]
    ForceGeneric,
    /// A link-local next hop without its link.
    #[error("the next hop {0} is link-local: `interface` must say on which link")]
    LinkLocalWithoutInterface(IpAddr),
    /// A key of a next hop on a link, for one in a tunnel.
    #[error("only a next hop with `via` has it")]
    OnlyWithVia,
    /// A tag whose flows a tunnel would share with other next hops.
    #[error("the tunnel of next hop \"{0}\" cannot share a tag's flows with other next hops")]
    SharedTunnel(String),
    /// An IPv6 prefix with an IPv4 next hop.
    #[error("an IPv6 prefix cannot have the IPv4 next hop {0}")]
    Ipv4NextHop(IpAddr),
    /// Next hops and a refusal with one prefix and one metric.
    #[error(
        "{prefix} with metric {metric} leads elsewhere at {other}: only next hops form a group"
    )]
    RouteConflict {
        /// The prefix.
        prefix: IpNet,
        /// The metric.
        metric: u32,
        /// The other route.
        other: Place,
    },
    /// Not enough chunks for the rings.
    #[error("{frames} is too few for {interfaces} interfaces: at least {least}")]
    TooFewFrames {
        /// What stands there.
        frames: u32,
        /// Number of interfaces.
        interfaces: usize,
        /// What is needed.
        least: u32,
    },
    /// A ring's length that no ring has.
    #[error("{0} is no power of two")]
    NoPowerOfTwo(u32),
    /// More frames may wait (for a neighbor, or for a first fragment) than half of those that there are.
    #[error("{frames_max} is more than half of router.frames_per_worker ({frames_per_worker})")]
    HoldTooBig {
        /// What stands there.
        frames_max: u32,
        /// What there is.
        frames_per_worker: u32,
    },
    /// The TUN device has the name of an interface that the router drives.
    #[error("\"{name}\" is the name of {other}")]
    PuntDeviceIsInterface {
        /// The name.
        name: String,
        /// The interface.
        other: Place,
    },

    // ---- names and what they name
    /// A name or number that must be unique occurs twice.
    #[error("\"{value}\" is at {other} already")]
    Duplicate {
        /// What stands there.
        value: String,
        /// Where else.
        other: Place,
    },
    /// A name that must be unique is taken by the router itself.
    #[error("\"{0}\" is reserved: it is the owner that every node has")]
    ReservedOwner(String),
    /// A name that nothing has.
    #[error("there is no {what} \"{name}\"{known}")]
    Unknown {
        /// Kind of the thing that is named.
        what: &'static str,
        /// What stands there.
        name: String,
        /// The names that there are, as a clause, or nothing.
        known: Known,
    },
    /// An owner of another node than the slice.
    #[error("owner \"{owner}\" is on node \"{on}\" ({declared}), not on \"{node}\"")]
    OwnerElsewhere {
        /// The owner.
        owner: String,
        /// Its node.
        on: String,
        /// Where it is declared.
        declared: Place,
        /// The node that was asked for.
        node: String,
    },

    // ---- egress addresses, sites and slices
    /// A prefix that cannot be anyone's address.
    #[error("{0} cannot be an egress prefix: it is not global unicast space")]
    NotEgress(IpNet),
    /// Two egress entries have one prefix.
    #[error("{prefix} is at {other} already")]
    SamePrefix {
        /// The prefix.
        prefix: IpNet,
        /// The other entry.
        other: Place,
    },
    /// A slice of an egress prefix lies in a longer egress prefix, where nothing would find it.
    #[error(
        "{address} lies in {inner}, which has its own entry at {other}: the slice belongs there"
    )]
    InInnerEgress {
        /// The slice's address.
        address: IpNet,
        /// The longer egress prefix.
        inner: IpNet,
        /// Its entry.
        other: Place,
    },
    /// A slice lies outside of its egress prefix.
    #[error("{address} is outside of the egress prefix {prefix}")]
    OutsideEgress {
        /// The slice's address.
        address: IpNet,
        /// The egress prefix.
        prefix: IpNet,
    },
    /// Two slices of one address share ports.
    #[error("ports {ports} of {address} overlap ports {other_ports} of {other}")]
    SliceOverlap {
        /// Ports of this slice.
        ports: PortRange,
        /// The address of both.
        address: IpNet,
        /// Ports of the other slice.
        other_ports: PortRange,
        /// The other slice.
        other: Place,
    },
    /// Two sites have the same ports.
    #[error("ports {ports} overlap ports {other_ports} of {other}")]
    SiteOverlap {
        /// Ports of this site.
        ports: PortRange,
        /// Ports of the other.
        other_ports: PortRange,
        /// The other.
        other: Place,
    },
    /// Part of the (address, port) space has no owner, and there is no `default`.
    #[error("ports {ports} of {address} have no owner: cover them with slices or set `default`")]
    Gap {
        /// The first addresses with a gap.
        address: IpNet,
        /// Their first gap.
        ports: PortRange,
    },
    /// The site of this node has no part of an egress prefix.
    #[error("has no range for \"{0}\", the site of this node")]
    OwnSiteMissing(String),
    /// A node without a site is used where sites are told apart.
    #[error("node \"{0}\" has no site, so it is not known which range of `sites` is its own")]
    NodeWithoutSite(String),
    /// A node of the unnamed site, seen from a named one.
    #[error("node \"{node}\" has no site and this node is at \"{site}\": give the node its site")]
    UnnamedSite {
        /// The other node.
        node: String,
        /// This node's site.
        site: String,
    },
    /// A slice has ports that level 1 gives to another site.
    #[error("port {port} belongs to {holder}, but node \"{node}\" is at \"{site}\"")]
    OutsideSiteRange {
        /// The first port that the site does not have.
        port: u16,
        /// Who has it at level 1: a place, or `no site`.
        holder: String,
        /// The slice's node.
        node: String,
        /// Its site.
        site: String,
    },
    /// A `default` that leads to this node's own site.
    #[error("\"{0}\" is the site of this node: name a node, an owner or \"drop\"")]
    OwnSite(String),
    /// A node or site that packets must reach by tunnel has no address.
    #[error("missing: {0}")]
    NoEndpoint(NoEndpoint),
    /// Two ends of a tunnel have no address family in common.
    #[error("has no address of a family that this node (\"{0}\") has too")]
    NoCommonFamily(String),
    /// Two addresses of one family, where one is used.
    #[error("{second} and {first} are of one family: at most one IPv4 and one IPv6 address")]
    TwoOfOneFamily {
        /// The address before.
        first: IpAddr,
        /// The address that is too many.
        second: IpAddr,
    },

    // ---- route files
    /// A line of a route file has another form.
    #[error(
        "\"{0}\" is not a route: PREFIX via ADDRESS [dev INTERFACE] [metric N], \
         PREFIX dev INTERFACE [metric N] or PREFIX blackhole|unreachable|prohibit [metric N]"
    )]
    BadRouteLine(String),
    /// A route file has too many routes.
    #[error("has more than {0} routes")]
    TooManyRoutes(usize),
    /// A route file is named by a text that has no directory.
    #[error("a configuration that is not read from a file cannot name other files")]
    NoDirectory,

    // ---- difference of two configurations
    /// A value cannot change while the router runs.
    #[error("needs a restart: is {old}, would be {new}")]
    NeedsRestart {
        /// In force.
        old: String,
        /// In the new file.
        new: String,
    },
}

/// What must have an address, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoEndpoint {
    /// A node that owns something.
    Node(String),
    /// This node, which sends to others.
    ThisNode(String),
    /// A site that owns something.
    Site(String),
}

impl fmt::Display for NoEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(name) => {
                write!(f, "node \"{name}\" owns ports, and is sent their packets by tunnel")
            }
            Self::ThisNode(name) => {
                write!(f, "\"{name}\" is this node, and tunnels to others start at its address")
            }
            Self::Site(name) => {
                write!(f, "site \"{name}\" owns ports, and is sent their packets by tunnel")
            }
        }
    }
}

/// The names that there are, as a clause of a message: nothing when there are none, and the first
/// few when there are many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known(pub Vec<String>);

impl Known {
    const SHOWN_MAX: usize = 8;

    /// No more of the names than are shown, and one that says that there are more.
    pub(crate) fn of(names: &[String]) -> Self {
        Self(names.iter().take(Self::SHOWN_MAX + 1).cloned().collect())
    }
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, name) in self.0.iter().take(Self::SHOWN_MAX).enumerate() {
            f.write_str(if position == 0 { "; there is \"" } else { ", \"" })?;
            write!(f, "{name}\"")?;
        }
        if self.0.len() > Self::SHOWN_MAX { f.write_str(", …") } else { Ok(()) }
    }
}
