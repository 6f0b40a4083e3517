//! SYN floods are challenged; sources may leave only so many handshakes half-open. See `README.md`.
//!
//! ```text
//!  SYN --> meter of the destination has a token? --yes--------------------------+
//!              | no                                                             v
//!              +--> source completed a handshake of late? --yes--> quota of the source --> pass
//!              |                                                             ^      `--> half-open
//!              +--> seen before, long enough ago? --yes----------------------+
//!              | no
//!              +--> remembered, and dropped (challenged): a real sender sends it again
//!              `--> no place: meter of the fall-back --yes--> pass       `--no--> table-full
//!  ACK, RST --> ends the half-open handshake; an ACK makes the source a trusted one
//!               (proof = "answer": if it acknowledges what the server sent)
//! ```
//!
//! What a worker remembers is of the client's direction, whose packets all come to it, so that it does not
//! matter where the answers go. What is half-open is counted for all workers, and what the answers said is
//! remembered for all. Packets that begin no handshake are never dropped: no table stands between an
//! established flow and its end.
//!
//! Of a batch, what ends handshakes comes first, then what begins them. An ACK in the batch of its SYN ends
//! nothing: the server cannot have answered.
//!
//! Invariants: tables have a fixed size and are allocated by `configure`; every SYN that is judged adds
//! to `syns` and to exactly one of the counters behind it, up to `refused-table-full`.
//!
//! Deliberately absent: SYN cookies. A plugin sends no packets.
#![deny(unsafe_code)]

mod config;
mod handshakes;
mod key;
mod limit;
mod proof;
mod sources;
mod state;

use handshakes::{Handshakes, Moment, State};
use key::Key;
use limit::{Begun, Limit};
use proof::Proof;
use sluice_sdk::{
    BATCH_MAX, Batch, Descriptor, Meter, Plugin, Reason, StateFull, StateWriter, Verdict, flags,
};
use sources::Sources;

pub use config::Config;
use config::ProofBy;

/// Positions of the counters, in the order of the manifest: a batch is counted in an array of them.
mod tally {
    /// SYNs that were judged.
    pub(crate) const SYNS: usize = 0;
    /// Of them: within the destination's rate.
    pub(crate) const UNCHALLENGED: usize = 1;
    /// Sent again after a challenge.
    pub(crate) const PROVED: usize = 2;
    /// From a source that completed a handshake.
    pub(crate) const VERIFIED: usize = 3;
    /// Of a handshake that had passed already.
    pub(crate) const REPEATED: usize = 4;
    /// Passed by the fall-back, since the challenge could not be remembered.
    pub(crate) const UNREMEMBERED: usize = 5;
    /// Dropped: challenged.
    pub(crate) const CHALLENGED: usize = 6;
    /// Dropped: too many half-open.
    pub(crate) const HALF_OPEN: usize = 7;
    /// Dropped: the challenge could not be remembered.
    pub(crate) const REFUSED_TABLE_FULL: usize = 8;
    /// Handshakes that were completed.
    pub(crate) const COMPLETED: usize = 9;
    /// Handshakes for which there was no place.
    pub(crate) const HANDSHAKES_FULL: usize = 10;
    /// Sources for which there was no place.
    pub(crate) const SOURCES_FULL: usize = 11;
    /// SYNs that passed and are not counted as half-open, for want of room.
    pub(crate) const HALF_OPEN_UNCOUNTED: usize = 12;
    /// Handshakes that ended and count as half-open until their time is over.
    pub(crate) const HALF_OPEN_KEPT: usize = 13;
    /// Packets that ended no handshake, since they lack the number of the answer.
    pub(crate) const UNPROVED: usize = 14;
    /// Answers for which there was no place.
    pub(crate) const ANSWERS_FULL: usize = 15;
    /// Packets whose numbers were not shown.
    pub(crate) const UNSEEN: usize = 16;
    /// All of them.
    pub(crate) const ALL: usize = 17;
}

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
const TCP: u8 = 6;

/// What is kept between batches, and handed over in a reload.
#[derive(Debug)]
struct Memory {
    secret: Option<u64>,
    handshakes: Handshakes,
    sources: Sources,
}

/// The plugin.
#[derive(Debug)]
pub struct SynGuard {
    /// Which directions are guarded, by number.
    directions: Box<[bool; 256]>,
    rate: Meter,
    fallback: Meter,
    memory: Memory,
    limit: Limit,
    proof: Proof,
    /// Room for the SYNs of a batch: their places in it, destinations, and whether there was a token.
    places: Box<[u16; BATCH_MAX]>,
    keys: Box<[[u8; 16]; BATCH_MAX]>,
    tokens: Box<[u8; BATCH_MAX]>,
}

/// What becomes of a SYN.
#[derive(Clone, Copy, Debug)]
enum Decision {
    /// It passes if its source has not too many half-open, and is counted there.
    Begin(usize),
    /// It is dropped for this reason, and counted there.
    Drop(Reason, usize),
    /// The challenge found no place.
    Fallback,
}

