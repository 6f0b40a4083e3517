//! Each rule of the classifier, by running the program in the kernel on packets
//! (`BPF_PROG_TEST_RUN`): the verdict, and that exactly one counter moved, the right one.

#[path = "../../tests/common/mod.rs"]
mod common;

use std::{
    cell::RefCell,
    net::IpAddr,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use aya::programs::{TestRun, TestRunOptions};
use etherparse::{IpNumber, PacketBuilder};
use proptest::{prelude::*, test_runner::TestRunner};

use super::{attach::*, *};

const DROP: u32 = 1;
const PASS: u32 = 2;
const REDIRECT: u32 = 4;

const TUNNEL_PORT: u16 = 6080;

/// A loaded classifier that is attached to nothing.
struct Bench {
    object: aya::Ebpf,
    rules: RuleMaps,
    xsks: XskMap<MapData>,
    counters: PerCpuArray<MapData, u64>,
}

impl Bench {
    fn new(bpffs: &Path, rules: &ClassifierRules) -> Self {
        let mut object = load(bpffs, 0).expect("the kernel accepts the classifier");
        let mut rule_maps = RuleMaps::take(&mut object).expect("the maps are there");
        let xsks = take_map(&mut object, "xsks").expect("the map is there");
        let counters = take_map(&mut object, "counters").expect("the map is there");
        rule_maps.update(rules).expect("the rules fit");
        Self { object, rules: rule_maps, xsks, counters }
    }

    fn run(&mut self, packet: &[u8]) -> u32 {
        run_program(program(&mut self.object).expect("the program is there"), packet)
    }

    fn counters(&self) -> Vec<u64> {
        (0..Reason::ALL.len() as u32)
            .map(|key| self.counters.get(&key, 0).expect("the key exists").iter().sum())
            .collect()
    }

    /// Runs the program and says which counter moved.
    fn decide(&mut self, packet: &[u8]) -> (u32, Reason) {
        let before = self.counters();
        let verdict = self.run(packet);
        let moved: Vec<(Reason, u64)> = Reason::ALL
            .iter()
            .zip(before.iter().zip(self.counters()))
            .filter(|(_, (before, after))| **before != *after)
            .map(|(&reason, (before, after))| (reason, after - before))
            .collect();
        assert_eq!(moved.len(), 1, "one reason for a packet, not {moved:?}: {packet:02x?}");
        assert_eq!(moved[0].1, 1, "counted once");
        (verdict, moved[0].0)
    }
}

/// An AF_XDP socket that is bound to nothing: enough to fill a slot of the map, since a test run does
/// not carry the redirect out.
fn unbound_socket() -> OwnedFd {
    // SAFETY: socket() touches no memory.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    assert!(fd >= 0, "an AF_XDP socket can be made");
    // SAFETY: the descriptor is new, and nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn run_program(program: &aya::programs::Xdp, packet: &[u8]) -> u32 {
    let mut options = TestRunOptions::new();
    options.data_in = Some(packet);
    program.test_run(options).expect("the kernel runs the program").return_value
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("a test's address is valid")
}

fn rules() -> ClassifierRules {
    ClassifierRules {
        locals: ["192.0.2.1", "203.0.113.7", "2001:db8::1", "2001:db8:e::7", "fe80::1"]
            .map(ip)
            .into(),
        egress: ["203.0.113.0/24", "198.51.100.9/32", "2001:db8:e::/64", "2001:db8:f::9/128"]
            .map(|net| net.parse().expect("a test's prefix is valid"))
            .into(),
        broadcasts: ["192.0.2.255", "203.0.113.255"].map(ip).into(),
        tunnels: ["192.0.2.2", "2001:db8::2"].map(ip).into(),
        tunnel_port: TUNNEL_PORT,
        gre: true,
        ipip: true,
        on_exit: OnExit::Kernel,
    }
}

/// A UDP packet with an Ethernet header.
fn udp(source: &str, destination: &str, port: u16) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let builder = match (ip(source), ip(destination)) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            builder.ipv4(source.octets(), destination.octets(), 64)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            builder.ipv6(source.octets(), destination.octets(), 64)
        }
        _ => panic!("both addresses have one family"),
    };
    let mut packet = Vec::new();
    builder.udp(40_000, port).write(&mut packet, b"payload").expect("a Vec takes all");
    packet
}

