//! What the router asks of the kernel: neighbors to keep fresh, and single look-ups.
//!
//! These go over a socket of their own, in the caller's thread, so that no answer waits behind a
//! dump of a million routes. The socket belongs to the network namespace in which the mirror was
//! started.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage,
    NeighbourState,
};
use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::Socket;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;

use super::MirrorError;
use super::decode::{self, Body};
use super::model::{Neighbor, NeighborState, RouteKind};
use super::netlink::{self, Refusal};

/// The kernel answers in microseconds; this bounds the wait for a kernel that never does.
const TIMEOUT_S: i64 = 10;

/// Who keeps a neighbor's entry fresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Management {
    /// The kernel resolves and probes it by itself (`NTF_EXT_MANAGED`, since Linux 5.16).
    Kernel,
    /// The kernel is too old for that: it was asked to resolve the neighbor once, and the caller
    /// must call [`KernelMirror::probe`](super::KernelMirror::probe) every few seconds.
    Probes,
    /// The entry is permanent or needs no resolution, and was left as it is.
    Unneeded,
}

/// What the kernel would do with a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteLookup {
    /// What the route does; of several next hops the one that the kernel chose.
    pub kind: RouteKind,
    /// The source address that it would use for a packet of its own.
    pub source: Option<IpAddr>,
}

/// The socket for requests.
#[derive(Debug)]
pub(super) struct Requests {
    socket: Socket,
    sequence: u32,
}

