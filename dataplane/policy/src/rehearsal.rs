//! [`Rehearsal`]: a plugin by itself under the engine and limits of the router, for its author.
//!
//! Nothing is hidden from an author: verdicts and edits are handed out as the module wrote them. What an
//! operator would have to grant is granted. As in the router there is an instance for each worker, and all
//! share meters and quotas, and nothing else. Their calls come one after the other, so that a run can be
//! repeated. Deliberately absent: chains, spares, and what becomes of a packet.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use frame::{HookPoint, KnownNumbers, Nanos, NumberSet};
use sluice_abi::{Descriptor, Edit, Marks, Verdict};

use crate::{
    DefaultVerdict, HostOptions, Manifest, PluginConfig, PluginFault, PluginHost, PluginSpec,
    PolicyError,
    generation::Loaded,
    imports::{Names, Offers},
    instance::{HandOver, Instance, reason},
    judgement::{Allowed, Bad, judge},
    loading::AsideVersion,
    manifest::hook_name,
    module::{MODULE_BYTES_MAX, hex, manifest_of, read_file, sha256},
    ticker::Beat,
};

/// A packet as a plugin is shown it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RehearsalPacket {
    /// What is known of it.
    pub descriptor: Descriptor,
    /// What earlier plugins set.
    pub marks: Marks,
    /// The bytes that the manifest's `payload` asks for.
    pub payload: Vec<u8>,
}

/// What a plugin wrote for one packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RehearsalAnswer {
    /// Its verdict.
    pub verdict: Verdict,
    /// Its edit; fields that the verdict does not name mean nothing.
    pub edit: Edit,
}

/// A module that passed all checks that need no configuration.
#[derive(Clone, Debug)]
pub struct Examined {
    /// What it says of itself.
    pub manifest: Manifest,
    /// The SHA-256 of the file, in hexadecimal.
    pub sha256: String,
    /// Size of the file.
    pub bytes: usize,
    /// What an operator has to grant it.
    pub grants: Vec<String>,
}

/// What an operator would give a plugin besides its configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RehearsalHost {
    /// A file for each of its tables.
    pub tables: BTreeMap<String, PathBuf>,
    /// What it may ask for the numbers of.
    pub names: Names,
    /// What its random numbers follow from: the same as those of the SDK's `testing::Host` with this seed.
    /// Those of worker N follow from `seed + N`.
    pub seed: u64,
    /// Workers; 0 stands for one.
    pub workers: usize,
}

/// How a hand-over ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RehearsedHandOver {
    /// There was nothing to hand over.
    Nothing,
    /// The successor has the state.
    Taken,
    /// The successor did not take it, and began empty.
    Refused,
}

/// A configured plugin: an instance for each worker.
pub struct Rehearsal {
    // Its ticker interrupts calls that outlast their budget.
    host: PluginHost,
    loaded: Box<Loaded>,
    workers: Vec<RehearsedWorker>,
    beat: Beat,
    config: Vec<u8>,
    examined: Examined,
    default: u64,
    allowed: Allowed,
    known: KnownNumbers,
}

/// What one worker has of the plugin.
struct RehearsedWorker {
    offers: Offers,
    /// What instances before this one counted.
    counted: Vec<u64>,
    instance: Box<Instance>,
}

fn numbers(of: &BTreeMap<String, u16>) -> NumberSet {
    let mut set = NumberSet::EMPTY;
    of.values().for_each(|number| set.insert(*number));
    set
}

/// What a plugin has to be granted.
fn grants_of(manifest: &Manifest) -> Vec<String> {
    let actions = manifest.actions.iter().map(|action| action.name().to_owned());
    let payload = manifest.payload.iter().map(|_| "payload".to_owned());
    manifest.imports.iter().cloned().chain(actions).chain(payload).collect()
}

/// The module's entry in a configuration that grants it all that it asks for.
fn spec_of(path: &Path) -> Result<(PluginSpec, Examined), PluginFault> {
    let bytes = read_file(path, MODULE_BYTES_MAX)?;
    let manifest = manifest_of(&bytes)?;
    let grants = grants_of(&manifest);
    let hook = HookPoint::ALL.into_iter().find(|hook| manifest.has_hook(hook_name(*hook)));
    let mut spec = PluginSpec::new(&manifest.name, path, hook.unwrap_or(HookPoint::Ingress));
    spec.grants.clone_from(&grants);
    let sha256 = hex(&sha256(&bytes));
    Ok((spec, Examined { manifest, sha256, bytes: bytes.len(), grants }))
}

fn name_of(path: &Path) -> String {
    path.display().to_string()
}

