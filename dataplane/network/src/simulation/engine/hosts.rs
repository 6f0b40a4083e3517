//! Hosts and workloads: they send and answer, and what they get is judged.

use super::{
    Engine, Event, MILLI, Place, Step, describe, holder_place, router_mac, sent_is_whole,
    station_segment,
};
use crate::frames::{self, Layer};
use crate::model::{Holder, Model, NODES};
use crate::simulation::accounts::{Key, key};
use crate::simulation::traffic::{self, Target};
use crate::simulation::{Property, Sabotage};

impl Engine<'_> {
    pub(super) fn model(&self) -> &Model {
        &self.models[self.models.len() - 1]
    }

    pub(super) fn draw(&mut self) {
        let model = &self.models[self.models.len() - 1];
        let draft = traffic::draw(model, &mut self.random);
        self.dispatch(draft);
    }

    /// Sends a packet on its way. Returns its number.
    pub(super) fn dispatch(&mut self, draft: traffic::Draft) -> u32 {
        let spares_malformed = self.options.sabotage == Some(Sabotage::Malformed);
        let Self { traffic, models, random, now, .. } = self;
        let model = &models[models.len() - 1];
        let (id, packets) = traffic.send(draft, *now, model, random, spares_malformed);
        let sender = self.traffic.sent[id as usize].sender;
        self.note(format_args!("packet {id}: {}", describe(&self.traffic.sent[id as usize])));
        self.count("packets");
        self.soon(MILLI, Event::Send { sender, packets });
        id
    }

    pub(super) fn send(&mut self, sender: usize, packet: &[u8]) {
        let gateway = match traffic::place(sender) {
            Some((node, _)) => router_mac(node, 1),
            None => router_mac(0, 0),
        };
        let is_odd = !self.is_calm && self.random.u8(..60) == 0;
        let to = if is_odd { [0xff; 6] } else { gateway };
        let padding = if self.random.u8(..4) == 0 { self.random.usize(..9) } else { 0 };
        let frame = traffic::frame(to, self.stations[sender].mac, packet, padding);
        if let Some((key, units)) = self.on_link(&frame) {
            self.weigh(key, units);
        }
        self.transmit(station_segment(sender), frame);
    }

    pub(super) fn answer(&mut self, id: u32, station: usize) {
        let sent = &self.traffic.sent[id as usize];
        let Some(draft) = traffic::answer(sent, station) else { return };
        let holder = |(shared, port): (usize, _)| self.model().shared[shared].holder(port);
        let to = sent.claims.map(holder);
        let must_arrive = self.expected.iter().any(|&(expected, _)| expected == id);
        let answer = self.dispatch(draft);
        if must_arrive {
            self.expected.push((answer, to));
        }
    }

    /// A packet, or a part of one, came to an end of the network.
    pub(super) fn deliver(&mut self, bytes: &[u8], start: usize, place: Place) -> Step {
        let layer = Layer::read(bytes, start);
        let known = layer.and_then(|layer| Some((key(bytes, &layer, &self.traffic)?, layer)));
        let Some((key, layer)) = known else {
            let what = format!("{place:?} gets what nobody sent: {bytes:02x?}");
            return Err(self.wrong(Property::OneForOne, what));
        };
        self.weigh(key, -(layer.payload.len().div_ceil(8) as i64));
        match key {
            Key::Packet(id) => self.deliver_packet(id, bytes, &layer, place),
            Key::Error { about, .. } => self.deliver_error(about, &layer, place),
        }
    }

    pub(super) fn deliver_packet(
        &mut self,
        id: u32,
        bytes: &[u8],
        layer: &Layer,
        place: Place,
    ) -> Step {
        self.note(format_args!("packet {id}: delivered to {place:?}"));
        self.count("deliveries");
        let sent = &self.traffic.sent[id as usize];
        if let Some(why) = sent.never {
            let what = format!("packet {id} ({}) reaches {place:?}, but {why}", describe(sent));
            return Err(self.wrong(Property::Admission, what));
        }
        let fits = match sent.target {
            Target::Station(station) => place == Place::Station(station),
            Target::Router(router) => place == Place::Kernel(router),
            Target::Slice { shared, port } => self
                .was_held(shared, port, sent.time_ns, |holder| holder_place(holder) == Some(place)),
        };
        if !fits {
            let what = format!("packet {id} ({}) reaches {place:?}", describe(sent));
            return Err(self.wrong(Property::Owner, what));
        }
        if let Some((shared, port)) = sent.claims {
            // Workloads behind one interface are told apart by nothing that a router could trust.
            let node = traffic::place(sent.sender).map(|(node, _)| node);
            let is_behind = |holder: Holder| matches!(holder, Holder::Workload(owner, _) if Some(owner) == node);
            if !self.was_held(shared, port, sent.time_ns, is_behind) {
                let what = format!("packet {id} ({}) comes from nobody's slice", describe(sent));
                return Err(self.wrong(Property::Admission, what));
            }
        }
        let is_shorter = match place {
            Place::Station(_) => layer.ttl < sent.recipe.ttl,
            Place::Kernel(_) => layer.ttl <= sent.recipe.ttl,
        };
        if !is_shorter {
            let what = format!("packet {id} arrives with TTL {}", layer.ttl);
            return Err(self.wrong(Property::Ttl, what));
        }
        self.check_payload(id, bytes, layer)?;
        let is_answered = sent_is_whole(&self.traffic.sent[id as usize], layer);
        if let (true, Place::Station(station)) = (is_answered, place) {
            self.soon(MILLI, Event::Answer { id, station });
        }
        self.places.entry(id).or_default().push(place);
        Ok(())
    }

    pub(super) fn check_payload(&mut self, id: u32, bytes: &[u8], layer: &Layer) -> Step {
        let recipe = &self.traffic.sent[id as usize].recipe;
        let all =
            if recipe.is_error() { layer.payload.len().div_ceil(8) as u16 } else { recipe.units };
        let header_units = recipe.header_units();
        let first = layer.offset / 8;
        let most = 1 + self.doubled.get(&id).copied().unwrap_or(0);
        let counts = self.delivered.entry(id).or_insert_with(|| vec![0; usize::from(all)]);
        let mut wrong = None;
        for (unit, chunk) in (first..).zip(bytes[layer.payload.clone()].chunks(8)) {
            if unit >= header_units && chunk != frames::block(id, unit) {
                wrong = Some(format!("unit {unit} of packet {id} arrives as {chunk:02x?}"));
            }
            match counts.get_mut(usize::from(unit)) {
                Some(count) => *count += 1,
                None => wrong = Some(format!("packet {id} has no unit {unit}")),
            }
            if counts.get(usize::from(unit)).is_some_and(|&count| count > most) {
                wrong = Some(format!(
                    "unit {unit} of packet {id} arrives more often than {most} times"
                ));
            }
        }
        match wrong {
            Some(what) => Err(self.wrong(Property::Payload, what)),
            None => Ok(()),
        }
    }

    /// An ICMP error of a router goes to whoever sent what it is about.
    pub(super) fn deliver_error(&mut self, about: u32, layer: &Layer, place: Place) -> Step {
        self.note(format_args!("an error about packet {about} reaches {place:?}"));
        self.count("ICMP errors delivered");
        let sent = &self.traffic.sent[about as usize];
        let fits = match (sent.claims, place) {
            (_, Place::Station(station)) if station == sent.sender => true,
            // About a packet in a tunnel, it goes to the router where the tunnel begins.
            (_, Place::Kernel(router)) if self.routers[router].own.contains(&layer.destination) => {
                true
            }
            (Some((shared, port)), place) => self
                .was_held(shared, port, sent.time_ns, |holder| holder_place(holder) == Some(place)),
            _ => false,
        };
        if fits {
            return Ok(());
        }
        let what = format!("an error about packet {about} ({}) reaches {place:?}", describe(sent));
        Err(self.wrong(Property::Owner, what))
    }

    /// Whether a slice had such a holder by any configuration that was in force since then, at any node.
    pub(super) fn was_held(
        &self,
        shared: usize,
        port: Option<u16>,
        since: u64,
        is_it: impl Fn(Holder) -> bool,
    ) -> bool {
        NODES.into_iter().any(|router| {
            let timeline = &self.routers[router].timeline;
            timeline.iter().enumerate().any(|(position, &(_, version))| {
                let until = timeline.get(position + 1).map_or(u64::MAX, |&(time, _)| time);
                until >= since && is_it(self.models[version].shared[shared].holder(port))
            })
        })
    }
}
