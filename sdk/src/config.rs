//! From the configuration's JSON to a plugin's own type.

mod keys;

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};

use serde::{Deserialize, de::DeserializeOwned};

pub use keys::unknown_key;

/// What a plugin can be configured by: every type that serde reads, and [`RawConfig`].
pub trait Config: Sized {
    /// Reads the configuration, a JSON object.
    ///
    /// # Errors
    /// A text that names the key by its path, as in `rules[3].source`. Of a key that the type does not have it
    /// tells which ones there are, before whatever else is wrong: a misspelt key is a missing one, too.
    fn from_json(json: &[u8]) -> Result<Self, String>;
}

/// The configuration of a plugin that takes none: an empty table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct NoConfig {}

/// The configuration as the router hands it over, for plugins that read it themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawConfig(pub Vec<u8>);

impl Config for RawConfig {
    fn from_json(json: &[u8]) -> Result<Self, String> {
        Ok(Self(json.to_vec()))
    }
}

impl<T: DeserializeOwned> Config for T {
    fn from_json(json: &[u8]) -> Result<Self, String> {
        let mut unknown = None;
        let mut note = |path: serde_ignored::Path<'_>| {
            unknown.get_or_insert_with(|| keys::steps(&path));
        };
        let mut track = serde_path_to_error::Track::new();
        let mut reader = serde_json::Deserializer::from_slice(json);
        let tracked = serde_path_to_error::Deserializer::new(&mut reader, &mut track);
        let config = serde_ignored::deserialize::<_, _, Self>(tracked, &mut note);
        let config = config.map_err(|error: serde_json::Error| match track.path().to_string() {
            path if path == "." => what(&error),
            path => format!("`{path}`: {}", what(&error)),
        });
        match (unknown, config) {
            (None, config) => {
                let config = config?;
                reader.end().map_err(|error| error.to_string())?;
                Ok(config)
            }
            (Some(steps), Ok(_)) => Err(keys::unknown_in::<Self>(&steps)),
            (Some(steps), Err(error)) => {
                Err(format!("{}; {error}", keys::unknown_in::<Self>(&steps)))
            }
        }
    }
}

/// The error without the line and column: the operator wrote TOML, not this JSON.
fn what(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) if error.is_data() => text[..end].to_owned(),
        _ => text,
    }
}

use alloc::borrow::ToOwned as _;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Limits {
        burst: u32,
        #[serde(default)]
        rules: Vec<Rule>,
        inner: Option<Rule>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Rule {
        port: u16,
    }

    fn refusal(json: &str) -> String {
        Limits::from_json(json.as_bytes()).expect_err(json)
    }

    #[test]
    fn a_configuration_is_read_into_the_plugins_type() {
        let limits = Limits::from_json(br#"{"burst": 3, "rules": [{"port": 53}]}"#).expect("good");
        assert_eq!(limits, Limits { burst: 3, rules: vec![Rule { port: 53 }], inner: None });
        assert_eq!(NoConfig::from_json(b"{}"), Ok(NoConfig {}));
        assert_eq!(RawConfig::from_json(b"{\"a\":1}").expect("any").0, b"{\"a\":1}");
    }

    #[test]
    fn what_is_wrong_is_named_by_its_path() {
        for (json, expected) in [
            (
                r#"{"burst": 1, "brust": 2}"#,
                "`brust`: unknown key, expected one of `burst`, `rules`, `inner`",
            ),
            (
                r#"{"burst": 1, "rules": [{"port": 1}, {"port": 2, "p": 3}]}"#,
                "`rules[1].p`: unknown key, expected `port`",
            ),
            (
                r#"{"burst": 1, "inner": {"port": 2, "p": {"q": 3}}}"#,
                "`inner.p`: unknown key, expected `port`",
            ),
            (r#"{"burst": 1, "rules": [{"port": 65536}]}"#, "`rules[0].port`: invalid value"),
            (r#"{"burst": "1"}"#, "`burst`: invalid type: string \"1\", expected u32"),
            (r#"{"rules": []}"#, "missing field `burst`"),
            // A misspelt key is an unknown and a missing one.
            (
                r#"{"brust": 1}"#,
                "`brust`: unknown key, expected one of `burst`, `rules`, `inner`; missing field `burst`",
            ),
            (
                r#"{"burst": 1, "rules": [{"prot": 1}]}"#,
                "`rules[0].prot`: unknown key, expected `port`; `rules[0]`: missing field `port`",
            ),
            (r#"{"burst": 1"#, "EOF"),
            ("[]", "invalid length 0"),
        ] {
            let text = refusal(json);
            assert!(text.contains(expected), "{json}: {text}");
            assert!(!text.contains("at line") || json.ends_with('1'), "{text}");
        }
        let none = "`x`: unknown key, there are none";
        assert_eq!(NoConfig::from_json(b"{\"x\":1}"), Err(none.to_owned()));
    }
}
