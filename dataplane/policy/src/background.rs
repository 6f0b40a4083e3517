//! Work that gives way to everybody else: compiling, which takes milliseconds to seconds.
//!
//! Where control threads share the cores of workers, a compiler of the usual priority takes half of a
//! worker's time for as long as it runs, and its packets wait in the rings. With the nice value 19 it takes
//! a sixtieth of a core that is wanted, and all of one that is not. Not under `SCHED_IDLE`: where every core
//! is busy, nothing was compiled within seconds.
//!
//! The priority belongs to a thread of its own: without `CAP_SYS_NICE`, which the process has given up by
//! then, no thread could take it back.

use std::panic::resume_unwind;
use std::thread;

use thread_priority::{
    NormalThreadSchedulePolicy::Batch, ThreadPriority, ThreadSchedulePolicy, thread_native_id,
    unix::set_thread_priority_and_policy,
};

/// Does `work` on a thread of the lowest priority, and waits for it. Where that is not to be had, the work is
/// done all the same.
pub(crate) fn run<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let on_thread = || {
        let policy = ThreadSchedulePolicy::Normal(Batch);
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
    fn the_work_is_done_at_the_lowest_priority_and_the_caller_keeps_its_own() {
        let before = thread_schedule_policy().expect("a policy");
        let (answer, within) =
            run(|| (42, thread_schedule_policy().expect("the policy that was set")));
        assert_eq!(answer, 42);
        assert_eq!(within, ThreadSchedulePolicy::Normal(Batch));
        assert_eq!(thread_schedule_policy().expect("a policy"), before);
    }

    #[test]
    #[should_panic(expected = "a fault of the compiler")]
    fn a_panic_is_the_callers() {
        run(|| panic!("a fault of the compiler"));
    }
}
