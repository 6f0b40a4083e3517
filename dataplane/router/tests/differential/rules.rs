//! The committed list of intended differences, and what it explains.

use serde::Deserialize;

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rules {
    /// Differences in what comes out.
    #[serde(default)]
    pub(crate) outcome: Vec<Outcome>,
    /// Differences in parts of frames that are otherwise the same.
    #[serde(default)]
    pub(crate) part: Vec<Part>,
}

/// Something else comes out.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Outcome {
    /// Classes of packets, with `*` for any text.
    pub(crate) class: Vec<String>,
    /// What the kernel sends, with `*` for any text.
    pub(crate) linux: String,
    /// What Sluice sends, with `*` for any text.
    pub(crate) sluice: String,
    /// Why.
    pub(crate) reason: String,
    /// The mode of source validation that it is about; all of them without one.
    #[serde(default)]
    pub(crate) mode: Option<String>,
    /// A gap that is to be closed, and no intention.
    #[serde(default)]
    pub(crate) known_gap: bool,
    /// It may explain nothing: which of several next hops a flow takes follows from a number that the kernel draws
    /// when it boots.
    #[serde(default)]
    pub(crate) by_chance: bool,
    #[serde(skip)]
    pub(crate) used: usize,
}

/// The same comes out, but for some parts.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Part {
    pub(crate) class: Vec<String>,
    /// What both send, with `*` for any text.
    pub(crate) output: String,
    /// Names of the parts that may differ.
    pub(crate) parts: Vec<String>,
    pub(crate) reason: String,
    #[serde(skip)]
    pub(crate) used: usize,
}

/// Whether `text` is what `pattern` says, in which `*` stands for any text.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|text| {
            (0..=text.len())
                .filter(|&at| text.is_char_boundary(at))
                .any(|at| matches(rest, &text[at..]))
        }),
    }
}

fn any(patterns: &[String], text: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern, text))
}

impl Rules {
    /// Whether a rule explains that the one sends `linux` and the other `sluice`.
    pub(crate) fn explain_outcome(&mut self, class: &str, linux: &str, sluice: &str) -> bool {
        let rule = self.outcome.iter_mut().find(|rule| {
            any(&rule.class, class) && matches(&rule.linux, linux) && matches(&rule.sluice, sluice)
        });
        rule.map(|rule| rule.used += 1).is_some()
    }

    /// Whether a rule explains that this part of an output differs.
    pub(crate) fn explain_part(&mut self, class: &str, output: &str, part: &str) -> bool {
        let rule = self.part.iter_mut().find(|rule| {
            any(&rule.class, class)
                && matches(&rule.output, output)
                && rule.parts.iter().any(|name| name == part)
        });
        rule.map(|rule| rule.used += 1).is_some()
    }

    /// Forgets the rules about other modes of source validation.
    pub(crate) fn keep_for(&mut self, mode: &str) {
        self.outcome.retain(|rule| rule.mode.as_deref().is_none_or(|of| of == mode));
    }

    /// Takes over what the errors of the two routers differ in anyhow.
    pub(crate) fn with_parts_of(&mut self, mut other: Self) {
        other.part.iter_mut().for_each(|part| part.used = 1);
        self.part.append(&mut other.part);
    }

    /// Rules that say why in no word.
    pub(crate) fn without_reason(&self) -> usize {
        let reasons = self.outcome.iter().map(|rule| &rule.reason);
        let reasons = reasons.chain(self.part.iter().map(|rule| &rule.reason));
        reasons.filter(|reason| reason.trim().is_empty()).count()
    }

    /// Rules that explained nothing, and not by chance.
    pub(crate) fn unused(&self) -> Vec<String> {
        let outcomes = self.outcome.iter().filter(|rule| rule.used == 0 && !rule.by_chance);
        let parts = self.part.iter().filter(|rule| rule.used == 0);
        outcomes
            .map(|rule| {
                format!("{:?}: linux {:?}, sluice {:?}", rule.class, rule.linux, rule.sluice)
            })
            .chain(parts.map(|rule| format!("{:?}: parts {:?}", rule.class, rule.parts)))
            .collect()
    }
}
