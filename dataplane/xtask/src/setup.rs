//! `setup`: looks what this machine lacks, says so, and installs it where it may.
//!
//! Looking costs one `dpkg-query`, one `rustc` and a read of the mounts, so every other command does
//! it first. What is installed: packages of Debian 12 and Ubuntu 24.04, the wasm target and lint
//! tools of the Rust toolchain, and the BPF file system where XDP links are pinned.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::build::WASM_TARGET;
use crate::command;

/// A package of Debian and Ubuntu, and what for.
struct Package {
    name: &'static str,
    reason: &'static str,
}

/// What a build of the workspace needs. `xsk-rs` compiles libbpf (make, pkg-config, libelf, zlib)
/// and libxdp (clang and m4 for its BPF programs), and its bindings are made by libclang, which
/// comes with clang. Our own BPF program needs clang alone.
const BUILD_PACKAGES: [Package; 11] = [
    Package { name: "gcc", reason: "C compiler and linker" },
    Package { name: "libc6-dev", reason: "C headers" },
    Package { name: "linux-libc-dev", reason: "kernel headers" },
    Package { name: "make", reason: "builds libbpf" },
    Package { name: "pkg-config", reason: "finds libelf and zlib" },
    Package { name: "libelf-dev", reason: "libbpf reads ELF" },
    Package { name: "zlib1g-dev", reason: "libbpf reads compressed ELF" },
    Package { name: "libpcap-dev", reason: "compiles filters of captures" },
    Package { name: "m4", reason: "writes libxdp's dispatcher" },
    Package { name: "clang", reason: "compiles BPF programs and reads headers for bindings" },
    Package { name: "lld", reason: "links plugins in C" },
];

/// What the lab and the tests in namespaces need.
const LAB_PACKAGES: [Package; 10] = [
    Package { name: "iproute2", reason: "namespaces, links and routes" },
    Package { name: "ethtool", reason: "switches offloads off" },
    Package { name: "iputils-ping", reason: "echo with a chosen identifier" },
    Package { name: "curl", reason: "TCP end to end" },
    Package { name: "nftables", reason: "a device that drops above a known rate" },
    Package { name: "tshark", reason: "an independent judge of packets" },
    Package { name: "bird2", reason: "a routing daemon beside the router" },
    Package { name: "frr", reason: "a routing daemon that installs nexthop objects" },
    Package { name: "exabgp", reason: "a feeder of routes that says what a test wants" },
    Package { name: "libfaketime", reason: "a wall clock that steps under a router" },
];

/// What routers side by side need, beyond what the build does.
const PEERS_PACKAGES: [Package; 4] = [
    Package { name: "iproute2", reason: "namespaces, links and routes" },
    Package { name: "ethtool", reason: "switches offloads off" },
    Package { name: "nftables", reason: "a router that tracks connections" },
    Package { name: "util-linux", reason: "pins the generator to its core" },
];

/// DPDK with its AF_XDP driver and headers: 190 packages with what they need, hence asked for alone.
const DPDK_PACKAGES: [Package; 1] = [Package { name: "dpdk-dev", reason: "a peer on AF_XDP" }];

/// A browser without a window, for a test of what a report looks like. Ubuntu has it as a snap alone.
const BROWSER_PACKAGES: [Package; 1] =
    [Package { name: "chromium", reason: "looks at the page of a report" }];

/// Where XDP links and maps are pinned.
const BPF_FILE_SYSTEM: &str = "/sys/fs/bpf";

/// What a command is about to need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Compilers, headers and the wasm target.
    Build,
    /// `rustfmt` and `clippy`.
    Lints,
    /// Tools for namespaces, and the BPF file system.
    Lab,
    /// Tools to measure routers side by side, and the BPF file system.
    Peers,
    /// DPDK, one of those routers.
    Dpdk,
    /// A browser, for one test.
    Browser,
    /// All of it but DPDK and the browser.
    Everything,
}

impl Need {
    fn includes(self, other: Self) -> bool {
        let optional = matches!(other, Self::Dpdk | Self::Browser);
        self == other || self == Self::Everything && !optional
    }
}

/// Installs all that `need` lacks, and says when there is nothing to do. Returns whether nothing is
/// lacking any more.
///
/// # Errors
/// When something is lacking that may not be installed here: with the line that mends it.
pub fn run(need: Need) -> Result<bool> {
    require(need)?;
    println!("set up: packages, Rust target and tools, {BPF_FILE_SYSTEM}");
    Ok(true)
}

