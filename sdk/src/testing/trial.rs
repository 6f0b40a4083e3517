//! A plugin's native half of a comparison: what `sluice plugin test` sends to a program that was built
//! from the plugin, and what it gets back.
//!
//! ```text
//! script: a line of JSON (configuration, host), then steps until the end:
//!         now_ns: u64, n: u32, then n x (Descriptor, Marks, len: u32, payload)     n = 2^32 - 1: a tick,
//!                                                                       2^32 - 2: a hand-over of all workers
//!                                                                       2^32 - 3: a worker's number follows,
//!                                                                                 whose calls are next
//! answer: a line of JSON (an error, or null), then for each step n x (Verdict, Edit),
//!         then the counters
//! ```
//! Integers are little-endian. Both sides are in this file; it is no interface for anybody else.

use std::{
    io::{self, BufWriter, Read, Write},
    string::String,
    vec::Vec,
};

use serde::{Deserialize, Serialize};
use sluice_abi::BATCH_MAX;

use crate::{
    Declared, Plugin,
    testing::{Answer, Bench, Host, Seen},
};

const TICK: u32 = u32::MAX;
const HAND_OVER: u32 = u32::MAX - 1;
const WORKER: u32 = u32::MAX - 2;

/// What is done with a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Its configuration in JSON.
    pub config: String,
    /// The operator's side.
    pub host: Host,
    /// The calls.
    pub steps: Vec<Step>,
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A batch of up to 256 packets.
    Batch {
        /// The time that it is given.
        now_ns: u64,
        /// The packets.
        packets: Vec<Seen>,
    },
    /// A tick.
    Tick {
        /// The time that it is given.
        now_ns: u64,
    },
    /// A reload with the same configuration, in all workers: see [`Bench::hand_over`].
    HandOver,
    /// Batches and ticks from here on are those of this worker: at first of worker 0, which is the only one in
    /// a script that names no other.
    Worker {
        /// Its number.
        worker: u32,
    },
}

/// Stands in front of an outcome in what a plugin's program writes: before it may be what the plugin itself
/// wrote.
pub const OUTCOME_BEGINS: &[u8] = b"\0\0sluice outcome\n";

/// What a plugin did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What it said of its configuration, if it refused it.
    pub refusal: Option<String>,
    /// The answers of all batches, one after the other.
    pub answers: Vec<Answer>,
    /// Its counters at the end.
    pub counters: Vec<u64>,
}

#[derive(Serialize, Deserialize)]
struct Head {
    config: String,
    host: Host,
}

impl Script {
    /// Writes it for the other side.
    ///
    /// # Errors
    /// As `to` has them.
    pub fn write(&self, to: impl Write) -> io::Result<()> {
        let mut to = BufWriter::new(to);
        let head = Head { config: self.config.clone(), host: self.host.clone() };
        serde_json::to_writer(&mut to, &head)?;
        to.write_all(b"\n")?;
        for step in &self.steps {
            match step {
                Step::Batch { now_ns, packets } => {
                    to.write_all(&now_ns.to_le_bytes())?;
                    to.write_all(&(packets.len() as u32).to_le_bytes())?;
                    for packet in packets {
                        to.write_all(bytemuck::bytes_of(&packet.descriptor))?;
                        to.write_all(bytemuck::bytes_of(&packet.marks))?;
                        to.write_all(&(packet.payload.len() as u32).to_le_bytes())?;
                        to.write_all(&packet.payload)?;
                    }
                }
                Step::Tick { now_ns } => {
                    to.write_all(&now_ns.to_le_bytes())?;
                    to.write_all(&TICK.to_le_bytes())?;
                }
                Step::HandOver => {
                    to.write_all(&0_u64.to_le_bytes())?;
                    to.write_all(&HAND_OVER.to_le_bytes())?;
                }
                Step::Worker { worker } => {
                    to.write_all(&0_u64.to_le_bytes())?;
                    to.write_all(&WORKER.to_le_bytes())?;
                    to.write_all(&worker.to_le_bytes())?;
                }
            }
        }
        to.flush()
    }

    /// Reads what [`Self::write`] wrote.
    ///
    /// # Errors
    /// When it is cut short or garbled.
    pub fn read(mut from: impl Read) -> io::Result<Self> {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes)?;
        let (head, mut rest) = head_and_rest(&bytes)?;
        let Head { config, host } = serde_json::from_slice(head)?;
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let now_ns = pod(&mut rest)?;
            let n: u32 = pod(&mut rest)?;
            if n == TICK {
                steps.push(Step::Tick { now_ns });
                continue;
            }
            if n == HAND_OVER {
                steps.push(Step::HandOver);
                continue;
            }
            if n == WORKER {
                steps.push(Step::Worker { worker: pod(&mut rest)? });
                continue;
            }
            let mut packets = Vec::new();
            for _ in 0..n {
                let (descriptor, marks) = (pod(&mut rest)?, pod(&mut rest)?);
                let len: u32 = pod(&mut rest)?;
                let payload = take(&mut rest, len as usize)?.to_vec();
                packets.push(Seen { descriptor, marks, payload });
            }
            steps.push(Step::Batch { now_ns, packets });
        }
        Ok(Self { config, host, steps })
    }

    /// Number of packets.
    #[must_use]
    pub fn packets(&self) -> usize {
        let count = |step: &Step| match step {
            Step::Batch { packets, .. } => packets.len(),
            Step::Tick { .. } | Step::HandOver | Step::Worker { .. } => 0,
        };
        self.steps.iter().map(count).sum()
    }
}

