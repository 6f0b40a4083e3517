//! The status report as Prometheus metrics, over HTTP.
//!
//! ```text
//!   scrape, GET /metrics -> metrics thread -- Scrape --> the router's control loop
//!                           render() <------ StatusReport ------'
//! ```
//!
//! Invariants: workers never touch a metric; nothing is done while nobody asks; counters are set to
//! the report's totals, so a scrape that is missed loses nothing; a page names what is there when it
//! is asked for, so a series whose subject is gone (an interface, a plugin, an owner) is gone too.
//!
//! Deliberately absent: histograms, which would need a sample for each packet, and a push gateway.

mod http;
mod names;
mod record;

use std::net::{SocketAddr, TcpListener};
use std::thread::{self, JoinHandle};

use crossbeam::channel::{Receiver, bounded};
use metrics_exporter_prometheus::PrometheusBuilder;
use thiserror::Error;
use tokio::sync::oneshot;

use crate::status::StatusReport;

pub use names::{METRICS, Metric, MetricKind, documentation};
pub use record::record;

/// Scrapes that wait for the control loop at most; one more is told that the router is busy.
const SCRAPES_MAX: usize = 8;

/// A scrape that waits for a report.
#[derive(Debug)]
pub struct Scrape(oneshot::Sender<Box<StatusReport>>);

impl Scrape {
    /// Hands the report over. A scraper that has left is no error.
    pub fn answer(self, report: StatusReport) {
        let _ = self.0.send(Box::new(report));
    }
}

/// Why metrics are not served.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MetricsError {
    /// The address cannot be listened on.
    #[error("metrics: cannot listen on {address}: {error}")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// What the system said: in use, not an address of this machine, not permitted.
        error: std::io::Error,
    },
    /// The HTTP server did not start.
    #[error("metrics: cannot serve on {address}: {reason}")]
    Serve {
        /// The configured address.
        address: SocketAddr,
        /// What went wrong.
        reason: String,
    },
}

/// The thread that answers scrapes. Dropping it ends the thread and every connection.
#[derive(Debug)]
pub struct MetricsServer {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl MetricsServer {
    /// Serves metrics on `address`, at every path; `/health` answers `OK`. Each scrape is handed out
    /// by the receiver and waits for its report.
    ///
    /// # Errors
    /// [`MetricsError::Listen`] if the address cannot be bound, [`MetricsError::Serve`] if the
    /// server does not start.
    pub fn start(address: SocketAddr) -> Result<(Self, Receiver<Scrape>), MetricsError> {
        let listener =
            TcpListener::bind(address).map_err(|error| MetricsError::Listen { address, error })?;
        let serve =
            |error: std::io::Error| MetricsError::Serve { address, reason: error.to_string() };
        listener.set_nonblocking(true).map_err(serve)?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(serve)?;
        let (ask, scrapes) = bounded(SCRAPES_MAX);
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("metrics".into())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        _ = stopped => {}
                        error = http::serve(listener, ask) => {
                            tracing::error!(%error, %address, "metrics are no longer served");
                        }
                    }
                });
                // A scrape that is being answered must not delay the router's end.
                runtime.shutdown_background();
            })
            .map_err(serve)?;
        Ok((Self { address, stop: Some(stop), thread: Some(thread) }, scrapes))
    }

    /// The address that is served.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The page of a report, in Prometheus' text format.
///
/// The recorder lives as long as the page, and is not the process-wide one of the `metrics` crate.
fn render(report: &StatusReport) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || {
        names::describe();
        record(report);
    });
    recorder.handle().render()
}
