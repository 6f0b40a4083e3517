//! The first inputs: from the scenarios' captures and configurations, the examples in `configs/`, and by
//! hand where neither has what a target reads.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::common::{LAN, WAN, address, packets};
use crate::guest;

/// An input for a target.
type Seed = (&'static str, Vec<u8>);

/// Longest frame that is taken: what is longer is padding.
const FRAME_BYTES_MAX: usize = 400;

/// Writes the first inputs of each target into a folder of its name below `folder`. Returns how many.
///
/// # Errors
/// When something cannot be read or written.
pub fn write(folder: &Path) -> io::Result<usize> {
    let mut seeds = by_hand();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for path in files(&root.join("configs"), "toml")? {
        let text = without_comments(&fs::read_to_string(path)?);
        seeds.push(("configuration", text.into_bytes()));
    }
    for scenario in folders(&root.join("dataplane/router/scenarios"))? {
        let mut texts = Vec::new();
        for path in files(&scenario, "toml")? {
            texts.push(without_comments(&fs::read_to_string(path)?));
        }
        texts.extend(texts.first().map(|first| first.replace("1024", "2048")));
        seeds.push(("configuration", texts.join("\0").into_bytes()));
        for path in files(&scenario, "pcap")? {
            let bytes = fs::read(&path)?;
            let is_lan = path.to_string_lossy().contains("lan");
            of_capture(&mut seeds, &bytes, if is_lan { LAN } else { WAN });
            if bytes.len() < 600 {
                seeds.push(("pcap", bytes));
            }
        }
    }
    for (number, (target, bytes)) in seeds.iter().enumerate() {
        let folder = folder.join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(format!("seed-{number:04}")), bytes)?;
    }
    Ok(seeds.len())
}

fn folders(of: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found: Vec<_> = fs::read_dir(of)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.is_dir())
        .collect();
    found.sort();
    Ok(found)
}

/// Files with this extension in a folder and those in it.
fn files(folder: &Path, extension: &str) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path, extension)?);
        } else if path.extension().is_some_and(|has| has == extension) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn without_comments(text: &str) -> String {
    let lines = text.lines().map(|line| line.split(" #").next().unwrap_or_default().trim_end());
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .fold(String::new(), |text, line| text + line + "\n")
}

fn of_capture(seeds: &mut Vec<Seed>, bytes: &[u8], position: u8) {
    let Ok(capture) = sim::read_pcap_bytes("seed", bytes) else { return };
    let frames: Vec<Vec<u8>> = capture
        .packets
        .into_iter()
        .map(|packet| packet.bytes)
        .filter(|frame| frame.len() > 14 && frame.len() <= FRAME_BYTES_MAX)
        .collect();
    for frames in frames.chunks(4).take(6) {
        let steps = frames.iter().flat_map(|frame| step(0, position, frame)).collect();
        seeds.push(("turn", steps));
    }
    for frame in frames.iter().step_by(3).take(6) {
        seeds.push(("views", frame[14..].to_vec()));
    }
}

/// A step of the target `turn`: a frame that comes to a node, repaired.
fn step(node: u8, position: u8, frame: &[u8]) -> Vec<u8> {
    let len = u16::try_from(frame.len()).unwrap_or(u16::MAX).to_le_bytes();
    [&[node | position << 2 | 8], &len[..], frame].concat()
}

