//! Which keys a table of the configuration may have: asked of the type that reads it, once there is a key that
//! it does not have.
//!
//! serde says which fields a struct has when it asks a deserializer for one. [`Walk`] is a deserializer without
//! a value: it leads the reader along a path, from the outermost type to the struct there, and ends with the
//! fields of that.
//!
//! Deliberately absent: what is reached through an enum, or by a type that reads whatever comes (untagged,
//! flattened). It is left to say that the key is not known.

use alloc::{format, string::String, vec::Vec};
use core::fmt;

use serde::{
    Deserialize, Deserializer, de,
    de::{DeserializeSeed, IntoDeserializer as _, MapAccess, SeqAccess, Visitor},
    forward_to_deserialize_any,
};

/// From a table or list to what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// The steps of a path. Those through options and newtypes are none in TOML.
pub(super) fn steps(path: &serde_ignored::Path<'_>) -> Vec<Step> {
    use serde_ignored::Path;
    let (parent, step) = match path {
        Path::Root => return Vec::new(),
        Path::Seq { parent, index } => (parent, Some(Step::Index(*index))),
        Path::Map { parent, key } => (parent, Some(Step::Key(key.clone()))),
        Path::Some { parent }
        | Path::NewtypeStruct { parent }
        | Path::NewtypeVariant { parent } => (parent, None),
    };
    let mut steps = steps(parent);
    steps.extend(step);
    steps
}

/// What is wrong with a key at the end of these steps that `T` does not read.
pub(super) fn unknown_in<'de, T: Deserialize<'de>>(steps: &[Step]) -> String {
    let mut path = String::new();
    for step in steps {
        path = match step {
            Step::Index(index) => format!("{path}[{index}]"),
            Step::Key(key) if path.is_empty() => key.clone(),
            Step::Key(key) => format!("{path}.{key}"),
        };
    }
    let table = steps.split_last().map_or(steps, |(_, table)| table);
    match T::deserialize(Walk(table)) {
        Err(End(Some(keys))) => unknown_key(&path, keys),
        Err(End(None)) | Ok(_) => format!("`{path}`: unknown key"),
    }
}

/// The refusal of a key that a table does not have, as the SDK words it: for plugins that read their
/// configuration themselves. `path` leads to the key, `keys` are those that there are.
#[must_use]
pub fn unknown_key(path: &str, keys: &[&str]) -> String {
    let keys: Vec<_> = keys.iter().map(|key| format!("`{key}`")).collect();
    match &keys[..] {
        [] => format!("`{path}`: unknown key, there are none"),
        [key] => format!("`{path}`: unknown key, expected {key}"),
        _ => format!("`{path}`: unknown key, expected one of {}", keys.join(", ")),
    }
}

/// The end of a walk, with the fields of the struct that it came to.
#[derive(Debug)]
struct End(Option<&'static [&'static str]>);

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the end of a walk")
    }
}

impl core::error::Error for End {}

impl de::Error for End {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self(None)
    }
}

/// What is left of the way.
struct Walk<'s>(&'s [Step]);

impl<'s> Walk<'s> {
    /// Where the next key leads.
    fn through_key(&self) -> Option<Next<'s>> {
        let (Step::Key(key), rest) = self.0.split_first()? else { return None };
        Some(Next { key: Some(key), rest: Some(Walk(rest)) })
    }
}

impl<'de> Deserializer<'de> for Walk<'_> {
    type Error = End;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, End> {
        Err(End(None))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, End> {
        if self.0.is_empty() {
            return Err(End(Some(fields)));
        }
        self.deserialize_map(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, End> {
        visitor.visit_map(self.through_key().ok_or(End(None))?)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, End> {
        // All elements have one type: the first stands for the one that is meant.
        match self.0.split_first() {
            Some((Step::Index(_), rest)) => {
                visitor.visit_seq(Next { key: None, rest: Some(Walk(rest)) })
            }
            _ => Err(End(None)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, End> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, End> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        tuple tuple_struct enum identifier ignored_any
    }
}

/// A table or a list with one entry: that which the way leads through.
struct Next<'s> {
    key: Option<&'s str>,
    rest: Option<Walk<'s>>,
}

impl<'de> MapAccess<'de> for Next<'_> {
    type Error = End;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, End> {
        self.key.take().map(|key| seed.deserialize(key.into_deserializer())).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, End> {
        seed.deserialize(self.rest.take().ok_or(End(None))?)
    }
}

impl<'de> SeqAccess<'de> for Next<'_> {
    type Error = End;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, End> {
        self.rest.take().map(|rest| seed.deserialize(rest)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use std::{borrow::ToOwned as _, collections::BTreeMap};

    use super::*;

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only its keys are asked for")]
    struct Outer {
        first: u32,
        #[serde(rename = "second-one")]
        second: Option<Inner>,
        lists: Vec<Vec<Inner>>,
        named: BTreeMap<String, Wrapped>,
        either: Either,
    }

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only its keys are asked for")]
    struct Inner {
        port: u16,
    }

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only its keys are asked for")]
    struct Wrapped(Inner);

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only its keys are asked for")]
    enum Either {
        Left { a: u8 },
        Right(u8),
    }

    fn key(name: &str) -> Step {
        Step::Key(name.to_owned())
    }

    #[test]
    fn the_keys_of_the_table_are_told_wherever_it_stands() {
        for (steps, expected) in [
            (
                vec![key("x")],
                "`x`: unknown key, expected one of `first`, `second-one`, `lists`, `named`, `either`",
            ),
            (vec![key("second-one"), key("x")], "`second-one.x`: unknown key, expected `port`"),
            (
                vec![key("lists"), Step::Index(3), Step::Index(1), key("x")],
                "`lists[3][1].x`: unknown key, expected `port`",
            ),
            (
                vec![key("named"), key("any"), key("x")],
                "`named.any.x`: unknown key, expected `port`",
            ),
            // Through an enum there is no way.
            (vec![key("either"), key("x")], "`either.x`: unknown key"),
            (vec![key("first"), key("x")], "`first.x`: unknown key"),
            (vec![key("nowhere"), key("x")], "`nowhere.x`: unknown key"),
        ] {
            assert_eq!(unknown_in::<Outer>(&steps), expected);
        }
    }
}
