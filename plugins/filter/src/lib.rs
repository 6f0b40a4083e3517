//! Ordered rules on what a descriptor says of a packet: the first that matches decides. See
//! `README.md` for the configuration.
//!
//! ```text
//!  when = "expression" --expression--> Condition --clause--> [Clause] \
//!  source = [..], protocol = ..  ----------------config----> Clause    > classifier --> first match
//! ```
#![deny(unsafe_code)]

mod classifier;
mod clause;
pub mod column;
mod config;
mod expression;
mod ranges;

use sluice_sdk::{BATCH_MAX, Batch, Counter, Plugin, RawConfig, Reason, Verdict};

pub use classifier::{CLAUSES_MAX, Classifier, RANGES_MAX, TooMany};
pub use clause::{CLAUSES_PER_RULE_MAX, Clause, Condition, TooManyClauses};
pub use column::{Column, Values};
pub use config::{Action, Config, Fields, Rule, SETS_MAX};
pub use expression::{DEPTH_MAX, EXPRESSION_BYTES_MAX, ExpressionError, Sets, Value, parse};
pub use ranges::Ranges;

/// The most rules: each has a counter.
pub const RULES_MAX: usize = 1024;
/// The largest configuration, in bytes of JSON: sets of some ten thousand prefixes.
pub const CONFIG_BYTES_MAX: usize = 1 << 20;
/// What happens to packets that a clause is the first to match.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    verdict: Verdict,
    counter: Counter,
}

/// The plugin: the clauses of all rules, compiled once, with the outcome of each.
#[derive(Debug)]
pub struct Filter {
    classifier: Classifier,
    /// By the classifier's answer.
    outcomes: Vec<Outcome>,
    answers: Box<[u16; BATCH_MAX]>,
}

#[sluice_sdk::plugin(manifest = "manifest.toml", config_capacity = CONFIG_BYTES_MAX)]
impl Plugin for Filter {
    type Config = RawConfig;

    fn configure(config: RawConfig) -> Result<Self, String> {
        let config = Config::parse(&config.0)?;
        let verdict = |action, reason: Reason| match action {
            Action::Allow => Verdict::CONTINUE,
            Action::Drop => reason.verdict(),
        };
        let (mut clauses, mut by_clause) = (Vec::new(), Vec::new());
        for (rule, position) in config.rules.into_iter().zip(0..) {
            let counter = counter::RULE_HITS.at(position);
            let outcome = Outcome { verdict: verdict(rule.action, reason::RULE), counter };
            by_clause.extend(std::iter::repeat_n(outcome, rule.clauses.len()));
            clauses.extend(rule.clauses);
        }
        let classifier = Classifier::new(&clauses).map_err(|error| format!("`rules`: {error}"))?;
        let verdict = verdict(config.default, reason::NO_RULE);
        let none = Outcome { verdict, counter: counter::NO_RULE };
        let outcomes = (0..classifier.answers())
            .map(|answer| classifier.first(answer).map_or(none, |clause| by_clause[clause]))
            .collect();
        Ok(Self { classifier, outcomes, answers: Box::new([0; BATCH_MAX]) })
    }

    fn process(&mut self, batch: &mut Batch<'_>) {
        let packets = batch.descriptors();
        let answers = &mut self.answers[..packets.len()];
        self.classifier.classify(packets, answers);
        // By fours, since every turn of a loop costs a plugin a look at its budget.
        let outcome = |answer: u16| self.outcomes[usize::from(answer)];
        let (fours, rest) = answers.as_chunks::<4>();
        let (verdict_fours, verdict_rest) = batch.verdicts_mut().as_chunks_mut::<4>();
        for (verdicts, answers) in verdict_fours.iter_mut().zip(fours) {
            *verdicts = answers.map(|answer| outcome(answer).verdict);
        }
        for (verdict, answer) in verdict_rest.iter_mut().zip(rest) {
            *verdict = outcome(*answer).verdict;
        }
        // Most packets meet no rule: their counter is not written again and again.
        let mut unmatched = 0;
        let mut counters = batch.counters();
        let mut count = |answer: u16| {
            let Outcome { counter, .. } = outcome(answer);
            if counter == counter::NO_RULE {
                unmatched += 1;
            } else {
                counters.add(counter, 1);
            }
        };
        for answers in fours {
            answers.iter().copied().for_each(&mut count);
        }
        for answer in rest {
            count(*answer);
        }
        batch.count(counter::NO_RULE, unmatched);
    }
}

#[cfg(test)]
mod tests;
