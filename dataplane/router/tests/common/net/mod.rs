//! Network namespaces, links between them, raw sockets and a running router: what tests against real
//! Linux are made of.
//!
//! Everything is removed when it is dropped, also while a panic unwinds. What a killed run left
//! behind is removed by the next one: names carry the number of the process that made them.

#![allow(dead_code, reason = "each test file is a program of its own, and not all need everything")]

mod namespace;
mod router;
mod tap;
#[allow(dead_code, reason = "few tests have links like these")]
pub(crate) mod two_links;

#[allow(unused_imports, reason = "some links have one queue, others more")]
pub(crate) use namespace::{Namespace, link, link_of_queues};
pub(crate) use router::Router;
#[allow(unused_imports, reason = "not every test looks at packets")]
pub(crate) use tap::{Captured, Tap};

use std::time::{Duration, Instant};

/// Whether network namespaces can be made here. If not, it says so on standard error.
pub(crate) fn available(test: &str) -> bool {
    let reason = if !nix::unistd::geteuid().is_root() {
        Some("this is not root".to_owned())
    } else {
        namespace::remove_leftovers();
        Namespace::try_new("probe").err()
    };
    match reason {
        Some(reason) => {
            eprintln!("skipped: {test}: {reason}");
            false
        }
        None => true,
    }
}

/// Waits until `condition` holds.
#[track_caller]
pub(crate) fn wait_until(what: &str, timeout: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + timeout;
    while !condition() {
        assert!(Instant::now() < deadline, "in vain waited {timeout:?} for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
