//! The FIBs of both families, kept in step with the RIB.
//!
//! IPv4 changes in place, prefix by prefix, beside all snapshots. A route to an adjacency that some worker
//! does not know yet waits until all have a snapshot with it. IPv6 is built anew when something changed, and
//! goes with a snapshot, so that nothing of it has to wait.

use std::sync::Arc;

use tables::{Fib4, Fib4Writer, Fib6, FibError, Publisher};

use super::PublicationError;
use super::rib::Rib;

/// Look-up tables that workers read.
#[derive(Debug)]
pub(super) struct Fibs {
    v4: Fib4Writer,
    pub(super) v6: Arc<Fib6>,
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
        };
        rib.settle_all4();
        rib.settle_all6();
        Ok(fibs)
    }

    pub(super) fn v4(&self) -> Arc<Fib4> {
        self.v4.table()
    }

    /// Follows the changes of IPv6, whose table has to be published then.
    ///
    /// # Errors
    /// [`PublicationError::Fib`]; the table stays as it was, and the RIB remembers what has changed.
    pub(super) fn follow6(&mut self, rib: &mut Rib) -> Result<(), PublicationError> {
        if rib.has_changes6() {
            self.v6 = Arc::new(Fib6::build(rib.routes6())?);
            rib.settle_all6();
        }
        Ok(())
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
        for (prefix, route) in told {
            match self.v4.insert(prefix, route) {
                Ok(()) => rib.settle4(prefix),
                Err(FibError::TooManyGroups { .. }) => {
                    self.v4.reclaim(publisher);
                    if self.v4.insert(prefix, route).is_ok() {
                        rib.settle4(prefix);
                        continue;
                    }
                    // Packed anew there may be room.
                    self.v4 = Fib4Writer::build(rib.routes4())?;
                    rib.settle_all4();
                    return Ok(true);
                }
                Err(error) => return Err(error.into()),
            }
        }
        for prefix in gone {
            self.v4.remove(prefix, rib.parent4(prefix))?;
            rib.settle4(prefix);
        }
        self.v4.reclaim(publisher);
        Ok(false)
    }
}
