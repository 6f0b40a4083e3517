//! Tokens to a [`Condition`], with the types checked on the way.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::fields::{self, Field, Type, Wanted};
use super::lexer::{Kind, Token, tokens};
use super::{DEPTH_MAX, EXPRESSION_BYTES_MAX, ExpressionError};
use crate::clause::Condition;
use crate::ranges::Ranges;

/// Values of a named set: first and last of each, all of one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// IPv4 addresses, from the first to the last.
    V4(u32, u32),
    /// IPv6 addresses.
    V6(u128, u128),
    /// Numbers.
    Number(u16, u16),
}

/// Named sets, by name without `$`.
pub type Sets = BTreeMap<String, Vec<Value>>;

/// The addresses or numbers that a word of a set stands for.
///
/// # Errors
/// Says what is wrong with it.
pub(crate) fn parse_value(text: &str) -> Result<Value, String> {
    if let Some((first, last)) = text.split_once("..") {
        let ends = (parse_value(first.trim())?, parse_value(last.trim())?);
        let range = match ends {
            (Value::V4(a, b), Value::V4(c, d)) if a == b && c == d && a <= c => Value::V4(a, c),
            (Value::V6(a, b), Value::V6(c, d)) if a == b && c == d && a <= c => Value::V6(a, c),
            (Value::Number(a, _), Value::Number(c, _)) if a <= c => Value::Number(a, c),
            _ => return Err(format!("{text} is no range: two of a kind, the smaller one first")),
        };
        return Ok(range);
    }
    if let Some(number) = number(text) {
        return u16::try_from(number)
            .map(|number| Value::Number(number, number))
            .map_err(|_| format!("{text} is more than 65535"));
    }
    let net = prefixes::parse(text).map_err(|error| error.to_string())?;
    Ok(match (net.network(), net.broadcast()) {
        (IpAddr::V4(first), IpAddr::V4(last)) => Value::V4(first.to_bits(), last.to_bits()),
        (IpAddr::V6(first), IpAddr::V6(last)) => Value::V6(first.to_bits(), last.to_bits()),
        _ => return Err(format!("{text} is no prefix")),
    })
}

/// A decimal number, or a hexadecimal one behind `0x`.
fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) if digits.bytes().all(|digit| digit.is_ascii_hexdigit()) => {
            u32::from_str_radix(digits, 16).ok()
        }
        Some(_) => None,
        None if text.bytes().all(|digit| digit.is_ascii_digit()) => {
            // More digits than fit are a number, too, and too large a one.
            (!text.is_empty()).then(|| text.parse().unwrap_or(u32::MAX))
        }
        None => None,
    }
}

