//! Packets and tags for the tests of the tester, made by etherparse and siphasher, and sockets that
//! send and receive whole frames.
#![allow(unreachable_pub, reason = "it is a module of a test")]

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use etherparse::{
    IpFragOffset, Ipv4Header, Ipv4Options, Ipv6Header, PacketBuilder, TcpHeader, UdpHeader,
};
use siphasher::sip::SipHasher13;
use xdp::tester::{IMAGE_BYTES, Image, TAG_LEN};

const SOURCE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const DESTINATION_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const SOURCE4: [u8; 4] = [198, 51, 100, 1];
const DESTINATION4: [u8; 4] = [203, 0, 113, 2];
const SOURCE6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const DESTINATION6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

/// `CLOCK_MONOTONIC` in nanoseconds.
pub fn now_ns() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).expect("it exists");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

/// Time that the thread was given of a CPU, in nanoseconds.
pub fn thread_cpu_ns() -> u64 {
    let clock = nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID;
    let spent = nix::time::clock_gettime(clock).expect("it exists");
    spent.tv_sec() as u64 * 1_000_000_000 + spent.tv_nsec() as u64
}

/// Keeps the thread, and threads that it starts, on one CPU, as far as the machine has it.
pub fn pin(cpu: usize) {
    let mut set = nix::sched::CpuSet::new();
    set.set(cpu).expect("a small number");
    let _ = nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set);
}

/// A tag, by its description in the documentation.
#[derive(Clone, Copy, Debug)]
pub struct Tag {
    pub stream: u8,
    pub sequence: u64,
    pub timestamp_ns: u64,
}

impl Tag {
    pub fn bytes(self, key: [u64; 2]) -> [u8; TAG_LEN] {
        let identity = u64::from(self.stream) << 40 | self.sequence;
        let mut bytes = [0; TAG_LEN];
        bytes[..4].copy_from_slice(&check(key, identity, self.timestamp_ns).to_be_bytes());
        bytes[4..10].copy_from_slice(&identity.to_be_bytes()[2..]);
        bytes[10..].copy_from_slice(&self.timestamp_ns.to_be_bytes());
        bytes
    }

    pub fn read(payload: &[u8], key: [u64; 2]) -> Option<Self> {
        let mut identity = [0; 8];
        identity[2..].copy_from_slice(payload.get(4..10)?);
        let identity = u64::from_be_bytes(identity);
        let timestamp_ns = u64::from_be_bytes(payload.get(10..18)?.try_into().ok()?);
        let found = u32::from_be_bytes(payload[..4].try_into().ok()?);
        (found == check(key, identity, timestamp_ns)).then_some(Self {
            stream: (identity >> 40) as u8,
            sequence: identity & ((1 << 40) - 1),
            timestamp_ns,
        })
    }
}

fn check(key: [u64; 2], identity: u64, timestamp_ns: u64) -> u32 {
    let message = [identity.to_le_bytes(), timestamp_ns.to_le_bytes()].concat();
    SipHasher13::new_with_keys(key[0], key[1]).hash(&message) as u32
}

/// Kinds of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Udp4,
    Udp6,
    Tcp4,
    Tcp6,
    Udp4Options,
    Tcp4Options,
}

impl Kind {
    /// A packet of this kind, of at least 60 bytes.
    pub fn packet(self, port: u16, payload: &[u8]) -> Vec<u8> {
        let ethernet = PacketBuilder::ethernet2(SOURCE_MAC, DESTINATION_MAC);
        let mut bytes = Vec::new();
        match self {
            Self::Udp4 => {
                ethernet.ipv4(SOURCE4, DESTINATION4, 64).udp(1_024, port).write(&mut bytes, payload)
            }
            Self::Udp6 => {
                ethernet.ipv6(SOURCE6, DESTINATION6, 64).udp(1_024, port).write(&mut bytes, payload)
            }
            Self::Tcp4 => ethernet
                .ipv4(SOURCE4, DESTINATION4, 64)
                .tcp(1_024, port, 7, 1_024)
                .write(&mut bytes, payload),
            Self::Tcp6 => ethernet
                .ipv6(SOURCE6, DESTINATION6, 64)
                .tcp(1_024, port, 7, 1_024)
                .write(&mut bytes, payload),
            Self::Udp4Options | Self::Tcp4Options => {
                let header = Ipv4Header {
                    options: Ipv4Options::from([1, 1, 1, 0]),
                    source: SOURCE4,
                    destination: DESTINATION4,
                    time_to_live: 64,
                    fragment_offset: IpFragOffset::ZERO,
                    ..Ipv4Header::default()
                };
                let ip = ethernet.ip(etherparse::IpHeaders::Ipv4(header, Default::default()));
                if self == Self::Udp4Options {
                    ip.udp(1_024, port).write(&mut bytes, payload)
                } else {
                    ip.tcp(1_024, port, 7, 1_024)
                        .options_raw(&[1, 1, 1, 0])
                        .expect("4 bytes fit")
                        .write(&mut bytes, payload)
                }
            }
        }
        .expect("a packet can be written");
        bytes.resize(bytes.len().max(60), 0);
        bytes
    }

