//! Taps and explanations of a running router: the control side.

use std::collections::BTreeMap;
use std::iter::Enumerate;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, ensure};
use config::Checked;
use control::socket::{Responder, TapRequest, TapScopeRequest};
use forward::{
    Captured, Filter, FilterInstruction, TAPS_MAX, Tap, TapBoard, TapDirection, TapScope,
};
use frame::Nanos;
use policy::{AsidePlugins, ListedPlugin};
use serde_json::{Value, json};
use wire::{InterfaceId, IpVersion, MacAddress, ethernet};

use crate::explain::{self, Explanation, Names, verdict_report};
use crate::run::control_loop::{ControlLoop, reply};

/// How long a tap lives that nobody reads: its reader has gone without a word.
const UNREAD_MAX: Duration = Duration::from_secs(10);

/// The most frames of one answer.
const FRAMES_MAX: usize = 4096;

/// The most frames of one answer that are explained: each takes a fraction of a millisecond of the
/// control loop.
const EXPLAINED_MAX: usize = 64;

/// The taps that are open.
#[derive(Debug)]
pub(crate) struct Taps {
    board: TapBoard,
    open: BTreeMap<u64, Open>,
    next: u64,
    workers: usize,
    /// When the workers' clock began.
    epoch: SystemTime,
}

#[derive(Debug)]
struct Open {
    tap: Arc<Tap>,
    read: Instant,
    /// The answer that is being made, if one is: it may wait for plugins that are compiled for longer than
    /// [`UNREAD_MAX`].
    answer: Weak<()>,
}

impl Open {
    fn is_read(&self) -> bool {
        self.answer.strong_count() > 0 || self.read.elapsed() < UNREAD_MAX
    }
}

/// An answer that is being made.
struct Reading {
    number: u64,
    /// Keeps the tap open. Whoever drops the answer lets it go.
    _open: Arc<()>,
    tap: Arc<Tap>,
    frames: Vec<Value>,
    responder: Responder,
}

impl Taps {
    /// No taps yet, for this many workers, whose clock began at `start`.
    pub(crate) fn new(board: TapBoard, workers: usize, start: Instant) -> Self {
        let epoch = SystemTime::now().checked_sub(start.elapsed()).unwrap_or(UNIX_EPOCH);
        Self { board, open: BTreeMap::new(), next: 1, workers, epoch }
    }

    fn open(&mut self, scope: TapScope, filter: Option<Filter>, snap_bytes: usize) -> Result<u64> {
        ensure!(
            self.open.len() < TAPS_MAX,
            "{TAPS_MAX} taps are open already; one that is not read ends after {} s",
            UNREAD_MAX.as_secs()
        );
        let number = self.next;
        self.next += 1;
        let tap = Tap::new(scope, filter, snap_bytes, self.workers);
        self.open.insert(number, Open { tap, read: Instant::now(), answer: Weak::new() });
        self.publish();
        Ok(number)
    }

    fn close(&mut self, number: u64) -> Result<u64> {
        let closed =
            self.open.remove(&number).with_context(|| format!("no tap {number} is open"))?;
        self.publish();
        Ok(closed.tap.lost())
    }

    fn publish(&mut self) {
        self.board.publish(self.open.values().map(|open| Arc::clone(&open.tap)).collect());
    }

    /// Ends the taps that nobody reads any more.
    pub(crate) fn tidy(&mut self) {
        let before = self.open.len();
        self.open.retain(|_, open| open.is_read());
        if self.open.len() < before {
            self.publish();
        }
        self.board.collect();
    }

