//! A first configuration for a machine, from what was found on it: the text of `sluice init`.

use std::fmt::Write;
use std::net::IpAddr;

use ipnet::IpNet;
use wire::MacAddress;

/// What was found on a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// The machine's name.
    pub host_name: String,
    /// Its interfaces that could carry traffic: neither loopback nor TUN.
    pub interfaces: Vec<HostInterface>,
}

/// What was found of an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostInterface {
    /// The kernel's name.
    pub name: String,
    /// Its link-layer address.
    pub mac: MacAddress,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Its addresses, with the prefixes of their links.
    pub addresses: Vec<IpNet>,
    /// RX queues in use.
    pub queues: u32,
    /// The driver, such as `ena`; empty if it is not known.
    pub driver: String,
    /// Whether a default route leaves by it.
    pub has_default_route: bool,
}

/// The largest MTU that a 4096-byte chunk holds beside its headroom.
const MTU_MAX: u32 = 3498;

/// A commented configuration that passes the check. It routes by the kernel's routes between the
/// interfaces that were found, and shows in comments what slices would look like here. Without
/// any interface it cannot pass, and says so.
#[must_use]
pub fn draft(facts: &HostFacts) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = write_draft(&mut text, facts);
    text
}

fn write_draft(text: &mut String, facts: &HostFacts) -> std::fmt::Result {
    let node = instance_name(&facts.host_name);
    let one_armed = facts.interfaces.len() == 1;
    writeln!(
        text,
        "\
# Sluice on {host}. Written by `sluice init`; every key that is not here has its default.
# Check it with:  sluice check FILE

[router]
name = {name}             # names the control socket, /run/sluice/NAME.sock, and the BPF pins
node = {node}             # which [[node]] below this machine is
poll = \"adaptive\"         # sleeps while queues are empty; \"busy\" for least latency on its own cores
on_exit = \"drop\"          # transit packets while no router runs; \"kernel\": the kernel forwards them",
        host = comment(&facts.host_name),
        name = quoted(&node),
        node = quoted(&node),
    )?;
    let queues = facts.interfaces.iter().map(|interface| interface.queues.max(1));
    let (least, most) = (queues.clone().min().unwrap_or(1), queues.max().unwrap_or(1));
    writeln!(
        text,
        "\n[workers]\ncores = \"auto\"            # one worker for each queue: {least} here"
    )?;
    if least != most {
        writeln!(
            text,
            "# The interfaces have different numbers of queues, which must be equal. Before the start:"
        )?;
        for interface in facts.interfaces.iter().filter(|interface| interface.queues > least) {
            writeln!(text, "#   ethtool -L {} combined {least}", comment(&interface.name))?;
        }
    }
    if facts.interfaces.is_empty() {
        writeln!(
            text,
            "\n# No interface was found. At least one is needed:\n# [[interface]]\n# name = \"eth0\"\n# role = \"both\""
        )?;
    }
    for interface in &facts.interfaces {
        write_interface(text, interface, one_armed)?;
    }
    write_slices(text, facts, &node)
}

fn write_interface(text: &mut String, facts: &HostInterface, one_armed: bool) -> std::fmt::Result {
    let addresses: Vec<_> = facts.addresses.iter().map(IpNet::to_string).collect();
    let MacAddress([a, b, c, d, e, f]) = facts.mac;
    writeln!(
        text,
        "\n# {driver}, {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}, MTU {mtu}, {queues} queue(s), {addresses}",
        driver =
            if facts.driver.is_empty() { "unknown driver".into() } else { comment(&facts.driver) },
        mtu = facts.mtu,
        queues = facts.queues,
        addresses =
            if addresses.is_empty() { "no address".to_owned() } else { addresses.join(" ") },
    )?;
    let (role, why) = match (one_armed, facts.has_default_route) {
        (true, _) => ("both", "the only interface: owners and the world are both behind it"),
        (false, true) => ("outside", "the default route leaves here"),
        (false, false) => ("inside", "towards the machines that own slices"),
    };
    writeln!(
        text,
        "[[interface]]\nname = {}\nrole = \"{role}\"            # {why}",
        quoted(&facts.name)
    )?;
    if facts.mtu > MTU_MAX {
        writeln!(
            text,
            "# Its MTU is more than a frame holds. Before the start:\n#   ip link set dev {} mtu {MTU_MAX}",
            comment(&facts.name),
        )?;
    }
    if facts.driver == "ena" {
        writeln!(
            text,
            "# ena: XDP needs half of the channels free (`ethtool -l`), and the in-tree driver copies."
        )?;
    }
    Ok(())
}

fn write_slices(text: &mut String, facts: &HostFacts, node: &str) -> std::fmt::Result {
    let is_global = |address: &IpAddr| match address {
        IpAddr::V4(address) => !address.is_link_local() && !address.is_loopback(),
        IpAddr::V6(address) => !address.is_unicast_link_local() && !address.is_loopback(),
    };
    let by_inside = |facts: &&HostInterface| facts.has_default_route;
    let mut interfaces: Vec<_> = facts.interfaces.iter().collect();
    interfaces.sort_by_key(by_inside);
    let endpoint = interfaces
        .iter()
        .flat_map(|interface| &interface.addresses)
        .map(IpNet::addr)
        .find(is_global);
    writeln!(
        text,
        "\n# This machine. The address is where tunnels from other nodes end.\n[[node]]\nname = {}",
        quoted(node)
    )?;
    if let Some(address) = endpoint {
        writeln!(text, "address = \"{address}\"")?;
    }
    writeln!(
        text,
        "\
\n# A second machine, and an address that both share; adapt and remove the comment signs.
# [[node]]
# name = \"other\"
# address = \"ADDRESS\"
#
# [[egress]]
# prefix = \"192.0.2.1/32\"
# default = \"drop\"          # ports that no slice has
#
# [[egress.slice]]
# ports = \"0-32767\"
# node = {node}
#
# [[egress.slice]]
# ports = \"32768-65535\"
# node = \"other\"",
        node = quoted(node)
    )
}

/// A TOML string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Text that stays within a comment: TOML forbids control characters there.
fn comment(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// A host's first label, as the name of an instance.
fn instance_name(host: &str) -> String {
    let label = host.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let fits = |c: &char| matches!(c, 'a'..='z' | '0'..='9' | '-');
    let name: String = label.chars().filter(fits).take(32).collect();
    if name.is_empty() { "default".to_owned() } else { name }
}
