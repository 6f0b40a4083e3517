//! Paths that are narrower than their ends: real TCP and UDP of Linux through a router, whose link
//! shrinks under way, whose MSS clamp is on, or whose tunnel takes room.
//!
//! Skipped without root.

#[path = "common/net/mod.rs"]
mod net;
#[path = "differential/packet.rs"]
#[allow(dead_code, reason = "shared with the differential test, which needs more of it")]
mod packet;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use net::{Captured, Namespace, Router, Tap, wait_until};
use packet::{ICMP, ICMPV6, Random, TCP};

/// How long a connection may stand still.
const PATIENCE: Duration = Duration::from_secs(20);

/// A client, a router with a link to each side, and a server.
struct Net {
    client: Namespace,
    router: Namespace,
    server: Namespace,
}

/// The server's address in each family, with a port.
const SERVERS: [&str; 2] = ["10.1.0.2:4000", "[2001:db8:1::2]:4000"];

impl Net {
    fn new(test: &str) -> Option<Self> {
        if !net::available(test) {
            return None;
        }
        let client = Namespace::new("client");
        let router = Namespace::new("router").forwards();
        let server = Namespace::new("server");
        net::link(
            (&client, "eth0", "02:00:00:00:00:01"),
            (&router, "lan0", "02:00:00:00:00:02"),
            1500,
        );
        net::link(
            (&router, "wan0", "02:00:00:00:00:03"),
            (&server, "eth0", "02:00:00:00:00:04"),
            1500,
        );
        for (namespace, words) in [
            (&client, "address add 10.0.0.2/24 dev eth0"),
            (&client, "-6 address add 2001:db8::2/64 dev eth0"),
            (&client, "route add default via 10.0.0.1"),
            (&client, "-6 route add default via 2001:db8::1"),
            (&router, "address add 10.0.0.1/24 dev lan0"),
            (&router, "-6 address add 2001:db8::1/64 dev lan0"),
            (&router, "address add 10.1.0.1/24 dev wan0"),
            (&router, "-6 address add 2001:db8:1::1/64 dev wan0"),
            (&server, "address add 10.1.0.2/24 dev eth0"),
            (&server, "-6 address add 2001:db8:1::2/64 dev eth0"),
            (&server, "route add default via 10.1.0.1"),
            (&server, "-6 route add default via 2001:db8:1::1"),
        ] {
            namespace.ip(words);
        }
        Some(Self { client, router, server })
    }

    fn start(&self, mss_clamp: &str) -> Router {
        let interfaces = [("lan0", "inside"), ("wan0", "outside")];
        // Errors follow each other quickly while a path is being learnt.
        let icmp = "[icmp]\nerrors_per_s = 10000\nper_source_prefix_per_s = 10000\n";
        Router::start_with(&self.router, &interfaces, mss_clamp, "", icmp)
    }

    /// An open connection: the client's end and the server's.
    fn connect(&self, address: &str) -> (TcpStream, TcpStream) {
        let address: SocketAddr = address.parse().expect("an address");
        let listener = self.server.within(|| TcpListener::bind(address)).expect("a listener");
        let client = self.client.within(|| TcpStream::connect_timeout(&address, PATIENCE));
        let client = client.expect("a connection");
        let (server, _) = listener.accept().expect("a connection");
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        }
        (client, server)
    }
}

/// Sends random bytes and checks that they arrive as they are.
#[track_caller]
fn transfer(from: &mut TcpStream, to: &mut TcpStream, seed: u64, count: usize) {
    let sent = Random(seed).bytes(count);
    let received = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut received = vec![0; count];
            to.read_exact(&mut received).map(|()| received)
        });
        from.write_all(&sent).expect("the bytes are taken");
        reader.join().expect("the reader").expect("the bytes arrive")
    });
    assert!(received == sent, "other bytes arrived");
}

/// Protocol, and everything from the transport header on.
fn transport(captured: &Captured) -> Option<(u8, &[u8])> {
    let frame = &captured.frame;
    match frame.get(12..14)? {
        [0x08, 0x00] => {
            let length = usize::from(frame.get(14)? & 0xf) * 4;
            Some((*frame.get(23)?, frame.get(14 + length..)?))
        }
        [0x86, 0xdd] => Some((*frame.get(20)?, frame.get(54..)?)),
        _ => None,
    }
}

/// The MTU of a "fragmentation needed" or a Packet Too Big.
fn too_big(captured: &Captured) -> Option<u32> {
    let (protocol, message) = transport(captured)?;
    let &[kind, code, _, _, a, b, c, d, ..] = message else { return None };
    let is_too_big =
        matches!((protocol, kind, code), (ICMP, 3, 4)) || (protocol == ICMPV6 && kind == 2);
    is_too_big.then_some(u32::from_be_bytes([a, b, c, d]))
}

