//! Publication: a prepared set becomes the one that runs, on each worker between two of its turns.

use std::sync::Arc;

use frame::HookPoint;

use crate::{
    Checkpoint, PluginHost, PolicyError, PreparedSet, ReloadReport,
    chain::{Place, Slot, WorkerSet},
    flow_cache::FlowCache,
    generation::{Instances, LiveCounters, Loaded},
    host::Prepared,
    last_good::LastGood,
    mailbox::{Mailbox, Retired, Update},
    rollback::{Held, KeptPlugin},
    watch::Stamp,
};

impl PluginHost {
    /// Makes a prepared set the one that runs. Each worker takes it over as a whole, between two of
    /// its turns; plugins that are not in it are retired.
    ///
    /// # Errors
    /// [`PolicyError::Stale`] when the set keeps a plugin that is no longer there, and
    /// [`PolicyError::WorkerStalled`] and [`PolicyError::TooManyAtOnce`]. Nothing is changed then.
    pub fn publish(&mut self, prepared: PreparedSet) -> Result<(), PolicyError> {
        self.publish_for(prepared, 0)
    }

    /// The same for a configuration that is not in force yet: each worker takes the set over in the turn in
    /// which it takes tables of this configuration over, or of a later one, and none before. What plugins
    /// know names by then stands for the same in the tables, for each packet. To be called before the
    /// tables are published, which must then follow.
    ///
    /// # Errors
    /// As [`Self::publish`].
    pub fn publish_for(
        &mut self,
        prepared: PreparedSet,
        configuration: u64,
    ) -> Result<(), PolicyError> {
        for plugin in &prepared.plugins {
            if let Prepared::Keep(name) = plugin
                && !self.loaded.iter().any(|running| running.spec.name == *name)
            {
                return Err(PolicyError::Stale(name.clone()));
            }
        }
        self.drain();
        let new =
            prepared.plugins.iter().filter(|plugin| matches!(plugin, Prepared::New(..))).count();
        self.check_room(2 + 3 * new)?;
        self.budget_cycles_per_packet = prepared.budget_cycles_per_packet;

        let mut sets: Vec<Box<WorkerSet>> =
            (0..self.options.workers).map(|_| Box::default()).collect();
        let mut old = std::mem::take(&mut self.loaded);
        for plugin in prepared.plugins {
            let (loaded, instances) = match plugin {
                Prepared::New(loaded, instances) => (*loaded, instances),
                Prepared::Keep(name) => {
                    let Some(position) = old.iter().position(|running| running.spec.name == name)
                    else {
                        continue;
                    };
                    (old.swap_remove(position), Vec::new())
                }
            };
            self.place(&mut sets, &loaded, instances);
            self.loaded.push(loaded);
        }
        for (worker, mut set) in sets.into_iter().enumerate() {
            set.configuration = configuration;
            self.send(worker, Update::Set(set), 1);
        }
        self.send_blanks();
        Ok(())
    }

    /// Puts a plugin at the end of its hook in the set of each worker.
    pub(crate) fn place(
        &mut self,
        sets: &mut [Box<WorkerSet>],
        loaded: &Loaded,
        instances: Vec<Instances>,
    ) {
        let generation = loaded.generation;
        if !instances.is_empty() {
            let stands_by = instances.iter().any(|instances| instances.last_good.is_some());
            let workers = self.options.workers;
            let history = self.history.entry(loaded.spec.name.clone()).or_default();
            if loaded.restores.is_none() {
                history.refusal = None;
            }
            history.live.push(LiveCounters::of(loaded, workers));
            if let Some(by) = loaded.last_good.as_ref().filter(|_| stands_by) {
                history.live.push(LiveCounters::of(by, workers));
            }
        }
        let mut instances = instances.into_iter();
        for (worker, set) in sets.iter_mut().enumerate() {
            let slot = instances.next().map(|Instances { active, spare, last_good }| Slot {
                terms: loaded.terms(),
                flows: loaded.judges_flows().then(|| Box::new(FlowCache::new())),
                instance: Some(active),
                spare: Some(spare),
                last_good: loaded.last_good.as_ref().zip(last_good).map(|(by, instance)| {
                    Box::new(LastGood {
                        terms: by.terms(),
                        instance: Some(instance),
                        counters: Arc::clone(&by.counters),
                        failed: None,
                    })
                }),
                counters: Arc::clone(&loaded.counters),
                candidate: None,
            });
            if let (Some(slot), Some(out)) = (&slot, self.out.get_mut(worker)) {
                *out += slot.instances();
            }
            let [ingress, forward, egress] = &mut set.hooks;
            let hook = match loaded.spec.hook {
                HookPoint::Ingress => ingress,
                HookPoint::Forward => forward,
                HookPoint::Egress => egress,
            };
            hook.push(Place { generation, slot });
        }
    }

