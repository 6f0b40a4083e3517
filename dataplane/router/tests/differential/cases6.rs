//! IPv6 packets, class by class.

use std::net::Ipv6Addr;

use super::addresses::{DESTINATIONS6, SOURCES6};
use super::cases::Cases;
use super::packet::{ICMPV6, ROUTER_MAC, TCP, UDP, V6, ethernet};

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const ESP: u8 = 50;
const AH: u8 = 51;
const NONE: u8 = 59;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;
const HIP: u8 = 139;
const SHIM6: u8 = 140;

/// A packet that is forwarded out of port 1.
pub(crate) fn base() -> V6 {
    V6::new(address("2001:db8:f000::1"), address("2001:db8:100::1"))
}

fn address(text: &str) -> Ipv6Addr {
    text.parse().expect("an address")
}

fn to(destination: &str) -> V6 {
    V6 { destination: address(destination), ..base() }
}

pub(crate) fn all(cases: &mut Cases) {
    fields(cases);
    lengths(cases);
    extensions(cases);
    addresses(cases);
    sizes(cases);
    fragments(cases);
    icmp(cases);
    mutations(cases);
}

fn fields(cases: &mut Cases) {
    for hop_limit in 0..=255_u8 {
        let packet = V6 { hop_limit, ..base() }.udp(b"every hop limit there is");
        cases.v6(&format!("v6/hop-limit:{hop_limit}"), &packet);
    }
    for hop_limit in [0, 1, 2] {
        for &(name, destination) in DESTINATIONS6 {
            let packet = V6 { hop_limit, ..to(destination) }.udp(b"and to everywhere");
            cases.v6(&format!("v6/hop-limit-{hop_limit}/{name}:{destination}"), &packet);
        }
    }
    for traffic_class in 0..=255_u8 {
        let packet = V6 { traffic_class, ..base() }.udp(b"every traffic class");
        cases.v6(&format!("v6/traffic-class:{traffic_class}"), &packet);
        let dying = V6 { traffic_class, hop_limit: 1, ..base() }.udp(b"and its error");
        cases.v6(&format!("v6/traffic-class-error:{traffic_class}"), &dying);
    }
    for flow_label in [1, 0xf_ffff, 0x8_0000, 0x1_2345] {
        for hop_limit in [1, 64] {
            let packet = V6 { flow_label, hop_limit, ..base() }.udp(b"flow labels");
            cases.v6(&format!("v6/flow-label:{flow_label:05x}"), &packet);
        }
    }
    for next_header in 0..=255_u8 {
        if matches!(
            next_header,
            HOP_BY_HOP | ROUTING | FRAGMENT | AH | DESTINATION_OPTIONS | MOBILITY | HIP | SHIM6
        ) {
            continue;
        }
        let length = cases.random.below(60);
        let payload = cases.random.bytes(length);
        let header = V6 { next_header, ..base() };
        cases.v6(&format!("v6/next-header:{next_header}"), &header.packet(&payload));
    }
    for version in [0, 4, 5, 7, 15] {
        cases.v6("v6/version", &V6 { version, ..base() }.udp(b"not version 6"));
    }
    for flags in [0, 2, 16, 18, 255] {
        cases.v6("v6/tcp", &base().tcp(flags, b"TCP"));
    }
}

fn lengths(cases: &mut Cases) {
    let right = 8 + 38;
    for length in [0, 1, 7, 8, right - 1, right, right + 1, right + 100, 0xffff] {
        for hop_limit in [1, 64] {
            let packet = V6 { payload_length: Some(length), hop_limit, ..base() };
            let packet = packet.udp(b"a payload length that is not the frame'");
            let what = if hop_limit == 1 { "-error" } else { "" };
            cases.v6(&format!("v6/payload-length{what}:{length}"), &packet);
        }
    }
    for padding in [1, 2, 6, 18, 46, 100, 400] {
        let packet = [base().udp(b"short"), vec![0xee; padding]].concat();
        cases.v6(&format!("v6/padding:{padding}"), &packet);
        let dying = [V6 { hop_limit: 1, ..base() }.udp(b"short"), vec![0xee; padding]].concat();
        cases.v6(&format!("v6/padding-error:{padding}"), &dying);
    }
    let whole = ethernet(ROUTER_MAC[0], 0x86dd, &base().udp(b"cut off somewhere"));
    for length in 14..=whole.len() {
        cases.frame(&format!("v6/truncated:{length}"), whole[..length].to_vec());
    }
    for length in 0..20 {
        for next_header in [TCP, UDP, ICMPV6, 132] {
            for hop_limit in [1, 64] {
                let packet = V6 { next_header, hop_limit, ..base() }.packet(&vec![0x11; length]);
                let what = if hop_limit == 1 { "-error" } else { "" };
                let class = format!("v6/transport-truncated{what}:{next_header}-{length}");
                cases.v6(&class, &packet);
            }
        }
    }
}

