//! Metrics as a scraper sees them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
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

/// A server whose scrapes are answered with the count of the scrape as the packets of `eth0`.
fn counting_server(address: SocketAddr, first: u64) -> MetricsServer {
    let (server, scrapes) = MetricsServer::start(address).expect("starts");
    thread::spawn(move || {
        for (scrape, packets) in scrapes.into_iter().zip(first..) {
            scrape.answer(report(packets));
        }
    });
    server
}

#[test]
fn each_scrape_shows_a_report_of_its_own() {
    let server = counting_server(free_address(), 41);
    assert!(get(server.address(), "/metrics").contains("{interface=\"eth0\"} 41\n"));
    assert!(get(server.address(), "/health").ends_with("OK"), "asks for no report");
    let answer = get(server.address(), "/metrics");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("\r\ncontent-type: text/plain; version=0.0.4"), "{answer}");
    assert!(answer.contains("\nsluice_rx_packets_total{interface=\"eth0\"} 42\n"), "{answer}");
    assert!(answer.contains("\nsluice_drops_total{interface=\"eth0\",reason=\"no_route\"} 7\n"));
    assert!(answer.contains("\n# TYPE sluice_rx_packets_total counter\n"), "{answer}");
    let help = METRICS.iter().find(|metric| metric.name == "sluice_rx_packets_total").expect("is");
    assert!(answer.contains(&format!("# HELP {} {}", help.name, help.help)), "{answer}");
}

#[test]
fn what_is_gone_is_no_longer_named() {
    let (server, scrapes) = MetricsServer::start(free_address()).expect("starts");
    thread::spawn(move || {
        for (scrape, report) in scrapes.into_iter().zip([report(1), StatusReport::default()]) {
            scrape.answer(report);
        }
    });
    assert!(get(server.address(), "/metrics").contains("eth0"));
    assert!(!get(server.address(), "/metrics").contains("eth0"));
}

#[test]
fn a_router_that_is_stopping_says_so() {
    let (server, scrapes) = MetricsServer::start(free_address()).expect("starts");
    drop(scrapes);
    assert!(get(server.address(), "/metrics").starts_with("HTTP/1.1 503 "));
    let (server, scrapes) = MetricsServer::start(free_address()).expect("starts");
    thread::spawn(move || drop(scrapes.recv()));
    let answer = get(server.address(), "/metrics");
    assert!(answer.ends_with("the router is stopping\n"), "{answer}");
}

#[test]
fn more_scrapes_than_can_wait_are_turned_away() {
    let (server, scrapes) = MetricsServer::start(free_address()).expect("starts");
    let address = server.address();
    let answers: Vec<String> = thread::scope(|scope| {
        let asked: Vec<_> = (0..20).map(|_| scope.spawn(move || get(address, "/"))).collect();
        // Those that are turned away are answered at once, the others when somebody looks.
        while asked.iter().filter(|thread| thread.is_finished()).count() < 12 {
            thread::sleep(Duration::from_millis(5));
        }
        for scrape in scrapes.try_iter() {
            scrape.answer(report(1));
        }
        asked.into_iter().map(|thread| thread.join().expect("ends")).collect()
    });
    let count = |what: &str| answers.iter().filter(|answer| answer.contains(what)).count();
    assert_eq!((count(" 200 OK"), count("too many scrapes at once")), (8, 12));
}

#[test]
fn only_reading_is_answered() {
    let server = counting_server(free_address(), 1);
    let mut stream = TcpStream::connect(server.address()).expect("connects");
    write!(stream, "POST /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        .expect("writes");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("reads");
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
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
    let first = counting_server(free_address(), 1);
    let second = counting_server(free_address(), 2);
    assert!(get(first.address(), "/metrics").contains("{interface=\"eth0\"} 1\n"));
    assert!(get(second.address(), "/metrics").contains("{interface=\"eth0\"} 2\n"));
    let address = first.address();
    drop(first);
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
    let again = MetricsServer::start(address).expect("the address is free again");
    drop(again);
}
