//! The control socket, with good and bad neighbors.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use control::socket::{
    CONNECTIONS_MAX, ClientError, ControlClient, ControlServer, REQUEST_BYTES_MAX, Request,
    Response, SocketError,
};
use serde_json::json;
use tempfile::TempDir;

fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("run").join("sluice.sock");
    (directory, path)
}

/// A server whose handler knows one plugin.
fn serve(path: &Path) -> ControlServer {
    let (server, requests) = ControlServer::bind(path, 0o660).expect("binds");
    thread::spawn(move || {
        for (request, responder) in requests {
            match request {
                Request::Status => responder.reply(Response::Ok(json!({"up": true}))),
                Request::PluginReload { name, .. } if name == "filter" => {
                    responder.reply_with::<_, String>(Ok(json!({"generation": 2})));
                }
                Request::PluginReload { name, .. } => {
                    responder.reply_with::<(), _>(Err(format!("no plugin {name:?}")));
                }
                // An answer that is never given.
                _ => drop(responder),
            }
        }
    });
    server
}

fn line(stream: &UnixStream) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("sets");
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("reads");
    line
}

#[test]
fn requests_are_answered_in_order() {
    let (_directory, path) = place();
    let server = serve(&path);
    assert_eq!(server.path(), path);
    let mode = fs::metadata(&path).expect("exists").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let mut client = ControlClient::connect(&path).expect("connects");
    for _ in 0..3 {
        assert_eq!(client.call(&Request::Status).expect("answers"), json!({"up": true}));
        let reload = |name: &str| Request::PluginReload { name: name.into(), allow_traps: false };
        assert_eq!(client.call(&reload("filter")).expect("answers"), json!({"generation": 2}));
        let error = client.call(&reload("none")).expect_err("refused");
        assert!(matches!(error, ClientError::Refused(_)), "{error:?}");
        assert_eq!(error.to_string(), "no plugin \"none\"");
        let reload = Request::Reload { max_changed: None, confirm_s: None, allow_traps: false };
        let error = client.call(&reload).expect_err("no answer");
        assert_eq!(error.to_string(), "the router gave no answer to this request");
    }
    drop(server);
    assert!(!path.exists(), "the file goes with the server");
    let error = client.call(&Request::Status).expect_err("the server is gone");
    assert!(error.to_string().contains("closed"), "{error}");
    let error = ControlClient::connect(&path).expect_err("gone");
    assert!(matches!(error, ClientError::NotRunning { .. }));
    assert!(error.to_string().ends_with("is sluice running?"), "{error}");
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let (_directory, path) = place();
    fs::create_dir_all(path.parent().expect("has one")).expect("creates");
    // What a crash leaves.
    drop(UnixListener::bind(&path).expect("binds"));
    let error = ControlClient::connect(&path).expect_err("nobody listens");
    assert!(matches!(error, ClientError::Stale { .. }), "{error:?}");
    let server = serve(&path);
    let error = ControlServer::bind(&path, 0o660).expect_err("in use");
    assert!(matches!(error, SocketError::InUse { .. }));
    assert!(error.to_string().contains("is sluice running already?"), "{error}");
    let mut client = ControlClient::connect(&path).expect("the first still serves");
    client.call(&Request::Status).expect("answers");

    // A successor's file survives the end of its predecessor.
    fs::remove_file(&path).expect("removes");
    let successor = serve(&path);
    drop(server);
    ControlClient::connect(&path).expect("connects").call(&Request::Status).expect("answers");
    drop(successor);
}

#[test]
fn two_that_start_at_once_do_not_remove_each_other() {
    let (_directory, path) = place();
    for _ in 0..20 {
        fs::create_dir_all(path.parent().expect("has one")).expect("creates");
        drop(UnixListener::bind(&path).expect("binds"));
        let servers: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> =
                (0..4).map(|_| scope.spawn(|| ControlServer::bind(&path, 0o600))).collect();
            threads.into_iter().filter_map(|thread| thread.join().expect("joins").ok()).collect()
        });
        assert_eq!(servers.len(), 1);
        UnixStream::connect(&path).expect("the one that won is there");
    }
}

