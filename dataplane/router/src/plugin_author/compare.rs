//! Two runs of a plugin over the same packets: whether they agree, and where not.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr};

use frame::Nanos;
use policy::{Examined, Rehearsal, RehearsalAnswer, RehearsedHandOver};
use sluice_abi::{Descriptor, REASON_DEFAULT, action, edit, flags};
use sluice_sdk::testing::{Answer, trial::Outcome};

use super::packets::{Packets, Trying, rehearsal_packet};

/// A disagreement, for a person.
#[derive(Debug)]
pub(crate) struct Difference(pub(crate) String);

/// Plays the packets to a module, with a hand-over before call `hand_over`.
///
/// # Errors
/// How a call ended that did not return, and on which packets.
pub(crate) fn play(
    rehearsal: &mut Rehearsal,
    packets: &Packets,
    hand_over: Option<usize>,
) -> Result<Outcome, Difference> {
    let mut outcome = Outcome::default();
    for (number, (call, has_tick)) in packets.calls.iter().zip(packets.ticks()).enumerate() {
        let (now, batch) = (Nanos(call.now_ns), &call.packets);
        if hand_over == Some(number) {
            let handed_over = rehearsal.hand_over();
            let handed_over = handed_over
                .map_err(|reason| Difference(format!("the hand-over failed: {reason}")))?;
            if handed_over == RehearsedHandOver::Refused {
                let text = "the new instance did not take the state that the old one handed over";
                return Err(Difference(text.to_owned()));
            }
        }
        if has_tick {
            let tick = rehearsal.tick(now);
            tick.map_err(|reason| Difference(format!("the module's tick trapped: {reason}")))?;
        }
        let shown: Vec<_> = batch.iter().map(|packet| rehearsal_packet(&packet.seen)).collect();
        let answers = rehearsal.judge(call.worker, &shown, now).map_err(|reason| {
            let first = batch.first().map_or(0, |packet| packet.number);
            let mut text = format!(
                "the module trapped on a batch of {} packets, number {first} on: {reason}",
                batch.len()
            );
            if let Some(packet) = batch.first() {
                let _ = write!(text, "\nthe first of them: {}", packet_line(packet));
            }
            Difference(text)
        })?;
        let answer = |answer: RehearsalAnswer| Answer::new(answer.verdict, answer.edit);
        outcome.answers.extend(answers.into_iter().map(answer));
    }
    outcome.counters = rehearsal.counters();
    Ok(outcome)
}

/// Compares two runs, which are called what `names` says; whether in one there was a hand-over.
///
/// # Errors
/// The first packet that they disagree on, or the first counter.
pub(crate) fn compare(
    packets: &Packets,
    examined: &Examined,
    names: [&str; 2],
    outcomes: [&Outcome; 2],
    handed_over: bool,
) -> Result<(), Difference> {
    let [one, other] = outcomes;
    let pairs = packets.all().zip(one.answers.iter().zip(&other.answers));
    let differing: Vec<_> = pairs.filter(|(_, (one, other))| one != other).collect();
    if let Some((packet, (one, other))) = differing.first() {
        let mut text =
            format!("{} of {} packets are judged differently", differing.len(), packets.len());
        let (number, line) = (packet.number, packet_line(packet));
        let _ = write!(text, "\nthe first is number {number}: {line}");
        for (name, answer) in names.iter().zip([one, other]) {
            let _ = write!(text, "\n  {name:<8} {}", answer_line(answer, examined));
        }
        return Err(Difference(text));
    }
    let counters = examined.manifest.counter_names();
    let values = one.counters.iter().zip(&other.counters).zip(&counters);
    // What a gauge shows is an instance's own, and begins anew with the next.
    let gauges = examined.manifest.gauges();
    for (((one, other), name), is_gauge) in values.zip(gauges) {
        if one != other && !(is_gauge && handed_over) {
            return Err(Difference(format!(
                "the counter `{name}` differs: {} {one}, {} {other}",
                names[0], names[1]
            )));
        }
    }
    if one.counters.len() != other.counters.len() || one.answers.len() != other.answers.len() {
        return Err(Difference("the runs differ in length".to_owned()));
    }
    Ok(())
}

/// Packets that differ that are shown.
const SHOWN: usize = 5;

/// What one worker would have made of the packets that several judged: lines for information. The orders of
/// the two runs differ, so that packets are compared by their numbers.
pub(crate) fn against_one(
    examined: &Examined,
    (packets, outcome): (&Packets, &Outcome),
    (single, alone): (&Packets, &Outcome),
) -> Vec<String> {
    let mut of_one: Vec<_> = single.all().zip(&alone.answers).collect();
    of_one.sort_by_key(|(packet, _)| packet.number);
    let mut of_several: Vec<_> = packets.all().zip(&outcome.answers).collect();
    of_several.sort_by_key(|(packet, _)| packet.number);
    let pairs = of_one.into_iter().zip(of_several);
    let differing: Vec<_> = pairs.filter(|((_, one), (_, several))| one != several).collect();
    if differing.is_empty() {
        return vec!["one worker would judge every packet alike".to_owned()];
    }
    let mut lines = vec![format!(
        "{} of {} packets, one worker would judge otherwise",
        differing.len(),
        packets.len()
    )];
    for ((packet, one), (_, several)) in differing.iter().take(SHOWN) {
        lines.push(format!(
            "number {}: {}: {} rather than {}",
            packet.number,
            words(&packet.seen.descriptor),
            answer_line(one, examined),
            answer_line(several, examined)
        ));
    }
    let counters = examined.manifest.counter_names();
    let values = alone.counters.iter().zip(&outcome.counters).zip(&counters);
    let others = values.filter(|((one, several), _)| one != several);
    lines.extend(
        others.map(|((one, several), name)| format!("counter {name} {one} rather than {several}")),
    );
    lines
}

