//! A packet from a line such as `udp 192.0.2.1:5000 > 198.51.100.7:3000 ttl 3`.
//!
//! ```text
//!  udp|tcp|sctp ADDRESS:PORT > ADDRESS:PORT [syn,ack]     IPv6 as [ADDRESS]:PORT
//!  icmp         ADDRESS > ADDRESS [echo|reply] [id N]     ICMPv6 for IPv6 addresses
//!  proto N      ADDRESS > ADDRESS
//!    ... [ttl N] [length N] [df] [fragment OFFSET[+]]
//! ```
//!
//! `length` is that of the IP packet; `fragment 0+` is the first of several, `fragment 1480` the last.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail, ensure};
use wire::{checksum, icmp, icmpv6, ipv4, ipv6, protocol, tcp, udp};

/// The packet's fields, before they are bytes.
struct Packet {
    source: IpAddr,
    destination: IpAddr,
    ports: (u16, u16),
    protocol: u8,
    tcp_flags: u8,
    is_reply: bool,
    identifier: u16,
    ttl: u8,
    length: Option<usize>,
    dont_fragment: bool,
    /// Offset in bytes, and whether more follow.
    fragment: Option<(usize, bool)>,
}

/// The IP packet that `text` describes.
pub(crate) fn parse(text: &str) -> Result<Vec<u8>> {
    let mut words = text.split_whitespace();
    let kind = words.next().context("no packet: such as 'udp 192.0.2.1:5000 > 198.51.100.7:53'")?;
    let mut next = |what: &str| words.next().with_context(|| format!("{what} is missing"));
    let (has_ports, number) = match kind {
        "udp" => (true, protocol::UDP),
        "tcp" => (true, protocol::TCP),
        "sctp" => (true, protocol::SCTP),
        "icmp" | "icmpv6" => (false, protocol::ICMP),
        "proto" => {
            let number = next("the protocol's number")?;
            (false, number.parse().with_context(|| format!("protocol {number}"))?)
        }
        other => bail!("{other:?} is none of udp, tcp, sctp, icmp, proto"),
    };
    let from = next("the source")?;
    let arrow = next("'>' behind the source")?;
    ensure!(arrow == ">", "'>' is expected behind the source, not {arrow:?}");
    let (source, source_port) = end(from, has_ports)?;
    let (destination, destination_port) = end(next("the destination")?, has_ports)?;
    ensure!(
        source.is_ipv4() == destination.is_ipv4(),
        "{source} and {destination} are of different families"
    );
    let is_icmp = matches!(kind, "icmp" | "icmpv6");
    let mut packet = Packet {
        source,
        destination,
        ports: (source_port, destination_port),
        protocol: if is_icmp && source.is_ipv6() { protocol::ICMPV6 } else { number },
        tcp_flags: tcp::flags::SYN,
        is_reply: false,
        identifier: 1,
        ttl: 64,
        length: None,
        dont_fragment: false,
        fragment: None,
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word}: its value is missing"));
        let bad = || format!("{word}: not a number that fits");
        match word {
            "ttl" => packet.ttl = value()?.parse().with_context(bad)?,
            "length" => packet.length = Some(value()?.parse().with_context(bad)?),
            "id" if is_icmp => packet.identifier = value()?.parse().with_context(bad)?,
            "echo" if is_icmp => packet.is_reply = false,
            "reply" if is_icmp => packet.is_reply = true,
            "df" => packet.dont_fragment = true,
            "fragment" => {
                let offset = value()?;
                let more = offset.ends_with('+');
                let offset: usize = offset.trim_end_matches('+').parse().with_context(bad)?;
                ensure!(
                    offset.is_multiple_of(8) && offset < 65_536,
                    "fragment {offset}: not a multiple of 8"
                );
                packet.fragment = Some((offset, more));
            }
            flags if kind == "tcp" => packet.tcp_flags = tcp_flags(flags)?,
            other => bail!("{other:?}: not expected here"),
        }
    }
    packet.emit()
}

