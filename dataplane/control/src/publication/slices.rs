//! The table of slices, kept in step with the configuration.
//!
//! Where a new configuration differs in nothing but who owns slices, owners change by single stores in the
//! table that workers read, and a look-up sees the one or the other. Any other change has it built anew and
//! published.

use std::sync::Arc;

use config::Checked;
use ipnet::IpNet;
use tables::{
    EgressBlock, Owner, Publisher, SliceId, SliceRange, SliceTable, SliceTableError, SliceWriter,
};

/// The table in force.
#[derive(Debug)]
pub(super) struct Slices {
    writer: SliceWriter,
    blocks: Vec<EgressBlock>,
}

/// What a new configuration has become of it.
#[derive(Debug)]
pub(super) enum PreparedSlices {
    /// Who owns what from then on, within which prefix.
    Owners(Vec<(IpNet, SliceId, Owner)>),
    /// Another table.
    Built(Slices),
}

impl Slices {
    /// # Errors
    /// [`SliceTableError`] when slices contradict each other.
    pub(super) fn build(config: &Checked) -> Result<Self, SliceTableError> {
        let blocks = config.slice_blocks();
        Ok(Self { writer: SliceWriter::build(blocks.clone())?, blocks })
    }

    pub(super) fn table(&self) -> Arc<SliceTable> {
        self.writer.table()
    }

    /// What `new` needs, where `old` is in force.
    ///
    /// # Errors
    /// As [`Slices::build`].
    pub(super) fn prepare(
        &self,
        old: &Checked,
        new: &Checked,
    ) -> Result<PreparedSlices, SliceTableError> {
        // Owners are positions in these lists.
        let means_the_same = old.nodes == new.nodes
            && old.sites == new.sites
            && old.owners == new.owners
            && old.local_node == new.local_node;
        let owners = if means_the_same { changes(&self.blocks, &new.slice_blocks()) } else { None };
        match owners {
            Some(owners) => Ok(PreparedSlices::Owners(owners)),
            None => Ok(PreparedSlices::Built(Self::build(new)?)),
        }
    }

    /// Puts it into force; `config` is what it was prepared for.
    ///
    /// # Errors
    /// [`SliceTableError`], when owners could not change in place nor the table be built; the owners that
    /// were not reached yet stay.
    pub(super) fn follow(
        &mut self,
        prepared: PreparedSlices,
        config: &Checked,
    ) -> Result<(), SliceTableError> {
        match prepared {
            PreparedSlices::Built(slices) => *self = slices,
            PreparedSlices::Owners(owners) => {
                for (within, slice, owner) in owners {
                    if self.writer.set_owner(within, slice, owner).is_err() {
                        // Hits that prefixes shared, and of which there is no room for copies.
                        *self = Self::build(config)?;
                        return Ok(());
                    }
                }
                self.blocks = config.slice_blocks();
            }
        }
        Ok(())
    }

    /// As [`SliceWriter::reclaim`].
    pub(super) fn reclaim(&mut self, publisher: &mut Publisher) {
        self.writer.reclaim(publisher);
    }
}

