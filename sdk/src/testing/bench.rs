//! [`Bench`]: a plugin under test, natively and without a router.

use std::{string::String, vec, vec::Vec};

use sluice_abi::{BATCH_MAX, Descriptor, Edit, Marks, Verdict, action, edit};

use crate::{
    Batch, Config as _, Counters, Declared, Parts, Plugin, StateWriter,
    testing::{Host, doubles::Services},
};

/// A configured plugin, its counters, and the services that it uses.
#[derive(Debug)]
pub struct Bench<P> {
    /// The plugin.
    pub plugin: P,
    /// Its counters in the order of the manifest, all zero at first.
    pub counters: Vec<u64>,
    services: Services,
}

/// A packet as a plugin sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// What is known of it.
    pub descriptor: Descriptor,
    /// What earlier plugins set.
    pub marks: Marks,
    /// Its bytes from where the manifest's `payload.from` says; what is too long is cut.
    pub payload: Vec<u8>,
}

impl From<Descriptor> for Seen {
    fn from(descriptor: Descriptor) -> Self {
        Self { descriptor, ..Self::default() }
    }
}

/// A plugin's answer for one packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The verdict.
    pub verdict: Verdict,
    /// The edit: fields that the verdict's flags do not name are 0.
    pub edit: Edit,
}

impl Answer {
    /// A verdict with those fields of the packet's edit that it names.
    #[must_use]
    pub fn new(verdict: Verdict, found: Edit) -> Self {
        let has = |flag| verdict.flags & flag != 0;
        let mut named = Edit::default();
        if has(edit::MARK) {
            named.mark = found.mark;
        }
        if has(edit::TAG) {
            named.tag = found.tag;
        }
        if has(edit::MSS) {
            named.mss = found.mss;
        }
        if has(edit::CLASS) {
            named.class = found.class;
        }
        if has(edit::DSCP) {
            named.dscp = found.dscp;
        }
        if has(edit::TCP_OPTIONS) {
            named.tcp_options = found.tcp_options;
        }
        Self { verdict, edit: named }
    }
}

impl<P: Plugin + Declared> Bench<P> {
    /// Configures a plugin by JSON, with a host that has no names and tables.
    ///
    /// # Errors
    /// What the plugin says of its configuration.
    pub fn new(config: &str) -> Result<Self, String> {
        Self::with_host(&Host::new(), config)
    }

    /// Configures a plugin by JSON.
    ///
    /// # Errors
    /// What the plugin says of its configuration.
    pub fn with_host(host: &Host, config: &str) -> Result<Self, String> {
        let mut services = Services::new(host);
        let plugin = services.configuring(|| configure::<P>(config))?;
        Ok(Self { plugin, counters: vec![0; P::DECLARATION.counters_len], services })
    }

    /// The plugin as another worker of the same router runs it, configured by JSON: with a memory of its own,
    /// and the meters and quotas of this one. Worker 0 is the one that all are made beside; the random numbers
    /// of the others follow from the host's seed and their number.
    ///
    /// # Errors
    /// What the plugin says of its configuration.
    pub fn beside(&self, worker: u64, config: &str) -> Result<Self, String> {
        let mut services = self.services.beside(worker);
        let plugin = services.configuring(|| configure::<P>(config))?;
        Ok(Self { plugin, counters: vec![0; P::DECLARATION.counters_len], services })
    }

    /// The verdicts of the plugin for these packets, in batches as large as the router's. Packets that
    /// it leaves undecided have [`Verdict::CONTINUE`].
    pub fn judge(&mut self, packets: &[Descriptor], now_ns: u64) -> Vec<Verdict> {
        let seen: Vec<_> = packets.iter().map(|packet| Seen::from(*packet)).collect();
        self.judge_seen(&seen, now_ns).iter().map(|answer| answer.verdict).collect()
    }

    /// The same for packets with marks and payload, and with the edits of the answers.
    pub fn judge_seen(&mut self, packets: &[Seen], now_ns: u64) -> Vec<Answer> {
        let mut answers = Vec::with_capacity(packets.len());
        for packets in packets.chunks(BATCH_MAX) {
            answers.extend(self.judge_batch(packets, now_ns));
        }
        answers
    }