    /// An ICMP echo request.
    pub fn icmp() -> Vec<u8> {
        let mut bytes = Vec::new();
        PacketBuilder::ethernet2(SOURCE_MAC, DESTINATION_MAC)
            .ipv4(SOURCE4, DESTINATION4, 64)
            .icmpv4_echo_request(1, 1)
            .write(&mut bytes, &[0; 32])
            .expect("a packet can be written");
        bytes
    }
}

/// An image of this kind for frames of `frame_len` bytes.
pub fn image(kind: Kind, frame_len: usize) -> Image {
    let (ip_len, l4_len, l4_checksum) = match kind {
        Kind::Udp4 => (Ipv4Header::MIN_LEN, UdpHeader::LEN, 6),
        Kind::Udp6 => (Ipv6Header::LEN, UdpHeader::LEN, 6),
        Kind::Tcp4 => (Ipv4Header::MIN_LEN, TcpHeader::MIN_LEN, 16),
        Kind::Tcp6 => (Ipv6Header::LEN, TcpHeader::MIN_LEN, 16),
        Kind::Udp4Options | Kind::Tcp4Options => panic!("no sender makes these"),
    };
    let l4 = 14 + ip_len;
    let tag = l4 + l4_len;
    let mut packet = kind.packet(9_000, &vec![0; frame_len - tag]);
    assert_eq!(packet.len(), frame_len);
    let place = l4 + l4_checksum;
    // The checksum of the packet with a tag of zeros is the complement of the sum that is asked for.
    let sum = !u16::from_be_bytes([packet[place], packet[place + 1]]);
    packet[place..place + 2].fill(0);
    packet.resize(packet.len().max(IMAGE_BYTES), 0);
    Image {
        bytes: packet[..IMAGE_BYTES].try_into().expect("as many bytes"),
        frame_len: frame_len as u16,
        tag_offset: tag as u16,
        checksum_offset: place as u16,
        reserved: 0,
        checksum_base: sum.into(),
        reserved2: 0,
    }
}

/// A packet socket on one interface that sends and receives whole frames.
pub struct RawSocket(OwnedFd);

impl RawSocket {
    /// On an interface of the thread's network namespace.
    pub fn open(interface: &str) -> Self {
        let protocol = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: the call takes numbers only.
        let fd = unsafe {
            libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol.into())
        };
        assert!(fd >= 0, "{}", io::Error::last_os_error());
        // SAFETY: the call returned a new descriptor, which nobody else owns.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let name = CString::new(interface).expect("a name");
        // SAFETY: `name` is a C string that lives until the call returns.
        let if_index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        // SAFETY: the struct consists of integers: all zero is valid.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = if_index as i32;
        let size: i32 = 16 << 20;
        // SAFETY: the pointers are to values that live until the calls return, of the lengths given.
        unsafe {
            libc::setsockopt(
                fd,
                libc::SOL_SOCKET,
                libc::SO_RCVBUFFORCE,
                (&raw const size).cast(),
                size_of_val(&size) as u32,
            );
            let length = size_of_val(&address) as u32;
            assert_eq!(libc::bind(fd, (&raw const address).cast(), length), 0);
        }
        Self(socket)
    }

    /// Sends a frame.
    pub fn send(&self, frame: &[u8]) {
        // SAFETY: the pointer and the length are those of a slice.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        assert_eq!(sent, frame.len() as isize, "{}", io::Error::last_os_error());
    }

    /// The next frame, of those that are there.
    pub fn receive(&self) -> Option<Vec<u8>> {
        let mut frame = vec![0; 4096];
        // SAFETY: the pointer and the length are those of a slice that is borrowed exclusively.
        let length = unsafe {
            libc::recv(
                self.0.as_raw_fd(),
                frame.as_mut_ptr().cast(),
                frame.len(),
                libc::MSG_DONTWAIT,
            )
        };
        frame.truncate(usize::try_from(length).ok()?);
        Some(frame)
    }
}