/// An ICMP message with `body` behind its 8 bytes of header.
fn icmp(source: &str, destination: &str, kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(body);
    ip_packet(source, destination, message, None)
}

fn ip_packet(source: &str, destination: &str, payload: Vec<u8>, protocol: Option<u8>) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let (builder, default) = match (ip(source), ip(destination)) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            (builder.ipv4(source.octets(), destination.octets(), 64), 1)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            (builder.ipv6(source.octets(), destination.octets(), 255), 58)
        }
        _ => panic!("both addresses have one family"),
    };
    builder
        .write(&mut packet, IpNumber(protocol.unwrap_or(default)), &payload)
        .expect("a Vec takes all");
    packet
}

/// With other bytes at an offset.
fn patched(mut packet: Vec<u8>, offset: usize, bytes: &[u8]) -> Vec<u8> {
    packet[offset..offset + bytes.len()].copy_from_slice(bytes);
    packet
}

/// An IPv4 packet with four bytes of options between header and payload.
fn with_options(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet[14] = 0x46;
    packet.splice(34..34, [1, 1, 1, 0]);
    packet
}

/// What must happen to a packet while there is a socket.
#[derive(Clone, Copy, Debug)]
enum Rule {
    Forward,
    ForwardToEgress,
    Egress,
    Tunnel,
    Kernel(Reason),
}