/// An extension header: the next one's number, its length in 8-byte units less one, and its body.
fn extension(next: u8, body: &[u8]) -> Vec<u8> {
    let mut header = [&[next, 0][..], body].concat();
    header.resize(header.len().div_ceil(8) * 8, 0);
    header[1] = (header.len() / 8 - 1) as u8;
    header
}

fn extensions(cases: &mut Cases) {
    let udp = base().datagram(b"behind extension headers");
    let pad = [1, 4, 0, 0, 0, 0];
    // Type 0 (deprecated by RFC 5095), 2, 3, 4 (segment routing) and an unknown one; with nothing and
    // with something left.
    let routing = |next: u8, kind: u8, left: u8| {
        let mut body = vec![kind, left, 0, 0, 0, 0];
        body.extend(address("2001:db8:100::2").octets());
        extension(next, &body)
    };
    let authentication =
        |next: u8| [&[next, 4, 0, 0][..], &[0, 0, 1, 0, 0, 0, 0, 1], &[0xaa; 12]].concat();
    let fragment =
        |next: u8, offset: u16| [&[next, 0][..], &offset.to_be_bytes(), &[0, 0, 0, 9]].concat();
    let list: Vec<(&str, u8, Vec<u8>)> = vec![
        ("hop-by-hop", HOP_BY_HOP, extension(UDP, &pad)),
        ("hop-by-hop-pad1", HOP_BY_HOP, extension(UDP, &[0, 0, 0, 0, 0, 0])),
        ("hop-by-hop-long", HOP_BY_HOP, extension(UDP, &[&[1, 252][..], &[0; 252]].concat())),
        ("hop-by-hop-alert", HOP_BY_HOP, extension(UDP, &[5, 2, 0, 0, 1, 0])),
        ("hop-by-hop-alert-unknown", HOP_BY_HOP, extension(UDP, &[5, 2, 0xff, 0xff, 1, 0])),
        ("hop-by-hop-jumbo", HOP_BY_HOP, extension(UDP, &[0xc2, 4, 0, 1, 0, 0])),
        ("hop-by-hop-jumbo-short", HOP_BY_HOP, extension(UDP, &[0xc2, 4, 0, 0, 0, 1])),
        ("hop-by-hop-unknown-skip", HOP_BY_HOP, extension(UDP, &[0x1e, 4, 0, 0, 0, 0])),
        ("hop-by-hop-unknown-discard", HOP_BY_HOP, extension(UDP, &[0x5e, 4, 0, 0, 0, 0])),
        ("hop-by-hop-unknown-report", HOP_BY_HOP, extension(UDP, &[0x9e, 4, 0, 0, 0, 0])),
        ("hop-by-hop-unknown-unicast", HOP_BY_HOP, extension(UDP, &[0xde, 4, 0, 0, 0, 0])),
        ("hop-by-hop-broken", HOP_BY_HOP, extension(UDP, &[1, 9, 0, 0, 0, 0])),
        ("hop-by-hop-ioam", HOP_BY_HOP, extension(UDP, &[0x31, 4, 0, 0, 0, 0])),
        ("hop-by-hop-calipso", HOP_BY_HOP, extension(UDP, &[&[7, 8][..], &[0; 8]].concat())),
        ("hop-by-hop-min-mtu", HOP_BY_HOP, extension(UDP, &[0x30, 4, 5, 0xdc, 0, 0])),
        (
            "hop-by-hop-twice",
            HOP_BY_HOP,
            [extension(HOP_BY_HOP, &pad), extension(UDP, &pad)].concat(),
        ),
        (
            "hop-by-hop-late",
            DESTINATION_OPTIONS,
            [extension(HOP_BY_HOP, &pad), extension(UDP, &pad)].concat(),
        ),
        ("destination", DESTINATION_OPTIONS, extension(UDP, &pad)),
        ("destination-unknown", DESTINATION_OPTIONS, extension(UDP, &[0x9e, 4, 0, 0, 0, 0])),
        ("destination-broken", DESTINATION_OPTIONS, extension(UDP, &[1, 9, 0, 0, 0, 0])),
        (
            "destination-twice",
            DESTINATION_OPTIONS,
            [extension(DESTINATION_OPTIONS, &pad), extension(UDP, &pad)].concat(),
        ),
        ("routing-0", ROUTING, routing(UDP, 0, 0)),
        ("routing-0-left", ROUTING, routing(UDP, 0, 1)),
        ("routing-2-left", ROUTING, routing(UDP, 2, 1)),
        ("routing-3-left", ROUTING, routing(UDP, 3, 1)),
        ("routing-4", ROUTING, routing(UDP, 4, 0)),
        ("routing-4-left", ROUTING, routing(UDP, 4, 1)),
        ("routing-unknown", ROUTING, routing(UDP, 99, 0)),
        ("routing-unknown-left", ROUTING, routing(UDP, 99, 1)),
        ("atomic-fragment", FRAGMENT, fragment(UDP, 0)),
        ("fragment-reserved-bits", FRAGMENT, fragment(UDP, 6)),
        ("authentication", AH, authentication(UDP)),
        ("esp", ESP, Vec::new()),
        ("none", NONE, Vec::new()),
        ("none-behind", DESTINATION_OPTIONS, extension(NONE, &pad)),
        ("mobility", MOBILITY, extension(NONE, &[0, 0, 0, 0, 0, 0])),
        ("hip", HIP, extension(NONE, &[0; 38])),
        ("shim6", SHIM6, extension(UDP, &[0; 6])),
        ("experiment", 253, extension(UDP, &pad)),
        (
            "all",
            HOP_BY_HOP,
            [
                extension(DESTINATION_OPTIONS, &pad),
                extension(ROUTING, &pad),
                routing(FRAGMENT, 4, 0),
                fragment(AH, 0),
                authentication(DESTINATION_OPTIONS),
                extension(UDP, &pad),
            ]
            .concat(),
        ),
    ];
    for (name, next_header, chain) in list {
        let payload = [chain, udp.clone()].concat();
        for (what, header) in [
            ("", base()),
            ("-hop-limit", V6 { hop_limit: 1, ..base() }),
            ("-no-route", to("2001:db8:dead::1")),
        ] {
            let packet = V6 { next_header, ..header }.packet(&payload);
            cases.v6(&format!("v6/extension{what}/{name}"), &packet);
        }
    }
    for count in 1..=20 {
        let mut payload: Vec<u8> =
            (1..count).flat_map(|_| extension(DESTINATION_OPTIONS, &pad)).collect();
        payload.extend(extension(UDP, &pad));
        payload.extend(&udp);
        let packet = V6 { next_header: DESTINATION_OPTIONS, ..base() }.packet(&payload);
        let long = if count > 8 { "-long" } else { "" };
        cases.v6(&format!("v6/extension-chain{long}:{count}"), &packet);
    }
    for (next_header, name) in [
        (HOP_BY_HOP, "hop-by-hop"),
        (DESTINATION_OPTIONS, "destination"),
        (ROUTING, "routing"),
        (FRAGMENT, "fragment"),
        (AH, "authentication"),
    ] {
        for length in 0..=8 {
            // Claims to be 24 bytes long, or is cut within its first 8.
            let packet = V6 { next_header, ..base() }.packet(&[UDP, 2, 0, 0, 0, 0, 0, 0][..length]);
            cases.v6(&format!("v6/extension-cut/{name}:{length}"), &packet);
            let dying = V6 { next_header, hop_limit: 1, ..base() };
            let dying = dying.packet(&[UDP, 2, 0, 0, 0, 0, 0, 0][..length]);
            cases.v6(&format!("v6/extension-cut-error/{name}:{length}"), &dying);
        }
    }
}

