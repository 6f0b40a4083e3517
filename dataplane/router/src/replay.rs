//! `sluice replay`: captures through the workers' own code, on memory rings and in virtual time.
//!
//! ```text
//!  IFACE=a.pcap --> MemoryQueue --> Worker (the same code as on AF_XDP) --> OUT/IFACE.pcap
//!                                     |                                     OUT/kernel.pcap
//!                                     +--> counters ------------------------ OUT/counters.json
//! ```
//!
//! The classifier is not part of a replay: a packet that it would leave to the kernel reaches the
//! workers, which send what is addressed to this machine to the kernel themselves. The same inputs
//! give the same outputs.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, bail, ensure};
use config::Checked;
use control::publication::{Changes, NeighborView};
use forward::{Counter, Neighbor};
use frame::{DropReason, Nanos};
use network::{Machine, MachineOptions, host_view};
use policy::Asked;
use serde_json::{Value, json};
use sim::{Faults, Packet, QueueSizes, VirtualClock, read_pcap, write_pcap};
use tables::AdjacencyState;
use wire::{InterfaceId, IpVersion, MacAddress, ethernet};

use crate::action_totals::action_totals;
use crate::cli::ReplayArgs;
use crate::explain::{self, Explanation, Names};
use crate::plugins;

/// How much virtual time passes after the last packet, so that what is held times out.
const TAIL_NANOS: u64 = 10_000_000_000;

/// How finely time passes in that tail.
const TAIL_STEP_NANOS: u64 = 100_000_000;

/// Frames that each worker may have with others.
const HANDOFF_FRAMES_MAX: usize = 1024;

/// What a replay does, beside what the configuration says.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) workers: u16,
    pub(crate) keep_mac: bool,
    pub(crate) resolve: bool,
    pub(crate) explain: bool,
}

/// What came out of a replay.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// What left each interface, by [`InterfaceId`].
    pub(crate) sent: Vec<Vec<Packet>>,
    /// What went to the kernel, with a made-up Ethernet header.
    pub(crate) to_kernel: Vec<Packet>,
    /// All counters.
    pub(crate) counters: Value,
    /// What became of each packet, in the order in which that was decided, if it was asked for.
    pub(crate) explained: Vec<Explained>,
    /// What a worker aside made of each, in the order in which they came.
    #[cfg(test)]
    pub(crate) asked: Vec<Explanation>,
}

/// What became of a packet, and when.
#[derive(Debug)]
pub(crate) struct Explained {
    pub(crate) time_ns: u64,
    pub(crate) explanation: Explanation,
}

/// Runs the command.
pub(crate) fn run(args: &ReplayArgs) -> Result<()> {
    let config = Checked::load(&args.config.config)?;
    let mut inputs = Vec::new();
    for input in &args.inputs {
        let (name, file) =
            input.split_once('=').with_context(|| format!("--in {input}: expected IFACE=FILE"))?;
        let interface = config
            .interface(name)
            .with_context(|| format!("--in {input}: the configuration has no interface {name}"))?;
        let capture = read_pcap(file)?;
        if let Some(warning) = &capture.warning {
            eprintln!("{file}: {warning}");
        }
        inputs.push((interface, capture.packets));
    }
    let options = Options {
        workers: args.workers,
        keep_mac: args.keep_mac,
        resolve: !args.no_resolve,
        explain: args.explain,
    };
    let names: Vec<String> = config.interfaces.iter().map(|each| each.name.clone()).collect();
    let outcome = replay(config, inputs, &options)?;
    fs::create_dir_all(&args.out_dir)
        .with_context(|| format!("{}: cannot be created", args.out_dir.display()))?;
    write(&args.out_dir, &names, &outcome)?;
    if args.explain {
        write_explained(&args.out_dir, &outcome.explained)?;
    }
    print_summary(&args.out_dir, &outcome.counters);
    Ok(())
}

fn write(directory: &Path, names: &[String], outcome: &Outcome) -> Result<()> {
    for (name, packets) in names.iter().zip(&outcome.sent) {
        write_pcap(directory.join(format!("{name}.pcap")), packets)?;
    }
    write_pcap(directory.join("kernel.pcap"), &outcome.to_kernel)?;
    let path: PathBuf = directory.join("counters.json");
    let text = serde_json::to_string_pretty(&outcome.counters)? + "\n";
    fs::write(&path, text).with_context(|| format!("{}: cannot be written", path.display()))
}

