//! Prints the part of `benches/TABLES.md` for one family, of what the bench `tables` measured.
//!
//! `matrix FAMILY FOLDER..`: `4` or `6`, and criterion's folders, such as `target/criterion`: one for each run,
//! by CRITERION_HOME. Of several runs the lowest median counts, cell by cell: noise only adds.

use std::path::{Path, PathBuf};

use benches::destinations::Spread;
use benches::routes::Routes;
use serde_json::Value;

/// Names of sizes in rows; the last stands for all routes.
const SIZES: [&str; 6] = ["1", "1K", "10K", "80K", "100K", "1M"];
const BATCHES: [u32; 3] = [32, 64, 256];
/// Sets of instructions: what they are called here, and what they add to a row's name.
const SETS: [(&str, &str); 4] =
    [("best", ""), ("avx512", "+avx512"), ("avx2", "+avx2"), ("portable", "+portable")];
/// Instructions of other work between single look-ups.
const STEPS: [u32; 2] = [64, 256];

/// Criterion's folders.
struct Runs(Vec<PathBuf>);

impl Runs {
    /// The lowest median of a row, in nanoseconds; nothing if no run has it.
    fn lowest(&self, row: &str) -> Option<f64> {
        self.0.iter().filter_map(|run| median(&run.join(row))).min_by(f64::total_cmp)
    }

    /// Nanoseconds a look-up in batches of each size.
    fn cell(&self, group: &str, name: &str) -> Option<String> {
        let figures = BATCHES.map(|batch| {
            let of_batch = self.lowest(&format!("{group}/{name}/{batch}"))?;
            Some(format!("{:.1}", of_batch / f64::from(batch)))
        });
        let figures: Option<Vec<String>> = figures.into_iter().collect();
        Some(figures?.join(" / "))
    }
}

fn median(row: &Path) -> Option<f64> {
    let text = std::fs::read_to_string(row.join("new/estimates.json")).ok()?;
    let estimates: Value = serde_json::from_str(&text).expect("criterion writes JSON");
    estimates["median"]["point_estimate"].as_f64()
}

fn with_commas(count: usize) -> String {
    let digits = count.to_string();
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|group| std::str::from_utf8(group).expect("digits"))
        .collect();
    groups.join(",")
}

fn line(cells: impl IntoIterator<Item = String>) {
    println!("| {} |", cells.into_iter().collect::<Vec<_>>().join(" | "));
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let family = arguments.next().filter(|family| ["4", "6"].contains(&&**family));
    let runs = Runs(arguments.map(PathBuf::from).collect());
    let Some(family) = family.filter(|_| !runs.0.is_empty()) else {
        eprintln!("usage: matrix 4|6 FOLDER..");
        std::process::exit(2);
    };
    let routes = Routes::full();
    let all = if family == "4" { routes.v4.len() } else { routes.v6.len() };
    for spread in Spread::ALL {
        let title = match spread {
            Spread::Random if family == "6" => "any addresses in 2000::/3",
            Spread::Random => "any addresses",
            Spread::InPrefix => "addresses inside routes",
            Spread::Zipf => "addresses inside routes, by Zipf's law",
        };
        let group = format!("fib{family}_{}", spread.name());
        // Sets that are the same for a family are not measured twice.
        let sets: Vec<_> = SETS
            .iter()
            .filter(|(_, added)| {
                SIZES.iter().any(|size| runs.cell(&group, &format!("{size}{added}")).is_some())
            })
            .collect();
        if sets.is_empty() {
            continue;
        }
        println!("## IPv{family}, {title}\n");
        let columns = sets.iter().flat_map(|(name, _)| [*name, "+polluted"]);
        line(["routes"].into_iter().chain(columns).map(str::to_owned));
        println!("|{}", "---|".repeat(1 + 2 * sets.len()));
        for size in SIZES {
            let name = if size == "1M" { with_commas(all) } else { size.to_owned() };
            let cells = sets.iter().flat_map(|(_, added)| {
                ["", "+polluted"].map(|polluted| {
                    let found = runs.cell(&group, &format!("{size}{added}{polluted}"));
                    found.unwrap_or_else(|| "-".to_owned())
                })
            });
            line([name].into_iter().chain(cells));
        }
        println!();
    }
    println!("## IPv{family}, one look-up after another\n");
    line(
        ["instructions of other work between", "work alone", "with the look-up"].map(str::to_owned),
    );
    println!("|---|---|---|");
    for steps in STEPS {
        let figure = |of: &str| {
            let found = runs.lowest(&format!("single_{steps}/{of}"));
            found.map_or_else(|| "-".to_owned(), |ns| format!("{ns:.1}"))
        };
        line([steps.to_string(), figure("work alone"), figure(&format!("fib{family}"))]);
    }
}