fn by_hand() -> Vec<Seed> {
    let mut seeds = Vec::new();
    turns(&mut seeds);
    for tunnel in 0..6 {
        for protocol in 0..3 {
            seeds.push(("tunnels", vec![tunnel, protocol, 2, 64, 0, 7, 0, 4, 0, b'x']));
            seeds.push(("tunnels", vec![tunnel, protocol, 0, 9, 0x40, 7, 0, 0x78, 5]));
            seeds.push(("tunnels", vec![tunnel, protocol, 0, 9, 0, 7, 0, 0x78, 5]));
        }
    }
    for first in 0..64_u8 {
        let bytes = (0..48_u8).map(|at| at.wrapping_mul(first).wrapping_add(first << 3)).collect();
        seeds.push(("embedding", bytes));
    }
    fragments(&mut seeds);
    control(&mut seeds);
    plugins(&mut seeds);
    let words = [0_u64, 1, 1 << 32 | 1, 2 << 32 | 1, 0xffff_ffff << 32 | 1, 2, 0x100, u64::MAX];
    for before in 0..5 {
        let word = |word: &u64| [&[before], &word.to_le_bytes()[..]].concat();
        seeds.push(("verdicts", words.iter().flat_map(word).collect()));
        seeds.push(("verdicts", words.iter().rev().flat_map(word).collect()));
    }
    edits(&mut seeds);
    filters(&mut seeds);
    // A pcapng file: section, interface, a packet of each kind.
    let ng: [&[u32]; 5] = [
        &[0x0a0d_0d0a, 28, 0x1a2b_3c4d, 1, u32::MAX, u32::MAX, 28],
        &[1, 32, 1, 0, 9 | 1 << 16, 6, 0, 32],
        &[6, 40, 0, 0, 1000, 5, 5, 0x0403_0201, 5, 40],
        &[3, 20, 4, 0x0403_0201, 20],
        &[2, 36, 0, 0, 5, 4, 4, 0x0403_0201, 36],
    ];
    let words = ng.iter().flat_map(|block| block.iter());
    seeds.push(("pcap", words.flat_map(|word| word.to_le_bytes()).collect()));
    seeds
}

fn turns(seeds: &mut Vec<Seed>) {
    let world = address("198.51.100.7");
    let shared = address("192.0.2.2");
    for (port, to) in [
        (2000, "192.0.2.1"),
        (40_000, "192.0.2.1"),
        (53, "192.0.2.2"),
        (2000, "192.0.2.2"),
        (60_000, "192.0.2.2"),
    ] {
        let datagram = packets::udp(7, port, b"seed");
        let Some(packet) = packets::ip(world, address(to), 64, packets::UDP, &datagram) else {
            continue;
        };
        let frame = packets::frame(WAN, &packet);
        let quick = [step(0, WAN, &frame), step(1, WAN, &frame), step(2, WAN, &frame)].concat();
        seeds.push(("turn", [&[0xe1, 1], &quick[..], &[0x80, 0xff, 3], &quick[..]].concat()));
        let Some(back) =
            packets::ip(address(to), world, 64, packets::UDP, &packets::udp(port, 7, b""))
        else {
            continue;
        };
        let frame = packets::frame(LAN, &back);
        seeds.push((
            "turn",
            [step(0, LAN, &frame), vec![0xc0, 6, 1], step(0, LAN, &frame)].concat(),
        ));
        // In a tunnel of each kind, and an error about it.
        let (a, b, c, d) = (
            address("10.0.0.11"),
            address("10.0.0.12"),
            address("10.0.0.13"),
            address("10.0.0.14"),
        );
        let gue = packets::udp(50_000, packets::TUNNEL_PORT, &packet);
        for (from, protocol, payload) in [
            (b, packets::UDP, gue),
            (c, 47, packets::gre(0xb0, false, Some(7), &packet)),
            (d, 4, packet.clone()),
        ] {
            let Some(outer) = packets::ip(from, a, 64, protocol, &payload) else { continue };
            seeds.push(("turn", step(0, WAN, &packets::frame(WAN, &outer))));
            let Some(sent) = packets::ip(a, from, 64, protocol, &payload) else { continue };
            let message = [&[3, 4, 0, 0, 0, 0, 5, 0], &sent[..]].concat();
            let Some(error) = packets::icmp(world, a, message) else { continue };
            seeds.push(("turn", step(0, WAN, &packets::frame(WAN, &error))));
        }
    }
    let message = [
        &[3, 1, 0, 0, 0, 0, 0, 0],
        &packets::ip(shared, world, 64, 17, &packets::udp(2000, 7, b"")).unwrap_or_default()[..],
    ]
    .concat();
    if let Some(error) = packets::icmp(world, shared, message) {
        seeds.push(("turn", step(0, WAN, &packets::frame(WAN, &error))));
    }
}

