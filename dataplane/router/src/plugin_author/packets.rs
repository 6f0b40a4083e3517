//! Packets to try a plugin with: those of a capture, or generated ones.
//!
//! Generated frames are made from a seed. Addresses come from small pools, in which those that the plugin's
//! configuration mentions are, so that rules match and keys come again.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Result, ensure};
use frame::BATCH_MAX;
use policy::{Manifest, PayloadStart, RehearsalPacket};
use sluice_sdk::testing::{Seen, trial::Step};
use wire::checksum::internet_checksum;

/// Packets that are generated.
const GENERATED: usize = 4096;

/// Monotonic time of the first generated packet: some plugins take 0 for *never*.
const START_NS: u64 = 1_000_000_000_000;

/// A packet with the frame that it came of.
#[derive(Clone, Debug)]
pub(crate) struct Trying {
    /// Its number among all frames, from 1 on: in a capture, that of the frame.
    pub(crate) number: usize,
    /// What the plugin is shown.
    pub(crate) seen: Seen,
    /// The frame.
    pub(crate) frame: Vec<u8>,
}

/// A batch of packets that one worker has judged.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// When.
    pub(crate) now_ns: u64,
    /// The worker.
    pub(crate) worker: usize,
    /// The packets.
    pub(crate) packets: Vec<Trying>,
}

/// Packets in the calls in which they are judged.
#[derive(Clone, Debug)]
pub(crate) struct Packets {
    /// The calls.
    pub(crate) calls: Vec<Call>,
    /// How many workers there are.
    pub(crate) workers: usize,
    /// Nanoseconds from tick to tick, for a plugin that has them.
    pub(super) tick_ns: Option<u64>,
    /// How many packets there are.
    pub(super) count: usize,
    /// Frames that a router would not have shown to a plugin, by the reason for which it would drop them.
    pub(crate) skipped: BTreeMap<&'static str, usize>,
}

impl Packets {
    /// Those of a capture, in batches of up to 64, at the times of the capture.
    pub(crate) fn of_capture(path: &Path, manifest: &Manifest) -> Result<Self> {
        let capture = sim::read_pcap(path)?;
        let mut packets = Self::of(manifest);
        for packet in &capture.packets {
            // From an arbitrary start, as monotonic time is.
            let first = capture.packets.first().map_or(0, |first| first.time_ns);
            let now_ns = START_NS + packet.time_ns.saturating_sub(first);
            packets.push(now_ns, packet.bytes.clone(), manifest, 64);
        }
        ensure!(!packets.calls.is_empty(), "{}: no packet that a plugin would see", path.display());
        Ok(packets)
    }

    /// Generated ones, in batches of all sizes. They come in by `interfaces` interfaces.
    pub(crate) fn generate(
        seed: u64,
        config: &[u8],
        manifest: &Manifest,
        interfaces: usize,
    ) -> Self {
        let mut dice = Dice(seed);
        // By itself, so that the packets are the same however many interfaces there are.
        let mut ingress = Dice(!seed);
        let interfaces = u64::try_from(interfaces.clamp(1, 1024)).unwrap_or(1);
        let pool = Pool::new(&mut dice, config);
        let mut packets = Self::of(manifest);
        let mut now_ns = START_NS;
        let mut left = GENERATED;
        while left > 0 {
            // Mostly microseconds pass, at times a second.
            now_ns += if dice.below(32) == 0 { 1_000_000_000 } else { 1_000 + dice.below(100_000) };
            let n = [1, 2, 7, 64, BATCH_MAX][dice.below(5) as usize].min(left);
            left -= n;
            for _ in 0..n {
                let frame = pool.frame(&mut dice);
                if packets.push(now_ns, frame, manifest, BATCH_MAX)
                    && let Some(packet) =
                        packets.calls.last_mut().and_then(|call| call.packets.last_mut())
                {
                    packet.seen.descriptor.ingress = ingress.below(interfaces) as u16;
                }
            }
        }
        packets
    }

    fn of(manifest: &Manifest) -> Self {
        let tick_ns = manifest.tick_ms.map(|ms| u64::from(ms) * 1_000_000);
        Self { calls: Vec::new(), workers: 1, tick_ns, count: 0, skipped: BTreeMap::new() }
    }

    /// For each call, whether a tick of all workers comes before it.
    pub(crate) fn ticks(&self) -> Vec<bool> {
        let mut last = START_NS;
        let due = |call: &Call| {
            let is_due = self.tick_ns.is_some_and(|every| call.now_ns >= last + every);
            if is_due {
                last = call.now_ns;
            }
            is_due
        };
        self.calls.iter().map(due).collect()
    }

