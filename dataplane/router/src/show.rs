//! `sluice route` and `sluice slice`: what the running router's tables hold, and what a packet would meet.

use std::io::{self, BufWriter, Write};
use std::net::IpAddr;

use anyhow::{Result, bail};
use control::socket::{ControlClient, Request};
use ipnet::IpNet;
use serde_json::Value;

use crate::cli::{RouteCommand, SliceCommand};
use crate::{lookups, verify};

/// Runs `sluice route`.
pub(crate) fn route(command: &RouteCommand) -> Result<()> {
    match command {
        RouteCommand::Show { prefix, longer, source, unexpressible, json, socket } => {
            let mut client = ControlClient::connect(&socket.socket)?;
            let mut after = None;
            let mut out = output();
            let mut count = 0_usize;
            loop {
                let answer = client.call(&Request::RouteShow {
                    prefix: prefix.map(|prefix| prefix.trunc().to_string()),
                    longer: *longer || prefix.is_none(),
                    source: source.clone(),
                    unexpressible: *unexpressible,
                    after: after.take(),
                })?;
                for route in rows(&answer["routes"]) {
                    count += 1;
                    let written = if *json {
                        json_line(&mut out, route)
                    } else {
                        write!(out, "{}", prefix_text(route))
                    };
                    if ends(written)? {
                        return Ok(());
                    }
                }
                match answer["next"].as_str() {
                    Some(next) => after = Some(next.to_owned()),
                    None => break,
                }
            }
            ends(out.flush())?;
            if count == 0 {
                match prefix
                    .filter(|prefix| !longer && prefix.prefix_len() == prefix.max_prefix_len())
                {
                    Some(host) => bail!(
                        "no such route: none for {host} alone; sluice route get {} tells which one it takes",
                        host.addr()
                    ),
                    None => bail!("no such route"),
                }
            }
        }
        RouteCommand::Get { addresses, json, socket } => {
            lookups::routes(addresses, *json, socket)?;
        }
        RouteCommand::Verify { json, socket } => verify::routes(*json, socket)?,
    }
    Ok(())
}

/// Runs `sluice slice`.
pub(crate) fn slice(command: &SliceCommand) -> Result<()> {
    match command {
        SliceCommand::Show { prefix, json, socket } => {
            let mut client = ControlClient::connect(&socket.socket)?;
            let mut out = output();
            let (mut after, mut egress) = (0, String::new());
            loop {
                let prefix = prefix.map(|prefix| prefix.trunc().to_string());
                let answer = client.call(&Request::SliceShow { prefix, after })?;
                for range in rows(&answer["ranges"]) {
                    let written = if *json {
                        json_line(&mut out, range)
                    } else {
                        range_text(&mut out, range, &mut egress)
                    };
                    if ends(written)? {
                        return Ok(());
                    }
                }
                match answer["next"].as_u64() {
                    Some(next) => after = next,
                    None => break,
                }
            }
            ends(out.flush())?;
        }
        SliceCommand::Get { ports, protocol, json, socket } => {
            lookups::slices(ports, protocol, *json, socket)?;
        }
    }
    Ok(())
}

/// Standard output for millions of lines. Behind it stands a buffer of the standard library that is emptied
/// at the end of a line, whatever it is given.
pub(crate) fn output() -> BufWriter<io::StdoutLock<'static>> {
    BufWriter::with_capacity(64 * 1024, io::stdout().lock())
}

fn json_line(out: &mut impl Write, value: &Value) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

/// Whether the reader has gone, as `head` does.
pub(crate) fn ends(written: io::Result<()>) -> Result<bool> {
    match written {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(true),
        Err(error) => Err(error.into()),
    }
}

