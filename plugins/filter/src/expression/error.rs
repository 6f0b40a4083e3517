//! [`ExpressionError`]: what is wrong, with its place in the text.

use std::fmt;

/// How much of a long line is shown on either side of the place, in characters.
const CONTEXT: usize = 40;

/// What is wrong with an expression, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpressionError {
    /// What is wrong.
    pub message: String,
    /// Line, from 1.
    pub line: usize,
    /// Column, in characters from 1.
    pub column: usize,
    /// The line, cut to what is around the place, and below it the marks.
    picture: String,
}

impl ExpressionError {
    /// An error about the bytes from `start` to `end` of `text`.
    #[must_use]
    pub fn new(text: &str, start: usize, end: usize, message: impl Into<String>) -> Self {
        let start = text.floor_char_boundary(start.min(text.len()));
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let before: Vec<char> = text[line_start..start].chars().collect();
        let marked =
            text[start..text.floor_char_boundary(end.clamp(start, line_end))].chars().count();
        let column = before.len() + 1;
        let skipped = before.len().saturating_sub(CONTEXT);
        let shown: String = text[line_start..line_end]
            .chars()
            .skip(skipped)
            .take(before.len() - skipped + marked.min(CONTEXT) + CONTEXT)
            .map(|letter| if letter.is_control() { ' ' } else { letter })
            .collect();
        let picture = format!(
            "{}\n{}{}",
            shown.trim_end(),
            " ".repeat(before.len() - skipped),
            "^".repeat(marked.clamp(1, CONTEXT))
        );
        let line = text[..line_start].matches('\n').count() + 1;
        Self { message: message.into(), line, column, picture }
    }
}

impl fmt::Display for ExpressionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { message, line, column, picture } = self;
        write!(f, "line {line}, column {column}: {message}\n{picture}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_marked() {
        let text = "tcp and\n  tcp.dstprt == 80";
        let error = ExpressionError::new(text, 10, 20, "no field");
        let expected = "line 2, column 3: no field\n  tcp.dstprt == 80\n  ^^^^^^^^^^";
        assert_eq!(error.to_string(), expected);
        let end = ExpressionError::new("tcp and", 7, 7, "nothing follows");
        assert_eq!(end.to_string(), "line 1, column 8: nothing follows\ntcp and\n       ^");
    }

    #[test]
    fn of_a_long_line_the_surroundings_are_shown() {
        let text = format!("{}é!{}", "x".repeat(500), "y".repeat(500));
        let shown = ExpressionError::new(&text, 502, 503, "no").to_string();
        let expected = format!(
            "line 1, column 502: no\n{}é!{}\n{}^",
            "x".repeat(39),
            "y".repeat(40),
            " ".repeat(40)
        );
        assert_eq!(shown, expected);
        // Positions inside a character, and behind the end, are taken for the one before.
        let _inside = ExpressionError::new(&text, 501, 5000, "no").to_string();
        let _behind = ExpressionError::new(&text, 9000, 9001, "no").to_string();
    }
}
