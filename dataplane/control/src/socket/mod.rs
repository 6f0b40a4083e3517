//! The control socket: how `sluice status`, `sluice reload` and the like talk to a running router.
//!
//! ```text
//!   client                              server
//!     {"request":"plugin-reload","name":"filter"}\n  ->
//!     <-  {"ok":{"generation":5}}\n   or   {"error":{"message":"no plugin \"filter\""}}\n
//! ```
//!
//! A Unix stream socket; each line is one JSON value, each request has one response, in order. A
//! connection may carry any number of requests.
//!
//! Invariants: a connection, whatever it sends or leaves unsent, delays no other; lines,
//! connections and waiting times are bounded; the socket file exists only while its server does
//! (after a crash the next server replaces it).
//!
//! Deliberately absent: authentication. Who may open the file may command the router; the file's
//! mode is the access control.

mod client;
mod lines;
mod server;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use client::{ClientError, ControlClient};
pub use server::{CONNECTIONS_MAX, ControlServer, Responder, SocketError};

/// Longest request in bytes. Requests name things; none comes near this bound.
pub const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// Longest response that a client takes, in bytes: a status report with tens of thousands of rows.
pub const RESPONSE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Look-ups in one request at most: what the control loop answers without delaying anything else.
pub const LOOKUPS_MAX: usize = 200;

/// What a client asks for. On the wire the variant's name stands in `request`, in kebab case, and
/// its fields beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// The [`StatusReport`](crate::status::StatusReport).
    Status,
    /// Read the configuration again and put it into force.
    Reload {
        /// Refuse it when a plan says that more than this would change: `0.1%` of the packets, `10 flows`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_changed: Option<String>,
        /// Go back to the configuration before unless [`Request::Confirm`] comes within so many seconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        confirm_s: Option<u64>,
        /// Load plugins even if they trap on all packets that were received last.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        allow_traps: bool,
    },
    /// Keep the configuration that waits for its confirmation.
    Confirm {
        /// Go back at once instead.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        cancel: bool,
    },
    /// Tell what another configuration would change for the packets that were received last.
    Plan {
        /// The configuration file, which the router reads.
        file: PathBuf,
    },
    /// The plugins that are loaded.
    PluginList,
    /// Load a plugin's file again and swap it in.
    PluginReload {
        /// The plugin's name in the configuration.
        name: String,
        /// Even if it traps on all packets that were received last.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        allow_traps: bool,
    },
    /// Load a plugin from another file.
    PluginLoad {
        /// The plugin's name in the configuration.
        name: String,
        /// The module, which the router reads.
        module: PathBuf,
        /// A file with its configuration; what the plugin that runs has without it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        config: Option<PathBuf>,
        /// As a candidate beside the plugin that runs.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        shadow: bool,
        /// Even if it traps on all packets that were received last.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        allow_traps: bool,
    },
    /// Bring a plugin's generation before back.
    PluginRollback {
        /// The plugin's name in the configuration.
        name: String,
    },
    /// What a plugin's candidate would have done otherwise.
    PluginShadow {
        /// The plugin's name in the configuration.
        name: String,
    },
    /// Put a plugin's candidate into force.
    PluginPromote {
        /// The plugin's name in the configuration.
        name: String,
        /// Even if it trapped on all packets that had been received last when it was loaded.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        allow_traps: bool,
    },
    /// End the trial of a plugin's candidate.
    PluginDiscard {
        /// The plugin's name in the configuration.
        name: String,
    },
    /// Tell what would become of a packet, and why, without sending it.
    Explain {
        /// The interface that receives it.
        interface: String,
        /// The packet in hexadecimal: a frame from its Ethernet header on, or from its IP header on.
        packet: String,
        /// Whether it begins with the Ethernet header.
        has_link_layer: bool,
        /// Leave the destination MAC address of the frame as it is; otherwise a unicast one becomes
        /// that of the interface.
        keep_mac: bool,
    },
    /// A page of routes.
    RouteShow {
        /// Only this prefix; all without it.
        prefix: Option<String>,
        /// Also the longer ones within it.
        longer: bool,
        /// Only prefixes for which this source has a route.
        source: Option<String>,
        /// Only routes that are left to the kernel.
        unexpressible: bool,
        /// Only what comes behind this prefix: what the page before gave as `next`.
        after: Option<String>,
    },
    /// What an address would meet.
    RouteGet {
        /// The address.
        address: String,
    },
    /// What each of several addresses would meet: an answer each, in their order.
    RouteGets {
        /// The addresses; at most [`LOOKUPS_MAX`].
        addresses: Vec<String>,
    },
    /// Whether look-ups give for every address what the routes in force do.
    RouteVerify,
    /// A page of the ranges of shared addresses.
    SliceShow {
        /// Only shared prefixes that hold this one or lie in it.
        prefix: Option<String>,
        /// Where to begin: 0, or what the page before gave as `next`.
        after: u64,
    },
    /// What a port of a shared address would meet.
    SliceGet {
        /// The address.
        address: String,
        /// The port.
        port: u16,
        /// Whether the packets have ports at all.
        has_ports: bool,
    },
    /// What each of several ports of shared addresses would meet: an answer each, in their order.
    SliceGets {
        /// The addresses and ports; at most [`LOOKUPS_MAX`].
        questions: Vec<SliceQuestion>,
    },
    /// The slice of a name, as a [`SliceStatus`](crate::status::SliceStatus).
    SliceNamed {
        /// Its name.
        name: String,
    },
    /// Begin to copy live frames.
    TapOpen(TapRequest),
    /// Take what was copied since the last time. A tap that is not read for 10 seconds ends.
    TapRead {
        /// The tap's number.
        tap: u64,
        /// The most frames to take.
        frames_max: usize,
        /// Explain each received frame.
        explain: bool,
    },
    /// End a tap.
    TapClose {
        /// The tap's number.
        tap: u64,
    },
}

