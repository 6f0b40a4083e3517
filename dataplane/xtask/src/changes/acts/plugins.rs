//! The filter plugin is loaded again: because it is asked for, or because its file is another one.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::eventually;
use crate::changes::configuration::{PLUGIN, write_module};
use crate::changes::site::{Site, Window};
use crate::lab::status::Status;

/// How long a new file may take to run: it is found within half a second and then compiled.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The same bytes again, by `sluice plugin reload`, which answers when the new version is in force.
pub(super) fn by_command(site: &Site, window: Window) -> Result<u32> {
    let first = generation(site)?;
    let (mut asked, mut made) = (0, 0);
    while window.wait_for(asked) {
        site.a.ask(&["plugin", "reload", PLUGIN])?;
        asked += 1;
        made += u32::from(window.is_open());
    }
    let generations = generation(site)? - first;
    ensure!(generations == u64::from(asked), "{asked} reloads made {generations} generations");
    Ok(made)
}

/// Another module in the file's place; the router has to notice.
pub(super) fn by_file(site: &mut Site, window: Window) -> Result<u32> {
    let (mut number, mut made) = (0, 0);
    while window.wait_for(number) {
        let before = generation(site)?;
        site.modules += 1;
        write_module(&site.filter, site.folder.path(), site.modules)?;
        let written = Instant::now();
        eventually("load the new file", TIMEOUT, || Ok(generation(site)? > before))?;
        site.live_after.push(written.elapsed());
        number += 1;
        made += u32::from(window.is_open());
    }
    Ok(made)
}

/// The same bytes again, asked for over the control socket: a process each time would take more from the
/// worker than what is measured.
pub(super) fn by_socket(site: &Site, window: Window) -> Result<u32> {
    let first = generation(site)?;
    let request = serde_json::json!({ "request": "plugin-reload", "name": PLUGIN });
    let (mut asked, mut made) = (0, 0);
    while window.wait_for(asked) {
        site.a.request(&request)?;
        asked += 1;
        made += u32::from(window.is_open());
    }
    let generations = generation(site)? - first;
    ensure!(generations == u64::from(asked), "{asked} reloads made {generations} generations");
    Ok(made)
}

fn generation(site: &Site) -> Result<u64> {
    Status::new(site.a.request(&serde_json::json!({ "request": "status" }))?)
        .plugin_generation(PLUGIN)
}
