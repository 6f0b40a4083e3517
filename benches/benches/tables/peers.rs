//! Other tables with the same routes and destinations: the crates prefix-trie and treebitmap here;
//! DPDK's and the kernel's by harnesses in C (`benches/peers/`), which print what they measured.

use std::path::{Path, PathBuf};
use std::process::Command;

use benches::destinations::{self, Spread};
use benches::routes::Routes;
use criterion::Criterion;
use ip_network_table_deps_treebitmap::IpLookupTable;
use ipnet::{Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;
use tables::RouteId;

use super::{bench_batches, group};

/// Slow ones are asked for fewer addresses at a time, so that the bench ends.
const BATCH: usize = 64;

pub(super) fn crates(criterion: &mut Criterion) {
    let routes = Routes::full();
    let trie4: PrefixMap<Ipv4Net, RouteId> =
        routes.v4.iter().map(|&(prefix, id)| (prefix.trunc(), id)).collect();
    let trie6: PrefixMap<Ipv6Net, RouteId> =
        routes.v6.iter().map(|&(prefix, id)| (prefix.trunc(), id)).collect();
    let mut bitmap4 = IpLookupTable::new();
    for &(prefix, id) in &routes.v4 {
        bitmap4.insert(prefix.network(), prefix.prefix_len().into(), id);
    }
    let mut bitmap6 = IpLookupTable::new();
    for &(prefix, id) in &routes.v6 {
        bitmap6.insert(prefix.network(), prefix.prefix_len().into(), id);
    }
    for spread in Spread::ALL {
        let mut peers = group(criterion, &format!("peers4/{}", spread.name()));
        let to = destinations::v4(spread, &routes.v4);
        bench_batches(&mut peers, "prefix-trie", BATCH, &to, RouteId::NONE, |from, to| {
            for (&address, result) in from.iter().zip(to) {
                let host = Ipv4Net::new_assert(address.into(), 32);
                *result = trie4.get_lpm(&host).map_or(RouteId::NONE, |(_, &id)| id);
            }
        });
        bench_batches(&mut peers, "treebitmap", BATCH, &to, RouteId::NONE, |from, to| {
            for (&address, result) in from.iter().zip(to) {
                let found = bitmap4.longest_match(address.into());
                *result = found.map_or(RouteId::NONE, |(_, _, &id)| id);
            }
        });
        peers.finish();
        let mut peers = group(criterion, &format!("peers6/{}", spread.name()));
        let to = destinations::v6(spread, &routes.v6);
        bench_batches(&mut peers, "prefix-trie", BATCH, &to, RouteId::NONE, |from, to| {
            for (&address, result) in from.iter().zip(to) {
                let host = Ipv6Net::new_assert(address.into(), 128);
                *result = trie6.get_lpm(&host).map_or(RouteId::NONE, |(_, &id)| id);
            }
        });
        bench_batches(&mut peers, "treebitmap", BATCH, &to, RouteId::NONE, |from, to| {
            for (&address, result) in from.iter().zip(to) {
                let found = bitmap6.longest_match(address.into());
                *result = found.map_or(RouteId::NONE, |(_, _, &id)| id);
            }
        });
        peers.finish();
    }
}

/// Runs the harnesses in C that can be built, and prints their lines as `peers4/SPREAD/NAME/BATCH`.
/// Criterion's filter does not reach them: they run when it names `peers`, or nothing.
pub(super) fn harnesses(_: &mut Criterion) {
    let filters: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    if !filters.is_empty() && !filters.iter().any(|filter| filter.starts_with("peers")) {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let built = build(folder.path());
    if built.is_empty() {
        return;
    }
    let routes = Routes::full();
    let write = |name: &str, bytes: Vec<u8>| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("a file");
        path
    };
    let record = |address: &[u8], length: u8, id: RouteId| {
        let mut record = address.to_vec();
        record.extend([length, 0]);
        record.extend(id.0.to_le_bytes());
        record
    };
    let routes4 = write(
        "routes4",
        routes
            .v4
            .iter()
            .flat_map(|(prefix, id)| record(&prefix.network().octets(), prefix.prefix_len(), *id))
            .collect(),
    );
    let routes6 = write(
        "routes6",
        routes
            .v6
            .iter()
            .flat_map(|(prefix, id)| record(&prefix.network().octets(), prefix.prefix_len(), *id))
            .collect(),
    );
    for spread in Spread::ALL {
        let to4 =
            destinations::v4(spread, &routes.v4).iter().flat_map(|to| to.to_le_bytes()).collect();
        let to6 =
            destinations::v6(spread, &routes.v6).iter().flat_map(|to| to.to_be_bytes()).collect();
        let (to4, to6) = (write("to4", to4), write("to6", to6));
        for harness in &built {
            for (family, routes, to) in [("4", &routes4, &to4), ("6", &routes6, &to6)] {
                let mut command = Command::new(&harness[0]);
                command.arg(family).args([routes, to]).args(&harness[1..]);
                let output = match command.output() {
                    Ok(output) => output,
                    Err(error) => {
                        eprintln!("skipped: {}: {error}", harness[0].display());
                        continue;
                    }
                };
                for line in String::from_utf8_lossy(&output.stdout).lines() {
                    println!("peers{family}/{}/{line} ns", spread.name());
                }
                eprint!("{}", String::from_utf8_lossy(&output.stderr));
            }
        }
    }
}

/// The harnesses that this machine can build, each with the arguments that come last.
fn build(folder: &Path) -> Vec<Vec<PathBuf>> {
    let sources = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/peers"));
    let mut built = Vec::new();
    let flags = Command::new("pkg-config").args(["--cflags", "--libs", "libdpdk"]).output();
    match flags {
        Ok(flags) if flags.status.success() => {
            let program = folder.join("dpdk_tables");
            let mut compiler = Command::new("cc");
            compiler.args(["-O3", "-march=native", "-w", "-o"]).arg(&program);
            compiler.arg(sources.join("dpdk_tables.c"));
            compiler.args(String::from_utf8_lossy(&flags.stdout).split_whitespace());
            // The last that stands counts: DPDK's own flags are for any processor.
            compiler.arg("-march=native");
            if compiler.status().is_ok_and(|status| status.success()) {
                built.push(vec![program]);
            } else {
                eprintln!(
                    "skipped: rte_lpm, rte_fib, rte_fib6, rte_lpm6: their harness does not build"
                );
            }
        }
        _ => eprintln!("skipped: rte_lpm, rte_fib, rte_fib6, rte_lpm6, which need dpdk-dev"),
    }
    let (program, object) = (folder.join("lpm_trie"), folder.join("lpm_trie.bpf.o"));
    let loader = Command::new("cc")
        .args(["-O2", "-w", "-o"])
        .arg(&program)
        .arg(sources.join("lpm_trie.c"))
        .arg("-lbpf")
        .status();
    let bytecode = Command::new("clang")
        .args(["-O2", "-g", "-target", "bpf", "-I/usr/include/x86_64-linux-gnu", "-c", "-o"])
        .arg(&object)
        .arg(sources.join("lpm_trie.bpf.c"))
        .status();
    if [loader, bytecode].iter().all(|status| status.as_ref().is_ok_and(|status| status.success()))
    {
        built.push(vec![program, object]);
    } else {
        eprintln!("skipped: bpf-lpm-trie, which needs clang and libbpf-dev");
    }
    built
}