#[test]
fn what_is_in_the_way_is_named() {
    let (directory, path) = place();
    fs::create_dir_all(&path).expect("creates");
    let error = ControlServer::bind(&path, 0o660).expect_err("a directory");
    assert!(error.to_string().contains("a directory with this name exists"), "{error}");
    fs::remove_dir(&path).expect("removes");
    File::create(&path).expect("creates");
    let error = ControlServer::bind(&path, 0o660).expect_err("a file");
    assert!(error.to_string().contains("a file with this name exists"), "{error}");
    assert!(path.is_file(), "it is left alone");
    // A directory that cannot be made: its parent is a file.
    let error = ControlServer::bind(path.join("below"), 0o660).expect_err("no directory");
    assert!(error.to_string().contains("creating the directory"), "{error}");
    let error = ControlServer::bind(directory.path().join("x".repeat(200)), 0o660)
        .expect_err("too long for a socket");
    assert!(error.to_string().contains("listening on"), "{error}");
}

#[test]
fn garbage_gets_an_error_and_does_no_harm() {
    let (_directory, path) = place();
    let _server = serve(&path);
    let mut stream = UnixStream::connect(&path).expect("connects");
    for garbage in [
        &b"hello\n"[..],
        b"{}\n",
        b"\n",
        b"\xff\xfe\n",
        b"{\"request\":\"explode\"}\n",
        b"[[[[[[[[\n",
    ] {
        stream.write_all(garbage).expect("writes");
        let answer = line(&stream);
        assert!(answer.starts_with(r#"{"error":{"message":"not a request"#), "{answer}");
    }
    // Nesting must not exhaust the stack.
    let mut deep = vec![b'['; REQUEST_BYTES_MAX - 1];
    deep.push(b'\n');
    stream.write_all(&deep).expect("writes");
    assert!(line(&stream).contains("not a request"));
    stream.write_all(b"{\"request\":\"status\"}\n").expect("writes");
    assert_eq!(line(&stream), "{\"ok\":{\"up\":true}}\n", "the connection still works");
}

#[test]
fn a_line_without_end_is_cut_off() {
    let (_directory, path) = place();
    let _server = serve(&path);
    let mut stream = UnixStream::connect(&path).expect("connects");
    // The server stops reading at the bound, so the rest may find a closed pipe.
    let _ = stream.write_all(&vec![b'x'; REQUEST_BYTES_MAX + 10_000]);
    assert!(line(&stream).contains("longer than 65536 bytes"));
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.is_empty(), "and the connection ends");
    ControlClient::connect(&path).expect("connects").call(&Request::Status).expect("answers");
}

#[test]
fn silent_clients_do_not_block_others_and_are_bounded() {
    let (_directory, path) = place();
    let server = serve(&path);
    let silent: Vec<_> = (0..CONNECTIONS_MAX - 1)
        .map(|number| {
            let mut stream = UnixStream::connect(&path).expect("connects");
            if number % 2 == 0 {
                stream.write_all(b"{\"request\":").expect("writes");
            }
            stream
        })
        .collect();
    let start = Instant::now();
    let mut client = ControlClient::connect(&path).expect("connects");
    client.call(&Request::Status).expect("the last place answers");
    let error = ControlClient::connect(&path)
        .expect("connects")
        .call(&Request::Status)
        .expect_err("one too many");
    assert!(error.to_string().contains("32 clients already"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(5));
    drop(silent);
    let answered = (0..100).any(|_| {
        thread::sleep(Duration::from_millis(20));
        ControlClient::connect(&path).expect("connects").call(&Request::Status).is_ok()
    });
    assert!(answered, "places are free again");
    let start = Instant::now();
    let _open = UnixStream::connect(&path).expect("connects");
    drop(server);
    assert!(start.elapsed() < Duration::from_secs(5), "open connections do not delay the end");
}

#[test]
fn many_clients_at_once() {
    let (_directory, path) = place();
    let _server = serve(&path);
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let mut client = ControlClient::connect(&path).expect("connects");
                    assert_eq!(
                        client.call(&Request::Status).expect("answers"),
                        json!({"up": true})
                    );
                }
            });
        }
    });
}

#[test]
fn a_request_that_waits_ends_with_the_server() {
    let (_directory, path) = place();
    let (server, requests) = ControlServer::bind(&path, 0o600).expect("binds");
    let asking = thread::spawn({
        let path = path.clone();
        move || ControlClient::connect(path).expect("connects").call(&Request::Status)
    });
    let waiting = requests.recv_timeout(Duration::from_secs(10)).expect("a request");
    drop(server);
    let error = asking.join().expect("joins").expect_err("no answer");
    assert!(
        error.to_string().contains("stopping") || error.to_string().contains("closed"),
        "{error}"
    );
    drop(waiting);
    assert!(!fs::exists(&path).expect("looks"));
}

#[test]
fn the_socket_is_a_socket() {
    let (_directory, path) = place();
    let _server = serve(&path);
    assert!(fs::symlink_metadata(&path).expect("exists").file_type().is_socket());
}
