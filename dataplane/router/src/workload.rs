//! `sluice workload run`: an unmodified program, confined to a slice.
//!
//! While the command runs, its network namespace
//! - gives out ephemeral ports of the slice only (`net.ipv4.ip_local_port_range`, which IPv6 uses
//!   too);
//! - sends nothing from the shared address with a port outside the slice: rules in front of the
//!   routing tables prohibit it, so that a program which binds such a port gets `EACCES`.
//!
//! ICMP has no ports: the identifier of `ping` is to be chosen with `ping -e`, and the router refuses
//! others. The namespace needs the shared address on an interface, such as its loopback.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};
use control::socket::{ControlClient, Request};
use control::status::SliceStatus;
use ipnet::IpNet;

use crate::cli::WorkloadRunArgs;

/// The range that the kernel takes ephemeral ports from.
const PORT_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// Preference of the rules: before the main table's (32766), behind what operators choose.
const PREFERENCE: &str = "20000";

/// The last port that a rule's range may end with (`fib_rule_port_range_valid` of the kernel). The
/// one behind it is left to the router.
const RULE_PORT_MAX: u16 = 65_534;

/// A slice, as far as a workload is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Confines {
    address: IpAddr,
    first_port: u16,
    last_port: u16,
}

/// Runs the command, and gives its exit status.
pub(crate) fn run(args: &WorkloadRunArgs) -> Result<ExitCode> {
    let confines = match parse(&args.slice) {
        Some(confines) => confines,
        None => find(&args.slice, &args.socket.socket)?,
    };
    check_address(confines.address)?;
    let _guard = Guard::set_up(confines)?;
    let (program, arguments) = args.command.split_first().context("no command was given")?;
    let status = Command::new(program)
        .args(arguments)
        .env("SLUICE_ADDRESS", confines.address.to_string())
        .env("SLUICE_PORTS", format!("{}-{}", confines.first_port, confines.last_port))
        .status()
        .with_context(|| format!("{program}: cannot be run"))?;
    Ok(match status.code().and_then(|code| u8::try_from(code).ok()) {
        Some(code) => ExitCode::from(code),
        None => ExitCode::FAILURE,
    })
}

/// `ADDRESS:FIRST-LAST`, with an IPv6 address in brackets or not.
fn parse(text: &str) -> Option<Confines> {
    let (address, ports) = text.rsplit_once(':')?;
    let (first, last) = ports.split_once('-')?;
    let (first_port, last_port) = (first.parse().ok()?, last.parse().ok()?);
    let address = address.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
    (first_port <= last_port).then_some(Confines { address, first_port, last_port })
}

/// The slice of this name in a running router.
fn find(name: &str, socket: &Path) -> Result<Confines> {
    let request = Request::SliceNamed { name: name.to_owned() };
    let slice = ControlClient::connect(socket)?.call(&request)?;
    let slice: SliceStatus = serde_json::from_value(slice)?;
    let net: IpNet = slice.egress.parse().context("the router's answer cannot be read")?;
    let (first, last) = slice.ports.split_once('-').unwrap_or((&slice.ports, &slice.ports));
    Ok(Confines {
        address: net.addr(),
        first_port: first.parse().context("the router's answer cannot be read")?,
        last_port: last.parse().context("the router's answer cannot be read")?,
    })
}

/// Without the address here, the program would use another and nothing would come back.
fn check_address(address: IpAddr) -> Result<()> {
    let output = ip(address, &["-o", "addr", "show", "to", &address.to_string()])?;
    ensure!(
        !output.is_empty(),
        "{address} is no address of this network namespace; mend it with: ip addr add \
         {address}/{} dev lo",
        if address.is_ipv4() { 32 } else { 128 }
    );
    Ok(())
}

/// What was changed, to be put back.
struct Guard {
    confines: Confines,
    port_range: String,
    rules: Vec<Vec<String>>,
}

impl Guard {
    fn set_up(confines: Confines) -> Result<Self> {
        let port_range = fs::read_to_string(PORT_RANGE)
            .with_context(|| format!("{PORT_RANGE}: cannot be read"))?;
        let mut guard = Self { confines, port_range, rules: Vec::new() };
        let Confines { first_port, last_port, .. } = confines;
        // The kernel gives out no port below 1.
        let range = format!("{} {last_port}", first_port.max(1));
        fs::write(PORT_RANGE, range).with_context(|| {
            format!("{PORT_RANGE}: cannot be written; run as root in the workload's namespace")
        })?;
        for protocol in ["tcp", "udp"] {
            // Port 0 stands for a port that is still to be chosen, so nothing may match all ports.
            guard.prohibit(protocol, 1, first_port.saturating_sub(1))?;
            guard.prohibit(protocol, last_port.saturating_add(1), RULE_PORT_MAX)?;
        }
        Ok(guard)
    }

    /// Prohibits these source ports; none if the range is empty.
    fn prohibit(&mut self, protocol: &str, first_port: u16, last_port: u16) -> Result<()> {
        if first_port > last_port {
            return Ok(());
        }
        let address = self.confines.address.to_string();
        let ports = format!("{first_port}-{last_port}");
        let rule: Vec<String> = [
            "from", &address, "ipproto", protocol, "sport", &ports, "pref", PREFERENCE, "prohibit",
        ]
        .map(str::to_owned)
        .to_vec();
        let words: Vec<&str> = ["rule", "add"].into_iter().chain(strs(&rule)).collect();
        ip(self.confines.address, &words)?;
        self.rules.push(rule);
        Ok(())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        for rule in self.rules.iter().rev() {
            let words: Vec<&str> = ["rule", "del"].into_iter().chain(strs(rule)).collect();
            if let Err(error) = ip(self.confines.address, &words) {
                eprintln!("sluice: {error:#}");
            }
        }
        if let Err(error) = fs::write(PORT_RANGE, self.port_range.trim()) {
            eprintln!("sluice: {PORT_RANGE}: cannot be put back: {error}");
        }
    }
}

fn strs(words: &[String]) -> impl Iterator<Item = &str> {
    words.iter().map(String::as_str)
}

/// Runs `ip` for the family of `address`, and gives what it printed.
fn ip(address: IpAddr, words: &[&str]) -> Result<String> {
    let family = if address.is_ipv4() { "-4" } else { "-6" };
    let output = Command::new("ip")
        .arg(family)
        .args(words)
        .stdin(Stdio::null())
        .output()
        .context("ip: cannot be run; mend it with: apt-get install iproute2")?;
    ensure!(
        output.status.success(),
        "ip {family} {}: {}",
        words.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_read_in_both_families() {
        let confines = parse("192.0.2.1:1024-2047").expect("an IPv4 slice");
        assert_eq!((confines.first_port, confines.last_port), (1024, 2047));
        assert_eq!(parse("[2001:db8::1]:1-2"), parse("2001:db8::1:1-2"));
        assert_eq!(parse("web"), None);
        assert_eq!(parse("192.0.2.1:2047-1024"), None);
    }
}
