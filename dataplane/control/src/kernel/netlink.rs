//! Netlink sockets: opening, framing, requests.
//!
//! `netlink-sys` does the system calls and `netlink-packet-core` the framing. The crates above
//! them, `netlink-proto` and `rtnetlink`, are not used: they hide that a dump was interrupted
//! (`NLM_F_DUMP_INTR`), drop what they cannot parse without a word, queue without a bound, and know
//! no nexthop objects.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::{setsockopt, sockopt};

pub(super) const NLMSG_ERROR: u16 = 2;
pub(super) const NLMSG_DONE: u16 = 3;
pub(super) const RTM_NEWLINK: u16 = 16;
pub(super) const RTM_DELLINK: u16 = 17;
pub(super) const RTM_NEWADDR: u16 = 20;
pub(super) const RTM_DELADDR: u16 = 21;
pub(super) const RTM_NEWROUTE: u16 = 24;
pub(super) const RTM_DELROUTE: u16 = 25;
pub(super) const RTM_NEWNEIGH: u16 = 28;
pub(super) const RTM_DELNEIGH: u16 = 29;
pub(super) const RTM_NEWNEXTHOP: u16 = 104;
pub(super) const RTM_DELNEXTHOP: u16 = 105;
const RTM_GETNEXTHOP: u16 = 106;

/// Bytes of a receive buffer. The kernel writes dumps in pieces of up to 32 KiB, and news are
/// smaller than that.
pub(super) const DATAGRAM_BYTES_MAX: usize = 64 * 1024;

/// The groups of `RTNLGRP_*` that the mirror listens to.
const GROUPS: [u32; 7] = [
    1,  // RTNLGRP_LINK
    3,  // RTNLGRP_NEIGH
    5,  // RTNLGRP_IPV4_IFADDR
    7,  // RTNLGRP_IPV4_ROUTE
    9,  // RTNLGRP_IPV6_IFADDR
    11, // RTNLGRP_IPV6_ROUTE
    32, // RTNLGRP_NEXTHOP
];

/// A socket for requests and dumps.
pub(super) fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    // Dumps of one table instead of all (since Linux 4.20); without it the answers are filtered
    // here all the same.
    let _ = socket.set_netlink_get_strict_chk(true);
    // The kernel's words beside the errno (since Linux 4.12), without our request in front.
    let _ = socket.set_ext_ack(true);
    let _ = socket.set_cap_ack(true);
    Ok(socket)
}

/// A socket that is told of changes, not blocking.
pub(super) fn open_news(receive_buffer_bytes: usize) -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    // Beyond net.core.rmem_max only with CAP_NET_ADMIN.
    if setsockopt(&socket, sockopt::RcvBufForce, &receive_buffer_bytes).is_err() {
        setsockopt(&socket, sockopt::RcvBuf, &receive_buffer_bytes)?;
    }
    socket.bind_auto()?;
    for group in GROUPS {
        match socket.add_membership(group) {
            // Nexthop objects came with Linux 5.3.
            Err(_) if group == 32 => {}
            joined => joined?,
        }
    }
    socket.set_non_blocking(true)?;
    Ok(socket)
}

/// One message of a datagram.
#[derive(Clone, Copy)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    pub(super) payload: &'a [u8],
}

/// The messages of `datagram`; ends early, with an error, where the framing is broken.
pub(super) fn messages(datagram: &[u8]) -> impl Iterator<Item = Result<Message<'_>, ()>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Ok(buffer) = NetlinkBuffer::new_checked(rest) else {
            rest = &[];
            return Some(Err(()));
        };
        let length = usize::try_from(buffer.length()).unwrap_or(usize::MAX);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Ok(Message {
            kind: buffer.message_type(),
            flags: buffer.flags(),
            sequence: buffer.sequence_number(),
            payload: buffer.payload(),
        }))
    })
}

/// The errno of an `NLMSG_ERROR` or `NLMSG_DONE` and the kernel's words, if it has any. Errno 0 is
/// an acknowledgement.
pub(super) fn errno(payload: &[u8]) -> (i32, Option<String>) {
    const HEADER_BYTES: usize = 16;
    const NLMSGERR_ATTR_MSG: u16 = 1;
    let code = payload.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
    let words = payload
        .get(4 + HEADER_BYTES..)
        .into_iter()
        .flat_map(netlink_packet_core::NlasIterator::new)
        .filter_map(Result::ok)
        .find(|attribute| attribute.kind() == NLMSGERR_ATTR_MSG)
        .map(|attribute| {
            let text = attribute.value();
            String::from_utf8_lossy(text.strip_suffix(&[0]).unwrap_or(text)).into_owned()
        });
    (code.saturating_neg(), words)
}

