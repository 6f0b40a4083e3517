//! `sluice route verify`: whether packets are forwarded by the routes that are in force.

use std::fmt::Write as _;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use control::socket::{ControlClient, Request};
use serde_json::Value;

use crate::cli::SocketArgs;
use crate::lookups::next_hops;
use crate::show::rows;

/// How long changes may be on their way into the tables: under a thousand a second there is a moment without.
const TIMEOUT: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(10);

/// Runs `sluice route verify`.
pub(crate) fn routes(json: bool, socket: &SocketArgs) -> Result<()> {
    let mut client = ControlClient::connect(&socket.socket)?;
    let deadline = Instant::now() + TIMEOUT;
    let answer = loop {
        let answer = client.call(&Request::RouteVerify)?;
        if answer["pending"] != true {
            break answer;
        }
        ensure!(
            Instant::now() < deadline,
            "routes changed all the time for {} s, so that there was nothing to compare; try again",
            TIMEOUT.as_secs()
        );
        sleep(RETRY);
    };
    match json {
        true => println!("{answer}"),
        false => print!("{}", text(&answer)),
    }
    let differences = [&answer["v4"], &answer["v6"]].map(differences);
    match differences.iter().sum() {
        0 => Ok(()),
        1 => bail!("1 range of addresses is not forwarded as the routes say"),
        count => bail!("{count} ranges of addresses are not forwarded as the routes say"),
    }
}

fn differences(family: &Value) -> u64 {
    family["differences"].as_u64().unwrap_or(0)
}

/// A line for each family, and one for each range that differs.
fn text(answer: &Value) -> String {
    let mut text = String::new();
    for (name, family) in [("IPv4", &answer["v4"]), ("IPv6", &answer["v6"])] {
        let outcome = match differences(family) {
            0 => "all look-ups agree".to_owned(),
            count => format!("{count} differ"),
        };
        // A String takes writes without an error.
        let _ = writeln!(
            text,
            "{name}  {} routes, {} ranges of addresses: {outcome}",
            family["routes"], family["ranges"]
        );
        for difference in rows(&family["first"]) {
            let _ = writeln!(
                text,
                "      {}-{}: {}, not {}",
                difference["first"].as_str().unwrap_or("?"),
                difference["last"].as_str().unwrap_or("?"),
                leads_to(&difference["found"]),
                leads_to(&difference["expected"]),
            );
        }
    }
    text
}

fn leads_to(next: &Value) -> String {
    let kind = next["kind"].as_str().unwrap_or("?");
    let hops = next_hops(next);
    if hops.is_empty() { kind.to_owned() } else { format!("{kind} {hops}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_differs_is_told_with_what_it_leads_to() {
        let answer = json!({
            "pending": false, "took_ms": 3,
            "v4": { "routes": 7, "ranges": 15, "differences": 1, "first": [{
                "first": "10.0.0.0", "last": "10.0.0.255",
                "found": { "kind": "next-hops", "members": [
                    { "address": "10.1.0.2", "interface": "wan0" },
                    { "address": "10.1.0.3", "interface": "wan1" },
                ]},
                "expected": { "kind": "no-route" },
            }]},
            "v6": { "routes": 2, "ranges": 3, "differences": 0, "first": [] },
        });
        assert_eq!(
            text(&answer),
            "IPv4  7 routes, 15 ranges of addresses: 1 differ\n      \
             10.0.0.0-10.0.0.255: next-hops 10.1.0.2%wan0,10.1.0.3%wan1, not no-route\n\
             IPv6  2 routes, 3 ranges of addresses: all look-ups agree\n"
        );
    }
}
