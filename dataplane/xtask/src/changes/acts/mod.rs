//! The changes, each as what it does to the routers while packets are sent.

mod plugins;
mod reload;
mod restart;
mod routes;
pub mod slice;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::kind::Kind;
use super::site::{Site, Window};

/// Makes a change again and again within the window. Returns how often it was complete in time.
///
/// # Errors
/// When a router refuses it, or does not show it.
pub fn make(site: &mut Site, kind: Kind, window: Window) -> Result<u32> {
    match kind {
        Kind::PluginReload => plugins::by_command(site, window),
        Kind::PluginFile | Kind::PluginFileSmall | Kind::PluginFileLarge => {
            plugins::by_file(site, window)
        }
        Kind::PluginThousand => plugins::by_socket(site, window),
        Kind::ConfigurationReload => reload::make(site, window),
        Kind::SliceMove => slice::make(site, window),
        Kind::RouteChurn => routes::make(site, window),
        Kind::Restart => restart::make(site, window, restart::How::Terminate),
        Kind::Crash => restart::make(site, window, restart::How::Kill),
    }
}

/// Undoes what a change has left, after the run.
///
/// # Errors
/// When that fails.
pub fn settle(site: &mut Site, kind: Kind) -> Result<()> {
    match kind {
        Kind::ConfigurationReload => reload::settle(site),
        Kind::SliceMove => slice::switch(site, super::configuration::State::First),
        Kind::RouteChurn => routes::settle(site),
        _ => Ok(()),
    }
}

/// Asks again and again until `condition` holds; `what` completes the sentence "the router did not".
fn eventually(
    what: &str,
    timeout: Duration,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let deadline = Instant::now() + timeout;
    while !condition()? {
        ensure!(Instant::now() < deadline, "the router did not {what} within {timeout:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