fn fragments(seeds: &mut Vec<Seed>) {
    for tag in [0_u8, 4] {
        // In order, the other way round, twice, overlapping; then time, other bounds, and once more.
        let first = [tag | 8, 0, 16];
        let middle = [tag | 8, 2, 16];
        let last = [tag, 4, 8];
        let over = [tag | 8, 1, 32];
        for order in [
            [first, middle, last, last],
            [last, middle, first, first],
            [middle, first, last, over],
            [over, first, middle, last],
        ] {
            let order = order.concat();
            let bounds = [0xc0, 2, 3, 0, 4, 0xf4, 1];
            seeds.push((
                "fragments",
                [&[0], &order[..], &[0x80, 0xb8, 0x0b], &bounds, &order].concat(),
            ));
        }
    }
    for (mtu, options) in [(68_u16, 0), (576, 0), (100, 40)] {
        let Some(mut packet) =
            packets::ip(address("198.51.100.7"), address("192.0.2.1"), 9, 17, &[7; 700])
        else {
            continue;
        };
        packet.splice(
            20..20,
            [1, 0x94, 4, 0, 0, 7, 7, 4, 0, 0, 0, 0].into_iter().cycle().take(options),
        );
        packet[0] = 0x45 + u8::try_from(options / 4).unwrap_or(0);
        seeds.push(("fragments", [&[1], &mtu.to_le_bytes()[..], &packet].concat()));
    }
}

fn control(seeds: &mut Vec<Seed>) {
    let requests = [
        r#"{"request":"status"}"#,
        r#"{"request":"reload"}"#,
        r#"{"request":"plugin-list"}"#,
        r#"{"request":"plugin-reload","name":"filter"}"#,
        r#"{"request":"explain","interface":"wan0","packet":"45","has_link_layer":false,"keep_mac":false}"#,
        r#"{"request":"tap-open","scope":{"target":"any"},"filter":[[6,0,0,1]],"snap-bytes":96}"#,
        r#"{"request":"tap-read","tap":3,"frames_max":7,"explain":true}"#,
        r#"{"request":"tap-close","tap":3}"#,
        "",
    ];
    for request in requests {
        seeds.push(("control_socket", [b"\0", request.as_bytes(), b"\n"].concat()));
    }
    seeds.push(("control_socket", [b"\0", requests.join("\n").as_bytes()].concat()));
    for answer in [
        "{\"ok\":[1]}\n",
        "{\"ok\":null}\n{}",
        "{\"error\":{\"message\":\"no\"}}\n",
        "\n",
        "{\"ok\":",
    ] {
        seeds.push(("control_socket", [b"\x01", answer.as_bytes()].concat()));
    }
}

fn plugins(seeds: &mut Vec<Seed>) {
    let least = "abi = \"1.0\"\nname = \"x\"\nhooks = [\"ingress\"]\n";
    let whole = "abi = \"1.0\"\nname = \"x\"\nhooks = [\"ingress\", \"egress\"]\nimports = [\"log\"]\n\
                 memory_max_bytes = 1048576\ndefault = \"drop\"\non_trap = \"closed\"\nstateful = true\n\
                 reasons = [\"a\"]\ncounters = [\"one\", { name = \"two\", len = 1 }]\n";
    for manifest in [least, whole] {
        seeds.push(("plugin", [b"\0", manifest.as_bytes()].concat()));
        seeds.push(("plugin", [b"\x02", manifest.as_bytes()].concat()));
        let module = guest::with_manifest(guest::module(64, 8, None), manifest.as_bytes());
        seeds.push(("plugin", [b"\x01", &module[..]].concat()));
    }
    let layout: [u32; 12] = [48, 256, 1024, 64, 20_480, 8, 32_768, 4096, 40_960, 256, 49_152, 4];
    let bytes = layout.iter().flat_map(|field| field.to_le_bytes());
    seeds.push(("plugin", [3, 0, 0, 0, 0, 4, 0].into_iter().chain(bytes).collect()));
}

