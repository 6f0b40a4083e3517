//! The configuration goes back and forth between two that differ in slices and routes.

use anyhow::{Context, Result, ensure};

use crate::changes::configuration::State;
use crate::changes::site::{Site, Window};

pub(super) fn make(site: &Site, window: Window) -> Result<u32> {
    let first = generation(site)?;
    let (mut state, mut asked, mut made) = (State::First, 0, 0);
    while window.wait_for(asked) {
        state = state.other();
        site.a.reload(state)?;
        asked += 1;
        made += u32::from(window.is_open());
    }
    let generations = generation(site)? - first;
    ensure!(generations == u64::from(asked), "{asked} reloads made {generations} generations");
    Ok(made)
}

pub(super) fn settle(site: &Site) -> Result<()> {
    site.a.reload(State::First)
}

fn generation(site: &Site) -> Result<u64> {
    let status = site.a.status()?;
    let generation = &status.value()["router"]["configuration_generation"];
    generation.as_u64().context("the status report has no configuration_generation")
}