impl Outcome {
    /// Writes it for the other side.
    ///
    /// # Errors
    /// As `to` has them.
    pub fn write(&self, to: impl Write) -> io::Result<()> {
        let mut to = BufWriter::new(to);
        serde_json::to_writer(&mut to, &self.refusal)?;
        to.write_all(b"\n")?;
        for answer in &self.answers {
            to.write_all(bytemuck::bytes_of(&answer.verdict))?;
            to.write_all(bytemuck::bytes_of(&answer.edit))?;
        }
        for counter in &self.counters {
            to.write_all(&counter.to_le_bytes())?;
        }
        to.flush()
    }

    /// Reads the outcome of a script of `packets` packets.
    ///
    /// # Errors
    /// When it is cut short or garbled.
    pub fn read(bytes: &[u8], packets: usize) -> io::Result<Self> {
        let (head, mut rest) = head_and_rest(bytes)?;
        let refusal: Option<String> = serde_json::from_slice(head)?;
        let mut outcome = Self { refusal, ..Self::default() };
        if outcome.refusal.is_none() {
            for _ in 0..packets {
                let (verdict, edit) = (pod(&mut rest)?, pod(&mut rest)?);
                outcome.answers.push(Answer { verdict, edit });
            }
        }
        while !rest.is_empty() {
            outcome.counters.push(pod(&mut rest)?);
        }
        Ok(outcome)
    }
}

/// Plays a script to a plugin.
pub fn play<P: Plugin + Declared>(script: &Script) -> Outcome {
    match played::<P>(script) {
        Ok(outcome) => outcome,
        Err(refusal) => Outcome { refusal: Some(refusal), ..Outcome::default() },
    }
}

/// The same, or what the plugin says of its configuration.
fn played<P: Plugin + Declared>(script: &Script) -> Result<Outcome, String> {
    let named = script.steps.iter().filter_map(|step| match step {
        Step::Worker { worker } => Some(*worker),
        _ => None,
    });
    let mut benches = std::vec![Bench::<P>::with_host(&script.host, &script.config)?];
    for worker in 1..=named.max().unwrap_or(0) {
        let next = benches[0].beside(worker.into(), &script.config)?;
        benches.push(next);
    }
    let mut answers = Vec::new();
    let mut of = 0;
    for step in &script.steps {
        match step {
            Step::Batch { now_ns, packets } => {
                assert!(packets.len() <= BATCH_MAX, "a batch has at most {BATCH_MAX} packets");
                answers.extend(benches[of].judge_seen(packets, *now_ns));
            }
            Step::Tick { now_ns } => benches[of].tick(*now_ns),
            Step::HandOver => {
                for bench in &mut benches {
                    bench.hand_over(&script.config)?;
                }
            }
            Step::Worker { worker } => of = *worker as usize,
        }
    }
    let mut counters = std::vec![0_u64; P::DECLARATION.counters_len];
    for bench in &benches {
        for (sum, count) in counters.iter_mut().zip(&bench.counters) {
            *sum = sum.wrapping_add(*count);
        }
    }
    Ok(Outcome { refusal: None, answers, counters })
}

/// Plays the script of the standard input and writes the outcome to the standard output. Says whether
/// that went well.
#[doc(hidden)]
#[must_use]
pub fn run<P: Plugin + Declared>() -> bool {
    let played =
        Script::read(io::stdin().lock()).map(|script| play::<P>(&script)).and_then(|outcome| {
            let mut to = io::stdout().lock();
            to.write_all(OUTCOME_BEGINS)?;
            outcome.write(to)
        });
    if let Err(error) = &played {
        std::eprintln!("{error}");
    }
    played.is_ok()
}

fn head_and_rest(bytes: &[u8]) -> io::Result<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n').ok_or_else(cut_short)?;
    Ok((&bytes[..end], &bytes[end + 1..]))
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> io::Result<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(len).ok_or_else(cut_short)?;
    *rest = left;
    Ok(taken)
}

fn pod<T: bytemuck::AnyBitPattern>(rest: &mut &[u8]) -> io::Result<T> {
    take(rest, size_of::<T>()).map(bytemuck::pod_read_unaligned)
}

fn cut_short() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "it is cut short")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::ipv4;

    #[test]
    fn scripts_and_outcomes_arrive_as_they_were_sent() {
        let mut packet = Seen::from(ipv4([1, 2, 3, 4], [5, 6, 7, 8]));
        packet.payload = b"payload\n".to_vec();
        packet.marks.mark = 7;
        let script = Script {
            config: "{\"a\": \"b\\n\"}".into(),
            host: Host::new().next_hop("x").table("t", "::/0\n"),
            steps: std::vec![
                Step::Batch { now_ns: 1, packets: std::vec![packet; 3] },
                Step::Tick { now_ns: 2 },
                Step::HandOver,
                Step::Worker { worker: 3 },
                Step::Batch { now_ns: 3, packets: Vec::new() },
            ],
        };
        let mut bytes = Vec::new();
        script.write(&mut bytes).expect("memory");
        assert_eq!(Script::read(&bytes[..]).expect("whole"), script);
        for len in 0..bytes.len() {
            assert!(
                Script::read(&bytes[..len]).is_ok_and(|cut| cut != script)
                    || Script::read(&bytes[..len]).is_err()
            );
        }
        let outcome = Outcome {
            answers: std::vec![Answer::default(); 3],
            counters: std::vec![1, 2],
            ..Outcome::default()
        };
        let mut bytes = Vec::new();
        outcome.write(&mut bytes).expect("memory");
        assert_eq!(Outcome::read(&bytes, script.packets()).expect("whole"), outcome);
        assert!(Outcome::read(&bytes[..bytes.len() - 1], 3).is_err());
    }
}