/// Prints the explanations for people, and writes them for programs.
fn write_explained(directory: &Path, explained: &[Explained]) -> Result<()> {
    let mut lines = String::new();
    for Explained { time_ns, explanation } in explained {
        print!("{}", explain::render(explanation, None));
        let line = json!({ "time_ns": time_ns, "packet": explanation });
        lines += &format!("{line}\n");
    }
    let path = directory.join("explain.jsonl");
    fs::write(&path, lines).with_context(|| format!("{}: cannot be written", path.display()))
}

fn print_summary(directory: &Path, counters: &Value) {
    let of = |interface: &Value, key: &str| interface.get(key).and_then(Value::as_u64).unwrap_or(0);
    for (name, interface) in counters["interfaces"].as_object().into_iter().flatten() {
        println!(
            "{name}: received {}, forwarded {}, to the kernel {}, sent {}",
            of(interface, "rx_packets"),
            of(interface, "forwarded"),
            of(interface, "to_kernel"),
            of(interface, "tx_packets"),
        );
        for (reason, count) in interface["drops"].as_object().into_iter().flatten() {
            println!("  dropped {count}: {reason}");
        }
    }
    println!("written to {}", directory.display());
}

/// Runs packets through the workers' code.
pub(crate) fn replay(
    config: Checked,
    inputs: Vec<(InterfaceId, Vec<Packet>)>,
    options: &Options,
) -> Result<Outcome> {
    Bench::new(config, options)?.run(inputs)
}

/// A router on memory, with all that surrounds it.
struct Bench {
    machine: Machine,
    clock: VirtualClock,
    keep_mac: bool,
    resolve: bool,
    sent: Vec<Vec<Packet>>,
    to_kernel: Vec<Packet>,
    lost_before_rx: u64,
    is_explained: bool,
    explained: Vec<Explained>,
    /// What a worker aside makes of each packet at the moment that it comes in.
    #[cfg(test)]
    asked: Vec<Explanation>,
}

impl Bench {
    fn new(config: Checked, options: &Options) -> Result<Self> {
        ensure!(options.workers >= 1, "--workers: at least 1");
        let host = host_view(&config);
        let machine_options = MachineOptions {
            workers: options.workers,
            frames_per_worker: usize::try_from(config.router.frames_per_worker)?,
            handoff_frames_max: HANDOFF_FRAMES_MAX,
            sizes: QueueSizes::default(),
            faults: Faults::default(),
            plugins: plugins::specs,
        };
        let mut machine = Machine::new(config, host, &machine_options)?;
        if options.resolve {
            let required: Vec<Neighbor> = machine.publication.required_neighbors().collect();
            for neighbor in required {
                machine.host.neighbors.insert(neighbor, invented(neighbor.1));
            }
            machine.host_changed(Changes { routes: false, neighbors: true })?;
        }
        let interfaces = machine.config.interfaces.len();
        let mut bench = Self {
            machine,
            clock: VirtualClock::default(),
            keep_mac: options.keep_mac,
            resolve: options.resolve,
            sent: vec![Vec::new(); interfaces],
            to_kernel: Vec::new(),
            lost_before_rx: 0,
            is_explained: options.explain,
            explained: Vec::new(),
            #[cfg(test)]
            asked: Vec::new(),
        };
        if options.explain {
            for worker in &mut bench.machine.workers {
                worker.record();
            }
        }
        // The first turn puts chunks on the FILL rings.
        bench.turn()?;
        Ok(bench)
    }

