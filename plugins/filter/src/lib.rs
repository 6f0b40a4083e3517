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

use sluice_sdk::{Batch, Counter, Plugin, RawConfig, Reason, Verdict};

pub use classifier::{CLAUSES_MAX, Classifier, Match, RANGES_MAX, TooMany};
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
    /// By clause; the last is that of packets which meet none.
    outcomes: Vec<Outcome>,
    /// The verdict of the last.
    default: Verdict,
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
        let (mut clauses, mut outcomes) = (Vec::new(), Vec::new());
        for (rule, position) in config.rules.into_iter().zip(0..) {
            let counter = counter::RULE_HITS.at(position);
            let outcome = Outcome { verdict: verdict(rule.action, reason::RULE), counter };
            outcomes.extend(std::iter::repeat_n(outcome, rule.clauses.len()));
            clauses.extend(rule.clauses);
        }
        let default = verdict(config.default, reason::NO_RULE);
        outcomes.push(Outcome { verdict: default, counter: counter::NO_RULE });
        let classifier = Classifier::new(&clauses).map_err(|error| format!("`rules`: {error}"))?;
        Ok(Self { classifier, outcomes, default })
    }

    fn process(&mut self, batch: &mut Batch<'_>) {
        let matches = self.classifier.classify(batch.descriptors());
        let (verdicts, mut counters) = batch.split_verdicts();
        counters.add(counter::NO_RULE, (verdicts.len() - matches.len()) as u64);
        // By eights, since every turn of a loop costs a plugin a look at its budget.
        let (eights, rest) = verdicts.as_chunks_mut::<8>();
        eights.iter_mut().for_each(|verdicts| *verdicts = [self.default; 8]);
        rest.fill(self.default);
        for a_match in matches {
            let outcome = self.outcomes[usize::from(a_match.clause)];
            verdicts[usize::from(a_match.position)] = outcome.verdict;
            counters.add(outcome.counter, 1);
        }
    }
}

#[cfg(test)]
mod tests;
