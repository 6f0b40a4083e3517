//! [`LastGood`]: the generation before, which judges while a plugin cannot.
//!
//! Its instance was made when the plugin was loaded, so that it takes over within the batch whose call
//! trapped. Its drops and guest's counters are counted under the plugin's name; packets and calls are
//! counted once, by the plugin that should have judged them.
//!
//! Absent: new instances of it. A last-good generation that traps is gone until the plugin is loaded anew.

use std::sync::Arc;

use crate::{
    chain::{Failure, Terms},
    counters::GenerationCounters,
    instance::Instance,
};

/// The generation before, in one worker.
pub(crate) struct LastGood {
    pub(crate) terms: Terms,
    pub(crate) instance: Option<Box<Instance>>,
    pub(crate) counters: Arc<GenerationCounters>,
    /// What it ended with, until the worker gives it up after the batch.
    pub(crate) failed: Option<Failure>,
}
