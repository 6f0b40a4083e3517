//! [`Polluter`]: a neighbour that uses the cache.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use core_affinity::CoreId;

/// Reads and writes 64 MiB over and over on another core for as long as it lives, as a neighbour does
/// who shares the last cache level.
#[derive(Debug)]
pub struct Polluter {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Polluter {
    /// On the core `theirs`.
    #[must_use]
    pub fn start(theirs: CoreId) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            core_affinity::set_for_current(theirs);
            let mut memory = vec![0_u64; 8 << 20];
            while !stopped.load(Ordering::Relaxed) {
                for line in memory.chunks_mut(8) {
                    line[0] = line[0].wrapping_add(1);
                }
                std::hint::black_box(&mut memory);
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Polluter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