    pub(crate) fn check_room(&self, handed_out: usize) -> Result<(), PolicyError> {
        for (worker, (mailbox, out)) in self.mailboxes.iter().zip(&self.out).enumerate() {
            if !mailbox.has_room(*out, handed_out) {
                // A worker that has taken everything turns: it is the change that is too large.
                return Err(match mailbox.is_empty() {
                    true => PolicyError::TooManyAtOnce {
                        worker,
                        room: Mailbox::room(*out),
                        needed: handed_out,
                    },
                    false => PolicyError::WorkerStalled(worker),
                });
            }
        }
        Ok(())
    }

    pub(crate) fn send(&mut self, worker: usize, update: Update, handed_out: usize) {
        if let (Some(mailbox), Some(out)) = (self.mailboxes.get(worker), self.out.get_mut(worker)) {
            if mailbox.send(update) {
                *out += handed_out;
            } else {
                // Room was checked, and this is the only thread that fills it.
                tracing::error!(worker, "a policy update was lost");
            }
        }
    }

    /// Frees what came back from the workers.
    pub(crate) fn drain(&mut self) {
        let mut ended = Vec::new();
        for (worker, mailbox) in self.mailboxes.iter().enumerate() {
            let Some(out) = self.out.get_mut(worker) else { continue };
            while let Some(retired) = mailbox.take_retired() {
                *out = out.saturating_sub(1);
                if let Retired::Candidate(candidate) = &retired {
                    *out = out.saturating_sub(candidate.handed_out() - 1);
                }
                if let Retired::Set(mut set) = retired {
                    for place in set.places_mut() {
                        let Some(slot) = &place.slot else { continue };
                        *out = out.saturating_sub(slot.instances());
                        ended.push(place.generation);
                        ended.extend(slot.last_good.as_ref().map(|by| by.terms.generation));
                    }
                }
            }
        }
        let workers = self.options.workers;
        for generation in ended {
            for history in self.history.values_mut() {
                history.end(generation, workers);
            }
        }
    }

    /// The set that runs, to go back to: with its modules and configurations, whatever becomes of their
    /// files.
    #[must_use]
    pub fn checkpoint(&self) -> Checkpoint {
        let kept = self.loaded.iter().map(KeptPlugin::of);
        Checkpoint {
            budget_cycles_per_packet: self.budget_cycles_per_packet,
            plugins: kept.collect(),
        }
    }

