//! [`Status`]: what `sluice status --json` says, as far as the lab asks.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The report of a router.
#[derive(Clone, Debug)]
pub struct Status(Value);

impl Status {
    /// A report that has been read.
    #[must_use]
    pub fn new(report: Value) -> Self {
        Self(report)
    }

    /// Reads the report.
    ///
    /// # Errors
    /// When it is no JSON.
    pub fn parse(text: &str) -> Result<Self> {
        serde_json::from_str(text).map(Self).context("`sluice status --json` gave no JSON")
    }

    /// All of it.
    #[must_use]
    pub fn value(&self) -> &Value {
        &self.0
    }

    /// The rows of the interfaces.
    ///
    /// # Errors
    /// When there are none.
    pub fn interfaces(&self) -> Result<&[Value]> {
        match self.0["interfaces"].as_array() {
            Some(rows) if !rows.is_empty() => Ok(rows),
            _ => anyhow::bail!("the status report has no interfaces"),
        }
    }

    /// A counter, summed over the interfaces. An unknown one is an error of the lab, and 0.
    #[must_use]
    pub fn total(&self, counter: &str) -> u64 {
        let rows = self.0["interfaces"].as_array().into_iter().flatten();
        rows.filter_map(|row| row[counter].as_u64()).sum()
    }

    /// Packets dropped for a reason, over all interfaces.
    #[must_use]
    pub fn dropped(&self, reason: &str) -> u64 {
        let rows = self.0["interfaces"].as_array().into_iter().flatten();
        rows.filter_map(|row| row["drops"][reason].as_u64()).sum()
    }

    /// Packets dropped, by reason, without the reasons that never occurred.
    #[must_use]
    pub fn drops(&self) -> BTreeMap<String, u64> {
        let mut drops = BTreeMap::new();
        for row in self.0["interfaces"].as_array().into_iter().flatten() {
            for (reason, count) in row["drops"].as_object().into_iter().flatten() {
                if let Some(count @ 1..) = count.as_u64() {
                    *drops.entry(reason.clone()).or_default() += count;
                }
            }
        }
        drops
    }

    /// What the classifier counted for a reason.
    #[must_use]
    pub fn classified(&self, reason: &str) -> u64 {
        let rows = self.0["classifier"].as_array().into_iter().flatten();
        rows.filter(|row| row["reason"] == reason).filter_map(|row| row["packets"].as_u64()).sum()
    }

    /// The number of the running version of a plugin.
    ///
    /// # Errors
    /// When there is no such plugin.
    pub fn plugin_generation(&self, name: &str) -> Result<u64> {
        self.0["plugins"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|plugin| plugin["name"] == name)
            .and_then(|plugin| plugin["generation"].as_u64())
            .with_context(|| format!("the status report has no plugin {name}"))
    }

    /// The ports of a slice, as text.
    #[must_use]
    pub fn slice_ports(&self, name: &str) -> Option<&str> {
        let rows = self.0["slices"].as_array()?;
        rows.iter().find(|row| row["name"] == name)?["ports"].as_str()
    }

    /// Checks that every received packet is accounted for, on each interface by itself. It holds
    /// exactly while no packet is on its way. Returns the number of packets received.
    ///
    /// # Errors
    /// The terms of the first interface that does not add up.
    pub fn accounting(&self) -> Result<u64> {
        let mut packets = 0;
        for row in self.interfaces()? {
            let name = row["name"].as_str().unwrap_or("?");
            let term = |key: &str| row[key].as_u64().with_context(|| format!("{name}: no {key}"));
            let received = term("rx_packets")?;
            let fates = ["forwarded", "to_kernel", "consumed", "held"];
            let mut sum = 0;
            for fate in fates {
                sum += term(fate)?;
            }
            let drops = row["drops"].as_object().with_context(|| format!("{name}: no drops"))?;
            sum += drops.values().filter_map(Value::as_u64).sum::<u64>();
            ensure!(
                received == sum,
                "{name}: {received} packets received, {sum} accounted for: {row}"
            );
            packets += received;
        }
        Ok(packets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"{
        "interfaces": [
            {"name": "wan0", "rx_packets": 10, "forwarded": 4, "to_kernel": 1, "consumed": 1,
             "held": 1, "drops": {"no-route": 3, "not-ip": 0}},
            {"name": "lan0", "rx_packets": 2, "forwarded": 0, "to_kernel": 0, "consumed": 0,
             "held": 0, "drops": {"no-route": 2}}
        ],
        "plugins": [{"name": "filter", "generation": 3}],
        "slices": [{"name": "a4", "ports": "1024-2047"}]
    }"#;

    #[test]
    fn counters_are_summed_and_must_add_up() {
        let status = Status::parse(REPORT).expect("JSON");
        assert_eq!(status.total("rx_packets"), 12);
        assert_eq!(status.dropped("no-route"), 5);
        assert_eq!(status.drops(), [("no-route".to_owned(), 5)].into());
        assert_eq!(status.plugin_generation("filter").expect("it is there"), 3);
        assert_eq!(status.slice_ports("a4"), Some("1024-2047"));
        assert_eq!(status.accounting().expect("it adds up"), 12);
        let wrong = REPORT.replace("\"consumed\": 1", "\"consumed\": 2");
        let error = Status::parse(&wrong).expect("JSON").accounting().expect_err("one too many");
        assert!(error.to_string().starts_with("wan0: 10 packets received, 11"), "{error}");
    }
}