impl Examined {
    /// Reads, checks and compiles a module, and makes an instance of it.
    ///
    /// # Errors
    /// Why the router would refuse it.
    pub fn new(path: &Path) -> Result<Self, PolicyError> {
        let (host, _) = PluginHost::new(HostOptions::new(1))?;
        let fault = |fault| PolicyError::plugin(&name_of(path), fault);
        let (mut spec, examined) = spec_of(path).map_err(fault)?;
        let tables = examined.manifest.tables.iter();
        spec.tables = tables.map(|name| (name.clone(), PathBuf::from("/dev/null"))).collect();
        let AsideVersion::New(loaded) = host.load_aside(&spec, 0).map_err(fault)? else {
            return Err(PolicyError::Stale(spec.name));
        };
        // Without the configuration that it may want: what it says of that is another question.
        match host.make(&loaded, &Offers::rehearsed(0), host.aside_beat()) {
            Ok(_) | Err(PluginFault::ConfigRefused(_)) => Ok(examined),
            Err(PluginFault::Call { call: "sluice_configure", .. }) => Ok(examined),
            Err(other) => Err(fault(other)),
        }
    }
}

impl Rehearsal {
    /// Loads a module with a configuration, a TOML file or none, and what an operator would give it.
    ///
    /// # Errors
    /// Why the router would refuse it.
    pub fn new(
        path: &Path,
        config: Option<&Path>,
        given: &RehearsalHost,
    ) -> Result<Self, PolicyError> {
        let (host, _) = PluginHost::new(HostOptions::new(1))?;
        let fault = |fault| PolicyError::plugin(&name_of(path), fault);
        let (mut spec, examined) = spec_of(path).map_err(fault)?;
        if let Some(config) = config {
            spec.config = PluginConfig::File(config.to_owned());
        }
        spec.tables.clone_from(&given.tables);
        spec.names = Arc::new(given.names.clone());
        let loaded = match host.load_aside(&spec, 0).map_err(fault)? {
            AsideVersion::New(loaded) => loaded,
            AsideVersion::Running(_) => return Err(PolicyError::Stale(spec.name)),
        };
        let offers = Offers::rehearsed(given.seed);
        let mut workers = Vec::new();
        for seed in (0..given.workers.max(1) as u64).map(|it| given.seed.wrapping_add(it)) {
            let offers = offers.rehearsed_beside(seed);
            let instance = host.make(&loaded, &offers, host.aside_beat()).map_err(fault)?;
            let counted = vec![0; loaded.counter_names.len()];
            workers.push(RehearsedWorker { offers, counted, instance });
        }
        let default = match examined.manifest.default {
            DefaultVerdict::Continue => Verdict::CONTINUE,
            DefaultVerdict::Drop => Verdict::drop(sluice_abi::REASON_DEFAULT),
        };
        let allowed = Allowed::new(&examined.manifest, spec.hook);
        Ok(Self {
            workers,
            beat: host.aside_beat().clone(),
            config: loaded.config.clone(),
            examined,
            default: bytemuck::cast(default),
            allowed,
            known: KnownNumbers {
                next_hops: numbers(&given.names.next_hops),
                tags: numbers(&given.names.tags),
                classes: numbers(&given.names.classes),
            },
            host,
            loaded,
        })
    }

    /// What is known of the module.
    #[must_use]
    pub fn examined(&self) -> &Examined {
        &self.examined
    }

    /// The configuration as the module was given it, in JSON.
    #[must_use]
    pub fn config(&self) -> &[u8] {
        &self.config
    }

    fn worker(&mut self, worker: usize) -> Result<&mut RehearsedWorker, String> {
        self.workers.get_mut(worker).ok_or_else(|| format!("there is no worker {worker}"))
    }

    /// Has up to 256 packets judged by the instance of a worker.
    ///
    /// # Errors
    /// How the call ended, if it did not return, or that there is no such worker. The instance is then not to
    /// be called again.
    pub fn judge(
        &mut self,
        worker: usize,
        packets: &[RehearsalPacket],
        now: Nanos,
    ) -> Result<Vec<RehearsalAnswer>, String> {
        let (default, beat) = (self.default, self.beat.clone());
        match self.worker(worker)?.instance.raw_call(packets, default, now, &beat) {
            Some(Ok(answers)) => Ok(answers),
            Some(Err(error)) => Err(reason(&error)),
            None => Err("its memory does not have the areas that it stated".to_owned()),
        }
    }