/// The MSS option of a SYN.
fn mss(captured: &Captured) -> Option<u16> {
    let (protocol, segment) = transport(captured)?;
    if protocol != TCP || segment.get(13)? & 2 == 0 {
        return None;
    }
    let end = usize::from(segment.get(12)? >> 4) * 4;
    let mut options = segment.get(20..end)?;
    loop {
        options = match *options {
            [2, 4, a, b, ..] => return Some(u16::from_be_bytes([a, b])),
            [1, ref rest @ ..] => rest,
            [_, length, ..] if length >= 2 => options.get(usize::from(length)..)?,
            _ => return None,
        }
    }
}

#[test]
fn tcp_survives_a_link_that_shrinks() {
    let Some(net) = Net::new("a link that shrinks") else { return };
    let router = net.start("\"off\"");
    let mut errors = Tap::new(&net.client, &["eth0"]);
    for (mtu_bytes, address) in [(1400, SERVERS[0]), (1320, SERVERS[1])] {
        let (mut client, mut server) = net.connect(address);
        transfer(&mut client, &mut server, 1, 1 << 20);
        let seen: Vec<u32> =
            errors.receive_for(Duration::from_millis(50)).iter().filter_map(too_big).collect();
        assert_eq!(seen, [] as [u32; 0], "{address}: an error before the link shrank");

        net.router.ip(&format!("link set wan0 mtu {mtu_bytes}"));
        net.server.ip(&format!("link set eth0 mtu {mtu_bytes}"));
        wait_until("the router knows the MTU", PATIENCE, || {
            router.status().interfaces.iter().any(|interface| interface.mtu == mtu_bytes)
        });
        transfer(&mut client, &mut server, 2, 4 << 20);
        let seen: Vec<u32> =
            errors.receive_for(Duration::from_millis(50)).iter().filter_map(too_big).collect();
        assert!(!seen.is_empty(), "{address}: the client was not told");
        assert!(seen.iter().all(|&mtu| mtu == mtu_bytes), "{address}: told {seen:?}");
        transfer(&mut server, &mut client, 3, 1 << 20);
    }
    assert!(router.drops("mtu-exceeded") > 0);
    router.assert_conserved();
}

#[test]
fn a_link_that_grows_is_used_at_once() {
    let Some(net) = Net::new("a link that grows") else { return };
    net.router.ip("link set wan0 mtu 1300");
    let router = net.start("\"off\"");
    let socket = |namespace: &Namespace, address: &str| {
        namespace.within(|| UdpSocket::bind(address)).expect("a socket")
    };
    let (client, server) = (socket(&net.client, "[::]:4001"), socket(&net.server, "[::]:4001"));
    server.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
    let payload = vec![7; 1400];
    let mut buffer = vec![0; 2000];
    // The first is too big; the sender's kernel refuses the next ones by itself.
    let _ = client.send_to(&payload, "[2001:db8:1::2]:4001");
    assert!(server.recv(&mut buffer).is_err(), "more than the MTU went through");
    assert!(router.drops("mtu-exceeded") > 0);
    net.router.ip("link set wan0 mtu 1500");
    // What the sender has learnt of the path it forgets with the route.
    net.client.ip("-6 route flush cache");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let _ = client.send_to(&payload, "[2001:db8:1::2]:4001");
        if server.recv(&mut buffer).is_ok_and(|count| count == payload.len()) {
            break;
        }
        assert!(Instant::now() < deadline, "nothing goes through the wider link");
        net.client.ip("-6 route flush cache");
    }
    router.assert_conserved();
}

#[test]
fn the_mss_is_clamped_in_both_directions() {
    let Some(net) = Net::new("the MSS clamp") else { return };
    // The router's link is narrower than the server knows.
    net.router.ip("link set wan0 mtu 1400");
    let router = net.start("\"auto\"");
    let (mut at_client, mut at_server) =
        (Tap::new(&net.client, &["eth0"]), Tap::new(&net.server, &["eth0"]));
    for (address, wanted) in SERVERS.into_iter().zip([1360, 1340]) {
        let (mut client, mut server) = net.connect(address);
        let time = Duration::from_millis(50);
        let syn: Vec<u16> = at_server.receive_for(time).iter().filter_map(mss).collect();
        let answer: Vec<u16> = at_client.receive_for(time).iter().filter_map(mss).collect();
        assert_eq!(syn, [wanted], "{address}: SYN");
        assert_eq!(answer, [wanted], "{address}: SYN and ACK");
        transfer(&mut client, &mut server, 4, 1 << 20);
        transfer(&mut server, &mut client, 5, 1 << 20);
    }
    assert_eq!(router.drops("mtu-exceeded"), 0, "no packet was too big");
    router.assert_conserved();
}