fn end(text: &str, has_ports: bool) -> Result<(IpAddr, u16)> {
    if has_ports {
        let end: SocketAddr = text
            .parse()
            .with_context(|| format!("{text:?}: expected ADDRESS:PORT or [ADDRESS]:PORT"))?;
        return Ok((end.ip(), end.port()));
    }
    Ok((text.parse().with_context(|| format!("{text:?}: expected an address"))?, 0))
}

fn tcp_flags(text: &str) -> Result<u8> {
    text.split(',').try_fold(0, |flags, name| {
        let flag = match name {
            "fin" => tcp::flags::FIN,
            "syn" => tcp::flags::SYN,
            "rst" => tcp::flags::RST,
            "psh" => tcp::flags::PSH,
            "ack" => tcp::flags::ACK,
            "urg" => tcp::flags::URG,
            "ece" => tcp::flags::ECE,
            "cwr" => tcp::flags::CWR,
            other => bail!("{other:?} is neither a TCP flag nor ttl, length, df, fragment"),
        };
        Ok(flags | flag)
    })
}

impl Packet {
    fn emit(&self) -> Result<Vec<u8>> {
        let extension = if self.source.is_ipv6() && self.fragment.is_some() { 8 } else { 0 };
        let header = if self.source.is_ipv4() { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN };
        let is_later = self.fragment.is_some_and(|(offset, _)| offset > 0);
        let mut payload = if is_later { Vec::new() } else { self.transport() };
        if let Some(length) = self.length {
            let least = header + extension + payload.len();
            ensure!(length >= least, "length {length}: the headers alone take {least} bytes");
            payload.resize(length - header - extension, 0);
        } else if is_later {
            payload.resize(8, 0);
        }
        if !is_later {
            self.checksum(&mut payload);
        }
        let payload_len = u16::try_from(payload.len() + extension).context("length: too long")?;
        let mut bytes = vec![0; header];
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let out = bytes.first_chunk_mut().context("a header")?;
                ipv4::Ipv4Repr {
                    source: source.octets(),
                    destination: destination.octets(),
                    protocol: self.protocol,
                    ttl: self.ttl,
                    traffic_class: 0,
                    dont_fragment: self.dont_fragment,
                    identification: 1,
                    payload_len,
                }
                .emit(out);
                if let Some((offset, more)) = self.fragment {
                    set_fragment(out, offset, more)?;
                }
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let out = bytes.first_chunk_mut().context("a header")?;
                ipv6::Ipv6Repr {
                    source: source.octets(),
                    destination: destination.octets(),
                    next_header: if extension > 0 { protocol::FRAGMENT } else { self.protocol },
                    hop_limit: self.ttl,
                    traffic_class: 0,
                    flow_label: 0,
                    payload_len,
                }
                .emit(out);
                if let Some((offset, more)) = self.fragment {
                    // RFC 8200 section 4.5.
                    let field = u16::try_from(offset)? | u16::from(more);
                    bytes.extend([self.protocol, 0]);
                    bytes.extend(field.to_be_bytes());
                    bytes.extend([0, 0, 0, 1]);
                }
            }
            _ => bail!("addresses of different families"),
        }
        bytes.extend(payload);
        Ok(bytes)
    }

    /// The transport header, with a checksum of 0.
    fn transport(&self) -> Vec<u8> {
        let (source, destination) = (self.ports.0.to_be_bytes(), self.ports.1.to_be_bytes());
        let mut out = [source, destination].concat();
        match self.protocol {
            protocol::TCP => {
                out.extend([0; 8]);
                out.extend([5 << 4, self.tcp_flags, 0xff, 0xff, 0, 0, 0, 0]);
                out
            }
            protocol::UDP => {
                out.extend([0; 4]);
                out
            }
            protocol::SCTP => {
                out.extend([0; 8]);
                out
            }
            protocol::ICMP | protocol::ICMPV6 => {
                let kind = match (self.protocol, self.is_reply) {
                    (protocol::ICMP, false) => icmp::ECHO_REQUEST,
                    (protocol::ICMP, true) => icmp::ECHO_REPLY,
                    (_, false) => icmpv6::ECHO_REQUEST,
                    (_, true) => icmpv6::ECHO_REPLY,
                };
                let [high, low] = self.identifier.to_be_bytes();
                vec![kind, 0, 0, 0, high, low, 0, 1]
            }
            _ => Vec::new(),
        }
    }

    fn checksum(&self, payload: &mut [u8]) {
        let len = u16::try_from(payload.len()).unwrap_or(u16::MAX);
        if let (protocol::UDP, Some(field)) = (self.protocol, payload.get_mut(4..6)) {
            field.copy_from_slice(&len.to_be_bytes());
        }
        let pseudo_header = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) if self.protocol != protocol::ICMP => {
                checksum::pseudo_header_v4(
                    source.octets(),
                    destination.octets(),
                    self.protocol,
                    len,
                )
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => checksum::pseudo_header_v6(
                &source.octets(),
                &destination.octets(),
                self.protocol,
                u32::from(len),
            ),
            _ => 0,
        };
        let at = match self.protocol {
            protocol::TCP => 16,
            protocol::UDP => 6,
            protocol::ICMP | protocol::ICMPV6 => 2,
            _ => return,
        };
        let sum = match (!checksum::fold(checksum::ones_complement_sum(payload, pseudo_header)), at)
        {
            (0, 6) => u16::MAX,
            (sum, _) => sum,
        };
        if let Some(field) = payload.get_mut(at..at + udp::HEADER_LEN / 4) {
            field.copy_from_slice(&sum.to_be_bytes());
        }
    }
}

