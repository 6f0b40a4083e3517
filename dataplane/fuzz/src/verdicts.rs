//! Any bytes that guests write as verdicts, over batches that are partly decided: each packet gets what
//! the words say, and what makes no sense costs the default and nothing else.
//!
//! ```text
//!  (verdict before u8 | word u64) for each packet; the word 0xff.. of the first one, twice, is a trap
//! ```
//!
//! Two plugins stand in a row: one lets pass by default and has arrays without gaps, the other drops by
//! default and has gaps. They live on from input to input, as they do in a router.
//!
//! Absent: whatever else a plugin may want than a drop, which it has to declare: that is the target `edits`.

use std::sync::{LazyLock, Mutex, PoisonError};

use frame::{BATCH_MAX, Batch, DropReason, Frame, Hook, HookPoint, Nanos, Verdict};
use policy::{DefaultVerdict, HostOptions, OnTrap, PluginHost, PluginSpec, WorkerChain};
use sluice_abi::Descriptor;
use tempfile::TempDir;
use wire::InterfaceId;

use crate::cursor::Cursor;
use crate::guest;

const MANIFEST: &str = "abi = \"1.0\"\nname = \"any\"\nhooks = [\"ingress\"]\n\
                        reasons = [\"first\", \"second\"]\ncounters = [\"one\", \"two\"]\n";

struct Chain {
    host: PluginHost,
    chain: WorkerChain,
    frames: Vec<Frame>,
    now: Nanos,
    /// Where the plugins lie.
    _directory: TempDir,
}

static CHAIN: LazyLock<Mutex<Chain>> = LazyLock::new(|| {
    let (mut host, mut chains) = PluginHost::new(HostOptions::new(1)).expect("a host");
    let directory = tempfile::tempdir().expect("a directory");
    let spec = |name: &str, strides: (u32, u32), default, on_trap| {
        let path = directory.path().join(name);
        let module =
            guest::with_manifest(guest::module(strides.0, strides.1, None), MANIFEST.as_bytes());
        std::fs::write(&path, module).expect("a file");
        PluginSpec {
            default: Some(default),
            on_trap: Some(on_trap),
            // However long the machine is busy with something else.
            budget_us: 1_000_000,
            traps_max: u32::MAX,
            ..PluginSpec::new(name, path, HookPoint::Ingress)
        }
    };
    let specs = [
        spec("close", (64, 8), DefaultVerdict::Continue, OnTrap::Open),
        spec("apart", (128, 24), DefaultVerdict::Drop, OnTrap::Closed),
    ];
    let set = host.prepare(&specs).expect("sound plugins");
    host.publish(set).expect("room for a set");
    let chain = chains.pop().expect("a worker");
    let mut pool = sim::memory_pool(BATCH_MAX, 0);
    let frames = std::iter::from_fn(|| pool.take()).collect();
    Mutex::new(Chain { host, chain, frames, now: Nanos(0), _directory: directory })
});

/// The target.
pub fn run(bytes: &[u8]) {
    let mut guard = CHAIN.lock().unwrap_or_else(PoisonError::into_inner);
    let Chain { host, chain, frames, now, .. } = &mut *guard;
    let mut input = Cursor::new(bytes);
    let mut batch = Batch::new();
    while !input.is_empty() && batch.room() > 0 {
        let before = input.choose(&[
            Verdict::Continue,
            Verdict::Continue,
            Verdict::Punt,
            Verdict::Drop(DropReason::Ipv4Version),
            Verdict::Transmit(InterfaceId(1)),
        ]);
        let position = batch.len();
        let word = u64::from(input.u32()) | u64::from(input.u32()) << 32;
        let Some(frame) = frames.pop() else { break };
        assert!(batch.push(frame).is_ok());
        let mut source = [0; 16];
        source[..8].copy_from_slice(&word.to_le_bytes());
        let destination = if word == u64::MAX { [0xff; 16] } else { [0; 16] };
        batch.descriptors[position] = Descriptor { source, destination, ..Descriptor::default() };
        batch.verdicts[position] = before;
    }
    let n = batch.len();
    let words: Vec<u64> = batch.descriptors[..n]
        .iter()
        .map(|of| u64::from_le_bytes(*of.source.first_chunk().expect("8 bytes")))
        .collect();
    let before = batch.verdicts[..n].to_vec();

    *now = now.plus(1_000_000);
    chain.begin_turn(*now);
    chain.run(HookPoint::Ingress, &mut batch, *now);
    let mut expected = before;
    judge(&mut expected, &words, DefaultVerdict::Continue, OnTrap::Open);
    judge(&mut expected, &words, DefaultVerdict::Drop, OnTrap::Closed);
    assert_eq!(batch.verdicts[..n], expected, "{words:x?}");
    let trapped = words.contains(&u64::MAX);
    frames.append(&mut batch.frames);
    if trapped {
        // A plugin that trapped is replaced in time, and later the more often it did. Loading it again is
        // quicker, and what an operator would do.
        for name in ["close", "apart"] {
            host.reload(name).expect("a sound plugin");
        }
        *now = now.plus(1_000_000);
        chain.begin_turn(*now);
        host.maintain();
    }
}

/// What a plugin does to packets that are open.
fn judge(verdicts: &mut [Verdict], words: &[u64], default: DefaultVerdict, on_trap: OnTrap) {
    let is_open = |verdict: &Verdict| HookPoint::Ingress.asks_about(*verdict);
    let first = verdicts.iter().zip(words).find(|(verdict, _)| is_open(verdict));
    let traps = first.is_some_and(|(_, word)| *word == u64::MAX);
    for (verdict, word) in verdicts.iter_mut().zip(words).filter(|(verdict, _)| is_open(verdict)) {
        let by_default = match default {
            DefaultVerdict::Continue => Verdict::Continue,
            DefaultVerdict::Drop => Verdict::Drop(DropReason::PluginDefault),
        };
        *verdict = match (traps, *word & 0xffff_ffff, *word >> 32) {
            (true, ..) if on_trap == OnTrap::Open => Verdict::Continue,
            (true, ..) => Verdict::Drop(DropReason::PluginDefault),
            (false, 0, 0) => Verdict::Continue,
            (false, 1, 0 | 1 | 0xffff_ffff) => Verdict::Drop(DropReason::Plugin),
            _ => by_default,
        };
    }
}