/// One shared address on two nodes: what node a receives for node b's slice travels by tunnel over a
/// link of 1500 bytes.
///
/// ```text
///            +-- eth0 --- wan0 [node a] tun0 --+
///  internet  |                                 |  1500 bytes, GUE over IPv4: 28 bytes
///            +-- eth1 --- wan0 [node b] tun0 --+
/// ```
#[test]
fn a_tunnel_takes_its_room_from_the_path() {
    if !net::available("a tunnel over 1500 bytes") {
        return;
    }
    let internet = Namespace::new("internet");
    let (a, b) = (Namespace::new("a").forwards(), Namespace::new("b").forwards());
    net::link((&internet, "eth0", "02:00:00:00:00:01"), (&a, "wan0", "02:00:00:00:00:02"), 1500);
    net::link((&internet, "eth1", "02:00:00:00:00:03"), (&b, "wan0", "02:00:00:00:00:04"), 1500);
    net::link((&a, "tun0", "02:00:00:00:00:05"), (&b, "tun0", "02:00:00:00:00:06"), 1500);
    for (namespace, words) in [
        (&internet, "-6 address add 2001:db8:a::2/64 dev eth0"),
        (&internet, "-6 address add 2001:db8:b::2/64 dev eth1"),
        (&internet, "-6 address add 2001:db8:c::1/128 dev lo"),
        (&internet, "-6 route add 2001:db8:ffff::1/128 via 2001:db8:a::1"),
        (&a, "-6 address add 2001:db8:a::1/64 dev wan0"),
        (&a, "-6 route add 2001:db8:c::/64 via 2001:db8:a::2"),
        (&a, "address add 10.9.0.1/24 dev tun0"),
        (&b, "-6 address add 2001:db8:b::1/64 dev wan0"),
        (&b, "-6 route add 2001:db8:c::/64 via 2001:db8:b::2"),
        (&b, "address add 10.9.0.2/24 dev tun0"),
        (&b, "-6 address add 2001:db8:ffff::1/128 dev lo"),
    ] {
        namespace.ip(words);
    }
    let slices = "[[node]]\nname = \"a\"\naddress = \"10.9.0.1\"\n\
                  [[node]]\nname = \"b\"\naddress = \"10.9.0.2\"\n\
                  [[egress]]\nprefix = \"2001:db8:ffff::1/128\"\n\
                  [[egress.slice]]\nname = \"lower\"\nports = \"0-32767\"\nnode = \"a\"\n\
                  [[egress.slice]]\nname = \"upper\"\nports = \"32768-65535\"\nnode = \"b\"\n";
    let interfaces = [("wan0", "outside"), ("tun0", "inside")];
    let node_a = Router::start_with(&a, &interfaces, "\"off\"", "node = \"a\"", slices);
    let node_b = Router::start_with(&b, &interfaces, "\"off\"", "node = \"b\"", slices);

    let server = b.within(|| UdpSocket::bind("[2001:db8:ffff::1]:40000")).expect("a socket");
    let client = internet.within(|| UdpSocket::bind("[2001:db8:c::1]:5000")).expect("a socket");
    client.connect("[2001:db8:ffff::1]:40000").expect("a peer");
    let mut errors = Tap::new(&internet, &["eth0"]);
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout");
    }
    // 1500 less 28 of the tunnel, 40 of IPv6 and 8 of UDP.
    for count in [1, 1328, 1423, 1424] {
        let sent = Random(count as u64).bytes(count);
        let mut buffer = vec![0; 2000];
        client.send(&sent).expect("a datagram");
        let (received, from) = server.recv_from(&mut buffer).expect("the datagram arrives");
        assert!(buffer[..received] == sent, "{count} bytes: others arrived");
        server.send_to(&sent, from).expect("an answer");
        let received = client.recv(&mut buffer).expect("the answer arrives");
        assert!(buffer[..received] == sent, "{count} bytes: others came back");
    }
    assert!(node_b.status().interfaces.iter().any(|interface| interface.decapsulated >= 4));
    let before: Vec<u32> =
        errors.receive_for(Duration::from_millis(50)).iter().filter_map(too_big).collect();
    assert_eq!(before, [] as [u32; 0], "an error about what fits");
    client.send(&vec![9; 1425]).expect("a datagram");
    let told: Vec<u32> =
        errors.receive_for(Duration::from_millis(300)).iter().filter_map(too_big).collect();
    assert_eq!(told, [1472]);
    // The sender's kernel cuts the next one into fragments by what it was told; those are the
    // subject of another test.
    node_a.assert_conserved();
    node_b.assert_conserved();
}
