//! The one table of drop reasons: it makes the enum, the metric label, the help text and the page
//! `dataplane/DROPS.md` (which a test compares with it).

/// Declares the enum and its texts from one list, so that none of them can be forgotten.
macro_rules! drop_reasons {
    ($($variant:ident $label:literal $help:literal)*) => {
        /// Why a frame was dropped. Every dropped frame has exactly one reason.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DropReason {
            $(#[doc = $help] $variant,)*
        }

        impl DropReason {
            /// Every reason, in the order of the packet's path.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The label in metrics, in `sluice status` and in replay's counters.
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

drop_reasons! {
    FrameTruncated "frame-truncated" "The frame is shorter than an Ethernet header."
    NotIp "not-ip" "The frame's EtherType is neither IPv4 nor IPv6."
    LinkLayerMulticast "link-layer-multicast" "The frame was sent to a link-layer broadcast or multicast address (RFC 1812 section 5.3.4)."
    OtherHost "other-host" "The frame was sent to another station's link-layer address."
    Ipv4Truncated "ipv4-truncated" "The frame ends within the IPv4 header."
    Ipv4Version "ipv4-version" "The version field of an IPv4 packet is not 4 (RFC 1812 section 5.2.2)."
    Ipv4HeaderLength "ipv4-header-length" "The IPv4 header length is below 5 words (RFC 1812 section 5.2.2)."
    Ipv4TotalLength "ipv4-total-length" "The IPv4 total length is below the header length or beyond the frame (RFC 1812 section 5.2.2)."
    Ipv4Checksum "ipv4-checksum" "The IPv4 header checksum is wrong (RFC 1812 section 5.2.2)."
    Ipv4Options "ipv4-options" "The IPv4 options are malformed (RFC 1812 section 4.3.3.5)."
    Ipv4SourceRoute "ipv4-source-route" "The packet carries an IPv4 source-route option (RFC 7126 section 4.3)."
    Ipv6Truncated "ipv6-truncated" "The frame ends within the IPv6 header."
    Ipv6Version "ipv6-version" "The version field of an IPv6 packet is not 6."
    Ipv6PayloadLength "ipv6-payload-length" "The IPv6 payload length is beyond the frame."
    Ipv6ExtensionChain "ipv6-extension-chain" "The chain of IPv6 extension headers is truncated or longer than is followed (RFC 7112)."
    Ipv6MappedAddress "ipv6-mapped-address" "An IPv6 packet has an IPv4-mapped source or destination."
    TransportTruncated "transport-truncated" "The packet ends within the ports of its TCP, UDP, SCTP, DCCP or UDP-Lite header."
    TinyFragment "tiny-fragment" "A TCP fragment at offset 1, or a first fragment too short for ports and flags (RFC 1858, RFC 3128)."
    FragmentMalformed "fragment-malformed" "A fragment to or from a shared address, or to be fragmented further, that is empty, reaches beyond 65,535 bytes, or is not the last and no multiple of 8 bytes long."
    FragmentOverlap "fragment-overlap" "A fragment overlaps another one, or its packet's end: all that comes of the packet is dropped (RFC 5722, RFC 1858)."
    FragmentDuplicate "fragment-duplicate" "The same part of the packet came before (RFC 8200 section 4.5)."
    FragmentTimeout "fragment-timeout" "The fragment was held, and the first one of its packet did not come in time."
    FragmentFull "fragment-full" "No more fragments are held or followed than the configuration allows, or a packet comes in more than 64."
    HandoffFull "handoff-full" "As many frames as allowed are under way to other workers."
    MartianSource "martian-source" "The source address must not appear on a wire, or is one of the router's own (RFC 1812 section 5.3.7)."
    MartianDestination "martian-destination" "The destination address must not be forwarded to (RFC 1812 section 5.3.7)."
    Ipv4LinkLocal "ipv4-link-local" "The source or destination is an IPv4 link-local address, such as a cloud's 169.254.169.254, which no router passes on (RFC 3927 section 2.7)."
    MulticastDestination "multicast-destination" "The destination is a multicast address, which is not routed here."
    ReversePath "reverse-path" "The receiving interface validates sources, and no route leads back to this one: by this interface, if it is strict, or at all (RFC 3704)."
    SourceBlackhole "source-blackhole" "The receiving interface validates sources, and the route back to this one is a blackhole (RFC 5635)."
    TunnelUnknownPeer "tunnel-unknown-peer" "A tunnel packet came from an address that is no node of ours."
    TunnelMalformed "tunnel-malformed" "A tunnel packet's outer header is broken, it is a fragment, or its payload is no IP packet."
    TunnelKind "tunnel-kind" "A tunnel packet came in another encapsulation than the one configured for its sender."
    TunnelKey "tunnel-key" "A GRE packet has no key, a key that is not wanted, or another one than configured (RFC 2890 section 2.1)."
    TunnelEcn "tunnel-ecn" "The outer header signals congestion that the inner one cannot carry (RFC 6040 section 4.2)."
    TunnelNested "tunnel-nested" "A tunnel packet carries another tunnel packet for this node."
    TunnelLoop "tunnel-loop" "A packet that came out of an owner tunnel would have to enter one again."
    TunnelIcmp "tunnel-icmp" "An ICMP error about a tunnel packet of ours is broken, quotes too little to be relayed, or quotes what was never sent."
    SpoofedSource "spoofed-source" "The source is an egress address, but the packet came from outside, or, where sources are validated strictly, not from its owner's link-layer address."
    SliceSender "slice-sender" "The sender does not own the source address and port that it used."
    SliceUnowned "slice-unowned" "Nobody owns the slice that the packet is addressed to."
    SliceDefault "slice-default" "The configured default for this egress address is to drop."
    SlicePortless "slice-portless" "The packet has no port that could name a slice of the shared address."
    SliceFragment "slice-fragment" "A fragment other than the first to or from a shared address, and fragments are not followed (fragments.packets_max is 0)."
    SliceIcmp "slice-icmp" "An ICMP message to a shared address that names no flow of any owner."
    IcmpInnerTruncated "icmp-inner-truncated" "An ICMP error quotes too little of the packet that it is about."
    TtlExceeded "ttl-exceeded" "The time to live or hop limit ran out here."
    NoRoute "no-route" "No route leads to the destination."
    DirectedBroadcast "directed-broadcast" "The destination is the broadcast address of a connected subnet (RFC 2644)."
    Blackhole "blackhole" "The route to the destination is a blackhole."
    Unreachable "unreachable" "The route to the destination is of type unreachable."
    Prohibited "prohibited" "The route to the destination is of type prohibit."
    LinkDown "link-down" "The link to the next hop has no carrier, is set down, or its interface is gone or was made anew."
    NeighborFailed "neighbor-failed" "The next hop does not answer address resolution."
    HoldFull "hold-full" "The next hop is being resolved, and no more packets are held for it."
    HoldTimeout "hold-timeout" "The next hop was not resolved while the packet was held for it."
    MtuExceeded "mtu-exceeded" "The packet is larger than the next hop's MTU and must not be fragmented."
    FragmentationOff "fragmentation-off" "The packet is larger than the next hop's MTU, and fragmentation is switched off (fragments.egress)."
    FragmentationLimited "fragmentation-limited" "As many packets a second are fragmented as the configuration allows."
    FragmentationFrames "fragmentation-frames" "The packet is larger than the next hop's MTU, and there are too few free chunks for its fragments."
    HeadroomExhausted "headroom-exhausted" "The frame has no room for the headers to be put in front."
    PluginNextHop "plugin-next-hop" "A plugin sent the packet to a named next hop that is on none of the router's links."
    Plugin "plugin" "A plugin dropped the packet, for a reason of its own."
    PluginDefault "plugin-default" "A plugin failed, and its default verdict is to drop."
    TransmitFull "transmit-full" "The transmit ring is full, or the interface has its quota of frames in flight."
    PuntLimited "punt-limited" "As many packets a second go to the local kernel as the configuration allows."
    PuntFull "punt-full" "The ring to the local kernel is full."
    PuntRefused "punt-refused" "The packet is for the local kernel, but the punt device is not configured."
}

impl DropReason {
    /// Number of reasons: the length of an array that is indexed by them.
    pub const COUNT: usize = Self::ALL.len();

    /// Position in [`Self::ALL`].
    #[inline]
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::fmt::Write as _;

    use super::DropReason;

    #[test]
    fn labels_are_unique_and_positions_agree() {
        let labels: HashSet<_> = DropReason::ALL.iter().map(|reason| reason.label()).collect();
        assert_eq!(labels.len(), DropReason::COUNT);
        for (position, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), position);
            assert!(reason.help().ends_with('.'), "{reason:?} is not explained by a sentence");
        }
    }

    /// With `SLUICE_BLESS=1` the page is written instead of compared.
    #[test]
    fn the_page_of_drop_reasons_is_up_to_date() {
        let mut page = String::from(
            "# Drop reasons\nWhy a packet was dropped, in the order of its path. Made from \
             `frame/src/drop_reason.rs`; `sluice drops` prints the same.\n\n| reason | what \
             happened |\n|---|---|\n",
        );
        for reason in DropReason::ALL {
            writeln!(page, "| `{}` | {} |", reason.label(), reason.help()).expect("a string");
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../DROPS.md");
        if std::env::var_os("SLUICE_BLESS").is_some() {
            std::fs::write(path, &page).expect("the page can be written");
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == page,
            "dataplane/DROPS.md is out of date: run this test with SLUICE_BLESS=1"
        );
    }
}
