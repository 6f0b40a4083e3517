//! Sockets with a chosen source, and packets by hand.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, SocketAddrV6, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, connect,
    getsockopt, sendto, setsockopt, socket, sockopt,
};
use std::os::fd::AsFd;

use super::namespace::Namespace;
use super::random;

/// How long a transfer may stand still.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// Connects from a chosen address and port, inside a namespace. The inner error is what the network
/// answered; without an answer in time it is `ETIMEDOUT`.
///
/// # Errors
/// When there cannot be such a socket.
pub fn connect_from(
    namespace: &Namespace,
    from: SocketAddr,
    to: SocketAddr,
    timeout: Duration,
) -> Result<std::result::Result<TcpStream, Errno>> {
    let socket: OwnedFd = namespace.within(|| {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        socket(family(from.ip()), SockType::Stream, flags, None)
    })??;
    // A port can be taken again while an earlier connection from it lingers.
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(from))
        .with_context(|| format!("{from} in {}", namespace.role()))?;
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
        Ok(()) | Err(Errno::EINPROGRESS) => {}
        Err(errno) => return Ok(Err(errno)),
    }
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
    let mut ready = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
    if poll(&mut ready, timeout)? == 0 {
        return Ok(Err(Errno::ETIMEDOUT));
    }
    match getsockopt(&socket, sockopt::SocketError)? {
        0 => {
            let stream = TcpStream::from(socket);
            stream.set_nonblocking(false)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(STALL_TIMEOUT))?;
            stream.set_write_timeout(Some(STALL_TIMEOUT))?;
            Ok(Ok(stream))
        }
        errno => Ok(Err(Errno::from_raw(errno))),
    }
}

/// The largest segment that a connection sends, in bytes.
///
/// # Errors
/// When the system does not know.
pub fn segment_bytes_max(stream: &TcpStream) -> Result<u32> {
    Ok(getsockopt(stream, sockopt::TcpMaxSeg)?)
}

/// Fetches bytes over an open connection and compares them.
///
/// # Errors
/// When the connection breaks or stands still, or a byte is wrong.
pub fn fetch(stream: &mut TcpStream, seed: u64, count: usize) -> Result<()> {
    write!(stream, "GET /{seed}/{count} HTTP/1.1\r\n\r\n")?;
    let body = answer(stream)?;
    ensure!(body == random::bytes(seed, count), "the bytes received are not those sent");
    Ok(())
}

/// Sends bytes over an open connection and asks whether they were right.
///
/// # Errors
/// When the connection breaks or stands still, or a byte is wrong.
pub fn push(stream: &mut TcpStream, seed: u64, count: usize) -> Result<()> {
    write!(stream, "POST /{seed}/{count} HTTP/1.1\r\n\r\n")?;
    stream.write_all(&random::bytes(seed, count))?;
    ensure!(answer(stream)? == b"right", "the bytes received are not those sent");
    Ok(())
}

