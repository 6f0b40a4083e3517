//! What plugins cost on a running router, and what its budget refuses, in network namespaces that the test
//! makes, with traffic; skipped without root.

mod common;

#[path = "common/net/mod.rs"]
mod net;

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use net::two_links::{INTERFACES, TwoLinks, WAN, WAN_MAC, udp_frame};
use net::{Router, wait_until};

const PATIENCE: Duration = Duration::from_secs(30);

/// Gives up at every packet.
fn gives_up() -> Vec<u8> {
    with_process("(if (local.get $n) (then unreachable))")
}

/// Multiplies so many numbers for each packet, each with the one before, and lets the packet go on.
fn module(products: u32) -> Vec<u8> {
    with_process(&format!(
        "(local $i i32) (local $product i64)
      (local.set $product (i64.const 3))
      (local.set $i (i32.mul (local.get $n) (i32.const {products})))
      (block $end (loop $next
        (br_if $end (i32.eqz (local.get $i)))
        (local.set $product
          (i64.mul (local.get $product) (i64.add (local.get $product) (i64.const 5))))
        (local.set $i (i32.sub (local.get $i) (i32.const 1)))
        (br $next)))
      (i64.store (i32.const 60000) (local.get $product))"
    ))
}

fn with_process(process: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
    (@custom "sluice.manifest" "abi = \"1.0\"\nname = \"burns\"\nhooks = [\"ingress\"]\nmemory_max_bytes = 1048576\n")
    (memory (export "memory") 1)
    (data (i32.const 16) "\30\00\00\00\00\01\00\00\00\04\00\00\40\00\00\00\00\80\00\00\08\00\00\00\00\a0\00\00\00\10\00\00\00\c0\00\00\00\01\00\00\00\e0\00\00\00\00\00\00")
    (func (export "sluice_abi_version") (result i32) i32.const 0x10000)
    (func (export "sluice_layout") (result i32) i32.const 16)
    (func (export "sluice_configure") (param i32) (result i32) i32.const 0)
    (func (export "sluice_process") (param $n i32) (param $now i64) {process}))"#
    );
    wat::parse_str(&text).expect("a module")
}

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A router between two links, whose neighbor is known.
fn router_between(links: &TwoLinks) -> Router {
    let rest = "[[neighbor]]\naddress = \"10.1.0.2\"\ninterface = \"lan0\"\n\
                mac = \"02:00:00:00:00:cc\"\n";
    Router::start(&links.space, &INTERFACES, rest)
}

/// Sends so many packets that plugins are priced by them.
fn send_enough(links: &TwoLinks, router: &Router) {
    let before = router.received();
    for port in 0..128 {
        let (source, destination) = (Ipv4Addr::new(198, 51, 100, 7), Ipv4Addr::new(10, 1, 0, 2));
        let frame = udp_frame(WAN_MAC, (source, 53), (destination, 2000 + port), &[0; 4]);
        links.tap.send(WAN, &frame);
    }
    wait_until("the packets came", PATIENCE, || router.received() >= before + 128);
}

#[test]
fn what_traps_on_everything_received_and_what_was_refused_are_shown() {
    if !net::available("refused plugins") {
        return;
    }
    let links = TwoLinks::new();
    let router = router_between(&links);
    let (good, traps) = (router.file("good.wasm"), router.file("gives-up.wasm"));
    fs::write(&good, module(1)).expect("a file");
    fs::write(&traps, gives_up()).expect("a file");
    let inspected = router.inspect(&good);
    let pin = inspected["sha256"].as_str().expect("a hash");
    let plain = fs::read_to_string(router.file("sluice.toml")).expect("the configuration");
    let plugin = format!(
        "{plain}[[plugin]]\nname = \"one\"\npath = \"good.wasm\"\nhook = \"ingress\"\nsha256 = \"{pin}\"\n"
    );
    fs::write(router.file("sluice.toml"), &plugin).expect("a file");
    router.reload();
    assert!(!router.done(&["plugin", "list"]).contains("refused"));

    // Another file in the place of the pinned one: what runs goes on, and that it is not the file's is shown.
    let other = router.file("other.wasm");
    fs::write(&other, module(2)).expect("a file");
    fs::rename(&other, &good).expect("a file");
    wait_until("the file is refused", PATIENCE, || {
        router.json(&["plugin", "list"])[0]["last_refusal"].is_object()
    });
    let listed = router.json(&["plugin", "list"]);
    assert_eq!((&listed[0]["generation"], &listed[0]["refused"]), (&1.into(), &1.into()));
    let text = router.done(&["plugin", "list"]);
    let told = text.lines().find(|line| line.starts_with("  refused   ")).expect("a line");
    assert!(told.contains(" s ago (1 in all): the file's SHA-256 is "), "{told}");
    assert!(told.contains(pin), "{told}");
    let status = router.done(&["status"]);
    assert!(status.contains("  one refused ") && status.contains(pin), "{status}");
    fs::write(&other, module(1)).expect("a file");
    fs::rename(&other, &good).expect("a file");
    wait_until("the file is the pinned one again", PATIENCE, || {
        router.json(&["plugin", "list"])[0]["last_refusal"].is_null()
    });

    // A module that traps on every packet that came is not loaded, unless somebody insists.
    send_enough(&links, &router);
    let trapped = |text: &str| {
        assert!(text.contains("recorded batches: it gave up"), "{text}");
        text.contains(" trapped on ")
    };
    let load = ["plugin", "load", "one", path(&traps)];
    let refused = router.refused(&load);
    assert!(trapped(&refused) && refused.contains("--allow-traps"), "{refused}");
    assert_eq!(router.json(&["plugin", "list"])[0]["generation"], 1);
    let loaded = router.done(&[&load[..], &["--allow-traps"]].concat());
    assert!(trapped(&loaded) && !loaded.contains("cycles a packet"), "{loaded}");
    let listed = router.done(&["plugin", "list"]);
    assert!(listed.contains("  price     trapped on ") && trapped(&listed), "{listed}");
    assert!(router.done(&["status"]).contains("  one priced: trapped on "));
    // By a configuration likewise.
    let entry = "[[plugin]]\nname = \"two\"\npath = \"gives-up.wasm\"\nhook = \"ingress\"\n";
    fs::write(router.file("sluice.toml"), plugin + entry).expect("a file");
    assert!(trapped(&router.refused(&["reload"])));
    router.done(&["reload", "--allow-traps"]);
    assert_eq!(router.json(&["plugin", "list"]).as_array().map(Vec::len), Some(2));
    router.assert_conserved();
}

