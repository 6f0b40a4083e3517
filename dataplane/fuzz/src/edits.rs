//! Any verdicts and edits of three plugins, checked and carried out on any packet by a router: what is
//! refused changes no byte, and what is accepted changes those bytes that it names, with right checksums.
//!
//! ```text
//!  companions u8 (bit 0 before, bit 1 behind) | three times, at ingress, forward, egress: word u64 | edit 16
//!  and the packet, see `edits/packet.rs`
//!
//!  packet --> router, the plugins' detours set by hand  --> frames --contract--> what has to leave
//!         `-> router with the plugins, in the real host --> frames <--- the same? ---------'
//! ```
//!
//! Each plugin answers what the input says: its answer is put where it finds it, in the addresses of the
//! packet's descriptor, and these are put back when it has answered. What verdicts mean is written down
//! again in `edits/contract.rs`, and what edits do to bytes in `edits/bytes.rs`, from `sdk/ABI.md` and the
//! RFCs alone. Packets that wait for a neighbor leave later, with the same edits.

mod bytes;
mod contract;
mod packet;

use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use frame::{Batch, Descriptor, Hook, HookPoint, Nanos, NoHook, PacketEdit};
use policy::{Action, DefaultVerdict, HostOptions, PluginHost, PluginSpec, WorkerChain};
use tables::{AdjacencyState, Snapshot};
use tempfile::TempDir;

use crate::common::{A, LAN, Plan, Rig, WAN, address, snapshot_with};
use crate::cursor::Cursor;
use crate::guest;
use crate::planted::{self, Defect};
use contract::{Answer, State, Wanted};

/// What plugins may name, besides what all packet targets have.
const ACTIONS: &str = r#"
    [[next_hop]]
    name = "answers"
    via = "10.0.0.1"
    [[next_hop]]
    name = "silent"
    via = "10.0.0.9"
    [[egress_tag]]
    name = "usable"
    next_hops = ["answers"]
    [[egress_tag]]
    name = "unusable"
    next_hops = ["silent"]
    [[class]]
    name = "voice"
    dscp = 46
    [[class]]
    name = "bulk"
"#;

/// Who may have to answer before a packet leaves.
const NEIGHBORS: [(u8, &str); 9] = [
    (WAN, "10.0.0.9"),
    (WAN, "10.0.0.12"),
    (WAN, "10.0.0.13"),
    (WAN, "10.0.0.14"),
    (WAN, "fd00::12"),
    (WAN, "fd00::15"),
    (WAN, "fd00::16"),
    (LAN, "10.1.0.2"),
    (LAN, "10.1.0.5"),
];

/// The plugins, which live on from input to input, as they do in a router.
struct Plugins {
    chain: WorkerChain,
    now: Nanos,
    _host: PluginHost,
    /// Where they lie.
    _directory: TempDir,
}

static PLUGINS: LazyLock<Mutex<Plugins>> = LazyLock::new(|| {
    let (mut host, mut chains) = PluginHost::new(HostOptions::new(1)).expect("a host");
    let directory = tempfile::tempdir().expect("a directory");
    let specs = contract::DEFAULTS.map(|(point, default)| {
        let name = format!("{point:?}").to_lowercase();
        let manifest = format!(
            "abi = \"1.0\"\nname = \"any\"\nhooks = [\"{name}\"]\nreasons = [\"first\"]\n\
             actions = {:?}\ncounters = [\"one\", \"two\"]\n",
            Action::ALL.map(Action::name)
        );
        // Of the forward plugin all arrays have gaps.
        let strides = if default == DefaultVerdict::Drop { (72, 24, 40) } else { (64, 8, 16) };
        let module = guest::module(strides.0, strides.1, Some(strides.2));
        let path = directory.path().join(&name);
        std::fs::write(&path, guest::with_manifest(module, manifest.as_bytes())).expect("a file");
        PluginSpec {
            default: Some(default),
            // However long the machine is busy with something else.
            budget_us: 1_000_000,
            grants: Action::ALL.iter().map(|action| action.name().to_owned()).collect(),
            ..PluginSpec::new(name, path, point)
        }
    });
    let set = host.prepare(&specs).expect("sound plugins");
    host.publish(set).expect("room for a set");
    let chain = chains.pop().expect("a worker");
    Mutex::new(Plugins { chain, now: Nanos(0), _host: host, _directory: directory })
});

