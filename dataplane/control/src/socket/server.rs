//! The server's side: a thread that accepts, and a thread for each of a bounded number of
//! connections. Requests meet in one channel, so the handler needs no lock.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded, select};
use nix::sys::socket::{Shutdown, shutdown};
use thiserror::Error;

use super::lines::{LineError, LineReader, write_line};
use super::{REQUEST_BYTES_MAX, Request, Response};

/// Connections served at the same moment. Operators and their scripts need a few; each costs a
/// thread. One more is answered with an error and closed.
pub const CONNECTIONS_MAX: usize = 32;

/// How long a connection beyond [`CONNECTIONS_MAX`] waits for a place before it is refused.
const FULL_PAUSE: Duration = Duration::from_millis(200);

/// How long a connection may take to send a whole line.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a client may take to accept a part of its answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the handler may take: a plugin of megabytes compiles in seconds, even on a busy core.
const HANDLER_TIMEOUT: Duration = Duration::from_secs(120);

/// Why the control socket could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SocketError {
    /// Another process listens on it.
    #[error(
        "control socket {}: another process listens on it; is sluice running already?",
        path.display()
    )]
    InUse {
        /// Path of the socket.
        path: PathBuf,
    },
    /// Something else has that name.
    #[error(
        "control socket {}: a {kind} with this name exists; remove it or configure another path",
        path.display()
    )]
    NotASocket {
        /// Path of the socket.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// The system refuses.
    #[error("control socket {}: {action} {}: {error}", path.display(), object.display())]
    Io {
        /// Path of the socket.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// On what it was tried.
        object: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// Takes the answer to one request. Dropping it without an answer gives the client an error.
#[derive(Debug)]
pub struct Responder(Sender<Response>);

impl Responder {
    /// Sends the answer. A client that has gone away is no concern of the handler.
    pub fn reply(self, response: Response) {
        let _ = self.0.send(response);
    }

    /// Sends what `result` holds: a value that is serialized, or an error's message.
    pub fn reply_with<T: serde::Serialize, E: std::fmt::Display>(self, result: Result<T, E>) {
        self.reply(match result.map(serde_json::to_value) {
            Ok(Ok(value)) => Response::Ok(value),
            Ok(Err(error)) => Response::error(format!("the answer cannot be written: {error}")),
            Err(error) => Response::error(error.to_string()),
        });
    }
}

/// The listening socket and its threads. Dropping it closes all connections, joins the threads and
/// removes the socket file.
#[derive(Debug)]
pub struct ControlServer {
    path: PathBuf,
    /// Device and inode, so that a successor's socket is not removed.
    identity: (u64, u64),
    listener: Arc<UnixListener>,
    shared: Arc<Shared>,
    /// Dropped to end the connections that wait for an answer.
    stop: Option<Sender<()>>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    connections: Mutex<HashMap<u64, Connection>>,
    /// Notified when a connection has ended.
    freed: Condvar,
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl ControlServer {
    /// Listens at `path` with file permissions `mode` (`0o660`: owner and group). Missing
    /// directories are created with mode 0755. A socket file that nobody listens on is replaced.
    ///
    /// Requests come out of the returned channel, each with the [`Responder`] for its answer. The
    /// channel is bounded; a slow handler delays those who ask and nobody else.
    ///
    /// # Errors
    /// [`SocketError::InUse`], [`SocketError::NotASocket`], or [`SocketError::Io`] with the path
    /// and the system's reason.
    pub fn bind(
        path: impl AsRef<Path>,
        mode: u32,
    ) -> Result<(Self, Receiver<(Request, Responder)>), SocketError> {
        let path = path.as_ref().to_path_buf();
        let fail = |action, object: &Path| {
            let (path, object) = (path.clone(), object.to_path_buf());
            move |error| SocketError::Io { path, action, object, error }
        };
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory)
            .map_err(fail("creating the directory", directory))?;
        // Two processes that start at once must not both find the file stale and then remove each
        // other's. The lock ends with the file at the end of this function.
        let lock = File::open(directory).map_err(fail("opening the directory", directory))?;
        lock.lock().map_err(fail("locking the directory", directory))?;

        clear_the_way(&path)?;
        let listener = UnixListener::bind(&path).map_err(fail("listening on", &path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))
            .map_err(fail("setting the mode of", &path))?;
        let metadata = fs::symlink_metadata(&path).map_err(fail("reading", &path))?;
        drop(lock);

        let listener = Arc::new(listener);
        let shared = Arc::new(Shared::default());
        let (requests, received) = bounded(CONNECTIONS_MAX);
        let (stop, stopped) = bounded(0);
        let accepting = thread::Builder::new()
            .name("control-socket".into())
            .spawn({
                let (listener, shared) = (Arc::clone(&listener), Arc::clone(&shared));
                move || accept(&listener, &shared, &requests, &stopped)
            })
            .map_err(fail("starting a thread for", &path))?;
        let server = Self {
            identity: (metadata.dev(), metadata.ino()),
            path,
            listener,
            shared,
            stop: Some(stop),
            accepting: Some(accepting),
        };
        Ok((server, received))
    }

    /// The path of the socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        use std::os::fd::AsRawFd;

        // The file first: whoever looks for the router from now on finds none.
        if let Ok(metadata) = fs::symlink_metadata(&self.path)
            && (metadata.dev(), metadata.ino()) == self.identity
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the control socket");
        }
        drop(self.stop.take());
        // Wakes accept(2), which returns EINVAL on a socket that was shut down.
        if let Err(error) = shutdown(self.listener.as_raw_fd(), Shutdown::Both) {
            tracing::warn!(%error, "cannot shut the control socket down");
        }
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        let connections = std::mem::take(&mut *lock(&self.shared.connections));
        for connection in connections.into_values() {
            let _ = connection.stream.shutdown(std::net::Shutdown::Both);
            if let Some(thread) = connection.thread {
                let _ = thread.join();
            }
        }
    }
}

