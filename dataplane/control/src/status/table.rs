//! Text tables: columns as wide as their widest cell, numbers to the right.

use std::fmt::Write as _;

/// On which side a column's cells stand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// A table under construction. A table without rows renders as nothing.
pub(super) struct Table {
    title: &'static str,
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(title: &'static str, columns: &[(&'static str, Align)]) -> Self {
        Self { title, columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; missing cells are empty.
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    /// Appends the table and one empty line to `out`. Each line of the table is indented by two.
    pub(super) fn render(&self, out: &mut String) {
        if self.rows.is_empty() {
            return;
        }
        // A String takes writes without an error.
        let _ = writeln!(out, "{}", self.title);
        let header: Vec<String> = self.columns.iter().map(|(name, _)| (*name).into()).collect();
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|column| {
                std::iter::once(&header)
                    .chain(&self.rows)
                    .filter_map(|row| row.get(column))
                    .map(|cell| cell.chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        for row in std::iter::once(&header).chain(&self.rows) {
            let mut line = String::from(" ");
            for ((cell, width), (_, align)) in row.iter().zip(&widths).zip(&self.columns) {
                let _ = match align {
                    Align::Left => write!(line, " {cell:<width$} "),
                    Align::Right => write!(line, " {cell:>width$} "),
                };
            }
            let _ = writeln!(out, "{}", line.trim_end());
        }
        out.push('\n');
    }
}

/// A count with thousands separated: `1,234,567`.
pub(super) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count with the noun that fits it.
pub(super) fn counted(value: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(value), if value == 1 { one } else { many })
}

/// Bytes, as MiB or KiB.
pub(super) fn size(bytes: u64) -> String {
    if bytes >= 1 << 20 {
        format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
    } else {
        format!("{} KiB", bytes.div_ceil(1 << 10))
    }
}

/// A rate with three significant digits and a unit: `1.23 M`, `999`, `0`.
pub(super) fn rate(value: f64) -> String {
    let (scaled, unit) = match value {
        v if v >= 1e9 => (v / 1e9, " G"),
        v if v >= 1e6 => (v / 1e6, " M"),
        v if v >= 1e4 => (v / 1e3, " k"),
        v => return format!("{v:.0}"),
    };
    format!("{scaled:.*}{unit}", if scaled < 10.0 { 2 } else { 1 })
}

/// Seconds as `3d 04:05:06` or `04:05:06`.
pub(super) fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    let clock = format!("{hours:02}:{minutes:02}:{:02}", seconds % 60);
    if days == 0 { clock } else { format!("{days}d {clock}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align() {
        let mut table = Table::new("things", &[("name", Align::Left), ("n", Align::Right)]);
        table.row(["a".into(), "1,000".into()]);
        table.row(["long name".into(), "2".into()]);
        let mut out = String::new();
        table.render(&mut out);
        assert_eq!(out, "things\n  name           n\n  a          1,000\n  long name      2\n\n");
    }

    #[test]
    fn an_empty_table_is_silent() {
        let mut out = String::new();
        Table::new("things", &[("name", Align::Left)]).render(&mut out);
        assert_eq!(out, "");
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1000), "1,000");
        assert_eq!(count(12_345_678), "12,345,678");
        assert_eq!(rate(0.0), "0");
        assert_eq!(rate(9_999.0), "9999");
        assert_eq!(rate(10_000.0), "10.0 k");
        assert_eq!(rate(1_234_567.0), "1.23 M");
        assert_eq!(rate(2.5e9), "2.50 G");
        assert_eq!(duration(59), "00:00:59");
        assert_eq!(duration(273_906), "3d 04:05:06");
    }
}
