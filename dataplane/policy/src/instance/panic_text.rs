//! [`PanicText`]: what a guest left in its error area before it trapped.
//!
//! It travels with the error of the call, as the instance, and with it the area, may be freed before anybody
//! puts the error into words.

use std::fmt;

use crate::{foreign_text::printable, layout::Areas};

/// More of a text is not shown.
const PANIC_TEXT_BYTES_MAX: usize = 1024;

/// The text, as the guest wrote it: a worker copies it, and it is made printable where it is shown.
#[derive(Debug)]
pub(super) struct PanicText(Box<[u8]>);

impl PanicText {
    /// The text up to its first NUL; `None` if there is none.
    fn of(area: &[u8]) -> Option<Self> {
        let area = area.get(..area.len().min(PANIC_TEXT_BYTES_MAX)).unwrap_or_default();
        let text = area.split(|byte| *byte == 0).next().unwrap_or_default().trim_ascii();
        (!text.is_empty()).then(|| Self(text.into()))
    }
}

/// On one line, as it goes into logs: lines become parts of it.
impl fmt::Display for PanicText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.0.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        for (position, line) in lines.filter(|line| !line.is_empty()).enumerate() {
            let between = if position == 0 { "" } else { "; " };
            write!(f, "{between}{}", printable(line))?;
        }
        Ok(())
    }
}

/// The error of a call with what the guest said before, if it said anything.
#[cold]
pub(super) fn with_panic_text(
    error: wasmtime::Error,
    areas: &Areas,
    memory: &[u8],
) -> wasmtime::Error {
    let area = memory.get(areas.error.clone()).unwrap_or_default();
    match PanicText::of(area) {
        Some(text) => error.context(text),
        None => error,
    }
}

/// Forgets what the guest left in the area while it was configured, and what the module came with.
pub(super) fn clear(memory: &mut [u8], areas: &Areas) {
    if let Some(area) = memory.get_mut(areas.error.clone()) {
        area.iter_mut().take(PANIC_TEXT_BYTES_MAX).for_each(|byte| *byte = 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(area: &[u8]) -> Option<String> {
        PanicText::of(area).map(|text| text.to_string())
    }

    #[test]
    fn a_text_ends_at_its_nul_and_is_one_line_that_can_be_printed() {
        assert_eq!(text(b"no room\0of before").as_deref(), Some("no room"));
        assert_eq!(
            text(b"failed\n  left: 1\n right: 2\n\0").as_deref(),
            Some("failed; left: 1; right: 2")
        );
        assert_eq!(text(b"\x1b[2Ja\xffb\r\nc\0").as_deref(), Some("\u{fffd}[2Ja\u{fffd}b; c"));
        for nothing in [&b""[..], b"\0text", b" \n\n\0"] {
            assert_eq!(text(nothing), None);
        }
    }

    #[test]
    fn a_text_without_end_is_cut() {
        assert_eq!(text(&[b'x'; 5000]).map(|text| text.len()), Some(PANIC_TEXT_BYTES_MAX));
        assert_eq!(text(b"to the end").as_deref(), Some("to the end"));
    }
}
