//! The FIBs of both families, kept in step with the RIB.

use std::sync::Arc;

use tables::{Fib4, Fib6};

use super::PublicationError;
use super::rib::Rib;

/// Look-up tables that workers read.
#[derive(Clone, Debug)]
pub(super) struct Fibs {
    pub(super) v4: Arc<Fib4>,
    pub(super) v6: Arc<Fib6>,
}

impl Fibs {
    /// Tables of all routes.
    ///
    /// # Errors
    /// [`PublicationError::Fib`].
    pub(super) fn build(rib: &mut Rib) -> Result<Self, PublicationError> {
        let fibs = Self {
            v4: Arc::new(Fib4::build(rib.routes4())?),
            v6: Arc::new(Fib6::build(rib.routes6())?),
        };
        rib.settle();
        Ok(fibs)
    }

    /// Follows all changes since the last time.
    ///
    /// # Errors
    /// [`PublicationError::Fib`]; the tables stay as they were, and the RIB remembers what has changed.
    pub(super) fn follow(&mut self, rib: &mut Rib) -> Result<(), PublicationError> {
        let v4 = (!rib.changed4().is_empty()).then(|| Fib4::build(rib.routes4())).transpose()?;
        let v6 = (!rib.changed6().is_empty()).then(|| Fib6::build(rib.routes6())).transpose()?;
        if let Some(v4) = v4 {
            self.v4 = Arc::new(v4);
        }
        if let Some(v6) = v6 {
            self.v6 = Arc::new(v6);
        }
        rib.settle();
        Ok(())
    }
}
