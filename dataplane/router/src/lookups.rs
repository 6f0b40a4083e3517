//! `sluice route get` and `sluice slice get`: one look-up with all that there is to say about it, or many of
//! them, a line each.
//!
//! ```text
//!   arguments, or lines of standard input -> questions -> a request for each PAGE of them -> a line each
//! ```
//!
//! A line has columns with a tab between them, so that `diff`, `awk` and `join` can read it; `-` stands where
//! there is nothing. A look-up that gives nothing (an address that is not shared) is a line too.

use std::fmt::Write as _;
use std::io::{self, BufRead, Write};
use std::net::IpAddr;

use anyhow::{Context, Result, bail, ensure};
use control::socket::{ControlClient, Request, SliceQuestion};
use serde_json::Value;
use wire::protocol;

use crate::cli::SocketArgs;
use crate::show::{ends, lookup_text, output, rows, slice_text};

/// Look-ups in one request.
const PAGE: usize = control::socket::LOOKUPS_MAX;

/// Stands for standard input.
const STANDARD_INPUT: &str = "-";

/// Protocols with a name, and whether their packets are told apart by ports, or by an identifier in their place.
const PROTOCOLS: [(&str, bool); 11] = [
    ("tcp", true),
    ("udp", true),
    ("sctp", true),
    ("dccp", true),
    ("udplite", true),
    ("icmp", true),
    ("icmpv6", true),
    ("gre", false),
    ("esp", false),
    ("ah", false),
    ("ipip", false),
];

/// Runs `sluice route get`.
pub(crate) fn routes(words: &[String], json: bool, socket: &SocketArgs) -> Result<()> {
    let mut client = ControlClient::connect(&socket.socket)?;
    if let [word] = words
        && word != STANDARD_INPUT
    {
        let request = Request::RouteGet { address: address(word)?.to_string() };
        let answer = client.call(&request)?;
        match json {
            true => println!("{answer}"),
            false => print!("{}", lookup_text(&answer, "")),
        }
        return Ok(());
    }
    let questions = questions(words, |words| match words {
        [word] => Ok(address(word)?.to_string()),
        _ => bail!("one address a line"),
    });
    let ask = |addresses| client.call(&Request::RouteGets { addresses });
    each(questions, ask, |answer, _| if json { answer.to_string() } else { route_line(answer) })
}

/// Runs `sluice slice get`. The port's protocol is `protocol`, unless a line names another.
pub(crate) fn slices(
    words: &[String],
    protocol: &str,
    json: bool,
    socket: &SocketArgs,
) -> Result<()> {
    let question = |words: &[&str]| -> Result<(SliceQuestion, String)> {
        let (at, port, protocol) = match *words {
            [at, port] => (at, port, protocol),
            [at, port, protocol] => (at, port, protocol),
            _ => bail!("ADDRESS PORT [PROTOCOL] are wanted"),
        };
        let port = port.parse().with_context(|| format!("\"{port}\" is no port"))?;
        let has_ports = has_ports(protocol)?;
        let address = address(at)?.to_string();
        Ok((SliceQuestion { address, port, has_ports }, format!("{port}\t{protocol}")))
    };
    let mut client = ControlClient::connect(&socket.socket)?;
    if let [at, port] = words {
        let (SliceQuestion { address, port, has_ports }, _) = question(&[at, port])?;
        let answer = client.call(&Request::SliceGet { address, port, has_ports })?;
        match json {
            true => println!("{answer}"),
            false => print!("{}", slice_text(&answer)),
        }
        return Ok(());
    }
    let is_input = matches!(words, [word] if word == STANDARD_INPUT);
    ensure!(
        is_input || words.len().is_multiple_of(2),
        "each address has a port behind it: ADDRESS PORT [ADDRESS PORT]..., or - for standard input"
    );
    let pairs: Vec<String> = match is_input {
        true => words.to_vec(),
        false => words.chunks(2).map(|pair| pair.join(" ")).collect(),
    };
    let ask = |asked: Vec<(SliceQuestion, String)>| {
        let questions = asked.into_iter().map(|(question, _)| question).collect();
        client.call(&Request::SliceGets { questions })
    };
    each(questions(&pairs, question), ask, |answer, (_, asked)| {
        if json { answer.to_string() } else { slice_line(answer, asked) }
    })
}

