//! [`Report`]: named checks, what came of them, and one verdict.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};

/// What came of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What the checks around it are about; empty where they are about nothing in particular.
    pub act: String,
    /// What was checked.
    pub name: String,
    /// Whether it was right.
    pub passed: bool,
    /// What was seen, or what was wrong.
    pub detail: String,
    /// How long it took.
    pub duration: Duration,
}

/// Named checks in their order.
#[derive(Clone, Debug)]
pub struct Report {
    title: String,
    act: String,
    checks: Vec<Check>,
    totals: Vec<(String, Value)>,
}

impl Report {
    /// A report without checks, which has not passed.
    #[must_use]
    pub fn new(title: &str) -> Self {
        Self { title: title.to_owned(), act: String::new(), checks: Vec::new(), totals: Vec::new() }
    }

    /// Shows what the next checks are about.
    pub fn act(&mut self, title: &str) {
        eprintln!("\n{title}");
        title.clone_into(&mut self.act);
    }

    /// Notes something that was counted over the whole run: a number, or numbers by name. It is
    /// shown at the end.
    pub fn total(&mut self, name: impl Into<String>, value: impl Into<Value>) {
        self.totals.push((name.into(), value.into()));
    }

    /// Does a check, notes what came of it, and shows it as progress. An error is what was wrong.
    /// Returns whether it was right.
    pub fn check(
        &mut self,
        name: impl Into<String>,
        work: impl FnOnce() -> Result<String>,
    ) -> bool {
        let started = Instant::now();
        let outcome = work();
        let (passed, detail) = match outcome {
            Ok(detail) => (true, detail),
            Err(error) => (false, format!("{error:#}")),
        };
        let act = self.act.clone();
        let check = Check { act, name: name.into(), passed, detail, duration: started.elapsed() };
        eprintln!("{check}");
        self.checks.push(check);
        passed
    }

    /// As [`Self::check`], for a check that has nothing to tell when it is right.
    pub fn timed(&mut self, name: &str, work: impl FnOnce() -> Result<()>) -> bool {
        self.check(name, || work().map(|()| String::new()))
    }

    /// The checks so far.
    #[must_use]
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// Whether something was checked, and all of it was right.
    #[must_use]
    pub fn passed(&self) -> bool {
        !self.checks.is_empty() && self.checks.iter().all(|check| check.passed)
    }

    /// The report for machines.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let checks: Vec<_> = self
            .checks
            .iter()
            .map(|check| {
                json!({
                    "act": check.act,
                    "name": check.name,
                    "passed": check.passed,
                    "detail": check.detail,
                    "duration_ms": u64::try_from(check.duration.as_millis()).unwrap_or(u64::MAX),
                })
            })
            .collect();
        let totals: serde_json::Map<_, _> = self
            .totals
            .iter()
            .map(|(name, value)| (name.replace(' ', "_"), value.clone()))
            .collect();
        json!({
            "title": self.title,
            "passed": self.passed(),
            "checks": checks,
            "totals": totals,
        })
    }

    /// Prints the outcome: all of it as JSON, or as text, of which the checks were shown already.
    pub fn print(&self, as_json: bool) {
        if as_json {
            println!("{:#}", self.to_json());
        } else {
            println!();
            for (name, value) in &self.totals {
                println!("{name:35} {}", in_words(value));
            }
            for check in self.checks.iter().filter(|check| !check.passed) {
                println!("{check}");
            }
            println!("{}", self.verdict());
        }
    }

    /// The report in one line.
    fn verdict(&self) -> String {
        let passed = self.checks.iter().filter(|check| check.passed).count();
        let verdict = if self.passed() { "passed" } else { "FAILED" };
        format!("{} {verdict}: {passed} of {} checks", self.title, self.checks.len())
    }
}

/// A number, or numbers by name.
fn in_words(value: &Value) -> String {
    match value.as_object() {
        None => value.to_string(),
        Some(parts) if parts.is_empty() => "none".to_owned(),
        Some(parts) => {
            let words: Vec<_> =
                parts.iter().map(|(name, value)| format!("{name} {value}")).collect();
            words.join(", ")
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = if self.passed { "ok    " } else { "FAILED" };
        write!(f, "{outcome} {} ({:.1} s)", self.name, self.duration.as_secs_f64())?;
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for check in &self.checks {
            writeln!(f, "{check}")?;
        }
        f.write_str(&self.verdict())
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn one_failure_fails_the_report_and_keeps_its_causes() {
        let mut report = Report::new("example");
        assert!(!report.passed(), "nothing checked is nothing passed");
        assert!(report.check("first", || Ok("as expected".to_owned())));
        assert!(report.passed());
        assert!(!report.timed("second", || Err(anyhow!("cause")).context("effect")));
        assert!(!report.passed());
        let json = report.to_json();
        assert_eq!(json["passed"], false);
        assert_eq!(json["checks"][0]["detail"], "as expected");
        assert_eq!(json["checks"][1]["detail"], "effect: cause");
        report.total("packets dropped", json!({ "no-route": 2, "not-ip": 1 }));
        assert_eq!(report.to_json()["totals"]["packets_dropped"]["no-route"], 2);
        assert_eq!(in_words(&report.totals[0].1), "no-route 2, not-ip 1");
        let text = report.to_string();
        assert!(text.contains("FAILED second"), "{text}");
        assert!(text.ends_with("example FAILED: 1 of 2 checks"), "{text}");
    }
}