fn cases() -> Vec<(&'static str, Vec<u8>, Rule)> {
    use Rule::*;
    let local = Kernel(Reason::KernelLocal);
    let from = "198.51.100.77";
    let from6 = "2001:db8:77::1";
    let sent4 = udp("192.0.2.2", "198.51.100.50", TUNNEL_PORT)[14..].to_vec();
    let sent6 = udp("2001:db8::2", "2001:db8:50::1", TUNNEL_PORT)[14..].to_vec();
    let foreign4 = udp("192.0.2.3", "198.51.100.50", TUNNEL_PORT)[14..].to_vec();
    let foreign6 = udp("2001:db8::3", "2001:db8:50::1", TUNNEL_PORT)[14..].to_vec();
    let other4 = udp("192.0.2.2", "198.51.100.50", 53)[14..].to_vec();
    let other6 = udp("2001:db8::2", "2001:db8:50::1", 53)[14..].to_vec();
    let fragment =
        |word: u16| patched(udp(from, "192.0.2.2", TUNNEL_PORT), 20, &word.to_be_bytes());

    let proto = |source: &str, destination: &str, protocol: u8| {
        ip_packet(source, destination, vec![0x45; 24], Some(protocol))
    };
    let fragment_of = |protocol: u8, word: u16| {
        patched(proto(from, "192.0.2.2", protocol), 20, &word.to_be_bytes())
    };
    let to_all = |packet: Vec<u8>| patched(packet, 0, &[0xff; 6]);

    let mut cases = vec![
        // Rule 1.
        ("egress, on loopback too", udp(from, "203.0.113.7", 53), Egress),
        ("egress, ICMP echo", icmp(from, "203.0.113.7", 8, &[]), Egress),
        ("egress, GRE", ip_packet(from, "203.0.113.7", vec![0; 20], Some(47)), Egress),
        ("egress, fragment", patched(udp(from, "203.0.113.7", 53), 20, &[0x20, 7]), Egress),
        ("egress of others", udp(from, "203.0.113.8", 53), ForwardToEgress),
        ("egress, network address", udp(from, "203.0.113.0", 53), ForwardToEgress),
        ("egress, broadcast address", udp(from, "203.0.113.255", 53), ForwardToEgress),
        ("egress /32", udp(from, "198.51.100.9", 53), ForwardToEgress),
        ("beside egress /32", udp(from, "198.51.100.8", 53), Forward),
        ("egress6, on loopback too", udp(from6, "2001:db8:e::7", 53), Egress),
        ("egress6, ICMP echo", icmp(from6, "2001:db8:e::7", 128, &[]), Egress),
        ("egress6 of others", udp(from6, "2001:db8:e:0:ffff::1", 53), ForwardToEgress),
        ("beside egress6 /64", udp(from6, "2001:db8:e:1::7", 53), Forward),
        ("egress6 /128", udp(from6, "2001:db8:f::9", 53), ForwardToEgress),
        ("beside egress6 /128", udp(from6, "2001:db8:f::8", 53), Forward),
        // Rule 2.
        ("tunnel", udp(from, "192.0.2.2", TUNNEL_PORT), Tunnel),
        ("tunnel, IP options", with_options(&udp(from, "192.0.2.2", TUNNEL_PORT)), Tunnel),
        ("tunnel, other port", udp(from, "192.0.2.2", TUNNEL_PORT + 1), local),
        ("tunnel, port swapped", udp(from, "192.0.2.2", TUNNEL_PORT.swap_bytes()), local),
        ("tunnel, other address", udp(from, "192.0.2.1", TUNNEL_PORT), local),
        ("tunnel, not for us", udp(from, "192.0.2.3", TUNNEL_PORT), Forward),
        ("tunnel, first fragment", fragment(0x2000), Tunnel),
        ("tunnel, later fragment", fragment(0x2001), local),
        ("tunnel, last fragment", fragment(0x0001), local),
        ("tunnel, do not fragment", fragment(0x4000), Tunnel),
        ("tunnel, TCP", ip_packet(from, "192.0.2.2", vec![0x17; 20], Some(6)), local),
        (
            "tunnel, header length 4",
            patched(udp(from, "192.0.2.2", TUNNEL_PORT), 14, &[0x44]),
            local,
        ),
        ("GRE", proto(from, "192.0.2.2", 47), Tunnel),
        ("GRE, IP options", with_options(&proto(from, "192.0.2.2", 47)), Tunnel),
        ("GRE, no payload", ip_packet(from, "192.0.2.2", vec![], Some(47)), Tunnel),
        ("GRE, first fragment", fragment_of(47, 0x2000), Tunnel),
        // A fragment is known by its protocol, so that it is the router that refuses it.
        ("GRE, later fragment", fragment_of(47, 0x2001), Tunnel),
        ("GRE, last fragment", fragment_of(47, 0x0001), Tunnel),
        ("GRE, header length 4", patched(proto(from, "192.0.2.2", 47), 14, &[0x44]), local),
        ("GRE, other address", proto(from, "192.0.2.1", 47), local),
        ("GRE, not for us", proto(from, "192.0.2.3", 47), Forward),
        ("IPv4 in IPv4", proto(from, "192.0.2.2", 4), Tunnel),
        ("IPv4 in IPv4, other address", proto(from, "192.0.2.1", 4), local),
        ("IPv4 in IPv4, later fragment", fragment_of(4, 0x0001), Tunnel),
        ("IPv6 in IPv4", proto(from, "192.0.2.2", 41), Tunnel),
        ("IPv6 in IPv4, other address", proto(from, "192.0.2.1", 41), local),
        ("ESP", proto(from, "192.0.2.2", 50), local),
        ("GRE over IPv6", proto(from6, "2001:db8::2", 47), Tunnel),
        ("GRE over IPv6, other address", proto(from6, "2001:db8::1", 47), local),
        ("IPv4 in IPv6", proto(from6, "2001:db8::2", 4), Tunnel),
        ("IPv6 in IPv6", proto(from6, "2001:db8::2", 41), Tunnel),
        ("IPv6 in IPv6, other address", proto(from6, "2001:db8::1", 41), local),
        ("ESP over IPv6", proto(from6, "2001:db8::2", 50), local),
        ("tunnel6", udp(from6, "2001:db8::2", TUNNEL_PORT), Tunnel),
        ("tunnel6, other port", udp(from6, "2001:db8::2", 53), local),
        ("tunnel6, other address", udp(from6, "2001:db8::1", TUNNEL_PORT), local),
        ("unreachable, ours", icmp(from, "192.0.2.2", 3, &sent4), Tunnel),
        ("time exceeded, ours", icmp(from, "192.0.2.2", 11, &sent4), Tunnel),
        ("parameter problem, ours", icmp(from, "192.0.2.2", 12, &sent4), Tunnel),
        ("unreachable, options", with_options(&icmp(from, "192.0.2.2", 3, &sent4)), Tunnel),
        ("unreachable, 8 bytes quoted", icmp(from, "192.0.2.2", 3, &sent4[..28]), Tunnel),
        ("unreachable, 3 bytes quoted", icmp(from, "192.0.2.2", 3, &sent4[..23]), local),
        ("unreachable, half a header", icmp(from, "192.0.2.2", 3, &sent4[..10]), local),
        ("unreachable, other port", icmp(from, "192.0.2.2", 3, &other4), local),
        ("unreachable, not our source", icmp(from, "192.0.2.2", 3, &foreign4), local),
        ("unreachable, to another address", icmp(from, "192.0.2.1", 3, &sent4), local),
        ("echo that looks like an error", icmp(from, "192.0.2.2", 8, &sent4), local),
        ("too big6, ours", icmp(from6, "2001:db8::2", 2, &sent6), Tunnel),
        ("unreachable6, ours", icmp(from6, "2001:db8::2", 1, &sent6), Tunnel),
        ("parameter problem6, ours", icmp(from6, "2001:db8::2", 4, &sent6), Tunnel),
        ("too big6, 3 bytes quoted", icmp(from6, "2001:db8::2", 2, &sent6[..43]), local),
        ("too big6, other port", icmp(from6, "2001:db8::2", 2, &other6), local),
        ("too big6, not our source", icmp(from6, "2001:db8::2", 2, &foreign6), local),
        ("echo6 that looks like an error", icmp(from6, "2001:db8::2", 128, &sent6), local),
        // Rule 3.
        ("subnet broadcast", to_all(udp(from, "192.0.2.255", 22)), local),
        ("subnet multicast frame", patched(udp(from, "192.0.2.255", 22), 0, &[1, 0, 94]), local),
        // Rule 4: a directed broadcast, of RFC 2644.
        ("directed broadcast", udp(from, "192.0.2.255", 22), Forward),
        ("directed broadcast, ICMP echo", icmp(from, "192.0.2.255", 8, &[]), Forward),
        // Rule 1 before all of that.
        ("egress, subnet broadcast", to_all(udp(from, "203.0.113.255", 53)), Egress),
        ("local", udp(from, "192.0.2.1", 22), local),
        ("local, ICMP echo", icmp(from, "192.0.2.1", 8, &[]), local),
        ("local6", udp(from6, "2001:db8::1", 22), local),
        ("ping of the tunnel address", icmp(from, "192.0.2.2", 8, &[]), local),
        ("limited broadcast", udp(from, "255.255.255.255", 67), Kernel(Reason::KernelMulticast)),
        ("first multicast", udp(from, "224.0.0.0", 1), Kernel(Reason::KernelMulticast)),
        ("last multicast", udp(from, "239.255.255.255", 1), Kernel(Reason::KernelMulticast)),
        ("before multicast", udp(from, "223.255.255.255", 1), Forward),
        ("after multicast", udp(from, "240.0.0.0", 1), Forward),
        ("multicast6", udp(from6, "ff02::5", 1), Kernel(Reason::KernelMulticast)),
        ("link-local6", udp(from6, "fe80::1", 1), Kernel(Reason::KernelLinkLocal)),
        ("link-local6 of others", udp(from6, "fe80::2", 1), Kernel(Reason::KernelLinkLocal)),
        ("last link-local6", udp(from6, "febf::2", 1), Kernel(Reason::KernelLinkLocal)),
        ("after link-local6", udp(from6, "fec0::2", 1), Forward),
        (
            "solicitation, local",
            icmp(from6, "2001:db8::1", 135, &[0; 16]),
            Kernel(Reason::KernelNd),
        ),
        (
            "solicitation, egress",
            icmp(from6, "2001:db8:e::7", 135, &[0; 16]),
            Kernel(Reason::KernelNd),
        ),
        (
            "redirect, first type",
            icmp(from6, "2001:db8::1", 133, &[0; 16]),
            Kernel(Reason::KernelNd),
        ),
        (
            "redirect, last type",
            icmp(from6, "2001:db8::1", 137, &[0; 16]),
            Kernel(Reason::KernelNd),
        ),
        ("before ND types", icmp(from6, "2001:db8:e::7", 132, &[0; 16]), Egress),
        ("after ND types", icmp(from6, "2001:db8:e::7", 138, &[0; 16]), Egress),
        (
            "forwarded solicitation, egress",
            patched(icmp(from6, "2001:db8:e::7", 135, &[0; 16]), 21, &[254]),
            Egress,
        ),
        // Rule 4.
        ("transit", udp(from, "198.51.100.1", 53), Forward),
        ("transit, ICMP error", icmp(from, "198.51.100.1", 3, &sent4), Forward),
        ("transit6", udp(from6, "2001:db8:50::1", 53), Forward),
        ("transit to nowhere", udp(from, "0.0.0.0", 53), Forward),
    ];
    // ICMP errors that quote other kinds of tunnel packets: no more than the IP header is needed.
    for (protocol, ours) in [(47, Tunnel), (4, Tunnel), (41, Tunnel), (50, local)] {
        let sent4 = proto("192.0.2.2", "198.51.100.50", protocol)[14..].to_vec();
        let sent6 = proto("2001:db8::2", "2001:db8:50::1", protocol)[14..].to_vec();
        let foreign4 = proto("192.0.2.3", "198.51.100.50", protocol)[14..].to_vec();
        let foreign6 = proto("2001:db8::3", "2001:db8:50::1", protocol)[14..].to_vec();
        for kind in [3, 4, 11, 12] {
            cases.push(("error, ours", icmp(from, "192.0.2.2", kind, &sent4), ours));
        }
        for kind in [1, 2, 3, 4] {
            cases.push(("error6, ours", icmp(from6, "2001:db8::2", kind, &sent6), ours));
        }
        let later = patched(sent4.clone(), 6, &[0, 1]);
        cases.extend([
            ("error, header alone", icmp(from, "192.0.2.2", 3, &sent4[..20]), ours),
            ("error, cut header", icmp(from, "192.0.2.2", 3, &sent4[..19]), local),
            ("error, later fragment", icmp(from, "192.0.2.2", 3, &later), local),
            ("error, not our source", icmp(from, "192.0.2.2", 3, &foreign4), local),
            ("error, to another address", icmp(from, "192.0.2.1", 3, &sent4), local),
            ("redirect", icmp(from, "192.0.2.2", 5, &sent4), local),
            ("error6, header alone", icmp(from6, "2001:db8::2", 2, &sent6[..40]), ours),
            ("error6, cut header", icmp(from6, "2001:db8::2", 2, &sent6[..39]), local),
            ("error6, not our source", icmp(from6, "2001:db8::2", 2, &foreign6), local),
            ("error6 of another type", icmp(from6, "2001:db8::2", 5, &sent6), local),
        ]);
    }
    for (name, ether_type, reason) in [
        ("802.1Q", 0x8100_u16, Reason::KernelVlan),
        ("802.1ad", 0x88a8, Reason::KernelVlan),
        ("ARP", 0x0806, Reason::KernelArp),
        ("LLDP", 0x88cc, Reason::KernelNonIp),
        ("802.3 length", 0x0026, Reason::KernelNonIp),
        ("MPLS", 0x8847, Reason::KernelNonIp),
    ] {
        // Even with what would be an egress address behind it.
        let packet = patched(udp(from, "203.0.113.7", 53), 12, &ether_type.to_be_bytes());
        cases.push((name, packet, Kernel(reason)));
    }
    for (name, length) in [("no header", 14), ("33 bytes of IPv4", 33)] {
        let packet = udp(from, "203.0.113.7", 53)[..length].to_vec();
        cases.push((name, packet, Kernel(Reason::KernelTruncated)));
    }
    let packet = udp(from6, "2001:db8:e::7", 53)[..53].to_vec();
    cases.push(("53 bytes of IPv6", packet, Kernel(Reason::KernelTruncated)));
    cases
}

