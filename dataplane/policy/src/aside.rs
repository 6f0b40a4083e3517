//! Policy aside: the plugins that run, in instances of their own, asked about one packet without a
//! trace in what runs.
//!
//! An instance of its own has its own memory, configured as the running ones are, and *copies* of the
//! plugin's meters as they stand now. What a guest keeps in its memory between calls cannot be copied
//! while a worker runs it: a plugin whose manifest says `stateful = true` is not asked.

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use frame::HookPoint;

use crate::{
    PluginFault, PluginHost, PluginSpec, PolicyError, WorkerChain,
    chain::{Place, Slot, WorkerSet},
    counters::GenerationCounters,
    generation::Loaded,
    instance::{Instance, reason},
    loading::AsideVersion,
    mailbox::{Mailbox, TrapReport},
    manifest::hook_name,
    ticker::Beat,
};

/// How a plugin is asked about a packet aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// By an instance that runs, or one like it: it keeps nothing between calls.
    Instance,
    /// By an instance like those that run, with copies of the meters and quotas.
    CopiedMeters,
    /// Not at all: what it decides by lies in the memories of the workers' instances.
    Not,
}

/// A plugin in the order in which they are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedPlugin {
    /// The operator's name for it.
    pub name: String,
    /// What [`frame::Blame::plugin`] names it by.
    pub plugin: u32,
    /// What [`frame::Blame::generation`] names its generation by.
    pub generation: u64,
    /// How many versions of it were loaded under this name, this one included.
    pub number: u64,
    /// Where it is called.
    pub hook: HookPoint,
    /// Names of its reasons for drops.
    pub reasons: Vec<String>,
    /// How it is asked.
    pub asked: Asked,
}

impl ListedPlugin {
    /// The hook as configurations write it.
    #[must_use]
    pub fn hook_name(&self) -> &'static str {
        hook_name(self.hook)
    }

    /// The name of one of its reasons; `default` for what it left to its default.
    #[must_use]
    pub fn reason(&self, index: u32) -> &str {
        let index = usize::try_from(index).ok();
        index.and_then(|index| self.reasons.get(index)).map_or("default", String::as_str)
    }
}

/// The plugins that run, in instances of their own.
pub struct AsidePlugins {
    /// What a worker that explains calls.
    pub chain: WorkerChain,
    /// What went wrong in its calls.
    pub traps: AsideTraps,
    /// The plugins, in the order in which they are called.
    pub plugins: Vec<ListedPlugin>,
}

/// What went wrong in calls of a [`AsidePlugins`].
pub struct AsideTraps(Arc<ArrayQueue<TrapReport>>);

impl AsideTraps {
    /// Takes the next: the generation, and what its call ended with.
    #[must_use]
    pub fn take(&self) -> Option<(u64, String)> {
        let report = self.0.pop()?;
        let text = report.error.as_ref().map_or_else(|| "its memory moved".to_owned(), reason);
        Some((report.generation, text))
    }
}

impl PluginHost {
    /// The plugins that run, in the order in which they are called.
    #[must_use]
    pub fn list(&self) -> Vec<ListedPlugin> {
        list_of(&self.loaded().iter().collect::<Vec<_>>())
    }

    /// Makes instances aside of all plugins that run, where they can be asked, for one packet or one
    /// batch: meters are as they stand now. At most one set aside at a time may be called.
    ///
    /// # Errors
    /// [`PolicyError::Plugin`] when an instance cannot be made.
    pub fn aside(&self) -> Result<AsidePlugins, PolicyError> {
        let loaded: Vec<&Loaded> = self.loaded().iter().collect();
        self.aside_from(&loaded, self.aside_beat())
    }

    /// Two sets aside for a plan: of the plugins that run, and of those that `specs` would load, which are
    /// read, checked and compiled as [`Self::prepare`] does it and leave no trace in what runs. Both may
    /// be called beside [`Self::aside`]'s, by one thread, in turns.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub fn asides_of_plan(
        &self,
        specs: &[PluginSpec],
    ) -> Result<(AsidePlugins, AsidePlugins), PolicyError> {
        let running: Vec<&Loaded> = self.loaded().iter().collect();
        let before = self.aside_from(&running, self.plan_beat())?;
        let mut asides = Vec::new();
        for (position, spec) in specs.iter().enumerate() {
            if specs.iter().take(position).any(|earlier| earlier.name == spec.name) {
                return Err(PolicyError::Duplicate(spec.name.clone()));
            }
            let aside = self.load_aside(spec, position);
            asides.push(aside.map_err(|fault| PolicyError::plugin(&spec.name, fault))?);
        }
        let loaded: Vec<&Loaded> = asides
            .iter()
            .map(|aside| match aside {
                AsideVersion::Running(loaded) => loaded,
                AsideVersion::New(loaded) => &**loaded,
            })
            .collect();
        Ok((before, self.aside_from(&loaded, self.plan_beat())?))
    }

    fn aside_from(&self, plugins: &[&Loaded], beat: &Beat) -> Result<AsidePlugins, PolicyError> {
        let mut set = Box::<WorkerSet>::default();
        for loaded in plugins {
            if asked(loaded) == Asked::Not {
                continue;
            }
            let slot = self
                .aside_slot(loaded)
                .map_err(|fault| PolicyError::plugin(&loaded.spec.name, fault))?;
            let [ingress, forward, egress] = &mut set.hooks;
            let hook = match loaded.spec.hook {
                HookPoint::Ingress => ingress,
                HookPoint::Forward => forward,
                HookPoint::Egress => egress,
            };
            hook.push(Place { generation: loaded.generation, slot: Some(slot) });
        }
        let traps = Arc::new(ArrayQueue::new(16));
        let mut chain =
            WorkerChain::new(0, Arc::new(Mailbox::new()), Arc::clone(&traps), beat.clone());
        chain.adopt(set);
        Ok(AsidePlugins { chain, traps: AsideTraps(traps), plugins: list_of(plugins) })
    }

    fn aside_slot(&self, loaded: &Loaded) -> Result<Slot, PluginFault> {
        let instance = if loaded.disabled { None } else { Some(self.instantiate_aside(loaded)?) };
        let reasons = loaded.module.manifest.reasons.len();
        Ok(Slot {
            terms: loaded.terms(),
            flows: None,
            instance,
            spare: None::<Box<Instance>>,
            last_good: None,
            candidate: None,
            counters: Arc::new(GenerationCounters::new(1, reasons, loaded.counter_names.len())),
        })
    }
}

fn list_of(plugins: &[&Loaded]) -> Vec<ListedPlugin> {
    let mut list: Vec<_> = plugins.iter().map(|loaded| listed(loaded)).collect();
    list.sort_by_key(|plugin| HookPoint::ALL.iter().position(|at| *at == plugin.hook));
    list
}

fn listed(loaded: &Loaded) -> ListedPlugin {
    ListedPlugin {
        name: loaded.spec.name.clone(),
        plugin: loaded.plugin,
        generation: loaded.generation,
        number: loaded.number,
        hook: loaded.spec.hook,
        reasons: loaded.module.manifest.reasons.clone(),
        asked: asked(loaded),
    }
}

fn asked(loaded: &Loaded) -> Asked {
    let manifest = &loaded.module.manifest;
    if manifest.stateful {
        Asked::Not
    } else if manifest.imports.iter().any(|import| import == "meter" || import == "quota") {
        Asked::CopiedMeters
    } else {
        Asked::Instance
    }
}