    /// Why the router would take an answer for a bad verdict, and do what the plugin's default says: the plugin
    /// may ask for nothing that its manifest does not declare, at its first hook, nor for names that there are
    /// none of. `None` if it would do as it says.
    #[must_use]
    pub fn why_void(&self, answer: &RehearsalAnswer) -> Option<&'static str> {
        let has_edits = self.workers.first().is_some_and(|worker| worker.instance.has_edits());
        let edit = has_edits.then_some(answer.edit);
        let word = bytemuck::cast(answer.verdict);
        judge(word, &self.allowed, &self.known, || edit).err().map(Bad::text)
    }

    /// What a reload does: in each worker a new instance takes over the state of the old one, finds its meters
    /// and quotas, and draws the random numbers that the old one would have drawn; counters go on. If any
    /// refuses, that is how it ended.
    ///
    /// # Errors
    /// How a call ended, if it did not return, or why there is no instance. The old one then goes on.
    pub fn hand_over(&mut self) -> Result<RehearsedHandOver, String> {
        let Self { host, loaded, workers, beat, examined, .. } = self;
        let gauges: Vec<bool> = examined.manifest.gauges();
        let mut ended = RehearsedHandOver::Nothing;
        for worker in workers {
            let made = host.make(loaded, &worker.offers, beat);
            let next = made.map_err(|fault| fault.to_string())?;
            let outcome = worker.hand_over(next, &gauges, beat)?;
            if ended != RehearsedHandOver::Refused && outcome != RehearsedHandOver::Nothing {
                ended = outcome;
            }
        }
        Ok(ended)
    }

    /// As [`Self::judge`] by the first worker; says how long the call took, with the copies of the packets to
    /// the module and of its verdicts from it, in nanoseconds.
    ///
    /// # Errors
    /// As [`Self::judge`].
    pub fn time(&mut self, packets: &[RehearsalPacket], now: Nanos) -> Result<u64, String> {
        use crate::instance::Packets;
        let marks: Vec<_> = packets.iter().map(|packet| packet.marks).collect();
        let descriptors: Vec<_> = packets.iter().map(|packet| packet.descriptor).collect();
        let (default, beat) = (self.default, self.beat.clone());
        let instance = &mut self.worker(0)?.instance;
        let started = Instant::now();
        let all = Packets::<std::slice::Iter<'_, Descriptor>>::All(&descriptors);
        let payload = packets.iter().map(|packet| packet.payload.as_slice());
        let placed = instance.place(all, default).is_some()
            && instance.show(bytemuck::cast_slice(&marks), payload).is_some();
        let called = instance.call(packets.len(), now, &beat);
        let words = instance.verdict_words(packets.len());
        let sum = words.map(|words| words.iter().fold(0_u64, |sum, word| sum.wrapping_add(*word)));
        std::hint::black_box((placed, sum));
        let elapsed = started.elapsed();
        called.map_err(|error| reason(&error))?;
        if !placed {
            return Err("its memory does not have the areas that it stated".to_owned());
        }
        Ok(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Calls the tick of each worker's instance, if it has one.
    ///
    /// # Errors
    /// As [`Self::judge`].
    pub fn tick(&mut self, now: Nanos) -> Result<(), String> {
        for worker in &mut self.workers {
            let called = worker.instance.call_tick(now, &self.beat);
            called.map_err(|error| reason(&error))?;
        }
        Ok(())
    }

    /// The module's counters as they stand, with what instances before these counted, added up over workers.
    #[must_use]
    pub fn counters(&self) -> Vec<u64> {
        let mut sums = vec![0_u64; self.loaded.counter_names.len()];
        for worker in &self.workers {
            for (sum, count) in sums.iter_mut().zip(worker.counters()) {
                *sum = sum.wrapping_add(count);
            }
        }
        sums
    }
}

impl RehearsedWorker {
    fn counters(&self) -> Vec<u64> {
        let now = self.instance.raw_counters();
        now.iter().zip(&self.counted).map(|(now, before)| now.wrapping_add(*before)).collect()
    }

    /// Puts `next` in the place of the instance.
    fn hand_over(
        &mut self,
        mut next: Box<Instance>,
        gauges: &[bool],
        beat: &Beat,
    ) -> Result<RehearsedHandOver, String> {
        let outcome = match next.take_state_of(&mut self.instance, beat) {
            HandOver::Unkept | HandOver::Nothing => RehearsedHandOver::Nothing,
            HandOver::Taken => RehearsedHandOver::Taken,
            HandOver::OtherSchema | HandOver::TooLong | HandOver::Refused => {
                RehearsedHandOver::Refused
            }
            HandOver::ExportFailed(error) => {
                return Err(format!("sluice_export: {}", reason(&error)));
            }
            HandOver::ImportFailed(error) => {
                return Err(format!("sluice_import: {}", reason(&error)));
            }
        };
        next.draw_on_from(&self.instance);
        self.counted = self.counters();
        for (count, _) in self.counted.iter_mut().zip(gauges).filter(|(_, is_gauge)| **is_gauge) {
            *count = 0;
        }
        self.instance = next;
        Ok(outcome)
    }
}
