//! Why the packet path cannot do what a route says. The kernel forwards for such a route.

use std::fmt;

use crate::kernel::Reason;

/// The reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unexpressible {
    /// It is about the route itself.
    Kernel(Reason),
    /// It leads over an interface that is not the router's, whose number this is.
    ForeignInterface(u32),
    /// One of its several next hops is every destination itself.
    OnLinkMember,
    /// A static route, whose next hop is on no connected prefix.
    NoLink,
    /// The description of the machine says that it is the kernel's.
    Described,
    /// All ids of next-hop groups are taken.
    TooManyGroups,
}

impl Unexpressible {
    /// The reason in a word or two, for metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Kernel(reason) => reason.label(),
            Self::ForeignInterface(_) => "foreign-interface",
            Self::OnLinkMember => "on-link-member",
            Self::NoLink => "no-link",
            Self::Described => "described",
            Self::TooManyGroups => "too-many-groups",
        }
    }
}

impl fmt::Display for Unexpressible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel(reason) => reason.fmt(f),
            Self::ForeignInterface(ifindex) => {
                write!(f, "it leads over interface {ifindex}, which is not the router's")
            }
            Self::OnLinkMember => f.write_str("one of its next hops is on the link itself"),
            Self::NoLink => f.write_str("its next hop is on no connected prefix"),
            Self::Described => f.write_str("it is the kernel's"),
            Self::TooManyGroups => f.write_str("there are too many different sets of next hops"),
        }
    }
}
