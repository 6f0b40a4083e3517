//! [`Frr`]: daemons of FRR in a namespace.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::unistd::{User, chown};

use crate::net::{Namespace, wait_until};

/// Where Debian's package puts the daemons, and the user that they become.
const DAEMONS: &str = "/usr/lib/frr";
const USER: &str = "frr";

const PATIENCE: Duration = Duration::from_secs(20);

/// FRR in a namespace: zebra and others, with configuration, sockets and logs in a folder of their own.
pub(crate) struct Frr {
    daemons: Vec<(&'static str, Child)>,
    folder: tempfile::TempDir,
}

impl Frr {
    /// Starts these daemons with their configurations. zebra, which the others look for once and then only
    /// after ten seconds, comes first.
    #[track_caller]
    pub(crate) fn start(namespace: &Namespace, daemons: &[(&'static str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let user = User::from_name(USER).expect("users").expect("FRR's user");
        chown(folder.path(), Some(user.uid), Some(user.gid)).expect("a folder for FRR");
        let mut frr = Self { daemons: Vec::new(), folder };
        for (daemon, config) in daemons {
            fs::write(frr.folder.path().join(format!("{daemon}.conf")), config).expect("a file");
            frr.start_daemon(namespace, daemon, &[]);
        }
        frr
    }

    /// Starts a daemon, with more options, and waits until it answers.
    #[track_caller]
    pub(crate) fn start_daemon(
        &mut self,
        namespace: &Namespace,
        daemon: &'static str,
        options: &[&str],
    ) {
        let folder = self.folder.path();
        let path = |end: &str| folder.join(format!("{daemon}.{end}"));
        let log = fs::File::options().create(true).append(true).open(path("log"));
        let mut command = Command::new(Path::new(DAEMONS).join(daemon));
        command
            .arg("-f")
            .arg(path("conf"))
            .arg("-i")
            .arg(path("pid"))
            .arg("-z")
            .arg(folder.join("zserv.api"))
            .arg("--vty_socket")
            .arg(folder)
            .args(["-P", "0", "--log", "stdout"])
            .args(options)
            .stdin(Stdio::null())
            .stdout(log.expect("a file"))
            .stderr(Stdio::null());
        self.daemons.push((daemon, namespace.spawn(&mut command)));
        wait_until("FRR answers", PATIENCE, || {
            let ran = self.vtysh(daemon).args(["-c", "show version"]).output();
            ran.is_ok_and(|output| output.status.success())
        });
    }

    /// Kills a daemon as a crash would.
    pub(crate) fn kill(&mut self, daemon: &str) {
        for (_, child) in self.daemons.extract_if(.., |(name, _)| *name == daemon) {
            end(daemon, child);
        }
    }

    /// What a daemon answers to this line.
    pub(crate) fn say(&self, daemon: &str, line: &str) -> String {
        let output = self.vtysh(daemon).args(["-c", line]).output().expect("vtysh runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn vtysh(&self, daemon: &str) -> Command {
        let mut command = Command::new("vtysh");
        command.args(["-d", daemon, "--vty_socket"]).arg(self.folder.path());
        command
    }
}

impl Drop for Frr {
    fn drop(&mut self) {
        for (daemon, child) in self.daemons.drain(..) {
            end(daemon, child);
            if std::thread::panicking() {
                let log = self.folder.path().join(format!("{daemon}.log"));
                eprintln!("{daemon} wrote: {}", fs::read_to_string(log).unwrap_or_default());
            }
        }
    }
}

/// Kills a daemon, and removes the folder that it made for the case that it crashes.
fn end(daemon: &str, mut child: Child) {
    let _ = child.kill();
    let _ = child.wait();
    let _ = fs::remove_dir_all(format!("/var/tmp/frr/{daemon}.{}", child.id()));
}

/// Whether FRR is here; if not, it says so.
pub(crate) fn has_frr(test: &str) -> bool {
    let is_here = ["zebra", "bgpd"].iter().all(|daemon| Path::new(DAEMONS).join(daemon).exists())
        && User::from_name(USER).is_ok_and(|user| user.is_some());
    if !is_here {
        eprintln!("skipped: {test}: FRR is not installed, or has no user {USER}");
    }
    is_here
}
