//! Files of static routes: one a line, up to [`ROUTES_MAX`] of them.
//!
//! ```text
//! # PREFIX via ADDRESS [dev INTERFACE] [metric N]
//! 192.0.2.0/24 via 10.0.0.1
//! 198.51.100.0/24 via fe80::1 dev eth0 metric 10
//! 10.1.0.0/16 dev eth1
//! 203.0.113.0/24 blackhole
//! ```
//!
//! A full table has a million prefixes and a handful of next hops, so a prefix is kept with the
//! position of its target: 24 bytes a route.

use std::collections::HashMap;
use std::io::{BufRead, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use wire::InterfaceId;

use crate::address;
use crate::check::Names;
use crate::error::ConfigError;
use crate::model::{Route, RouteTarget};
use crate::reason::Reason;

/// The most routes of a file: twice today's Internet, and a bound on memory (48 MB).
pub(crate) const ROUTES_MAX: usize = 2_000_000;
/// Errors of a file that are reported before it is given up.
const ERRORS_MAX: usize = 20;
/// The longest line that is read, in bytes: a file that is no route file may have no lines at all.
const LINE_BYTES_MAX: u64 = 1024;

/// The routes of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteFile {
    /// The file, joined to the directory of the configuration.
    pub path: PathBuf,
    targets: Vec<(RouteTarget, u32)>,
    entries: Vec<(IpNet, u32)>,
}

impl RouteFile {
    /// The routes, in the order of the file.
    pub fn routes(&self) -> impl ExactSizeIterator<Item = Route> + '_ {
        self.entries.iter().map(|&(prefix, position)| {
            let (target, metric) = self.targets[position as usize];
            Route { prefix, target, metric, mtu: 0 }
        })
    }

    /// The number of routes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Reads a route file from `reader`; `links` are the names that `dev` may give.
    pub(crate) fn read(
        path: &Path,
        mut reader: impl BufRead,
        links: &Names<InterfaceId>,
    ) -> Result<Self, Vec<ConfigError>> {
        let mut file = Self { path: path.to_owned(), ..Self::default() };
        let mut positions = HashMap::new();
        let mut errors = Vec::new();
        let mut text = String::new();
        for line in 1u32.. {
            text.clear();
            let error_here = |reason| ConfigError {
                file: path.to_owned(),
                line: Some(line),
                key: String::new(),
                reason,
            };
            match reader.by_ref().take(LINE_BYTES_MAX).read_line(&mut text) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    errors.push(error_here(Reason::Unreadable(error.to_string())));
                    break;
                }
            }
            if text.len() as u64 == LINE_BYTES_MAX && !text.ends_with('\n') {
                text.truncate(text.floor_char_boundary(40));
                text.push('…');
                errors.push(error_here(Reason::BadRouteLine(text)));
                break;
            }
            match parse_line(&text, links) {
                Ok(None) => {}
                Ok(Some(_)) if file.entries.len() == ROUTES_MAX => {
                    errors.push(error_here(Reason::TooManyRoutes(ROUTES_MAX)));
                    break;
                }
                Ok(Some(Route { prefix, target, metric, .. })) => {
                    let next = u32::try_from(file.targets.len()).unwrap_or(u32::MAX);
                    let position = *positions.entry((target, metric)).or_insert_with(|| {
                        file.targets.push((target, metric));
                        next
                    });
                    file.entries.push((prefix, position));
                }
                Err(reason) => {
                    errors.push(error_here(reason));
                    if errors.len() == ERRORS_MAX {
                        errors.push(ConfigError::of_file(path, Reason::MoreErrors));
                        break;
                    }
                }
            }
        }
        if errors.is_empty() { Ok(file) } else { Err(errors) }
    }
}

/// A line's route; `None` if it is empty or a comment.
fn parse_line(text: &str, links: &Names<InterfaceId>) -> Result<Option<Route>, Reason> {
    let route = text.split_once('#').map_or(text, |(route, _)| route);
    let mut words = route.split_ascii_whitespace();
    let Some(prefix) = words.next() else { return Ok(None) };
    let bad = || Reason::BadRouteLine(route.trim().to_owned());
    let prefix = address::parse_address_or_prefix(prefix)?;
    let mut via = None;
    let mut device = None;
    let mut refusal = None;
    let mut metric = None;
    while let Some(word) = words.next() {
        let repeated = match word {
            "via" => via.replace(address::parse_unicast(words.next().ok_or_else(bad)?)?).is_some(),
            "dev" => {
                let name = words.next().ok_or_else(bad)?;
                device.replace(links.find(name)?).is_some()
            }
            "metric" => {
                let number = words.next().ok_or_else(bad)?;
                metric.replace(number.parse().map_err(|_| bad())?).is_some()
            }
            "blackhole" => refusal.replace(RouteTarget::Blackhole).is_some(),
            "unreachable" => refusal.replace(RouteTarget::Unreachable).is_some(),
            "prohibit" => refusal.replace(RouteTarget::Prohibit).is_some(),
            _ => true,
        };
        if repeated {
            return Err(bad());
        }
    }
    let target = match (via, device, refusal) {
        (Some(next_hop), interface, None) => via_target(prefix, next_hop, interface)?,
        (None, Some(interface), None) => RouteTarget::OnLink(interface),
        (None, None, Some(refusal)) => refusal,
        _ => return Err(bad()),
    };
    Ok(Some(Route { prefix, target, metric: metric.unwrap_or(0), mtu: 0 }))
}

/// A route to a next hop, if one can lead there.
pub(crate) fn via_target(
    prefix: IpNet,
    address: IpAddr,
    interface: Option<InterfaceId>,
) -> Result<RouteTarget, Reason> {
    if matches!((prefix, address), (IpNet::V6(_), IpAddr::V4(_))) {
        return Err(Reason::Ipv4NextHop(address));
    }
    if address::is_link_local(address) && interface.is_none() {
        return Err(Reason::LinkLocalWithoutInterface(address));
    }
    Ok(RouteTarget::Via { address, interface })
}
