//! [`Engine`]: events in the order of virtual time, and what each of them does.

mod ending;
mod hosts;
mod links;
mod neighbors;
mod routers;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;

use config::Checked;
use control::publication::ActionNames;
use fastrand::Rng;
use policy::{PluginConfig, PluginSpec};
use sim::{Faults, QueueSizes};

use super::accounts::{Account, Key, key};
use super::traffic::{self, STATIONS, Sent, Traffic};
use super::{Options, Property, Report, Violation};
use crate::frames::{self, ETHERNET_LEN, Layer};
use crate::machine::{Machine, MachineOptions, host_view};
use crate::model::{HOSTS, Holder, Model, NAMES, ROUTERS, SEGMENTS, interfaces, router_address};

const MICRO: u64 = 1_000;
const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

/// How long a packet is sent after the one before, on average.
const GAP_NANOS: u64 = 2 * MILLI;
/// How often every worker takes a turn that nobody asked for: what makes held frames time out.
const TICK_NANOS: u64 = 20 * MILLI;
/// How long a kernel tries before it calls a neighbor failed, and then until it tries again.
const FAILED_NANOS: u64 = 1500 * MILLI;
/// From the end of the faults until every flow is tried: longer than anything is held.
const QUIET_NANOS: u64 = 8 * SECOND;
/// From the last packet to the end of the run: longer than anything is held.
const TAIL_NANOS: u64 = 4 * SECOND;

type Step = Result<(), Violation>;

/// What happens at some time.
#[derive(Debug)]
enum Event {
    /// A frame reaches whoever has its destination address on a segment.
    Arrive {
        segment: usize,
        frame: Vec<u8>,
    },
    Turn {
        router: usize,
        worker: usize,
    },
    Tick {
        router: usize,
    },
    /// The kernel of a router is done looking for a neighbor.
    Resolve {
        router: usize,
        interface: usize,
        address: IpAddr,
    },
    /// Something changes, and configurations say so.
    Change,
    Reload {
        router: usize,
        version: usize,
    },
    /// A node's process ends if the node has left.
    Stop {
        router: usize,
    },
    Draw {
        left: u32,
    },
    Send {
        sender: usize,
        packets: Vec<Vec<u8>>,
    },
    Answer {
        id: u32,
        station: usize,
    },
    Link {
        router: usize,
        interface: usize,
        is_up: bool,
    },
    NewMac {
        station: usize,
    },
    Silence {
        station: usize,
        is_silent: bool,
    },
    /// Faults end.
    Calm,
    /// Every flow is tried.
    Flows,
}

/// Where a packet came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Station(usize),
    Kernel(usize),
}

struct Router {
    machine: Machine,
    own: BTreeSet<IpAddr>,
    account: Account,
    /// When which version of the model was put into force.
    timeline: Vec<(u64, usize)>,
    is_up: bool,
    /// Whether a turn of the worker is on the agenda.
    is_due: Vec<bool>,
    /// Neighbors that the kernel is looking for.
    sought: BTreeSet<(usize, IpAddr)>,
    salt: u32,
}

#[derive(Debug)]
struct Station {
    mac: [u8; 6],
    is_silent: bool,
}

/// A segment: a switch with a cable to each station.
#[derive(Debug)]
struct Segment {
    loss_per_mille: u16,
    double_per_mille: u16,
    delay: std::ops::Range<u64>,
    /// Longer packets are lost, although the interfaces think that they fit.
    hole: Option<u16>,
}

pub(super) struct Engine<'a> {
    options: &'a Options,
    random: Rng,
    now: u64,
    sequence: u64,
    agenda: BTreeMap<(u64, u64), Event>,
    mtus: [u16; SEGMENTS],
    models: Vec<Model>,
    routers: Vec<Router>,
    stations: Vec<Station>,
    segments: Vec<Segment>,
    traffic: Traffic,
    /// Units of each packet that are somewhere.
    balance: HashMap<Key, i64>,
    /// How often each unit of a packet was delivered.
    delivered: HashMap<u32, Vec<u16>>,
    places: HashMap<u32, Vec<Place>>,
    /// How often a link doubled a frame of the packet.
    doubled: HashMap<u32, u16>,
    /// What became of packets that did not arrive.
    fates: HashMap<u32, Vec<String>>,
    /// Packets that must arrive, and who must get them.
    expected: Vec<(u32, Option<Holder>)>,
    is_calm: bool,
    is_over: bool,
    report: Report,
}

