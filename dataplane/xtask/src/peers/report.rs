//! What came of the rounds: a table for people, and documents for `sluice bench report`.
//!
//! The documents have the shape of the crate `load`'s `document.rs`, which this program cannot import,
//! as it is built before what that crate needs is there. Its test can, and reads one with it.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::rounds::{Outcome, Row};
use super::routers::{Router, kernel_release};
use super::statistics::{median, ratios, spread};
use crate::lab::configuration::replace;

/// The router that the others are compared with.
pub const OURS: &str = "sluice";

/// The version of the documents' format.
pub(crate) const SCHEMA: u32 = 1;

/// The outcome with whom it is about.
pub struct Report<'a> {
    /// Who was compared.
    pub routers: &'a [Box<dyn Router>],
    /// What came of it.
    pub outcome: &'a Outcome,
}

/// One of the two rates of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rate {
    Full,
    Ndr,
}

impl Rate {
    fn of(self, row: &Row) -> &[Option<f64>] {
        match self {
            Self::Full => &row.full_pps,
            Self::Ndr => &row.ndr_pps,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Full => "forwarded at full load",
            Self::Ndr => "NDR",
        }
    }
}

/// A row's figures of one rate.
struct Figures {
    rates: Vec<f64>,
    /// Sluice's rate over this one by round.
    ratios: Vec<f64>,
}

impl Report<'_> {
    /// Prints it: the table, or the document with the table on the standard error.
    ///
    /// # Errors
    /// When there is no JSON of it.
    pub fn print(&self, as_json: bool) -> Result<()> {
        if as_json {
            eprint!("{}", self.table());
            println!("{}", serde_json::to_string_pretty(&self.document())?);
        } else {
            print!("\n{}", self.table());
        }
        Ok(())
    }

    /// Writes the document as `peers.json`, and of each router and placement the search of the median
    /// round as `search-PLACEMENT-ROUTER.json`.
    ///
    /// # Errors
    /// When one cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let save = |name: &str, document: &Value| {
            replace(&folder.join(name), serde_json::to_string_pretty(document)?)
        };
        save("peers.json", &self.document())?;
        for row in &self.outcome.rows {
            let mut searches: Vec<_> = row.searches.iter().collect();
            searches.sort_by(|a, b| a.0.total_cmp(&b.0));
            if let Some((_, search)) = searches.get(searches.len() / 2) {
                let (place, name) = (row.placement.name(), self.routers[row.router].name());
                save(&format!("search-{place}-{name}.json"), search)?;
            }
        }
        Ok(())
    }

    fn has_searches(&self) -> bool {
        self.outcome.rows.iter().any(|row| row.ndr_pps.iter().any(Option::is_some))
    }

    fn rates(&self) -> &'static [Rate] {
        if self.has_searches() { &[Rate::Full, Rate::Ndr] } else { &[Rate::Full] }
    }

    fn figures(&self, row: &Row, rate: Rate) -> Figures {
        let ours = self.outcome.rows.iter().find(|other| {
            other.placement == row.placement && self.routers[other.router].name() == OURS
        });
        let ratios = ours.map(|ours| ratios(rate.of(ours), rate.of(row))).unwrap_or_default();
        Figures { rates: rate.of(row).iter().flatten().copied().collect(), ratios }
    }

    /// What the rate of a row is, with what limits it.
    fn rate_is(row: &Row, rate: Rate) -> String {
        if rate == Rate::Full && row.is_tester_limited {
            return format!("{}; at least this, the tester reached no more", rate.name());
        }
        rate.name().to_owned()
    }

    /// The document.
    #[must_use]
    pub fn document(&self) -> Value {
        let versions: Vec<_> = self.routers.iter().map(|router| router.version()).collect();
        let ours = self.routers.iter().position(|router| router.name() == OURS);
        let peers: Vec<_> = self
            .rates()
            .iter()
            .flat_map(|&rate| self.outcome.rows.iter().map(move |row| (rate, row)))
            .map(|(rate, row)| self.peer(row, rate, versions[row.router].as_deref()))
            .collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        json!({
            "schema": SCHEMA,
            "title": "Routers side by side",
            "command": command(),
            "version": ours.and_then(|ours| versions[ours].clone()).unwrap_or_default(),
            "started_unix_s": now.as_secs(),
            "machine": self.outcome.machine.clone().unwrap_or_else(machine),
            "outcome": { "kind": "peers", "traffic": self.traffic(), "peers": peers },
        })
    }

    fn peer(&self, row: &Row, rate: Rate, version: Option<&str>) -> Value {
        let figures = self.figures(row, rate);
        let nothing = figures.rates.is_empty();
        json!({
            "name": self.routers[row.router].name(),
            "version": version,
            "placement": row.placement.name(),
            "rate_pps": figures.rates,
            "rate_is": Self::rate_is(row, rate),
            "latency": row.latency(),
            "sluice_over_peer": median(&figures.ratios),
            "ratio_spread": spread(&figures.ratios),
            // One that failed in a later round has figures, and no reason to be left out.
            "skipped": nothing.then(|| row.why_skipped()),
        })
    }

    /// The traffic in words, with the load of the latencies.
    fn traffic(&self) -> String {
        let mut text = self.outcome.traffic.clone().unwrap_or_default();
        for (placement, pps) in &self.outcome.latency_pps {
            let _ = write!(text, "; latency at {:.3} Mpps ({})", pps / 1e6, placement.name());
        }
        text
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::new();
        // A String takes writes without an error.
        let _ = writeln!(text, "{}", self.traffic());
        let mut placement = None;
        for &rate in self.rates() {
            for row in &self.outcome.rows {
                if placement != Some((rate, row.placement)) {
                    placement = Some((rate, row.placement));
                    let _ = writeln!(
                        text,
                        "\n{}: {}\n{:18} {:>22} {:>24} {:>9} {:>9}",
                        row.placement.name(),
                        rate.name(),
                        "",
                        "Mpps (low-high)",
                        "sluice / it (low-high)",
                        "p50 us",
                        "p99 us",
                    );
                }
                let _ = writeln!(text, "{}", self.line(row, rate));
            }
        }
        let is_limited = self.outcome.rows.iter().any(|row| row.is_tester_limited);
        if is_limited {
            text += "\n> at least: the tester offered, or could count, no more\n";
        }
        text.push('\n');
        text += &self.notes();
        for router in self.routers {
            let version = router.version().unwrap_or_default();
            let _ = writeln!(text, "{:18} {} [{version}]", router.name(), router.about());
        }
        text
    }

    fn line(&self, row: &Row, rate: Rate) -> String {
        let name = self.routers[row.router].name();
        let figures = self.figures(row, rate);
        let (Some(middle), Some((low, high))) = (median(&figures.rates), spread(&figures.rates))
        else {
            return format!("{name:18} skipped: {}", row.why_skipped());
        };
        let at_least = if rate == Rate::Full && row.is_tester_limited { ">" } else { "" };
        let rates = format!("{at_least}{:.3} ({:.3}-{:.3})", middle / 1e6, low / 1e6, high / 1e6);
        let ratio = match (median(&figures.ratios), spread(&figures.ratios)) {
            (Some(middle), Some((low, high))) => format!("{middle:.2} ({low:.2}-{high:.2})"),
            _ => "-".to_owned(),
        };
        let latency = |key: &str| {
            let ns = row.latency().and_then(|latency| latency[key].as_f64());
            ns.map_or_else(|| "-".to_owned(), |ns| format!("{:.1}", ns / 1e3))
        };
        let (p50, p99) = (latency("p50_ns"), latency("p99_ns"));
        format!("{name:18} {rates:>22} {ratio:>24} {p50:>9} {p99:>9}")
    }

    /// What could not be measured of those that have a rate.
    fn notes(&self) -> String {
        let mut text = String::new();
        for row in self.outcome.rows.iter().filter(|row| row.full_median_pps().is_some()) {
            let (name, place) = (self.routers[row.router].name(), row.placement);
            for note in row.notes.iter().chain(&row.trouble) {
                let _ = writeln!(text, "{name}, {place}: {note}");
            }
        }
        text
    }
}

