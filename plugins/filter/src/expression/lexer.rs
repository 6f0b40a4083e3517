//! Text to tokens. Numbers, addresses and names are all words; what a word means depends on where it
//! stands, and the parser knows.

use super::ExpressionError;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind<'a> {
    /// Letters, digits and `_ . : /`, such as `tcp.dstport`, `10.0.0.0/8` or `80`.
    Word(&'a str),
    /// `$name`, without the sign.
    Set(&'a str),
    /// One of `== != < <= > >=`.
    Comparison(&'static str),
    /// `..`
    To,
    And,
    Or,
    Not,
    In,
    Open,
    Close,
    SetOpen,
    SetClose,
    Comma,
    End,
}

/// A token and where it stands, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind<'a>,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// Comparisons by their words.
const WORDS: [(&str, &str); 6] =
    [("eq", "=="), ("ne", "!="), ("lt", "<"), ("le", "<="), ("gt", ">"), ("ge", ">=")];

/// Signs, the longer ones first.
const SIGNS: [(&str, Kind<'static>); 15] = [
    ("==", Kind::Comparison("==")),
    ("!=", Kind::Comparison("!=")),
    ("<=", Kind::Comparison("<=")),
    (">=", Kind::Comparison(">=")),
    ("&&", Kind::And),
    ("||", Kind::Or),
    ("..", Kind::To),
    ("<", Kind::Comparison("<")),
    (">", Kind::Comparison(">")),
    ("!", Kind::Not),
    ("(", Kind::Open),
    (")", Kind::Close),
    ("{", Kind::SetOpen),
    ("}", Kind::SetClose),
    (",", Kind::Comma),
];

/// The length of the word that a text begins with. Two points end it: they stand between the ends of
/// a range.
fn word_len(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut len = 0;
    while let Some(byte) = bytes.get(len) {
        let is_range = *byte == b'.' && bytes.get(len + 1) == Some(&b'.');
        if is_range || !(byte.is_ascii_alphanumeric() || b"_.:/".contains(byte)) {
            break;
        }
        len += 1;
    }
    len
}

/// The tokens of a text, the last of which is [`Kind::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<Token<'_>>, ExpressionError> {
    let mut tokens = Vec::new();
    let mut start = 0;
    loop {
        start += text[start..].len() - text[start..].trim_start().len();
        let rest = &text[start..];
        let Some(first) = rest.chars().next() else {
            tokens.push(Token { kind: Kind::End, start, end: start });
            return Ok(tokens);
        };
        let (kind, len) = if first == '$' {
            match word_len(&rest[1..]) {
                0 => {
                    let message = "the name of a set must follow `$`";
                    return Err(ExpressionError::new(text, start, start + 1, message));
                }
                len => (Kind::Set(&rest[1..=len]), 1 + len),
            }
        } else if let (len @ 1.., word) = (word_len(rest), &rest[..word_len(rest)]) {
            let kind = match word {
                "and" => Kind::And,
                "or" => Kind::Or,
                "not" => Kind::Not,
                "in" => Kind::In,
                _ => match WORDS.iter().find(|(name, _)| *name == word) {
                    Some((_, sign)) => Kind::Comparison(sign),
                    None => Kind::Word(word),
                },
            };
            (kind, len)
        } else if let Some((sign, kind)) = SIGNS.iter().find(|(sign, _)| rest.starts_with(sign)) {
            (*kind, sign.len())
        } else {
            let message = match first {
                '=' => "`=` compares nothing; equality is `==`".to_owned(),
                '&' => "`&` is no operator; write `and` or `&&`".to_owned(),
                '|' => "`|` is no operator; write `or` or `||`".to_owned(),
                '"' | '\'' => "values have no quotes".to_owned(),
                '-' => "`-` is no operator; a range is written `8000..8100`".to_owned(),
                other => format!("{other:?} is no part of an expression"),
            };
            return Err(ExpressionError::new(text, start, start + first.len_utf8(), message));
        };
        tokens.push(Token { kind, start, end: start + len });
        start += len;
    }
}
