//! How candidates begin: with the state of the plugin that they stand beside, or without it, and why.
//!
//! ```text
//!   the plugin that runs --sluice_export--> state --sluice_import--> candidate      in each worker, once,
//!            |                                                                      between two turns
//!            `--> goes on as it was
//! ```
//!
//! The two calls are those of a reload, each with the budget of a batch. What differs is that the plugin
//! which hands its state over goes on judging with it; if its export traps, it is replaced as after any trap.

use serde::Serialize;

use crate::{
    Manifest, candidate::ComparedCounters, generation::Loaded, instance::HandOver, trial::Trial,
};

/// How a candidate began in a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// It did not yet: the worker has not taken it over.
    #[default]
    Due,
    /// With the state of the plugin that runs.
    WithState,
    /// Without, because the manifest of one of the two has no `state`.
    Unkept,
    /// Without, because the plugin that runs had none to hand over.
    Nothing,
    /// Without, because it does not take the schema.
    OtherSchema,
    /// Without, because it has no room for so much.
    TooLong,
    /// Without, because its import refused it.
    Refused,
    /// Without, because the worker had no instance of the plugin that runs.
    NoInstance,
    /// Without, because the export of the plugin that runs trapped.
    ExportTrapped,
    /// Not at all: its import trapped, and the worker does not ask it.
    ImportTrapped,
}

impl Start {
    /// All of them; the first is what a counter of 0 stands for.
    const ALL: [Self; 10] = [
        Self::Due,
        Self::WithState,
        Self::Unkept,
        Self::Nothing,
        Self::OtherSchema,
        Self::TooLong,
        Self::Refused,
        Self::NoInstance,
        Self::ExportTrapped,
        Self::ImportTrapped,
    ];

    /// What a hand-over made of it.
    pub(crate) fn of(outcome: &HandOver) -> Self {
        match outcome {
            HandOver::Unkept => Self::Unkept,
            HandOver::Nothing => Self::Nothing,
            HandOver::Taken => Self::WithState,
            HandOver::OtherSchema => Self::OtherSchema,
            HandOver::TooLong => Self::TooLong,
            HandOver::Refused => Self::Refused,
            HandOver::ExportFailed(_) => Self::ExportTrapped,
            HandOver::ImportFailed(_) => Self::ImportTrapped,
        }
    }

    /// As a worker's counter holds it.
    pub(crate) fn number(self) -> u64 {
        Self::ALL.iter().zip(0..).find(|(start, _)| **start == self).map_or(0, |(_, at)| at)
    }

    fn from_number(number: u64) -> Self {
        let at = usize::try_from(number).ok();
        at.and_then(|at| Self::ALL.get(at)).copied().unwrap_or_default()
    }

    fn why(self, running: &Manifest, candidate: &Manifest) -> String {
        match self {
            Self::Due => "not yet: the worker has not taken it over".to_owned(),
            Self::WithState => {
                let schema = running.state.as_ref().map_or(0, |state| state.schema);
                format!("with the state of the plugin that runs, schema {schema}")
            }
            Self::Unkept if running.state.is_none() => {
                "without state: the manifest of the plugin that runs has none".to_owned()
            }
            Self::Unkept => "without state: the candidate's manifest has none".to_owned(),
            Self::Nothing => "without state: the plugin that runs had none to hand over".to_owned(),
            Self::OtherSchema => {
                let (from, to) = (running.state.as_ref(), candidate.state.as_ref());
                let takes =
                    to.into_iter().flat_map(|to| [to.schema].into_iter().chain(to.takes.clone()));
                let takes: Vec<_> = takes.map(|schema| schema.to_string()).collect();
                format!(
                    "without state: that of the plugin that runs has schema {}, and the candidate takes {}",
                    from.map_or(0, |from| from.schema),
                    takes.join(", ")
                )
            }
            Self::TooLong => "without state: it is longer than `state.bytes_max`".to_owned(),
            Self::Refused => "without state: the candidate's import refused it".to_owned(),
            Self::NoInstance => {
                "without state: the worker had no instance of the plugin that runs".to_owned()
            }
            Self::ExportTrapped => {
                "without state: the export of the plugin that runs trapped".to_owned()
            }
            Self::ImportTrapped => "not at all: its import trapped".to_owned(),
        }
    }
}

/// How a candidate began in one worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CandidateStart {
    /// The worker.
    pub worker: usize,
    /// How it began there.
    pub start: Start,
    /// The same for a person, with the reason.
    pub text: String,
}

impl Trial {
    /// How the candidate began beside the plugin that runs, for each worker.
    pub(crate) fn starts(&self, running: &Loaded) -> Vec<CandidateStart> {
        let manifests = (&running.module.manifest, &self.loaded.module.manifest);
        let start = |(worker, counters): (usize, &ComparedCounters)| {
            let start = Start::from_number(counters.start.get());
            CandidateStart { worker, start, text: start.why(manifests.0, manifests.1) }
        };
        self.compared.workers.iter().map(|it| &**it).enumerate().map(start).collect()
    }
}
