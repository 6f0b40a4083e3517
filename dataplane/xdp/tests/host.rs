//! Facts of interfaces, compared with what `ip` and `ethtool` were told to make of them.

mod common;

use std::time::{Duration, Instant};

use common::{Namespace, run, veth, with_bpffs};
use wire::{InterfaceId, MacAddress};
use xdp::{AttachSpec, AttachedMode, Classifier, ClassifierRules, XdpError, XdpMode, host};

#[test]
fn facts_of_a_veth_are_those_that_were_set() {
    with_bpffs("facts_of_a_veth_are_those_that_were_set", |bpffs| {
        let (here, there) = (Namespace::new(), Namespace::new());
        veth((&here, "v0"), (&there, "v1"));
        here.enter(|| {
            run("ip link set v0 address 02:00:00:00:0a:01 mtu 1700");
            let facts = host::interface("v0").expect("the interface is there");
            assert_eq!(facts.index, host::interface_index("v0").expect("it is there"));
            assert_eq!(facts.mac, Some(MacAddress([2, 0, 0, 0, 10, 1])));
            assert_eq!((facts.mtu, facts.driver.as_str(), facts.is_veth), (1700, "veth", true));
            assert_eq!((facts.rx_queues, facts.tx_queues), (Some(2), Some(2)));
            assert_eq!(facts.channels.map(|channels| channels.rx_max), Some(2));
            assert!(facts.is_up && facts.is_running);
            assert_eq!(facts.xdp_program, None);
            assert_eq!(facts.ena_large_llq, None);
            if host::kernel_version().expect("uname works") >= (6, 3) {
                assert_eq!((facts.native_xdp, facts.zero_copy), (Some(true), Some(false)));
            }
            let offloads = facts.offloads;
            assert_eq!(
                (offloads.tx_checksum, offloads.tso, offloads.gso, offloads.gro),
                (Some(false), Some(false), Some(false), Some(false))
            );

            run("ethtool -K v0 tx on tso on gso on gro on");
            let offloads = host::interface("v0").expect("the interface is there").offloads;
            assert_eq!(
                (offloads.tx_checksum, offloads.tso, offloads.gso, offloads.gro),
                (Some(true), Some(true), Some(true), Some(true))
            );

            let spec = AttachSpec { name: "v0".into(), id: InterfaceId(0), mode: XdpMode::Native };
            let _attached =
                Classifier::attach("facts", bpffs, &[spec], &ClassifierRules::default())
                    .expect("the classifier can be attached");
            let facts = host::interface("v0").expect("the interface is there");
            assert!(matches!(facts.xdp_program, Some((id, AttachedMode::Native)) if id > 0));

            there.run("ip link set v1 down");
            // The kernel notices the carrier's loss in the background.
            let deadline = Instant::now() + Duration::from_secs(3);
            let facts = loop {
                let facts = host::interface("v0").expect("the interface is there");
                if !facts.is_running || Instant::now() > deadline {
                    break facts;
                }
                std::thread::sleep(Duration::from_millis(20));
            };
            assert!(facts.is_up && !facts.is_running, "no carrier");
            run("ip link set v0 down");
            assert!(!host::interface("v0").expect("the interface is there").is_up);

            let facts = host::interface("lo").expect("loopback is there");
            assert_eq!((facts.mac, facts.is_veth), (None, false), "loopback is no Ethernet");
            let error = host::interface("nothing").expect_err("there is none");
            assert!(matches!(error, XdpError::UnknownInterface { .. }), "{error}");
            let error = host::interface("a-name-that-is-too-long").expect_err("there is none");
            assert!(matches!(error, XdpError::UnknownInterface { .. }), "{error}");
        });
    });
}

#[test]
fn the_host_is_described() {
    with_bpffs("the_host_is_described", |bpffs| {
        assert!(host::is_bpffs(bpffs));
        let capabilities = host::capabilities().expect("capget works");
        assert!(capabilities.net_admin && capabilities.net_raw && capabilities.bpf, "of root");
        host::memlock_limit().expect("getrlimit works");
        let siblings = host::hyperthread_siblings(0).expect("there is a CPU 0");
        assert!(siblings.contains(&0));
        assert!(host::hyperthread_siblings(1 << 20).is_err());
    });
}

#[test]
fn counters_of_the_driver_are_those_that_ethtool_shows() {
    with_bpffs("counters_of_the_driver_are_those_that_ethtool_shows", |_| {
        let (here, there) = (Namespace::new(), Namespace::new());
        veth((&here, "v0"), (&there, "v1"));
        here.enter(|| {
            let counters = host::driver_statistics("v0").expect("the interface is there");
            let output = std::process::Command::new("ethtool")
                .args(["-S", "v0"])
                .output()
                .expect("ethtool can be run");
            let text = String::from_utf8(output.stdout).expect("ethtool writes text");
            // Behind the headline; `name: value`, indented.
            let shown: Vec<_> = text
                .lines()
                .skip(1)
                .filter_map(|line| line.trim().rsplit_once(": "))
                .map(|(name, value)| (name.to_owned(), value.parse().expect("a number")))
                .collect();
            assert!(shown.iter().any(|(name, _)| name == "peer_ifindex"), "{text}");
            assert_eq!(counters, shown);

            assert_eq!(host::driver_statistics("lo").expect("it is there"), Vec::new());
            assert!(matches!(
                host::driver_statistics("none"),
                Err(XdpError::UnknownInterface { .. })
            ));
        });
    });
}
