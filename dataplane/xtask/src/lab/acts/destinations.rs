//! A thousand destinations go where a linear scan over the routing table says.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::lab::configuration::Which;
use crate::lab::namespace::Namespace;
use crate::lab::plan::{SHARED, SINK_PORT};
use crate::lab::report::Report;
use crate::lab::stage::Stage;

/// Number of destinations.
const DESTINATIONS: usize = 1000;

/// Seed of the destinations.
const SEED: u64 = 2024;

/// How often a destination that nobody heard of is tried: datagrams may be lost.
const ROUNDS: usize = 3;

/// How long the last datagram of a round may take.
const LAST_ARRIVAL: Duration = Duration::from_millis(200);

/// Plays the act.
pub fn play(stage: &mut Stage, report: &mut Report) {
    report.act("a routing table");
    report.check("a thousand destinations", || probe(stage));
}

fn probe(stage: &Stage) -> Result<String> {
    let destinations = stage.table.destinations(DESTINATIONS, SEED);
    // The scan takes a while with a full table; packets travel meanwhile.
    let (expected, heard) = thread::scope(|scope| -> Result<_> {
        let scan = scope.spawn(|| stage.table.scan(&destinations));
        let heard = send(stage, &destinations)?;
        Ok((scan.join().expect("the scan does not panic"), heard))
    })?;
    let [at_inet1, at_inet2, repeated] = heard;
    let mut lengths = HashSet::new();
    for (index, (destination, expected)) in destinations.iter().zip(&expected).enumerate() {
        let (wants_inet1, length) =
            expected.with_context(|| format!("no route to {destination}"))?;
        let (is_at_1, is_at_2) = (at_inet1.contains(&index), at_inet2.contains(&index));
        let place = if wants_inet1 { "inet1" } else { "inet2" };
        ensure!(
            is_at_1 == wants_inet1 && is_at_2 != wants_inet1,
            "{destination} (by a route of length {length}) belongs to {place}; it came to {}",
            match (is_at_1, is_at_2) {
                (false, false) => "neither",
                (true, false) => "inet1",
                (false, true) => "inet2",
                (true, true) => "both",
            }
        );
        lengths.insert((destination.is_ipv6(), length));
    }
    let v6 = destinations.iter().filter(|address| address.is_ipv6()).count();
    Ok(format!(
        "{} IPv4 and {v6} IPv6, prefixes of {} lengths, out of {}: each is where the scan says{}",
        DESTINATIONS - v6,
        lengths.len(),
        stage.table.describe(),
        if repeated.is_empty() {
            String::new()
        } else {
            format!(" ({} sent again)", repeated.len())
        }
    ))
}

/// Sends a numbered datagram to each destination. Returns which numbers came to inet1 and inet2, and
/// which had to be sent more than once.
fn send(stage: &Stage, destinations: &[IpAddr]) -> Result<[HashSet<usize>; 3]> {
    let sinks = [Sink::open(&stage.topology.inet1)?, Sink::open(&stage.topology.inet2)?];
    let (four, six) = stage.workload(Which::A).within(|| -> std::io::Result<_> {
        Ok((UdpSocket::bind((SHARED.v4, 20_000))?, UdpSocket::bind((SHARED.v6, 20_000))?))
    })??;
    let mut repeated = HashSet::new();
    for round in 0..ROUNDS {
        let heard = sinks.each_ref().map(Sink::heard);
        let is_open = |index: &usize| heard.iter().all(|numbers| !numbers.contains(index));
        let open: Vec<usize> = (0..destinations.len()).filter(is_open).collect();
        if open.is_empty() {
            break;
        }
        if round > 0 {
            repeated.extend(&open);
        }
        for (position, &index) in open.iter().enumerate() {
            let to = SocketAddr::new(destinations[index], SINK_PORT);
            let socket = if to.is_ipv4() { &four } else { &six };
            socket.send_to(&(index as u64).to_be_bytes(), to).with_context(|| to.to_string())?;
            // In bursts, as routers get them.
            if position % 32 == 31 {
                thread::sleep(Duration::from_millis(1));
            }
        }
        thread::sleep(LAST_ARRIVAL);
    }
    let [at_inet1, at_inet2] = sinks.each_ref().map(Sink::heard);
    Ok([at_inet1, at_inet2, repeated])
}

/// Hears what is sent to any address. A thread empties its buffer, until this is dropped.
struct Sink {
    heard: Arc<Mutex<HashSet<usize>>>,
    is_open: Arc<AtomicBool>,
}

impl Sink {
    fn open(namespace: &Namespace) -> Result<Self> {
        let socket = namespace
            .within(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, SINK_PORT)))?
            .with_context(|| format!("a sink in {}", namespace.role()))?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let heard = Arc::new(Mutex::new(HashSet::new()));
        let is_open = Arc::new(AtomicBool::new(true));
        let sink = Self { heard: Arc::clone(&heard), is_open: Arc::clone(&is_open) };
        thread::spawn(move || {
            let mut bytes = [0; 8];
            while is_open.load(Ordering::Relaxed) {
                if socket.recv(&mut bytes).is_ok() {
                    let number = u64::from_be_bytes(bytes) as usize;
                    heard.lock().unwrap_or_else(PoisonError::into_inner).insert(number);
                }
            }
        });
        Ok(sink)
    }

    fn heard(&self) -> HashSet<usize> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.is_open.store(false, Ordering::Relaxed);
    }
}
