//! Ordered rules on prefixes, ports, protocol, direction and TCP flags: the first that matches
//! decides. See `README.md` for the configuration.
#![deny(unsafe_code)]

mod classifier;
mod config;

use sluice_sdk::{Batch, Plugin, RawConfig, Reason, Verdict};

pub use classifier::Classifier;
pub use config::{Action, Config, Rule};

/// The most rules: each has a counter.
pub const RULES_MAX: usize = 1024;
/// The plugin: the rules, compiled once, with the verdict of each.
#[derive(Debug)]
pub struct Filter {
    classifier: Classifier,
    verdicts: Vec<Verdict>,
    no_rule: Verdict,
}

#[sluice_sdk::plugin(manifest = "manifest.toml")]
impl Plugin for Filter {
    type Config = RawConfig;

    fn configure(config: RawConfig) -> Result<Self, String> {
        let config = Config::parse(&config.0)?;
        let verdict = |action, reason: Reason| match action {
            Action::Allow => Verdict::CONTINUE,
            Action::Drop => reason.verdict(),
        };
        Ok(Self {
            classifier: Classifier::new(&config.rules),
            verdicts: config.rules.iter().map(|rule| verdict(rule.action, reason::RULE)).collect(),
            no_rule: verdict(config.default, reason::NO_RULE),
        })
    }

    fn process(&mut self, batch: &mut Batch<'_>) {
        let (packets, mut counters) = batch.split();
        for mut packet in packets {
            let (verdict, counter) = match self.classifier.first_match(&packet) {
                Some(rule) => (self.verdicts[rule], counter::RULE_HITS.at(rule)),
                None => (self.no_rule, counter::NO_RULE),
            };
            packet.set_verdict(verdict);
            counters.add(counter, 1);
        }
    }
}

#[cfg(test)]
mod tests;