static TABLES: LazyLock<Snapshot> = LazyLock::new(|| {
    let tables = snapshot_with(ACTIONS);
    let actions = &tables.actions;
    for number in 0..=3 {
        let is_known = contract::NUMBERS.contains(&number);
        assert_eq!(actions.next_hop(number).is_some(), is_known);
        assert_eq!(actions.tag(number).is_some(), is_known);
    }
    assert_eq!(actions.class(1).and_then(|class| class.dscp), Some(contract::VOICE_DSCP));
    assert_eq!(actions.class(2).map(|class| class.dscp), Some(None));
    assert!(actions.class(3).is_none());
    tables
});

/// Which packet of a batch is asked about, and the answers for it.
#[derive(Clone, Copy)]
struct Script {
    /// Its position among the others; alone, it is the first.
    position: usize,
    answers: [Answer; 3],
}

impl Script {
    fn position(&self, batch: &Batch) -> usize {
        if batch.len() == 1 { 0 } else { self.position }
    }

    /// What the contract makes of the answer at `point`.
    fn expected(&self, point: HookPoint, batch: &Batch) -> State {
        let at = self.position(batch);
        let before = State { verdict: batch.verdicts[at], edit: batch.edits.get(at) };
        contract::after(point, before, &self.answers[point as usize])
    }
}

/// Only the detours that the answers ask for, and the drops.
struct ByHand(Script);

impl Hook for ByHand {
    fn begin_turn(&mut self, _: Nanos) {}

    fn is_active(&self, _: HookPoint) -> bool {
        true
    }

    fn run(&mut self, point: HookPoint, batch: &mut Batch, _: Nanos) {
        let at = self.0.position(batch);
        let State { verdict, edit: PacketEdit { next_hop, tag, .. } } =
            self.0.expected(point, batch);
        batch.verdicts[at] = verdict;
        if (next_hop, tag) != (0, 0) {
            let detour = PacketEdit { next_hop, tag, ..PacketEdit::default() };
            batch.edits.change(at, |entry| *entry = detour);
        }
    }
}

/// The plugins, each of which answers what the script says.
struct Scripted {
    script: Script,
    /// What the packet is to leave with: what was set before it was rewritten.
    set: Arc<Mutex<PacketEdit>>,
}

impl Hook for Scripted {
    fn begin_turn(&mut self, _: Nanos) {
        let plugins = &mut *PLUGINS.lock().unwrap_or_else(PoisonError::into_inner);
        plugins.now = plugins.now.plus(1_000_000);
        plugins.chain.begin_turn(plugins.now);
    }

    fn is_active(&self, point: HookPoint) -> bool {
        PLUGINS.lock().unwrap_or_else(PoisonError::into_inner).chain.is_active(point)
    }

    fn run(&mut self, point: HookPoint, batch: &mut Batch, _: Nanos) {
        let at = self.script.position(batch);
        let n = batch.len();
        let edits = |batch: &Batch| (0..n).map(|at| batch.edits.get(at)).collect::<Vec<_>>();
        let expected = self.script.expected(point, batch);
        let (mut verdicts, mut entries) = (batch.verdicts[..n].to_vec(), edits(batch));
        (verdicts[at], entries[at]) = (expected.verdict, expected.edit);

        let descriptors = batch.descriptors[..n].to_vec();
        for (position, descriptor) in batch.descriptors[..n].iter_mut().enumerate() {
            let answer = if position == at {
                self.script.answers[point as usize]
            } else {
                Answer::default()
            };
            let mut source = [0; 16];
            source[..8].copy_from_slice(&answer.word.to_le_bytes());
            *descriptor = Descriptor { source, destination: answer.edit, ..*descriptor };
        }
        let plugins = &mut *PLUGINS.lock().unwrap_or_else(PoisonError::into_inner);
        plugins.chain.run(point, batch, plugins.now);
        batch.descriptors[..n].copy_from_slice(&descriptors);
        if planted::is(Defect::HalfVoid)
            && contract::is_void(point, &self.script.answers[point as usize])
        {
            batch.edits.change(at, |entry| entry.mark = entry.mark.wrapping_add(1));
        }

        let answer = &self.script.answers[point as usize];
        assert_eq!(batch.verdicts[..n], verdicts, "{answer:?} at {point:?}");
        assert_eq!(edits(batch), entries, "{answer:?} at {point:?}");
        if point != HookPoint::Egress {
            *self.set.lock().unwrap_or_else(PoisonError::into_inner) = batch.edits.get(at);
        }
    }
}

