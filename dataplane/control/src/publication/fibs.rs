//! The FIBs of both families, kept in step with the RIB.
//!
//! IPv4 changes in place, prefix by prefix, beside all snapshots. A route to an adjacency that some worker
//! does not know yet waits until all have a snapshot with it. IPv6 goes with a snapshot, so that nothing of it
//! has to wait: a few hosts or networks of /64 and longer that changed are patched in at once, and the table
//! is built anew some time later; any other change has it built anew.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tables::{Fib4, Fib4Writer, Fib6, FibError, Publisher};

use super::PublicationError;
use super::rib::Rib;

/// Changes that are patched in together. A patch costs as much as all patches before it, and look-ups in a
/// patched table take longer; more than these are no news of single hosts but of a routing table.
const PATCHED_AT_ONCE_MAX: usize = 256;
/// Patches that a table may have: with more, it is built anew at once.
const PATCHES_MAX: usize = 4096;
/// Changes of IPv4 after which what they took out is made available again, so that a change of all routes
/// needs little more room than the routes.
const CHANGES_PER_RECLAIM: usize = 4096;
/// How long a table stays patched. Shorter has it built anew for each host that appears, longer lets packets
/// pay for two look-ups.
const PATCHED_FOR: Duration = Duration::from_millis(500);

/// Look-up tables that workers read.
#[derive(Debug)]
pub(super) struct Fibs {
    v4: Fib4Writer,
    pub(super) v6: Arc<Fib6>,
    /// When the table that has patches was patched first.
    patched_since: Option<Instant>,
    is_rebuild_due: bool,
}

impl Fibs {
    /// Tables of all routes, to be published with a snapshot that has all adjacencies.
    ///
    /// # Errors
    /// [`PublicationError::Fib`].
    pub(super) fn build(rib: &mut Rib) -> Result<Self, PublicationError> {
        let fibs = Self {
            v4: Fib4Writer::build(rib.routes4())?,
            v6: Arc::new(Fib6::build(rib.routes6())?),
            patched_since: None,
            is_rebuild_due: false,
        };
        rib.fibs_built();
        Ok(fibs)
    }

    pub(super) fn v4(&self) -> Arc<Fib4> {
        self.v4.table()
    }

    /// True if the IPv6 table has been patched for so long that it is to be built anew, which the next
    /// publication does.
    pub(super) fn tick(&mut self, now: Instant) -> bool {
        let is_old = |since| now.saturating_duration_since(since) >= PATCHED_FOR;
        self.is_rebuild_due = self.patched_since.is_some_and(is_old);
        self.is_rebuild_due
    }

    /// Follows the changes of IPv6, whose table has to be published then.
    ///
    /// # Errors
    /// [`PublicationError::Fib`]; the table stays as it was, and the RIB remembers what has changed.
    pub(super) fn follow6(&mut self, rib: &mut Rib, now: Instant) -> Result<(), PublicationError> {
        if !rib.has_changes6() && !self.is_rebuild_due {
            return Ok(());
        }
        let room = PATCHES_MAX.saturating_sub(self.v6.patches()).min(PATCHED_AT_ONCE_MAX);
        let changes = if self.is_rebuild_due { None } else { rib.due6(room) };
        if let Some(changes) = changes {
            self.v6 = Arc::new(self.v6.patched(&changes)?);
            self.patched_since.get_or_insert(now);
        } else {
            let built = match rib.changes6() {
                Some(changes) => self.v6.rebuilt(changes),
                None => Fib6::build(rib.routes6()),
            };
            self.v6 = Arc::new(built?);
            (self.patched_since, self.is_rebuild_due) = (None, false);
        }
        rib.settle_all6();
        Ok(())
    }

    /// Bytes that look-ups read, of each family.
    pub(super) fn bytes(&self) -> [usize; 2] {
        [self.v4.table().bytes(), self.v6.bytes()]
    }

    /// Follows the changes of IPv4 in place, as far as all workers know what they lead to. True if the
    /// table had to be built anew, and has to be published.
    ///
    /// # Errors
    /// [`PublicationError::Fib`]; the RIB remembers what is not in the table.
    pub(super) fn follow4(
        &mut self,
        rib: &mut Rib,
        publisher: &mut Publisher,
    ) -> Result<bool, PublicationError> {
        // What is new before what goes, so that a prefix that gives way finds the one around it.
        let (told, gone) = rib.due4();
        for (n, (prefix, route)) in told.into_iter().enumerate() {
            if !self.change4(publisher, n, |table| table.insert(prefix, route))? {
                return self.build4(rib);
            }
            rib.settle4(prefix);
        }
        for (n, prefix) in gone.into_iter().enumerate() {
            let parent = rib.parent4(prefix);
            if !self.change4(publisher, n, |table| table.remove(prefix, parent))? {
                return self.build4(rib);
            }
            rib.settle4(prefix);
        }
        self.v4.reclaim(publisher);
        Ok(false)
    }

    /// One change of many, the n-th. False if there is no room for it, but may be in a table built anew.
    fn change4(
        &mut self,
        publisher: &mut Publisher,
        n: usize,
        change: impl Fn(&mut Fib4Writer) -> Result<(), FibError>,
    ) -> Result<bool, PublicationError> {
        if n % CHANGES_PER_RECLAIM == CHANGES_PER_RECLAIM - 1 {
            self.v4.reclaim(publisher);
        }
        match change(&mut self.v4) {
            Err(FibError::Fib4Full { .. }) => {
                self.v4.reclaim(publisher);
                match change(&mut self.v4) {
                    Err(FibError::Fib4Full { .. }) => Ok(false),
                    done => Ok(done.map(|()| true)?),
                }
            }
            done => Ok(done.map(|()| true)?),
        }
    }

    /// Packs all routes anew; true, as there is a table to be published.
    fn build4(&mut self, rib: &mut Rib) -> Result<bool, PublicationError> {
        self.v4 = Fib4Writer::build(rib.routes4())?;
        rib.settle_all4();
        Ok(true)
    }
}