const CHALLENGED: Decision = Decision::Drop(reason::CHALLENGED, tally::CHALLENGED);

impl Memory {
    /// A SYN comes, for which the destination's meter had a token or not.
    fn syn(
        &mut self,
        flow: Key,
        source: impl FnOnce() -> Key,
        has_token: bool,
        now_ns: u64,
        counts: &mut [u64; tally::ALL],
    ) -> Decision {
        let now = Moment::new(now_ns);
        match self.handshakes.syn(flow, now) {
            Some((State::Passed, true)) if !has_token => CHALLENGED,
            Some((State::Passed, _)) => Decision::Begin(tally::REPEATED),
            Some((State::Challenged, false)) => Decision::Begin(tally::PROVED),
            _ if has_token => Decision::Begin(tally::UNCHALLENGED),
            Some((State::Challenged, true)) => CHALLENGED,
            None if self.sources.is_verified(source(), now_ns) => Decision::Begin(tally::VERIFIED),
            None if self.handshakes.remember(flow, now, State::Challenged).is_some() => CHALLENGED,
            None => {
                counts[tally::HANDSHAKES_FULL] += 1;
                Decision::Fallback
            }
        }
    }

    /// A handshake begins whose source has budget, if there is a limit, which is asked later.
    fn begin(
        &mut self,
        limit: &mut Limit,
        (place, packet, flow): (u16, &Descriptor, Key),
        passes_as: usize,
        now_ns: u64,
        counts: &mut [u64; tally::ALL],
    ) {
        let before = self.handshakes.remember(flow, Moment::new(now_ns), State::Passed);
        counts[tally::HANDSHAKES_FULL] += u64::from(before.is_none());
        if limit.is_set() {
            limit.begin(Begun { place, passes_as, before }, packet);
        } else {
            counts[passes_as] += 1;
        }
    }

    /// A packet comes that ends the handshake of its flow, if that is half-open.
    #[inline]
    fn end(
        &mut self,
        limit: &mut Limit,
        secret: u64,
        (packet, flow): (&Descriptor, Key),
        now_ns: u64,
        counts: &mut [u64; tally::ALL],
    ) {
        if !self.handshakes.end(flow, Moment::new(now_ns)) {
            return;
        }
        limit.end(packet);
        if packet.tcp_flags & RST == 0 {
            counts[tally::COMPLETED] += 1;
            let is_known = self.sources.verify(Key::source(secret, packet), now_ns);
            counts[tally::SOURCES_FULL] += u64::from(!is_known);
        }
    }
}

/// Whether a packet has a TCP header with ports.
#[inline]
fn is_tcp(packet: &Descriptor) -> bool {
    packet.protocol == TCP && packet.flags & (flags::LATER_FRAGMENT | flags::PORTS) == flags::PORTS
}

/// Whether a packet may end a half-open handshake.
#[inline]
fn is_end(packet: &Descriptor) -> bool {
    packet.tcp_flags & SYN == 0 && packet.tcp_flags & (ACK | RST) != 0
}

/// Whether a packet asks for a connection. With other flags beside SYN, no sane sender's does.
#[inline]
fn is_syn(packet: &Descriptor) -> bool {
    packet.tcp_flags & (SYN | ACK | RST | FIN) == SYN
}

#[sluice_sdk::plugin(manifest = "manifest.toml")]
impl Plugin for SynGuard {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, String> {
        let config = config.settings()?;
        let open = |rate: f64, burst: u32, key: &str| {
            Meter::open((rate * 1000.0).round() as i64, burst.into(), config.destinations)
                .map_err(|error| format!("`{key}`: {error}"))
        };
        let fallback_burst = (config.fallback_per_s as u32).max(1);
        Ok(Self {
            directions: Box::new(config.directions),
            rate: open(config.syn_per_s, config.burst, "syn_per_s")?,
            fallback: open(config.fallback_per_s, fallback_burst, "fallback_per_s")?,
            memory: Memory {
                secret: None,
                handshakes: Handshakes::new(
                    config.entries,
                    config.retry_min_ms,
                    config.half_open_s,
                ),
                sources: Sources::new(config.sources, config.verified_s),
            },
            limit: Limit::open(config.half_open_max, config.half_open_s, config.half_open_entries)?,
            proof: match config.proof {
                ProofBy::Ack => Proof::ack(),
                ProofBy::Answer => {
                    Proof::answer(&config.directions, config.answers, config.half_open_s)?
                }
            },
            places: Box::new([0; BATCH_MAX]),
            keys: Box::new([[0; 16]; BATCH_MAX]),
            tokens: Box::new([0; BATCH_MAX]),
        })
    }