#[test]
fn every_rule_with_and_without_a_socket() {
    common::with_bpffs("every_rule_with_and_without_a_socket", |bpffs| {
        let mut rules = rules();
        let mut bench = Bench::new(bpffs, &rules);
        let socket = unbound_socket();

        for (on_exit, with_socket) in [
            (OnExit::Kernel, false),
            (OnExit::Kernel, true),
            (OnExit::Drop, true),
            (OnExit::Drop, false),
        ] {
            rules.on_exit = on_exit;
            bench.rules.update(&rules).expect("the rules fit");
            if with_socket {
                bench.xsks.set(0, socket.as_raw_fd(), 0).expect("the map takes the socket");
            } else {
                let _ = bench.xsks.unset(0);
            }
            for (name, packet, rule) in cases() {
                let expected = match (rule, with_socket, on_exit) {
                    (Rule::Kernel(reason), ..) => (PASS, reason),
                    (Rule::Egress, true, _) => (REDIRECT, Reason::ToXskEgress),
                    (Rule::Tunnel, true, _) => (REDIRECT, Reason::ToXskTunnel),
                    (Rule::Forward | Rule::ForwardToEgress, true, _) => {
                        (REDIRECT, Reason::ToXskForward)
                    }
                    (Rule::Egress | Rule::ForwardToEgress, false, _) => {
                        (DROP, Reason::DropEgressNoSocket)
                    }
                    (Rule::Tunnel, false, _) => (DROP, Reason::DropTunnelNoSocket),
                    (Rule::Forward, false, OnExit::Kernel) => (PASS, Reason::KernelOnExit),
                    (Rule::Forward, false, OnExit::Drop) => (DROP, Reason::DropOnExit),
                };
                assert_eq!(
                    bench.decide(&packet),
                    expected,
                    "{name}, socket: {with_socket}, on exit: {on_exit:?}"
                );
            }
        }
    });
}

