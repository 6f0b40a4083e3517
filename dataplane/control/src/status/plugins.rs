//! What an operator has to know of a plugin beside its numbers: why its files were refused, and on what it
//! trapped when it was priced.

use std::fmt::Write as _;

use serde_json::Value;

use super::StatusReport;

/// The last refusal of a plugin, as the policy host reports it: how long ago, how many there were, and why;
/// `None` if none stands.
#[must_use]
pub fn refusal_text(plugin: &Value) -> Option<String> {
    let refusal = plugin.get("last_refusal")?;
    let reason = refusal.get("reason").and_then(Value::as_str)?;
    let number = |of: &Value, key: &str| of.get(key).and_then(Value::as_u64);
    let seconds = number(refusal, "seconds_ago").unwrap_or_default();
    let refused = number(plugin, "refused").unwrap_or(1);
    Some(format!("{seconds} s ago ({refused} in all): {reason}"))
}

/// Lines about each plugin that has something to tell, and an empty one behind them.
pub(super) fn render(report: &StatusReport, out: &mut String) {
    let mut has_lines = false;
    for plugin in &report.plugins {
        let name = plugin.get("name").and_then(Value::as_str).unwrap_or("-");
        let trapped = plugin.get("price").and_then(|price| price.get("trapped"));
        let trapped = trapped.and_then(Value::as_str).map(|text| format!("priced: {text}"));
        let refused = refusal_text(plugin).map(|text| format!("refused {text}"));
        for text in trapped.into_iter().chain(refused) {
            for (number, line) in text.lines().enumerate() {
                // A String takes writes without an error.
                let _ = match number {
                    0 => writeln!(out, "  {name} {line}"),
                    _ => writeln!(out, "    {line}"),
                };
            }
            has_lines = true;
        }
    }
    if has_lines {
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_stands_is_told_and_what_does_not_is_not() {
        let refused = json!({ "name": "a", "refused": 3,
                              "last_refusal": { "seconds_ago": 12, "reason": "one\ntwo" } });
        let priced = json!({ "name": "b", "refused": 1, "last_refusal": null,
                             "price": { "trapped": "trapped on 2 of 5 recorded batches: it gave up" } });
        let mut report = StatusReport { plugins: vec![refused, priced], ..StatusReport::default() };
        let mut out = String::new();
        render(&report, &mut out);
        assert_eq!(
            out,
            "  a refused 12 s ago (3 in all): one\n    two\n  b priced: trapped on 2 of 5 recorded \
             batches: it gave up\n\n"
        );
        report.plugins = vec![json!({ "name": "c", "refused": 0, "price": {} })];
        out.clear();
        render(&report, &mut out);
        assert!(out.is_empty(), "{out}");
    }
}
