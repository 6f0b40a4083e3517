//! Work in time that nobody else wants: compiling, which takes milliseconds to seconds.
//!
//! Where control threads share the cores of workers, a compiler of the usual priority takes half of a
//! worker's time for as long as it runs, and its packets wait in the rings or are lost. Under
//! `SCHED_IDLE` (sched(7)) it yields to the worker at once, and goes on in the pauses or on another core.
//!
//! The policy belongs to a thread of its own: without `CAP_SYS_NICE`, which the process has given up by
//! then, no thread could take it back.

use std::panic::resume_unwind;
use std::thread;

use thread_priority::{
    NormalThreadSchedulePolicy::Idle, ThreadPriority, ThreadSchedulePolicy, thread_native_id,
    unix::set_thread_priority_and_policy,
};

/// Does `work` on a thread of the policy `SCHED_IDLE`, and waits for it. Where no thread can be had, or
/// not this policy, the work is done all the same.
pub(crate) fn when_idle<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let on_thread = || {
        let policy = ThreadSchedulePolicy::Normal(Idle);
        // The lowest niceness, too: between threads that are all idle it still counts.
        let set = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy);
        if let Err(error) = set {
            tracing::debug!(?error, "compiling at the usual priority");
        }
        work()
    };
    thread::scope(|scope| {
        let thread = scope.spawn(on_thread);
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use thread_priority::thread_schedule_policy;

    use super::*;

    #[test]
    fn the_work_is_done_at_idle_priority_and_the_caller_keeps_its_own() {
        let before = thread_schedule_policy().expect("a policy");
        let (answer, within) =
            when_idle(|| (42, thread_schedule_policy().expect("the policy that was set")));
        assert_eq!(answer, 42);
        assert_eq!(within, ThreadSchedulePolicy::Normal(Idle));
        assert_eq!(thread_schedule_policy().expect("a policy"), before);
    }

    #[test]
    #[should_panic(expected = "a fault of the compiler")]
    fn a_panic_is_the_callers() {
        when_idle(|| panic!("a fault of the compiler"));
    }
}
