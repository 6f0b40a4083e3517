//! [`Reason`]: why the classifier did with a packet what it did.

use wire::InterfaceId;

/// Declares the enum and its texts from one list, in the order of `enum reason` of `classifier.c`.
macro_rules! reasons {
    ($($variant:ident $label:literal $help:literal)*) => {
        /// Why the classifier did with a packet what it did. Each packet has exactly one reason.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Reason {
            $(#[doc = $help] $variant,)*
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The label in metrics and in `sluice status`.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }

            /// What happened, in a sentence.
            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => $help,)* }
            }
        }
    };
}

reasons! {
    ToXskForward "to-xsk-forward" "To the router: the destination is no address of this machine (an egress address or transit)."
    ToXskEgress "to-xsk-egress" "To the router: the destination is an egress address that this machine also has."
    ToXskTunnel "to-xsk-tunnel" "To the router: a tunnel packet for this node, or an ICMP error about one that it sent."
    KernelLocal "kernel-local" "To the kernel: the destination is an address of this machine."
    KernelArp "kernel-arp" "To the kernel: ARP."
    KernelNd "kernel-nd" "To the kernel: IPv6 Neighbor Discovery."
    KernelMulticast "kernel-multicast" "To the kernel: the destination is a multicast address or the limited broadcast."
    KernelLinkLocal "kernel-link-local" "To the kernel: the destination is an IPv6 link-local address."
    KernelVlan "kernel-vlan" "To the kernel: the frame carries an 802.1Q or 802.1ad tag."
    KernelNonIp "kernel-non-ip" "To the kernel: neither IPv4, IPv6 nor ARP."
    KernelTruncated "kernel-truncated" "To the kernel, which drops it: the frame ends within its Ethernet or IP header."
    KernelOnExit "kernel-on-exit" "To the kernel: transit while the router has no socket on the queue, and on_exit is kernel."
    DropOnExit "drop-on-exit" "Dropped: transit while the router has no socket on the queue, and on_exit is drop."
    DropEgressNoSocket "drop-egress-no-socket" "Dropped: for an egress address while the router has no socket on the queue."
    DropTunnelNoSocket "drop-tunnel-no-socket" "Dropped: a tunnel packet while the router has no socket on the queue."
}

impl Reason {
    /// Whether the packet went to the kernel.
    #[must_use]
    pub const fn is_to_kernel(self) -> bool {
        match self {
            Self::KernelLocal
            | Self::KernelArp
            | Self::KernelNd
            | Self::KernelMulticast
            | Self::KernelLinkLocal
            | Self::KernelVlan
            | Self::KernelNonIp
            | Self::KernelTruncated
            | Self::KernelOnExit => true,
            Self::ToXskForward
            | Self::ToXskEgress
            | Self::ToXskTunnel
            | Self::DropOnExit
            | Self::DropEgressNoSocket
            | Self::DropTunnelNoSocket => false,
        }
    }
}

/// How often something was decided on one interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterValue {
    /// The interface that received the packets.
    pub interface: InterfaceId,
    /// What was decided, and why.
    pub reason: Reason,
    /// Number of packets.
    pub packets: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_that_of_the_program() {
        let source = include_str!("classifier.c");
        let (_, list) = source.split_once("enum reason {").expect("the enum is declared");
        let (list, _) = list.split_once("REASONS,").expect("the last entry is the count");
        let names: Vec<String> = list
            .split(',')
            .map(|name| name.trim().to_lowercase().replace('_', "-"))
            .filter(|name| !name.is_empty())
            .collect();
        let labels: Vec<&str> = Reason::ALL.iter().map(|reason| reason.label()).collect();
        assert_eq!(names, labels);
        for reason in Reason::ALL {
            assert!(reason.help().ends_with('.'), "{reason:?} is not explained by a sentence");
        }
    }
}
