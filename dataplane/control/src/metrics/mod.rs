//! The status report as Prometheus metrics, over HTTP.
//!
//! ```text
//!   router: StatusReport, each second -> record() -> recorder <- scrape, GET /metrics
//! ```
//!
//! Invariants: workers never touch a metric; counters are set to the report's totals, so a lost
//! second loses nothing; a series whose subject is gone (an interface, a plugin, an owner)
//! disappears once [`SERIES_IDLE_S`] have passed without a report that names it.
//!
//! Deliberately absent: histograms, which would need a sample for each packet, and a push gateway.

mod names;
mod record;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use metrics_util::MetricKindMask;
use thiserror::Error;
use tokio::sync::oneshot;

use crate::status::StatusReport;

pub use names::{METRICS, Metric, MetricKind, documentation};
pub use record::record;

/// Seconds after which a series that is no longer set is forgotten. Reports come every second.
pub const SERIES_IDLE_S: u64 = 30;

/// Why metrics are not served.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MetricsError {
    /// The address cannot be listened on.
    #[error("metrics: cannot listen on {address}: {source}")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// What the system said: in use, not an address of this machine, not permitted.
        source: std::io::Error,
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

/// A recorder and the thread that serves it. Dropping it ends both.
pub struct MetricsServer {
    address: SocketAddr,
    recorder: Arc<PrometheusRecorder>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for MetricsServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MetricsServer").field("address", &self.address).finish_non_exhaustive()
    }
}

impl MetricsServer {
    /// Serves metrics on `address`, at every path; `/health` answers `OK`.
    ///
    /// The recorder is this server's own and not the process-wide one of the `metrics` crate: what
    /// is served is what [`record`](Self::record) sets.
    ///
    /// # Errors
    /// [`MetricsError::Listen`] if the address cannot be bound, [`MetricsError::Serve`] if the
    /// server does not start.
    pub fn start(address: SocketAddr) -> Result<Self, MetricsError> {
        // The exporter reports a failed bind as text only; a bind of our own has the reason.
        TcpListener::bind(address).map_err(|source| MetricsError::Listen { address, source })?;
        let serve = |reason: String| MetricsError::Serve { address, reason };

        let (ready, started) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("metrics".into())
            .spawn(move || run(address, &ready, stopped))
            .map_err(|error| serve(error.to_string()))?;
        let recorder =
            started.recv().unwrap_or_else(|_| Err("the thread ended".into())).map_err(serve)?;
        let recorder = Arc::new(recorder);
        metrics::with_local_recorder(&*recorder, names::describe);
        Ok(Self { address, recorder, stop: Some(stop), thread: Some(thread) })
    }

    /// Sets all metrics from `report`. To be called about once a second.
    pub fn record(&self, report: &StatusReport) {
        metrics::with_local_recorder(&*self.recorder, || record(report));
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

/// The thread: a runtime of its own, so that scrapes share nothing with the rest of the router.
fn run(
    address: SocketAddr,
    ready: &mpsc::Sender<Result<PrometheusRecorder, String>>,
    stopped: oneshot::Receiver<()>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = ready.send(Err(error.to_string()));
            return;
        }
    };
    runtime.block_on(async {
        let built = PrometheusBuilder::new()
            .with_http_listener(address)
            .idle_timeout(MetricKindMask::ALL, Some(Duration::from_secs(SERIES_IDLE_S)))
            .build();
        match built {
            Ok((recorder, exporter)) => {
                let _ = ready.send(Ok(recorder));
                tokio::select! {
                    _ = stopped => {}
                    ended = exporter => tracing::error!(?ended, %address, "metrics are no longer served"),
                }
            }
            Err(error) => {
                let _ = ready.send(Err(error.to_string()));
            }
        }
    });
    // A scrape that is being answered must not delay the router's end.
    runtime.shutdown_background();
}
