//! The report as Markdown: the tables, each with the commands that measured it.

use super::model::{Mark, Origin, Place, Section, Table, mark_kinds};
use super::source::Source;
use super::{NOT_COMPARED, overview};

pub(super) fn text(sources: &[Source], parts: &[(Place<'_>, Vec<Section>)]) -> String {
    let mut out = vec!["# Sluice: measurements".to_owned(), escape(&overview(sources))];
    if parts.len() > 1 {
        out.push(NOT_COMPARED.to_owned());
    }
    for (place, sections) in parts {
        out.push(format!("## {}", escape(&place.name())));
        out.push(summary(sections));
        let kinds = mark_kinds(sections);
        let kinds = kinds.iter().map(|kind| format!("- {}: {}.", kind.label(), kind.help()));
        out.extend(lines(kinds.collect()));
        for section in sections {
            out.push(format!("### {}", section.title));
            out.push(section.intro.clone());
            for block in &section.blocks {
                out.push(format!("#### {}", escape(&block.title)));
                out.push(table(&block.table));
                out.extend(block.notes.iter().map(|note| escape(note)));
                out.extend(lines(block.origins.iter().map(origin).collect()));
            }
        }
    }
    out.join("\n\n") + "\n"
}

/// Lines of one paragraph; none if there are none.
fn lines(lines: Vec<String>) -> Option<String> {
    (!lines.is_empty()).then(|| lines.join("\n"))
}

fn summary(sections: &[Section]) -> String {
    let mut lines = vec![
        "| measured | conditions | subject | result | notes |".to_owned(),
        "|---|---|---|---|---|".to_owned(),
    ];
    for row in sections.iter().flat_map(|section| &section.summary) {
        let cells = [row.what, &row.conditions, &row.subject, &row.result, &marks(&row.marks)];
        lines.push(line(cells.into_iter().map(escape)));
    }
    lines.join("\n")
}

fn marks(marks: &[Mark]) -> String {
    let text = |mark: &Mark| {
        let label = mark.kind.label();
        if mark.text.is_empty() { label.to_owned() } else { format!("{label}: {}", mark.text) }
    };
    marks.iter().map(text).collect::<Vec<_>>().join("; ")
}

fn line(cells: impl Iterator<Item = String>) -> String {
    format!("| {} |", cells.collect::<Vec<_>>().join(" | "))
}

fn table(table: &Table) -> String {
    let has_marks = table.has_marks();
    let notes = || has_marks.then(|| "notes".to_owned());
    let labels = table.columns.iter().map(|column| column.label.to_owned());
    let mut lines = vec![line(std::iter::once("run".to_owned()).chain(labels).chain(notes()))];
    let rule = |is_number| if is_number { "---:" } else { "---" }.to_owned();
    let rules = table.columns.iter().map(|column| rule(column.is_number));
    let last = has_marks.then(|| rule(false));
    lines.push(line(std::iter::once(rule(false)).chain(rules).chain(last)));
    for row in &table.rows {
        let number = std::iter::once(format!("[{}]", row.origin));
        let cells = number.chain(row.cells.iter().cloned());
        let cells = cells.chain(has_marks.then(|| marks(&row.marks)));
        lines.push(line(cells.map(|cell| escape(&cell))));
    }
    lines.join("\n")
}

fn origin(origin: &Origin) -> String {
    let Origin { number, title, command, about } = origin;
    format!("- \\[{number}\\] {}: {} ({})", escape(title), code(command), escape(about))
}

/// Text that Markdown takes as it is, in a cell or outside of one.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '~' | '!' => {
                out.extend(['\\', character]);
            }
            _ if character.is_control() => out.push(' '),
            _ => out.push(character),
        }
    }
    out
}

/// A code span: its fence is longer than any run of backquotes in it.
fn code(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let longest = clean.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    // A space at both ends is taken off again, and parts the fence from a backquote at the end.
    if longest > 0 { format!("{fence} {clean} {fence}") } else { format!("{fence}{clean}{fence}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_what_markdown_would_take_for_its_own() {
        assert_eq!(escape("a|b <i>\n*x* `y`"), "a\\|b &lt;i&gt; \\*x\\* \\`y\\`");
        assert_eq!(code("sluice run"), "`sluice run`");
        assert_eq!(code("echo `id` ``x"), "``` echo `id` ``x ```");
        assert_eq!(code("a\nb"), "`a b`");
    }
}
