//! The check before a measurement: a thousand counted packets of each family, looked at one by one.
//!
//! They are sent by the tester's kernel from `t0` and taken by a packet socket on `t1`, which sees
//! their headers: a peer that forwards but does not route (it leaves TTL, or the link-layer address)
//! is not taken for one that does.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket,
    sockopt,
};

use super::bed::{Bed, D1, T0, T1};

/// Counted packets of each family.
pub const PACKETS: u32 = 1000;

/// Packets sent at once: fewer than any queue on the way holds.
const BURST: u32 = 50;

/// How long a peer may take until it forwards at all.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the last packets of a burst may be on their way.
const LAG_MAX: Duration = Duration::from_secs(1);

/// The TTL and hop limit of a packet that the kernel sends by itself.
const TTL: u8 = 64;

/// The UDP port that the packets go to: discard.
const PORT: u16 = 9;

/// Marks the packets of a check.
const MARK: [u8; 4] = *b"slt?";

/// Where the packets go: an address of each family within the traffic's destinations.
const TARGETS: [(&str, &str); 2] = [(T0.v4, "198.19.128.77"), (T0.v6, "2001:2:0:8000::4d")];

/// What a peer does to a packet.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// It lowers TTL and hop limit by one.
    pub lowers_ttl: bool,
    /// It replaces the source address by that of `d1`.
    pub translates_source: bool,
}

/// Checks that the peer forwards both families, each packet exactly once and as is expected of it.
///
/// # Errors
/// What is missing or wrong with which packet.
pub fn check(bed: &Bed, expected: Expected) -> Result<()> {
    bed.tester.within(|| {
        for (from, to) in TARGETS {
            let source = if expected.translates_source { (D1.v4, D1.v6) } else { (T0.v4, T0.v6) };
            let (from, to): (IpAddr, IpAddr) = (from.parse()?, to.parse()?);
            let source = if from.is_ipv4() { source.0 } else { source.1 }.parse()?;
            let ttl = TTL - u8::from(expected.lowers_ttl);
            let family = if from.is_ipv4() { "IPv4" } else { "IPv6" };
            Probe::open(from, to, source, ttl)?.run().context(family)?;
        }
        Ok(())
    })?
}

/// The sockets of one family, and what has to come out.
struct Probe {
    sender: UdpSocket,
    sniffer: OwnedFd,
    source: IpAddr,
    target: IpAddr,
    ttl: u8,
}

impl Probe {
    /// Opens the sockets in the namespace that this thread is in.
    fn open(from: IpAddr, target: IpAddr, source: IpAddr, ttl: u8) -> Result<Self> {
        let sender = UdpSocket::bind(SocketAddr::new(from, 0)).context("a UDP socket on t0")?;
        sender.connect(SocketAddr::new(target, PORT)).context("a route by t0")?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let sniffer = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)
            .context("a packet socket")?;
        setsockopt(&sniffer, sockopt::RcvBuf, &(4 << 20))?;
        let link = getifaddrs()?
            .filter(|entry| entry.interface_name == T1.name)
            .find_map(|entry| entry.address?.as_link_addr().copied())
            .context("t1 has no link-layer address")?;
        bind(sniffer.as_raw_fd(), &link).context("a packet socket on t1")?;
        Ok(Self { sender, sniffer, source, target, ttl })
    }

    fn run(&self) -> Result<()> {
        // What is sent before the peer is ready says nothing; numbers from PACKETS on are not counted.
        let deadline = Instant::now() + START_TIMEOUT;
        let mut seen = BTreeSet::new();
        while seen.is_empty() {
            ensure!(
                Instant::now() < deadline,
                "nothing is forwarded within {} s",
                START_TIMEOUT.as_secs()
            );
            self.send(PACKETS)?;
            self.take(&mut seen, 1, Duration::from_millis(100))?;
        }
        std::thread::sleep(Duration::from_millis(100));
        self.take(&mut BTreeSet::new(), usize::MAX, Duration::ZERO)?;

        let mut seen = BTreeSet::new();
        for first in (0..PACKETS).step_by(BURST as usize) {
            for number in first..first + BURST {
                self.send(number)?;
            }
            self.take(&mut seen, (first + BURST) as usize, LAG_MAX)?;
        }
        ensure!(seen.len() == PACKETS as usize, "{} of {PACKETS} packets arrived", seen.len());
        Ok(())
    }

    fn send(&self, number: u32) -> Result<()> {
        let payload = [MARK, number.to_be_bytes()].concat();
        self.sender.send(&payload).map(drop).context("send by t0")
    }

    /// Takes what arrives until `wanted` different packets are seen, or none comes for `patience`.
    fn take(&self, seen: &mut BTreeSet<u32>, wanted: usize, patience: Duration) -> Result<()> {
        let mut frame = [0; 2048];
        while seen.len() < wanted {
            let bytes = match recv(self.sniffer.as_raw_fd(), &mut frame, MsgFlags::empty()) {
                Ok(bytes) => bytes,
                Err(Errno::EAGAIN) => {
                    let patience = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
                    let mut ready = [PollFd::new(self.sniffer.as_fd(), PollFlags::POLLIN)];
                    if poll(&mut ready, patience)? == 0 {
                        return Ok(());
                    }
                    continue;
                }
                Err(errno) => return Err(errno).context("receive on t1"),
            };
            if let Some(packet) = Packet::parse(&frame[..bytes])
                && packet.destination == self.target
                && let Some(number) = packet.number
            {
                self.judge(&packet).with_context(|| format!("packet {number}"))?;
                if !seen.insert(number) && number < PACKETS {
                    bail!("packet {number} arrived twice");
                }
            }
        }
        Ok(())
    }

    fn judge(&self, packet: &Packet) -> Result<()> {
        ensure!(packet.mac == T1.mac, "it is sent to {}, not to t1's {}", packet.mac, T1.mac);
        ensure!(packet.ttl == self.ttl, "its TTL is {}, not {}", packet.ttl, self.ttl);
        ensure!(
            packet.source == self.source,
            "its source is {}, not {}",
            packet.source,
            self.source
        );
        ensure!(packet.is_header_intact, "the checksum of its IPv4 header is wrong");
        Ok(())
    }
}

