//! The kernel's routes within XDP: `bpf_fib_lookup`, then a redirect.
//!
//! The program (`xdp_fib.c`) is compiled when it is needed, by the clang that Sluice's own classifier
//! needs too, and attached by `ip link set ... xdpdrv` (iproute2 built with libbpf). It goes to both
//! interfaces; a link that goes away takes it along.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{Router, Running, Site, first_line, kernel_release, lacks_program};
use crate::command;
use crate::lab::configuration::replace;
use crate::peers::bed::{D0, D1};

const SOURCE: &str = include_str!("xdp_fib.c");

/// The kernel's routes within XDP.
#[derive(Clone, Copy, Debug)]
pub struct XdpFib;

/// Compiles the program in that folder.
fn compile(folder: &Path) -> Result<PathBuf> {
    let (source, object) = (folder.join("xdp_fib.c"), folder.join("xdp_fib.o"));
    replace(&source, SOURCE)?;
    let clang = std::env::var_os("CLANG").unwrap_or_else(|| "clang".into());
    let mut compile = Command::new(clang);
    compile.args(["-target", "bpf", "-O2", "-Wall"]);
    // The kernel's headers include <asm/types.h>, which Debian keeps in a folder of the architecture.
    compile.arg(format!("-I/usr/include/{}-linux-gnu", std::env::consts::ARCH));
    command::output(compile.arg("-c").arg(&source).arg("-o").arg(&object))?;
    Ok(object)
}

impl Router for XdpFib {
    fn name(&self) -> &'static str {
        "xdp-fib"
    }

    fn about(&self) -> &'static str {
        "XDP with bpf_fib_lookup and a redirect; no policy, no ICMP errors"
    }

    fn lacks(&self) -> Option<String> {
        lacks_program("clang", "clang linux-libc-dev")
    }

    fn version(&self) -> Option<String> {
        let clang = first_line("clang", &["--version"]).unwrap_or_default();
        Some(format!("{}, {clang}", kernel_release()?))
    }

    fn is_in_kernel(&self) -> bool {
        true
    }

    fn set_up(&self, site: Site<'_>) -> Result<Running> {
        let object = compile(site.folder)?;
        let object = object.to_str().context("a folder that is no UTF-8")?;
        // The look-up answers only for interfaces that forward.
        site.bed.forward_in_kernel()?;
        for interface in [D0.name, D1.name] {
            let mut ip = Command::new("ip");
            ip.args(["link", "set", "dev", interface, "xdpdrv", "obj", object, "sec", "xdp"]);
            site.bed.dut.output(&mut ip).context("iproute2 without libbpf loads no program")?;
        }
        Ok(Running::default())
    }
}