fn addresses(cases: &mut Cases) {
    for &(name, destination) in DESTINATIONS6 {
        let header = to(destination);
        cases.v6(&format!("v6/destination/{name}:{destination}-udp"), &header.udp(b"where to"));
        cases.v6(&format!("v6/destination/{name}:{destination}-tcp"), &header.tcp(2, b""));
        let echo = header.icmp(128, 0, 0x0001_0001, b"where to");
        cases.v6(&format!("v6/destination/{name}:{destination}-echo"), &echo);
        let other = V6 { next_header: 200, ..header }.packet(b"no protocol that anybody knows");
        cases.v6(&format!("v6/destination/{name}:{destination}-200"), &other);
    }
    for &(name, source) in SOURCES6 {
        let source = address(source);
        for (what, header) in [
            ("forwarded", base()),
            ("hop-limit", V6 { hop_limit: 1, ..base() }),
            ("no-route", to("2001:db8:dead::1")),
            ("prohibit", to("2001:db8:b002::1")),
            ("connected", to("2001:db8:1::2")),
            ("own", to("2001:db8:0::1")),
        ] {
            let header = V6 { source, ..header };
            cases.v6(&format!("v6/source-{what}/{name}:{source}"), &header.udp(b"where from"));
        }
        let big = V6 { source, ..to("2001:db8:200::1") };
        cases.v6(&format!("v6/source-too-big/{name}:{source}"), &big.udp(&vec![0; 1400]));
    }
    // Neighbors that nobody answers for: what is wrong with a packet is said without asking for them.
    for destination in ["2001:db8:1::99", "2001:db8:2::99", "2001:db8:0::99"] {
        let header = to(destination);
        cases.v6("v6/unresolved", &header.udp(b"waits"));
        let dying = V6 { hop_limit: 1, ..header.clone() };
        cases.v6("v6/unresolved-hop-limit", &dying.udp(b"does not wait"));
        cases.v6(&format!("v6/unresolved-too-big:{destination}"), &header.udp(&vec![0; 1700]));
    }
    for own in ["2001:db8:0::1", "2001:db8:1::1"] {
        let source = address(own);
        cases.v6("v6/source-and-destination-own", &V6 { source, ..to(own) }.udp(b"land"));
    }
}

