//! IPv4 packets, class by class.

use std::cell::Cell;
use std::net::Ipv4Addr;

use super::addresses::{DESTINATIONS4, SOURCES4};
use super::cases::Cases;
pub(crate) use super::packet::V4;
use super::packet::{ICMP, ROUTER_MAC, TCP, UDP, ethernet, ones_sum};

const DF: u16 = 0x4000;
const MF: u16 = 0x2000;

thread_local! {
    static SENDERS: Cell<u16> = const { Cell::new(0) };
}

/// A packet that is forwarded out of port 1. Each is from a sender of its own, since Linux limits the
/// errors about missing routes for each sender.
pub(crate) fn base() -> V4 {
    let [high, low] = SENDERS.get().to_be_bytes();
    SENDERS.set(SENDERS.get().wrapping_add(1));
    let source = Ipv4Addr::new(198, 18, high, low);
    V4 { id: 0x1234, ..V4::new(source, Ipv4Addr::new(203, 0, 113, 1)) }
}

fn to(destination: &str) -> V4 {
    V4 { destination: destination.parse().expect("an address"), ..base() }
}

pub(crate) fn all(cases: &mut Cases) {
    fields(cases);
    lengths(cases);
    checksums(cases);
    options(cases);
    addresses(cases);
    sizes(cases);
    fragments(cases);
    icmp(cases);
    mutations(cases);
}

fn fields(cases: &mut Cases) {
    for ttl in 0..=255_u8 {
        cases.v4(&format!("v4/ttl:{ttl}"), &V4 { ttl, ..base() }.udp(b"every TTL there is"));
    }
    for ttl in [0, 1, 2] {
        for &(name, destination) in DESTINATIONS4 {
            let packet = V4 { ttl, ..to(destination) }.udp(b"and to everywhere");
            cases.v4(&format!("v4/ttl-{ttl}/{name}:{destination}"), &packet);
        }
        for protocol in [ICMP, 2, TCP, 47, 50] {
            let payload = cases.random.bytes(40);
            let packet = V4 { ttl, protocol, ..base() }.packet(&payload);
            cases.v4(&format!("v4/ttl-{ttl}/protocol:{protocol}"), &packet);
        }
    }
    for tos in 0..=255_u8 {
        cases.v4(&format!("v4/tos:{tos}"), &V4 { tos, ..base() }.udp(b"every TOS there is"));
        let dying = V4 { tos, ttl: 1, ..base() }.udp(b"and its error");
        cases.v4(&format!("v4/tos-error:{tos}"), &dying);
    }
    for protocol in 0..=255_u8 {
        let length = cases.random.below(60);
        let payload = cases.random.bytes(length);
        let packet = V4 { protocol, ..base() }.packet(&payload);
        cases.v4(&format!("v4/protocol:{protocol}"), &packet);
    }
    for version in [0, 3, 5, 6, 15] {
        cases.v4("v4/version", &V4 { version, ..base() }.udp(b"not version 4"));
    }
    for words in 0..16 {
        let header = V4 { header_words: Some(words), ..base() };
        cases.v4(
            &format!("v4/ihl:{words}"),
            &header.udp(b"whatever is behind is taken for options"),
        );
        let options = V4 { options: vec![1; 40], ..header };
        cases.v4(&format!("v4/ihl-nop:{words}"), &options.udp(b"40 bytes of padding"));
    }
    for fragment in [0x8000, 0xc000, 0x8000 | DF] {
        cases.v4(
            &format!("v4/reserved-flag:{fragment:04x}"),
            &V4 { fragment, ..base() }.udp(b"RFC 3514"),
        );
    }
    for flags in 0..=255_u8 {
        cases.v4(&format!("v4/tcp-flags:{flags}"), &base().tcp(flags, &[2, 4, 5, 0xb4], b"TCP"));
    }
    for _ in 0..32 {
        let id = cases.random.next() as u16;
        for fragment in [0, DF] {
            cases.v4("v4/id", &V4 { id, fragment, ..base() }.udp(b"any identification"));
        }
    }
}

