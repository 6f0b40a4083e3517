//! [`Capture`]: tshark on an interface, the judge that shares no code with the router.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Result;

use super::cleanup::Folder;
use super::namespace::Namespace;
use super::process::Process;

/// How long tshark may take to start, and packets to be written.
const TIMEOUT: Duration = Duration::from_secs(15);

/// A running capture. Its files are removed when this is dropped.
#[derive(Debug)]
pub struct Capture {
    // Dropped first, because it writes into the folder while it lives.
    process: Process,
    folder: Folder,
}

impl Capture {
    /// Starts to capture what passes `interface` and `filter` (in the syntax of libpcap), and
    /// returns when nothing can be missed any more.
    ///
    /// # Errors
    /// When tshark is missing or does not start.
    pub fn start(namespace: &Namespace, interface: &str, filter: &str) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = Folder::create("capture", &format!("{}-{number}", namespace.role()))?;
        let mut tshark = Command::new("tshark");
        tshark.args(["-n", "-Q", "-i", interface, "-f", filter, "-w"]).arg(file(&folder));
        let process = Process::start("tshark", Some(namespace), tshark, folder.path())?;
        let mut capture = Self { process, folder };
        // The header of the file is written once the socket is open.
        capture.process.wait_until("open its file", TIMEOUT, |_| {
            Ok(std::fs::metadata(file(&capture.folder)).is_ok_and(|file| file.len() > 0))
        })?;
        Ok(capture)
    }

    /// Ends the capture when it holds `packets_min` packets, and returns a line for each packet with
    /// the values of `fields` (names of Wireshark), separated by tabs. Checksums are verified.
    ///
    /// # Errors
    /// When fewer packets come in time.
    pub fn finish(mut self, fields: &[&str], packets_min: usize) -> Result<Vec<String>> {
        let file = file(&self.folder);
        let read = || -> Result<Vec<String>> {
            let mut tshark = Command::new("tshark");
            tshark.args(["-n", "-T", "fields", "-r"]).arg(&file);
            // GUE variant 1: what is in the datagram is an IP packet.
            tshark.args(["-d", "udp.port==6080,ip"]);
            for protocol in ["ip", "tcp", "udp"] {
                tshark.args(["-o", &format!("{protocol}.check_checksum:TRUE")]);
            }
            for field in fields {
                tshark.args(["-e", field]);
            }
            Ok(crate::command::output(&mut tshark)?.lines().map(str::to_owned).collect())
        };
        // While tshark writes, the last record may be cut off: reading fails then.
        self.process.wait_until(&format!("see {packets_min} packets"), TIMEOUT, |_| {
            Ok(read().is_ok_and(|lines| lines.len() >= packets_min))
        })?;
        self.process.signal(nix::sys::signal::Signal::SIGINT)?;
        self.process.wait(TIMEOUT)?;
        read()
    }
}

fn file(folder: &Folder) -> PathBuf {
    folder.path().join("packets.pcapng")
}