    /// Prepares the set of a checkpoint without reading a file; [`Self::publish`] puts it into force. A
    /// plugin that runs as it did is kept with its memory; a file that holds something else by now is
    /// taken for known, and loaded only when it changes again.
    ///
    /// # Errors
    /// [`PolicyError::Plugin`] when an instance cannot be made.
    pub fn prepare_checkpoint(&mut self, to: &Checkpoint) -> Result<PreparedSet, PolicyError> {
        let mut plugins = Vec::new();
        for kept in &to.plugins {
            let KeptPlugin { spec, entry, module, config, held, tables, .. } = kept;
            let stamp = Stamp::of(entry);
            if let Some(running) = self.same_as(spec, &module.sha256, config) {
                running.stamp = stamp;
                running.entry = entry.clone();
                running.held.clone_from(held);
                plugins.push(Prepared::Keep(spec.name.clone()));
                continue;
            }
            let mut loaded = self.number(spec, module.clone(), config.clone(), stamp);
            loaded.entry = entry.clone();
            loaded.held.clone_from(held);
            loaded.read(Arc::clone(tables));
            loaded.restores = Some(kept.number);
            loaded.price.clone_from(&kept.price);
            let prepared = self
                .instances_of(loaded)
                .map_err(|fault| PolicyError::plugin(&spec.name, fault))?;
            plugins.push(prepared);
        }
        let budget_cycles_per_packet = to.budget_cycles_per_packet;
        Ok(PreparedSet { budget_cycles_per_packet, plugins })
    }

    /// Loads a plugin again from its files and puts it in the place of the generation that runs. A
    /// disabled plugin is enabled by it. State in the plugin's memory starts anew unless it
    /// hands it over; counters, meters and quotas go on.
    ///
    /// # Errors
    /// As [`Self::prepare`] and [`Self::publish`]; the old generation then goes on running.
    pub fn reload(&mut self, name: &str) -> Result<ReloadReport, PolicyError> {
        let outcome = self.reload_entry(name);
        self.noted(name, outcome)
    }

    fn reload_entry(&mut self, name: &str) -> Result<ReloadReport, PolicyError> {
        let entry = self.running(name)?.entry.clone();
        let (replacement, report) =
            self.load(&entry, false).map_err(|fault| PolicyError::plugin(name, fault))?;
        self.afford_in_place_of(name, report.price.as_ref())?;
        self.replace(name, replacement)?;
        Ok(report)
    }

    /// The plugin of this name.
    pub(crate) fn running(&self, name: &str) -> Result<&Loaded, PolicyError> {
        let running = self.loaded.iter().find(|running| running.spec.name == name);
        running.ok_or_else(|| PolicyError::Unknown(name.to_owned()))
    }

    /// Puts a version in the place of the one that runs.
    pub(crate) fn replace(&mut self, name: &str, with: Prepared) -> Result<(), PolicyError> {
        let mut replacement = Some(with);
        let plugins = self.loaded.iter().filter_map(|running| {
            if running.spec.name == name {
                replacement.take()
            } else {
                Some(Prepared::Keep(running.spec.name.clone()))
            }
        });
        let budget_cycles_per_packet = self.budget_cycles_per_packet;
        let set = PreparedSet { budget_cycles_per_packet, plugins: plugins.collect() };
        self.publish(set)
    }

    /// Looks whether modules or configuration files changed, and reloads those plugins; and whether files
    /// of tables changed, which are loaded again and given to the instances that run. To be called
    /// about twice a second. A refused file is reported once, until it changes again.
    pub fn poll_files(&mut self) -> Vec<Result<ReloadReport, PolicyError>> {
        let (mut changed, mut unchanged) = (Vec::new(), Vec::new());
        for running in &mut self.loaded {
            let stamp = Stamp::of(&running.entry);
            if stamp == running.stamp {
                continue;
            }
            running.stamp = stamp;
            // Touched, but the same: nothing to do. A file that cannot be read is reported.
            let found = Held::of(&running.entry);
            let same = found.is_some_and(|found| running.knows(&found.sha256, &found.config));
            let names = if same { &mut unchanged } else { &mut changed };
            names.push(running.spec.name.clone());
        }
        unchanged.iter().for_each(|name| self.forget_refusal(name));
        let mut reports: Vec<_> = changed.into_iter().map(|name| self.reload(&name)).collect();
        reports.extend(self.poll_tables().into_iter().map(Err));
        reports
    }
}