fn set_fragment(header: &mut [u8; ipv4::HEADER_LEN], offset: usize, more: bool) -> Result<()> {
    let units = u16::try_from(offset / 8)?;
    let field = units | if more { 0x2000 } else { 0 };
    header[6..8].copy_from_slice(&field.to_be_bytes());
    header[10..12].fill(0);
    let sum = checksum::internet_checksum(&header[..]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_have_right_checksums_and_lengths() {
        let packet =
            parse("udp 192.0.2.1:5000 > 198.51.100.7:3000 ttl 3 length 100").expect("a packet");
        assert_eq!((packet.len(), packet[8], packet[9]), (100, 3, 17));
        assert!(checksum::ipv4_header_is_valid(&packet[..20]));
        assert_eq!(packet[20..26], [0x13, 0x88, 0x0b, 0xb8, 0, 80]);
        let sum = checksum::pseudo_header_v4([192, 0, 2, 1], [198, 51, 100, 7], 17, 80);
        assert_eq!(checksum::fold(checksum::ones_complement_sum(&packet[20..], sum)), 0xffff);

        let packet = parse("tcp [2001:db8::1]:1 > [2001:db8::2]:443 syn,ack").expect("a packet");
        assert_eq!((packet.len(), packet[6], packet[53]), (60, 6, 0x12));
        let packet = parse("icmp 10.0.0.1 > 10.0.0.2 reply id 7").expect("a packet");
        assert_eq!(packet[20..28], [0, 0, 0xff, 0xf7, 0, 7, 0, 1]);
        let packet = parse("udp 10.0.0.1:1 > 10.0.0.2:2 fragment 1480").expect("a packet");
        assert_eq!((packet.len(), &packet[6..8]), (28, &[0, 185][..]));
        assert!(checksum::ipv4_header_is_valid(&packet[..20]));
        let packet = parse("udp [fd00::1]:1 > [fd00::2]:2 fragment 0+").expect("a packet");
        assert_eq!((packet[6], packet[40], packet[43]), (44, 17, 1));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, words) in [
            ("", "no packet"),
            ("igmp 1.2.3.4 > 5.6.7.8", "none of udp"),
            ("udp 1.2.3.4 > 5.6.7.8:1", "ADDRESS:PORT"),
            ("udp 1.2.3.4:1 5.6.7.8:1", "'>'"),
            ("udp 1.2.3.4:1 > [::1]:1", "different families"),
            ("udp 1.2.3.4:1 > 5.6.7.8:1 ttl 300", "ttl"),
            ("udp 1.2.3.4:1 > 5.6.7.8:1 length 20", "28 bytes"),
            ("tcp 1.2.3.4:1 > 5.6.7.8:1 syn,foo", "foo"),
            ("udp 1.2.3.4:1 > 5.6.7.8:1 fragment 7", "multiple of 8"),
        ] {
            let error = format!("{:#}", parse(text).expect_err(text));
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
