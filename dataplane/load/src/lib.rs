//! The tester: a traffic generator and a sink for two interfaces, a search for the highest rate
//! without loss, and the report of what was measured.
//!
//! ```text
//!   profile -> images, order --> generator --- frames ---> device under test
//!                                                              |
//!   trial <- ledger, histogram <---- sink <---- frames --------+
//!     |
//!   search (many trials) -> document (JSON) -> report (HTML, Markdown)
//! ```
//!
//! Every packet carries a tag: sequence, time and a keyed check, so that loss, order, duplicates and
//! latency follow from what arrived alone, and foreign packets are refused.
#![forbid(unsafe_code)]

pub mod clock;
pub mod document;
pub mod error;
mod layout;
pub mod machine;
pub mod neighbor;
pub mod profile;
pub mod rate;
pub mod report;
pub mod rig;
pub mod search;
pub mod source;
pub mod tag;
pub mod tester;
pub mod void;

pub use error::LoadError;
pub use rig::{Engine, Rig, RigPlan, SinkKind};
pub use source::Source;
pub use tester::Tester;
