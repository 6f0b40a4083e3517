//! [`Probes`]: a steady stream of numbered datagrams to echo servers, to count what is lost.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::namespace::Namespace;
use super::sockets;

/// How long to wait for the last echoes.
const LAST_ECHO: Duration = Duration::from_millis(500);

/// Time between two datagrams of one flow.
const PACE: Duration = Duration::from_millis(2);

/// The flows that are probed, each a socket.
#[derive(Debug)]
pub struct Probes(Vec<UdpSocket>);

/// What came of probing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Datagrams sent.
    pub sent: u64,
    /// Those that did not come back.
    pub lost: u64,
    /// How long it took.
    pub duration: Duration,
}

impl Probes {
    /// Flows from one address and several ports, so that their returns are spread over the nodes.
    ///
    /// # Errors
    /// When a port cannot be had.
    pub fn open(
        namespace: &Namespace,
        from: IpAddr,
        ports: impl Iterator<Item = u16>,
        to: SocketAddr,
    ) -> Result<Self> {
        ports
            .map(|port| sockets::udp(namespace, SocketAddr::new(from, port), to))
            .collect::<Result<_>>()
            .map(Self)
    }

    /// The flows of both.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Probes while `work` is done. Returns what both gave.
    ///
    /// # Errors
    /// When a socket fails.
    pub fn during<R: Send>(&self, work: impl FnOnce() -> R + Send) -> Result<(R, Outcome)> {
        let stop = AtomicBool::new(false);
        let (sent, received) = (AtomicU64::new(0), AtomicU64::new(0));
        let started = Instant::now();
        let result = thread::scope(|scope| {
            for socket in &self.0 {
                socket.set_read_timeout(Some(Duration::from_millis(50)))?;
                scope.spawn(|| {
                    let mut seen = std::collections::HashSet::new();
                    let mut bytes = [0; 8];
                    let mut deadline = None;
                    // After the last was sent, a little more time for its echo.
                    while deadline.is_none_or(|deadline| Instant::now() < deadline) {
                        // A duplicate does not make up for a loss.
                        if socket.recv(&mut bytes).is_ok() && seen.insert(bytes) {
                            received.fetch_add(1, Ordering::Relaxed);
                        }
                        if deadline.is_none() && stop.load(Ordering::Relaxed) {
                            deadline = Some(Instant::now() + LAST_ECHO);
                        }
                    }
                });
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let number = sent.fetch_add(1, Ordering::Relaxed);
                        // An error is a loss.
                        let _ = socket.send(&number.to_be_bytes());
                        thread::sleep(PACE);
                    }
                });
            }
            let result = work();
            stop.store(true, Ordering::Relaxed);
            anyhow::Ok(result)
        })?;
        let (sent, received) = (sent.into_inner(), received.into_inner());
        let duration = started.elapsed().saturating_sub(LAST_ECHO);
        Ok((result, Outcome { sent, lost: sent.saturating_sub(received), duration }))
    }

    /// Probes for some time. Returns what came of it.
    ///
    /// # Errors
    /// When a socket fails.
    pub fn run_for(&self, duration: Duration) -> Result<Outcome> {
        self.during(|| thread::sleep(duration)).map(|((), outcome)| outcome)
    }
}
