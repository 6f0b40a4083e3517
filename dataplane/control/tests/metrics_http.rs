//! Metrics as a scraper sees them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use control::metrics::{METRICS, MetricsError, MetricsServer};
use control::status::{InterfaceStatus, StatusReport};

/// An address that was free a moment ago.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    listener.local_addr().expect("has one")
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("sets");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        .expect("writes");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("reads");
    answer
}

fn report(rx_packets: u64) -> StatusReport {
    StatusReport {
        interfaces: vec![InterfaceStatus {
            name: "eth0".into(),
            rx_packets,
            drops: [("no_route".into(), 7)].into(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

#[test]
fn a_scrape_shows_the_latest_report() {
    let server = MetricsServer::start(free_address()).expect("starts");
    server.record(&report(41));
    server.record(&report(42));
    let answer = get(server.address(), "/metrics");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("\nsluice_rx_packets_total{interface=\"eth0\"} 42\n"), "{answer}");
    assert!(answer.contains("\nsluice_drops_total{interface=\"eth0\",reason=\"no_route\"} 7\n"));
    assert!(answer.contains("\n# TYPE sluice_rx_packets_total counter\n"), "{answer}");
    let help = METRICS.iter().find(|metric| metric.name == "sluice_rx_packets_total").expect("is");
    assert!(answer.contains(&format!("# HELP {} {}", help.name, help.help)), "{answer}");
    assert!(get(server.address(), "/health").ends_with("OK"));
}

#[test]
fn an_address_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = taken.local_addr().expect("has one");
    let error = MetricsServer::start(address).expect_err("in use");
    assert!(matches!(error, MetricsError::Listen { .. }));
    assert!(
        error.to_string().starts_with(&format!("metrics: cannot listen on {address}: Address")),
        "{error}"
    );
}

#[test]
fn servers_are_apart_and_end_with_their_handle() {
    let first = MetricsServer::start(free_address()).expect("starts");
    let second = MetricsServer::start(free_address()).expect("starts");
    first.record(&report(1));
    second.record(&report(2));
    assert!(get(first.address(), "/metrics").contains("{interface=\"eth0\"} 1\n"));
    assert!(get(second.address(), "/metrics").contains("{interface=\"eth0\"} 2\n"));
    let address = first.address();
    drop(first);
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
    let again = MetricsServer::start(address).expect("the address is free again");
    drop(again);
}
