//! Attaching, dying, being taken over and going, judged by what the kernel behind the classifier gets.

mod common;

use std::{
    collections::BTreeSet,
    net::UdpSocket,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use common::{Namespace, run, veth, with_bpffs};
use frame::QueueIo;
use wire::InterfaceId;
use xdp::{
    AttachSpec, AttachedMode, Classifier, ClassifierRules, OnExit, Reason, Umem, UmemPlan,
    XdpError, XdpMode, XskOptions, XskQueue, detach, host,
};

const INSTANCE: &str = "test";
const TUNNEL_PORT: u16 = 6080;
const OTHER_PORT: u16 = 7000;

/// The kernel of the router has all three addresses, so that it would answer for each of them; what
/// the classifier is told differs.
const LOCAL: &str = "192.0.2.1";
const EGRESS: &str = "203.0.113.7";
const TRANSIT: &str = "198.51.100.1";

fn rules(on_exit: OnExit) -> ClassifierRules {
    ClassifierRules {
        locals: [LOCAL, EGRESS].map(|text| text.parse().expect("an address")).into(),
        egress: vec!["203.0.113.0/24".parse().expect("a prefix")],
        tunnels: vec![LOCAL.parse().expect("an address")],
        tunnel_port: TUNNEL_PORT,
        on_exit,
        ..ClassifierRules::default()
    }
}

fn spec(mode: XdpMode) -> Vec<AttachSpec> {
    vec![AttachSpec { name: "r0".into(), id: InterfaceId(3), mode }]
}

/// A router's namespace with a peer, and kernel sockets on both sides.
struct Scene {
    router: Namespace,
    _peer: Namespace,
    probe: UdpSocket,
    tunnel: UdpSocket,
    other: UdpSocket,
}

/// What is sent: a name, and where to.
const PROBES: [(&str, &str, u16); 4] = [
    ("local", LOCAL, OTHER_PORT),
    ("egress", EGRESS, OTHER_PORT),
    ("tunnel", LOCAL, TUNNEL_PORT),
    ("transit", TRANSIT, OTHER_PORT),
];

impl Scene {
    fn new() -> Self {
        let (router, peer) = (Namespace::new(), Namespace::new());
        veth((&router, "r0"), (&peer, "p0"));
        router.run(&format!("ip addr add {LOCAL}/24 dev r0"));
        router.run(&format!("ip addr add {EGRESS}/32 dev lo"));
        router.run(&format!("ip addr add {TRANSIT}/32 dev lo"));
        peer.run("ip addr add 192.0.2.77/24 dev p0");
        peer.run(&format!("ip route add default via {LOCAL}"));
        let bind = |address: (&str, u16)| {
            let socket = UdpSocket::bind(address).expect("the address is free");
            socket.set_nonblocking(true).expect("sockets can be non-blocking");
            socket
        };
        let (tunnel, other) =
            router.enter(|| (bind(("0.0.0.0", TUNNEL_PORT)), bind(("0.0.0.0", OTHER_PORT))));
        let probe = peer.enter(|| bind(("192.0.2.77", 0)));
        Self { router, _peer: peer, probe, tunnel, other }
    }

    fn send(&self) {
        for (name, address, port) in PROBES {
            // A full queue is no matter of this test.
            let _ = self.probe.send_to(name.as_bytes(), (address, port));
        }
    }

    /// What the router's kernel has got since the last call.
    fn received(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        let mut buffer = [0; 64];
        for socket in [&self.tunnel, &self.other] {
            while let Ok(length) = socket.recv(&mut buffer) {
                names.insert(String::from_utf8_lossy(&buffer[..length]).into_owned());
            }
        }
        names
    }

    /// Sends one of each and asserts which of them the router's kernel gets.
    fn expect(&self, when: &str, expected: &[&str]) {
        self.received();
        let expected: BTreeSet<String> = expected.iter().map(|&name| name.into()).collect();
        let deadline = Instant::now() + Duration::from_secs(2);
        let mut got = BTreeSet::new();
        // Repeated, since the first packet to a neighbor may be lost; then once more, for what must
        // not come.
        while !got.is_superset(&expected) && Instant::now() < deadline {
            self.send();
            std::thread::sleep(Duration::from_millis(20));
            got.append(&mut self.received());
        }
        for _ in 0..5 {
            self.send();
            std::thread::sleep(Duration::from_millis(10));
            got.append(&mut self.received());
        }
        assert_eq!(got, expected, "{when}");
    }

    fn program(&self) -> Option<(u32, AttachedMode)> {
        self.router.enter(|| host::interface("r0").expect("the interface is there").xdp_program)
    }
}

/// Sockets on both queues, so that the classifier has where to send.
fn sockets(classifier: &mut Classifier) -> Vec<XskQueue> {
    let (umem, mut pools) = Umem::new(UmemPlan::new(1, 2048)).expect("a UMEM");
    let options =
        XskOptions { receiving_frames_max: 512, busy_poll: false, ..XskOptions::for_worker(0) };
    (0..2)
        .map(|queue_id| {
            let (mut queue, _) = XskQueue::bind(&umem, InterfaceId(3), "r0", queue_id, options)
                .expect("a socket can be bound");
            queue.refill(&mut pools[0]);
            classifier.set_socket(InterfaceId(3), queue_id, &queue).expect("the map takes it");
            queue
        })
        .collect()
}

/// The other process of the tests below: attaches, says so, and waits to be killed.
#[test]
#[ignore = "not a test: a process that other tests start and kill"]
fn child() {
    let Ok(bpffs) = std::env::var("SLUICE_TEST_BPFFS") else { return };
    let on_exit =
        if std::env::var("SLUICE_TEST_DROP").is_ok() { OnExit::Drop } else { OnExit::Kernel };
    let (mut classifier, _) =
        Classifier::attach(INSTANCE, Path::new(&bpffs), &spec(XdpMode::Auto), &rules(on_exit))
            .expect("the classifier can be attached");
    let _queues = sockets(&mut classifier);
    std::fs::write(std::env::var("SLUICE_TEST_READY").expect("a path"), "").expect("a file");
    std::thread::sleep(Duration::from_secs(60));
}

/// Starts [`child`] within the thread's namespaces and waits until it is ready.
fn start_child(bpffs: &Path, on_exit: OnExit) -> Child {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let ready: PathBuf = directory.path().join("ready");
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .env("SLUICE_TEST_BPFFS", bpffs)
        .env("SLUICE_TEST_READY", &ready)
        .stdout(Stdio::null());
    if on_exit == OnExit::Drop {
        command.env("SLUICE_TEST_DROP", "1");
    }
    let mut child = command.spawn().expect("the child starts");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !ready.exists() {
        assert!(child.try_wait().expect("wait works").is_none(), "the child died");
        assert!(Instant::now() < deadline, "the child does not get ready");
        std::thread::sleep(Duration::from_millis(10));
    }
    child
}

/// Ends a thread's loop also when the thread that waits for it panics.
struct StopOnDrop<'flag>(&'flag AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_killed_router_fails_closed_and_is_taken_over_without_a_gap() {
    with_bpffs("a_killed_router_fails_closed_and_is_taken_over_without_a_gap", |bpffs| {
        let scene = Scene::new();
        scene.expect("before", &["local", "egress", "tunnel", "transit"]);
        let mut child = scene.router.enter(|| start_child(bpffs, OnExit::Kernel));
        scene.expect("while it runs", &["local"]);
        let (first_program, _) = scene.program().expect("a program is attached");

        // Another router of that name must not steal the interface.
        let error = scene
            .router
            .enter(|| {
                Classifier::attach(INSTANCE, bpffs, &spec(XdpMode::Auto), &rules(OnExit::Kernel))
            })
            .map(drop)
            .expect_err("the instance runs");
        assert!(matches!(error, XdpError::InstanceRunning { .. }), "{error}");
        let error = detach(INSTANCE, bpffs).expect_err("the instance runs");
        assert!(matches!(error, XdpError::InstanceRunning { .. }), "{error}");
        scene.expect("after these attempts", &["local"]);

        child.kill().expect("SIGKILL");
        child.wait().expect("it is dead");
        assert_eq!(
            scene.program().map(|(id, _)| id),
            Some(first_program),
            "the program outlives it"
        );
        scene.expect("after kill -9", &["local", "transit"]);

        // Taken over, several times, while probes come without a pause.
        let stop = AtomicBool::new(false);
        let leaked = std::thread::scope(|scope| {
            let flood = scope.spawn(|| {
                let mut got = BTreeSet::new();
                while !stop.load(Ordering::Relaxed) {
                    scene.send();
                    got.append(&mut scene.received());
                }
                std::thread::sleep(Duration::from_millis(50));
                got.append(&mut scene.received());
                got
            });
            let stop_flood = StopOnDrop(&stop);
            let mut program = first_program;
            let mut expect_new_program = || {
                let (next, _) = scene.program().expect("a program is attached");
                assert_ne!(next, program, "the program is a new one");
                program = next;
            };
            for _ in 0..3 {
                let mut child = scene.router.enter(|| start_child(bpffs, OnExit::Kernel));
                expect_new_program();
                child.kill().expect("SIGKILL");
                child.wait().expect("it is dead");
            }
            scene.router.enter(|| {
                let (mut classifier, modes) = Classifier::attach(
                    INSTANCE,
                    bpffs,
                    &spec(XdpMode::Auto),
                    &rules(OnExit::Kernel),
                )
                .expect("it is taken over");
                assert_eq!(modes, [AttachedMode::Native]);
                let _queues = sockets(&mut classifier);
                std::thread::sleep(Duration::from_millis(50));
                let counters = classifier.counters().expect("counters can be read");
                let egress = counters.iter().find(|value| value.reason == Reason::ToXskEgress);
                assert!(egress.is_some_and(|value| value.packets > 0), "{counters:?}");
            });
            expect_new_program();
            drop(stop_flood);
            flood.join().expect("the flood ends")
        });
        assert!(leaked.contains("local"), "management stays open");
        assert!(!leaked.contains("egress"), "an egress packet passed the classifier");
        assert!(!leaked.contains("tunnel"), "a tunnel packet passed the classifier");

        let removed = detach(INSTANCE, bpffs).expect("nobody runs");
        assert!(removed.contains(&"classifier of interface r0".to_owned()), "{removed:?}");
        assert!(removed.contains(&"map xsks".to_owned()), "{removed:?}");
        assert_eq!(scene.program(), None);
        scene.expect("after detach", &["local", "egress", "tunnel", "transit"]);
        assert_eq!(detach(INSTANCE, bpffs).expect("once more"), Vec::<String>::new());
        assert!(!bpffs.join("sluice").exists(), "nothing is left in bpffs");
    });
}

#[test]
fn on_exit_drop_closes_transit_too() {
    with_bpffs("on_exit_drop_closes_transit_too", |bpffs| {
        let scene = Scene::new();
        let mut child = scene.router.enter(|| start_child(bpffs, OnExit::Drop));
        scene.expect("while it runs", &["local"]);
        child.kill().expect("SIGKILL");
        child.wait().expect("it is dead");
        scene.expect("after kill -9", &["local"]);
        detach(INSTANCE, bpffs).expect("nobody runs");
    });
}

#[test]
fn sockets_and_counters_are_per_interface_and_queue() {
    with_bpffs("sockets_and_counters_are_per_interface_and_queue", |bpffs| {
        let scene = Scene::new();
        scene.router.enter(|| {
            run("ip link add name d0 type veth peer name d1");
            run("ip link set d0 up");
            let mut specs = spec(XdpMode::Generic);
            specs.push(AttachSpec { name: "d0".into(), id: InterfaceId(5), mode: XdpMode::Native });
            let (mut classifier, modes) =
                Classifier::attach(INSTANCE, bpffs, &specs, &rules(OnExit::Drop))
                    .expect("the classifier can be attached");
            assert_eq!(modes, [AttachedMode::Generic, AttachedMode::Native]);
            assert_eq!(scene.program().map(|(_, mode)| mode), Some(AttachedMode::Generic));
            scene.expect("without sockets", &["local"]);
            let count = |classifier: &Classifier, interface: u8, reason: Reason| -> u64 {
                let counters = classifier.counters().expect("counters can be read");
                counters
                    .iter()
                    .filter(|value| {
                        (value.interface, value.reason) == (InterfaceId(interface), reason)
                    })
                    .map(|value| value.packets)
                    .sum()
            };
            for reason in [
                Reason::DropEgressNoSocket,
                Reason::DropTunnelNoSocket,
                Reason::DropOnExit,
                Reason::KernelLocal,
            ] {
                assert!(count(&classifier, 3, reason) >= 5, "{reason:?}");
                assert_eq!(count(&classifier, 5, reason), 0, "{reason:?}");
            }
            assert_eq!(count(&classifier, 3, Reason::ToXskForward), 0);

            let queues = sockets(&mut classifier);
            scene.expect("with sockets", &["local"]);
            let with_sockets = count(&classifier, 3, Reason::ToXskForward);
            assert!(with_sockets >= 5);
            let dropped = count(&classifier, 3, Reason::DropOnExit);

            for queue in &queues {
                classifier.clear_socket(InterfaceId(3), queue.queue_id()).expect("it is there");
                classifier
                    .clear_socket(InterfaceId(3), queue.queue_id())
                    .expect("twice is the same");
            }
            classifier.update_rules(&rules(OnExit::Kernel)).expect("the rules fit");
            scene.expect("sockets cleared, on_exit changed", &["local", "transit"]);
            assert_eq!(count(&classifier, 3, Reason::ToXskForward), with_sockets);
            assert_eq!(count(&classifier, 3, Reason::DropOnExit), dropped);
            assert!(count(&classifier, 3, Reason::KernelOnExit) >= 5);

            let queue = &queues[0];
            let error = classifier.set_socket(InterfaceId(4), 0, queue).expect_err("not attached");
            assert!(matches!(error, XdpError::UnattachedInterface(4)), "{error}");
            let error = classifier.set_socket(InterfaceId(3), 64, queue).expect_err("no place");
            assert!(matches!(error, XdpError::OutOfRange { value: 64, .. }), "{error}");
            drop(classifier);

            // An interface that is not configured any more is left alone.
            let (classifier, _) =
                Classifier::attach(INSTANCE, bpffs, &spec(XdpMode::Auto), &rules(OnExit::Kernel))
                    .expect("it is taken over, in the mode that it has");
            assert_eq!(host::interface("d0").expect("it is there").xdp_program, None);
            assert_eq!(scene.program().map(|(_, mode)| mode), Some(AttachedMode::Generic));
            drop(classifier);
            let error =
                Classifier::attach(INSTANCE, bpffs, &spec(XdpMode::Native), &rules(OnExit::Kernel))
                    .map(drop)
                    .expect_err("it is attached in generic mode");
            assert!(error.to_string().contains("sluice detach"), "{error}");
        });
        detach(INSTANCE, bpffs).expect("nobody runs");
    });
}

#[test]
fn a_foreign_program_is_not_touched() {
    with_bpffs("a_foreign_program_is_not_touched", |bpffs| {
        let scene = Scene::new();
        scene.router.enter(|| {
            let (_other, _) =
                Classifier::attach("other", bpffs, &spec(XdpMode::Auto), &rules(OnExit::Drop))
                    .expect("the first one can be attached");
            let program = scene.program();
            let error =
                Classifier::attach(INSTANCE, bpffs, &spec(XdpMode::Auto), &rules(OnExit::Kernel))
                    .map(drop)
                    .expect_err("the interface has a program");
            let XdpError::ForeignProgram { program_id, .. } = &error else { panic!("{error}") };
            assert_eq!(Some(*program_id), program.map(|(id, _)| id));
            assert!(error.to_string().contains("ip link set dev r0 xdp off"), "{error}");
            assert_eq!(scene.program(), program, "it is still there");
        });
        assert!(!detach("other", bpffs).expect("nobody runs").is_empty());
        // A failed start leaves at most an empty directory.
        assert_eq!(detach(INSTANCE, bpffs).expect("nobody runs"), Vec::<String>::new());
    });
}

#[test]
fn an_interface_made_anew_gets_a_new_link() {
    with_bpffs("an_interface_made_anew_gets_a_new_link", |bpffs| {
        let (router, peer) = (Namespace::new(), Namespace::new());
        let attach = || {
            router.enter(|| {
                Classifier::attach(INSTANCE, bpffs, &spec(XdpMode::Auto), &rules(OnExit::Drop))
                    .map(drop)
            })
        };
        let program =
            || router.enter(|| host::interface("r0").expect("the interface is there").xdp_program);
        veth((&router, "r0"), (&peer, "p0"));
        attach().expect("the classifier can be attached");
        assert!(program().is_some());
        router.run("ip link del r0");
        veth((&router, "r0"), (&peer, "p0"));
        assert_eq!(program(), None);
        attach().expect("the stale link is replaced");
        assert!(program().is_some());

        // The name goes to another interface: the old one is given back to the kernel.
        router.run("ip link set r0 down");
        router.run("ip link set r0 name was0");
        veth((&router, "r0"), (&peer, "p1"));
        attach().expect("the link of the other interface is not taken for ours");
        assert!(program().is_some());
        let renamed =
            router.enter(|| host::interface("was0").expect("the interface is there").xdp_program);
        assert_eq!(renamed, None);
        router.run("ip link del r0");
        let removed = detach(INSTANCE, bpffs).expect("nobody runs");
        assert!(removed.contains(&"stale link of interface r0".to_owned()), "{removed:?}");
    });
}

#[test]
fn what_cannot_be_attached_is_refused_with_a_reason() {
    with_bpffs("what_cannot_be_attached_is_refused_with_a_reason", |bpffs| {
        let router = Namespace::new();
        router.enter(|| {
            run("ip link add name r0 type veth peer name p0");
            let attach = |instance: &str, bpffs: &Path, specs: &[AttachSpec]| {
                Classifier::attach(instance, bpffs, specs, &rules(OnExit::Kernel))
                    .map(drop)
                    .expect_err("it is refused")
            };
            let good = spec(XdpMode::Auto);
            let error = attach(INSTANCE, Path::new("/tmp"), &good);
            assert!(error.to_string().contains("mount -t bpf bpf /sys/fs/bpf"), "{error}");
            let error = detach(INSTANCE, Path::new("/tmp")).expect_err("no bpffs");
            assert!(matches!(error, XdpError::NotBpffs { .. }), "{error}");
            for name in ["", "a/b", "..", "a b"] {
                assert!(matches!(attach(name, bpffs, &good), XdpError::PinName { .. }), "{name:?}");
            }
            assert!(matches!(attach(INSTANCE, bpffs, &[]), XdpError::OutOfRange { .. }));
            let mut missing = good.clone();
            missing[0].name = "nothing".into();
            let error = attach(INSTANCE, bpffs, &missing);
            assert!(matches!(error, XdpError::UnknownInterface { .. }), "{error}");

            // veth refuses native XDP when a packet of the peer may exceed a page.
            run("ip link set r0 mtu 9000");
            run("ip link set p0 mtu 9000");
            let native = spec(XdpMode::Native);
            let error = attach(INSTANCE, bpffs, &native);
            assert!(matches!(error, XdpError::Attach { mode: "native", .. }), "{error}");
            let (_classifier, modes) =
                Classifier::attach(INSTANCE, bpffs, &good, &rules(OnExit::Kernel))
                    .expect("in the stack it works");
            assert_eq!(modes, [AttachedMode::Generic]);
        });
        detach(INSTANCE, bpffs).expect("nobody runs");
    });
}