/// A port of a shared address that is looked up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SliceQuestion {
    /// The address.
    pub address: String,
    /// The port.
    pub port: u16,
    /// Whether the packets have ports at all.
    pub has_ports: bool,
}

/// Which live frames are to be copied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TapRequest {
    /// What to look at.
    pub scope: TapScopeRequest,
    /// A classic BPF program as `[code, jt, jf, k]`; empty for every frame.
    pub filter: Vec<(u16, u8, u8, u32)>,
    /// Bytes of each frame to copy.
    pub snap_bytes: usize,
}

/// What a tap looks at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TapScopeRequest {
    /// What an interface receives and sends, `any` for all of them; `drops`: what is dropped, wherever
    /// it came in; or what the plugin of this name drops. Interfaces come first.
    Target(String),
    /// What it receives alone; `any` stands for all.
    Received(String),
}

/// What the router answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Response {
    /// The request was carried out; what it gives depends on the request.
    Ok(serde_json::Value),
    /// The request was not carried out, and nothing has changed.
    Error {
        /// Why, for the person who asked.
        message: String,
    },
}

impl Response {
    /// An error response.
    pub fn error(message: impl Into<String>) -> Self {
        Self::Error { message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_format_is_stable() {
        let requests = [
            (Request::Status, r#"{"request":"status"}"#),
            (
                Request::Reload { max_changed: None, confirm_s: None, allow_traps: false },
                r#"{"request":"reload"}"#,
            ),
            (
                Request::Reload {
                    max_changed: Some("0.1%".into()),
                    confirm_s: Some(60),
                    allow_traps: false,
                },
                r#"{"request":"reload","max_changed":"0.1%","confirm_s":60}"#,
            ),
            (Request::Confirm { cancel: false }, r#"{"request":"confirm"}"#),
            (Request::Confirm { cancel: true }, r#"{"request":"confirm","cancel":true}"#),
            (
                Request::Plan { file: "/etc/sluice/new.toml".into() },
                r#"{"request":"plan","file":"/etc/sluice/new.toml"}"#,
            ),
            (Request::PluginList, r#"{"request":"plugin-list"}"#),
            (
                Request::PluginReload { name: "filter".into(), allow_traps: false },
                r#"{"request":"plugin-reload","name":"filter"}"#,
            ),
            (
                Request::PluginReload { name: "filter".into(), allow_traps: true },
                r#"{"request":"plugin-reload","name":"filter","allow_traps":true}"#,
            ),
            (
                Request::PluginLoad {
                    name: "filter".into(),
                    module: "/new.wasm".into(),
                    config: None,
                    shadow: true,
                    allow_traps: false,
                },
                r#"{"request":"plugin-load","name":"filter","module":"/new.wasm","shadow":true}"#,
            ),
            (
                Request::PluginRollback { name: "filter".into() },
                r#"{"request":"plugin-rollback","name":"filter"}"#,
            ),
            (
                Request::Explain {
                    interface: "wan0".into(),
                    packet: "45".into(),
                    has_link_layer: false,
                    keep_mac: false,
                },
                r#"{"request":"explain","interface":"wan0","packet":"45","has_link_layer":false,"keep_mac":false}"#,
            ),
            (
                Request::TapOpen(TapRequest {
                    scope: TapScopeRequest::Target("any".into()),
                    filter: vec![(6, 0, 0, 1)],
                    snap_bytes: 96,
                }),
                r#"{"request":"tap-open","scope":{"target":"any"},"filter":[[6,0,0,1]],"snap-bytes":96}"#,
            ),
            (Request::TapClose { tap: 3 }, r#"{"request":"tap-close","tap":3}"#),
        ];
        for (request, text) in requests {
            assert_eq!(serde_json::to_string(&request).unwrap(), text);
            assert_eq!(serde_json::from_str::<Request>(text).unwrap(), request);
        }
        let responses = [
            (Response::Ok(serde_json::json!([1])), r#"{"ok":[1]}"#),
            (Response::error("no"), r#"{"error":{"message":"no"}}"#),
        ];
        for (response, text) in responses {
            assert_eq!(serde_json::to_string(&response).unwrap(), text);
            assert_eq!(serde_json::from_str::<Response>(text).unwrap(), response);
        }
    }

    #[test]
    fn unknown_requests_and_fields_are_refused() {
        for text in [
            r#"{"request":"explode"}"#,
            r#"{"request":"plugin-reload"}"#,
            r#"{"request":"plugin-reload","name":"filter","force":true}"#,
            r#"{}"#,
        ] {
            assert!(serde_json::from_str::<Request>(text).is_err(), "{text}");
        }
    }
}
