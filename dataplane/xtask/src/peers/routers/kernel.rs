//! Linux: forwarding alone, behind a stateful rule, and with source translation.
//!
//! The rules are the least that does each job, so that what is measured is conntrack and not a rule
//! set.

use std::process::Command;

use anyhow::{Context, Result};

use super::{Router, Running, Site, first_line, kernel_release, lacks_program};
use crate::lab::configuration::replace;
use crate::peers::bed::D1;
use crate::peers::forwarding::Expected;

/// What the kernel does beside forwarding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Nothing.
    Plain,
    /// It tracks connections, and drops what has no state it knows.
    Conntrack,
    /// It translates source addresses to that of `d1`.
    SourceNat,
}

impl Kernel {
    /// Its rules for `nft -f`.
    fn rules(self) -> Option<String> {
        match self {
            Self::Plain => None,
            Self::Conntrack => Some(
                "table inet peers {\n\
                 \tchain forward {\n\
                 \t\ttype filter hook forward priority filter; policy drop;\n\
                 \t\tct state vmap { established : accept, related : accept, new : accept }\n\
                 \t}\n\
                 }\n"
                .to_owned(),
            ),
            Self::SourceNat => Some(format!(
                "table inet peers {{\n\
                 \tchain postrouting {{\n\
                 \t\ttype nat hook postrouting priority srcnat;\n\
                 \t\toifname \"{}\" meta nfproto ipv4 snat ip to {}\n\
                 \t\toifname \"{}\" meta nfproto ipv6 snat ip6 to {}\n\
                 \t}}\n\
                 }}\n",
                D1.name, D1.v4, D1.name, D1.v6
            )),
        }
    }
}

impl Router for Kernel {
    fn name(&self) -> &'static str {
        match self {
            Self::Plain => "linux",
            Self::Conntrack => "nftables-conntrack",
            Self::SourceNat => "nftables-snat",
        }
    }

    fn about(&self) -> &'static str {
        match self {
            Self::Plain => "the kernel's forwarding",
            Self::Conntrack => "the kernel's forwarding behind a `ct state` rule",
            Self::SourceNat => "the kernel's forwarding with source translation",
        }
    }

    fn lacks(&self) -> Option<String> {
        self.rules().and_then(|_| lacks_program("nft", "nftables"))
    }

    fn version(&self) -> Option<String> {
        let release = kernel_release()?;
        match self {
            Self::Plain => Some(release),
            // "nftables v1.0.6 (Lester Gooch #5)"
            Self::Conntrack | Self::SourceNat => {
                let nft = first_line("nft", &["--version"])?;
                Some(format!("{release}, {}", nft.split(" (").next()?))
            }
        }
    }

    fn is_in_kernel(&self) -> bool {
        true
    }

    fn expected(&self) -> Expected {
        Expected { lowers_ttl: true, translates_source: *self == Self::SourceNat }
    }

    fn uses_kernel_forwarding(&self) -> bool {
        true
    }

    fn set_up(&self, site: Site<'_>) -> Result<Running> {
        if let Some(rules) = self.rules() {
            let file = site.folder.join("peers.nft");
            replace(&file, rules)?;
            let mut nft = Command::new("nft");
            site.bed
                .dut
                .output(nft.arg("-f").arg(&file))
                .context("this kernel lacks a part of nftables or conntrack")?;
        }
        site.bed.forward_in_kernel()?;
        Ok(Running::default())
    }
}