/// The questions of some arguments, in order. Empty lines of standard input and comments are none.
fn questions<T>(
    words: &[String],
    question: impl Fn(&[&str]) -> Result<T>,
) -> impl Iterator<Item = Result<T>> {
    let lines =
        words.iter().flat_map(|word| -> Box<dyn Iterator<Item = (String, io::Result<String>)>> {
            if word == STANDARD_INPUT {
                let lines = io::stdin().lock().lines().zip(1..);
                Box::new(lines.map(|(line, number)| (format!("line {number}: "), line)))
            } else {
                Box::new(std::iter::once((String::new(), Ok(word.clone()))))
            }
        });
    lines.filter_map(move |(place, line)| {
        let line = match line.context("standard input") {
            Ok(line) => line,
            Err(error) => return Some(Err(error)),
        };
        let words: Vec<&str> =
            line.split('#').next().unwrap_or_default().split_whitespace().collect();
        if words.is_empty() {
            return None;
        }
        Some(question(&words).map_err(|error| anyhow::anyhow!("{place}{error:#}")))
    })
}

/// Asks page by page, and writes a line for each answer. What was asked before a question that cannot be
/// understood is answered.
fn each<T: Clone>(
    mut questions: impl Iterator<Item = Result<T>>,
    mut ask: impl FnMut(Vec<T>) -> Result<Value, control::socket::ClientError>,
    line: impl Fn(&Value, &T) -> String,
) -> Result<()> {
    let mut out = output();
    let mut failed = None;
    while failed.is_none() {
        let mut page = Vec::with_capacity(PAGE);
        for question in questions.by_ref().take(PAGE) {
            match question {
                Ok(question) => page.push(question),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        if page.is_empty() {
            break;
        }
        let answer = ask(page.clone())?;
        for (answer, question) in rows(&answer["answers"]).zip(&page) {
            if ends(writeln!(out, "{}", line(answer, question)))? {
                return Ok(());
            }
        }
        if ends(out.flush())? {
            return Ok(());
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Whether packets of a protocol have ports.
fn has_ports(name: &str) -> Result<bool> {
    if let Some((_, has_ports)) = PROTOCOLS.iter().find(|(known, _)| *known == name) {
        return Ok(*has_ports);
    }
    Ok(match name.parse() {
        Ok(protocol::ICMP | protocol::ICMPV6) => true,
        Ok(number) => protocol::has_ports(number),
        Err(_) => {
            let names: Vec<&str> = PROTOCOLS.iter().map(|(name, _)| *name).collect();
            bail!("no protocol \"{name}\": {}, or a number", names.join(", "))
        }
    })
}

fn address(text: &str) -> Result<IpAddr> {
    text.parse().with_context(|| format!("\"{text}\" is no IPv4 or IPv6 address"))
}

/// A column: never empty, so that columns can be counted.
fn column(value: &Value) -> &str {
    value.as_str().filter(|text| !text.is_empty()).unwrap_or("-")
}

/// `ADDRESS PREFIX KIND NEXT_HOPS SOURCE`; next hops as `ADDRESS%INTERFACE`, with commas between several.
fn route_line(answer: &Value) -> String {
    let route = &answer["route"];
    let next = &answer["next"];
    let hops = next_hops(next);
    let columns = [
        column(&answer["address"]),
        column(&route["prefix"]),
        column(&next["kind"]),
        if hops.is_empty() { "-" } else { &hops },
        column(&route["candidates"][0]["source"]),
    ];
    columns.join("\t")
}

/// `ADDRESS%INTERFACE` of all next hops, with commas between several.
pub(crate) fn next_hops(next: &Value) -> String {
    if let Some(interface) = next["interface"].as_str() {
        return format!("%{interface}");
    }
    let mut hops = String::new();
    for member in rows(&next["members"]) {
        let comma = if hops.is_empty() { "" } else { "," };
        // A String takes writes without an error.
        let _ =
            write!(hops, "{comma}{}%{}", column(&member["address"]), column(&member["interface"]));
    }
    hops
}

/// `ADDRESS PORT PROTOCOL SLICE KIND WHERE OWNER`: where is the tunnel's end, the neighbor, or why it is dropped.
fn slice_line(answer: &Value, asked: &str) -> String {
    let next = &answer["next"];
    let end = [&next["remote"], &next["neighbor"]["address"], &next["reason"]];
    let columns = [
        column(&answer["address"]),
        asked,
        column(&answer["slice"]["name"]),
        column(if answer["error"].is_null() { &next["kind"] } else { &answer["error"] }),
        end.into_iter().map(column).find(|text| *text != "-").unwrap_or("-"),
        column(&answer["owner"]),
    ];
    columns.join("\t")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_line_has_all_columns() {
        let answer = json!({
            "address": "20.1.2.3",
            "route": { "prefix": "20.0.0.0/8", "candidates": [{ "source": "kernel" }] },
            "next": { "kind": "next-hops", "members": [
                { "address": "10.1.0.2", "interface": "wan0" },
                { "address": "10.1.0.3", "interface": "wan1" },
            ]},
        });
        let expected = "20.1.2.3\t20.0.0.0/8\tnext-hops\t10.1.0.2%wan0,10.1.0.3%wan1\tkernel";
        assert_eq!(route_line(&answer), expected);
        let answer =
            json!({ "address": "20.1.2.3", "route": null, "next": { "kind": "no-route" } });
        assert_eq!(route_line(&answer), "20.1.2.3\t-\tno-route\t-\t-");
        let answer = json!({
            "address": "192.0.2.1", "slice": { "name": "web" }, "owner": "node b",
            "next": { "kind": "tunnel", "remote": "10.1.0.7" },
        });
        assert_eq!(
            slice_line(&answer, "80\ttcp"),
            "192.0.2.1\t80\ttcp\tweb\ttunnel\t10.1.0.7\tnode b"
        );
        let answer = json!({ "address": "10.0.0.1", "error": "not-shared" });
        assert_eq!(slice_line(&answer, "80\ttcp"), "10.0.0.1\t80\ttcp\t-\tnot-shared\t-\t-");
    }

    #[test]
    fn a_protocol_that_is_not_known_is_told_with_all_that_are() {
        let error = has_ports("foo").expect_err("no protocol").to_string();
        for (name, _) in PROTOCOLS {
            assert!(error.contains(name), "{error}");
        }
        assert!(!has_ports("gre").expect("known") && !has_ports("50").expect("ESP"));
        assert!(has_ports("1").expect("ICMP") && has_ports("17").expect("UDP"));
    }

    #[test]
    fn questions_are_pages_of_any_length_and_the_ones_before_an_error_are_asked() {
        let words: Vec<String> = (0..PAGE * 2 + 1).map(|number| number.to_string()).collect();
        let words = [words, vec!["x".to_owned(), "1".to_owned()]].concat();
        let parsed = questions(&words, |words| Ok(words[0].parse::<usize>()?));
        let mut asked = Vec::new();
        let answered = |page: Vec<usize>| {
            asked.push(page);
            Ok(json!({ "answers": [] }))
        };
        let error = each(parsed, answered, |_, _| String::new()).expect_err("x is no number");
        assert!(error.to_string().contains("invalid digit"), "{error}");
        let lengths: Vec<usize> = asked.iter().map(Vec::len).collect();
        assert_eq!(lengths, [PAGE, PAGE, 1]);
        assert_eq!(asked.concat(), (0..PAGE * 2 + 1).collect::<Vec<_>>());
    }
}
