//! The servers of the lab: HTTP and UDP echo, in a process of their own, so that they can stay when
//! the lab is kept.
//!
//! `GET /SEED/COUNT` answers with that many bytes of the seed's sequence; `POST /SEED/COUNT` takes
//! them and answers whether they were right. A connection may carry several requests.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::namespace::Namespace;
use super::process::Process;
use super::random;

/// The subcommand of xtask that serves; it is not shown to users.
pub const SUBCOMMAND: &str = "lab-serve";

/// The largest body, in bytes.
const BODY_MAX: usize = 64 << 20;

/// What is served where.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Addresses and ports of HTTP servers.
    #[arg(long)]
    http: Vec<SocketAddr>,
    /// Addresses and ports of UDP echo servers.
    #[arg(long)]
    echo: Vec<SocketAddr>,
}

/// Starts the servers in a namespace and waits until they listen.
///
/// # Errors
/// When they do not.
pub fn start(
    name: &str,
    namespace: &Namespace,
    http: &[SocketAddr],
    echo: &[SocketAddr],
    log_folder: &Path,
) -> Result<Process> {
    // Not its path: cargo may have replaced the file there while this program runs.
    let program = Path::new("/proc/self/exe");
    start_as(program, name, namespace, http, echo, log_folder)
}

/// As [`start`], by another program than this one: xtask, for its tests.
///
/// # Errors
/// When the servers do not listen.
pub fn start_as(
    program: &Path,
    name: &str,
    namespace: &Namespace,
    http: &[SocketAddr],
    echo: &[SocketAddr],
    log_folder: &Path,
) -> Result<Process> {
    let mut serve = Command::new(program);
    serve.arg(SUBCOMMAND);
    for (flag, addresses) in [("--http", http), ("--echo", echo)] {
        for address in addresses {
            serve.arg(flag).arg(address.to_string());
        }
    }
    let mut process = Process::start(name, Some(namespace), serve, log_folder)?;
    process.wait_until("listen", Duration::from_secs(10), |process| {
        Ok(process.output()?.contains("listening"))
    })?;
    Ok(process)
}

/// Serves until it is killed.
///
/// # Errors
/// When an address cannot be listened on.
pub fn run(arguments: &Arguments) -> Result<()> {
    let mut threads = Vec::new();
    for &address in &arguments.http {
        let listener = TcpListener::bind(address).with_context(|| format!("HTTP on {address}"))?;
        threads.push(thread::spawn(move || {
            for client in listener.incoming().flatten() {
                thread::spawn(move || {
                    let peer = client.peer_addr();
                    if let Err(error) = serve_http(client) {
                        eprintln!("{peer:?}: {error:#}");
                    }
                });
            }
        }));
    }
    for &address in &arguments.echo {
        let socket = UdpSocket::bind(address).with_context(|| format!("echo on {address}"))?;
        threads.push(thread::spawn(move || {
            let mut bytes = vec![0; 65_536];
            // What cannot be sent is lost, as on any network.
            while let Ok((count, from)) = socket.recv_from(&mut bytes).or_else(retry) {
                let _ = socket.send_to(&bytes[..count], from);
            }
        }));
    }
    println!("listening");
    for thread in threads {
        let _ = thread.join();
    }
    Ok(())
}

/// An ICMP error about an echo is reported to the socket; it serves on.
fn retry(_: std::io::Error) -> std::io::Result<(usize, SocketAddr)> {
    Ok((0, SocketAddr::from(([127, 0, 0, 1], 9))))
}

fn serve_http(client: TcpStream) -> Result<()> {
    client.set_nodelay(true)?;
    let mut writer = client.try_clone()?;
    let mut reader = BufReader::new(client);
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
        loop {
            let mut header = String::new();
            ensure!(reader.read_line(&mut header)? > 0, "the request ends within its header");
            if header.trim().is_empty() {
                break;
            }
        }
        let (method, seed, count) = parse_request(&request)?;
        let body = random::bytes(seed, count);
        let answer = match method {
            "GET" => body,
            "POST" => {
                let mut received = vec![0; count];
                reader.read_exact(&mut received)?;
                if received == body { b"right".to_vec() } else { b"wrong".to_vec() }
            }
            other => bail!("method {other}"),
        };
        write!(writer, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", answer.len())?;
        writer.write_all(&answer)?;
    }
}

fn parse_request(line: &str) -> Result<(&str, u64, usize)> {
    let parse = || {
        let mut words = line.split_whitespace();
        let method = words.next()?;
        let (seed, count) = words.next()?.strip_prefix('/')?.split_once('/')?;
        Some((method, seed.parse().ok()?, count.parse().ok()?))
    };
    let (method, seed, count) = parse().with_context(|| format!("no request: {line:?}"))?;
    ensure!(count <= BODY_MAX, "at most {BODY_MAX} bytes");
    Ok((method, seed, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_parsed() {
        assert_eq!(parse_request("GET /1/20 HTTP/1.0\r\n").expect("a request"), ("GET", 1, 20));
        for line in ["", "GET", "GET /1", "GET /x/1 HTTP/1.0", "GET /1/99999999999 HTTP/1.0"] {
            assert!(parse_request(line).is_err(), "{line}");
        }
    }
}