/// What a kind that is not configured looks like is the kernel's, which may have such tunnels itself.
#[test]
fn only_kinds_that_are_configured_are_tunnels() {
    common::with_bpffs("only_kinds_that_are_configured_are_tunnels", |bpffs| {
        let mut bench = Bench::new(bpffs, &rules());
        let from = [("198.51.100.77", "192.0.2.2"), ("2001:db8:77::1", "2001:db8::2")];
        for bits in 0..8_u8 {
            let (has_gue, gre, ipip) = (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0);
            let tunnel_port = if has_gue { TUNNEL_PORT } else { 0 };
            let rules = ClassifierRules { tunnel_port, gre, ipip, ..rules() };
            bench.rules.update(&rules).expect("the rules fit");
            for (source, destination) in from {
                let other = |protocol| ip_packet(source, destination, vec![0; 24], Some(protocol));
                for (packet, is_tunnel) in [
                    (udp(source, destination, TUNNEL_PORT), has_gue),
                    (udp(source, destination, 0), false),
                    (other(47), gre),
                    (other(4), ipip),
                    (other(41), ipip),
                ] {
                    let expected = if is_tunnel {
                        (DROP, Reason::DropTunnelNoSocket)
                    } else {
                        (PASS, Reason::KernelLocal)
                    };
                    assert_eq!(bench.decide(&packet), expected, "{rules:?}: {packet:02x?}");
                    // The same of an error about such a packet, sent from here.
                    let mut quoted = packet[14..].to_vec();
                    let (at, kind) = if ip(source).is_ipv4() { (12, 3) } else { (8, 1) };
                    let len = if ip(source).is_ipv4() { 4 } else { 16 };
                    let (own, far) = (at + len..at + 2 * len, at..at + len);
                    let address = quoted[own].to_vec();
                    quoted[far].copy_from_slice(&address);
                    let error = icmp(source, destination, kind, &quoted);
                    assert_eq!(bench.decide(&error), expected, "{rules:?}: {error:02x?}");
                }
            }
        }
    });
}

