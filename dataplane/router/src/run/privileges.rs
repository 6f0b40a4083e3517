//! Privileges: what is kept after set-up, and by whom.
//!
//! | thread | keeps | for |
//! |---|---|---|
//! | control and those that it starts | `CAP_NET_ADMIN`, `CAP_BPF`, `CAP_SYS_NICE` | managed neighbors; the classifier's maps; workers' priority |
//! | workers, punt | nothing | |

use anyhow::{Context, Result};
use caps::{CapSet, Capability, CapsHashSet};

/// Gives up everything but what a running router's control thread needs, for this thread and those
/// that it starts from now on, and for every program that it might run.
pub(crate) fn drop_to_control() -> Result<()> {
    let kept = [Capability::CAP_NET_ADMIN, Capability::CAP_BPF, Capability::CAP_SYS_NICE];
    let kept: CapsHashSet = kept.into_iter().collect();
    let held = caps::read(None, CapSet::Permitted).context("capabilities cannot be read")?;
    set(&held.intersection(&kept).copied().collect())?;
    nix::sys::prctl::set_no_new_privs().context("no_new_privs cannot be set")
}

/// Runs `start` with what a running router's control thread needs and no more, so that the threads
/// which it starts never have more either. Capabilities belong to threads, and a thread inherits
/// those of the one that starts it.
pub(crate) fn limited<T: Send>(start: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            drop_to_control()?;
            start()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Gives up everything, for this thread.
pub(crate) fn drop_all() -> Result<()> {
    set(&CapsHashSet::new())
}

fn set(kept: &CapsHashSet) -> Result<()> {
    // The ambient and inheritable sets first: they cannot hold what the permitted one lacks.
    caps::clear(None, CapSet::Ambient).context("ambient capabilities cannot be dropped")?;
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new())
        .context("inheritable capabilities cannot be dropped")?;
    caps::set(None, CapSet::Effective, kept).context("effective capabilities cannot be dropped")?;
    caps::set(None, CapSet::Permitted, kept).context("permitted capabilities cannot be dropped")
}
