//! The client's side: one call, one answer.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use thiserror::Error;

use super::lines::{LineError, LineReader, write_line};
use super::{RESPONSE_BYTES_MAX, Request, Response};

/// How long [`ControlClient::call`] waits unless told otherwise: longer than compiling a large
/// plugin takes.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Why a call gave no value.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// There is no socket file.
    #[error("no control socket at {}: is sluice running?", path.display())]
    NotRunning {
        /// Path of the socket.
        path: PathBuf,
    },
    /// There is a socket file that nobody listens on.
    #[error(
        "nobody listens on the control socket {}: sluice has ended without removing it; is it \
         running?",
        path.display()
    )]
    Stale {
        /// Path of the socket.
        path: PathBuf,
    },
    /// The file system refuses access.
    #[error(
        "no permission to use the control socket {}: run this as root or as a member of the \
         socket's group",
        path.display()
    )]
    Permission {
        /// Path of the socket.
        path: PathBuf,
    },
    /// Connecting, sending or receiving failed.
    #[error("control socket {}: {action}: {error}", path.display())]
    Io {
        /// Path of the socket.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// The answer did not come or is no answer.
    #[error("control socket {}: the router's answer: {reason}", path.display())]
    Answer {
        /// Path of the socket.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The router answered that it did not do what was asked.
    #[error("{0}")]
    Refused(String),
}

/// A connection to a running router.
#[derive(Debug)]
pub struct ControlClient {
    path: PathBuf,
    stream: UnixStream,
    timeout: Duration,
}

impl ControlClient {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`], [`ClientError::Stale`], [`ClientError::Permission`], or
    /// [`ClientError::Io`] with any other reason of the system.
    pub fn connect(path: impl AsRef<Path>) -> Result<Self, ClientError> {
        let path = path.as_ref().to_path_buf();
        match UnixStream::connect(&path) {
            Ok(stream) => Ok(Self { path, stream, timeout: TIMEOUT }),
            Err(error) => Err(match error.kind() {
                io::ErrorKind::NotFound => ClientError::NotRunning { path },
                io::ErrorKind::ConnectionRefused => ClientError::Stale { path },
                io::ErrorKind::PermissionDenied => ClientError::Permission { path },
                _ => ClientError::Io { path, action: "connecting", error },
            }),
        }
    }

    /// Sets how long [`call`](Self::call) waits for an answer; 60 s without it.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sends `request` and waits for its answer. After an error other than
    /// [`ClientError::Refused`] the connection is of no more use.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the router's message, [`ClientError::Io`] or
    /// [`ClientError::Answer`].
    pub fn call(&mut self, request: &Request) -> Result<Value, ClientError> {
        let answer = |reason: String| ClientError::Answer { path: self.path.clone(), reason };
        let line = serde_json::to_vec(request).map_err(|error| answer(error.to_string()))?;
        let sent = write_line(&self.stream, line, self.timeout);
        let stream = self.stream.try_clone().map_err(|error| ClientError::Io {
            path: self.path.clone(),
            action: "duplicating the connection",
            error,
        })?;
        // A server that is full answers and closes before it reads: its answer says more than the
        // broken pipe does.
        let line = match LineReader::new(stream, RESPONSE_BYTES_MAX).next(self.timeout) {
            Ok(line) => line,
            Err(LineError::Io(error)) => {
                return Err(ClientError::Io {
                    path: self.path.clone(),
                    action: "receiving",
                    error,
                });
            }
            Err(LineError::Closed) => return Err(answer("the connection was closed".into())),
            Err(error) => {
                sent.map_err(|error| ClientError::Io {
                    path: self.path.clone(),
                    action: "sending",
                    error,
                })?;
                return Err(answer(error.to_string()));
            }
        };
        match serde_json::from_slice(&line) {
            Ok(Response::Ok(value)) => Ok(value),
            Ok(Response::Error { message }) => Err(ClientError::Refused(message)),
            Err(error) => Err(answer(error.to_string())),
        }
    }
}
