//! An explanation for people: a line a step, the end last.

use std::fmt::Write as _;

use super::Explanation;

/// Width of the column of stages: that of the longest one and a space.
const STAGE_WIDTH: usize = 16;

/// Renders an explanation, with the verdict of the classifier in front if it was asked.
pub(crate) fn render(explanation: &Explanation, classifier: Option<&str>) -> String {
    let mut text = format!("{}\n", explanation.packet);
    let mut line = |stage: &str, words: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {stage:<STAGE_WIDTH$}{words}");
    };
    if let Some(classifier) = classifier {
        line("classifier", classifier);
    }
    for step in &explanation.steps {
        line(&step.stage, &step.result);
    }
    let verdict = &explanation.verdict;
    let mut words = verdict.words();
    if let Some(stage) = &verdict.stage {
        let _ = write!(words, " (by {stage})");
    }
    if let [others @ .., last] = &*verdict.if_passed_by {
        let _ = match others {
            [] => write!(words, ", if {last} lets it pass as it is"),
            _ => write!(words, ", if {} and {last} let it pass as it is", others.join(", ")),
        };
    }
    line("verdict", &words);
    if let Some(help) = &verdict.help {
        line("", help);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::VerdictReport;
    use super::*;

    #[test]
    fn the_end_names_who_may_change_it() {
        let verdict = |by: &[&str]| -> VerdictReport {
            let value = serde_json::json!({"kind": "punt", "if_passed_by": by});
            serde_json::from_value(value).expect("a verdict")
        };
        for (by, end) in [
            (&[][..], "to the kernel\n"),
            (&["a"], "to the kernel, if a lets it pass as it is\n"),
            (&["a", "b", "c"], "to the kernel, if a, b and c let it pass as it is\n"),
        ] {
            let (packet, interface, steps) = (String::new(), String::new(), Vec::new());
            let explanation = Explanation { packet, interface, steps, verdict: verdict(by) };
            assert!(render(&explanation, None).ends_with(end), "{}", render(&explanation, None));
        }
    }
}