    fn run(mut self, inputs: Vec<(InterfaceId, Vec<Packet>)>) -> Result<Outcome> {
        let mut packets: Vec<(InterfaceId, Packet)> = inputs
            .into_iter()
            .flat_map(|(interface, packets)| packets.into_iter().map(move |one| (interface, one)))
            .collect();
        // A stable sort: packets of one time stay in the order of the command line.
        packets.sort_by_key(|(_, packet)| packet.time_ns);
        let start = packets.first().map_or(0, |(_, packet)| packet.time_ns);
        let batch = usize::from(self.machine.config.router.batch_frames);
        let mut waiting = 0;
        for (interface, packet) in packets {
            let now = packet.time_ns - start;
            if waiting > 0 && (now > self.clock.now().0 || waiting >= batch) {
                self.turn()?;
                waiting = 0;
            }
            self.clock.advance_to(Nanos(now));
            self.receive(interface, packet.bytes);
            waiting += 1;
        }
        self.turn()?;
        for _ in 0..TAIL_NANOS / TAIL_STEP_NANOS {
            self.clock.advance(TAIL_STEP_NANOS);
            self.turn()?;
        }
        let counters = self.counters()?;
        self.machine.dismantle();
        Ok(Outcome {
            sent: self.sent,
            to_kernel: self.to_kernel,
            counters,
            explained: self.explained,
            #[cfg(test)]
            asked: self.asked,
        })
    }

    /// Puts a packet on the RX ring of the worker that its flow belongs to.
    fn receive(&mut self, interface: InterfaceId, mut bytes: Vec<u8>) {
        let mac = self.machine.host.interfaces.get(interface.index()).map(|link| link.mac);
        if let (false, Some(mac), Some(destination)) =
            (self.keep_mac, mac, bytes.first_chunk_mut::<6>())
            && !MacAddress(*destination).is_multicast()
        {
            *destination = mac.0;
        }
        #[cfg(test)]
        if self.is_explained {
            self.ask_aside(interface, &bytes);
        }
        let worker = spread(&bytes, self.machine.workers.len());
        if !self.machine.push_rx(worker, interface, &bytes) {
            self.lost_before_rx += 1;
        }
    }

    /// One turn of every worker, repeated until nothing moves, and everything that goes with it.
    fn turn(&mut self) -> Result<()> {
        let now = self.clock.now();
        loop {
            let mut moved = false;
            for worker in &mut self.machine.workers {
                moved |= worker.turn(now) > 0;
            }
            self.collect();
            self.note_explanations();
            if self.resolve_wanted()? {
                moved = true;
            }
            if !moved {
                break;
            }
        }
        self.machine.check().map_err(Error::msg)
    }

    /// Takes what left the interfaces and what went to the kernel.
    fn collect(&mut self) {
        let time_ns = self.clock.now().0;
        let Self { machine, sent, to_kernel, .. } = self;
        for worker in 0..machine.workers.len() {
            for (interface, sent) in (0_u8..).zip(sent.iter_mut()) {
                while let Some(bytes) = machine.take_sent(worker, InterfaceId(interface)) {
                    sent.push(Packet::new(time_ns, bytes));
                }
            }
        }
        for worker in 0..machine.workers.len() {
            while let Some(bytes) = machine.take_punted(worker) {
                to_kernel.push(Packet::new(time_ns, with_ethernet(&bytes)));
            }
        }
    }

    #[cfg(test)]
    fn ask_aside(&mut self, interface: InterfaceId, bytes: &[u8]) {
        let aside = self.machine.plugins.aside().expect("instances aside");
        let reader = self.machine.publication.reader();
        let record = explain::ask(reader, aside.chain, interface, bytes, self.clock.now());
        let snapshot = self.machine.publication.current();
        let names = Names {
            config: &self.machine.config,
            publication: &self.machine.publication,
            snapshot: &snapshot,
            plugins: &aside.plugins,
        };
        let record = record.expect("a record");
        self.asked.push(Explanation::new(&record, names, &explain::traps(&aside.traps)));
    }

    /// Puts into words what workers wrote down, by the tables that they used.
    fn note_explanations(&mut self) {
        if !self.is_explained {
            return;
        }
        let snapshot = self.machine.publication.current();
        let mut plugins = self.machine.plugins.list();
        for plugin in plugins.iter_mut().filter(|plugin| plugin.asked == Asked::Not) {
            // It cannot be asked aside. These packets it judged itself.
            plugin.asked = Asked::Instance;
        }
        let names = Names {
            config: &self.machine.config,
            publication: &self.machine.publication,
            snapshot: &snapshot,
            plugins: &plugins,
        };
        let time_ns = self.clock.now().0;
        for worker in &mut self.machine.workers {
            for record in worker.take_records() {
                let explanation = Explanation::new(&record, names, &[]);
                self.explained.push(Explained { time_ns, explanation });
            }
        }
    }