pub(crate) fn rows(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// `20.0.0.0/8  via 10.1.0.2 on wan0  kernel bird metric 32`, and a line for each that is not in force.
fn prefix_text(route: &Value) -> String {
    let mut words = String::new();
    for candidate in rows(&route["candidates"]) {
        let is_first = candidate["in_force"] == true;
        let head = if is_first { text(&route["prefix"]) } else { "  not".to_owned() };
        words += &format!("{head:<20} {}", candidate_text(candidate));
        if let (true, Some(ms)) = (is_first, route["held_ms"].as_u64()) {
            words += &format!(", {ms} ms left");
        }
        if let Some(why) = candidate["why_not"].as_str() {
            words += &format!(": {why}");
        }
        words.push('\n');
    }
    words
}

fn candidate_text(candidate: &Value) -> String {
    let hop = |hop: &Value, is_one: bool| {
        let mut words = match hop["via"].as_str() {
            Some(via) => format!("via {via} on {}", text(&hop["interface"])),
            None => format!("on the link of {}", text(&hop["interface"])),
        };
        if !is_one {
            words += &format!(" weight {}", hop["weight"]);
        }
        if let Some(mtu) = hop["mtu"].as_u64() {
            words += &format!(" mtu {mtu}");
        }
        words
    };
    let hops: Vec<&Value> = rows(&candidate["next_hops"]).collect();
    let what = if hops.is_empty() {
        text(&candidate["type"])
    } else {
        let each: Vec<String> = hops.iter().map(|one| hop(one, hops.len() == 1)).collect();
        each.join(", ")
    };
    let mut words = format!("{what}  [{}", text(&candidate["source"]));
    if let Some(protocol) = candidate["protocol"].as_str() {
        words += &format!(" {protocol}");
    }
    if candidate["table"].as_u64().is_some_and(|table| table != 254) {
        words += &format!(" table {}", candidate["table"]);
    }
    if matches!(candidate["source"].as_str(), Some("kernel" | "static")) {
        words += &format!(" metric {}", candidate["metric"]);
    }
    words.push(']');
    if let Some(why) = candidate["unexpressible"]["words"].as_str() {
        words += &format!(" left to the kernel: {why}");
    }
    words
}

fn neighbor_text(neighbor: &Value) -> String {
    if neighbor.is_null() {
        return "not known yet".to_owned();
    }
    let mac = neighbor["mac"].as_str().map(|mac| format!(" at {mac}")).unwrap_or_default();
    let mac = mac + &link_text(neighbor);
    format!("{}{mac}, MTU {}", text(&neighbor["state"]), neighbor["mtu"])
}

/// What is the matter with a link over which nothing is sent.
fn link_text(value: &Value) -> String {
    match value["link"].as_str() {
        None | Some("up") => String::new(),
        Some("made-anew") => {
            " (the interface was made anew: nothing is sent there before a restart)".to_owned()
        }
        Some(state) => format!(" (link {state})"),
    }
}

/// What a look-up of an address gives.
pub(crate) fn lookup_text(answer: &Value, indent: &str) -> String {
    let mut words = format!("{indent}{}: ", text(&answer["address"]));
    if let Some(reason) = answer["next"]["reason"].as_str() {
        let is_dropped = answer["next"]["kind"] == "drop";
        let what = if is_dropped { "dropped" } else { "left to the kernel by the classifier" };
        words += &format!("no route is asked: {what}, {reason}\n");
        words += &format!("{indent}  {}\n", text(&answer["next"]["help"]));
        return words;
    }
    match &answer["route"] {
        Value::Null => words += "no route\n",
        route => {
            words += &prefix_text(route).replace("\n  not", &format!("\n{indent}  not"));
        }
    }
    let next = &answer["next"];
    match next["kind"].as_str() {
        Some("next-hops") => {
            let buckets = &next["buckets"];
            words += &format!("{indent}  group {}\n", next["group"]);
            for member in rows(&next["members"]) {
                let share = match next["buckets"].as_u64() {
                    Some(2..) => format!(
                        ", {} of {buckets} buckets ({:.1} %)",
                        member["buckets"],
                        100.0 * member["share"].as_f64().unwrap_or_default()
                    ),
                    _ => String::new(),
                };
                words += &format!(
                    "{indent}    neighbor {} on {}: {}{share}\n",
                    text(&member["address"]),
                    text(&member["interface"]),
                    neighbor_text(member)
                );
            }
        }
        Some("on-link") => {
            let neighbor = match &next["neighbor"] {
                Value::Null => "not known yet".to_owned() + &link_text(next),
                neighbor => neighbor_text(neighbor),
            };
            words += &format!(
                "{indent}  neighbor {} on {}: {neighbor}\n",
                text(&answer["address"]),
                text(&next["interface"])
            );
        }
        _ => {}
    }
    for shorter in rows(&answer["shorter"]) {
        words += &format!(
            "{indent}  behind it  {}",
            prefix_text(shorter).replace("\n  not", &format!("\n{indent}  not"))
        );
    }
    if let Some(egress) = answer["egress"].as_str() {
        words += &format!(
            "{indent}  {egress} is shared: slices decide before routes (sluice slice get {} PORT)\n",
            text(&answer["address"])
        );
    }
    if answer["pending"] == true {
        words += &format!("{indent}  a change of this is about to be published\n");
    }
    words
}

fn range_text(out: &mut impl Write, range: &Value, egress: &mut String) -> io::Result<()> {
    let own = text(&range["egress"]);
    if own != *egress {
        writeln!(out, "{own}")?;
        *egress = own;
    }
    let ports = format!("{}-{}", range["first_port"], range["last_port"]);
    let slice = range["slice"].as_str().unwrap_or("-");
    writeln!(out, "  {ports:<13} {slice:<32} {}", text(&range["owner"]))
}

pub(crate) fn slice_text(answer: &Value) -> String {
    let at = match answer["port"].as_u64() {
        Some(port) => format!("port {port} of {}", text(&answer["address"])),
        None => format!("{}, without a port", text(&answer["address"])),
    };
    let slice = match &answer["slice"] {
        Value::Null => "no slice".to_owned(),
        slice => format!("slice {} (ports {})", text(&slice["name"]), text(&slice["ports"])),
    };
    let site = answer["site"].as_str().map(|site| format!(" at site {site}")).unwrap_or_default();
    let mut words = format!(
        "{at}: shared by {}, {slice}, owner {}{site}\n",
        text(&answer["egress"]),
        text(&answer["owner"])
    );
    let next = &answer["next"];
    match next["kind"].as_str() {
        Some("drop") => words += &format!("  dropped: {}\n", text(&next["reason"])),
        Some("kernel") => words += "  to this machine's kernel\n",
        Some("workload") => {
            let neighbor = &next["neighbor"];
            words += &format!(
                "  to neighbor {} on {}: {}\n",
                text(&neighbor["address"]),
                text(&neighbor["interface"]),
                neighbor_text(neighbor)
            );
        }
        Some("tunnel") => {
            words += &format!(
                "  into a tunnel to {} from {}: {}, {} bytes more\n",
                text(&next["remote"]),
                text(&next["local"]),
                text(&next["encapsulation"]),
                next["overhead_bytes"]
            );
            words += &lookup_text(&next["route"], "  ");
        }
        _ => {}
    }
    words
}

/// A prefix, for the command line. An address stands for itself alone, as it does for `ip route`.
pub(crate) fn prefix(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse().or_else(|_| address()).map_err(|_| {
        "a prefix such as 192.0.2.0/24 or 2001:db8::/32, or an address, which is one of /32 or /128".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_the_prefix_of_itself_alone() {
        for (text, expected) in [
            ("91.50.88.0", Some("91.50.88.0/32")),
            ("2001:db8::1", Some("2001:db8::1/128")),
            ("91.50.88.0/24", Some("91.50.88.0/24")),
            ("91.50.88.0/33", None),
            ("91.50.88", None),
        ] {
            let found = prefix(text);
            assert_eq!(found.as_ref().ok().map(ToString::to_string).as_deref(), expected, "{text}");
            assert!(found.is_ok() || found.is_err_and(|error| error.contains("192.0.2.0/24")));
        }
    }
}