/// What to dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dump {
    Links,
    Addresses,
    Nexthops,
    Routes { v6: bool, table: u32 },
    Neighbors,
}

/// The request for a dump.
pub(super) fn dump_request(dump: Dump, sequence: u32) -> Vec<u8> {
    let message = match dump {
        Dump::Links => {
            let mut message = LinkMessage::default();
            message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
            RouteNetlinkMessage::GetLink(message)
        }
        Dump::Addresses => RouteNetlinkMessage::GetAddress(AddressMessage::default()),
        Dump::Routes { v6, table } => {
            let mut message = RouteMessage::default();
            message.header.address_family =
                if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
            message.attributes.push(RouteAttribute::Table(table));
            RouteNetlinkMessage::GetRoute(message)
        }
        Dump::Neighbors => RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()),
        Dump::Nexthops => return nexthop_dump_request(sequence),
    };
    request(message, NLM_F_DUMP, sequence)
}

/// `RTM_GETNEXTHOP` with an empty `struct nhmsg`, for which no crate has a type.
fn nexthop_dump_request(sequence: u32) -> Vec<u8> {
    const BYTES: usize = 16 + 8;
    let mut bytes = vec![0; BYTES];
    let mut header = NetlinkBuffer::new(&mut bytes);
    header.set_length(BYTES as u32);
    header.set_message_type(RTM_GETNEXTHOP);
    header.set_flags(NLM_F_REQUEST | NLM_F_DUMP);
    header.set_sequence_number(sequence);
    bytes
}

/// The bytes of a request.
pub(super) fn request(message: RouteNetlinkMessage, flags: u16, sequence: u32) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// Sends a request to the kernel.
pub(super) fn send(socket: &Socket, bytes: &[u8]) -> io::Result<()> {
    let sent = socket.send_to(bytes, &SocketAddr::new(0, 0), 0)?;
    if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Receives a datagram of the kernel into `buffer`, which is emptied first. A datagram of another
/// process leaves it empty; one that did not fit is an ENOBUFS, because a part of it is lost.
pub(super) fn receive(socket: &Socket, buffer: &mut Vec<u8>) -> io::Result<()> {
    buffer.clear();
    let (bytes, sender) = socket.recv_from(buffer, nix::libc::MSG_TRUNC)?;
    if sender.port_number() != 0 {
        buffer.clear();
    } else if bytes > buffer.len() {
        return Err(io::Error::from_raw_os_error(nix::libc::ENOBUFS));
    }
    Ok(())
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
#[error("{error}{}", .words.as_deref().map(|words| format!(" ({words})")).unwrap_or_default())]
pub(super) struct Refusal {
    pub(super) error: io::Error,
    pub(super) words: Option<String>,
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self { error, words: None }
    }
}

/// Sends a request that is no dump and waits for its end. Gives the payload of the kernel's answer
/// if there is one beside the acknowledgement.
pub(super) fn transact(
    socket: &Socket,
    sequence: &mut u32,
    message: RouteNetlinkMessage,
    flags: u16,
) -> Result<Option<Vec<u8>>, Refusal> {
    *sequence = sequence.wrapping_add(1);
    send(socket, &request(message, flags | NLM_F_ACK, *sequence))?;
    let mut buffer = Vec::with_capacity(DATAGRAM_BYTES_MAX);
    let mut answer = None;
    loop {
        match receive(socket, &mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            received => received?,
        }
        for message in messages(&buffer) {
            let message = message.map_err(|()| io::Error::from(io::ErrorKind::InvalidData))?;
            // The end of a request that was given up.
            if message.sequence != *sequence {
                continue;
            }
            if message.kind != NLMSG_ERROR {
                answer = Some(message.payload.to_vec());
                continue;
            }
            return match errno(message.payload) {
                (0, _) => Ok(answer),
                (errno, words) => {
                    Err(Refusal { error: io::Error::from_raw_os_error(errno), words })
                }
            };
        }
    }
}
