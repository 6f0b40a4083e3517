//! Filters in the syntax of pcap-filter(7), compiled by libpcap in the process of the operator, who
//! typed them: the router gets a program, checks it and runs it.

use anyhow::{Context, Result};
use pcap::{Capture, Linktype};

/// Compiles `expression` for frames with an Ethernet header; an empty one takes every frame.
pub(crate) fn compile(expression: &str) -> Result<Vec<(u16, u8, u8, u32)>> {
    if expression.trim().is_empty() {
        return Ok(Vec::new());
    }
    let context = || format!("--filter {expression:?}");
    let program = Capture::dead(Linktype::ETHERNET)
        .and_then(|capture| capture.compile(expression, true))
        .with_context(context)?;
    // The crate shows instructions as `tcpdump -ddd` does, and no other way.
    program.get_instructions().iter().map(|one| instruction(&one.to_string())).collect()
}

fn instruction(text: &str) -> Result<(u16, u8, u8, u32)> {
    let mut words = text.split_whitespace();
    let mut word = || words.next().with_context(|| format!("libpcap gave {text:?}"));
    let (code, jt, jf, k) = (word()?, word()?, word()?, word()?);
    Ok((code.parse()?, jt.parse()?, jf.parse()?, k.parse()?))
}

#[cfg(test)]
mod tests {
    use forward::{Filter, FilterInstruction};

    use super::*;

    fn filter(expression: &str) -> Filter {
        let program = compile(expression).expect(expression);
        let program = program
            .into_iter()
            .map(|(code, if_true, if_false, k)| FilterInstruction { code, if_true, if_false, k })
            .collect();
        Filter::new(program).expect(expression)
    }

    /// Our machine and libpcap's own agree on every frame of every scenario.
    #[test]
    fn filters_agree_with_libpcap() {
        let expressions = [
            "udp",
            "tcp port 80",
            "host 192.0.2.1",
            "src net 10.0.0.0/8 and not icmp",
            "ip6",
            "ip6 and udp",
            "icmp[icmptype] == icmp-echo",
            "tcp[tcpflags] & tcp-syn != 0",
            "greater 100",
            "ether[0] & 1 = 0 and ip[8] > 1",
            "udp[2:2] == 6080 or vlan",
            "ip[6:2] & 0x1fff != 0",
            "portrange 1000-40000",
            "len < 60 or ip[2:2] - 20 > 100",
            "ip[0] & 0xf != 5",
        ];
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let mut compared = [0, 0];
        for expression in expressions {
            let ours = filter(expression);
            let capture = Capture::dead(Linktype::ETHERNET).expect("libpcap");
            let theirs = capture.compile(expression, true).expect(expression);
            for scenario in std::fs::read_dir(&folder).expect("scenarios") {
                let scenario = scenario.expect("an entry").path();
                for file in std::fs::read_dir(&scenario).into_iter().flatten().flatten() {
                    let name = file.file_name();
                    if !name.to_string_lossy().ends_with(".pcap") {
                        continue;
                    }
                    for packet in sim::read_pcap(file.path()).expect("a capture").packets {
                        let (ours, theirs) =
                            (ours.matches(&packet.bytes), theirs.filter(&packet.bytes));
                        assert_eq!(ours, theirs, "{expression}: {:02x?}", packet.bytes);
                        compared[usize::from(ours)] += 1;
                    }
                }
            }
        }
        assert!(compared[0] > 1000 && compared[1] > 1000, "{compared:?}");
    }

    #[test]
    fn a_filter_that_makes_no_sense_is_refused_with_libpcaps_words() {
        let error = format!("{:#}", compile("udp prot 53").expect_err("no filter"));
        assert!(error.contains("syntax error"), "{error}");
    }
}