#[test]
fn without_a_tunnel_port_nothing_is_a_tunnel() {
    common::with_bpffs("without_a_tunnel_port_nothing_is_a_tunnel", |bpffs| {
        let rules = ClassifierRules { tunnel_port: 0, ..rules() };
        let mut bench = Bench::new(bpffs, &rules);
        for packet in
            [udp("198.51.100.77", "192.0.2.2", 0), udp("2001:db8:77::1", "2001:db8::2", 0)]
        {
            assert_eq!(bench.decide(&packet), (PASS, Reason::KernelLocal));
        }
    });
}

/// Whatever bytes come: one reason for each, and nothing that is read as a packet to an egress
/// address reaches the kernel.
#[test]
fn arbitrary_bytes_have_one_reason_and_egress_stays_closed() {
    common::with_bpffs("arbitrary_bytes_have_one_reason_and_egress_stays_closed", |bpffs| {
        let bench = RefCell::new(Bench::new(bpffs, &rules()));
        let mut runner = TestRunner::default();
        let bytes = prop::collection::vec(any::<u8>(), 20..120);
        let kind = 0_u8..4;
        runner
            .run(&(bytes, kind), |(tail, kind)| {
                let mut packet = vec![2; 12];
                packet.extend_from_slice(match kind {
                    0 | 1 => &[0x08, 0x00],
                    2 => &[0x86, 0xdd],
                    _ => &[],
                });
                packet.extend(tail);
                let to_egress = kind == 0 && packet.len() >= 34;
                if to_egress {
                    packet[30..34].copy_from_slice(&[203, 0, 113, 7]);
                }
                let (verdict, reason) = bench.borrow_mut().decide(&packet);
                prop_assert!([DROP, PASS].contains(&verdict), "there is no socket");
                if to_egress {
                    prop_assert_eq!((verdict, reason), (DROP, Reason::DropEgressNoSocket));
                }
                Ok(())
            })
            .expect("the property holds");
    });
}

