//! What a search needs of a tester: one run at one rate.

use std::time::Duration;

use crate::document::Trial;
use crate::error::LoadError;

/// Something that offers traffic to a device under test and counts what comes back.
pub trait Tester {
    /// Offers `rate_pps` packets per second in total for `duration`, waits for stragglers and
    /// returns what came of it. `None` offers as much as the generator can.
    ///
    /// # Errors
    /// The run did not take place or ended early (a link that went down, a signal): no figure of it
    /// is usable. A run that took place but says nothing about the device under test is no error:
    /// its [`Trial::void`] says why.
    fn trial(&mut self, rate_pps: Option<f64>, duration: Duration) -> Result<Trial, LoadError>;
}
