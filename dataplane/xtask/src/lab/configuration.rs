//! The configuration files of the two nodes.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

use super::cleanup;
use super::plan::{BOUNDARY, HOST_A, NODE_A, NODE_B, SHARED, SLICES_FIRST};

/// One of the two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Its workload is a host behind `lan0`.
    A,
    /// Its workload runs on the node itself.
    B,
}

impl Which {
    /// `a` or `b`.
    #[must_use]
    pub fn letter(self) -> char {
        match self {
            Self::A => 'a',
            Self::B => 'b',
        }
    }

    /// The name of the router, its pins and its files: unique on this machine.
    #[must_use]
    pub fn router_name(self) -> String {
        format!("lab-{}-{}", std::process::id(), self.letter())
    }

    /// Where the router pins.
    #[must_use]
    pub fn pin_directory(self) -> PathBuf {
        Path::new(cleanup::PINS).join(self.router_name())
    }
}

/// What differs from act to act.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// `on_exit` of node b.
    pub on_exit: &'static str,
    /// First port of node b's slices.
    pub boundary: u16,
    /// By how many ports node b's first IPv4 slice reaches into node a's: a mistake, unless 0.
    pub overlap: u16,
}

impl Default for Variant {
    fn default() -> Self {
        Self { on_exit: "drop", boundary: BOUNDARY, overlap: 0 }
    }
}

/// The files in the run's folder.
#[derive(Clone, Debug)]
pub struct Files<'a>(pub &'a Path);

impl Files<'_> {
    /// The router's configuration.
    #[must_use]
    pub fn config(&self, which: Which) -> PathBuf {
        self.0.join(format!("node-{}.toml", which.letter()))
    }

    /// The router's control socket.
    #[must_use]
    pub fn socket(&self, which: Which) -> PathBuf {
        self.0.join(format!("node-{}.sock", which.letter()))
    }

    /// The rules of the filter plugin on that node.
    #[must_use]
    pub fn rules(&self, which: Which) -> PathBuf {
        self.0.join(format!("filter-{}.toml", which.letter()))
    }

    /// The filter plugin's module, which both nodes load.
    #[must_use]
    pub fn module(&self) -> PathBuf {
        self.0.join("filter.wasm")
    }

    /// The routing table of node a.
    #[must_use]
    pub fn routes(&self) -> PathBuf {
        self.0.join("routes.txt")
    }

    /// Writes a node's configuration.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_config(&self, which: Which, variant: Variant) -> Result<()> {
        replace(&self.config(which), text(which, variant, two_cores()?, self))
    }

    /// Writes the rules of the filter plugin; `rules` is TOML, empty for none.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write_rules(&self, which: Which, rules: &str) -> Result<()> {
        replace(&self.rules(which), format!("default = \"allow\"\n{rules}"))
    }
}

/// The first two cores that this process may use: both routers share them.
///
/// # Errors
/// When it may use only one.
pub fn two_cores() -> Result<[usize; 2]> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).context("allowed cores")?;
    let mut cores = (0..CpuSet::count()).filter(|&core| allowed.is_set(core).unwrap_or(false));
    match (cores.next(), cores.next()) {
        (Some(first), Some(second)) => Ok([first, second]),
        _ => bail!("the lab needs two cores, a worker on each"),
    }
}

/// Replaces a file in one step, so that nobody reads half of it.
///
/// # Errors
/// When it cannot be written.
pub fn replace(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    let aside = path.with_extension("new");
    std::fs::write(&aside, content).with_context(|| aside.display().to_string())?;
    std::fs::rename(&aside, path).with_context(|| path.display().to_string())
}

fn text(which: Which, variant: Variant, cores: [usize; 2], files: &Files<'_>) -> String {
    let letter = which.letter();
    let name = which.router_name();
    let socket = files.socket(which).display().to_string();
    let own = match which {
        Which::A => format!(
            r#"route_files = ["routes.txt"]

[router]
name = "{name}"
node = "a"
poll = "adaptive"
on_exit = "drop"
control_socket = "{socket}"
metrics_listen = "127.0.0.1:9100"

[[interface]]
name = "wan0"
role = "outside"

[[interface]]
name = "lan0"
role = "inside"

[[owner]]
name = "host-a4"
node = "a"
deliver = {{ next_hop = "{}", interface = "lan0" }}

[[owner]]
name = "host-a6"
node = "a"
deliver = {{ next_hop = "{}", interface = "lan0" }}
"#,
            HOST_A.v4, HOST_A.v6
        ),
        Which::B => format!(
            r#"[router]
name = "{name}"
node = "b"
poll = "adaptive"
on_exit = "{}"
control_socket = "{socket}"

[[interface]]
name = "wan0"
role = "outside"
"#,
            variant.on_exit
        ),
    };
    let shared = format!(
        r#"
[workers]
cores = [{}, {}]

[[node]]
name = "a"
address = ["{}", "{}"]

[[node]]
name = "b"
address = ["{}", "{}"]

[[plugin]]
name = "filter"
path = "filter.wasm"
hook = "ingress"
config_file = "filter-{letter}.toml"
"#,
        cores[0], cores[1], NODE_A.v4, NODE_A.v6, NODE_B.v4, NODE_B.v6
    );
    let egress = |family: char, address: String, overlap: u16| {
        let holder = match which {
            Which::A => format!("owner = \"host-a{family}\""),
            Which::B => "node = \"a\"".to_owned(),
        };
        let first = variant.boundary - overlap;
        let last = variant.boundary - 1;
        format!(
            r#"
[[egress]]
prefix = "{address}"
default = "drop"

[[egress.slice]]
name = "a{family}"
ports = "{SLICES_FIRST}-{last}"
{holder}

[[egress.slice]]
name = "b{family}"
ports = "{first}-65535"
node = "b"
"#
        )
    };
    let four = egress('4', format!("{}/32", SHARED.v4), variant.overlap);
    let six = egress('6', format!("{}/128", SHARED.v6), 0);
    format!("{own}{shared}{four}{six}")
}
