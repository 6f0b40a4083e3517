//! [`Bird`]: a BIRD in a namespace.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::net::Namespace;

/// A BIRD in a namespace.
pub(crate) struct Bird {
    child: Child,
    folder: tempfile::TempDir,
}

impl Bird {
    pub(crate) fn start(namespace: &Namespace, files: &[(String, String)], config: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            fs::write(folder.path().join(name), text).expect("a file");
        }
        fs::write(folder.path().join("bird.conf"), config).expect("a file");
        let mut command = Command::new("bird");
        command
            .arg("-f")
            .arg("-c")
            .arg(folder.path().join("bird.conf"))
            .arg("-s")
            .arg(folder.path().join("bird.ctl"))
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.path().join("log")).expect("a file"));
        let child = namespace.spawn(&mut command);
        Self { child, folder }
    }

    pub(crate) fn control(&self, words: &[&str]) -> String {
        let socket: PathBuf = self.folder.path().join("bird.ctl");
        let output =
            Command::new("birdc").arg("-s").arg(socket).args(words).output().expect("birdc runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Bird {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!(
                "BIRD wrote: {}",
                fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
            );
        }
    }
}

/// The BIRD beside the router: from the feeder into the kernel.
pub(crate) const ROUTER_BIRD: &str = "
    router id 10.9.0.1;
    protocol device { scan time 3600; }
    protocol direct { ipv4; ipv6; }
    protocol kernel k4 { scan time 3600; ipv4 { import none; export where source = RTS_BGP; }; }
    protocol kernel k6 { scan time 3600; ipv6 { import none; export where source = RTS_BGP; }; }
    protocol bgp from4 { local 10.9.0.1 as 64500; neighbor 10.9.0.2 as 64501;
        connect retry time 1; connect delay time 1; error wait time 1, 2;
        ipv4 { import all; export none; }; }
    protocol bgp from6 { local 2001:db8:9::1 as 64500; neighbor 2001:db8:9::2 as 64501;
        connect retry time 1; connect delay time 1; error wait time 1, 2;
        ipv6 { import all; export none; }; }
";

/// Whether BIRD is here; if not, it says so.
pub(crate) fn has_bird(test: &str) -> bool {
    let runs = Command::new("bird").arg("--version").stderr(Stdio::null()).status();
    let is_here = runs.is_ok_and(|status| status.success());
    if !is_here {
        eprintln!("skipped: {test}: BIRD 2 is not installed");
    }
    is_here
}
