//! The policies as XDP programs: compiled by clang, run by the kernel (`peers/policy.c`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sluice_abi::Descriptor;

use super::packets::Rule;

/// The programs, and what runs them.
pub(super) struct Ebpf {
    folder: tempfile::TempDir,
    loader: PathBuf,
    object: PathBuf,
    packets: PathBuf,
}

/// What became of one policy.
pub(super) struct Measured {
    /// The verdicts of each pass over the packets.
    pub(super) verdicts: Vec<u8>,
    /// Nanoseconds a packet, 64 packets a run.
    pub(super) looped: f64,
    /// Nanoseconds a packet, one packet a run.
    pub(super) each: f64,
}

impl Ebpf {
    /// Compiles them; what is missing is named.
    pub(super) fn build(
        rules: &[Rule],
        (interval, burst): (u64, u64),
        packets: &[Descriptor],
    ) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let file = |name: &str| folder.path().join(name);
        let write = |path: &PathBuf, bytes: &[u8]| {
            fs::write(path, bytes).map_err(|error| format!("{}: {error}", path.display()))
        };
        let (text, bytes) = (file("rules.c"), file("packets"));
        let lines: String = (1..).zip(rules).map(|(number, rule)| rule.c(number)).collect();
        write(&text, lines.as_bytes())?;
        write(&bytes, bytemuck::cast_slice(packets))?;
        let sources = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/peers"));
        let (loader, object) = (file("policy"), file("policy.o"));
        let mut cc = Command::new("cc");
        cc.args(["-O2", "-o"]).arg(&loader).arg(sources.join("policy.c")).arg("-lbpf");
        let mut clang = Command::new("clang");
        clang.args(["-O2", "-g", "-target", "bpf", "-mcpu=v3"]);
        // Where Debian keeps the headers that are a machine's own.
        clang.arg(format!("-I/usr/include/{}-linux-gnu", std::env::consts::ARCH));
        clang.arg(format!("-DPOLICY_RULES=\"{}\"", text.display()));
        clang.arg(format!("-DRATE_INTERVAL={interval}ull"));
        clang.arg(format!("-DRATE_BURST={burst}ull"));
        clang.arg("-c").arg(sources.join("policy.bpf.c")).arg("-o").arg(&object);
        for (name, command) in [("cc", &mut cc), ("clang", &mut clang)] {
            let status = command.status().map_err(|error| format!("{name}: {error}"))?;
            if !status.success() {
                return Err(format!("{name} fails (is libbpf-dev there?)"));
            }
        }
        Ok(Self { folder, loader, object, packets: bytes })
    }

    /// Has one of them judge the packets `passes` times, and measures it.
    pub(super) fn measure(&self, policy: &str, passes: usize) -> Result<Measured, String> {
        let verdicts = self.folder.path().join("verdicts");
        let mut command = Command::new(&self.loader);
        command.arg(&self.object).arg(policy).arg(&self.packets);
        let output = command.arg(passes.to_string()).arg(&verdicts).output();
        let output = output.map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&output.stdout);
        let figures: Vec<f64> = text.split_whitespace().flat_map(str::parse).collect();
        let [looped, each] = figures[..] else {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        };
        let verdicts = fs::read(verdicts).map_err(|error| error.to_string())?;
        Ok(Measured { verdicts, looped, each })
    }
}
