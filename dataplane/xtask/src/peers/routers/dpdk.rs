//! DPDK's testpmd over its AF_XDP driver, in `mac` mode: what DPDK's input and output alone reach on
//! the same interfaces.
//!
//! Debian and Ubuntu ship no l3fwd, and testpmd routes nothing: each frame that came in by `d0` leaves
//! by `d1` with `t1`'s address. So it shows what the driver costs, as an upper bound for any router on
//! it. It runs without huge pages, so that the machine needs no preparation.

use std::time::Duration;

use anyhow::{Result, bail};

use super::{Router, Running, Site, first_line, lacks_program, program, unlimited};
use crate::lab::process::Process;
use crate::peers::bed::{D0, D1, T0, T1};
use crate::peers::forwarding::Expected;

/// How long it may take until it forwards.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// Memory for its packets in MiB.
const MEMORY_MIB: u32 = 512;

/// Packet buffers: both drivers' rings of 2,048 four times over, and what is under way.
const BUFFERS: u32 = 32_768;

/// The package of testpmd, which brings the driver.
const PACKAGE: &str = "dpdk-dev";

/// DPDK's testpmd.
#[derive(Clone, Copy, Debug)]
pub struct Testpmd;

impl Router for Testpmd {
    fn name(&self) -> &'static str {
        "dpdk-testpmd"
    }

    fn about(&self) -> &'static str {
        "testpmd over net_af_xdp: new MAC addresses only, no look-up, no TTL, spins"
    }

    fn lacks(&self) -> Option<String> {
        lacks_program("dpdk-testpmd", PACKAGE)
    }

    fn version(&self) -> Option<String> {
        // "DPDK version: DPDK 22.11.11" is not printed without starting it; the package knows.
        let query = ["--show", "--showformat", "${Version}", "dpdk-dev"];
        first_line("dpkg-query", &query)
    }

    fn is_in_kernel(&self) -> bool {
        false
    }

    fn expected(&self) -> Expected {
        Expected { lowers_ttl: false, translates_source: false }
    }

    fn set_up(&self, site: Site<'_>) -> Result<Running> {
        let Some(testpmd) = program("dpdk-testpmd") else { bail!("no dpdk-testpmd here") };
        let mut run = unlimited(&testpmd);
        run.args(["--no-huge", "--no-pci", "--no-shconf", "--no-telemetry"]);
        run.args(["-m", &MEMORY_MIB.to_string()]);
        run.args(["--main-lcore", &site.cores.generator.to_string()]);
        run.args(["-l", &format!("{},{}", site.cores.generator, site.cores.router)]);
        for (number, interface) in [D0.name, D1.name].into_iter().enumerate() {
            run.args(["--vdev", &format!("net_af_xdp{number},iface={interface}")]);
        }
        run.args(["--", "--forward-mode=mac", "--auto-start", "--nb-cores=1"]);
        run.arg(format!("--eth-peer=0,{}", T0.mac)).arg(format!("--eth-peer=1,{}", T1.mac));
        run.arg(format!("--total-num-mbufs={BUFFERS}"));
        // Without a terminal it would end at once; with a long period it prints nothing meanwhile.
        run.arg("--stats-period=3600");
        let mut process = Process::start("dpdk-testpmd", Some(&site.bed.dut), run, site.folder)?;
        process.wait_until("forward", START_TIMEOUT, |process| {
            Ok(process.output()?.contains("start packet forwarding"))
        })?;
        Ok(Running::process(process))
    }
}
