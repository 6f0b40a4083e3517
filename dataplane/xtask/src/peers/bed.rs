//! [`Bed`]: the place that every peer is measured in.
//!
//! ```text
//!   tester                                   dut (the device under test)
//!   t0  198.18.0.2    2001:2:0:1::2   ---->  d0  198.18.0.1    2001:2:0:1::1
//!   t1  198.19.0.2    2001:2:0:2::2   <----  d1  198.19.0.1    2001:2:0:2::1
//!
//!   traffic: from 198.18.64.0/18 to 198.19.128.0/17
//! ```
//!
//! Addresses are those of RFC 2544 (appendix C.2.2) and RFC 5180 (section 8). Neighbors are permanent
//! entries, so that no peer resolves any while it is measured. The tester does not forward, so that
//! what comes to `t1` ends there. A bed is made for one measurement and goes with it, so that nothing
//! of one peer is left for the next.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::GROUP;
use crate::lab::link::{End, Link};
use crate::lab::namespace::Namespace;

/// MTU of all interfaces in bytes.
const MTU_BYTES: u32 = 1500;

/// A place of an interface in the bed: its name and addresses.
#[derive(Clone, Copy, Debug)]
pub struct Interface {
    /// Its name in its namespace.
    pub name: &'static str,
    /// Its link-layer address.
    pub mac: &'static str,
    /// Its IPv4 address.
    pub v4: &'static str,
    /// Its IPv6 address.
    pub v6: &'static str,
}

/// Sends.
pub const T0: Interface =
    Interface { name: "t0", mac: "02:00:5e:12:00:02", v4: "198.18.0.2", v6: "2001:2:0:1::2" };
/// Where the peer receives.
pub const D0: Interface =
    Interface { name: "d0", mac: "02:00:5e:12:00:01", v4: "198.18.0.1", v6: "2001:2:0:1::1" };
/// Where the peer sends.
pub const D1: Interface =
    Interface { name: "d1", mac: "02:00:5e:13:00:01", v4: "198.19.0.1", v6: "2001:2:0:2::1" };
/// Receives.
pub const T1: Interface =
    Interface { name: "t1", mac: "02:00:5e:13:00:02", v4: "198.19.0.2", v6: "2001:2:0:2::2" };

/// Where the generator's traffic comes from, which the peer knows as a route by `t0`. None of it is
/// an address of the bed: a kernel refuses what claims to come from itself.
pub const SOURCES: &str = "198.18.64.0/18";

/// Where traffic goes, which the peer knows as routes by `t1`.
pub const DESTINATIONS: [&str; 2] = ["198.19.128.0/17", "2001:2:0:8000::/49"];

/// Both namespaces with both links. They are deleted when this is dropped.
#[derive(Debug)]
pub struct Bed {
    /// Where the generator and the sink are.
    pub tester: Namespace,
    /// Where the peer is.
    pub dut: Namespace,
}

impl Bed {
    /// Makes it.
    ///
    /// # Errors
    /// When the kernel refuses a part of it.
    pub fn build() -> Result<Self> {
        let bed = Self { tester: namespace("tester")?, dut: namespace("dut")? };
        let link = Link { queues: 1, mtu_bytes: MTU_BYTES };
        for (ours, theirs) in [(T0, D0), (T1, D1)] {
            let (ours_on_link, theirs_on_link) = (on_link(ours), on_link(theirs));
            link.connect(
                &end(&bed.tester, ours, &ours_on_link.each_ref().map(String::as_str)),
                &end(&bed.dut, theirs, &theirs_on_link.each_ref().map(String::as_str)),
            )?;
            know(&bed.tester, ours, theirs)?;
            know(&bed.dut, theirs, ours)?;
        }
        for (namespace, interface) in bed.interfaces() {
            let mut ethtool = Command::new("ethtool");
            namespace.output(ethtool.args(["-K", interface, "gro", "on"]))?;
        }
        for (destination, (from, via)) in
            DESTINATIONS.into_iter().zip([(D0.v4, T1.v4), (D0.v6, T1.v6)])
        {
            bed.tester.ip(&["route", "add", destination, "via", from, "dev", T0.name])?;
            bed.dut.ip(&["route", "add", destination, "via", via, "dev", D1.name])?;
        }
        bed.dut.ip(&["route", "add", SOURCES, "via", T0.v4, "dev", D0.name])?;
        Ok(bed)
    }

