//! `sluice plugin test --verdicts`: what becomes of each packet, in the words of `sluice explain`.

use std::collections::BTreeMap;

use frame::{Act, Deed, HookPoint};
use policy::{DefaultVerdict, Names, Rehearsal, RehearsalAnswer};
use serde_json::{Map, Value, json};
use sluice_abi::action;
use sluice_sdk::testing::{Answer, trial::Outcome};
use tables::{Actions, Class, Detour, Way};

use super::packets::{Packets, Trying};
use crate::explain::{deed_words, describe, ip};

/// A line for each packet, in the order in which they came: text, or an object in JSON.
pub(crate) fn lines(
    rehearsal: &Rehearsal,
    names: &Names,
    packets: &Packets,
    outcome: &Outcome,
    is_json: bool,
) -> Vec<String> {
    let actions = actions_of(names);
    let of_calls = packets
        .calls
        .iter()
        .flat_map(|call| call.packets.iter().map(move |packet| (call.now_ns, call.worker, packet)));
    let mut lines: Vec<(usize, String)> = of_calls
        .zip(&outcome.answers)
        .map(|((now_ns, worker, packet), answer)| {
            let (words, details) = judgement(rehearsal, &actions, answer);
            let line = match is_json {
                true => json_line(packet, (now_ns, worker), &words, details),
                false => {
                    let by = match packets.workers {
                        1 => String::new(),
                        _ => format!("worker {worker} "),
                    };
                    let number = packet.number;
                    format!("{by}{number:>6}  {}: {words}", packet_words(packet))
                }
            };
            (packet.number, line)
        })
        .collect();
    lines.sort_by_key(|(number, _)| *number);
    lines.into_iter().map(|(_, line)| line).collect()
}

fn packet_words(packet: &Trying) -> String {
    describe(&packet.seen.descriptor, &packet.frame)
}

fn json_line(
    packet: &Trying,
    (now_ns, worker): (u64, usize),
    words: &str,
    details: Map<String, Value>,
) -> String {
    let descriptor = &packet.seen.descriptor;
    let mut line = json!({
        "number": packet.number,
        "time_ns": now_ns,
        "worker": worker,
        "packet": packet_words(packet),
        "source": ip(&descriptor.source),
        "destination": ip(&descriptor.destination),
        "protocol": descriptor.protocol,
        "source_port": descriptor.source_port,
        "destination_port": descriptor.destination_port,
        "length": descriptor.length,
        "result": words,
    });
    if let Some(line) = line.as_object_mut() {
        line.extend(details);
    }
    line.to_string()
}

/// An answer in words that begin with the plugin's name, and for programs.
fn judgement(
    rehearsal: &Rehearsal,
    actions: &Actions,
    answer: &Answer,
) -> (String, Map<String, Value>) {
    let manifest = &rehearsal.examined().manifest;
    let given = answer.verdict;
    let why_bad = rehearsal.why_void(&RehearsalAnswer { verdict: given, edit: answer.edit });
    let by_default = manifest.default == DefaultVerdict::Drop;
    let drop = match why_bad {
        Some(_) => by_default.then_some("default"),
        None => (given.action == action::DROP).then(|| {
            let name = usize::try_from(given.argument).ok();
            let name = name.and_then(|at| manifest.reasons.get(at));
            name.map_or("default", String::as_str)
        }),
    };
    let act = match (why_bad, given.action) {
        (Some(why), _) => Act::Bad(why),
        (None, action::TRANSMIT) => Act::Transmit(u16::try_from(given.argument).unwrap_or(0)),
        (None, action::DROP) => Act::Drop,
        (None, _) => Act::Edit,
    };
    let deed = Deed {
        position: 0,
        point: HookPoint::Ingress,
        plugin: 0,
        generation: 0,
        act,
        // All of a bad verdict is void.
        flags: if why_bad.is_some() { 0 } else { given.flags },
        edit: answer.edit,
    };
    let (did, mut details) = deed_words(&deed, actions);
    let mut until = String::new();
    if why_bad.is_none() && given.lifetime != 0 {
        let ms = u32::from(given.lifetime) * 100;
        until = format!(", and its flow for {ms} ms");
        details.insert("lifetime_ms".to_owned(), json!(ms));
    }
    let verdict = match (drop, act) {
        (Some(_), _) => "drop",
        (None, Act::Transmit(_)) => "transmit",
        (None, _) => "continue",
    };
    details.insert("verdict".to_owned(), json!(verdict));
    if let Some(reason) = drop {
        details.insert("reason".to_owned(), json!(reason));
    }
    let name = &manifest.name;
    let words = match (drop, did.is_empty()) {
        (Some(reason), true) => format!("{name} drops it: {reason}"),
        (Some(reason), false) => format!("{name} drops it: {reason}; it {}", did.join(", ")),
        (None, true) => format!("{name} lets it pass"),
        (None, false) => format!("{name} {}", did.join(", ")),
    };
    (words + &until, details)
}

/// The names that were given, by their numbers.
fn actions_of(names: &Names) -> Actions {
    fn numbered<T>(of: &BTreeMap<String, u16>, make: impl Fn(&str) -> T) -> Vec<Option<T>> {
        let last = of.values().max().copied().unwrap_or(0);
        let named = |number| of.iter().find(|(_, known)| **known == number);
        (0..=last).map(|number| named(number).map(|(name, _)| make(name))).collect()
    }
    let detour = |name: &str| Detour { name: name.into(), way: Way::Here };
    Actions {
        next_hops: numbered(&names.next_hops, detour),
        tags: numbered(&names.tags, detour),
        classes: numbered(&names.classes, |name| Class { name: name.into(), dscp: None }),
    }
}