fn any_rules() -> impl Strategy<Value = ClassifierRules> {
    let address = prop_oneof![
        (0_u8..8).prop_map(|host| IpAddr::from([203, 0, 113, host])),
        (0_u8..8).prop_map(|host| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(host)])),
    ];
    let prefix = prop_oneof![
        (0_u8..8, 28_u8..=32).prop_map(|(host, length)| format!("203.0.113.{host}/{length}")),
        (0_u8..8, 124_u8..=128).prop_map(|(host, length)| format!("2001:db8::{host}/{length}")),
    ]
    .prop_map(|text| text.parse().expect("the prefix is valid"));
    (
        prop::collection::btree_set(address.clone(), 0..6),
        prop::collection::vec(prefix, 0..4),
        prop::collection::vec(address, 0..3),
        prop_oneof![Just(0), Just(TUNNEL_PORT)],
        prop_oneof![Just(OnExit::Kernel), Just(OnExit::Drop)],
    )
        .prop_map(|(locals, egress, tunnels, tunnel_port, on_exit)| ClassifierRules {
            locals,
            egress,
            tunnels,
            tunnel_port,
            on_exit,
            ..ClassifierRules::default()
        })
}

/// After any sequence of updates the program decides as one that knew only the last rules: compared
/// with the rules themselves, over all addresses that they speak of.
#[test]
fn updates_leave_nothing_behind() {
    common::with_bpffs("updates_leave_nothing_behind", |bpffs| {
        let bench = RefCell::new(Bench::new(bpffs, &ClassifierRules::default()));
        let mut runner = TestRunner::new(ProptestConfig::with_cases(150));
        runner
            .run(&any_rules(), |rules| {
                let mut bench = bench.borrow_mut();
                bench.rules.update(&rules).expect("the rules fit");
                for host in 0..8 {
                    for (source, destination) in [
                        ("198.51.100.77", format!("203.0.113.{host}")),
                        ("2001:db8:77::1", format!("2001:db8::{host}")),
                    ] {
                        let address = ip(&destination);
                        let is_tunnel = rules.tunnels.contains(&address);
                        let expected = if rules.egress.iter().any(|net| net.contains(&address)) {
                            (DROP, Reason::DropEgressNoSocket)
                        } else if is_tunnel && rules.tunnel_port != 0 {
                            (DROP, Reason::DropTunnelNoSocket)
                        } else if is_tunnel || rules.locals.contains(&address) {
                            (PASS, Reason::KernelLocal)
                        } else if rules.on_exit == OnExit::Kernel {
                            (PASS, Reason::KernelOnExit)
                        } else {
                            (DROP, Reason::DropOnExit)
                        };
                        let packet = udp(source, &destination, TUNNEL_PORT);
                        prop_assert_eq!(bench.decide(&packet), expected, "{}", destination);
                    }
                }
                Ok(())
            })
            .expect("the property holds");
    });
}

