//! [`Action`]: what a plugin may do with a packet besides dropping it.

use serde::Deserialize;
use sluice_abi::edit;

/// What a plugin may do with a packet besides dropping it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Send it to a named next hop.
    Transmit,
    /// Set its egress tag.
    Tag,
    /// Set its class.
    Class,
    /// Set its mark.
    Mark,
    /// Mirror it to captures.
    Mirror,
    /// Set its DSCP.
    Dscp,
    /// Lower the MSS of a SYN.
    Mss,
    /// Overwrite options of a SYN.
    TcpOptions,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Transmit,
        Self::Tag,
        Self::Class,
        Self::Mark,
        Self::Mirror,
        Self::Dscp,
        Self::Mss,
        Self::TcpOptions,
    ];

    /// Its name in manifests and grants.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Transmit => "transmit",
            Self::Tag => "tag",
            Self::Class => "class",
            Self::Mark => "mark",
            Self::Mirror => "mirror",
            Self::Dscp => "dscp",
            Self::Mss => "mss",
            Self::TcpOptions => "tcp-options",
        }
    }

    /// The bit of a verdict's flags that asks for it; `None` for [`Self::Transmit`], which is an action.
    #[must_use]
    pub const fn flag(self) -> Option<u8> {
        match self {
            Self::Transmit => None,
            Self::Tag => Some(edit::TAG),
            Self::Class => Some(edit::CLASS),
            Self::Mark => Some(edit::MARK),
            Self::Mirror => Some(edit::MIRROR),
            Self::Dscp => Some(edit::DSCP),
            Self::Mss => Some(edit::MSS),
            Self::TcpOptions => Some(edit::TCP_OPTIONS),
        }
    }
}
