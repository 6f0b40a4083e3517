//! The lab's network carries packets by itself, before a router is put into it: what fails with one
//! then is the router's fault. Skips without root.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use xtask::lab::plan::{BY_NODE_A, BY_NODE_B, ECHO_PORT, HOST_A, SERVICE_B, SHARED};
use xtask::lab::topology::Topology;
use xtask::lab::{cleanup, serve, sockets};

const TIMEOUT: Duration = Duration::from_secs(5);

#[test]
fn the_network_carries_packets_without_a_router() {
    if let Err(error) = xtask::lab::probe() {
        eprintln!("SKIPPED the_network_carries_packets_without_a_router: {error:#}");
        return;
    }
    let folder = cleanup::Folder::create("topology", "logs").expect("a folder");
    let topology = Topology::build().expect("the network");
    topology.verify().expect("links without offloads");
    // The kernel of node a knows no slices: all that comes for the shared addresses goes to host-a.
    for (family, shared, via) in
        [("-4", SHARED.both()[0], HOST_A.both()[0]), ("-6", SHARED.both()[1], HOST_A.both()[1])]
    {
        let (shared, via) = (shared.to_string(), via.to_string());
        topology.node_a.ip(&[family, "route", "add", &shared, "via", &via]).expect("a route");
    }
    let addresses = |port| BY_NODE_A.both().map(|address| SocketAddr::new(address, port));
    let echo_addresses = BY_NODE_A.both().into_iter().chain(BY_NODE_B.both());
    let echo: Vec<_> = echo_addresses.map(|address| SocketAddr::new(address, ECHO_PORT)).collect();
    let program = Path::new(env!("CARGO_BIN_EXE_xtask"));
    let _inet2 =
        serve::start_as(program, "inet2", &topology.inet2, &addresses(80), &echo, folder.path())
            .expect("servers");

    for (workload, servers) in [(&topology.host_a, BY_NODE_A), (&topology.node_b, BY_NODE_B)] {
        for server in servers.both() {
            let from = SocketAddr::new(SHARED.like(server), 5000);
            let socket = sockets::udp(workload, from, SocketAddr::new(server, ECHO_PORT)).unwrap();
            sockets::echo(&socket, b"text", TIMEOUT, 1).unwrap_or_else(|error| {
                panic!("{}: {from} to {server}: {error:#}", workload.role())
            });
        }
    }
    for server in BY_NODE_A.both() {
        let from = SocketAddr::new(SHARED.like(server), 5001);
        let to = SocketAddr::new(server, 80);
        let mut stream = sockets::connect_from(&topology.host_a, from, to, TIMEOUT)
            .expect("a socket")
            .expect("a connection");
        // What workloads send fits their own MTU, not that of the exchange.
        let segment = sockets::segment_bytes_max(&stream).unwrap();
        assert!((1400..=1460).contains(&segment), "{segment}");
        sockets::fetch(&mut stream, 1, 100_000).expect("its bytes");
        sockets::push(&mut stream, 2, 100_000).expect("its bytes");
        drop(stream);
    }
    // A kernel resets what it knows nothing of: the routers must not let it.
    let from = SocketAddr::from((BY_NODE_B.v4, 0));
    let to = SocketAddr::from((SHARED.v4, SERVICE_B));
    let outcome = sockets::connect_from(&topology.inet2, from, to, TIMEOUT).expect("a socket");
    assert_eq!(outcome.map(drop), Err(Errno::ECONNREFUSED));

    // The Internet takes what is sent to any address of it.
    let sink = topology.inet1.within(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 9999)));
    let sink = sink.unwrap().expect("a sink");
    sink.set_read_timeout(Some(TIMEOUT)).unwrap();
    for to in ["9.9.9.9:9999", "[2600::1]:9999"] {
        let socket = topology.node_b.within(|| match to.as_bytes()[0] {
            b'[' => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)),
            _ => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)),
        });
        socket.unwrap().expect("a socket").send_to(b"anywhere", to).expect("sent");
        let mut bytes = [0; 8];
        sink.recv(&mut bytes).unwrap_or_else(|error| panic!("to {to}: {error}"));
    }
}
