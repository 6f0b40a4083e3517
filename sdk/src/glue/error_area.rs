//! [`ErrorArea`]: the texts that a guest leaves for its host, why it refuses its configuration and why it
//! panicked.

use core::cell::UnsafeCell;

use super::Aligned;

const CAPACITY: usize = 1024;

/// The area, all zero at first.
pub(super) struct ErrorArea(UnsafeCell<Aligned<CAPACITY>>);

// SAFETY: a guest has one thread. References into the cell are made and ended within one function here each,
// and none of those runs code that could panic while it holds one, so that there is never more than one.
unsafe impl Sync for ErrorArea {}

impl ErrorArea {
    pub(super) const CAPACITY: usize = CAPACITY;

    pub(super) const fn new() -> Self {
        Self(UnsafeCell::new(Aligned([0; CAPACITY])))
    }

    /// Where the host finds it.
    pub(super) fn address(&self) -> usize {
        self.0.get().addr()
    }

    /// Writes a text, cut to the room that there is; how much of it was written. A NUL ends it, if there is
    /// room for one.
    pub(super) fn write(&self, text: &str) -> usize {
        let len = text.floor_char_boundary(CAPACITY);
        self.write_at(0, text.as_bytes());
        len
    }

    /// Writes bytes, and a NUL behind them, as far as there is room.
    fn write_at(&self, at: usize, bytes: &[u8]) {
        // SAFETY: see `Sync`: the host is waiting in a call, and nothing below panics.
        let area = unsafe { &mut (*self.0.get()).0 };
        for (to, from) in area.iter_mut().skip(at).zip(bytes.iter().chain(&[0])) {
            *to = *from;
        }
    }

    /// From now on a panic leaves its text and place here, before it traps. `std` would write it to an
    /// error output, which a guest does not have.
    #[cfg(all(feature = "std", target_family = "wasm"))]
    pub(super) fn take_panics(&'static self) {
        std::panic::set_hook(std::boxed::Box::new(|panic| {
            let text = panic.payload_as_str().unwrap_or("a panic without a text");
            self.write_panic(text, panic.location());
        }));
    }

    /// Writes a panic: its text, cut before its place is.
    #[cfg(any(test, all(feature = "std", target_family = "wasm")))]
    fn write_panic(&self, text: &str, place: Option<&core::panic::Location<'_>>) {
        use core::fmt::Write as _;
        /// Room that is kept for the place.
        const PLACE: usize = 256;
        let text = &text[..text.floor_char_boundary(CAPACITY - PLACE)];
        let mut writer = Writer { area: self, at: 0 };
        // It takes whatever it is given, and drops what there is no room for.
        let _ = writer.write_str(text);
        if let Some(place) = place {
            let _ = write!(writer, ", at {place}");
        }
    }
}

/// Appends to the area, without allocating.
#[cfg(any(test, all(feature = "std", target_family = "wasm")))]
struct Writer<'a> {
    area: &'a ErrorArea,
    at: usize,
}

#[cfg(any(test, all(feature = "std", target_family = "wasm")))]
impl core::fmt::Write for Writer<'_> {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        self.area.write_at(self.at, text.as_bytes());
        self.at = (self.at + text.len()).min(CAPACITY);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use core::panic::Location;
    use std::string::String;

    use super::*;

    fn text(area: &ErrorArea) -> String {
        // SAFETY: no reference into the cell outlives a call of the area's functions.
        let bytes = unsafe { &(*area.0.get()).0 };
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(CAPACITY);
        String::from_utf8(bytes[..end].to_vec()).expect("whole letters")
    }

    #[test]
    fn a_panic_is_its_text_and_its_place() {
        let area = ErrorArea::new();
        let place = Location::caller();
        area.write_panic("index out of bounds", Some(place));
        assert_eq!(text(&area), format!("index out of bounds, at {place}"));
        area.write_panic("no", None);
        assert_eq!(text(&area), "no", "what was there before is not read on");
    }

    #[test]
    fn long_texts_are_cut_and_the_place_is_kept() {
        let area = ErrorArea::new();
        let place = Location::caller();
        area.write_panic(&"\u{e4}".repeat(2000), Some(place));
        let written = text(&area);
        assert!(written.ends_with(&format!("\u{e4}, at {place}")), "{written}");
        assert!(written.len() < CAPACITY);
        assert_eq!(area.write(&"\u{e4}".repeat(2000)), CAPACITY);
        assert_eq!(area.write(&format!("x{}", "\u{e4}".repeat(2000))), CAPACITY - 1);
        assert_eq!(area.write("short"), 5);
        assert_eq!(text(&area), "short");
    }
}