/// The plugins of a configuration, for the policy host: all are the filter with a table.
fn plugins(config: &Checked, _: &ActionNames) -> Vec<PluginSpec> {
    let spec = |plugin: &config::Plugin| {
        let hook = match plugin.hook {
            config::PluginHook::Ingress => frame::HookPoint::Ingress,
            config::PluginHook::Forward => frame::HookPoint::Forward,
            config::PluginHook::Egress => frame::HookPoint::Egress,
        };
        let mut spec = PluginSpec::new(plugin.name.clone(), plugin.path.clone(), hook);
        spec.budget_us = plugin.budget_us;
        if let config::PluginConfig::Inline(table) = &plugin.config {
            spec.config = PluginConfig::Table(table.clone());
        }
        spec
    };
    config.plugins.iter().map(spec).collect()
}

impl<'a> Engine<'a> {
    pub(super) fn run(options: &'a Options) -> Report {
        let mut engine = Self {
            options,
            random: Rng::with_seed(options.seed),
            now: 0,
            sequence: 0,
            agenda: BTreeMap::new(),
            mtus: [1500; SEGMENTS],
            models: Vec::new(),
            routers: Vec::new(),
            stations: Vec::new(),
            segments: Vec::new(),
            traffic: Traffic::default(),
            balance: HashMap::new(),
            delivered: HashMap::new(),
            places: HashMap::new(),
            doubled: HashMap::new(),
            fates: HashMap::new(),
            expected: Vec::new(),
            is_calm: false,
            is_over: false,
            report: Report { digest: 0xcbf2_9ce4_8422_2325, ..Report::default() },
        };
        let result = engine.set_up().and_then(|()| engine.play()).and_then(|()| engine.close());
        engine.report.violation = result.err();
        for router in engine.routers {
            router.machine.dismantle();
        }
        engine.report
    }

