//! `sluice init`: a first configuration, drafted from what this machine has.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use config::{HostFacts, HostInterface};
use control::kernel::{KernelEvent, KernelMirror, KernelState, MirrorOptions, RouteKind};
use wire::MacAddress;
use xdp::host;

/// How long reading the kernel's tables may take.
const WITHIN: Duration = Duration::from_secs(60);

/// Prints the draft, or the page of all keys.
pub(crate) fn run(reference: bool) -> Result<()> {
    if reference {
        print!("{}", config::reference());
        return Ok(());
    }
    let options = MirrorOptions { neighbors: false, ..MirrorOptions::default() };
    let (_mirror, events) = KernelMirror::start(options)?;
    let mut kernel = KernelState::default();
    let deadline = Instant::now() + WITHIN;
    while !kernel.synchronized {
        match events.recv_deadline(deadline) {
            Ok(KernelEvent::Failed(error)) => bail!("{error}"),
            Ok(event) => kernel.apply(&event),
            Err(_) => bail!("the kernel's tables were not read within {WITHIN:?}"),
        }
    }
    print!("{}", config::draft(&facts(&kernel)));
    Ok(())
}

fn facts(kernel: &KernelState) -> HostFacts {
    let host_name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let mut interfaces = Vec::new();
    for link in kernel.links.values() {
        let Some(mac) = link.mac else { continue };
        if link.loopback || !link.up {
            continue;
        }
        let Ok(facts) = host::interface(&link.name) else { continue };
        let leaves_here = |kind: &RouteKind| match kind {
            RouteKind::NextHops(hops) => hops.iter().any(|hop| hop.ifindex == link.ifindex),
            _ => false,
        };
        interfaces.push(HostInterface {
            name: link.name.clone(),
            mac: MacAddress(mac),
            mtu: link.mtu,
            addresses: kernel
                .addresses
                .addresses
                .iter()
                .filter(|address| address.ifindex == link.ifindex)
                .map(|address| address.network)
                .collect(),
            queues: facts.rx_queues.unwrap_or(1),
            driver: facts.driver,
            has_default_route: kernel.routes.iter().any(|(prefix, routes)| {
                prefix.prefix_len() == 0
                    && routes.first().is_some_and(|route| leaves_here(&route.kind))
            }),
        });
    }
    HostFacts { host_name: host_name.trim().to_owned(), interfaces }
}
