//! VPP over its AF_XDP driver, where somebody has installed it: neither Debian nor Ubuntu has a
//! package.
//!
//! Written after VPP's documentation (`af_xdp` plugin, `ip route`, `ip neighbor`) and not run by its
//! authors; the check before the measurement decides whether it forwards, and if not it is skipped
//! with the end of VPP's log.

use std::time::Duration;

use anyhow::{Result, bail};

use super::{Router, Running, Site, first_line, lacks_program, program, unlimited};
use crate::lab::configuration::replace;
use crate::lab::process::Process;
use crate::peers::bed::{D0, D1, DESTINATIONS, T1};

/// How long it may take until its command line answers.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// VPP with one worker.
#[derive(Clone, Copy, Debug)]
pub struct Vpp;

/// What VPP is told when it has started.
fn commands() -> String {
    let mut text = String::new();
    for interface in [D0, D1] {
        let (name, v4, v6) = (interface.name, interface.v4, interface.v6);
        text += &format!(
            "create interface af_xdp host-if {name} name {name} num-rx-queues 1\n\
             set interface mac address {name} {}\n\
             set interface ip address {name} {v4}/24\n\
             set interface ip address {name} {v6}/64\n\
             set interface state {name} up\n",
            interface.mac
        );
    }
    for (destination, via) in DESTINATIONS.into_iter().zip([T1.v4, T1.v6]) {
        text += &format!(
            "set ip neighbor {} {via} {} static\n\
             ip route add {destination} via {via} {}\n",
            D1.name, T1.mac, D1.name
        );
    }
    text
}

impl Router for Vpp {
    fn name(&self) -> &'static str {
        "vpp"
    }

    fn about(&self) -> &'static str {
        "VPP over its af_xdp driver, one worker, spins"
    }

    fn lacks(&self) -> Option<String> {
        lacks_program("vpp", "vpp vpp-plugin-core (from fd.io's own archive)")
    }

    fn version(&self) -> Option<String> {
        first_line("vpp", &["version"])
    }

    fn is_in_kernel(&self) -> bool {
        false
    }

    fn set_up(&self, site: Site<'_>) -> Result<Running> {
        let Some(vpp) = program("vpp") else { bail!("no vpp here") };
        let folder = site.folder.display();
        let (start, exec) = (site.folder.join("vpp.conf"), site.folder.join("vpp.cli"));
        replace(&exec, commands())?;
        replace(
            &start,
            format!(
                "unix {{ nodaemon nobanner runtime-dir {folder}/vpp cli-listen {folder}/vpp.sock \
                 startup-config {} }}\n\
                 cpu {{ main-core {} corelist-workers {} }}\n\
                 buffers {{ page-size default }}\n\
                 plugins {{ plugin dpdk_plugin.so {{ disable }} }}\n",
                exec.display(),
                site.cores.generator,
                site.cores.router
            ),
        )?;
        let mut run = unlimited(&vpp);
        run.arg("-c").arg(&start);
        let mut process = Process::start("vpp", Some(&site.bed.dut), run, site.folder)?;
        let socket = site.folder.join("vpp.sock");
        process.wait_until("open its command line", START_TIMEOUT, |_| Ok(socket.exists()))?;
        Ok(Running::process(process))
    }
}