/// Whether the router would take every answer at its word.
///
/// # Errors
/// The first that it would not.
pub(crate) fn void(
    rehearsal: &Rehearsal,
    packets: &Packets,
    outcome: &Outcome,
) -> Result<(), Difference> {
    let why = |answer: &Answer| {
        rehearsal.why_void(&RehearsalAnswer { verdict: answer.verdict, edit: answer.edit })
    };
    let bad = packets.all().zip(&outcome.answers);
    let bad: Vec<_> = bad.filter_map(|(it, answer)| Some((it, answer, why(answer)?))).collect();
    let Some((packet, answer, why)) = bad.first() else { return Ok(()) };
    let (number, line) = (packet.number, packet_line(packet));
    Err(Difference(format!(
        "{} of {} verdicts are bad: a router would count them, and do what the plugin's default says\n\
         the first is that of number {number}: {line}\n  module   {}: {why}",
        bad.len(),
        packets.len(),
        answer_line(answer, rehearsal.examined())
    )))
}

/// The counters and what they show, those that show something.
pub(crate) fn counted(outcome: &Outcome, examined: &Examined) -> impl Iterator<Item = String> {
    let names = examined.manifest.counter_names().into_iter();
    let shown = names.zip(outcome.counters.clone()).filter(|(_, value)| *value > 0);
    shown.map(|(name, value)| format!("{name} {value}"))
}

/// How many packets went which way.
pub(crate) fn summary(outcome: &Outcome, examined: &Examined) -> String {
    let count = |of: u8| outcome.answers.iter().filter(|it| it.verdict.action == of).count();
    let mut text = format!("{} continue", count(action::CONTINUE));
    for (index, name) in examined.manifest.reasons.iter().enumerate() {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        let is_it = |answer: &&Answer| {
            answer.verdict.action == action::DROP && answer.verdict.argument == index
        };
        let drops = outcome.answers.iter().filter(is_it).count();
        if drops > 0 {
            let _ = write!(text, ", {drops} dropped: {name}");
        }
    }
    let by_default = |answer: &&Answer| {
        answer.verdict.action == action::DROP && answer.verdict.argument == REASON_DEFAULT
    };
    let defaults = outcome.answers.iter().filter(by_default).count();
    if defaults > 0 {
        let _ = write!(text, ", {defaults} dropped by default");
    }
    let transmitted = count(action::TRANSMIT);
    if transmitted > 0 {
        let _ = write!(text, ", {transmitted} transmitted");
    }
    let edited = outcome.answers.iter().filter(|it| it.verdict.flags != 0).count();
    if edited > 0 {
        let _ = write!(text, ", {edited} with edits");
    }
    text
}

fn packet_line(packet: &Trying) -> String {
    let bytes = packet.frame.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    format!("{}\n  frame    {bytes}", words(&packet.seen.descriptor))
}

/// A packet in the words of `sluice explain`.
fn words(packet: &Descriptor) -> String {
    let address = |bytes: [u8; 16]| Ipv6Addr::from(bytes).to_canonical();
    let (source, destination) = (address(packet.source), address(packet.destination));
    let protocol = match packet.protocol {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmp6".to_owned(),
        other => format!("protocol {other}"),
    };
    let mut text = if packet.flags & flags::PORTS == 0 {
        format!("{protocol} {source} > {destination}")
    } else {
        let (from, to) = (packet.source_port, packet.destination_port);
        let end = |address, port| match address {
            IpAddr::V6(address) => format!("[{address}]:{port}"),
            IpAddr::V4(address) => format!("{address}:{port}"),
        };
        format!("{protocol} {} > {}", end(source, from), end(destination, to))
    };
    let _ = write!(text, " length {} ttl {}", packet.length, packet.ttl);
    if packet.tcp_flags != 0 {
        let _ = write!(text, " tcp-flags {:#04x}", packet.tcp_flags);
    }
    if packet.flags & flags::FRAGMENT != 0 {
        text.push_str(" fragment");
    }
    text
}

fn answer_line(answer: &Answer, examined: &Examined) -> String {
    let verdict = answer.verdict;
    let declared = examined.manifest.actions.iter().filter_map(|action| action.flag());
    let declared = declared.fold(0, |all, flag| all | flag);
    let mut text = match verdict.action {
        action::CONTINUE => "continue".to_owned(),
        action::DROP => {
            let reasons = &examined.manifest.reasons;
            let name = usize::try_from(verdict.argument).ok().and_then(|at| reasons.get(at));
            format!("drop ({})", name.map_or("default", String::as_str))
        }
        action::TRANSMIT => format!("transmit (next hop {})", verdict.argument),
        other => format!("action {other}, argument {}", verdict.argument),
    };
    for (flag, name, value) in [
        (edit::MARK, "mark", Some(answer.edit.mark)),
        (edit::TAG, "tag", Some(answer.edit.tag.into())),
        (edit::MIRROR, "mirror", None),
        (edit::CLASS, "class", Some(answer.edit.class.into())),
        (edit::DSCP, "dscp", Some(answer.edit.dscp.into())),
        (edit::MSS, "mss", Some(answer.edit.mss.into())),
        (edit::TCP_OPTIONS, "tcp-options", Some(answer.edit.tcp_options.into())),
    ] {
        if verdict.flags & flag != 0 {
            // What is not declared may have no area to be in.
            let value = value.filter(|_| declared & flag != 0);
            let value = value.map(|value| format!(" {value}")).unwrap_or_default();
            let _ = write!(text, ", {name}{value}");
        }
    }
    if verdict.lifetime != 0 {
        let _ = write!(text, ", for {} ms", u32::from(verdict.lifetime) * 100);
    }
    text
}
