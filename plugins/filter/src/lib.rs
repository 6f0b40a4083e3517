//! Ordered rules on prefixes, ports, protocol, direction and TCP flags: the first that matches
//! decides. See `README.md` for the configuration.
#![deny(unsafe_code)]

mod classifier;
mod config;

use sluice_sdk::{Batch, Plugin, Verdict};

pub use classifier::Classifier;
pub use config::{Action, Config, Rule};

/// The most rules: each has a counter.
pub const RULES_MAX: usize = 1024;
/// Position of the counter of packets that no rule matched; those of the rules follow.
pub const COUNTER_NO_RULE: usize = 0;
/// All counters that the manifest names.
pub const COUNTERS: usize = 1 + RULES_MAX;
/// The reason of a drop by a rule.
pub const REASON_RULE: u32 = 0;
/// The reason of a drop because no rule matched and `default` is `"drop"`.
pub const REASON_NO_RULE: u32 = 1;

/// The plugin: the rules, compiled once, with the verdict of each.
#[derive(Debug)]
pub struct Filter {
    classifier: Classifier,
    verdicts: Vec<Verdict>,
    no_rule: Verdict,
}

impl Plugin for Filter {
    fn configure(config: &[u8]) -> Result<Self, String> {
        let config = Config::parse(config)?;
        let verdict = |action, reason| match action {
            Action::Allow => Verdict::CONTINUE,
            Action::Drop => Verdict::drop(reason),
        };
        Ok(Self {
            classifier: Classifier::new(&config.rules),
            verdicts: config.rules.iter().map(|rule| verdict(rule.action, REASON_RULE)).collect(),
            no_rule: verdict(config.default, REASON_NO_RULE),
        })
    }

    fn process(&mut self, batch: &mut Batch<'_>) {
        let (packets, counters) = batch.split();
        for (packet, verdict) in packets {
            let (answer, counter) = match self.classifier.first_match(packet) {
                Some(rule) => (self.verdicts[rule], 1 + rule),
                None => (self.no_rule, COUNTER_NO_RULE),
            };
            *verdict = answer;
            if let Some(counter) = counters.get_mut(counter) {
                *counter += 1;
            }
        }
    }
}

sluice_sdk::export!(Filter, manifest = include_str!("../manifest.toml"), counters = COUNTERS);

#[cfg(test)]
mod tests;
