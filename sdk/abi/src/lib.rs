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
pub mod quota;
pub mod table;

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
    /// One of [`direction`]. Set before `forward`; at `ingress` it is transit.
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
    /// Bits of [`edit`]: which fields of the packet's [`Edit`] are set, and whether to mirror it.
    pub flags: u8,
    /// For plugins of granularity `flow`: how long this verdict holds for the packet's flow, in units
    /// of 100 ms; 0: for this packet only. Others leave it 0.
    pub lifetime: u16,
    /// With [`action::DROP`] the index of the plugin's own reason, with [`action::TRANSMIT`] the number
    /// of a next hop, else 0.
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

    /// The packet goes to the next hop with this number, whatever slices and routes say of it.
    #[must_use]
    pub const fn transmit(next_hop: u32) -> Self {
        Self { action: action::TRANSMIT, flags: 0, lifetime: 0, argument: next_hop }
    }

    /// One of two, without a branch and to be stored in one piece: compilers store what they choose field by
    /// field, and the host waits for such pieces when it reads them as one.
    #[inline]
    #[must_use]
    pub fn choose(condition: bool, yes: Self, no: Self) -> Self {
        let [yes, no] = [yes, no].map(bytemuck::cast::<Self, u64>);
        bytemuck::cast(if condition { yes } else { no })
    }
}

/// Values of [`Verdict::action`]. A value that is not listed costs the packet the plugin's default
/// verdict and is counted.
pub mod action {
    /// Go on to the next plugin.
    pub const CONTINUE: u8 = 0;
    /// Drop, for the plugin's own reason. Ends the chain.
    pub const DROP: u8 = 1;
    /// Send to a named next hop. Ends the chain of this hook and, given at `ingress`, that of `forward`;
    /// `egress` is asked as always, and cannot give it.
    pub const TRANSMIT: u8 = 2;
}

/// Bits of [`Verdict::flags`]: what else is to be done with a packet that goes on or is transmitted.
/// Each needs the manifest's and the operator's leave; with a drop only [`MIRROR`](edit::MIRROR) has a
/// meaning.
pub mod edit {
    /// [`Edit::mark`](super::Edit::mark) is set.
    pub const MARK: u8 = 1 << 0;
    /// [`Edit::tag`](super::Edit::tag) is set. Not at `egress`.
    pub const TAG: u8 = 1 << 1;
    /// The packet is shown to whoever captures at this plugin. Needs no [`Edit`](super::Edit).
    pub const MIRROR: u8 = 1 << 2;
    /// [`Edit::class`](super::Edit::class) is set.
    pub const CLASS: u8 = 1 << 3;
    /// [`Edit::dscp`](super::Edit::dscp) is set.
    pub const DSCP: u8 = 1 << 4;
    /// [`Edit::mss`](super::Edit::mss) is set.
    pub const MSS: u8 = 1 << 5;
    /// [`Edit::tcp_options`](super::Edit::tcp_options) is set.
    pub const TCP_OPTIONS: u8 = 1 << 6;
}

/// What a plugin wants done with a packet besides its verdict, 16 bytes. Only the fields that the
/// verdict's flags name are read. Edits of several plugins accumulate; of two that set the same field
/// the later one wins.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Edit {
    /// A number that later plugins, captures and explanations see.
    pub mark: u32,
    /// Number of an egress tag: the path that the packet takes instead of its route.
    pub tag: u16,
    /// The most that a TCP SYN's MSS option may say, from 216 on; it is lowered, never raised or added.
    pub mss: u16,
    /// Number of a class, by which packets and bytes are counted and which may set a DSCP.
    pub class: u8,
    /// The DSCP that the packet leaves with, 0 to 63.
    pub dscp: u8,
    /// Bits of [`tcp_option`]: options of a TCP SYN that are overwritten with no-operations.
    pub tcp_options: u8,
    /// Reserved, 0.
    pub reserved: [u8; 5],
}

/// Bits of [`Edit::tcp_options`].
pub mod tcp_option {
    /// Window scale (kind 3, RFC 7323).
    pub const WINDOW_SCALE: u8 = 1 << 0;
    /// SACK permitted (kind 4, RFC 2018).
    pub const SACK_PERMITTED: u8 = 1 << 1;
    /// Timestamps (kind 8, RFC 7323).
    pub const TIMESTAMPS: u8 = 1 << 2;
    /// Multipath TCP (kind 30, RFC 8684).
    pub const MULTIPATH: u8 = 1 << 3;
    /// Fast Open cookie (kind 34, RFC 7413).
    pub const FAST_OPEN: u8 = 1 << 4;
    /// All that are defined.
    pub const ALL: u8 = (1 << 5) - 1;
}

/// What earlier plugins set on a packet, 8 bytes: read by plugins that declare an array for it.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Marks {
    /// The mark, or 0.
    pub mark: u32,
    /// The egress tag's number, or 0.
    pub tag: u16,
    /// The class's number, or 0.
    pub class: u8,
    /// Reserved, 0.
    pub reserved: u8,
}

/// Kinds of names that the operator gives out numbers for (`name_number`). Numbers count from 1; a name
/// keeps its number as long as the router runs.
pub mod name_kind {
    /// A `[[next_hop]]`, for [`Verdict::transmit`](super::Verdict::transmit).
    pub const NEXT_HOP: i32 = 0;
    /// An `[[egress_tag]]`, for [`Edit::tag`](super::Edit::tag).
    pub const EGRESS_TAG: i32 = 1;
    /// A `[[class]]`, for [`Edit::class`](super::Edit::class).
    pub const CLASS: i32 = 2;
    /// An interface: its number is [`Descriptor::ingress`](super::Descriptor::ingress) plus 1.
    pub const INTERFACE: i32 = 3;
}

/// One packet's entry in the payload area: this header, then as many bytes as the manifest asks for.
/// The next entry starts at the next multiple of 8.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct PayloadHeader {
    /// How many of the bytes behind this header are the packet's; what follows them is from earlier calls.
    pub len: u16,
    /// Reserved, 0.
    pub reserved: [u16; 3],
}

const _: () = assert!(size_of::<Descriptor>() == 64);
const _: () = assert!(size_of::<Verdict>() == 8);
const _: () = assert!(size_of::<Edit>() == 16);
const _: () = assert!(size_of::<Marks>() == 8);
const _: () = assert!(size_of::<PayloadHeader>() == 8);
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
    /// Address of the array of [`Edit`], which the guest writes; 0 for none.
    pub edits: u32,
    /// Bytes from one edit to the next, at least 16.
    pub edit_stride: u32,
    /// Address of the array of [`Marks`], 8 bytes each, which the host writes; 0 for none.
    pub marks: u32,
    /// Address of the payload area, which the host writes; 0 for none.
    pub payload: u32,
    /// Bytes from one packet's payload entry to the next: 8 and what the manifest asks for, or more.
    pub payload_stride: u32,
    /// Address of the area that state is handed over in; 0 for none.
    pub state: u32,
    /// Size of that area in bytes.
    pub state_capacity: u32,
    /// Reserved, 0.
    pub reserved: u32,
}

/// Size of the part of [`Layout`] that every plugin has; what a plugin leaves out behind it is 0.
pub const LAYOUT_BYTES_LEAST: usize = 48;

const _: () = assert!(size_of::<Layout>() == 80);