#[test]
fn a_running_router_prices_plugins_and_refuses_what_goes_beyond_its_budget() {
    if !net::available("prices of plugins") {
        return;
    }
    let links = TwoLinks::new();
    let router = router_between(&links);
    let (cheap, expensive) = (router.file("cheap.wasm"), router.file("expensive.wasm"));
    fs::write(&cheap, module(1)).expect("a file");
    fs::write(&expensive, module(4000)).expect("a file");
    let plain = fs::read_to_string(router.file("sluice.toml")).expect("the configuration");
    let with = |budget: &str, plugins: &[(&str, &str)]| {
        let plugins = plugins.iter().map(|(name, file)| {
            format!("[[plugin]]\nname = \"{name}\"\npath = \"{file}\"\nhook = \"ingress\"\n")
        });
        let text = format!("{plain}{}[plugins]\n{budget}", plugins.collect::<String>());
        fs::write(router.file("sluice.toml"), text).expect("a file");
    };
    let budget = "budget_cycles_per_packet = 3000\n";
    with(budget, &[("one", "cheap.wasm")]);
    router.reload();

    // Before there was traffic it is priced by generated packets.
    let listed = router.json(&["plugin", "list"]);
    assert_eq!(listed[0]["price"]["traffic"], "generated", "{listed}");
    send_enough(&links, &router);
    let report = router.json(&["plugin", "load", "one"]);
    let price = &report["price"];
    assert_eq!((&price["traffic"], report["generation"].as_u64()), (&"recent".into(), Some(2)));
    assert!(price["packets"].as_u64().is_some_and(|packets| packets >= 128), "{report}");
    assert!(price["cycles_per_packet"].as_f64().is_some_and(|cycles| cycles > 0.0), "{report}");
    assert!(price["cores"].as_f64().is_some_and(f64::is_finite), "{report}");
    let loaded = router.done(&["plugin", "load", "one", path(&cheap)]);
    assert!(loaded.contains("recent packets): ") && loaded.contains(" cores at "), "{loaded}");
    assert!(router.done(&["plugin", "list"]).contains("  price     "));

    // By command, beside the plugin, and by a configuration: all refused, and what ran runs.
    for words in [
        &["plugin", "load", "one", path(&expensive)][..],
        &["plugin", "load", "--shadow", "one", path(&expensive)],
    ] {
        let refused = router.refused(words);
        assert!(refused.contains("`plugins.budget_cycles_per_packet` is 3000: one"), "{refused}");
    }
    with(budget, &[("one", "cheap.wasm"), ("two", "expensive.wasm")]);
    let refused = router.refused(&["reload"]);
    assert!(refused.contains("one ") && refused.contains("two "), "{refused}");
    let listed = router.json(&["plugin", "list"]);
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    assert_eq!(listed[0]["generation"], 3, "{listed}");
    let judged = listed[0]["total"]["packets"].as_u64().expect("a number");
    links.tap.send(
        WAN,
        &udp_frame(
            WAN_MAC,
            (Ipv4Addr::new(198, 51, 100, 7), 53),
            (Ipv4Addr::new(10, 1, 0, 2), 9),
            &[0; 4],
        ),
    );
    wait_until("it judges on", PATIENCE, || {
        router.json(&["plugin", "list"])[0]["total"]["packets"].as_u64() > Some(judged)
    });

    // A budget may be changed by a reload, and taken away.
    with("", &[("one", "cheap.wasm"), ("two", "expensive.wasm")]);
    router.reload();
    assert_eq!(router.json(&["plugin", "list"]).as_array().map(Vec::len), Some(2));
    with(budget, &[("one", "cheap.wasm"), ("two", "expensive.wasm")]);
    router.refused(&["reload"]);
    router.assert_conserved();
}
