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

/// Multiplies so many numbers for each packet, each with the one before, and lets the packet go on.
fn module(products: u32) -> Vec<u8> {
    let text = format!(
        r#"(module
    (@custom "sluice.manifest" "abi = \"1.0\"\nname = \"burns\"\nhooks = [\"ingress\"]\nmemory_max_bytes = 1048576\n")
    (memory (export "memory") 1)
    (data (i32.const 16) "\30\00\00\00\00\01\00\00\00\04\00\00\40\00\00\00\00\80\00\00\08\00\00\00\00\a0\00\00\00\10\00\00\00\c0\00\00\00\01\00\00\00\e0\00\00\00\00\00\00")
    (func (export "sluice_abi_version") (result i32) i32.const 0x10000)
    (func (export "sluice_layout") (result i32) i32.const 16)
    (func (export "sluice_configure") (param i32) (result i32) i32.const 0)
    (func (export "sluice_process") (param $n i32) (param $now i64) (local $i i32) (local $product i64)
      (local.set $product (i64.const 3))
      (local.set $i (i32.mul (local.get $n) (i32.const {products})))
      (block $end (loop $next
        (br_if $end (i32.eqz (local.get $i)))
        (local.set $product
          (i64.mul (local.get $product) (i64.add (local.get $product) (i64.const 5))))
        (local.set $i (i32.sub (local.get $i) (i32.const 1)))
        (br $next)))
      (i64.store (i32.const 60000) (local.get $product))))"#
    );
    wat::parse_str(&text).expect("a module")
}

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn a_running_router_prices_plugins_and_refuses_what_goes_beyond_its_budget() {
    if !net::available("prices of plugins") {
        return;
    }
    let TwoLinks { tap, space, far: _far } = TwoLinks::new();
    let rest = "[[neighbor]]\naddress = \"10.1.0.2\"\ninterface = \"lan0\"\n\
                mac = \"02:00:00:00:00:cc\"\n";
    let router = Router::start(&space, &INTERFACES, rest);
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
    let before = router.received();
    for port in 0..128 {
        let source = (Ipv4Addr::new(198, 51, 100, 7), 53);
        tap.send(
            WAN,
            &udp_frame(WAN_MAC, source, (Ipv4Addr::new(10, 1, 0, 2), 2000 + port), &[0; 4]),
        );
    }
    wait_until("the packets came", PATIENCE, || router.received() >= before + 128);
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
    tap.send(
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
