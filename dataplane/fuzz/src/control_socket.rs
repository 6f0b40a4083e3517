//! Any bytes on the control socket, as requests to the router and as answers to its client.
//!
//! ```text
//!  first byte even: the rest are requests      odd: the rest is an answer
//! ```
//!
//! A connection gets one answer for each line, in order, and a last one where its framing ends. Bytes
//! travel over real sockets: what reads them is what runs.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use control::socket::{
    ClientError, ControlClient, ControlServer, REQUEST_BYTES_MAX, Request, Response,
};
use control::status::{StatusReport, render};
use tempfile::TempDir;

/// Longer inputs could fill both directions of a socket.
const INPUT_BYTES_MAX: usize = 2 * REQUEST_BYTES_MAX;

/// What surely fits the buffer of a socket whose other end does not read yet.
const UNREAD_BYTES_MAX: usize = 16 * 1024;

/// The target.
pub fn run(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    let rest = &rest[..rest.len().min(INPUT_BYTES_MAX)];
    if first & 1 == 0 { requests(rest) } else { answer(rest) }
}

struct Server {
    directory: TempDir,
    _server: ControlServer,
}

/// A router that answers each request with what it understood.
static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let directory = tempfile::tempdir().expect("a directory");
    let (server, requests) =
        ControlServer::bind(directory.path().join("router"), 0o600).expect("a socket");
    std::thread::spawn(move || {
        for (request, responder) in requests {
            responder.reply_with::<_, std::fmt::Error>(Ok(request));
        }
    });
    Server { directory, _server: server }
});

fn send(mut stream: &UnixStream, bytes: &[u8]) {
    // The other end may have enough of it before it has all.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
}

fn requests(bytes: &[u8]) {
    let path = SERVER.directory.path().join("router");
    let mut stream = UnixStream::connect(path).expect("the server listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    let sending = stream.try_clone().expect("a socket");
    let mut answers = Vec::new();
    std::thread::scope(|scope| {
        // A short input fits the socket's buffer whole.
        if bytes.len() <= UNREAD_BYTES_MAX {
            send(&sending, bytes);
        } else {
            scope.spawn(|| send(&sending, bytes));
        }
        // It resets the connection where it left bytes unread.
        let _ = stream.read_to_end(&mut answers);
    });

    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let mut answers = answers.split_inclusive(|byte| *byte == b'\n');
    for line in lines.by_ref() {
        let is_whole = line.ends_with(b"\n");
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let answer = answers.next().expect("an answer for each line, and for a broken one");
        let answer: Response = serde_json::from_slice(answer).expect("an answer in JSON");
        let is_framed = is_whole && text.len() <= REQUEST_BYTES_MAX;
        match serde_json::from_slice::<Request>(text) {
            Ok(request) if is_framed => {
                let echo = serde_json::to_value(&request).expect("JSON");
                assert_eq!(answer, Response::Ok(echo));
            }
            _ => assert!(matches!(answer, Response::Error { .. }), "{answer:?} to {text:?}"),
        }
        if !is_framed {
            break;
        }
    }
    assert_eq!(answers.next(), None, "an answer that nobody asked for");
}

/// A router that answers whatever it is asked with the same bytes, and ends the connection.
static LISTENER: LazyLock<(TempDir, Mutex<UnixListener>)> = LazyLock::new(|| {
    let directory = tempfile::tempdir().expect("a directory");
    let listener = UnixListener::bind(directory.path().join("answers")).expect("a socket");
    (directory, Mutex::new(listener))
});

fn answer(bytes: &[u8]) {
    let (directory, listener) = &*LISTENER;
    let listener = listener.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let client = ControlClient::connect(directory.path().join("answers")).expect("it listens");
    let (stream, _) = listener.accept().expect("the client");
    let result = std::thread::scope(|scope| {
        if bytes.len() <= UNREAD_BYTES_MAX {
            send(&stream, bytes);
        } else {
            scope.spawn(|| send(&stream, bytes));
        }
        let mut client = client.with_timeout(Duration::from_secs(20));
        let result = client.call(&Request::Status);
        drop(client);
        result
    });
    let line = bytes.split(|byte| *byte == b'\n').next().filter(|line| line.len() < bytes.len());
    match (result, line.map(serde_json::from_slice::<Response>)) {
        (Ok(value), Some(Ok(Response::Ok(expected)))) => {
            assert_eq!(value, expected);
            if let Ok(report) = serde_json::from_value::<StatusReport>(value) {
                assert!(!render(&report).is_empty());
            }
        }
        (Err(ClientError::Refused(message)), Some(Ok(Response::Error { message: expected }))) => {
            assert_eq!(message, expected);
        }
        (Err(error), None | Some(Err(_))) => assert!(!error.to_string().is_empty()),
        (result, line) => panic!("{result:?} from {line:?}"),
    }
}