    fn time_ns(&self, time: Nanos) -> u64 {
        let at = self.epoch + Duration::from_nanos(time.0);
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

fn interface(config: &Checked, name: &str) -> Result<InterfaceId> {
    config.interface(name).with_context(|| {
        let names: Vec<&str> = config.interfaces.iter().map(|each| each.name.as_str()).collect();
        format!("the router has no interface {name}; it has {}", names.join(", "))
    })
}

/// An IP packet in a frame from nobody to nobody; [`explain::address_to`] completes it.
fn with_link_layer(packet: &[u8]) -> Result<Vec<u8>> {
    let version = packet.first().copied().and_then(IpVersion::of_first_byte);
    let ethertype = match version.context("the packet is neither IPv4 nor IPv6")? {
        IpVersion::V4 => ethernet::ETHERTYPE_IPV4,
        IpVersion::V6 => ethernet::ETHERTYPE_IPV6,
    };
    let mut header = [0; ethernet::HEADER_LEN];
    // A locally administered address for the sender, who is nobody.
    let sender = MacAddress([2, 0, 0, 0, 0, 1]);
    ethernet::write_header(&mut header, MacAddress::default(), sender, ethertype);
    Ok([&header, packet].concat())
}

impl ControlLoop {
    /// Answers what would become of a packet that `interface_name` receives now.
    pub(crate) fn explain(
        &mut self,
        interface_name: &str,
        packet: &str,
        has_link_layer: bool,
        keep_mac: bool,
        responder: Responder,
    ) {
        match self.frame_to_explain(interface_name, packet, has_link_layer, keep_mac) {
            Ok((ingress, frame)) => {
                self.explain_frame(ingress, frame, |_, result| reply(responder, result));
            }
            Err(error) => reply(responder, Err(error)),
        }
    }

    fn frame_to_explain(
        &self,
        interface_name: &str,
        packet: &str,
        has_link_layer: bool,
        keep_mac: bool,
    ) -> Result<(InterfaceId, Vec<u8>)> {
        let ingress = interface(&self.config, interface_name)?;
        let bytes = explain::from_hex(packet)?;
        let mut frame = if has_link_layer { bytes } else { with_link_layer(&bytes)? };
        let snapshot = self.publication.current();
        if let (false, Some(interface)) = (keep_mac, snapshot.interface(ingress)) {
            explain::address_to(&mut frame, interface.mac);
        }
        Ok((ingress, frame))
    }

    /// Explains a frame once the plugins' thread has lent plugins to ask, and calls `then`.
    fn explain_frame(
        &mut self,
        ingress: InterfaceId,
        frame: Vec<u8>,
        then: impl FnOnce(&mut Self, Result<Value>) + Send + 'static,
    ) {
        let tell = self.resume_with(move |this, aside: Result<Box<AsidePlugins>>| {
            let result = aside.and_then(|aside| this.explain_with(*aside, ingress, &frame));
            then(this, result);
        });
        self.plugins.tell_aside(tell);
    }

    fn explain_with(
        &mut self,
        aside: AsidePlugins,
        ingress: InterfaceId,
        frame: &[u8],
    ) -> Result<Value> {
        let classified = self.datapath.classifier.probe(frame)?;
        let snapshot = self.publication.current();
        let tables = json!({ "configuration": self.generation, "epoch": snapshot.epoch });
        let classifier =
            classified.map(|reason| json!({ "reason": reason.label(), "help": reason.help() }));
        let reaches_worker = classified.is_none_or(|reason| reason.label().starts_with("to-xsk"));
        if !reaches_worker {
            return Ok(json!({ "tables": tables, "classifier": classifier, "packet": null }));
        }
        let AsidePlugins { chain, traps, plugins } = aside;
        let now = Nanos(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX));
        let record = explain::ask(self.publication.reader(), chain, ingress, frame, now)?;
        let names = Names {
            config: &self.config,
            publication: &self.publication,
            snapshot: &snapshot,
            plugins: &plugins,
        };
        let explanation = Explanation::new(&record, names, &explain::traps(&traps));
        Ok(json!({ "tables": tables, "classifier": classifier, "packet": explanation }))
    }

    /// Opens a tap, and answers.
    pub(crate) fn open_tap(&mut self, request: TapRequest, responder: Responder) {
        let any = |name: &str| match name {
            "any" => Ok(None),
            name => interface(&self.config, name).map(Some),
        };
        let scope = match &request.scope {
            TapScopeRequest::Received(name) => any(name).map(TapScope::Received),
            TapScopeRequest::Target(name) if any(name).is_ok() => {
                any(name).map(TapScope::Interface)
            }
            TapScopeRequest::Target(name) if name == "drops" => Ok(TapScope::Drops),
            TapScopeRequest::Target(name) => {
                let name = name.clone();
                let tell = self.resume_with(move |this, plugins: Vec<ListedPlugin>| {
                    let plugin = plugins.iter().find(|plugin| plugin.name == name);
                    let scope =
                        plugin.map(|plugin| TapScope::Plugin(plugin.plugin)).with_context(|| {
                            format!("the router has neither an interface nor a plugin {name}")
                        });
                    let opened = scope.and_then(|scope| this.open_tap_on(scope, request));
                    reply(responder, opened);
                });
                return self.plugins.tell_list(tell);
            }
        };
        let opened = scope.and_then(|scope| self.open_tap_on(scope, request));
        reply(responder, opened);
    }

    fn open_tap_on(&mut self, scope: TapScope, request: TapRequest) -> Result<Value> {
        let program: Vec<FilterInstruction> = request
            .filter
            .into_iter()
            .map(|(code, if_true, if_false, k)| FilterInstruction { code, if_true, if_false, k })
            .collect();
        let filter = if program.is_empty() { None } else { Some(Filter::new(program)?) };
        let tap = self.taps.open(scope, filter, request.snap_bytes)?;
        let interfaces: Vec<Value> = self
            .config
            .interfaces
            .iter()
            .zip(&self.publication.current().interfaces)
            .map(|(configured, link)| {
                json!({ "name": configured.name, "mac": link.mac.to_string() })
            })
            .collect();
        Ok(json!({ "tap": tap, "interfaces": interfaces }))
    }

    /// Takes what a tap copied, explains it if asked to, and answers.
    pub(crate) fn read_tap(
        &mut self,
        number: u64,
        frames_max: usize,
        is_explained: bool,
        responder: Responder,
    ) {
        let most = if is_explained { EXPLAINED_MAX } else { FRAMES_MAX };
        let Some(open) = self.taps.open.get_mut(&number) else {
            return reply(responder, Err(anyhow!("no tap {number} is open")));
        };
        let answer = Arc::new(());
        open.answer = Arc::downgrade(&answer);
        let tap = Arc::clone(&open.tap);
        let mut captured: Vec<Captured> = Vec::new();
        tap.drain(frames_max.min(most), |one| captured.push(one.clone()));
        captured.sort_by_key(|one| one.time);
        let is_blamed = captured.iter().any(|one| one.blame.is_some());
        let go_on = move |this: &mut Self, plugins: Vec<ListedPlugin>| {
            let frames = captured.iter().map(|one| this.captured_json(one, &plugins)).collect();
            let explained = if is_explained { captured } else { Vec::new() };
            let reading = Reading { number, _open: answer, tap, frames, responder };
            this.explain_captured(explained.into_iter().enumerate(), reading);
        };
        if is_blamed {
            let tell = self.resume_with(go_on);
            self.plugins.tell_list(tell);
        } else {
            go_on(self, Vec::new());
        }
    }

    /// Explains what was received of the frames that are left, one after the other, and answers. Between two
    /// of them the loop does other things.
    fn explain_captured(
        &mut self,
        mut left: Enumerate<std::vec::IntoIter<Captured>>,
        mut reading: Reading,
    ) {
        let Some((at, one)) = left.find(|(_, one)| one.direction == TapDirection::Received) else {
            let Reading { number, tap, frames, responder, .. } = reading;
            if let Some(open) = self.taps.open.get_mut(&number) {
                open.read = Instant::now();
            }
            return reply(responder, Ok(json!({ "frames": frames, "lost": tap.lost() })));
        };
        self.explain_frame(one.interface, one.bytes, move |this, explanation| {
            let explanation = match explanation {
                Ok(explanation) => explanation,
                Err(error) => return reply(reading.responder, Err(error)),
            };
            if let Some(frame) = reading.frames.get_mut(at) {
                frame["tables_changed"] = json!(one.epoch != this.publication.current().epoch);
                frame["explanation"] = explanation;
            }
            this.explain_captured(left, reading);
        });
    }

    pub(crate) fn close_tap(&mut self, number: u64) -> Result<Value> {
        Ok(json!({ "lost": self.taps.close(number)? }))
    }

    fn captured_json(&self, one: &Captured, plugins: &[ListedPlugin]) -> Value {
        let direction = match one.direction {
            TapDirection::Received => "received",
            TapDirection::Sent => "sent",
        };
        json!({
            "time_ns": self.taps.time_ns(one.time),
            "interface": one.interface.0,
            "direction": direction,
            "originated": one.originated,
            "was_held": one.was_held,
            "mirrored": one.mirrored,
            "length": one.original_len,
            "bytes": explain::to_hex(&one.bytes),
            "verdict": verdict_report(one.verdict, one.blame, &self.config.interfaces, plugins),
            "epoch": one.epoch,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tap_outlasts_its_reader_by_some_seconds_and_no_answer() {
        let Some(long_ago) = Instant::now().checked_sub(2 * UNREAD_MAX) else {
            return eprintln!("skipped: the machine has just been started");
        };
        let mut taps = Taps::new(TapBoard::default(), 1, Instant::now());
        let number = taps.open(TapScope::Drops, None, 64).expect("there is room");
        let answer = Arc::new(());
        let open = taps.open.get_mut(&number).expect("it is open");
        (open.read, open.answer) = (long_ago, Arc::downgrade(&answer));
        taps.tidy();
        assert!(taps.open.contains_key(&number), "its answer is being made");
        drop(answer);
        taps.tidy();
        assert!(taps.open.is_empty(), "nobody has read it for long");
    }
}
