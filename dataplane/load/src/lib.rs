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

pub mod document;
