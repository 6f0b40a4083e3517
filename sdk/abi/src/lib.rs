//! Layouts shared by the Sluice host and its plugins: the ABI, version 1.
//!
//! A batch is an array of [`Descriptor`] that the host writes into guest memory, and an array of
//! [`Verdict`] that the guest fills. Both sides are little-endian, and both layouts only ever grow
//! at their end: a reader steps by the *stride* that the writer exports, never by its own size.
//!
//! ```text
//!  0               16              32  34  36 37 38 39 40  42  44      48  50  52  54 55 56      60  62 64
//!  +---------------+---------------+---+---+--+--+--+--+---+---+-------+---+---+---+--+--+-------+---+--+
//!  | source        | destination   |sp |dp |pr|tf|fl|di|len|in |hash   |vrf|l3 |l4 |tt|tc|slice  |nh |eg|
//!  +---------------+---------------+---+---+--+--+--+--+---+---+-------+---+---+---+--+--+-------+---+--+
//! ```
#![no_std]
#![forbid(unsafe_code)]

pub mod meter;

use bytemuck::{Pod, Zeroable};

/// Major version of this ABI. A host refuses a plugin of another major version.
pub const ABI_VERSION_MAJOR: u16 = 1;
/// Minor version of this ABI. Minor versions only append.
pub const ABI_VERSION_MINOR: u16 = 0;
/// The value that the guest's `sluice_abi_version` export returns: major in the upper 16 bits.
pub const ABI_VERSION: u32 = ((ABI_VERSION_MAJOR as u32) << 16) | ABI_VERSION_MINOR as u32;

/// The most packets that one call of `sluice_process` may be given.
pub const BATCH_MAX: usize = 256;

/// What is known of one packet, in 64 bytes: written once by the router's parser and read by
/// every plugin. Integers are in host order (little-endian on every supported machine).
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Descriptor {
    /// Source address; IPv4 as `::ffff:a.b.c.d`, in network byte order.
    pub source: [u8; 16],
    /// Destination address; IPv4 as `::ffff:a.b.c.d`, in network byte order.
    pub destination: [u8; 16],
    /// Source port, or the identifier of an ICMP echo, or 0.
    pub source_port: u16,
    /// Destination port, or the identifier of an ICMP echo, or 0.
    pub destination_port: u16,
    /// IP protocol number of the transport header (after IPv6 extension headers).
    pub protocol: u8,
    /// TCP flags, byte 13 of the TCP header, or 0.
    pub tcp_flags: u8,
    /// Bits of [`flags`].
    pub flags: u8,
    /// One of [`direction`].
    pub direction: u8,
    /// Length of the IP packet in bytes, header included.
    pub length: u16,
    /// Position of the interface that received the packet, in the order of the configuration.
    pub ingress: u16,
    /// Hash of addresses, protocol and ports; the same for both of a flow's packets' workers.
    pub hash: u32,
    /// Routing instance, 0 for the main one.
    pub vrf: u16,
    /// Offset of the IP header from the start of the frame, in bytes.
    pub l3_offset: u16,
    /// Offset of the transport header from the start of the frame, in bytes.
    pub l4_offset: u16,
    /// Time to live (IPv4) or hop limit (IPv6), as received.
    pub ttl: u8,
    /// Type of service (IPv4) or traffic class (IPv6).
    pub traffic_class: u8,
    /// Number of the slice that holds the destination, plus 1; 0 for none. Set before `forward`.
    pub slice: u32,
    /// Next-hop group chosen, plus 1; 0 for none. Set before `forward`.
    pub next_hop: u16,
    /// Interface that the packet leaves by, plus 1; 0 for none. Set before `egress`.
    pub egress: u16,
}

