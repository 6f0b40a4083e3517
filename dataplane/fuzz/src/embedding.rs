//! ICMP errors that quote packets: of both families, with options and extension headers, cut anywhere,
//! padded and extended. The flow that is read is the one that was quoted, and the error reaches the owner
//! of the packet that it is about.
//!
//! The input is read by `arbitrary`: its choices make a quoted packet that is sound up to where it is cut,
//! with what that must be read as.

use arbitrary::{Result, Unstructured};
use wire::{EmbeddedError, icmp, icmpv6, parse_embedded_v4, parse_embedded_v6};

use crate::common::network::Network;
use crate::common::{A, Plan, WAN, WHOLE, address, packets};
use crate::planted::{self, Defect};

/// The target.
pub fn run(bytes: &[u8]) {
    // What the choices lack ends as zeros, so that there is no error.
    let _ = any(&mut Unstructured::new(bytes));
}

/// Source ports of 192.0.2.2 by the node that owns them.
const PORTS: &[(u16, usize)] = &[
    (0, 2),
    (1023, 2),
    (1024, 3),
    (33_791, 3),
    (33_792, 4),
    (50_000, 4),
    (50_001, 5),
    (65_535, 5),
];

/// A packet to be quoted.
struct Quoted {
    bytes: Vec<u8>,
    /// Where its transport header stands.
    transport: usize,
    /// How many bytes of the transport header tell the ports; `None`: nothing does.
    needed: Option<usize>,
    protocol: u8,
    port: u16,
    is_later_fragment: bool,
}

fn any(input: &mut Unstructured<'_>) -> Result<()> {
    let is_v4 = input.arbitrary()?;
    let (port, owner) = *input.choose(PORTS)?;
    let mut quoted = if is_v4 { quoted_v4(input, port)? } else { quoted_v6(input, port)? };
    let whole = quoted.bytes.len();
    let cut = input.int_in_range(0..=whole)?;
    quoted.bytes.truncate(cut);

    // As `wire` reads it.
    let read =
        if is_v4 { parse_embedded_v4(&quoted.bytes) } else { parse_embedded_v6(&quoted.bytes) };
    let expected = match quoted.needed {
        _ if cut < quoted.transport => Err(EmbeddedError::Truncated),
        _ if quoted.is_later_fragment => Err(EmbeddedError::LaterFragment),
        Some(needed) if cut < quoted.transport + needed => Err(EmbeddedError::Truncated),
        Some(_) => Ok((quoted.protocol, quoted.port, quoted.transport)),
        None => Err(EmbeddedError::NoPorts),
    };
    let mut flow = read.map(|flow| (flow.protocol, flow.source_port, flow.transport_offset));
    if let (true, true, Ok((protocol, ..)), Some(&[high, low])) =
        (planted::is(Defect::QuotedOptions), is_v4, flow, quoted.bytes.get(20..22))
    {
        flow = Ok((protocol, u16::from_be_bytes([high, low]), 20));
    }
    // A quotation that ends before the type of an ICMP message is cut, whatever the type was.
    if !(matches!(expected, Err(EmbeddedError::NoPorts)) && flow == Err(EmbeddedError::Truncated)) {
        assert_eq!(flow, expected, "{:02x?}", quoted.bytes);
    }

    // As a router does with it: what is behind the quotation is an extension (RFC 4884), or padding.
    let kind = if is_v4 { *input.choose(&[3, 11, 12])? } else { *input.choose(&[1, 2, 3, 4])? };
    let (code, mut length, rest) = (input.int_in_range(0..=5)?, 0, input.arbitrary::<u16>()?);
    if input.ratio(1, 4)? {
        let unit = if is_v4 { 4 } else { 8 };
        let room = quoted.bytes.len().max(128).next_multiple_of(unit);
        length = u8::try_from(room / unit).unwrap_or(0);
        if length > 0 {
            quoted.bytes.resize(room, 0);
            quoted.bytes.extend([0x20, 0, 0, 0, 0, 8, 1, 1, 0, 0, 1, 0]);
        }
    }
    let [high, low] = rest.to_be_bytes();
    let header = if is_v4 {
        [kind, code, 0, 0, 0, length, high, low]
    } else {
        [kind, code, 0, 0, length, 0, high, low]
    };
    let message = [&header[..], &quoted.bytes].concat();
    let embedded = if is_v4 { icmp::embedded(&message) } else { icmpv6::embedded(&message) };
    assert!(embedded.is_some_and(|embedded| message[8..].starts_with(embedded)));
    let (from, to) = if is_v4 {
        (address("198.51.100.9"), address("192.0.2.2"))
    } else {
        (address("2001:db8:7::9"), address("2001:db8:5::1"))
    };
    let packet = packets::icmp(from, to, message).expect("one family");
    let mut network = Network::new(&Plan { frames: 160, ..Plan::default() }, WHOLE);
    let left = network.carry(A, WAN, &packets::frame(WAN, &packet));
    let fits = packet.len() + 44 <= 1500;
    if is_v4 && expected.is_ok() && fits {
        let [only] = &left[..] else { panic!("{left:02x?} for {packet:02x?}") };
        assert_eq!((only.node, only.position), (owner, None), "port {port}: {packet:02x?}");
        assert_eq!(only.bytes[20..], packet[20..]);
    }
    network.finish();
    Ok(())
}