/// Parses an expression.
///
/// # Errors
/// The first thing that is wrong with it, and its place.
pub fn parse(text: &str, sets: &Sets) -> Result<Condition, ExpressionError> {
    if text.len() > EXPRESSION_BYTES_MAX {
        let message = format!(
            "the expression has {} bytes; {EXPRESSION_BYTES_MAX} is the most, and long lists belong \
             into `sets`",
            text.len()
        );
        return Err(ExpressionError::new(text, EXPRESSION_BYTES_MAX, text.len(), message));
    }
    let mut parser = Parser { text, tokens: tokens(text)?, position: 0, depth: 0, sets };
    let condition = parser.expression()?;
    match parser.peek().kind {
        Kind::End => Ok(condition),
        Kind::Close => Err(parser.error("`)` closes nothing")),
        _ => Err(parser.error("`and` or `or` must stand between two tests")),
    }
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Token<'a>>,
    position: usize,
    depth: usize,
    sets: &'a Sets,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        // The last token is the end, which nothing takes.
        self.tokens[self.position.min(self.tokens.len() - 1)]
    }

    fn next(&mut self) -> Token<'a> {
        let token = self.peek();
        self.position += 1;
        token
    }

    fn take(&mut self, kind: Kind<'_>) -> bool {
        let is_next = self.peek().kind == kind;
        self.position += usize::from(is_next);
        is_next
    }

    /// An error about the next token.
    fn error(&self, message: impl Into<String>) -> ExpressionError {
        self.error_at(self.peek(), message)
    }

    fn error_at(&self, token: Token<'_>, message: impl Into<String>) -> ExpressionError {
        ExpressionError::new(self.text, token.start, token.end, message)
    }

    /// Counts a level of nesting while `inner` runs, so that no text can exhaust the stack.
    fn nested(
        &mut self,
        inner: fn(&mut Self) -> Result<Condition, ExpressionError>,
    ) -> Result<Condition, ExpressionError> {
        if self.depth == DEPTH_MAX {
            return Err(self.error(format!("nested more than {DEPTH_MAX} deep")));
        }
        self.depth += 1;
        let condition = inner(self);
        self.depth -= 1;
        condition
    }

    fn expression(&mut self) -> Result<Condition, ExpressionError> {
        let mut terms = vec![self.conjunction()?];
        while self.take(Kind::Or) {
            terms.push(self.conjunction()?);
        }
        Ok(if terms.len() == 1 { terms.remove(0) } else { Condition::Or(terms) })
    }

    fn conjunction(&mut self) -> Result<Condition, ExpressionError> {
        let mut terms = vec![self.term()?];
        while self.take(Kind::And) {
            terms.push(self.term()?);
        }
        Ok(if terms.len() == 1 { terms.remove(0) } else { Condition::And(terms) })
    }

    fn term(&mut self) -> Result<Condition, ExpressionError> {
        let token = self.peek();
        match token.kind {
            Kind::Not => {
                self.next();
                Ok(Condition::Not(Box::new(self.nested(Self::term)?)))
            }
            Kind::Open => {
                self.next();
                let inner = self.nested(Self::expression)?;
                if !self.take(Kind::Close) {
                    let message = match self.peek().kind {
                        Kind::End => "this parenthesis is not closed",
                        _ => return Err(self.error("`and`, `or` or `)` must stand here")),
                    };
                    return Err(self.error_at(token, message));
                }
                Ok(inner)
            }
            Kind::Word(name) => {
                let Some(field) = Field::find(name) else {
                    let near = Field::near(name);
                    let near = near.map_or(String::new(), |near| format!("; is it `{near}`?"));
                    return Err(self.error(format!("`{name}` is no field{near}")));
                };
                self.next();
                self.test(field, token)
            }
            Kind::End => Err(self.error("a test must stand here, and the expression ends")),
            _ => Err(self.error("a test must stand here: a field, `not` or `(`")),
        }
    }

    /// What follows the name of a field.
    fn test(
        &mut self,
        field: &'static Field,
        name: Token<'a>,
    ) -> Result<Condition, ExpressionError> {
        let operator = self.peek();
        match operator.kind {
            Kind::Comparison(sign) => {
                self.next();
                let value = self.next();
                self.comparison(field, operator, sign, value)
            }
            Kind::In => {
                self.next();
                let wanted = self.set(field)?;
                Ok(field.is_any_of(&wanted))
            }
            // `field not in set`; any other `not` begins a term, and `and` or `or` is missing.
            Kind::Not
                if self.tokens.get(self.position + 1).map(|next| next.kind) == Some(Kind::In) =>
            {
                self.position += 2;
                let wanted = self.set(field)?;
                Ok(Condition::Not(Box::new(field.is_any_of(&wanted))))
            }
            _ if field.kind == Type::Flag => Ok(field.is_any_of(&numbers(1, 1))),
            _ => Err(self.error_at(
                name,
                format!(
                    "`{}` is no test by itself: `==`, `in {{..}}` or the like must follow",
                    field.name
                ),
            )),
        }
    }

    fn comparison(
        &self,
        field: &'static Field,
        operator: Token<'_>,
        sign: &str,
        value: Token<'_>,
    ) -> Result<Condition, ExpressionError> {
        let mut found = Found::default();
        found.add(&self.value(field, value)?);
        let (wanted, top) = (found.wanted(), top(field.kind));
        let bound = wanted.numbers.as_slice().first().copied();
        let ordered = match (sign, field.kind, bound) {
            ("==", ..) => return Ok(field.is_any_of(&wanted)),
            ("!=", ..) => {
                let others = Wanted {
                    v4: wanted.v4.complement(u32::MAX.into()),
                    v6: wanted.v6.complement(u128::MAX),
                    numbers: wanted.numbers.complement(top.into()),
                };
                return Ok(field.are_all_of(&others));
            }
            (_, Type::Number(_), Some((bound, _))) => u16::try_from(bound).unwrap_or(u16::MAX),
            _ => {
                let message = format!(
                    "the values of `{}` have no order: `==`, `!=` and `in` compare them",
                    field.name
                );
                return Err(self.error_at(operator, message));
            }
        };
        let range = match sign {
            "<" => ordered.checked_sub(1).map(|last| (0, last)),
            "<=" => Some((0, ordered)),
            ">" => ordered.checked_add(1).map(|first| (first, top)),
            _ => Some((ordered, top)),
        };
        match range.filter(|(first, last)| first <= last) {
            Some((first, last)) => Ok(field.is_any_of(&numbers(first, last))),
            None => {
                let message = format!("`{}` is from 0 to {top}: this never holds", field.name);
                Err(self.error_at(operator, message))
            }
        }
    }

    /// A set by name, or in braces.
    fn set(&mut self, field: &'static Field) -> Result<Wanted, ExpressionError> {
        let token = self.next();
        let mut found = Found::default();
        match token.kind {
            Kind::Set(name) => {
                let Some(values) = self.sets.get(name) else {
                    return Err(self.error_at(token, format!("`sets` has no `{name}`")));
                };
                for value in values {
                    check(field, value)
                        .map_err(|error| self.error_at(token, format!("`${name}`: {error}")))?;
                    found.add(value);
                }
            }
            Kind::SetOpen => {
                while !self.take(Kind::SetClose) {
                    if self.peek().kind == Kind::End {
                        return Err(self.error_at(token, "this set is not closed by `}`"));
                    }
                    let first = self.next();
                    let value = if self.take(Kind::To) {
                        let last = self.next();
                        self.range(field, first, last)?
                    } else {
                        self.value(field, first)?
                    };
                    found.add(&value);
                    self.take(Kind::Comma);
                }
                if found.is_empty() {
                    let both = Token { end: self.tokens[self.position - 1].end, ..token };
                    return Err(self.error_at(both, "the set is empty"));
                }
            }
            _ => {
                let message = "a set must follow `in`: `{80 443}` or `$name`";
                return Err(self.error_at(token, message));
            }
        }
        Ok(found.wanted())
    }

    fn range(
        &self,
        field: &'static Field,
        first: Token<'_>,
        last: Token<'_>,
    ) -> Result<Value, ExpressionError> {
        let token = Token { end: last.end, ..first };
        match (field.kind, first.kind, last.kind) {
            (Type::Address | Type::Number(_) | Type::Protocol, Kind::Word(a), Kind::Word(b)) => {
                let value = parse_value(&format!("{a}..{b}"));
                value
                    .and_then(|value| check(field, &value).map(|()| value))
                    .map_err(|error| self.error_at(token, error))
            }
            (_, Kind::Word(_), Kind::Word(_)) => {
                let message = format!("the values of `{}` have no order", field.name);
                Err(self.error_at(token, message))
            }
            (_, Kind::Word(_), _) => Err(self.error_at(last, "a value must follow `..`")),
            _ => Err(self.error_at(first, "a value must stand before `..`")),
        }
    }

    /// One value of the field's type.
    fn value(&self, field: &'static Field, token: Token<'_>) -> Result<Value, ExpressionError> {
        let Kind::Word(word) = token.kind else {
            let message = match token.kind {
                Kind::End => "a value must stand here, and the expression ends",
                Kind::Set(_) | Kind::SetOpen => "a set stands behind `in`",
                _ => "a value must stand here",
            };
            return Err(self.error_at(token, message));
        };
        let named = match field.kind {
            Type::Protocol => fields::protocol(word),
            Type::Direction => fields::direction(word),
            Type::Flag => match word {
                "true" => Some(1),
                "false" => Some(0),
                _ => None,
            },
            Type::Address | Type::Number(_) => None,
        };
        if let Some(number) = named {
            return Ok(Value::Number(number.into(), number.into()));
        }
        let value = match (parse_value(word), field.kind) {
            (Ok(value), kind) if kind != Type::Direction => check(field, &value).map(|()| value),
            (Err(error), Type::Address) => Err(error),
            _ => Err(expectation(field)),
        };
        value.map_err(|error| self.error_at(token, error))
    }
}

