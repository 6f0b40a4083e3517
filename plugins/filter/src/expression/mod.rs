//! The language of `when`: an expression in the style of Wireshark, to a [`Condition`].
//!
//! ```text
//!  expression = conjunction { ("or" | "||") conjunction }
//!  conjunction = term { ("and" | "&&") term }
//!  term = ("not" | "!") term | "(" expression ")" | test
//!  test = field [ comparison value | ["not"] "in" set ]
//!  comparison = "==" | "!=" | "<" | "<=" | ">" | ">=" | eq | ne | lt | le | gt | ge
//!  set = "$" name | "{" item { [","] item } "}"        item = value | value ".." value
//! ```
//!
//! Fields have types (`fields.rs`), and a test that no packet could pass or fail by its type is an
//! error: an address is not compared with a number, a port not with 70000. A test of a field that
//! the packet does not have is false, whatever the comparison, as in Wireshark; `not` makes it true.
//!
//! Deliberately absent: arithmetic, slices of bytes, regular expressions. What is here compiles to
//! sets of values, and costs a packet the same however it is written.

mod error;
mod fields;
mod lexer;
mod parser;

pub use error::ExpressionError;
pub(crate) use parser::parse_value;
pub use parser::{Sets, Value, parse};

/// The longest expression, in bytes.
pub const EXPRESSION_BYTES_MAX: usize = 4096;

/// How deep parentheses and negations may be nested.
pub const DEPTH_MAX: usize = 32;