/// SYNs with all options, in and out of tunnels, each edit alone and all at once, and answers that are void.
fn edits(seeds: &mut Vec<Seed>) {
    let options =
        [2, 4, 0x05, 0xb4, 1, 3, 3, 7, 1, 2, 4, 0x23, 0, 4, 2, 8, 2, 34, 2, 30, 2, 1, 1, 0];
    let segment = [&[0xd0, 7, 0x40, 0x9c, 0, 2, 24], &options[..], &[3], b"syn"].concat();
    let edit = [9, 0, 0, 0, 1, 0, 0xb0, 4, 1, 46, 31, 0, 0, 0, 0, 0];
    let answer = |action: u8, flags: u8, argument: u8| {
        [&[action, flags, 0, 0, argument, 0, 0, 0], &edit[..]].concat()
    };
    let nothing = answer(0, 0, 0);
    // Family and interface, from, to.
    for (path, number) in [[0_u8, 0, 1], [0, 0, 2], [2, 4, 0], [1, 0, 1], [1, 0, 2], [0, 0, 6]]
        .into_iter()
        .zip(0_u8..)
    {
        let packet = [&path[..], &[0x03, 64], &segment].concat();
        for (first, second, third) in [
            (answer(0, 0x7f, 0), nothing.clone(), answer(0, 13, 0)),
            (nothing.clone(), answer(0, 0x70, 0), nothing.clone()),
            (answer(2, 0x70, 1), answer(1, 0, 0), nothing.clone()),
            (answer(0, 0x10, 0), answer(2, 0x20, 2), answer(0, 0x10, 0)),
            (answer(0, 0x90, 0), answer(0, 8, 0), answer(1, 4, 0)),
        ] {
            let companions = [number % 4];
            seeds.push(("edits", [&companions[..], &first, &second, &third, &packet].concat()));
        }
    }
}

fn filters(seeds: &mut Vec<Seed>) {
    // What `tcpdump -ddd udp` prints for Ethernet, and one instruction of each kind.
    let udp: &[(u16, u8, u8, u32)] = &[
        (40, 0, 0, 12),
        (21, 0, 5, 34_525),
        (48, 0, 0, 20),
        (21, 6, 0, 17),
        (21, 0, 6, 44),
        (48, 0, 0, 54),
        (21, 3, 4, 17),
        (21, 0, 3, 2048),
        (48, 0, 0, 23),
        (21, 0, 1, 17),
        (6, 0, 0, 262_144),
        (6, 0, 0, 0),
    ];
    let codes = [
        0x00, 0x01, 0x02, 0x03, 0x60, 0x61, 0x80, 0x81, 0xb1, 0x20, 0x28, 0x30, 0x40, 0x48, 0x50,
        0x07, 0x87, 0x04, 0x14, 0x24, 0x34, 0x44, 0x54, 0x64, 0x74, 0x84, 0x94, 0xa4, 0x0c, 0x1c,
        0x2c, 0x3c, 0x4c, 0x5c, 0x6c, 0x7c, 0x9c, 0xac, 0x05, 0x15, 0x1d, 0x25, 0x2d, 0x35, 0x3d,
        0x45, 0x4d,
    ];
    let mut frame = vec![0; 34];
    frame[12] = 8;
    frame[23] = 17;
    let mut add = |program: &[(u16, u8, u8, u32)]| {
        let mut bytes = vec![u8::try_from(program.len()).unwrap_or(u8::MAX)];
        for (code, if_true, if_false, k) in program {
            bytes.extend(code.to_le_bytes());
            bytes.extend([*if_true, *if_false]);
            bytes.extend(k.to_le_bytes());
        }
        bytes.extend(&frame);
        seeds.push(("filter", bytes));
    };
    add(udp);
    for code in codes {
        add(&[(0x00, 0, 0, 7), (0x07, 0, 0, 0), (code, 0, 1, 1), (0x04, 0, 0, 1), (0x16, 0, 0, 0)]);
    }
}