fn lengths(cases: &mut Cases) {
    let right = base().udp(b"a total length that is not the frame's").len() as u16;
    let wrong = [0, 1, 19, 20, 21, 27, 28, 29, right - 1, right + 1, right + 2, 1500, 0xffff];
    for total in wrong {
        let packet = V4 { total_length: Some(total), ..base() };
        let packet = packet.udp(b"a total length that is not the frame's");
        cases.v4(&format!("v4/total-length:{total}"), &packet);
        let dying = V4 { total_length: Some(total), ttl: 1, ..base() };
        let dying = dying.udp(b"a total length that is not the frame's");
        cases.v4(&format!("v4/total-length-error:{total}"), &dying);
    }
    for padding in [1, 2, 6, 18, 46, 100, 400] {
        let packet = [base().udp(b"short"), vec![0xee; padding]].concat();
        cases.v4(&format!("v4/padding:{padding}"), &packet);
        let dying = [V4 { ttl: 1, ..base() }.udp(b"short"), vec![0xee; padding]].concat();
        cases.v4(&format!("v4/padding-error:{padding}"), &dying);
    }
    let whole = ethernet(ROUTER_MAC[0], 0x0800, &base().udp(b"cut off somewhere"));
    for length in 14..=whole.len() {
        cases.frame(&format!("v4/truncated:{length}"), whole[..length].to_vec());
    }
    for length in 0..20 {
        for protocol in [TCP, UDP, ICMP, 132] {
            let packet = V4 { protocol, ..base() }.packet(&vec![0x11; length]);
            cases.v4(&format!("v4/transport-truncated:{protocol}-{length}"), &packet);
            let dying = V4 { protocol, ttl: 1, ..base() }.packet(&vec![0x11; length]);
            cases.v4(&format!("v4/transport-truncated-error:{protocol}-{length}"), &dying);
        }
    }
}

/// Wrong checksums, and right ones where one's complement has two zeros or a carry runs through.
fn checksums(cases: &mut Cases) {
    let header = base();
    let right = header.udp(b"sum");
    let right = u16::from_be_bytes([right[10], right[11]]);
    for wrong in [0, 0xffff, !right, right ^ 1, right ^ 0x8000, right.wrapping_add(0x0100)] {
        cases.v4("v4/checksum-wrong", &V4 { checksum: Some(wrong), ..header.clone() }.udp(b"sum"));
    }
    let wanted = [0x0000, 0xffff, 0xfeff, 0xfefe, 0xff00, 0x00ff, 0x0100, 0xfffe, 0x0001, 0xfe00];
    for wanted in wanted {
        for ttl in [2, 64, 255] {
            // The identification is what makes the sum come out as wanted.
            let packet = V4 { id: 0, ttl, checksum: Some(0), ..header.clone() }.udp(b"sum");
            let id = !ones_sum(&[&packet[..20], &u16::to_be_bytes(wanted)]);
            let packet = V4 { id, ttl, checksum: Some(wanted), ..header.clone() }.udp(b"sum");
            cases.v4(&format!("v4/checksum:{wanted:04x}-{ttl}"), &packet);
        }
    }
}

