//! Several routers in the same place.

use super::super::model::{
    Block, Mark, MarkKind, Place, Row, Run, Section, SummaryRow, Table, group_by, mark, numbers,
    words,
};
use super::super::number::{ABSENT, count, figure, median, mpps, short, spread, us};
use super::super::plot::{Bar, BarRow, Bars, DrawError, Scale};
use super::{REFERENCE, heading, origins, plain, too_many};
use crate::document::{Outcome, Peer};

const INTRO: &str = "Routers in the same place with the same traffic, one after the other, in rounds. \
    A ratio is Sluice's rate over the peer's: median of the rounds, with the lowest and the highest. It \
    holds within its placement and for its kind of rate only.";

pub(super) fn section(place: &Place<'_>) -> Result<Option<Section>, DrawError> {
    let mut blocks = Vec::new();
    let mut summary = Vec::new();
    for run in &place.runs {
        let Outcome::Peers(peers) = &run.document().outcome else { continue };
        let rows = peers.peers.iter();
        let groups = group_by(rows.map(|peer| ((peer.placement.as_str(), kind(peer)), peer)));
        // A skipped peer has no rate, so it stands with those of its placement, whatever it says of
        // the kind of its rate.
        let groups = with_skipped(groups);
        for ((placement, rate_is), peers_here) in groups {
            let title = heading(&[&peers.traffic, placement, rate_is]);
            summary.extend(peers_here.iter().map(|peer| SummaryRow {
                what: "peers",
                conditions: title.clone(),
                subject: versioned(place, *run, peer),
                result: result(peer, &peers_here),
                marks: marks(peer, &peers_here),
            }));
            blocks.push(one(place, *run, title, &peers_here)?);
        }
    }
    if blocks.is_empty() {
        return Ok(None);
    }
    let intro = INTRO.to_owned();
    Ok(Some(Section { id: "peers", title: "Ratio to peers", intro, blocks, summary }))
}

type Groups<'a> = Vec<((&'a str, &'a str), Vec<&'a Peer>)>;

/// The kind of a peer's rate, under which rates are compared: what follows a semicolon says how far
/// this one can be trusted ("forwarded at full load; at least this, the tester reached no more").
fn kind(peer: &Peer) -> &str {
    peer.rate_is.split(';').next().unwrap_or_default()
}

/// What is to be known of this peer's rate alone.
fn proviso(peer: &Peer) -> Option<&str> {
    peer.rate_is.split_once(';').map(|(_, proviso)| proviso.trim())
}