    /// Adds a packet, if a router would show it to a plugin. Says whether it is one.
    fn push(&mut self, now_ns: u64, frame: Vec<u8>, manifest: &Manifest, batch_max: usize) -> bool {
        let descriptor = match forward::describe(&frame) {
            Ok(descriptor) => descriptor,
            Err(reason) => {
                *self.skipped.entry(reason.label()).or_default() += 1;
                return false;
            }
        };
        let payload = manifest.payload.map_or_else(Vec::new, |window| {
            let start = match window.from {
                PayloadStart::L3 => descriptor.l3_offset,
                PayloadStart::L4 => descriptor.l4_offset,
            };
            let bytes = frame.get(usize::from(start)..).unwrap_or_default();
            bytes[..bytes.len().min(window.bytes)].to_vec()
        });
        let seen = Seen { descriptor, payload, ..Seen::default() };
        self.count += 1;
        let number = self.count + self.skipped.values().sum::<usize>();
        let trying = Trying { number, seen, frame };
        match self.calls.last_mut() {
            Some(call) if call.now_ns == now_ns && call.packets.len() < batch_max => {
                call.packets.push(trying);
            }
            _ => self.calls.push(Call { now_ns, worker: 0, packets: vec![trying] }),
        }
        true
    }

    /// How many frames a router would not have shown to a plugin, and why.
    pub(crate) fn skipped_words(&self) -> String {
        let each: Vec<String> =
            self.skipped.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        let total: usize = self.skipped.values().sum();
        let why = if each.is_empty() { String::new() } else { format!(": {}", each.join(", ")) };
        format!("{total} more would not reach a plugin{why}")
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// All of them, in the order of the calls.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Trying> {
        self.calls.iter().flat_map(|call| &call.packets)
    }

    /// Before which call instances hand over to others, where they do: after half of them.
    pub(crate) fn middle(&self) -> usize {
        self.calls.len() / 2
    }

    /// The calls, for the native side, with a hand-over before call `hand_over`.
    pub(crate) fn steps(&self, hand_over: Option<usize>) -> Vec<Step> {
        let mut steps = Vec::new();
        let turn_to = |worker: usize, steps: &mut Vec<Step>| {
            if self.workers > 1 {
                steps.push(Step::Worker { worker: u32::try_from(worker).unwrap_or(u32::MAX) });
            }
        };
        for (number, (call, has_tick)) in self.calls.iter().zip(self.ticks()).enumerate() {
            if hand_over == Some(number) {
                steps.push(Step::HandOver);
            }
            let now_ns = call.now_ns;
            for worker in (0..self.workers).filter(|_| has_tick) {
                turn_to(worker, &mut steps);
                steps.push(Step::Tick { now_ns });
            }
            turn_to(call.worker, &mut steps);
            let packets = call.packets.iter().map(|packet| packet.seen.clone()).collect();
            steps.push(Step::Batch { now_ns, packets });
        }
        steps
    }
}

/// Generated packets of one interface, for the module's side alone.
pub(crate) fn generated_packets(
    seed: u64,
    config: &[u8],
    manifest: &Manifest,
) -> Vec<RehearsalPacket> {
    let packets = Packets::generate(seed, config, manifest, 1);
    packets.all().map(|packet| rehearsal_packet(&packet.seen)).collect()
}