    /// Resolves the neighbors that workers asked for, as a kernel would whose neighbors all answer.
    fn resolve_wanted(&mut self) -> Result<bool> {
        let mut resolved = false;
        while let Ok(neighbor) = self.machine.wanted.try_recv() {
            if self.resolve && !self.machine.host.neighbors.contains_key(&neighbor) {
                self.machine.host.neighbors.insert(neighbor, invented(neighbor.1));
                resolved = true;
            }
        }
        if resolved {
            self.machine.host_changed(Changes { routes: false, neighbors: true })?;
        }
        Ok(resolved)
    }

    fn counters(&mut self) -> Result<Value> {
        self.machine.plugins.maintain();
        let mut interfaces = serde_json::Map::new();
        for (position, interface) in self.machine.config.interfaces.iter().enumerate() {
            interfaces.insert(interface.name.clone(), self.interface_counters(position)?);
        }
        let plugins: Vec<Value> = self
            .machine
            .plugins
            .status()
            .into_iter()
            .map(|status| {
                let mut value = json!({
                    "name": status.name,
                    "packets": status.total.packets,
                    "drops": status.total.drops,
                    "traps": status.total.traps,
                });
                // What most plugins never do is only there when it was done.
                for (key, count) in [
                    ("bad_verdicts", status.total.bad_verdicts),
                    ("transmitted", status.total.transmitted),
                    ("edited", status.total.edited),
                    ("mirrored", status.total.mirrored),
                ] {
                    if count > 0 {
                        value[key] = json!(count);
                    }
                }
                value
            })
            .collect();
        let workers: Vec<_> =
            self.machine.workers.iter().map(|worker| &**worker.counters()).collect();
        let actions = action_totals(&self.machine.publication.current(), &workers);
        let mut all = json!({
            "interfaces": interfaces,
            "plugins": plugins,
            "lost_before_rx": self.lost_before_rx,
        });
        if !actions.is_empty() {
            all["actions"] = json!(actions);
        }
        Ok(all)
    }

    /// The sum over workers; zero counters stay in, zero drop reasons are left out.
    fn interface_counters(&self, position: usize) -> Result<Value> {
        let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
        let mut drops: BTreeMap<&str, u64> = BTreeMap::new();
        for worker in &self.machine.workers {
            let Some(counters) = worker.counters().interfaces.get(position) else {
                bail!("interface {position} has no counters")
            };
            for (name, counter) in counters.named() {
                *sums.entry(name).or_default() += counter.get();
            }
            for (reason, counter) in DropReason::ALL.iter().zip(&counters.drops) {
                if counter.get() > 0 {
                    *drops.entry(reason.label()).or_default() += Counter::get(counter);
                }
            }
        }
        let mut value = json!(sums);
        value["drops"] = json!(drops);
        Ok(value)
    }
}

/// A resolved neighbor whose locally administered MAC address holds the end of its IP address.
fn invented(address: IpAddr) -> NeighborView {
    let [a, b, c, d] = match address {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(address) => {
            let [.., a, b, c, d] = address.octets();
            [a, b, c, d]
        }
    };
    let family = if address.is_ipv4() { 0x04 } else { 0x06 };
    NeighborView {
        mac: Some(MacAddress([0x02, family, a, b, c, d])),
        state: AdjacencyState::Resolved,
    }
}

/// The worker for a packet: by a hash of what a NIC would hash, the addresses and ports.
fn spread(bytes: &[u8], workers: usize) -> usize {
    if workers <= 1 {
        return 0;
    }
    let hash = bytes
        .get(ethernet::HEADER_LEN..)
        .unwrap_or_default()
        .iter()
        .skip(12)
        .take(12)
        .fold(0xcbf2_9ce4_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    usize::try_from(hash).unwrap_or_default() % workers
}

/// An IP packet behind an Ethernet header of zeros, for a capture of what the kernel got.
fn with_ethernet(packet: &[u8]) -> Vec<u8> {
    let version = packet.first().copied().and_then(IpVersion::of_first_byte);
    let ethertype = match version {
        Some(IpVersion::V6) => ethernet::ETHERTYPE_IPV6,
        _ => ethernet::ETHERTYPE_IPV4,
    };
    let mut header = [0; ethernet::HEADER_LEN];
    ethernet::write_header(&mut header, MacAddress::default(), MacAddress::default(), ethertype);
    [&header, packet].concat()
}