/// Removes a socket file that nobody listens on; anything else at `path` is an error.
fn clear_the_way(path: &Path) -> Result<(), SocketError> {
    let fail = |action| {
        move |error| SocketError::Io { path: path.into(), action, object: path.into(), error }
    };
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(fail("reading")(error)),
    };
    if !kind.is_socket() {
        let kind = match kind {
            kind if kind.is_dir() => "directory",
            kind if kind.is_symlink() => "symbolic link",
            kind if kind.is_file() => "file",
            _ => "device or pipe",
        };
        return Err(SocketError::NotASocket { path: path.into(), kind });
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(SocketError::InUse { path: path.into() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!(path = %path.display(), "replacing the control socket of a router that ended");
            fs::remove_file(path).map_err(fail("removing the stale"))
        }
        // A full backlog is a sign of life too.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(SocketError::InUse { path: path.into() })
        }
        Err(error) => Err(fail("connecting to")(error)),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(
    listener: &UnixListener,
    shared: &Arc<Shared>,
    requests: &Sender<(Request, Responder)>,
    stopped: &Receiver<()>,
) {
    let mut number = 0u64;
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.raw_os_error() == Some(nix::libc::EINVAL) => return,
            Err(error) => {
                // Out of file descriptors or memory: others need a moment to give some back.
                tracing::warn!(%error, "control socket: cannot accept");
                thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        number += 1;
        if let Err((stream, reason)) = serve(number, stream, shared, requests, stopped) {
            // Never wait for a client here: it would hold up all others.
            let _ = stream.set_nonblocking(true);
            let line = serde_json::to_vec(&Response::error(reason)).unwrap_or_default();
            let _ = write_line(&stream, line, WRITE_TIMEOUT);
        }
    }
}

/// Starts a thread for a connection, or gives the connection back with the reason why not.
fn serve(
    number: u64,
    stream: UnixStream,
    shared: &Arc<Shared>,
    requests: &Sender<(Request, Responder)>,
    stopped: &Receiver<()>,
) -> Result<(), (UnixStream, String)> {
    // A client that has its answer is gone before its thread is. Nobody is kept waiting by this: a
    // newcomer would find no place either.
    let (mut connections, _) = shared
        .freed
        .wait_timeout_while(lock(&shared.connections), FULL_PAUSE, |connections| {
            connections.len() >= CONNECTIONS_MAX
        })
        .unwrap_or_else(PoisonError::into_inner);
    if connections.len() >= CONNECTIONS_MAX {
        return Err((stream, format!("the router serves {CONNECTIONS_MAX} clients already")));
    }
    let clone = match stream.try_clone() {
        Ok(clone) => clone,
        Err(error) => return Err((stream, format!("the router cannot serve: {error}"))),
    };
    let thread = thread::Builder::new().name(format!("control-{number}")).spawn({
        let (shared, requests, stopped) = (Arc::clone(shared), requests.clone(), stopped.clone());
        move || {
            converse(clone, &requests, &stopped);
            // Absent when the server is being dropped, which then waits for this thread.
            lock(&shared.connections).remove(&number);
            shared.freed.notify_one();
        }
    });
    match thread {
        Ok(thread) => {
            connections.insert(number, Connection { stream, thread: Some(thread) });
            Ok(())
        }
        Err(error) => Err((stream, format!("the router cannot serve: {error}"))),
    }
}

/// Answers one connection's requests until it ends, is silent for too long, or loses its framing.
fn converse(stream: UnixStream, requests: &Sender<(Request, Responder)>, stopped: &Receiver<()>) {
    let Ok(reading) = stream.try_clone() else { return };
    let mut lines = LineReader::new(reading, REQUEST_BYTES_MAX);
    loop {
        let (response, last) = match lines.next(READ_TIMEOUT) {
            Ok(line) => match serde_json::from_slice(&line) {
                Ok(request) => (ask(request, requests, stopped), false),
                Err(error) => (Response::error(format!("not a request: {error}")), false),
            },
            Err(LineError::Closed) => return,
            Err(error) => (Response::error(error.to_string()), true),
        };
        let line = serde_json::to_vec(&response).unwrap_or_default();
        if write_line(&stream, line, WRITE_TIMEOUT).is_err() || last {
            break;
        }
    }
    // The peer may still be sending. A close with unread bytes resets the connection, and the
    // peer would lose the answer: end the sending side only, the peer reads on to the end.
    let _ = stream.shutdown(std::net::Shutdown::Write);
}

/// Hands `request` to the handler and waits for its answer.
fn ask(
    request: Request,
    requests: &Sender<(Request, Responder)>,
    stopped: &Receiver<()>,
) -> Response {
    let stopping = || Response::error("the router is stopping");
    let (sender, answer) = bounded(1);
    select! {
        send(requests, (request, Responder(sender))) -> sent => if sent.is_err() {
            return stopping();
        },
        recv(stopped) -> _ => return stopping(),
        default(HANDLER_TIMEOUT) => return Response::error("the router is busy"),
    }
    select! {
        recv(answer) -> response => response.unwrap_or_else(|_| {
            Response::error("the router gave no answer to this request")
        }),
        recv(stopped) -> _ => stopping(),
        default(HANDLER_TIMEOUT) => Response::error("the router took too long"),
    }
}