/// What the check looks at in a packet.
#[derive(Debug)]
struct Packet {
    mac: String,
    source: IpAddr,
    destination: IpAddr,
    ttl: u8,
    is_header_intact: bool,
    /// Its number, if it has the check's mark.
    number: Option<u32>,
}

impl Packet {
    /// Reads a UDP packet over IPv4 without options or IPv6 without extension headers. Anything else
    /// is no packet of a check.
    fn parse(frame: &[u8]) -> Option<Self> {
        let mac: Vec<_> = frame.get(..6)?.iter().map(|byte| format!("{byte:02x}")).collect();
        let packet = frame.get(14..)?;
        let (source, destination, ttl, is_header_intact, payload): (IpAddr, IpAddr, _, _, _) =
            match (frame.get(12..14)?, packet.first()?) {
                ([0x08, 0x00], 0x45) if packet.get(9) == Some(&17) => (
                    <[u8; 4]>::try_from(packet.get(12..16)?).ok()?.into(),
                    <[u8; 4]>::try_from(packet.get(16..20)?).ok()?.into(),
                    packet[8],
                    ones_sum(&packet[..20]) == 0xffff,
                    packet.get(28..)?,
                ),
                ([0x86, 0xdd], _) if packet.get(6) == Some(&17) => (
                    <[u8; 16]>::try_from(packet.get(8..24)?).ok()?.into(),
                    <[u8; 16]>::try_from(packet.get(24..40)?).ok()?.into(),
                    packet[7],
                    true,
                    packet.get(48..)?,
                ),
                _ => return None,
            };
        let number = payload
            .strip_prefix(&MARK)
            .and_then(|rest| Some(u32::from_be_bytes(rest.get(..4)?.try_into().ok()?)));
        Some(Self { mac: mac.join(":"), source, destination, ttl, is_header_intact, number })
    }
}

/// The one's-complement sum of the 16-bit words (RFC 1071).
fn ones_sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    ((folded & 0xffff) + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_read_and_a_broken_header_is_seen() {
        let mut frame = vec![2, 0, 0x5e, 0x13, 0, 2, 2, 0, 0x5e, 0x13, 0, 1, 8, 0];
        frame
            .extend([0x45, 0, 0, 36, 0, 0, 0x40, 0, 63, 17, 0, 0, 198, 18, 0, 2, 198, 19, 128, 77]);
        let sum = !ones_sum(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        frame.extend([1, 2, 0, 9, 0, 16, 0, 0]);
        frame.extend(MARK);
        frame.extend(7_u32.to_be_bytes());
        let packet = Packet::parse(&frame).expect("a packet");
        assert_eq!(packet.mac, T1.mac);
        assert_eq!((packet.ttl, packet.number, packet.is_header_intact), (63, Some(7), true));
        assert_eq!(packet.source, IpAddr::from([198, 18, 0, 2]));
        frame[22] = 64;
        assert!(!Packet::parse(&frame).expect("a packet").is_header_intact);
        assert!(Packet::parse(&frame[..40]).is_none());
    }
}
