//! [`Tap`]: a raw socket on all links of a namespace: sends frames as they are, and sees what comes in.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recvfrom, sendto,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use super::Namespace;

/// `PACKET_OUTGOING` of linux/if_packet.h: a frame that this namespace itself sends.
const OUTGOING: u8 = 4;

/// A frame that came in, and by which of the tap's links.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Captured {
    /// Position of the link among those that the tap was made with.
    pub(crate) port: usize,
    /// The frame from its Ethernet header on.
    pub(crate) frame: Vec<u8>,
}

/// A raw socket on the links of a namespace.
#[derive(Debug)]
pub(crate) struct Tap {
    socket: OwnedFd,
    ports: Vec<LinkAddr>,
    by_ifindex: HashMap<usize, usize>,
    buffer: Vec<u8>,
}

impl Tap {
    /// A tap on these interfaces of the namespace.
    #[track_caller]
    pub(crate) fn new(namespace: &Namespace, interfaces: &[&str]) -> Self {
        let (socket, ports) = namespace.within(|| {
            let flags = SockFlag::SOCK_CLOEXEC;
            let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)
                .expect("a raw socket");
            let all: Vec<_> = nix::ifaddrs::getifaddrs().expect("interfaces").collect();
            let ports: Vec<LinkAddr> = interfaces
                .iter()
                .map(|name| {
                    let link = all.iter().filter(|entry| entry.interface_name == *name);
                    let mut link = link.filter_map(|entry| entry.address?.as_link_addr().copied());
                    link.next().unwrap_or_else(|| panic!("no interface {name}"))
                })
                .collect();
            (socket, ports)
        });
        setsockopt(&socket, sockopt::RcvBufForce, &(64 << 20)).expect("a large buffer");
        let by_ifindex = ports.iter().zip(0..).map(|(port, at)| (port.ifindex(), at)).collect();
        Self { socket, ports, by_ifindex, buffer: vec![0; 1 << 16] }
    }

    /// Sends a frame out of a link.
    #[track_caller]
    pub(crate) fn send(&self, port: usize, frame: &[u8]) {
        loop {
            match sendto(self.socket.as_raw_fd(), frame, &self.ports[port], MsgFlags::empty()) {
                Ok(_) => return,
                Err(Errno::ENOBUFS | Errno::EINTR) => std::thread::yield_now(),
                Err(errno) => panic!("{} bytes out of port {port}: {errno}", frame.len()),
            }
        }
    }

    /// The next frame that comes in by one of the links, or `None` when none does in time.
    pub(crate) fn receive(&mut self, timeout: Duration) -> Option<Captured> {
        let limit = TimeVal::new(timeout.as_secs().cast_signed(), timeout.subsec_micros().into());
        setsockopt(&self.socket, sockopt::ReceiveTimeout, &limit).expect("a timeout");
        loop {
            match recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut self.buffer) {
                Ok((length, Some(from))) => {
                    let port = self.by_ifindex.get(&from.ifindex());
                    if let (Some(&port), true) = (port, from.pkttype() != OUTGOING) {
                        return Some(Captured { port, frame: self.buffer[..length].to_vec() });
                    }
                }
                Ok((_, None)) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return None,
                Err(errno) => panic!("a raw socket: {errno}"),
            }
        }
    }

    /// Everything that comes in within this time.
    pub(crate) fn receive_for(&mut self, time: Duration) -> Vec<Captured> {
        let deadline = std::time::Instant::now() + time;
        let mut all = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            if left < Duration::from_micros(1) {
                return all;
            }
            all.extend(self.receive(left));
        }
    }
}