    fn set_up(&mut self) -> Step {
        let captures = if self.options.captures { SEGMENTS } else { 0 };
        self.report.captures = vec![Vec::new(); captures];
        for mtu in self.mtus.iter_mut().skip(1) {
            *mtu = [1500, 1500, 1400, 1320][self.random.usize(..4)];
        }
        for _ in 0..SEGMENTS {
            let delay = 20 * MICRO..self.random.u64(40 * MICRO..4 * MILLI);
            let segment = Segment {
                loss_per_mille: self.random.u16(..30),
                double_per_mille: self.random.u16(..20),
                delay,
                hole: (self.random.u8(..8) == 0).then_some(1200),
            };
            self.segments.push(segment);
        }
        for station in 0..STATIONS {
            let mac = match traffic::place(station) {
                Some((node, which)) => [2, 0, 0, 0x30, 2 + node as u8, which as u8],
                None => [2, 0, 0, 0x20, 0, station as u8],
            };
            self.stations.push(Station { mac, is_silent: false });
        }
        let model = Model::new(&mut self.random);
        self.models.push(model);
        for router in 0..ROUTERS {
            let config = self.configuration(router, 0)?;
            let faults = Faults {
                seed: self.random.u64(..),
                tx_full_per_mille: self.random.u16(..10),
                completion_delay_turns: self.random.u32(..3),
                ..Faults::default()
            };
            let options = MachineOptions {
                workers: self.random.u16(1..=3),
                frames_per_worker: 384,
                handoff_frames_max: self.random.usize(8..64),
                sizes: QueueSizes { fill_frames_max: 64, ..QueueSizes::default() },
                faults,
                plugins,
            };
            let host = host_view(&config);
            let machine = Machine::new(config, host, &options)
                .map_err(|error| self.wrong(Property::Configuration, error.to_string()))?;
            let own = (0..interfaces(router))
                .flat_map(|interface| {
                    [false, true].map(|is_v6| router_address(router, interface, is_v6))
                })
                .collect();
            self.routers.push(Router {
                is_due: vec![false; machine.workers.len()],
                machine,
                own,
                account: Account::default(),
                timeline: vec![(0, 0)],
                is_up: true,
                sought: BTreeSet::new(),
                salt: self.random.u32(..),
            });
            for worker in self.routers[router].machine.workers.iter_mut() {
                worker.record();
            }
            self.at(0, Event::Tick { router });
            self.seek_required(router);
        }
        let end = u64::from(self.options.packets) * GAP_NANOS;
        self.at(10 * MILLI, Event::Draw { left: self.options.packets });
        for _ in 0..end / (300 * MILLI) {
            let when = self.random.u64(..end.max(1));
            self.at(when, Event::Change);
        }
        for _ in 0..6 {
            let router = self.random.usize(..ROUTERS);
            let interface = self.random.usize(..interfaces(router));
            let when = self.random.u64(..end.max(1));
            let until = when + self.random.u64(..600 * MILLI);
            self.at(when, Event::Link { router, interface, is_up: false });
            self.at(until, Event::Link { router, interface, is_up: true });
        }
        for _ in 0..4 {
            let (station, when) = (self.random.usize(..STATIONS), self.random.u64(..end.max(1)));
            self.at(when, Event::NewMac { station });
            let (station, when) = (self.random.usize(..STATIONS), self.random.u64(..end.max(1)));
            self.at(when, Event::Silence { station, is_silent: true });
            let until = when + self.random.u64(..2 * SECOND);
            self.at(until, Event::Silence { station, is_silent: false });
        }
        self.at(end + 10 * MILLI, Event::Calm);
        self.at(end + QUIET_NANOS, Event::Flows);
        Ok(())
    }

