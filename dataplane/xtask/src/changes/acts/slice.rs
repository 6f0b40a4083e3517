//! A slice goes from one node to the other: both read a configuration in which it has another owner.
//!
//! **The new owner first.** Between the two reloads both nodes then take the slice for their own, and
//! whichever is handed a packet delivers it. The other way round, each would take it for the other's,
//! and packets would go back and forth between them until they are dropped.

use anyhow::{Context, Result, ensure};

use crate::changes::configuration::{OWNER, SLICE, State};
use crate::changes::node::Node;
use crate::changes::site::{Site, Window};

pub(super) fn make(site: &Site, window: Window) -> Result<u32> {
    let (mut state, mut asked, mut made) = (State::First, 0, 0);
    while window.wait_for(asked) {
        state = state.other();
        switch(site, state)?;
        asked += 1;
        made += u32::from(window.is_open());
    }
    Ok(made)
}

/// Moves the slice to where it is in that state, and checks that both nodes say so.
///
/// # Errors
/// When there is no node b, or a node refuses or says something else of the slice.
pub fn switch(site: &Site, state: State) -> Result<()> {
    let b = site.b.as_ref().context("there is no node b")?;
    let (owner, nodes) = match state {
        State::First => ("a", [&site.a, b]),
        State::Second => ("b", [b, &site.a]),
    };
    for node in nodes {
        node.reload(state)?;
    }
    let [here, elsewhere] = nodes.map(owner_of_slice);
    let (here, elsewhere) = (here?, elsewhere?);
    ensure!(
        here.starts_with(OWNER) && elsewhere == owner,
        "the slice belongs to {here} at node {owner}, and to {elsewhere} at the other node"
    );
    Ok(())
}

/// The owner by its name where it is, and by that of its node elsewhere.
fn owner_of_slice(node: &Node) -> Result<String> {
    let status = node.status()?;
    let rows = status.value()["slices"].as_array().into_iter().flatten();
    let row = rows.into_iter().find(|row| row["name"] == SLICE);
    let owner = row.and_then(|row| row["owner"].as_str());
    owner.map(str::to_owned).context("the status report has no such slice")
}