/// Bits of [`Descriptor::flags`].
pub mod flags {
    /// The packet is IPv6; else IPv4.
    pub const IPV6: u8 = 1 << 0;
    /// The packet is a fragment (first or not).
    pub const FRAGMENT: u8 = 1 << 1;
    /// The packet is a fragment other than the first: it has no ports of its own. Where the router
    /// follows fragments, which is to and from shared addresses, [`PORTS`] says that the descriptor has
    /// those of the first one; elsewhere they are 0.
    pub const LATER_FRAGMENT: u8 = 1 << 2;
    /// `source_port` and `destination_port` hold ports or an echo identifier (for an ICMP error in
    /// fragments, those of the packet that it quotes, the other way round).
    pub const PORTS: u8 = 1 << 3;
    /// The packet is an ICMP or ICMPv6 error.
    pub const ICMP_ERROR: u8 = 1 << 4;
    /// The packet came out of a tunnel that ends here.
    pub const DECAPSULATED: u8 = 1 << 5;
    /// The IPv4 header has options, or the IPv6 header is followed by extension headers.
    pub const OPTIONS: u8 = 1 << 6;
}

/// Values of [`Descriptor::direction`].
pub mod direction {
    /// Neither address is an egress address: routed by destination.
    pub const TRANSIT: u8 = 0;
    /// The source is an egress address: on its way out.
    pub const OUTBOUND: u8 = 1;
    /// The destination is an egress address: on its way to the owner of the slice.
    pub const INBOUND: u8 = 2;
}

/// A plugin's answer for one packet, 8 bytes.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Verdict {
    /// One of [`action`].
    pub action: u8,
    /// Reserved, 0: which of mark, tag and mirror are set.
    pub flags: u8,
    /// Reserved, 0: how long a flow's verdict may be kept, in units of 100 ms.
    pub lifetime: u16,
    /// With [`action::DROP`]: the index of the plugin's own reason.
    pub argument: u32,
}

impl Verdict {
    /// The packet goes on to the next plugin.
    pub const CONTINUE: Self =
        Self { action: action::CONTINUE, flags: 0, lifetime: 0, argument: 0 };

    /// The packet is dropped for the plugin's reason `reason`, an index into the reasons that its
    /// manifest declares.
    #[must_use]
    pub const fn drop(reason: u32) -> Self {
        Self { action: action::DROP, flags: 0, lifetime: 0, argument: reason }
    }
}

/// Values of [`Verdict::action`]. A value that is not listed costs the packet the plugin's default
/// verdict and is counted.
pub mod action {
    /// Go on to the next plugin.
    pub const CONTINUE: u8 = 0;
    /// Drop, for the plugin's own reason.
    pub const DROP: u8 = 1;
}

const _: () = assert!(size_of::<Descriptor>() == 64);
const _: () = assert!(size_of::<Verdict>() == 8);
const _: () =
    assert!(cfg!(target_endian = "little"), "the ABI is defined for little-endian machines");

/// [`Verdict::argument`] of a drop for no reason of the plugin's own: its default is to drop.
pub const REASON_DEFAULT: u32 = u32::MAX;

/// Name of the custom section that holds the manifest (TOML).
pub const MANIFEST_SECTION: &str = "sluice.manifest";

/// Module name of every function that the host offers.
pub const IMPORT_MODULE: &str = "sluice";

/// Where the guest keeps what the host reads and writes. `sluice_layout` returns its address. All
/// addresses are offsets into the guest's memory, a multiple of 8; all areas are disjoint. The host
/// reads it once, checks it, and never trusts it again.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Layout {
    /// Size of this structure as the guest knows it, in bytes.
    pub size: u32,
    /// Packets that the two arrays below have room for; at least [`BATCH_MAX`].
    pub batch_max: u32,
    /// Address of the array of [`Descriptor`], which the host writes.
    pub descriptors: u32,
    /// Bytes from one descriptor to the next, at least 64.
    pub descriptor_stride: u32,
    /// Address of the array of [`Verdict`], which the host fills with the default before each call.
    pub verdicts: u32,
    /// Bytes from one verdict to the next, at least 8.
    pub verdict_stride: u32,
    /// Address of the area that the host writes the configuration to (JSON, UTF-8).
    pub config: u32,
    /// Size of that area in bytes.
    pub config_capacity: u32,
    /// Address of the area that the guest writes the text of an error to (UTF-8).
    pub error: u32,
    /// Size of that area in bytes.
    pub error_capacity: u32,
    /// Address of the guest's counters, 64 bits each, which only ever rise.
    pub counters: u32,
    /// Number of counters: as many as the manifest names.
    pub counters_len: u32,
}

const _: () = assert!(size_of::<Layout>() == 48);