    fn process(&mut self, batch: &mut Batch<'_>) {
        let (packets, now_ns) = (batch.descriptors(), batch.now_ns());
        batch.verdicts_mut().fill(Verdict::CONTINUE);
        let Self { directions, rate, fallback, memory, limit, proof, places, keys, tokens } = self;
        let is_judged =
            |packet: &Descriptor| directions[usize::from(packet.direction)] && is_tcp(packet);
        let all = || packets.iter().zip(0_u16..);

        let now = Moment::new(now_ns);
        let may_be_half_open = memory.handshakes.may_be_half_open(now);
        let mut counts = [0; tally::ALL];
        let mut syns = 0;
        if may_be_half_open {
            let secret = *memory.secret.get_or_insert_with(|| key::secret(now_ns, packets));
            for (packet, place) in all().filter(|(packet, _)| is_judged(packet)) {
                if is_syn(packet) {
                    (places[syns], keys[syns]) = (place, packet.destination);
                    syns += 1;
                } else if is_end(packet) {
                    let flow = Key::flow(secret, packet);
                    let header = || batch.payload(usize::from(place));
                    let ends = proof.is_any_ack()
                        || memory.handshakes.is_half_open(flow, now)
                            && !proof.ask(place, packet, header(), &mut counts);
                    if ends {
                        memory.end(limit, secret, (packet, flow), now_ns, &mut counts);
                    }
                }
            }
        } else {
            for (packet, place) in all() {
                if is_judged(packet) && is_syn(packet) {
                    (places[syns], keys[syns]) = (place, packet.destination);
                    syns += 1;
                }
            }
        }
        let is_idle = syns == 0 && !may_be_half_open && proof.is_any_ack();
        if is_idle || packets.is_empty() {
            return;
        }
        let secret = *memory.secret.get_or_insert_with(|| key::secret(now_ns, packets));
        if !proof.is_any_ack() {
            for (packet, place) in all().filter(|(packet, _)| is_tcp(packet)) {
                if proof.is_answer(packet) {
                    proof.answered(packet, batch.payload(usize::from(place)), &mut counts);
                }
            }
        }
        proof.settle(now_ns, &mut counts, |place, is_proved, counts| {
            let packet = &packets[usize::from(place)];
            let flow = Key::flow(secret, packet);
            if is_proved {
                memory.end(limit, secret, (packet, flow), now_ns, counts);
            } else {
                // Not so if it was sent twice, and the first ended it.
                let is_half_open = memory.handshakes.is_half_open(flow, now);
                counts[tally::UNPROVED] += u64::from(is_half_open);
            }
        });
        limit.leave(now_ns, &mut counts);

        if syns > 0 {
            rate.take(&keys[..syns], now_ns, &mut tokens[..syns]);
            counts[tally::SYNS] = syns as u64;
        }
        let verdicts = batch.verdicts_mut();
        // The SYNs that are left for the fall-back move to the front of the places.
        let mut left = 0;
        for next in 0..syns {
            let place = places[next];
            let packet = &packets[usize::from(place)];
            let (flow, source) = (Key::flow(secret, packet), || Key::source(secret, packet));
            match memory.syn(flow, source, tokens[next] != 0, now_ns, &mut counts) {
                Decision::Begin(passes_as) => {
                    memory.begin(limit, (place, packet, flow), passes_as, now_ns, &mut counts);
                }
                Decision::Drop(reason, counter) => {
                    verdicts[usize::from(place)] = reason.verdict();
                    counts[counter] += 1;
                }
                Decision::Fallback => {
                    (places[left], keys[left]) = (place, packet.destination);
                    left += 1;
                }
            }
        }
        if left > 0 {
            fallback.take(&keys[..left], now_ns, &mut tokens[..left]);
            for (place, token) in places[..left].iter().zip(&tokens[..left]) {
                let packet = &packets[usize::from(*place)];
                if *token == 0 {
                    verdicts[usize::from(*place)] = reason::TABLE_FULL.verdict();
                    counts[tally::REFUSED_TABLE_FULL] += 1;
                } else {
                    let begins = (*place, packet, Key::flow(secret, packet));
                    memory.begin(limit, begins, tally::UNREMEMBERED, now_ns, &mut counts);
                }
            }
        }
        limit.admit(now_ns, &mut counts, |begun, is_admitted, counts| {
            if is_admitted {
                counts[begun.passes_as] += 1;
                return begun.before.is_some();
            }
            if let Some(before) = begun.before {
                memory.handshakes.put_back(before);
            }
            verdicts[usize::from(begun.place)] = reason::HALF_OPEN.verdict();
            counts[tally::HALF_OPEN] += 1;
            true
        });
        for (index, count) in counts.into_iter().enumerate().filter(|(_, count)| *count > 0) {
            batch.count(index, count);
        }
    }

    fn export(&mut self, state: &mut StateWriter<'_>) -> Result<(), StateFull> {
        self.memory.export(state)
    }

    fn import(&mut self, _schema: u32, state: &[u8]) -> Result<(), String> {
        self.memory.import(state)
    }
}

#[cfg(test)]
mod tests;
