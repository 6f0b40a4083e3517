//! The router ends, one way or the other, and is started again, as a service manager does.

use anyhow::{Result, ensure};

use crate::changes::site::{Site, Window};

/// How it ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum How {
    /// By SIGTERM: it drains.
    Terminate,
    /// By SIGKILL.
    Kill,
}

pub(super) fn make(site: &mut Site, window: Window, how: How) -> Result<u32> {
    let mut made = 0;
    while window.wait_for(made) {
        match how {
            How::Terminate => site.a.terminate()?,
            How::Kill => site.a.kill()?,
        }
        site.a.start(&site.bed.a)?;
        // Losses would end with the run and not with the restart.
        ensure!(window.is_open(), "the router was not back before the run was over");
        made += 1;
    }
    Ok(made)
}
