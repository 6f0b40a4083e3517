//! A tap of the running router, from the operator's side.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};
use control::socket::{ControlClient, Request, TapRequest};
use serde_json::Value;
use signal_hook::consts::{SIGINT, SIGTERM};

/// An open tap. Dropping it without [`TapSession::close`] leaves it to the router, which ends it after
/// a while.
pub(crate) struct TapSession {
    client: ControlClient,
    tap: u64,
    /// Name and MAC address of each interface.
    pub(crate) interfaces: Vec<(String, String)>,
}

/// What a tap copied since the last time.
pub(crate) struct Copied {
    pub(crate) frames: Vec<Value>,
    /// Frames lost since the tap was opened.
    pub(crate) lost: u64,
}

impl TapSession {
    pub(crate) fn open(socket: &Path, request: TapRequest) -> Result<Self> {
        let mut client = ControlClient::connect(socket)?;
        let answer = client.call(&Request::TapOpen(request))?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let interfaces = answer["interfaces"].as_array().into_iter().flatten();
        Ok(Self {
            client,
            tap: answer["tap"].as_u64().context("the router gave no tap")?,
            interfaces: interfaces.map(|each| (text(&each["name"]), text(&each["mac"]))).collect(),
        })
    }

    pub(crate) fn read(&mut self, frames_max: usize, explain: bool) -> Result<Copied> {
        let mut answer =
            self.client.call(&Request::TapRead { tap: self.tap, frames_max, explain })?;
        let lost = answer["lost"].as_u64().unwrap_or_default();
        let frames = match answer["frames"].take() {
            Value::Array(frames) => frames,
            _ => Vec::new(),
        };
        Ok(Copied { frames, lost })
    }

    /// Ends the tap. Returns how many frames it lost in all.
    pub(crate) fn close(mut self) -> Result<u64> {
        let answer = self.client.call(&Request::TapClose { tap: self.tap })?;
        Ok(answer["lost"].as_u64().unwrap_or_default())
    }

    /// Name of the interface of a copied frame.
    pub(crate) fn interface_name(&self, frame: &Value) -> &str {
        let position = frame["interface"].as_u64().and_then(|at| usize::try_from(at).ok());
        position.and_then(|at| self.interfaces.get(at)).map_or("?", |(name, _)| name.as_str())
    }
}

/// A flag that SIGINT and SIGTERM set.
pub(crate) fn stop_flag() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&flag)).context("signals")?;
    }
    Ok(flag)
}
