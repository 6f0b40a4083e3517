//! `log`: lines of guests, bounded in rate and length, on their way to the control thread.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crossbeam::queue::ArrayQueue;
use wasmtime::{Caller, format_err};

use super::{HostState, memory_of};
use crate::{foreign_text::printable, layout::span};

/// Lines that one instance may log a second.
const LOG_LINES_PER_S: u32 = 16;
/// The longest line that is kept, in bytes.
const LOG_BYTES_MAX: usize = 240;
/// Lines of all plugins that may wait to be written.
const LOG_QUEUE_LINES: usize = 512;

/// A line of a guest on its way to the control thread.
#[derive(Debug)]
pub(crate) struct LogLine {
    pub(crate) plugin: Arc<str>,
    pub(crate) level: i32,
    bytes: [u8; LOG_BYTES_MAX],
    len: usize,
}

impl LogLine {
    /// The line as text: a guest can neither break the log's encoding nor forge further lines.
    pub(crate) fn text(&self) -> String {
        printable(self.bytes.get(..self.len).unwrap_or_default())
    }
}

/// Where all instances log to.
#[derive(Debug)]
pub(crate) struct LogQueue {
    pub(crate) lines: ArrayQueue<LogLine>,
    /// Lines that were over an instance's rate or that the queue had no room for.
    pub(crate) lost: AtomicU64,
}

impl LogQueue {
    pub(crate) fn new() -> Self {
        Self { lines: ArrayQueue::new(LOG_QUEUE_LINES), lost: AtomicU64::new(0) }
    }
}

/// One instance's way into the queue.
pub(super) struct Logger {
    plugin: Arc<str>,
    queue: Arc<LogQueue>,
    window_start_ns: u64,
    window_lines: u32,
}

impl Logger {
    pub(super) fn new(plugin: Arc<str>, queue: Arc<LogQueue>) -> Self {
        Self { plugin, queue, window_start_ns: 0, window_lines: 0 }
    }

    fn log(&mut self, now_ns: u64, level: i32, text: &[u8]) {
        if now_ns.saturating_sub(self.window_start_ns) >= 1_000_000_000 {
            self.window_start_ns = now_ns;
            self.window_lines = 0;
        }
        self.window_lines = self.window_lines.saturating_add(1);
        let mut bytes = [0; LOG_BYTES_MAX];
        let len = text.len().min(LOG_BYTES_MAX);
        for (to, from) in bytes.iter_mut().zip(text) {
            *to = *from;
        }
        let over_rate = self.window_lines > LOG_LINES_PER_S;
        let line = LogLine { plugin: Arc::clone(&self.plugin), level, bytes, len };
        if over_rate || self.queue.lines.push(line).is_err() {
            self.queue.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

pub(super) fn log(
    mut caller: Caller<'_, HostState>,
    level: i32,
    address: i32,
    len: i32,
) -> wasmtime::Result<()> {
    let (memory, state) = memory_of(&mut caller, "log")?;
    let bytes = span(memory.len(), address.cast_unsigned(), len.cast_unsigned() as usize)
        .and_then(|range| memory.get(range))
        .ok_or_else(|| format_err!("`sluice.log` was given a text outside the memory"))?;
    state.logger.log(state.now_ns, level, bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_bounded_in_rate_and_length_and_stay_one_line() {
        let queue = Arc::new(LogQueue::new());
        let mut logger = Logger::new("p".into(), Arc::clone(&queue));
        logger.log(0, 2, b"a\nb\xff");
        assert_eq!(queue.lines.pop().expect("a line").text(), "a\u{fffd}b\u{fffd}");
        for _ in 0..100 {
            logger.log(0, 2, &[b'x'; 1000]);
        }
        assert_eq!(queue.lines.len(), LOG_LINES_PER_S as usize - 1);
        assert_eq!(queue.lost.load(Ordering::Relaxed), 101 - u64::from(LOG_LINES_PER_S));
        assert_eq!(queue.lines.pop().expect("a line").text().len(), LOG_BYTES_MAX);
        logger.log(1_000_000_000, 2, b"again");
        assert_eq!(queue.lost.load(Ordering::Relaxed), 101 - u64::from(LOG_LINES_PER_S));
    }
}
