//! Turns of routers, what comes out of them, and the configurations that they take.

use config::Checked;
use frame::{Nanos, Verdict};
use sim::MemoryQueue;
use wire::InterfaceId;

use super::{Engine, Event, MICRO, MILLI, Place, SECOND, Step, TICK_NANOS};
use crate::frames::{self, ETHERNET_LEN, Layer};
use crate::model::{Holder, Model, NAMES, ROUTERS, interfaces, segment};
use crate::simulation::accounts::{Key, Lane, Way, check_sound, identify};
use crate::simulation::{Property, Sabotage, Violation};

impl Engine<'_> {
    pub(super) fn due(&mut self, router: usize, worker: usize) {
        if !std::mem::replace(&mut self.routers[router].is_due[worker], true) {
            self.soon(300 * MICRO, Event::Turn { router, worker });
        }
    }

    pub(super) fn tick(&mut self, router: usize) -> Step {
        if self.routers[router].is_up {
            for worker in 0..self.routers[router].machine.workers.len() {
                self.turn(router, worker)?;
            }
            self.routers[router].machine.tidy();
        }
        if !self.is_over {
            self.at(self.now + TICK_NANOS, Event::Tick { router });
        }
        Ok(())
    }

    pub(super) fn turn(&mut self, router: usize, worker: usize) -> Step {
        let now = Nanos(self.now);
        let at = &mut self.routers[router];
        at.is_due[worker] = false;
        if !at.is_up {
            return Ok(());
        }
        let frames = at.machine.turn(worker, now);
        if router == 1 && worker == 0 && frames > 0 && self.now > SECOND {
            self.cheat();
        }
        self.take_records(router, worker)?;
        for interface in 0..interfaces(router) {
            let id = InterfaceId(interface as u8);
            while let Some(frame) = self.routers[router].machine.take_sent(worker, id) {
                let frames = match self.options.sabotage {
                    Some(sabotage) if router > 0 => sabotage.apply(router, frame, &mut self.random),
                    _ => vec![frame],
                };
                for frame in frames {
                    self.leave(router, interface, frame)?;
                }
            }
        }
        while let Some(packet) = self.routers[router].machine.take_punted(worker) {
            self.punt(router, &packet)?;
        }
        if frames > 0 {
            self.due(router, worker);
        }
        for other in 0..self.routers[router].machine.workers.len() {
            if self.routers[router].machine.is_rung(other) {
                self.due(router, other);
            }
        }
        while let Ok((interface, address)) = self.routers[router].machine.wanted.try_recv() {
            self.count("neighbors asked for");
            self.seek(router, interface.index(), address);
        }
        self.routers[router].machine.check().map_err(|what| {
            let property =
                if what.contains("chunks") { Property::Chunks } else { Property::Accounting };
            self.wrong_with((property, what), router)
        })
    }

    /// Faults of the simulation's own that no frame shows.
    pub(super) fn cheat(&mut self) {
        let worker = &mut self.routers[1].machine.workers[0];
        match self.options.sabotage {
            Some(Sabotage::Counter) => worker.counters().interfaces[0].rx_packets.add(1),
            Some(Sabotage::Chunks) => {
                // A queue that is gone has taken its chunks with it.
                worker.queues_mut()[0] = MemoryQueue::new(InterfaceId(0));
            }
            _ => {}
        }
    }

    /// What the router says of the frames that went no further.
    pub(super) fn take_records(&mut self, router: usize, worker: usize) -> Step {
        let records = self.routers[router].machine.workers[worker].take_records();
        for record in records {
            let Self { routers, traffic, .. } = self;
            let at = &mut routers[router];
            let piece = identify(&record.received, ETHERNET_LEN, Way::In, router, &at.own, traffic);
            let (reason, why) = match record.verdict {
                Verdict::Drop(reason) => {
                    (Some(reason), format!("dropped at {}: {}", NAMES[router], reason.label()))
                }
                Verdict::Consumed => (None, format!("used up at {}", NAMES[router])),
                Verdict::Wait => {
                    at.account.wait(piece.as_ref());
                    continue;
                }
                _ => continue,
            };
            let ended = at.account.end(piece.as_ref(), reason);
            let cut_short = ended.map_err(|wrong| self.wrong_with(wrong, router))?;
            let units = piece.map_or(0, |piece| piece.units());
            self.lose(piece.map(|piece| piece.key), units - cut_short, &why);
            if let Some(reason) = reason {
                self.count(&format!("drop {}", reason.label()));
            }
        }
        Ok(())
    }

    /// A router sent a frame.
    pub(super) fn leave(&mut self, router: usize, interface: usize, frame: Vec<u8>) -> Step {
        check_sound(&frame).map_err(|wrong| self.wrong_with(wrong, router))?;
        let Self { routers, traffic, .. } = self;
        let at = &mut routers[router];
        at.account.sent += 1;
        let Some(piece) = identify(&frame, ETHERNET_LEN, Way::Out, router, &at.own, traffic) else {
            let what = format!("a frame leaves, and nobody can tell what it is: {frame:02x?}");
            return Err(self.wrong_with((Property::OneForOne, what), router));
        };
        let is_own = matches!(piece.key, Key::Error { from, .. } if at.own.contains(&from));
        if is_own && !at.account.may_have_come(&piece, true) {
            at.account.originated += 1;
            self.check_complaint(&frame, ETHERNET_LEN, router)?;
            self.weigh(piece.key, piece.units());
            self.count("ICMP errors made");
        } else {
            let departed = at.account.depart(&piece, true);
            let cut_short = departed.map_err(|wrong| self.wrong_with(wrong, router))?;
            self.weigh(piece.key, cut_short);
        }
        match piece.lane {
            Lane::Plain => self.count("forwarded"),
            Lane::Site => self.count("site hops"),
            Lane::Node => self.count("node hops"),
        }
        self.transmit(segment(router, interface), frame);
        Ok(())
    }

    /// RFC 1812 section 4.3.2.7 and RFC 4443 section 2.4 (e): never about an error. A router within a tunnel
    /// does not see that there is one.
    pub(super) fn check_complaint(&self, frame: &[u8], start: usize, router: usize) -> Step {
        let outer = Layer::read(frame, start);
        let last = outer.and_then(|outer| frames::innermost(frame, &outer));
        if last.is_some_and(|last| last.quotes_icmp_error(frame)) {
            let what = format!("an error about an error: {frame:02x?}");
            return Err(self.wrong_with((Property::Admission, what), router));
        }
        Ok(())
    }

    /// A router gave a packet to its kernel.
    pub(super) fn punt(&mut self, router: usize, packet: &[u8]) -> Step {
        let Self { routers, traffic, .. } = self;
        let at = &mut routers[router];
        let Some(piece) = identify(packet, 0, Way::In, router, &at.own, traffic) else {
            let what = format!("nobody can tell what goes to the kernel: {packet:02x?}");
            return Err(self.wrong_with((Property::OneForOne, what), router));
        };
        // A tunnel of a kind that this node has no more, or not yet, is the kernel's affair.
        let is_in_tunnel =
            Layer::read(packet, 0).is_some_and(|layer| layer.inner(packet).is_some());
        if is_in_tunnel {
            at.account.to_kernel += 1;
            let ended = at.account.end(Some(&piece), None);
            let cut_short = ended.map_err(|wrong| self.wrong_with(wrong, router))?;
            self.lose(
                Some(piece.key),
                piece.units() - cut_short,
                "to a kernel in a tunnel of another kind",
            );
            return Ok(());
        }
        let is_own = matches!(piece.key, Key::Error { from, .. } if at.own.contains(&from));
        if is_own && !at.account.may_have_come(&piece, false) {
            // Made here, about what an owner on this machine sent.
            at.account.originated_to_kernel += 1;
            self.check_complaint(packet, 0, router)?;
            self.weigh(piece.key, piece.units());
            self.count("ICMP errors made");
        } else {
            at.account.to_kernel += 1;
            let departed = at.account.depart(&piece, false);
            let cut_short = departed.map_err(|wrong| self.wrong_with(wrong, router))?;
            self.weigh(piece.key, cut_short);
        }
        self.deliver(packet, 0, Place::Kernel(router))
    }

    pub(super) fn configuration(
        &mut self,
        router: usize,
        version: usize,
    ) -> Result<Checked, Violation> {
        let mut model = &self.models[version];
        let mut rotated = model.clone();
        if router == 2 && self.options.sabotage == Some(Sabotage::Slices) {
            for shared in &mut rotated.shared {
                let holders: Vec<Holder> = shared.slices.iter().map(|slice| slice.holder).collect();
                for (slice, other) in shared.slices.iter_mut().zip(holders.iter().cycle().skip(3)) {
                    slice.holder = *other;
                }
            }
            model = &rotated;
        }
        let text = model.toml(router, &self.mtus, self.options.plugin.as_deref());
        Checked::parse(&text, format!("{}.toml", NAMES[router]))
            .map_err(|error| self.wrong(Property::Configuration, format!("{error}\n{text}")))
    }

    pub(super) fn put_into_force(&mut self, model: Model) {
        let version = self.models.len();
        for router in 0..ROUTERS {
            if model.is_present[router] {
                self.soon(200 * MILLI, Event::Reload { router, version });
            } else {
                let delay = self.random.u64(200 * MILLI..600 * MILLI);
                self.at(self.now + delay, Event::Stop { router });
            }
        }
        self.models.push(model);
    }

    pub(super) fn reload(&mut self, router: usize, version: usize) -> Step {
        let before = self.routers[router].timeline.last().map_or(0, |&(_, version)| version);
        if version <= before {
            return Ok(());
        }
        let config = self.configuration(router, version)?;
        self.note(format_args!("{} takes configuration {version}", NAMES[router]));
        self.count("configurations put into force");
        let at = &mut self.routers[router];
        let result = at.machine.reload(config);
        at.timeline.push((self.now, version));
        at.is_up = true;
        result.map_err(|error| self.wrong(Property::Configuration, error.to_string()))?;
        self.seek_required(router);
        Ok(())
    }
}