/// Installs what `need` lacks.
///
/// # Errors
/// When something is lacking that may not be installed here: with the line that mends it.
pub fn require(need: Need) -> Result<()> {
    let mut packages: Vec<&Package> = Vec::new();
    if need.includes(Need::Build) {
        packages.extend(&BUILD_PACKAGES);
    }
    if need.includes(Need::Lab) {
        packages.extend(&LAB_PACKAGES);
    }
    if need.includes(Need::Peers) {
        packages.extend(&PEERS_PACKAGES);
    }
    if need.includes(Need::Dpdk) {
        packages.extend(&DPDK_PACKAGES);
    }
    if need.includes(Need::Browser) {
        packages.extend(&BROWSER_PACKAGES);
    }
    if need.includes(Need::Lab) || need.includes(Need::Peers) {
        // Before the packages, because some tests need only this.
        mount_bpf_file_system()?;
    }
    if !packages.is_empty() {
        install_packages(&packages)?;
    }
    if need.includes(Need::Build) {
        add_wasm_target()?;
    }
    if need.includes(Need::Lints) {
        add_lint_tools()?;
    }
    Ok(())
}

/// As [`require`], but what cannot be installed is said in one line and left to those who need it.
pub fn offer(need: Need) {
    if let Err(error) = require(need) {
        eprintln!("not set up, what needs it is skipped: {error:#}");
    }
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn install_packages(wanted: &[&Package]) -> Result<()> {
    let missing = missing_packages(wanted)?;
    if missing.is_empty() {
        return Ok(());
    }
    for package in &missing {
        eprintln!("missing package {}: {}", package.name, package.reason);
    }
    let names: Vec<_> = missing.iter().map(|package| package.name).collect();
    let by_hand = format!("apt-get install --no-install-recommends {}", names.join(" "));
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!("no apt-get here: install what these packages of Debian hold: {}", names.join(" "));
    }
    if !is_root() {
        bail!("run as root, or: {by_hand}");
    }
    let install = || {
        command::status(
            apt_get().args(["install", "--yes", "--no-install-recommends"]).args(&names),
        )
    };
    // A machine that never fetched the lists knows no package, and old lists name packages that the
    // archive has replaced. Where neither is so, fetching them would only take time.
    if !(has_package_lists() && install()?) {
        command::run(apt_get().arg("update"))?;
        if !install()? {
            bail!("packages could not be installed; by hand: {by_hand}");
        }
    }
    stop_installed_services(&names);
    let still = missing_packages(&missing)?;
    if !still.is_empty() {
        let names: Vec<_> = still.iter().map(|package| package.name).collect();
        bail!("apt-get succeeded, but these are not installed: {}", names.join(" "));
    }
    Ok(())
}

/// `apt-get` that asks nothing: tshark's package would ask who may capture.
fn apt_get() -> Command {
    let mut apt = Command::new("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive").env("NEEDRESTART_MODE", "a");
    // Another apt may run on a machine that has just started.
    apt.args(["-q", "-o", "DPkg::Lock::Timeout=120", "-o", "Acquire::Retries=3"]);
    apt
}

fn has_package_lists() -> bool {
    std::fs::read_dir("/var/lib/apt/lists").is_ok_and(|mut entries| {
        entries.any(|entry| {
            entry.is_ok_and(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
        })
    })
}

/// The packages of BIRD, FRR and ExaBGP start daemons on this machine, which nobody asked for. A failure to stop
/// one is no reason to stop here: as they come, they touch no route.
fn stop_installed_services(installed: &[&str]) {
    let services =
        [("bird2", "bird", "BIRD"), ("frr", "frr", "FRR"), ("exabgp", "exabgp", "ExaBGP")];
    for (package, service, name) in services {
        if installed.contains(&package) && Path::new("/run/systemd/system").exists() {
            eprintln!("the lab starts {name} itself: switching off the service that came with it");
            let _ = command::status(Command::new("systemctl").args(["disable", "--now", service]));
        }
    }
}

/// Those of `wanted` that are not installed. Without dpkg, those whose absence cannot be told are
/// taken to be there: a build error says more than a wrong guess.
fn missing_packages<'a>(wanted: &[&'a Package]) -> Result<Vec<&'a Package>> {
    if !Path::new("/usr/bin/dpkg-query").exists() {
        eprintln!("no dpkg here: not checking for packages; see dataplane/xtask/src/setup.rs");
        return Ok(Vec::new());
    }
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"]);
    query.args(wanted.iter().map(|package| package.name));
    // It fails when it knows nothing of one of them: that one is then simply not in its answer.
    let answer = query.output().context("`dpkg-query` cannot be started")?;
    let answer = String::from_utf8_lossy(&answer.stdout);
    let installed: HashSet<_> =
        answer.lines().filter_map(|line| line.strip_suffix(" installed")).collect();
    Ok(wanted.iter().copied().filter(|package| !installed.contains(package.name)).collect())
}