/// An address that is an egress address all the time never reaches the kernel while everything
/// around it changes: it becomes local and ceases to be, and its prefix is replaced by others that
/// also cover it.
#[test]
fn an_update_opens_no_window() {
    common::with_bpffs("an_update_opens_no_window", |bpffs| {
        let mut bench = Bench::new(bpffs, &rules());
        let packet = udp("198.51.100.77", "203.0.113.7", 53);
        let stop = AtomicBool::new(false);
        let variants: Vec<ClassifierRules> = ["203.0.113.0/24", "203.0.113.7/32", "203.0.0.0/16"]
            .iter()
            .flat_map(|prefix| [true, false].map(|is_local| (prefix, is_local)))
            .map(|(prefix, is_local)| {
                let mut rules = rules();
                rules.egress = vec![prefix.parse().expect("the prefix is valid")];
                if !is_local {
                    rules.locals.remove(&ip("203.0.113.7"));
                }
                rules
            })
            .collect();
        let program = program(&mut bench.object).expect("the program is there");
        let rule_maps = &mut bench.rules;
        let (stop, variants) = (&stop, &variants);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for round in 0..3000 {
                    rule_maps.update(&variants[round * 7 % variants.len()]).expect("the rules fit");
                }
                stop.store(true, Ordering::Relaxed);
            });
            let mut runs = 0;
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(run_program(program, &packet), DROP, "after {runs} runs");
                runs += 1;
            }
            assert!(runs > 1000, "only {runs} runs fell among the updates");
        });
    });
}

#[test]
fn too_many_rules_are_refused_before_any_is_changed() {
    common::with_bpffs("too_many_rules_are_refused_before_any_is_changed", |bpffs| {
        let mut bench = Bench::new(bpffs, &rules());
        let too_many = ClassifierRules {
            locals: (0..=rules::LOCALS_MAX as u32).map(|n| IpAddr::from(n.to_be_bytes())).collect(),
            ..ClassifierRules::default()
        };
        let error = bench.rules.update(&too_many).expect_err("one too many");
        assert!(
            matches!(error, XdpError::TooMany { count, max, .. } if count == max + 1),
            "{error}"
        );
        let packet = udp("198.51.100.77", "203.0.113.7", 53);
        assert_eq!(bench.decide(&packet), (DROP, Reason::DropEgressNoSocket));
    });
}

/// As many as are allowed do fit: what the program declares is what this crate assumes.
#[test]
fn the_declared_sizes_hold() {
    let source = include_str!("classifier.c");
    for (name, value) in [
        ("QUEUES_MAX", QUEUES_MAX as usize),
        ("INTERFACES_MAX", INTERFACES_MAX),
        ("LOCALS_MAX", rules::LOCALS_MAX),
        ("EGRESS_MAX", rules::EGRESS_MAX),
        ("REASONS_MAX", REASONS_MAX as usize),
    ] {
        assert!(source.contains(&format!("{name} = {value}")), "{name} differs in classifier.c");
    }
    assert!(Reason::ALL.len() <= REASONS_MAX as usize);
    common::with_bpffs("the_declared_sizes_hold", |bpffs| {
        let mut bench = Bench::new(bpffs, &ClassifierRules::default());
        let full = ClassifierRules {
            locals: (0..rules::LOCALS_MAX as u32).map(|n| IpAddr::from(n.to_be_bytes())).collect(),
            egress: (0..rules::EGRESS_MAX as u32)
                .map(|n| IpAddr::from((n << 8).to_be_bytes()).into())
                .collect(),
            ..ClassifierRules::default()
        };
        bench.rules.update(&full).expect("the limit itself fits");
        bench.rules.update(&ClassifierRules::default()).expect("and can be taken back");
    });
}

/// What one decision costs: printed, since it depends on the machine; run with `--ignored`.
#[test]
#[ignore = "a measurement"]
fn cost_of_a_decision() {
    common::with_bpffs("cost_of_a_decision", |bpffs| {
        let mut bench = Bench::new(bpffs, &rules());
        let socket = unbound_socket();
        bench.xsks.set(0, socket.as_raw_fd(), 0).expect("the map takes the socket");
        for (name, packet) in [
            ("transit", udp("198.51.100.77", "198.51.100.1", 53)),
            ("transit6", udp("2001:db8:77::1", "2001:db8:50::1", 53)),
            ("egress, local", udp("198.51.100.77", "203.0.113.7", 53)),
            ("tunnel", udp("198.51.100.77", "192.0.2.2", TUNNEL_PORT)),
            ("local", udp("198.51.100.77", "192.0.2.1", 22)),
            ("ARP", patched(udp("198.51.100.77", "192.0.2.1", 22), 12, &[8, 6])),
        ] {
            let mut options = TestRunOptions::new();
            options.data_in = Some(&packet);
            options.repeat = 5_000_000;
            let program = program(&mut bench.object).expect("the program is there");
            let result = program.test_run(options).expect("the kernel runs the program");
            println!("{name}: {} ns", result.duration.as_nanos());
        }
    });
}
