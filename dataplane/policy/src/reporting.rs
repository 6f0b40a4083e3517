//! Reporting: what the plugins that run did, put together over workers and generations.

use frame::HookPoint;

use crate::{
    CompiledStatus, GenerationStatus, PluginHost, PluginState, PluginStatus, counters::Totals,
    generation::Loaded, manifest::hook_name, module::hex, refusal::Refusal,
};

impl PluginHost {
    /// All plugins in the order in which they are called, with their counters.
    #[must_use]
    pub fn status(&self) -> Vec<PluginStatus> {
        let mut plugins: Vec<_> = self.loaded.iter().map(|loaded| self.status_of(loaded)).collect();
        let order = |hook: &str| HookPoint::ALL.iter().position(|point| hook_name(*point) == hook);
        plugins.sort_by_key(|plugin| order(plugin.hook));
        plugins
    }

    /// How the compiled modules on disk fared.
    #[must_use]
    pub fn compiled(&self) -> CompiledStatus {
        self.compiled.status()
    }

    fn status_of(&self, loaded: &Loaded) -> PluginStatus {
        let mut totals = vec![Totals::default(); self.options.workers];
        let history = self.history.get(&loaded.spec.name);
        if let Some(history) = history {
            for (totals, folded) in totals.iter_mut().zip(&history.folded) {
                totals.merge(folded);
            }
            for live in &history.live {
                for (totals, counters) in totals.iter_mut().zip(&live.counters.workers) {
                    totals.add(counters, &live.reasons, &live.guest);
                }
            }
        }
        let mut total = Totals::default();
        for worker in &totals {
            total.merge(worker);
        }
        let waits = (0..self.options.workers).any(|worker| loaded.owed(worker) >= Some(2));
        PluginStatus {
            name: loaded.spec.name.clone(),
            module: loaded.module.manifest.name.clone(),
            hook: hook_name(loaded.spec.hook),
            generation: loaded.number,
            sha256: hex(&loaded.module.sha256),
            is_held: loaded.held.is_some(),
            restores: loaded.restores,
            has_candidate: loaded.trial.is_some(),
            candidate_starts: loaded
                .trial
                .as_ref()
                .map(|trial| trial.starts(loaded))
                .unwrap_or_default(),
            price: self.price_now(loaded.price.as_ref()),
            refused: history.map_or(0, |history| history.refused),
            last_refusal: history.and_then(|history| history.refusal.as_ref()).map(Refusal::status),
            before: loaded.before.as_ref().map(|before| GenerationStatus {
                generation: before.number,
                sha256: hex(&before.module.sha256),
                path: before.spec.path.clone(),
                stands_by: loaded.last_good.as_ref().is_some_and(|by| by.number == before.number),
            }),
            state: match (loaded.disabled, waits) {
                (true, _) => PluginState::Disabled,
                (false, true) => PluginState::Backoff,
                (false, false) => PluginState::Running,
            },
            total: total.into(),
            workers: totals.into_iter().map(Into::into).collect(),
            meters: self.offers.meters.status(&loaded.spec.name),
            tables: loaded.table_status(),
            quotas: self.offers.quotas.status(&loaded.spec.name),
        }
    }
}