/// The slices whose owners differ; nothing if something else does too.
fn changes(old: &[EgressBlock], new: &[EgressBlock]) -> Option<Vec<(IpNet, SliceId, Owner)>> {
    let mut changes = Vec::new();
    if old.len() != new.len() {
        return None;
    }
    for (old, new) in old.iter().zip(new) {
        let prefix = new.prefix;
        let same = (old.prefix, old.rest, old.portless) == (new.prefix, new.rest, new.portless)
            && old.ranges.len() == new.ranges.len();
        if !same {
            return None;
        }
        for (old, &new) in old.ranges.iter().zip(&new.ranges) {
            if (SliceRange { owner: new.owner, ..*old }) != new {
                return None;
            }
            if old.owner != new.owner {
                changes.push((prefix, new.slice, new.owner));
            }
        }
    }
    Some(changes)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tables::NodeId;
    use wire::MacAddress;

    use super::*;
    use crate::publication::{HostView, InterfaceView, Publication};

    /// Two addresses that are shared alike, so that their hits are stored once; `b` owns the upper half of
    /// the first, or `c`.
    fn config(owner: &str, ports: &str) -> Arc<Checked> {
        let mut text = String::from("[router]\nnode = \"a\"\n");
        text += "[[interface]]\nname = \"out0\"\nrole = \"outside\"\n";
        for (node, last) in [("a", 1), ("b", 2), ("c", 3)] {
            text += &format!("[[node]]\nname = \"{node}\"\naddress = \"10.0.1.{last}\"\n");
        }
        for (address, owner) in [("192.0.2.1", owner), ("192.0.2.2", "b")] {
            text += &format!("[[egress]]\nprefix = \"{address}/32\"\ndefault = \"drop\"\n");
            text += "[[egress.slice]]\nports = \"1024-32767\"\nnode = \"b\"\n";
            text += &format!("[[egress.slice]]\nports = \"{ports}\"\nnode = \"{owner}\"\n");
        }
        Arc::new(Checked::parse(&text, "test.toml").unwrap())
    }

    fn host() -> HostView {
        let mut host = HostView::default();
        let mac = MacAddress([2, 0, 0, 0, 0, 1]);
        let addresses = vec!["10.0.1.1/24".parse().unwrap()];
        host.interfaces.push(InterfaceView { mac, mtu: 1500, addresses });
        host
    }

    fn change(publication: &mut Publication, host: &HostView, config: Arc<Checked>) {
        let prepared = publication.prepare(config, host).unwrap();
        publication.config_changed(prepared, host);
        publication.collect();
    }

    fn owner(table: &SliceTable, last: u32, port: u16) -> Owner {
        let egress = table.egress4(0xc000_0200 | last).expect("a shared address");
        table.lookup(egress, port).owner
    }

    /// While a slice goes back and forth, readers find one owner or the other in the table that they have
    /// had from the start, and what was not changed stays.
    #[test]
    fn owners_change_in_the_table_that_is_read() {
        let host = host();
        let mut publication = Publication::new(config("b", "32768-65535"), &host, 1).unwrap();
        let mut reader = publication.reader();
        let first = Arc::clone(&reader.snapshot().slices);
        let (b, c) = (Owner::Node(NodeId(1)), Owner::Node(NodeId(2)));
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let read = scope.spawn(|| {
                let (mut seen_b, mut seen_c) = (false, false);
                while !stop.load(Ordering::Relaxed) {
                    reader.refresh();
                    let table = &reader.snapshot().slices;
                    let found = owner(table, 1, 40_000);
                    assert!(found == b || found == c, "{found:?}");
                    (seen_b, seen_c) = (seen_b | (found == b), seen_c | (found == c));
                    assert_eq!((owner(table, 1, 2_000), owner(table, 2, 40_000)), (b, b));
                    assert_eq!(owner(table, 1, 80), Owner::DropByDefault);
                }
                reader.park();
                (seen_b, seen_c)
            });
            // Until the reader has had the time to see both.
            for round in 0..2_000 {
                let (name, owner_now) = if round % 2 == 0 { ("c", c) } else { ("b", b) };
                change(&mut publication, &host, config(name, "32768-65535"));
                assert_eq!(owner(&first, 1, 40_000), owner_now, "in place");
                assert_eq!(owner(&first, 2, 40_000), b);
            }
            stop.store(true, Ordering::Relaxed);
            assert_eq!(read.join().unwrap(), (true, true));
        });
        let now = publication.reader();
        assert!(Arc::ptr_eq(&first, &now.snapshot().slices), "the same table all along");
    }

    #[test]
    fn other_changes_build_the_table_anew() {
        let host = host();
        let mut publication = Publication::new(config("b", "32768-65535"), &host, 1).unwrap();
        let first = Arc::clone(&publication.reader().snapshot().slices);
        change(&mut publication, &host, config("b", "32768-65000"));
        let second = Arc::clone(&publication.reader().snapshot().slices);
        assert!(!Arc::ptr_eq(&first, &second));
        assert_eq!(owner(&second, 1, 65_001), Owner::DropByDefault);
        assert_eq!(owner(&first, 1, 65_001), Owner::Node(NodeId(1)), "whoever has it reads it on");
    }
}
