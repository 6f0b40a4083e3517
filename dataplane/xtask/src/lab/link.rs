//! [`Link`]: a pair of virtual Ethernet interfaces between two namespaces.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::namespace::Namespace;
use crate::command;

/// What ethtool is told to switch off, by the names that it takes.
const OFFLOADS: [&str; 7] = ["tx", "tso", "gso", "gro", "lro", "rxvlan", "txvlan"];

/// What has to be off then, by the names that it shows. With any of them on, packets on the link are
/// not what a wire would carry: checksums are missing, segments are merged.
const MUST_BE_OFF: [&str; 6] = [
    "tx-checksumming",
    "tcp-segmentation-offload",
    "generic-segmentation-offload",
    "generic-receive-offload",
    "rx-vlan-offload",
    "tx-vlan-offload",
];

/// One end of a link.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// Where it is.
    pub namespace: &'a Namespace,
    /// Name of its interface, at most 15 bytes.
    pub interface: &'a str,
    /// Its addresses with their prefix lengths.
    pub addresses: &'a [&'a str],
    /// Its link-layer address; without one the kernel draws it.
    pub mac: Option<&'a str>,
}

impl<'a> End<'a> {
    /// An end whose link-layer address the kernel draws.
    #[must_use]
    pub fn new(namespace: &'a Namespace, interface: &'a str, addresses: &'a [&'a str]) -> Self {
        Self { namespace, interface, addresses, mac: None }
    }

    /// The arguments of `ip link add` that describe this end.
    fn arguments(&self, link: Link) -> Vec<String> {
        let queues = link.queues.to_string();
        let mtu = link.mtu_bytes.to_string();
        let mut arguments = vec!["name", self.interface, "netns", self.namespace.name()];
        arguments.extend(["mtu", &mtu, "numtxqueues", &queues, "numrxqueues", &queues]);
        if let Some(mac) = self.mac {
            arguments.extend(["address", mac]);
        }
        arguments.into_iter().map(str::to_owned).collect()
    }
}

/// What both ends of a pair have.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// RX and TX queues of each end.
    pub queues: u16,
    /// MTU in bytes.
    pub mtu_bytes: u32,
}

impl Link {
    /// Makes the pair, without offloads, with its addresses, up, and verifies it.
    ///
    /// # Errors
    /// When the kernel refuses a part of it, or gives something else than was asked for.
    pub fn connect(self, a: &End<'_>, b: &End<'_>) -> Result<()> {
        let mut ip = Command::new("ip");
        ip.args(["link", "add"]).args(a.arguments(self)).args(["type", "veth", "peer"]);
        command::output(ip.args(b.arguments(self)))?;
        for end in [a, b] {
            switch_offloads_off(end.namespace, end.interface)?;
            for address in end.addresses {
                end.namespace.ip(&["address", "add", address, "dev", end.interface])?;
            }
            end.namespace.ip(&["link", "set", end.interface, "up"])?;
        }
        for end in [a, b] {
            self.verify(end.namespace, end.interface)?;
        }
        Ok(())
    }

    /// Checks that an interface is up and has the queues, the MTU and no offload. Returns that in
    /// words.
    ///
    /// # Errors
    /// When it is not so.
    pub fn verify(self, namespace: &Namespace, interface: &str) -> Result<String> {
        let answer = namespace.ip(&["-details", "-json", "link", "show", "dev", interface])?;
        let answer: Value = serde_json::from_str(&answer).context("`ip -json` gave no JSON")?;
        let link = &answer[0];
        for (key, wanted) in [
            ("mtu", u64::from(self.mtu_bytes)),
            ("num_rx_queues", u64::from(self.queues)),
            ("num_tx_queues", u64::from(self.queues)),
        ] {
            let got = &link[key];
            ensure!(got.as_u64() == Some(wanted), "{interface}: {key} is {got}, not {wanted}");
        }
        let state = &link["operstate"];
        ensure!(state.as_str() == Some("UP"), "{interface}: its state is {state}");
        let features = namespace.output(Command::new("ethtool").args(["-k", interface]))?;
        let on = offloads_on(&features);
        ensure!(on.is_empty(), "{interface}: these offloads are on: {}", on.join(", "));
        Ok(format!("{} queues, MTU {}, no offloads", self.queues, self.mtu_bytes))
    }
}

/// Switches off what would make packets on a link differ from those on a wire.
///
/// # Errors
/// When ethtool is missing or fails.
pub fn switch_offloads_off(namespace: &Namespace, interface: &str) -> Result<()> {
    let mut ethtool = Command::new("ethtool");
    ethtool.args(["-K", interface]).args(OFFLOADS.iter().flat_map(|offload| [offload, "off"]));
    namespace.output(&mut ethtool).map(drop)
}

/// Those of [`MUST_BE_OFF`] that `ethtool -k` does not show as off.
fn offloads_on(features: &str) -> Vec<&'static str> {
    let is_off = |name: &str| {
        features.lines().any(|line| {
            line.trim()
                .strip_prefix(name)
                .and_then(|rest| rest.strip_prefix(':'))
                .is_some_and(|state| state.trim_start().starts_with("off"))
        })
    };
    MUST_BE_OFF.into_iter().filter(|name| !is_off(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offload_that_is_on_or_unknown_is_named() {
        let features = "Features for eth0:\n\
            rx-checksumming: on\n\
            tx-checksumming: off\n\
            \ttx-checksum-ip-generic: off\n\
            tcp-segmentation-offload: on\n\
            generic-segmentation-offload: off [requested on]\n\
            rx-vlan-offload: off [fixed]\n\
            tx-vlan-offload: off\n";
        assert_eq!(offloads_on(features), ["tcp-segmentation-offload", "generic-receive-offload"]);
    }
}