    fn judge_batch(&mut self, packets: &[Seen], now_ns: u64) -> Vec<Answer> {
        let declared = P::DECLARATION;
        let n = packets.len();
        let descriptors: Vec<_> = packets.iter().map(|packet| packet.descriptor).collect();
        let mut verdicts = vec![Verdict::CONTINUE; n];
        let mut edits = vec![Edit::default(); if declared.has_edits { n } else { 0 }];
        let all_marks: Vec<_> = packets.iter().map(|packet| packet.marks).collect();
        let payload = payload_area(packets, declared.payload_bytes, declared.payload_stride());
        let (plugin, counters) = (&mut self.plugin, &mut self.counters);
        self.services.judging(|| {
            plugin.process(&mut Batch::new(Parts {
                descriptors: &descriptors,
                verdicts: &mut verdicts,
                edits: &mut edits,
                marks: if declared.has_marks { &all_marks } else { &[] },
                payload: &payload,
                payload_stride: declared.payload_stride(),
                counters,
                now_ns,
            }));
        });
        let edits = edits.into_iter().chain(std::iter::repeat(Edit::default()));
        verdicts.into_iter().zip(edits).map(|(verdict, edit)| Answer::new(verdict, edit)).collect()
    }

    /// Calls [`Plugin::tick`].
    pub fn tick(&mut self, now_ns: u64) {
        let (plugin, counters) = (&mut self.plugin, &mut self.counters);
        self.services.judging(|| plugin.tick(now_ns, &mut Counters::new(counters)));
    }

    /// What the plugin hands over, if it does.
    pub fn export(&mut self) -> Option<Vec<u8>> {
        let mut area = vec![0; P::DECLARATION.state_bytes];
        let mut state = StateWriter::new(&mut area);
        let plugin = &mut self.plugin;
        self.services.judging(|| plugin.export(&mut state)).ok()?;
        let len = state.len();
        area.truncate(len);
        Some(area)
    }

    /// Hands a predecessor's state to the plugin.
    ///
    /// # Errors
    /// What the plugin says of it, or that its manifest does not list the form.
    pub fn import(&mut self, schema: u32, state: &[u8]) -> Result<(), String> {
        let declared = P::DECLARATION;
        if schema != declared.state_schema && !declared.state_takes.contains(&schema) {
            return Err(std::format!("the manifest does not list the form {schema}"));
        }
        let plugin = &mut self.plugin;
        self.services.judging(|| plugin.import(schema, state))
    }

    /// What a reload does: a new instance with this configuration, which is given the old one's state and
    /// finds the old one's meters and quotas; counters go on. Says whether state was handed over.
    ///
    /// # Errors
    /// What the plugin says of its configuration; the old one then goes on.
    pub fn reload(&mut self, config: &str) -> Result<bool, String> {
        let plugin = self.services.configuring(|| configure::<P>(config))?;
        let state = self.export();
        self.plugin = plugin;
        let schema = P::DECLARATION.state_schema;
        Ok(state.is_some_and(|state| self.import(schema, &state).is_ok()))
    }

    /// As [`Self::reload`], with a successor that draws the random numbers that the plugin would have drawn
    /// without: where all that decides is handed over, nothing afterwards tells that there was a reload.
    ///
    /// # Errors
    /// As [`Self::reload`].
    pub fn hand_over(&mut self, config: &str) -> Result<bool, String> {
        let position = self.services.rewind_random();
        let taken = self.reload(config);
        self.services.set_random(position);
        taken
    }

    /// A counter by its name in the manifest; one of several as `name[3]`.
    ///
    /// # Panics
    /// If the manifest does not name it.
    #[must_use]
    pub fn counter(&self, name: &str) -> u64 {
        let (base, index) = match name.strip_suffix(']').and_then(|name| name.split_once('[')) {
            Some((base, index)) => (base, index.parse().expect("an index")),
            None => (name, 0_usize),
        };
        let known = P::DECLARATION.counters.iter().find(|counter| counter.name == base);
        let known = known.unwrap_or_else(|| panic!("the manifest names no counter `{base}`"));
        assert!(index < known.len, "`{base}` has {} counters", known.len);
        self.counters[known.first + index]
    }

    /// The name of the reason that a verdict drops for; `default` for none of the plugin's own, `None`
    /// if it does not drop.
    #[must_use]
    pub fn reason(&self, verdict: Verdict) -> Option<&'static str> {
        let names = P::DECLARATION.reasons;
        let name = names.get(verdict.argument as usize).copied().unwrap_or("default");
        (verdict.action == action::DROP).then_some(name)
    }
}

fn configure<P: Plugin>(config: &str) -> Result<P, String> {
    P::Config::from_json(config.as_bytes()).and_then(P::configure)
}

/// The payload entries of a batch, as the host writes them.
fn payload_area(packets: &[Seen], bytes_max: usize, stride: usize) -> Vec<u64> {
    let mut area = vec![0; packets.len() * stride / 8];
    if stride > 0 {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut area);
        for (entry, packet) in bytes.chunks_exact_mut(stride).zip(packets) {
            let len = packet.payload.len().min(bytes_max);
            entry[..2].copy_from_slice(&(len as u16).to_le_bytes());
            entry[8..8 + len].copy_from_slice(&packet.payload[..len]);
        }
    }
    area
}