/// What left a router, by interface, and what went to its kernel.
type Left = [Vec<Vec<u8>>; 3];

/// Has packets come in, and neighbors answer when they have; hands out what left, judged sound.
fn carry<H: Hook>(hook: H, position: u8, frames: &[Vec<u8>]) -> Left {
    let plan = Plan { frames: 96, ..Plan::default() };
    let mut rig = Rig::with(A, &plan, &TABLES, hook);
    let mut pushed = 0;
    for frame in frames {
        pushed += u64::from(rig.receive(position, frame));
    }
    rig.turn();
    let mut left = [rig.take(WAN), rig.take(LAN), rig.kernel_packets()];
    for (position, of) in NEIGHBORS {
        if rig.sum("held") == 0 {
            break;
        }
        rig.neighbor(position, address(of), AdjacencyState::Resolved);
        rig.turn();
        let more = [rig.take(WAN), rig.take(LAN), rig.kernel_packets()];
        left.iter_mut().zip(more).for_each(|(left, more)| left.extend(more));
    }
    rig.check_sums(pushed);
    rig.finish(plan.frames);
    left
}

/// The target.
pub fn run(bytes: &[u8]) {
    let mut input = Cursor::new(bytes);
    let companions = input.u8();
    let answers = [(); 3].map(|()| Answer::read(&mut input));
    let (position, ours) = packet::read(&mut input);

    let companion = packet::companion(position);
    let mut frames = vec![ours];
    if companions & 1 != 0 {
        frames.insert(0, companion.clone());
    }
    if companions & 2 != 0 {
        frames.push(companion);
    }
    let script = Script { position: usize::from(companions & 1), answers };
    let set = Arc::new(Mutex::new(PacketEdit::default()));
    let left = carry(Scripted { script, set: Arc::clone(&set) }, position, &frames);
    let set = *set.lock().unwrap_or_else(PoisonError::into_inner);
    let by_hand = carry(ByHand(script), position, &frames);
    compare(&left, &by_hand, contract::wanted(set), frames.len() - 1);
    if answers.iter().all(|answer| *answer == Answer::default()) {
        compare(&left, &carry(NoHook, position, &frames), Wanted::default(), frames.len() - 1);
    }
}

/// Asserts that what left is what leaves without edits, but for what is wanted of one packet.
fn compare(left: &Left, plain: &Left, wanted: Wanted, companions: usize) {
    let is_companion = |frame: &&Vec<u8>| frame.len() >= packet::COMPANION_BYTES_MIN;
    let count = plain.iter().flatten().filter(is_companion).count();
    assert_eq!(count, companions, "a companion stayed");
    for (place, (left, plain)) in left.iter().zip(plain).enumerate() {
        assert_eq!(left.len(), plain.len(), "how much leaves at {place}");
        // The kernel gets packets without a header of the link.
        let header_len = if place == 2 { 0 } else { 14 };
        for (left, plain) in left.iter().zip(plain) {
            if is_companion(&plain) {
                assert_eq!(left, plain, "a companion was changed");
                continue;
            }
            let mut left = left.clone();
            if planted::is(Defect::OddOption) {
                bytes::forget_oddness(&mut left[header_len..], &plain[header_len..]);
            }
            if let Err(wrong) = bytes::compare(&left, plain, header_len, wanted) {
                panic!("{wrong}: {wanted:?}\nbefore {plain:02x?}\nafter  {left:02x?}");
            }
        }
    }
}
