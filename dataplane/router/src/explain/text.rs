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
    line("verdict", &words);
    if let Some(help) = &verdict.help {
        line("", help);
    }
    text
}