/// The ranges of a set, while they are read.
#[derive(Default)]
struct Found {
    v4: Vec<(u128, u128)>,
    v6: Vec<(u128, u128)>,
    numbers: Vec<(u128, u128)>,
}

impl Found {
    fn add(&mut self, value: &Value) {
        match *value {
            Value::V4(first, last) => self.v4.push((first.into(), last.into())),
            Value::V6(first, last) => self.v6.push((first, last)),
            Value::Number(first, last) => self.numbers.push((first.into(), last.into())),
        }
    }

    fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty() && self.numbers.is_empty()
    }

    fn wanted(self) -> Wanted {
        let [v4, v6, numbers] = [self.v4, self.v6, self.numbers].map(Ranges::new);
        Wanted { v4, v6, numbers }
    }
}

fn numbers(first: u16, last: u16) -> Wanted {
    let mut found = Found::default();
    found.add(&Value::Number(first, last));
    found.wanted()
}

/// The largest number of a type.
fn top(kind: Type) -> u16 {
    match kind {
        Type::Number(top) => top,
        Type::Flag => 1,
        Type::Address | Type::Protocol | Type::Direction => u8::MAX.into(),
    }
}

/// Whether a field can have a value.
fn check(field: &Field, value: &Value) -> Result<(), String> {
    match (field.kind, value) {
        (Type::Address, Value::V4(..) | Value::V6(..)) => Ok(()),
        (Type::Number(_) | Type::Protocol | Type::Flag, Value::Number(_, last))
            if *last <= top(field.kind) =>
        {
            Ok(())
        }
        _ => Err(expectation(field)),
    }
}

/// What a field is compared with, in words.
fn expectation(field: &Field) -> String {
    let what = match field.kind {
        Type::Address => "an address or a prefix",
        Type::Number(top) => return format!("`{}` is a number from 0 to {top}", field.name),
        Type::Protocol => "icmp, tcp, udp, gre, esp, icmpv6, sctp or a number from 0 to 255",
        Type::Direction => "inbound, outbound or transit",
        Type::Flag => "true or false",
    };
    format!("`{}` is {what}", field.name)
}
