//! Segments: what they lose, double, delay and cut off, and who gets what arrives.

use sim::Packet;
use wire::InterfaceId;

use super::{Engine, Event, Place, STATIONS, Segment, Step, router_mac, station_segment};
use crate::frames::ETHERNET_LEN;
use crate::model::{ROUTERS, interfaces, segment};
use crate::simulation::accounts::{Key, Way, identify};

impl Engine<'_> {
    pub(super) fn transmit(&mut self, segment: usize, frame: Vec<u8>) {
        self.note(format_args!("segment {segment}: {} bytes", frame.len()));
        self.digest(&frame);
        self.count("frames on links");
        if let Some(capture) = self.report.captures.get_mut(segment) {
            capture.push(Packet::new(self.now, frame.clone()));
        }
        let Segment { loss_per_mille, double_per_mille, ref delay, hole } = self.segments[segment];
        let delay = delay.clone();
        let known = self.on_link(&frame);
        let (key, units) = (known.map(|(key, _)| key), known.map_or(0, |(_, units)| units));
        if !self.is_calm {
            let is_too_long = hole.is_some_and(|mtu| frame.len() > ETHERNET_LEN + usize::from(mtu));
            if is_too_long {
                return self.lose(key, units, "lost on a link: MTU");
            }
            if self.random.u16(..1000) < loss_per_mille {
                return self.lose(key, units, "lost on a link");
            }
            if self.random.u16(..1000) < double_per_mille {
                self.count("doubled on a link");
                if let Some(key) = key {
                    self.weigh(key, units);
                    let (Key::Packet(id) | Key::Error { about: id, .. }) = key;
                    *self.doubled.entry(id).or_default() += 1;
                }
                let time = self.now + self.random.u64(delay.clone());
                self.at(time, Event::Arrive { segment, frame: frame.clone() });
            }
        }
        // A delay of its own for each frame is what reorders them.
        let time = self.now + self.random.u64(delay);
        self.at(time, Event::Arrive { segment, frame });
    }

    pub(super) fn arrive(&mut self, on: usize, frame: &[u8]) -> Step {
        let to: [u8; 6] = *frame.first_chunk().unwrap_or(&[0; 6]);
        let is_group = to[0] & 1 == 1;
        for router in 0..ROUTERS {
            for interface in 0..interfaces(router) {
                let mac = router_mac(router, interface);
                if segment(router, interface) == on && (mac == to || is_group) {
                    return self.arrive_at_router(router, interface, frame);
                }
            }
        }
        let station = (0..STATIONS)
            .find(|&station| station_segment(station) == on && self.stations[station].mac == to);
        let known = self.on_link(frame);
        let (key, units) = (known.map(|(key, _)| key), known.map_or(0, |(_, units)| units));
        match station {
            Some(station) if self.stations[station].is_silent => {
                self.lose(key, units, "lost: a silent station");
                Ok(())
            }
            Some(station) => self.deliver(frame, ETHERNET_LEN, Place::Station(station)),
            None => {
                self.lose(key, units, "lost: nobody has its MAC address");
                Ok(())
            }
        }
    }

    pub(super) fn arrive_at_router(
        &mut self,
        router: usize,
        interface: usize,
        frame: &[u8],
    ) -> Step {
        let Self { routers, traffic, .. } = self;
        let at = &mut routers[router];
        let piece = identify(frame, ETHERNET_LEN, Way::In, router, &at.own, traffic);
        let key = piece.map(|piece| piece.key);
        let units = piece.map_or(0, |piece| piece.units());
        if !at.is_up {
            self.lose(key, units, "lost: a stopped router");
            return Ok(());
        }
        // What a NIC hashes is not symmetric: addresses and what stands where ports do.
        let hash = frame
            .iter()
            .skip(ETHERNET_LEN + 12)
            .take(12)
            .fold(at.salt, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        let worker = (hash >> 8) as usize % at.machine.workers.len();
        let id = InterfaceId(interface as u8);
        if at.machine.push_rx(worker, id, frame) {
            at.account.arrive(piece.as_ref());
            self.due(router, worker);
        } else {
            let is_down = !at.machine.workers[worker].queues()[interface].link_up();
            let why = if is_down { "lost: a link that is down" } else { "lost: no chunk to fill" };
            self.lose(key, units, why);
        }
        Ok(())
    }
}