fn sizes(cases: &mut Cases) {
    let edges = [
        ("wide", "2001:db8:100::1", 1500_usize),
        ("narrow", "2001:db8:200::1", 1400),
        ("connected-narrow", "2001:db8:2::2", 1400),
        ("route-mtu", "2001:db8:500::1", 1300),
        ("back", "2001:db8:300::1", 2000),
    ];
    for (name, destination, mtu) in edges {
        for size in [60, 1279, 1280, 1281, mtu - 8, mtu - 1, mtu, mtu + 1, mtu + 2, mtu + 400] {
            let size = size.min(2000);
            let payload = cases.random.bytes(size - 48);
            let header = to(destination);
            let kind = if size > mtu { "over" } else { "fits" };
            cases.v6(&format!("v6/size-{kind}/{name}:{size}"), &header.udp(&payload));
            if size + 8 <= 2000 {
                let padded = [header.udp(&payload), vec![0xee; 8]].concat();
                cases.v6(&format!("v6/size-padded-{kind}/{name}:{size}"), &padded);
            }
            let dying = V6 { hop_limit: 1, ..header }.udp(&payload);
            cases.v6(&format!("v6/size-hop-limit/{name}:{size}"), &dying);
        }
    }
    for size in [48, 100, 575, 576, 577, 1180, 1183, 1184, 1185, 1231, 1232, 1233, 1400, 1900] {
        let payload = cases.random.bytes(size - 48);
        cases.v6(&format!("v6/quote:{size}"), &to("2001:db8:dead::1").udp(&payload));
    }
}

fn fragments(cases: &mut Cases) {
    for offset in [0_u16, 1, 2, 100, 8191] {
        for more in [0, 1] {
            for next in [TCP, UDP, ICMPV6, 47, DESTINATION_OPTIONS] {
                for length in [8, 16, 64] {
                    if offset == 0 && more == 0 {
                        continue;
                    }
                    let [high, low] = (offset << 3 | more).to_be_bytes();
                    let payload = cases.random.bytes(length);
                    let chain = [&[next, 0, high, low, 0, 0, 0, 9][..], &payload].concat();
                    let place = if offset == 0 { "first" } else { "later" };
                    let tiny = match (next, offset) {
                        (TCP, 1) => "-tiny",
                        (TCP, 0) if length < 20 => "-tiny",
                        (DESTINATION_OPTIONS, 0) => "-chain",
                        _ => "",
                    };
                    for (what, header) in [
                        ("", base()),
                        ("-hop-limit", V6 { hop_limit: 1, ..base() }),
                        ("-no-route", to("2001:db8:dead::1")),
                    ] {
                        let packet = V6 { next_header: FRAGMENT, ..header }.packet(&chain);
                        let icmp = if next == ICMPV6 { "-icmp" } else { "" };
                        let class = format!(
                            "v6/fragment-{place}{tiny}{icmp}{what}:{offset}-{length}-{next}"
                        );
                        cases.v6(&class, &packet);
                    }
                }
            }
        }
    }
}