/// A transport header from `port`, and how many bytes of it tell the port.
fn transport(
    input: &mut Unstructured<'_>,
    is_v4: bool,
    port: u16,
) -> Result<(u8, Vec<u8>, Option<usize>)> {
    let [high, low] = port.to_be_bytes();
    let tail = input.int_in_range(0..=40)?;
    let echo = if is_v4 { *input.choose(&[8, 0])? } else { *input.choose(&[128, 129])? };
    let (protocol, header, needed) = match input.int_in_range(0..=4)? {
        0 => (17, vec![high, low, 0, 53, 0, 8, 0, 0], Some(4)),
        1 => {
            (6, vec![high, low, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 2, 1, 0, 0, 0, 0, 0], Some(4))
        }
        2 => (132, vec![high, low, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0], Some(4)),
        3 => (if is_v4 { 1 } else { 58 }, vec![echo, 0, 0, 0, high, low, 0, 1], Some(6)),
        _ => (*input.choose(&[50, 89, 112, 253])?, vec![high, low, 0, 0, 0, 0, 0, 0], None),
    };
    Ok((protocol, [header, vec![0x5a; tail]].concat(), needed))
}

fn quoted_v4(input: &mut Unstructured<'_>, port: u16) -> Result<Quoted> {
    let (protocol, segment, needed) = transport(input, true, port)?;
    let options = usize::from(input.int_in_range(0..=10_u8)?) * 4;
    let is_later_fragment = input.ratio(1, 8)?;
    let (from, to) = (address("192.0.2.2"), address("198.51.100.7"));
    let mut bytes =
        packets::ip(from, to, input.arbitrary()?, protocol, &segment).expect("one family");
    bytes.splice(20..20, std::iter::repeat_n(1, options));
    bytes[0] = 0x45 + (options / 4) as u8;
    let total_len = bytes.len() as u16;
    bytes[2..4].copy_from_slice(&total_len.to_be_bytes());
    if is_later_fragment {
        bytes[7] = 3;
    }
    // Its checksum is whatever the last router made of it.
    bytes[10..12].copy_from_slice(&input.arbitrary::<[u8; 2]>()?);
    Ok(Quoted { bytes, transport: 20 + options, needed, protocol, port, is_later_fragment })
}

fn quoted_v6(input: &mut Unstructured<'_>, port: u16) -> Result<Quoted> {
    let (protocol, segment, needed) = transport(input, false, port)?;
    let mut is_later_fragment = false;
    let mut payload = Vec::new();
    let mut kinds = Vec::new();
    for _ in 0..input.int_in_range(0..=4)? {
        // A hop-by-hop header stands first or nowhere.
        kinds.push(*input.choose(&[60_u8, 43, 44, 51])?);
    }
    if input.ratio(1, 4)? {
        kinds.insert(0, 0);
    }
    // One fragment header at most, the last of the chain: what is behind it of a later one is data.
    if let Some(at) = kinds.iter().position(|kind| *kind == 44) {
        kinds.truncate(at + 1);
    }
    for (position, kind) in kinds.iter().enumerate() {
        let next = kinds.get(position + 1).copied().unwrap_or(protocol);
        match kind {
            44 => {
                is_later_fragment = input.ratio(1, 3)?;
                let offset = if is_later_fragment { 8 } else { 0 };
                payload.extend([next, 0, 0, offset | 1, 0, 0, 0, 9]);
            }
            51 => payload.extend([
                next, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,
            ]),
            _ => payload.extend([next, 0, 1, 4, 0, 0, 0, 0]),
        }
    }
    let transport = 40 + payload.len();
    payload.extend(segment);
    let first = kinds.first().copied().unwrap_or(protocol);
    let (from, to) = (address("2001:db8:5::1"), address("2001:db8:7::7"));
    let bytes = packets::ip(from, to, input.arbitrary()?, first, &payload).expect("one family");
    Ok(Quoted { bytes, transport, needed, protocol, port, is_later_fragment })
}