/// Puts skipped peers into the first group of their placement that measured something.
fn with_skipped(groups: Groups<'_>) -> Groups<'_> {
    let (mut measured, skipped): (Groups<'_>, Groups<'_>) =
        groups.into_iter().partition(|(_, peers)| peers.iter().any(|peer| peer.skipped.is_none()));
    for (key, peers) in skipped {
        match measured.iter_mut().find(|((placement, _), _)| *placement == key.0) {
            Some((_, there)) => there.extend(peers),
            None => measured.push((key, peers)),
        }
    }
    measured
}

fn versioned(place: &Place<'_>, run: Run<'_>, peer: &Peer) -> String {
    match &peer.version {
        Some(version) => format!("{} {version}", peer.name),
        None => place.series(run, &peer.name),
    }
}

fn is_measured(peer: &Peer) -> bool {
    peer.skipped.is_none() && median(&peer.rate_pps).is_some()
}

/// The ratio, if Sluice itself was measured beside the peer.
fn ratio(peer: &Peer, beside: &[&Peer]) -> Option<f64> {
    let has_reference = beside.iter().any(|other| other.name == REFERENCE && is_measured(other));
    let ratio = peer.sluice_over_peer.filter(|ratio| ratio.is_finite() && *ratio > 0.0);
    ratio.filter(|_| has_reference && is_measured(peer) && peer.name != REFERENCE)
}

fn ratio_spread(peer: &Peer) -> Option<(f64, f64)> {
    peer.ratio_spread.filter(|(low, high)| low.is_finite() && high.is_finite() && *low > 0.0)
}

fn ratio_text(peer: &Peer, beside: &[&Peer]) -> String {
    match (ratio(peer, beside), ratio_spread(peer)) {
        (None, _) => ABSENT.to_owned(),
        (Some(ratio), None) => short(ratio),
        (Some(ratio), Some((low, high))) => {
            format!("{} ({} to {})", short(ratio), short(low), short(high))
        }
    }
}

fn marks(peer: &Peer, beside: &[&Peer]) -> Vec<Mark> {
    if let Some(reason) = &peer.skipped {
        return vec![mark(MarkKind::Skipped, reason.clone())];
    }
    let mut marks: Vec<Mark> = Vec::new();
    if let Some(proviso) = proviso(peer) {
        marks.push(mark(MarkKind::GeneratorLimited, proviso));
    }
    let is_left_out =
        peer.name != REFERENCE && peer.sluice_over_peer.is_some() && ratio(peer, beside).is_none();
    if is_left_out {
        marks.push(mark(MarkKind::Unproven, "ratio: no rates of both side by side"));
    }
    marks
}

fn rate_text(peer: &Peer) -> (String, String) {
    if !is_measured(peer) {
        return (ABSENT.to_owned(), ABSENT.to_owned());
    }
    let rates = spread(&peer.rate_pps).map_or_else(
        || ABSENT.to_owned(),
        |(low, high)| format!("{} to {}", mpps(low), mpps(high)),
    );
    (median(&peer.rate_pps).map_or_else(|| ABSENT.to_owned(), mpps), rates)
}

fn result(peer: &Peer, beside: &[&Peer]) -> String {
    if !is_measured(peer) {
        return "no result".to_owned();
    }
    let rate = format!("{} Mpps", rate_text(peer).0);
    match ratio(peer, beside) {
        Some(_) => format!("{rate}; sluice/{} = {}", peer.name, ratio_text(peer, beside)),
        None => rate,
    }
}

fn one(
    place: &Place<'_>,
    run: Run<'_>,
    title: String,
    peers: &[&Peer],
) -> Result<Block, DrawError> {
    let mut table = Table {
        columns: vec![
            words("router"),
            words("version"),
            numbers("rate, Mpps"),
            numbers("spread, Mpps"),
            numbers("runs"),
            numbers("sluice over it"),
            numbers("p50, µs"),
            numbers("p99, µs"),
            numbers("p99.9, µs"),
        ],
        rows: Vec::new(),
    };
    for peer in peers {
        let (rate, spread) = rate_text(peer);
        let is_measured = is_measured(peer);
        let latency = peer.latency.filter(|latency| is_measured && latency.count > 0);
        let time = |of: fn(&crate::document::Latency) -> u64| {
            latency.map_or_else(|| ABSENT.to_owned(), |latency| us(of(&latency)))
        };
        let runs = if is_measured { count(peer.rate_pps.len() as u64) } else { ABSENT.to_owned() };
        table.rows.push(Row {
            origin: run.number,
            cells: vec![
                peer.name.clone(),
                peer.version.clone().unwrap_or_else(|| ABSENT.to_owned()),
                rate,
                spread,
                runs,
                if peer.name == REFERENCE { ABSENT.to_owned() } else { ratio_text(peer, peers) },
                time(|latency| latency.p50_ns),
                time(|latency| latency.p99_ns),
                time(|latency| latency.p999_ns),
            ],
            marks: marks(peer, peers),
        });
    }
    let mut notes = vec![
        "Latency: one way, at half of the lowest peer's rate, from the median run.".to_owned(),
    ];
    for peer in peers {
        if let Some(reason) = &peer.skipped {
            notes.push(format!("Skipped: {}: {reason}", peer.name));
        }
    }
    let mut figures = Vec::new();
    let measured: Vec<&Peer> = peers.iter().copied().filter(|peer| is_measured(peer)).collect();
    if let Some(note) = too_many(measured.len()) {
        notes.push(note);
    } else if !measured.is_empty() {
        let svg = Bars {
            x_label: "Mpps",
            rows: measured.iter().map(|peer| rate_row(peer)).collect(),
            scale: Scale::Linear { end_min: 0.0 },
        };
        figures.push(plain(
            "Rate in Mpps: median of the runs; whiskers from the lowest to the highest.",
            svg.draw()?,
        ));
        let rows: Vec<BarRow> = measured.iter().filter_map(|peer| ratio_row(peer, peers)).collect();
        if !rows.is_empty() {
            let svg = Bars {
                x_label: "sluice's rate over the peer's, logarithmic",
                rows,
                scale: Scale::Ratio,
            };
            figures.push(plain(
                "Ratio of sluice's rate to the peer's: right of 1 sluice forwards more. Whiskers \
                 from the lowest to the highest round.",
                svg.draw()?,
            ));
        }
    }
    let origins = origins(place, [run]);
    Ok(Block { title, figures, table, notes, origins, details: Vec::new() })
}

fn rate_row(peer: &Peer) -> BarRow {
    let mpps = |rate: f64| rate / 1e6;
    let value = median(&peer.rate_pps).map_or(f64::NAN, mpps);
    let bar = Bar {
        value,
        spread: spread(&peer.rate_pps).map(|(low, high)| (mpps(low), mpps(high))),
        colour: if peer.name == REFERENCE { 0 } else { 4 },
        is_light: false,
        figure: figure(value),
    };
    BarRow { label: peer.name.clone(), bars: vec![bar] }
}

fn ratio_row(peer: &Peer, beside: &[&Peer]) -> Option<BarRow> {
    let bar = Bar {
        value: ratio(peer, beside)?,
        spread: ratio_spread(peer),
        colour: 0,
        is_light: false,
        figure: ratio_text(peer, beside),
    };
    Some(BarRow { label: peer.name.clone(), bars: vec![bar] })
}