impl Requests {
    pub(super) fn open() -> io::Result<Self> {
        let socket = netlink::open()?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(TIMEOUT_S, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Makes the kernel keep a neighbor fresh.
    pub(super) fn manage(&mut self, ifindex: u32, ip: IpAddr) -> Result<Management, MirrorError> {
        let fail = failing("managing", ifindex, ip);
        let known = self.neighbor(ifindex, ip).map_err(&fail)?;
        // The kernel would take the operator's address away from a permanent entry.
        if known.is_some_and(|neighbor| {
            matches!(neighbor.state, NeighborState::Permanent | NeighborState::NoArp)
        }) {
            return Ok(Management::Unneeded);
        }
        // A kernel that does not know the attribute passes over it, and NTF_USE makes it resolve
        // the neighbor at least now.
        let message = neighbor_message(ifindex, ip, NeighbourFlags::Use, Some(true));
        self.transact(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
            .map_err(&fail)?;
        let managed = self.neighbor(ifindex, ip).map_err(&fail)?.is_some_and(|now| now.managed);
        Ok(if managed { Management::Kernel } else { Management::Probes })
    }

    /// Ends [`manage`](Self::manage). The entry stays until the kernel has no more use for it.
    pub(super) fn unmanage(&mut self, ifindex: u32, ip: IpAddr) -> Result<(), MirrorError> {
        let fail = failing("no longer managing", ifindex, ip);
        if !self.neighbor(ifindex, ip).map_err(&fail)?.is_some_and(|neighbor| neighbor.managed) {
            return Ok(());
        }
        let message = neighbor_message(ifindex, ip, NeighbourFlags::Use, Some(false));
        match self.transact(RouteNetlinkMessage::NewNeighbour(message), NLM_F_REPLACE) {
            Err(refusal) if refusal.is(nix::libc::ENOENT) => Ok(()),
            done => done.map(drop).map_err(fail),
        }
    }

    /// Makes the kernel resolve a neighbor, or confirm it if it is stale.
    pub(super) fn probe(&mut self, ifindex: u32, ip: IpAddr) -> Result<(), MirrorError> {
        let fail = failing("probing", ifindex, ip);
        let known = self.neighbor(ifindex, ip).map_err(&fail)?;
        if known.is_some_and(|neighbor| {
            matches!(neighbor.state, NeighborState::Permanent | NeighborState::NoArp)
        }) {
            return Ok(());
        }
        // The kernel takes the absence of the flag as its removal.
        let managed = known.is_some_and(|neighbor| neighbor.managed);
        let message = neighbor_message(ifindex, ip, NeighbourFlags::Use, managed.then_some(true));
        self.transact(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
            .map(drop)
            .map_err(fail)
    }

    /// The kernel's entry of a neighbor, if it has one.
    fn neighbor(&mut self, ifindex: u32, ip: IpAddr) -> Result<Option<Neighbor>, Refusal> {
        let message = neighbor_message(ifindex, ip, NeighbourFlags::empty(), None);
        match self.transact(RouteNetlinkMessage::GetNeighbour(message), 0) {
            Ok(answer) => Ok(answer
                .and_then(|payload| decode::neighbor(&payload).ok().flatten())
                .map(|(_, _, neighbor)| neighbor)),
            Err(refusal) if refusal.is(nix::libc::ENOENT) => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// Asks the kernel for the route to `ip`.
    pub(super) fn route(&mut self, ip: IpAddr) -> Result<RouteLookup, MirrorError> {
        let action = || format!("looking up the route to {ip}");
        let mut message = RouteMessage::default();
        let bits = if ip.is_ipv4() { 32 } else { 128 };
        message.header.address_family = family(ip);
        message.header.destination_prefix_length = bits;
        message.attributes.push(RouteAttribute::Destination(ip.into()));
        let answer = match self.transact(RouteNetlinkMessage::GetRoute(message), 0) {
            Ok(answer) => answer,
            // How the kernel tells of routes that drop, and of none (fib_props, ip6_null_entry).
            Err(refusal) => {
                let kind = match refusal.error.raw_os_error() {
                    Some(nix::libc::EHOSTUNREACH | nix::libc::ENETUNREACH) => {
                        RouteKind::Unreachable
                    }
                    Some(nix::libc::EACCES) => RouteKind::Prohibit,
                    Some(nix::libc::EINVAL) => RouteKind::Blackhole,
                    _ => return Err(MirrorError::request(action(), refusal)),
                };
                return Ok(RouteLookup { kind, source: None });
            }
        };
        let route = answer.as_deref().map(|payload| decode::route(payload, false));
        match route {
            Some(Ok(Some(route))) => Ok(RouteLookup {
                source: route.preferred_source,
                kind: match route.body {
                    Body::Kind(kind) | Body::KindBesideObject(kind, _) => {
                        Arc::unwrap_or_clone(kind)
                    }
                    Body::Object(id) => {
                        RouteKind::NotExpressible(super::Reason::UnknownNexthop(id))
                    }
                },
            }),
            _ => Err(MirrorError::request(
                action(),
                io::Error::from(io::ErrorKind::InvalidData).into(),
            )),
        }
    }

    fn transact(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Option<Vec<u8>>, Refusal> {
        netlink::transact(&self.socket, &mut self.sequence, message, flags)
    }
}

impl Refusal {
    fn is(&self, errno: i32) -> bool {
        self.error.raw_os_error() == Some(errno)
    }
}

fn failing(action: &str, ifindex: u32, ip: IpAddr) -> impl Fn(Refusal) -> MirrorError {
    move |refusal| {
        MirrorError::request(format!("{action} neighbor {ip} on interface {ifindex}"), refusal)
    }
}

fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn neighbor_message(
    ifindex: u32,
    ip: IpAddr,
    flags: NeighbourFlags,
    managed: Option<bool>,
) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(ip);
    message.header.ifindex = ifindex;
    message.header.state = NeighbourState::None;
    message.header.flags = flags;
    message.attributes.push(NeighbourAttribute::Destination(match ip {
        IpAddr::V4(ip) => NeighbourAddress::Inet(ip),
        IpAddr::V6(ip) => NeighbourAddress::Inet6(ip),
    }));
    if let Some(managed) = managed {
        message.attributes.push(NeighbourAttribute::ExtFlags(if managed {
            NeighbourExtFlags::Managed
        } else {
            NeighbourExtFlags::empty()
        }));
    }
    message
}