fn rustc(question: &[&str]) -> Result<String> {
    let program = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    Ok(command::output(Command::new(program).args(question))?.trim().to_owned())
}

fn add_wasm_target() -> Result<()> {
    // The folder exists exactly when the target's standard library is installed.
    let folder = rustc(&["--print", "target-libdir", "--target", WASM_TARGET])?;
    if Path::new(&folder).exists() {
        return Ok(());
    }
    eprintln!("missing Rust target {WASM_TARGET}: plugins are built for it");
    rustup(&["target", "add", WASM_TARGET])
}

fn add_lint_tools() -> Result<()> {
    let tools = [("cargo-clippy", "clippy"), ("rustfmt", "rustfmt")];
    let folder = Path::new(&rustc(&["--print", "sysroot"])?).join("bin");
    let missing: Vec<_> = tools
        .into_iter()
        .filter(|(program, _)| !folder.join(program).exists() && !is_in_path(program))
        .map(|(_, component)| component)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("missing Rust components: {}", missing.join(" "));
    rustup(&[&["component", "add"], missing.as_slice()].concat())
}

/// Whether a program of a distribution's toolchain is there. Those of rustup are proxies, which are
/// in the path whether or not the component is installed.
fn is_in_path(program: &str) -> bool {
    let Some(path) = std::env::var_os("PATH") else { return false };
    std::env::split_paths(&path)
        .filter(|folder| !folder.join("rustup").exists())
        .any(|folder| folder.join(program).exists())
}

/// Runs rustup.
///
/// # Errors
/// When it fails or is not there.
pub(crate) fn rustup(arguments: &[&str]) -> Result<()> {
    let mut rustup = Command::new("rustup");
    rustup.args(arguments);
    let line = command::line(&rustup);
    match command::status(&mut rustup) {
        Ok(true) => Ok(()),
        Ok(false) => bail!("`{line}` failed"),
        Err(_) => bail!("no rustup here: get it from https://rustup.rs, then: {line}"),
    }
}

fn mount_bpf_file_system() -> Result<()> {
    let mounts = std::fs::read_to_string("/proc/mounts").context("/proc/mounts")?;
    if has_bpf_file_system(&mounts) {
        return Ok(());
    }
    let by_hand = format!("mount -t bpf bpf {BPF_FILE_SYSTEM}");
    eprintln!("no BPF file system at {BPF_FILE_SYSTEM}: XDP links are pinned there");
    if !is_root() {
        bail!("run as root, or: {by_hand}");
    }
    command::run(Command::new("mount").args(["-t", "bpf", "bpf", BPF_FILE_SYSTEM]))
        .with_context(|| format!("this machine or container does not allow: {by_hand}"))
}

fn has_bpf_file_system(mounts: &str) -> bool {
    mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(1);
        fields.next() == Some(BPF_FILE_SYSTEM) && fields.next() == Some("bpf")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read() {
        assert!(has_bpf_file_system("bpf /sys/fs/bpf bpf rw,nosuid 0 0\n"));
        assert!(!has_bpf_file_system("sysfs /sys sysfs rw 0 0\nbpf /mnt/bpf bpf rw 0 0\n"));
        assert!(!has_bpf_file_system("tmpfs /sys/fs/bpf tmpfs rw 0 0\n"));
    }

    #[test]
    fn an_unknown_package_is_missing_and_an_essential_one_is_not() {
        if !Path::new("/usr/bin/dpkg-query").exists() {
            eprintln!("SKIPPED an_unknown_package_is_missing: no dpkg here");
            return;
        }
        let unknown = Package { name: "sluice-no-such-package", reason: "" };
        let essential = Package { name: "dpkg", reason: "" };
        let missing = missing_packages(&[&unknown, &essential]).expect("dpkg answers");
        let names: Vec<_> = missing.iter().map(|package| package.name).collect();
        assert_eq!(names, [unknown.name]);
    }
}
