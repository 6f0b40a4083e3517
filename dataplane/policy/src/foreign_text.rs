//! Texts of modules, made fit for a log and a terminal: whoever wrote them may mean harm.
//!
//! A module can neither begin a line of its own, nor steer a terminal, nor fill a log.

/// The most bytes of a text of several lines that are shown. The longest that mean no harm quote a line of a
/// configuration.
const TEXT_BYTES_MAX: usize = 16 << 10;
/// The most bytes of a name that are shown.
const NAME_BYTES_MAX: usize = 128;

/// Bytes as one line of text.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().map(|letter| if is_harmful(letter) { '\u{fffd}' } else { letter }).collect()
}

/// Whether a letter ends a line, steers a terminal, or has the letters behind it shown in another order.
fn is_harmful(letter: char) -> bool {
    let turns = '\u{202a}'..='\u{202e}';
    let isolates = '\u{2066}'..='\u{2069}';
    letter.is_control()
        || matches!(letter, '\u{2028}' | '\u{2029}')
        || turns.contains(&letter)
        || isolates.contains(&letter)
}

/// Bytes as a text whose lines stay lines, since they may point at a place; those behind the first are set in.
pub(crate) fn printable_lines(bytes: &[u8]) -> String {
    cut(bytes, TEXT_BYTES_MAX, |bytes| {
        bytes.split(|byte| *byte == b'\n').map(printable).collect::<Vec<_>>().join("\n    ")
    })
}

/// A name that a module gives to something.
pub(crate) fn printable_name(name: &str) -> String {
    cut(name.as_bytes(), NAME_BYTES_MAX, printable)
}

/// What is left out is said.
fn cut(bytes: &[u8], bytes_max: usize, show: impl FnOnce(&[u8]) -> String) -> String {
    match bytes.get(..bytes_max) {
        Some(first) if bytes.len() > bytes_max => {
            format!("{}… ({} bytes in all)", show(first), bytes.len())
        }
        _ => show(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_cannot_steer_a_terminal_or_begin_a_line() {
        assert_eq!(
            printable(b"a\x1b[31mb\nc\xc2\x9bd\xff"),
            "a\u{fffd}[31mb\u{fffd}c\u{fffd}d\u{fffd}"
        );
        assert_eq!(
            printable("x\u{202e}y\u{2028}z\u{2066}".as_bytes()),
            "x\u{fffd}y\u{fffd}z\u{fffd}"
        );
        assert_eq!(printable("`größe`: 日本".as_bytes()), "`größe`: 日本");
        assert_eq!(printable_lines(b"a\n\x1bb\nc"), "a\n    \u{fffd}b\n    c");
        assert_eq!(printable_name("open\nfile"), "open\u{fffd}file");
    }

    #[test]
    fn a_long_text_is_cut_and_said_to_be() {
        let most = "x".repeat(TEXT_BYTES_MAX);
        assert_eq!(printable_lines(most.as_bytes()), most);
        let cut = printable_lines("x".repeat(TEXT_BYTES_MAX + 1).as_bytes());
        assert_eq!(cut, format!("{most}… (16385 bytes in all)"));
        assert_eq!(
            printable_name(&"y".repeat(1000)),
            format!("{}… (1000 bytes in all)", "y".repeat(128))
        );
    }
}