    /// All interfaces with their namespaces.
    #[must_use]
    pub fn interfaces(&self) -> [(&Namespace, &'static str); 4] {
        [
            (&self.tester, T0.name),
            (&self.tester, T1.name),
            (&self.dut, D0.name),
            (&self.dut, D1.name),
        ]
    }

    /// Lets the kernel of `dut` forward.
    ///
    /// # Errors
    /// When it refuses.
    pub fn forward_in_kernel(&self) -> Result<()> {
        self.dut.sysctl("net/ipv4/ip_forward", "1")?;
        self.dut.sysctl("net/ipv6/conf/all/forwarding", "1")
    }

    /// Packets that the kernel of `dut` itself has forwarded, of both families.
    ///
    /// # Errors
    /// When it does not say.
    pub fn forwarded_by_kernel(&self) -> Result<u64> {
        let read =
            |name: &str| std::fs::read_to_string(Path::new("/proc/thread-self/net").join(name));
        let (v4, v6) = self.dut.within(|| (read("snmp"), read("snmp6")))?;
        let v4 = column(&v4.context("/proc/net/snmp")?, "Ip:", "ForwDatagrams");
        let v6 = v6.context("/proc/net/snmp6")?;
        let v6 = v6.lines().find_map(|line| line.strip_prefix("Ip6OutForwDatagrams"));
        let v6 = v6.and_then(|number| number.trim().parse::<u64>().ok());
        Ok(v4.context("/proc/net/snmp has no ForwDatagrams")?
            + v6.context("/proc/net/snmp6 has no Ip6OutForwDatagrams")?)
    }
}

/// A number in a table of `/proc/net/snmp`: a line of names, then a line of numbers, each with the
/// same first word.
fn column(table: &str, row: &str, name: &str) -> Option<u64> {
    let mut rows = table.lines().filter(|line| line.split(' ').next() == Some(row));
    let place = rows.next()?.split(' ').position(|word| word == name)?;
    rows.next()?.split(' ').nth(place)?.parse().ok()
}

/// A namespace in which nothing is sent that nobody asked for, and no packet is refused for where it
/// comes from.
pub(crate) fn namespace(role: &str) -> Result<Namespace> {
    let namespace = Namespace::create(GROUP, role)?;
    for scope in ["all", "default"] {
        for (key, value) in [
            (format!("net/ipv4/conf/{scope}/rp_filter"), "0"),
            (format!("net/ipv4/conf/{scope}/send_redirects"), "0"),
            (format!("net/ipv6/conf/{scope}/accept_ra"), "0"),
            (format!("net/ipv6/conf/{scope}/router_solicitations"), "0"),
        ] {
            namespace.sysctl(&key, value)?;
        }
    }
    Ok(namespace)
}

pub(crate) fn end<'a>(
    namespace: &'a Namespace,
    interface: Interface,
    addresses: &'a [&'a str],
) -> End<'a> {
    End { namespace, interface: interface.name, addresses, mac: Some(interface.mac) }
}

/// The addresses with their prefix lengths. The IPv4 ones leave room for the destinations.
pub(crate) fn on_link(interface: Interface) -> [String; 2] {
    [format!("{}/24", interface.v4), format!("{}/64", interface.v6)]
}

/// Tells `namespace` who is at the other end of `own`.
pub(crate) fn know(namespace: &Namespace, own: Interface, other: Interface) -> Result<()> {
    for address in [other.v4, other.v6] {
        let words = ["neigh", "replace", address, "lladdr", other.mac, "nud", "permanent"];
        namespace.ip(&[&words[..], &["dev", own.name]].concat())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_found_by_its_name() {
        let table = "Ip: Forwarding DefaultTTL ForwDatagrams\nIp: 1 64 12\nIcmp: InMsgs\nIcmp: 3\n";
        assert_eq!(column(table, "Ip:", "ForwDatagrams"), Some(12));
        assert_eq!(column(table, "Icmp:", "InMsgs"), Some(3));
        assert_eq!(column(table, "Icmp:", "ForwDatagrams"), None);
    }
}
