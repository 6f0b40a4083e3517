//! The MAC address of the next hop, from the kernel's neighbor table.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_sys::{Socket, SocketAddr as KernelAddress, protocols::NETLINK_ROUTE};
use wire::MacAddress;
use xdp::host;

use crate::LoadError;
use crate::profile::Stations;

/// How long the kernel is given to resolve an address: it asks three times, a second apart.
const PATIENCE: Duration = Duration::from_secs(3);

/// The discard service (RFC 863): nobody minds a datagram there.
const DISCARD_PORT: u16 = 9;

/// The device under test on the generator's link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextHop {
    /// By its MAC address.
    Mac(MacAddress),
    /// By its IP address, which the kernel resolves.
    Address(IpAddr),
}

/// The MAC addresses of what is sent on `interface` to the next hop.
///
/// # Errors
/// [`LoadError::Unresolved`] when the next hop does not answer, [`LoadError::Plan`] for an interface
/// without a MAC address.
pub fn stations(interface: &str, next_hop: NextHop) -> Result<Stations, LoadError> {
    let facts = host::interface(interface)?;
    let source = facts.mac.ok_or_else(|| {
        LoadError::Plan(format!("interface {interface} is not an Ethernet interface"))
    })?;
    let destination = match next_hop {
        NextHop::Mac(address) => address,
        NextHop::Address(address) => resolve(facts.index, address)?,
    };
    Ok(Stations { source, destination })
}

fn resolve(if_index: u32, address: IpAddr) -> Result<MacAddress, LoadError> {
    let failed = |source: io::Error| LoadError::host("cannot read the kernel's neighbors", source);
    let start = Instant::now();
    loop {
        let state = match look_up(if_index, address).map_err(failed)? {
            Known::Resolved(mac) => return Ok(mac),
            Known::Unresolved(state) => state,
        };
        if start.elapsed() >= PATIENCE {
            return Err(LoadError::Unresolved {
                address,
                state,
                waited_ms: u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
            });
        }
        // A datagram to it makes the kernel ask. Without a route nothing happens, and time runs out.
        let _ = provoke(if_index, address);
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn provoke(if_index: u32, address: IpAddr) -> io::Result<usize> {
    let (local, to): (SocketAddr, SocketAddr) = match address {
        IpAddr::V4(address) => (([0, 0, 0, 0], 0).into(), (address, DISCARD_PORT).into()),
        IpAddr::V6(address) => {
            let to = std::net::SocketAddrV6::new(address, DISCARD_PORT, 0, if_index);
            ((Ipv6Addr::UNSPECIFIED, 0).into(), to.into())
        }
    };
    UdpSocket::bind(local)?.send_to(&[], to)
}

enum Known {
    Resolved(MacAddress),
    Unresolved(String),
}

/// Looks through a dump of the neighbor table.
fn look_up(if_index: u32, address: IpAddr) -> io::Result<Known> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    let mut request =
        NetlinkMessage::from(RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()));
    request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send_to(&bytes, &KernelAddress::new(0, 0), 0)?;

    let mut known = Known::Unresolved("none".into());
    loop {
        let (datagram, sender) = socket.recv_from_full()?;
        if sender.port_number() != 0 {
            continue;
        }
        let mut rest = &datagram[..];
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(known),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(neighbor)) => {
                    if let Some(found) = judge(&neighbor, if_index, address) {
                        known = found;
                    }
                }
                _ => {}
            }
            let len = usize::try_from(message.header.length).unwrap_or(usize::MAX);
            rest = rest.get(len.next_multiple_of(4).max(4)..).unwrap_or_default();
        }
    }
}

/// What an entry says of the address on the link; `None` if it is of another one.
fn judge(neighbor: &NeighbourMessage, if_index: u32, address: IpAddr) -> Option<Known> {
    let is_it = neighbor.header.ifindex == if_index
        && neighbor.attributes.iter().any(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(found)) => {
                IpAddr::V4(*found) == address
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(found)) => {
                IpAddr::V6(*found) == address
            }
            _ => false,
        });
    if !is_it {
        return None;
    }
    let state = neighbor.header.state;
    let is_usable = !matches!(
        state,
        NeighbourState::Incomplete | NeighbourState::Failed | NeighbourState::None
    );
    let mac = neighbor.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok(),
        _ => None,
    });
    Some(match mac {
        Some(mac) if is_usable => Known::Resolved(MacAddress(mac)),
        _ => Known::Unresolved(format!("{state:?}").to_lowercase()),
    })
}