/// The command that measured, as it was typed.
pub(crate) fn command() -> String {
    let words: Vec<_> = std::env::args().skip(1).collect();
    format!("cargo xtask {}", words.join(" "))
}

/// What is known of the machine when the generator told nothing.
pub(crate) fn machine() -> Value {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("", |(_, model)| model);
    json!({
        "cpu": model,
        "cpus": std::thread::available_parallelism().map_or(1, usize::from),
        "kernel": kernel_release().unwrap_or_default(),
        "platform": null,
        "tsc_hz": null,
    })
}

#[cfg(test)]
mod tests {
    use load::document::{Document, Outcome as Measured};

    use super::*;
    use crate::peers::placement::Placement;
    use crate::peers::routers;

    fn row(router: usize, full_pps: [Option<f64>; 3], trouble: Option<&str>) -> Row {
        let latency = |p50_ns: u64| {
            let latency = json!({
                "count": 9, "min_ns": 1, "p50_ns": p50_ns, "p99_ns": 70, "p999_ns": 80, "max_ns": 90
            });
            (p50_ns, latency)
        };
        Row {
            router,
            placement: Placement::Default,
            full_pps: full_pps.into(),
            is_tester_limited: false,
            ndr_pps: vec![None; 3],
            searches: Vec::new(),
            latencies: if trouble.is_none() {
                [60, 20, 40].map(latency).into()
            } else {
                Vec::new()
            },
            trouble: trouble.map(str::to_owned),
            notes: Vec::new(),
        }
    }

    #[test]
    fn the_document_is_one_that_the_report_reads() {
        let routers = routers::all(Path::new("/nonexistent/sluice"));
        let place = |name| routers.iter().position(|router| router.name() == name).expect("a name");
        let outcome = Outcome {
            rows: vec![
                row(place("sluice"), [Some(4e6), Some(2e6), Some(3e6)], None),
                row(place("linux"), [Some(1e6), Some(1e6), None], None),
                row(place("vpp"), [None; 3], Some("no vpp here")),
            ],
            latency_pps: vec![(Placement::Default, 5e5)],
            traffic: Some("60 B".to_owned()),
            machine: None,
        };
        let report = Report { routers: &routers, outcome: &outcome };
        let document = Document::parse(&report.document().to_string()).expect("its shape");
        let Measured::Peers(measured) = document.outcome else { panic!("peers are expected") };
        assert_eq!(measured.traffic, "60 B; latency at 0.500 Mpps (default)");
        let [sluice, linux, vpp] = &measured.peers[..] else { panic!("three rows are expected") };
        assert_eq!(sluice.sluice_over_peer, Some(1.0));
        assert_eq!(linux.rate_pps, [1e6, 1e6]);
        // Of the two rounds that both took part in: 4 and 2.
        assert_eq!((linux.sluice_over_peer, linux.ratio_spread), (Some(3.0), Some((2.0, 4.0))));
        assert_eq!(linux.latency.expect("a latency").p50_ns, 40, "the median run's");
        assert_eq!((vpp.skipped.as_deref(), vpp.rate_pps.len()), (Some("no vpp here"), 0));
        let table = report.table();
        assert!(table.contains("1.000 (1.000-1.000)         3.00 (2.00-4.00)"), "{table}");
        assert!(table.contains("vpp                skipped: no vpp here"), "{table}");
    }
}
