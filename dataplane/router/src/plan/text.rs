//! A plan for people.

use std::fmt::Write as _;

use super::PlanReport;
use super::report::{Group, SampleReport, Share};

/// Changes that a refusal names.
const TOP_CHANGES: usize = 5;

/// Renders a plan.
pub(crate) fn render(report: &PlanReport) -> String {
    let mut text =
        format!("plan of {}, configuration {} in force\n", report.file, report.configuration);
    // Writing to a string cannot fail.
    if report.differs.is_empty() {
        let _ = writeln!(text, "differs    nothing: a reload would change nothing");
        return text;
    }
    let _ = writeln!(text, "differs    {}", report.differs.join(", "));
    let _ = writeln!(text, "sample     {}", sample(&report.sample));
    for (reason, packets) in &report.sample.not_judged {
        let _ = writeln!(text, "           not judged: {packets} {reason}");
    }
    for plugin in &report.not_asked {
        let _ =
            writeln!(text, "not asked  plugin {plugin} is stateful: as if it let everything pass");
    }
    for note in &report.notes {
        let _ = writeln!(text, "note       {note}");
    }
    if report.is_blind() {
        let _ = writeln!(text, "changes    unknown: there is no packet to judge by");
        return text;
    }
    if report.changed.sampled == 0 {
        let _ = writeln!(text, "changes    none of these packets{}", unseen(report));
        return text;
    }
    let _ = writeln!(text, "changes    {}", share(&report.changed));
    for group in &report.groups {
        text += &changes(group);
    }
    if report.rest.groups > 0 {
        let rest = &report.rest;
        let _ = writeln!(text, "\nand {} more changes: {}", rest.groups, share(&rest.share));
    }
    text
}

fn sample(sample: &SampleReport) -> String {
    let Share { flows, sampled, packets, .. } = &sample.judged;
    if *sampled == 0 {
        return format!("no packet was received yet by {}", count(sample.workers, "worker"));
    }
    let which = if sample.is_every_packet {
        format!("the last {sampled} packets")
    } else {
        format!("{sampled} packets, which stand for {packets}")
    };
    let until = if sample.newest_s >= 1.5 {
        format!("{} to {} ago", duration(sample.oldest_s), duration(sample.newest_s))
    } else {
        format!("in the last {}", duration(sample.oldest_s))
    };
    let flows = count(usize::try_from(*flows).unwrap_or(usize::MAX), "flow");
    format!("{which}, of {flows}, received by {} {until}", count(sample.workers, "worker"))
}

/// What a sample without a change leaves open: the rule of three, by which an event that n trials do not
/// show is, with 95 percent confidence, rarer than 3 in n.
fn unseen(report: &PlanReport) -> String {
    let sample = &report.sample;
    if sample.is_every_packet {
        return String::new();
    }
    let bound = 300.0 / sample.judged.sampled as f64;
    format!(", so that less than {bound:.2}% of the traffic does (at 95% confidence)")
}

fn share(share: &Share) -> String {
    let flows = count(usize::try_from(share.flows).unwrap_or(usize::MAX), "flow");
    let packets = count(usize::try_from(share.packets).unwrap_or(usize::MAX), "packet");
    format!("{flows}, {packets}, {}", percent(share.percent))
}

fn percent(percent: f64) -> String {
    if percent > 0.0 && percent < 0.01 { "<0.01%".to_owned() } else { format!("{percent:.2}%") }
}

fn changes(group: &Group) -> String {
    let mut text = format!("\n{}: {}\n", group.kind.label(), share(&group.share));
    let _ = writeln!(text, "  -  {}\n  +  {}", group.before, group.after);
    for example in &group.examples {
        let _ = writeln!(text, "     {example}");
    }
    text
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn duration(seconds: f64) -> String {
    match seconds {
        ..120.0 => format!("{seconds:.1} s"),
        ..7200.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.0} h", seconds / 3600.0),
    }
}

/// The largest changes, a line each.
pub(crate) fn top_changes(report: &PlanReport) -> String {
    let mut text = String::new();
    for group in report.groups.iter().take(TOP_CHANGES) {
        let _ = write!(
            text,
            "\n  {}: {}\n    -  {}\n    +  {}",
            group.kind.label(),
            share(&group.share),
            group.before,
            group.after
        );
    }
    let more = report.groups.len().saturating_sub(TOP_CHANGES) + report.rest.groups;
    if more > 0 {
        let _ = write!(text, "\n  and {more} more: sluice plan shows them");
    }
    text
}

/// What changes, in a line.
pub(crate) fn summary(report: &PlanReport) -> String {
    share(&report.changed)
}
