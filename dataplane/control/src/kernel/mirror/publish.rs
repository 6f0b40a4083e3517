//! Telling the consumer: links and neighbors at once, addresses and routes gathered, nothing that
//! waits for room.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::super::model::{Addresses, KernelEvent, NeighborChange};
use super::super::{CHANGES_MAX, COALESCE_MS};
use super::Mirror;

/// Events of routes that are made in one go, before news gets its turn.
const CHANGES_AT_ONCE: usize = 8;

/// The consumer has gone.
pub(super) struct Deserted;

impl Mirror<'_> {
    /// Tells what is due. What finds no room stays coalesced and is tried again later.
    pub(super) fn publish(&mut self) -> Result<(), Deserted> {
        self.tell_links()?;
        self.tell_neighbors()?;
        if self.due || self.ended.is_some() {
            self.due = false;
            self.tell_addresses()?;
            self.tell_routes()?;
            if let Some(cause) = self.ended
                && !self.is_dirty()
                && !self.events.is_full()
            {
                self.tell(KernelEvent::Synchronized(cause))?;
                self.ended = None;
            }
        }
        if self.publish_at.is_none() && (self.is_dirty() || self.ended.is_some()) {
            // With room left this is work that was put off for others' sake: go on at once.
            let pause =
                if self.ended.is_some() && !self.events.is_full() { 0 } else { COALESCE_MS };
            self.publish_at = Some(Instant::now() + Duration::from_millis(pause));
        }
        Ok(())
    }

    fn is_dirty(&self) -> bool {
        self.links_dirty
            || self.addresses_dirty
            || !self.neighbors_dirty.is_empty()
            || self.tables.is_dirty()
    }

    /// Sends an event, for which there must be room.
    fn tell(&self, event: KernelEvent) -> Result<(), Deserted> {
        self.events.try_send(event).map_err(|_| Deserted)
    }

    fn tell_links(&mut self) -> Result<(), Deserted> {
        if self.links_dirty && !self.events.is_full() {
            let links: BTreeMap<_, _> =
                self.links.iter().map(|(_, link)| (link.name.clone(), link.clone())).collect();
            self.tell(KernelEvent::Links(Arc::new(links)))?;
            self.links_dirty = false;
        }
        Ok(())
    }

    fn tell_neighbors(&mut self) -> Result<(), Deserted> {
        while !self.events.is_full()
            && let Some(key) = self.neighbors_dirty.pop_first()
        {
            let (ifindex, address) = key;
            let neighbor = self.neighbors.get(&key).copied().filter(|_| self.owns(ifindex));
            let news = if neighbor.is_some() {
                self.neighbors_told.insert(key);
                true
            } else {
                self.neighbors_told.remove(&key)
            };
            if news {
                self.tell(KernelEvent::Neighbor(NeighborChange { ifindex, address, neighbor }))?;
            }
        }
        Ok(())
    }

    fn tell_addresses(&mut self) -> Result<(), Deserted> {
        if self.addresses_dirty && !self.events.is_full() {
            let mut addresses: Vec<_> =
                self.addresses.iter().map(|(_, address)| *address).collect();
            addresses.sort_unstable();
            let mut locals = BTreeMap::new();
            for (&(prefix, kind, ..), ()) in self.locals.iter() {
                let told = locals.entry(prefix).or_insert(kind);
                *told = kind.min(*told);
            }
            self.tell(KernelEvent::Addresses(Arc::new(Addresses { addresses, locals })))?;
            self.addresses_dirty = false;
        }
        Ok(())
    }

    /// A bounded part at a time, so that news is read in between.
    fn tell_routes(&mut self) -> Result<(), Deserted> {
        self.tables.settle();
        for _ in 0..CHANGES_AT_ONCE {
            if !self.tables.is_dirty() || self.events.is_full() {
                break;
            }
            let (changes, since) = self.tables.take_changes(CHANGES_MAX);
            if !changes.is_empty() {
                // Before the event: whoever has it may ask for the counts.
                self.count_routes();
                self.tell(KernelEvent::Routes { changes, since })?;
            }
        }
        self.count_routes();
        Ok(())
    }

    fn count_routes(&self) {
        let (v4, v6) = (&self.tables.v4, &self.tables.v6);
        self.counters.routes_v4.store(v4.told, Relaxed);
        self.counters.routes_v6.store(v6.told, Relaxed);
        self.counters.routes_unexpressible.store(v4.unexpressible + v6.unexpressible, Relaxed);
    }
}