fn icmp(cases: &mut Cases) {
    let quoted = V6 {
        source: address("2001:db8:100::1"),
        destination: address("2001:db8:f000::1"),
        ..base()
    };
    let quoted = quoted.udp(b"what the error is about");
    for kind in [
        0, 1, 2, 3, 4, 5, 100, 101, 127, 128, 129, 130, 131, 132, 133, 134, 135, 136, 137, 138,
        139, 140, 143, 148, 160, 200, 255,
    ] {
        for (what, header) in [
            ("forwarded", base()),
            ("hop-limit", V6 { hop_limit: 1, ..base() }),
            ("hop-limit-255", V6 { hop_limit: 255, ..base() }),
            ("no-route", to("2001:db8:dead::1")),
            ("own", to("2001:db8:0::1")),
        ] {
            let known = match kind {
                1..=4 => "error",
                0..=127 => "unknown-error",
                133..=137 => "nd",
                _ => "query",
            };
            let message = header.icmp(kind, 0, 0, &quoted);
            cases.v6(&format!("v6/icmp-{known}-{what}:{kind}"), &message);
        }
    }
    for length in 0..8 {
        let header = V6 { hop_limit: 1, next_header: ICMPV6, ..base() };
        cases
            .v6(&format!("v6/icmp-error-hop-limit:cut-{length}"), &header.packet(&vec![3; length]));
    }
    // An error behind extension headers is an error.
    let message = base().icmp_message(3, 0, 0, &quoted);
    for next_header in [DESTINATION_OPTIONS, HOP_BY_HOP] {
        let chain = [extension(ICMPV6, &[1, 4, 0, 0, 0, 0]), message.clone()].concat();
        let packet = V6 { next_header, hop_limit: 1, ..base() }.packet(&chain);
        cases.v6(&format!("v6/icmp-error-hop-limit:behind-{next_header}"), &packet);
    }
    let big = [&quoted[..], &[0; 1400]].concat();
    for kind in [1, 2, 3, 4] {
        let packet = to("2001:db8:200::1").icmp(kind, 0, 0, &big);
        cases.v6(&format!("v6/icmp-error-too-big:{kind}"), &packet);
    }
}

fn mutations(cases: &mut Cases) {
    for round in 0..600 {
        let length = cases.random.below(100);
        let payload = cases.random.bytes(length);
        let hop_limit = *cases.random.of(&[0, 1, 2, 64]);
        let destination = cases.random.of(&DESTINATIONS6[..24]).1;
        let header = V6 { hop_limit, ..to(destination) };
        let mut packet = match cases.random.below(3) {
            0 => header.tcp(2, &payload),
            1 => header.icmp(128, 0, 1, &payload),
            _ => header.udp(&payload),
        };
        for _ in 0..=cases.random.below(3) {
            let at = *cases.random.of(&[0, 1, 2, 3, 4, 5, 6, 7]);
            packet[at] = cases.random.next() as u8;
        }
        cases.v6(&format!("v6/mutation:{round}"), &packet);
    }
    // Chains of extension headers at random, most of them broken somewhere.
    let kinds = [
        HOP_BY_HOP,
        ROUTING,
        FRAGMENT,
        AH,
        DESTINATION_OPTIONS,
        MOBILITY,
        UDP,
        TCP,
        ICMPV6,
        NONE,
        ESP,
    ];
    for round in 0..400 {
        let first = *cases.random.of(&kinds);
        let mut payload = Vec::new();
        for _ in 0..cases.random.below(5) {
            let next = *cases.random.of(&kinds);
            let words = cases.random.below(3);
            let mut header = vec![next, words as u8];
            let filler = cases.random.bytes(words * 8 + 6);
            header.extend(filler);
            payload.extend(header);
        }
        let length = cases.random.below(20);
        payload.extend(cases.random.bytes(length));
        let hop_limit = *cases.random.of(&[1, 64]);
        let packet = V6 { next_header: first, hop_limit, ..base() }.packet(&payload);
        cases.v6(&format!("v6/extension-random:{round}"), &packet);
    }
}
