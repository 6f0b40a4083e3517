//! The end of a run: faults end, every flow is tried, and the books are closed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use frame::DropReason;
use sim::Faults;

use super::{
    Engine, Event, MILLI, Place, ROUTERS, SECOND, STATIONS, Step, TAIL_NANOS, TICK_NANOS, describe,
    holder_place,
};
use crate::model::Holder;
use crate::simulation::Property;
use crate::simulation::traffic::{self, Target};

impl Engine<'_> {
    pub(super) fn calm(&mut self) {
        self.note(format_args!("faults end"));
        self.is_calm = true;
        for station in 0..STATIONS {
            self.stations[station].is_silent = false;
        }
        for router in &mut self.routers {
            router.is_up = true;
            for worker in &mut router.machine.workers {
                for queue in worker.queues_mut() {
                    queue.set_link(true);
                    queue.set_faults(Faults::default());
                }
            }
        }
        let mut model = self.model().clone();
        model.settle();
        self.put_into_force(model);
        // Kernels look again after those that they gave up.
        for router in 0..ROUTERS {
            let known: BTreeSet<(usize, IpAddr)> = self.routers[router]
                .machine
                .host
                .neighbors
                .keys()
                .map(|(interface, address)| (interface.index(), *address))
                .collect();
            for (interface, address) in known {
                self.soon(SECOND, Event::Resolve { router, interface, address });
            }
        }
    }

    pub(super) fn try_flows(&mut self) {
        self.note(format_args!("every flow is tried"));
        let flows = traffic::every_flow(&self.models[self.models.len() - 1], &mut self.random);
        let begin = self.now;
        for (position, (draft, holder)) in (0_u64..).zip(flows) {
            self.now = begin + position * MILLI;
            let id = self.dispatch(draft);
            self.count("flows tried");
            self.expected.push((id, holder));
        }
        self.is_over = true;
        for step in 0..TAIL_NANOS / TICK_NANOS {
            for router in 0..ROUTERS {
                self.at(self.now + step * TICK_NANOS, Event::Tick { router });
            }
        }
        self.now = begin;
    }

    pub(super) fn close(&mut self) -> Step {
        for router in 0..ROUTERS {
            self.close_router(router)?;
        }
        let left = self.balance.iter().filter(|(_, units)| **units != 0).min();
        if let Some((key, units)) = left {
            let what = format!("{units} units of {key:?} are in no account");
            return Err(self.wrong(Property::Reason, what));
        }
        let expected = std::mem::take(&mut self.expected);
        expected.into_iter().try_for_each(|(id, holder)| self.check_flow(id, holder))
    }

    /// A flow got through, once and whole, to whom it was for.
    pub(super) fn check_flow(&self, id: u32, holder: Option<Holder>) -> Step {
        let sent = &self.traffic.sent[id as usize];
        let place = match (sent.target, holder) {
            (_, Some(holder)) => holder_place(holder),
            (Target::Station(station), _) => Some(Place::Station(station)),
            (Target::Router(router), _) => Some(Place::Kernel(router)),
            (Target::Slice { .. }, None) => None,
        };
        let counts = self.delivered.get(&id);
        let places = self.places.get(&id).map_or(&[][..], |places| places);
        let is_right = match place {
            Some(place) => {
                counts.is_some_and(|counts| counts.iter().all(|&count| count == 1))
                    && places.iter().all(|&came| came == place)
            }
            None => places.is_empty(),
        };
        if is_right {
            return Ok(());
        }
        let fate = self.fates.get(&id).map_or_else(String::new, |fates| fates.join(", "));
        let what = format!(
            "packet {id} ({}) is for {place:?}, and reaches {places:?}; {fate}",
            describe(sent)
        );
        Err(self.wrong(Property::Liveness, what))
    }

    pub(super) fn close_router(&mut self, router: usize) -> Step {
        let at = &self.routers[router];
        let mut drops: BTreeMap<DropReason, u64> = BTreeMap::new();
        let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
        for worker in &at.machine.workers {
            for interface in &worker.counters().interfaces {
                for (name, counter) in interface.named() {
                    *sums.entry(name).or_default() += counter.get();
                }
                for (reason, counter) in DropReason::ALL.iter().zip(&interface.drops) {
                    *drops.entry(*reason).or_default() += counter.get();
                }
            }
        }
        let sum = |name: &str| sums.get(name).copied().unwrap_or(0);
        let expected = [
            ("rx_packets", at.account.received),
            ("tx_packets", at.account.sent),
            ("originated", at.account.originated),
            ("originated_to_kernel", at.account.originated_to_kernel),
            ("to_kernel", at.account.to_kernel),
            ("held", 0),
            ("taken_over", sum("handed_over")),
            (
                "forwarded",
                (at.account.sent + sum("fragmented"))
                    .saturating_sub(sum("fragments_created") + at.account.originated),
            ),
        ];
        for (name, expected) in expected {
            // Fragments of a packet that then found the ring full were sent, and the packet is a drop.
            let is_cut_short = name == "forwarded"
                && sum("fragmented") > 0
                && drops.get(&DropReason::TransmitFull).is_some_and(|&count| count > 0);
            if sum(name) != expected && !is_cut_short {
                let what = format!("{name} is {}, and {expected} happened", sum(name));
                return Err(self.wrong_with((Property::Accounting, what), router));
            }
        }
        let handed = sum("handed_over");
        let left = at.account.close(&drops).map_err(|wrong| self.wrong_with(wrong, router))?;
        *self.report.counts.entry("handed over".to_owned()).or_default() += handed;
        for (key, units) in left {
            self.weigh(key, -units);
        }
        Ok(())
    }
}