fn answer(stream: &TcpStream) -> Result<Vec<u8>> {
    let mut reader = BufReader::new(stream);
    let mut length = None;
    loop {
        let mut line = String::new();
        ensure!(reader.read_line(&mut line)? > 0, "the connection ended before the answer");
        if let Some(value) = line.strip_prefix("Content-Length: ") {
            length = value.trim().parse().ok();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length.context("the answer has no length")?];
    reader.read_exact(&mut body)?;
    Ok(body)
}

/// A UDP socket inside a namespace, bound and connected.
///
/// # Errors
/// When the address is not there, or the port is taken.
pub fn udp(namespace: &Namespace, from: SocketAddr, to: SocketAddr) -> Result<UdpSocket> {
    let socket = namespace
        .within(|| UdpSocket::bind(from))?
        .with_context(|| format!("{from} in {}", namespace.role()))?;
    socket.connect(to).with_context(|| format!("{to} in {}", namespace.role()))?;
    Ok(socket)
}

/// Sends `payload` and waits for its echo, a few times, since datagrams may be lost.
///
/// # Errors
/// The last thing that went wrong.
pub fn echo(socket: &UdpSocket, payload: &[u8], timeout: Duration, tries: u32) -> Result<()> {
    let mut last = None;
    socket.set_read_timeout(Some(timeout))?;
    for _ in 0..tries {
        let mut received = vec![0; payload.len() + 1];
        match socket.send(payload).and_then(|_| socket.recv(&mut received)) {
            Ok(count) if &received[..count] == payload => return Ok(()),
            Ok(_) => {}
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(error) => Err(error.into()),
        None => anyhow::bail!("other bytes came back"),
    }
}

/// Whether an error says that nothing came in time.
#[must_use]
pub fn is_silence(error: &anyhow::Error) -> bool {
    use std::io::ErrorKind::{TimedOut, WouldBlock};
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| matches!(error.kind(), TimedOut | WouldBlock))
}

/// Sends a UDP packet whose source is not this host's own.
///
/// # Errors
/// When the system refuses.
pub fn send_spoofed(namespace: &Namespace, from: SocketAddr, to: SocketAddr) -> Result<()> {
    let packet = udp_packet(from, to, b"spoofed");
    let raw: OwnedFd = namespace.within(|| {
        // IPPROTO_RAW: the packet has its IP header already.
        let flags = SockFlag::SOCK_CLOEXEC;
        socket(family(from.ip()), SockType::Raw, flags, SockProtocol::Raw)
    })??;
    // The port of a raw socket's address is a protocol, or 0.
    let to = match to {
        SocketAddr::V4(to) => SocketAddr::from((*to.ip(), 0)),
        SocketAddr::V6(to) => SocketAddrV6::new(*to.ip(), 0, 0, 0).into(),
    };
    sendto(raw.as_raw_fd(), &packet, &SockaddrStorage::from(to), MsgFlags::empty())
        .with_context(|| format!("a raw packet to {to}"))?;
    Ok(())
}

/// A UDP packet with its IP header. The kernel fills IPv4's header checksum in.
fn udp_packet(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let udp_length = 8 + payload.len() as u16;
    let mut udp = [from.port(), to.port(), udp_length, 0].map(u16::to_be_bytes).concat();
    udp.extend(payload);
    let (mut packet, addresses) = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let [high, low] = (20 + udp_length).to_be_bytes();
            let header = vec![0x45, 0, high, low, 0, 1, 0, 0, 64, 17, 0, 0];
            (header, [from.octets(), to.octets()].concat())
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let [high, low] = udp_length.to_be_bytes();
            (vec![0x60, 0, 0, 0, high, low, 17, 64], [from.octets(), to.octets()].concat())
        }
        _ => unreachable!("both addresses are of one family"),
    };
    let pseudo_header =
        [&addresses[..], &u32::from(udp_length).to_be_bytes(), &[0, 0, 0, 17]].concat();
    let sum = !ones_sum(&[&pseudo_header[..], &udp].concat());
    udp[6..8].copy_from_slice(&if sum == 0 { 0xffff } else { sum }.to_be_bytes());
    packet.extend(addresses);
    packet.extend(udp);
    packet
}

fn ones_sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_by_hand_have_right_checksums() {
        let packet =
            udp_packet("192.0.2.1:1".parse().unwrap(), "192.0.2.2:2".parse().unwrap(), b"odd");
        assert_eq!(packet.len(), 20 + 8 + 3);
        let check = [&packet[12..20], &[0, 17, 0, 11], &packet[20..]].concat();
        assert_eq!(ones_sum(&check), 0xffff);
        let packet = udp_packet("[::1]:1".parse().unwrap(), "[::2]:2".parse().unwrap(), b"even");
        let check = [&packet[8..40], &[0, 0, 0, 12, 0, 0, 0, 17], &packet[40..]].concat();
        assert_eq!(ones_sum(&check), 0xffff);
    }
}
