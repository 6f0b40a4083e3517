//! Starts that are refused: each for its own reason, with the command that mends it. In network
//! namespaces that the tests make; skipped without root.

use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const SLUICE: &str = env!("CARGO_BIN_EXE_sluice");

/// How long a start or a refusal may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A namespace with two veth interfaces, `lan0` and `wan0`, of two queues each; removed at the end,
/// whatever happened.
struct Host {
    name: String,
    folder: tempfile::TempDir,
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().expect("the program can be run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

impl Host {
    fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: refused starts, since this is not root");
            return None;
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("slt-router-{}-{number}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &name]));
        let host = Self { name, folder: tempfile::tempdir().expect("a folder") };
        for link in ["lan0", "wan0"] {
            let peer = format!("{link}p");
            let queues = ["numrxqueues", "2", "numtxqueues", "2"];
            let mut words = vec!["link", "add", link];
            words.extend(queues);
            words.extend(["type", "veth", "peer", "name", &peer]);
            words.extend(queues);
            host.ip(&words);
            host.ip(&["link", "set", link, "up"]);
            host.ip(&["link", "set", &peer, "up"]);
        }
        host.sysctl("net.ipv4.conf.all.rp_filter=0");
        Some(host)
    }

    fn ip(&self, words: &[&str]) {
        run(Command::new("ip").args(["-n", &self.name]).args(words));
    }

    fn sysctl(&self, setting: &str) {
        run(self.within("sysctl").args(["-qw", setting]));
    }

    /// A command in the namespace; not by `ip netns exec`, which hides the BPF file system.
    fn within(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg(program);
        command
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Name of the router: as unique as that of the namespace, and within its bounds.
    fn router_name(&self) -> &str {
        &self.name["slt-".len()..]
    }

    /// Writes a configuration with `router` added to `[router]`, and `rest` behind `[workers]`.
    fn config(&self, router: &str, cores: &str, rest: &str) -> PathBuf {
        let text = format!(
            "[router]\nname = \"{}\"\ncontrol_socket = \"{}\"\npoll = \"adaptive\"\n{router}\n\
             [workers]\ncores = {cores}\n{rest}\n",
            self.router_name(),
            self.path("control.sock").display(),
        );
        let path = self.path("sluice.toml");
        fs::write(&path, text).expect("the configuration can be written");
        path
    }

    fn start(&self, config: &Path) -> Command {
        let mut command = self.within(SLUICE);
        command.args(["run", "--config"]).arg(config);
        command
    }

    /// What the router says when it refuses to start.
    fn refusal(&self, config: &Path) -> String {
        refusal(&mut self.start(config))
    }

    /// The same without these capabilities, and with 64 KiB of memory that can be locked.
    fn refusal_without(&self, capabilities: &str, config: &Path) -> String {
        let mut command = self.within("setpriv");
        command
            .args(["--bounding-set", capabilities, "prlimit", "--memlock=65536:65536"])
            .args([SLUICE, "run", "--config"])
            .arg(config);
        refusal(&mut command)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
        let _ = fs::remove_dir_all(format!("/sys/fs/bpf/sluice/{}", self.router_name()));
    }
}

#[track_caller]
fn refusal(command: &mut Command) -> String {
    let mut child =
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("a process");
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().expect("a process").is_none() {
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("the router runs, although it should refuse to");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().expect("its output");
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn assert_says(said: &str, wanted: &[&str]) {
    for words in wanted {
        assert!(said.contains(words), "expected {words:?} in:\n{said}");
    }
}

const CORES: &str = "[0, 1]";
const INTERFACES: &str = "[[interface]]\nname = \"lan0\"\nrole = \"inside\"\n\
                          [[interface]]\nname = \"wan0\"\nrole = \"outside\"\n";

#[test]
fn an_interface_that_does_not_exist() {
    let Some(host) = Host::new() else { return };
    let config = host.config("", CORES, "[[interface]]\nname = \"nope0\"\nrole = \"both\"\n");
    assert_says(&host.refusal(&config), &["interface[0].name", "nope0"]);
}

#[test]
fn an_mtu_that_does_not_fit_a_chunk() {
    let Some(host) = Host::new() else { return };
    host.ip(&["link", "set", "wan0", "mtu", "9000"]);
    let said = host.refusal(&host.config("", CORES, INTERFACES));
    assert_says(&said, &["wan0", "9000", "ip link set dev wan0 mtu 3498"]);
}

#[test]
fn a_driver_without_native_xdp() {
    let Some(host) = Host::new() else { return };
    host.ip(&["link", "add", "br0", "type", "bridge"]);
    host.ip(&["link", "set", "br0", "up"]);
    let interface = "[[interface]]\nname = \"br0\"\nrole = \"both\"\nxdp = \"native\"\n";
    let said = host.refusal(&host.config("", "[0]", interface));
    assert_says(&said, &["br0", "native"]);
}

#[test]
fn queues_without_a_worker() {
    let Some(host) = Host::new() else { return };
    let said = host.refusal(&host.config("", "[0]", INTERFACES));
    assert_says(&said, &["lan0", "2 receive queues for 1 worker;", "ethtool -L lan0"]);
}

#[test]
fn interfaces_with_unequal_queues() {
    let Some(host) = Host::new() else { return };
    run(host.within("ethtool").args(["-L", "wan0", "rx", "1", "tx", "1"]));
    let said = host.refusal(&host.config("", CORES, INTERFACES));
    assert_says(&said, &["lan0", "another interface has 1", "ethtool -L lan0"]);
}

#[test]
fn a_core_that_does_not_exist() {
    let Some(host) = Host::new() else { return };
    let said = host.refusal(&host.config("", "[0, 999]", INTERFACES));
    assert_says(&said, &["workers.cores", "999"]);
}

#[test]
fn no_bpf_file_system() {
    let Some(host) = Host::new() else { return };
    let bpffs = format!("bpffs = \"{}\"", host.folder.path().display());
    let said = host.refusal(&host.config(&bpffs, CORES, INTERFACES));
    assert_says(&said, &["router.bpffs", "mount -t bpf bpf"]);
}

#[test]
fn reverse_path_filtering() {
    let Some(host) = Host::new() else { return };
    host.sysctl("net.ipv4.conf.all.rp_filter=1");
    let said = host.refusal(&host.config("", CORES, INTERFACES));
    assert_says(&said, &["sysctl -w net.ipv4.conf.all.rp_filter=0"]);
}

#[test]
fn a_control_socket_in_use() {
    let Some(host) = Host::new() else { return };
    let config = host.config("", CORES, INTERFACES);
    let _other = UnixListener::bind(host.path("control.sock")).expect("a socket");
    assert_says(&host.refusal(&config), &["control.sock", "another process listens on it"]);
}

#[test]
fn a_control_socket_path_that_is_no_socket() {
    let Some(host) = Host::new() else { return };
    let config = host.config("", CORES, INTERFACES);
    fs::write(host.path("control.sock"), "text").expect("a file");
    assert_says(&host.refusal(&config), &["control.sock", "a file with this name exists"]);
    let text = fs::read_to_string(host.path("control.sock")).expect("it is still there");
    assert_eq!(text, "text");
}

#[test]
fn a_metrics_port_in_use() {
    let Some(host) = Host::new() else { return };
    host.ip(&["link", "set", "lo", "up"]);
    let namespace = fs::File::open(format!("/run/netns/{}", host.name)).expect("the namespace");
    // A thread of its own enters the namespace, and no other is changed.
    let other = std::thread::spawn(move || {
        nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).expect("setns");
        TcpListener::bind("127.0.0.1:0").expect("a port")
    });
    let other = other.join().expect("the thread");
    let address = other.local_addr().expect("its address").to_string();
    let listen = format!("metrics_listen = \"{address}\"");
    assert_says(&host.refusal(&host.config(&listen, CORES, INTERFACES)), &[&address, "in use"]);
}

#[test]
fn a_plugin_that_is_no_module() {
    let Some(host) = Host::new() else { return };
    fs::write(host.path("broken.wasm"), b"\0asm nothing").expect("a file");
    let plugin = "[[plugin]]\nname = \"broken\"\npath = \"broken.wasm\"\nhook = \"ingress\"\n";
    let config = host.config("", CORES, &format!("{INTERFACES}{plugin}"));
    assert_says(&host.refusal(&config), &["broken"]);
}

#[test]
fn too_little_memory_to_lock() {
    let Some(host) = Host::new() else { return };
    let config = host.config("", CORES, INTERFACES);
    let said = host.refusal_without("-ipc_lock", &config);
    assert_says(&said, &["memlock", "ulimit -l unlimited"]);
}

#[test]
fn missing_capabilities() {
    let Some(host) = Host::new() else { return };
    let config = host.config("", CORES, INTERFACES);
    let said = host.refusal_without("-net_admin,-net_raw,-bpf,-sys_admin", &config);
    assert_says(&said, &["CAP_NET_RAW, CAP_NET_ADMIN, CAP_BPF", "AmbientCapabilities"]);
}

/// A router that runs; stopped at the end.
struct Running(Child);

impl Running {
    fn start(host: &Host, config: &Path) -> Self {
        let mut command = host.start(config);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a process");
        let running = Self(child);
        let deadline = Instant::now() + PATIENCE;
        while !status(host).status.success() {
            assert!(Instant::now() < deadline, "the router does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        running
    }
}

fn status(host: &Host) -> std::process::Output {
    let mut command = Command::new(SLUICE);
    command.args(["status", "--json", "--socket"]).arg(host.path("control.sock"));
    command.output().expect("the status")
}

impl Drop for Running {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.0.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

#[test]
fn a_second_router_of_the_same_name() {
    let Some(host) = Host::new() else { return };
    let config = host.config("", CORES, INTERFACES);
    let _first = Running::start(&host, &config);
    let text = fs::read_to_string(&config).expect("the configuration");
    let text = text.replace("control.sock", "other.sock");
    let second = host.path("second.toml");
    let text = text.replace("[workers]", "punt_device = \"sluice1\"\n[workers]");
    fs::write(&second, text).expect("the configuration can be written");
    assert_says(&host.refusal(&second), &["running"]);
}

#[test]
fn an_interface_that_disappears_stops_nothing_else() {
    let Some(host) = Host::new() else { return };
    let mut running = Running::start(&host, &host.config("", CORES, INTERFACES));
    host.ip(&["link", "del", "wan0"]);
    std::thread::sleep(Duration::from_millis(500));
    assert!(running.0.try_wait().expect("a process").is_none(), "the router has ended");
    let status = status(&host);
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
}

#[test]
fn within_ip_netns_exec_the_advice_is_what_works() {
    let Some(host) = Host::new() else { return };
    let config = host.config("", CORES, INTERFACES);
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &host.name, SLUICE, "preflight", "--config"]).arg(&config);
    let output = command.output().expect("ip runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let advice = format!("nsenter --net=/run/netns/{} in place of", host.name);
    assert!(!output.status.success() && text.contains(&advice), "{text}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("1 fault would stop"), "{text}{said}");
    // And it does work: the same in the way that is advised.
    let output = host.within(SLUICE).args(["preflight", "--config"]).arg(&config).output();
    let text = String::from_utf8(output.expect("it runs").stdout).expect("UTF-8");
    assert!(text.contains("BPF file system at"), "{text}");
}