fn options(cases: &mut Cases) {
    let rr = |length: u8, pointer: u8| {
        let mut option = vec![7, length, pointer];
        option.resize(usize::from(length), 0);
        option
    };
    let stamp = |length: u8, pointer: u8, flags: u8| {
        let mut option = vec![68, length, pointer, flags];
        option.resize(usize::from(length), 0);
        option
    };
    let mut stamp_for_own = stamp(20, 5, 3);
    stamp_for_own[4..8].copy_from_slice(&[10, 0, 0, 1]);
    let mut stamp_for_other = stamp(20, 5, 3);
    stamp_for_other[4..8].copy_from_slice(&[203, 0, 113, 1]);
    let source_route = |kind: u8, pointer: u8| vec![kind, 11, pointer, 10, 1, 0, 2, 203, 0, 113, 1];
    let list: Vec<(&str, Vec<u8>)> = vec![
        ("nop", vec![1, 1, 1, 1]),
        ("end", vec![0]),
        ("end-then-garbage", vec![0, 0xff, 0xff, 0xff]),
        ("nop-end", vec![1, 1, 1, 0]),
        ("router-alert", vec![148, 4, 0, 0]),
        ("router-alert-value", vec![148, 4, 0, 1]),
        ("router-alert-short", vec![148, 3, 0, 0]),
        ("record-route", rr(7, 4)),
        ("record-route", rr(39, 4)),
        ("record-route", rr(39, 12)),
        ("record-route-full", rr(11, 12)),
        ("record-route-full", rr(7, 8)),
        ("record-route-last", rr(11, 8)),
        ("record-route-misaligned", rr(11, 5)),
        ("record-route-no-room", rr(10, 8)),
        ("record-route-pointer", rr(11, 3)),
        ("record-route-pointer", rr(11, 0)),
        ("record-route-short", vec![7, 2]),
        ("record-route-empty", rr(3, 4)),
        ("record-route-twice", [rr(7, 4), rr(7, 4)].concat()),
        ("timestamp", stamp(12, 5, 0)),
        ("timestamp", stamp(36, 9, 0)),
        ("timestamp-full", stamp(8, 9, 0)),
        ("timestamp-overflow-full", stamp(8, 9, 0xf0)),
        ("timestamp-address", stamp(20, 5, 1)),
        ("timestamp-for-own", stamp_for_own),
        ("timestamp-for-other", stamp_for_other),
        ("timestamp-flag", stamp(12, 5, 2)),
        ("timestamp-flag", stamp(12, 5, 15)),
        ("timestamp-pointer", stamp(12, 4, 0)),
        ("timestamp-pointer", stamp(12, 0, 0)),
        ("timestamp-short", vec![68, 3, 5]),
        ("source-route", source_route(131, 4)),
        ("source-route", source_route(137, 4)),
        ("source-route-used", source_route(131, 12)),
        ("source-route-used", source_route(137, 12)),
        ("source-route-pointer", source_route(131, 3)),
        ("security", vec![130, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("security-short", vec![130, 3, 0]),
        ("cipso", vec![134, 8, 0, 0, 0, 1, 1, 2]),
        ("stream-id", vec![136, 4, 0, 9]),
        ("quick-start", vec![25, 8, 0, 0, 0, 0, 0, 0]),
        ("unknown", vec![30, 4, 1, 2]),
        ("unknown", vec![222, 6, 1, 2, 3, 4]),
        ("unknown-short", vec![222, 2]),
        ("length-zero", vec![222, 0, 1, 1]),
        ("length-one", vec![222, 1, 1, 1]),
        ("length-beyond", vec![222, 9, 1, 1]),
        ("length-missing", vec![1, 1, 1, 222]),
        ("mtu-probe", vec![11, 4, 5, 0xdc]),
        ("traceroute", vec![82, 12, 0, 1, 0, 0, 0, 0, 198, 18, 0, 1]),
    ];
    for (name, mut options) in list {
        options.resize(options.len().div_ceil(4) * 4, if name.starts_with("nop") { 1 } else { 0 });
        let with = |header: V4| V4 { options: options.clone(), ..header };
        cases.v4(&format!("v4/options/{name}"), &with(base()).udp(b"options"));
        let dying = V4 { ttl: 1, ..base() };
        cases.v4(&format!("v4/options-ttl/{name}"), &with(dying).udp(b"options"));
        cases.v4(&format!("v4/options-no-route/{name}"), &with(to("100.65.0.1")).udp(b"options"));
        cases
            .v4(&format!("v4/options-own/{name}"), &with(to("10.0.0.1")).icmp(8, 0, 7, b"options"));
        let big = V4 { fragment: DF, ..to("192.0.2.1") };
        cases.v4(&format!("v4/options-too-big/{name}"), &with(big).udp(&vec![0; 1400]));
    }
    for _ in 0..200 {
        let words = 1 + cases.random.below(10);
        let options = cases.random.bytes(words * 4);
        cases.v4("v4/options-random", &V4 { options, ..base() }.udp(b"random options"));
    }
}

fn addresses(cases: &mut Cases) {
    for &(name, destination) in DESTINATIONS4 {
        let header = to(destination);
        cases.v4(&format!("v4/destination/{name}:{destination}-udp"), &header.udp(b"where to"));
        let syn = header.tcp(2, &[2, 4, 5, 0xb4], b"");
        cases.v4(&format!("v4/destination/{name}:{destination}-tcp"), &syn);
        let echo = header.icmp(8, 0, 0x0001_0001, b"where to");
        cases.v4(&format!("v4/destination/{name}:{destination}-echo"), &echo);
        let other =
            V4 { protocol: 200, ..header.clone() }.packet(b"no protocol that anybody knows");
        cases.v4(&format!("v4/destination/{name}:{destination}-200"), &other);
    }
    for &(name, source) in SOURCES4 {
        let source: Ipv4Addr = source.parse().expect("an address");
        for (what, header) in [
            ("forwarded", base()),
            ("ttl", V4 { ttl: 1, ..base() }),
            ("no-route", to("100.65.0.1")),
            ("prohibit", to("100.64.2.1")),
            ("connected", to("10.1.0.2")),
            ("own", to("10.0.0.1")),
        ] {
            let header = V4 { source, ..header };
            cases.v4(&format!("v4/source-{what}/{name}:{source}"), &header.udp(b"where from"));
        }
        let big = V4 { source, fragment: DF, ..to("192.0.2.1") };
        cases.v4(&format!("v4/source-too-big/{name}:{source}"), &big.udp(&vec![0; 1400]));
        let echo = V4 { source, ..to("10.0.0.1") }.icmp(8, 0, 7, b"where from");
        cases.v4(&format!("v4/source-echo/{name}:{source}"), &echo);
    }
    // Neighbors that nobody answers for: what is wrong with a packet is said without asking for them.
    for destination in ["10.1.0.99", "10.2.0.99", "10.0.0.99"] {
        let header = to(destination);
        cases.v4("v4/unresolved", &header.udp(b"waits"));
        cases.v4("v4/unresolved-ttl", &V4 { ttl: 1, ..header.clone() }.udp(b"does not wait"));
        let big = V4 { fragment: DF, ..header }.udp(&vec![0; 1700]);
        cases.v4(&format!("v4/unresolved-too-big:{destination}"), &big);
    }
    for own in ["10.0.0.1", "10.1.0.1", "10.2.0.1"] {
        let source = own.parse().expect("an address");
        cases.v4("v4/source-and-destination-own", &V4 { source, ..to(own) }.udp(b"land"));
    }
}

fn sizes(cases: &mut Cases) {
    let edges = [
        ("wide", "203.0.113.1", 1500_usize),
        ("narrow", "192.0.2.1", 1400),
        ("connected-narrow", "10.2.0.2", 1400),
        ("route-mtu", "203.0.116.1", 1300),
        ("back", "203.0.115.1", 2000),
    ];
    for (name, destination, mtu) in edges {
        for size in [60, 576, 1279, 1280, 1281, mtu - 8, mtu - 1, mtu, mtu + 1, mtu + 2, mtu + 400]
        {
            let size = size.min(2000);
            for fragment in [0, DF, MF] {
                let kind = if size > mtu { "over" } else { "fits" };
                let flags = match fragment {
                    DF => "df",
                    MF => "mf",
                    _ => "plain",
                };
                let payload = cases.random.bytes(size - 28);
                let header = V4 { fragment, ..to(destination) };
                let class = format!("v4/size-{kind}-{flags}/{name}:{size}");
                cases.v4(&class, &header.udp(&payload));
                let padded = [header.udp(&payload), vec![0xee; 8]].concat();
                if size + 8 <= 2000 {
                    cases.v4(&format!("v4/size-padded-{kind}-{flags}/{name}:{size}"), &padded);
                }
                let dying = V4 { ttl: 1, ..header }.udp(&payload);
                cases.v4(&format!("v4/size-ttl/{name}:{size}"), &dying);
            }
        }
    }
    for size in (28..700).step_by(13) {
        let payload = cases.random.bytes(size - 28);
        let lost = to("100.65.0.1").udp(&payload);
        cases.v4(&format!("v4/quote:{size}"), &lost);
    }
    for size in [547, 548, 549, 575, 576, 577] {
        let payload = cases.random.bytes(size - 28);
        cases.v4(&format!("v4/quote:{size}"), &V4 { ttl: 1, ..base() }.udp(&payload));
    }
}

fn fragments(cases: &mut Cases) {
    for offset in [0_u16, 1, 2, 3, 8, 100, 8189, 8190, 8191] {
        for more in [0, MF] {
            for df in [0, DF] {
                for protocol in [TCP, UDP, ICMP, 47] {
                    for length in [8, 16, 24, 64] {
                        let fragment = offset | more | df;
                        if fragment & 0x3fff == 0 {
                            continue;
                        }
                        let payload = cases.random.bytes(length);
                        let packet = V4 { fragment, protocol, ..base() }.packet(&payload);
                        let place = if offset == 0 { "first" } else { "later" };
                        let tcp = if protocol == TCP && (offset == 1 || offset == 0 && length < 16)
                        {
                            "-tiny-tcp"
                        } else {
                            ""
                        };
                        let class =
                            format!("v4/fragment-{place}{tcp}:{offset}-{length}-{protocol}");
                        cases.v4(&class, &packet);
                    }
                }
            }
        }
        for ttl in [0, 1] {
            let place = if offset == 0 { "first" } else { "later" };
            let payload = cases.random.bytes(64);
            let packet = V4 { ttl, fragment: offset | MF, ..base() }.packet(&payload);
            cases.v4(&format!("v4/fragment-{place}-ttl:{offset}"), &packet);
            let packet = V4 { fragment: offset | MF, ..to("100.65.0.1") }.packet(&payload);
            cases.v4(&format!("v4/fragment-{place}-no-route:{offset}"), &packet);
        }
    }
}

fn icmp(cases: &mut Cases) {
    let quoted = V4 {
        source: Ipv4Addr::new(203, 0, 113, 1),
        destination: Ipv4Addr::new(198, 18, 0, 1),
        ..base()
    };
    let quoted = quoted.udp(b"what the error is about");
    for kind in 0..=45_u8 {
        for (what, header) in [
            ("forwarded", base()),
            ("ttl", V4 { ttl: 1, ..base() }),
            ("no-route", to("100.65.0.1")),
            ("own", to("10.0.0.1")),
        ] {
            let known = if matches!(kind, 3 | 4 | 5 | 11 | 12) {
                "error"
            } else if kind > 18 {
                "unknown"
            } else {
                "query"
            };
            let message = header.icmp(kind, 0, 0, &quoted);
            cases.v4(&format!("v4/icmp-{known}-{what}:{kind}"), &message);
        }
    }
    for length in 0..8 {
        let message = V4 { ttl: 1, protocol: ICMP, ..base() }.packet(&vec![3; length]);
        cases.v4(&format!("v4/icmp-error-ttl:cut-{length}"), &message);
    }
    // Errors about errors, each with an error in it, and one with a wrong checksum.
    let inner = V4 { ttl: 5, ..base() }.icmp(11, 0, 0, &quoted);
    for (kind, code) in [(3, 0), (3, 1), (3, 3), (3, 4), (3, 13), (11, 0), (11, 1), (12, 0), (5, 1)]
    {
        let nested = V4 { ttl: 1, ..base() }.icmp(kind, code, 0, &inner);
        cases.v4(&format!("v4/icmp-error-ttl:nested-{kind}-{code}"), &nested);
        let nested = to("100.65.0.1").icmp(kind, code, 1400, &inner);
        cases.v4(&format!("v4/icmp-error-no-route:nested-{kind}-{code}"), &nested);
        let big = V4 { fragment: DF, ..to("192.0.2.1") };
        let big = big.icmp(kind, code, 0, &[&quoted[..], &[0; 1400]].concat());
        cases.v4(&format!("v4/icmp-error-too-big:{kind}-{code}"), &big);
    }
    let echo = V4 { ttl: 1, ..base() }.icmp(8, 0, 1, &vec![0; 1000]);
    cases.v4("v4/icmp-query-ttl:echo", &echo);
}

/// Sound packets in which some bytes of the headers are replaced by random ones.
fn mutations(cases: &mut Cases) {
    for round in 0..800 {
        let length = cases.random.below(100);
        let payload = cases.random.bytes(length);
        let ttl = *cases.random.of(&[0, 1, 2, 64]);
        // Not the special addresses, which have classes of their own.
        let destination = cases.random.of(&DESTINATIONS4[..27]).1;
        let header = V4 { ttl, ..to(destination) };
        let mut packet = match cases.random.below(3) {
            0 => header.tcp(2, &[2, 4, 5, 0xb4], &payload),
            1 => header.icmp(8, 0, 1, &payload),
            _ => header.udp(&payload),
        };
        for _ in 0..=cases.random.below(3) {
            // Not the addresses: those that are random have no route.
            let at = *cases.random.of(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
            packet[at] = cases.random.next() as u8;
        }
        packet[10..12].fill(0);
        let end = (usize::from(packet[0] & 0xf) * 4).clamp(20, packet.len());
        let sum = !ones_sum(&[&packet[..end]]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        cases.v4(&format!("v4/mutation:{round}"), &packet);
    }
}