    fn play(&mut self) -> Step {
        while let Some(((time, _), event)) = self.agenda.pop_first() {
            self.now = time;
            self.happen(event)?;
        }
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Step {
        match event {
            Event::Arrive { segment, frame } => self.arrive(segment, &frame),
            Event::Turn { router, worker } => self.turn(router, worker),
            Event::Tick { router } => self.tick(router),
            Event::Resolve { router, interface, address } => {
                self.resolve(router, interface, address)
            }
            Event::Change => {
                let mut model = self.models[self.models.len() - 1].clone();
                let what = model.change(&mut self.random);
                self.note(format_args!("change: {what}"));
                self.count("changes");
                self.put_into_force(model);
                Ok(())
            }
            Event::Reload { router, version } => self.reload(router, version),
            Event::Stop { router } => {
                let has_left = !self.models[self.models.len() - 1].is_present[router];
                if has_left && !self.is_calm {
                    self.note(format_args!("{} stops", NAMES[router]));
                    self.routers[router].is_up = false;
                }
                Ok(())
            }
            Event::Draw { left } => {
                self.draw();
                if left > 1 {
                    let gap = self.random.u64(..2 * GAP_NANOS);
                    self.at(self.now + gap, Event::Draw { left: left - 1 });
                }
                Ok(())
            }
            Event::Send { sender, packets } => {
                for packet in packets {
                    self.send(sender, &packet);
                }
                Ok(())
            }
            Event::Answer { id, station } => {
                self.answer(id, station);
                Ok(())
            }
            Event::Link { router, interface, is_up } => {
                self.note(format_args!("link {interface} of {}: up {is_up}", NAMES[router]));
                self.count(if is_up { "links up" } else { "links down" });
                for worker in &mut self.routers[router].machine.workers {
                    worker.queues_mut()[interface].set_link(is_up);
                }
                Ok(())
            }
            Event::NewMac { station } => {
                let mac = &mut self.stations[station].mac;
                mac[5] = mac[5].wrapping_add(0x10);
                self.note(format_args!("station {station} has a new MAC address"));
                self.count("MAC addresses changed");
                self.announce(station);
                Ok(())
            }
            Event::Silence { station, is_silent } => {
                let is_silent = is_silent && !self.is_calm;
                self.note(format_args!("station {station}: silent {is_silent}"));
                self.count(if is_silent { "stations fell silent" } else { "stations spoke again" });
                self.stations[station].is_silent = is_silent;
                self.announce(station);
                Ok(())
            }
            Event::Calm => {
                self.calm();
                Ok(())
            }
            Event::Flows => {
                self.try_flows();
                Ok(())
            }
        }
    }

    fn at(&mut self, time: u64, event: Event) {
        self.sequence += 1;
        self.agenda.insert((time, self.sequence), event);
    }

    fn soon(&mut self, most: u64, event: Event) {
        let time = self.now + self.random.u64(..most.max(1));
        self.at(time, event);
    }

    fn wrong(&self, property: Property, what: String) -> Violation {
        Violation { property, time_ns: self.now, what }
    }

    fn wrong_with(&self, (property, what): (Property, String), router: usize) -> Violation {
        self.wrong(property, format!("at {}: {what}", NAMES[router]))
    }

    fn note(&mut self, what: fmt::Arguments<'_>) {
        let line = format!("{:>12.3} ms  {what}", self.now as f64 / MILLI as f64);
        self.digest(line.as_bytes());
        if self.options.trace {
            self.report.trace.push(line);
        }
    }

    /// FNV-1a.
    fn digest(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.report.digest =
                (self.report.digest ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn count(&mut self, what: &str) {
        match self.report.counts.get_mut(what) {
            Some(count) => *count += 1,
            None => _ = self.report.counts.insert(what.to_owned(), 1),
        }
    }

    fn weigh(&mut self, key: Key, units: i64) {
        *self.balance.entry(key).or_default() += units;
    }

    /// Which packet a frame on a link is, and how many units of it.
    fn on_link(&self, frame: &[u8]) -> Option<(Key, i64)> {
        let outer = Layer::read(frame, ETHERNET_LEN)?;
        let last = frames::innermost(frame, &outer)?;
        let key = key(frame, &last, &self.traffic)?;
        Some((key, last.payload.len().div_ceil(8) as i64))
    }

    /// A packet, or a part of it, ends here without having arrived.
    fn lose(&mut self, key: Option<Key>, units: i64, why: &str) {
        self.count(why);
        if let Some(key) = key {
            self.weigh(key, -units);
            if let Key::Packet(id) = key {
                self.note(format_args!("packet {id}: {why}"));
                self.fates.entry(id).or_default().push(why.to_owned());
            }
        }
    }
}

fn router_mac(router: usize, interface: usize) -> [u8; 6] {
    [2, 0, 0, 0x10, router as u8, interface as u8]
}

fn station_segment(station: usize) -> usize {
    traffic::place(station).map_or(0, |(node, _)| 2 + node)
}

fn holder_place(holder: Holder) -> Option<Place> {
    match holder {
        Holder::Nobody => None,
        Holder::Kernel(node) => Some(Place::Kernel(node)),
        Holder::Workload(node, which) => Some(Place::Station(traffic::workload(node, which))),
    }
}

fn sent_is_whole(sent: &Sent, layer: &Layer) -> bool {
    sent.is_answered && !layer.is_fragment()
}

fn describe(sent: &Sent) -> String {
    let Sent { recipe, sender, .. } = sent;
    let from = if *sender < HOSTS { "host" } else { "workload" };
    let transport = match &recipe.transport {
        frames::Transport::Error { kind, code, .. } => format!("ICMP error {kind}/{code}"),
        transport => format!("{transport:?}"),
    };
    format!(
        "from {from} {sender}, {} to {}, {transport}, {} bytes, TTL {}",
        recipe.source,
        recipe.destination,
        usize::from(recipe.units) * 8,
        recipe.ttl
    )
}