/// A packet for the module's side.
pub(crate) fn rehearsal_packet(seen: &Seen) -> RehearsalPacket {
    RehearsalPacket {
        descriptor: seen.descriptor,
        marks: seen.marks,
        payload: seen.payload.clone(),
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.roll() % n
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// Where generated packets take their addresses from.
struct Pool {
    v4: Vec<[u8; 4]>,
    v6: Vec<[u8; 16]>,
}

impl Pool {
    fn new(dice: &mut Dice, config: &[u8]) -> Self {
        let mut pool = Self { v4: Vec::new(), v6: Vec::new() };
        // Addresses and prefixes stand in quotes, as in every configuration.
        for text in String::from_utf8_lossy(config).split('"') {
            let address = text.split_once('/').map_or(text, |(address, _)| address);
            match address.parse::<IpAddr>() {
                Ok(IpAddr::V4(address)) => pool.v4.push(address.octets()),
                Ok(IpAddr::V6(address)) => pool.v6.push(address.octets()),
                Err(_) => {}
            }
        }
        for n in 0..32 {
            let [a, b, ..] = dice.roll().to_le_bytes();
            pool.v4.push([10 + n / 8, a, b, n]);
            let mut v6 = [0x20, 0x01, 0x0d, 0xb8, n / 4, a, 0, b, 0, 0, 0, 0, 0, 0, 0, n];
            if n % 8 == 0 {
                v6[8..].copy_from_slice(&dice.roll().to_le_bytes());
            }
            pool.v6.push(v6);
        }
        pool
    }

    /// An Ethernet frame that the router's parser takes.
    fn frame(&self, dice: &mut Dice) -> Vec<u8> {
        let protocol: u8 = dice.pick(&[6, 6, 6, 17, 17, 17, 1, 47]);
        let mut segment = transport(dice, protocol);
        let body = dice.below(200) as usize;
        segment.extend(std::iter::repeat_with(|| dice.roll() as u8).take(body));
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        if dice.below(3) > 0 {
            let (mut source, destination) = (dice.pick(&self.v4), dice.pick(&self.v4));
            if dice.below(2) == 0 {
                // A neighbor of one that is mentioned.
                source[3] = source[3].wrapping_add(dice.below(4) as u8);
            }
            let length = (20 + segment.len()) as u16;
            // One in sixteen is a first fragment, one a later one.
            let fragment: u16 = match dice.below(16) {
                0 => 0x2000,
                1 => 0x0010,
                _ => 0,
            };
            let mut header = [0; 20];
            header[0] = 0x45;
            header[1] = dice.pick(&[0, 0, 0xb8, 0x28]);
            header[2..4].copy_from_slice(&length.to_be_bytes());
            header[4..6].copy_from_slice(&(dice.roll() as u16).to_be_bytes());
            header[6..8].copy_from_slice(&fragment.to_be_bytes());
            header[8] = dice.pick(&[1, 2, 64, 128, 255]);
            header[9] = protocol;
            header[12..16].copy_from_slice(&source);
            header[16..20].copy_from_slice(&destination);
            let sum = internet_checksum(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            frame.extend([0x08, 0x00]);
            frame.extend(header);
        } else {
            let (source, destination) = (dice.pick(&self.v6), dice.pick(&self.v6));
            let next = if protocol == 1 { 58 } else { protocol };
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend((segment.len() as u16).to_be_bytes());
            frame.extend([next, dice.pick(&[1, 64, 255])]);
            frame.extend(source);
            frame.extend(destination);
        }
        frame.extend(segment);
        frame
    }
}

/// A transport header with ports that come again.
fn transport(dice: &mut Dice, protocol: u8) -> Vec<u8> {
    let port = |dice: &mut Dice| -> u16 {
        let fixed = dice.pick(&[22, 53, 80, 123, 443, 1024, 5000, 65_535]);
        if dice.below(4) == 0 { dice.roll() as u16 } else { fixed }
    };
    let mut header = Vec::new();
    match protocol {
        6 => {
            header.extend(port(dice).to_be_bytes());
            header.extend(port(dice).to_be_bytes());
            header.extend(dice.roll().to_be_bytes());
            let flags = dice.pick(&[0x02, 0x12, 0x10, 0x18, 0x11, 0x04]);
            // A SYN has options: MSS, SACK permitted, timestamps, a no-operation, window scale.
            let options: &[u8] = if flags & 2 != 0 {
                &[2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7]
            } else {
                &[]
            };
            let words = 5 + options.len() as u8 / 4;
            header.extend([words << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
            header.extend(options);
        }
        17 => {
            header.extend(port(dice).to_be_bytes());
            header.extend(port(dice).to_be_bytes());
            header.extend([0, 8, 0, 0]);
        }
        1 => {
            header.extend([dice.pick(&[8, 0]), 0, 0, 0]);
            header.extend((dice.roll() as u32).to_be_bytes());
        }
        _ => header.extend([0, 0, 0x08, 0x00]),
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_have_the_numbers_of_their_frames_and_others_are_counted_by_reason() {
        let text = b"abi = \"1.0\"\nname = \"x\"\nhooks = [\"ingress\"]\n";
        let manifest = Manifest::parse(text).expect("a manifest");
        let mut dice = Dice(1);
        let whole = Pool::new(&mut dice, b"").frame(&mut dice);
        // As a capture with a snap length has it.
        let cut = whole[..14 + 20 + 4].to_vec();
        let other = [&whole[..12], &[0x08, 0x06]].concat();
        let mut packets = Packets::of(&manifest);
        assert_eq!(packets.skipped_words(), "0 more would not reach a plugin");
        let frames = [&cut, &whole, &other, &cut, &whole];
        let pushed = frames.map(|frame| packets.push(1, frame.clone(), &manifest, 64));
        assert_eq!(pushed, [false, true, false, false, true]);
        let numbers: Vec<usize> = packets.all().map(|packet| packet.number).collect();
        assert_eq!((numbers, packets.len()), (vec![2, 5], 2));
        let words = packets.skipped_words();
        let of_cut = forward::describe(&cut).expect_err("it is cut").label();
        assert!(words.starts_with("3 more would not reach a plugin: "), "{words}");
        assert!(words.contains(&format!("2 {of_cut}")) && words.contains("1 not-ip"), "{words}");
        assert_eq!(packets.spread(2).skipped_words(), words);
    }
}
