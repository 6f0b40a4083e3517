//! The tables about the process as a whole: `[router]`, `[workers]`, `[kernel]`, `[icmp]`, `[punt]`, `[hold]`
//! and `[fragments]`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use toml::Spanned;
use wire::InterfaceId;

use super::{Checker, Names, bounded, check_interface_name, check_name};
use crate::model::{
    Fragments, Hold, Icmp, Kernel, Punt, RouteOptions, Router, RoutesFrom, Validation, Workers,
};
use crate::raw::{Field, RawConfig};
use crate::reason::{Place, Reason};
use crate::word_or::WordOr;

const FRAMES_PER_WORKER_DEFAULT: u32 = 16_384;
const BATCH_FRAMES_DEFAULT: u32 = 64;
/// The kernel's `main` table, RT_TABLE_MAIN.
const MAIN_TABLE: u32 = 254;
/// Tables that are mirrored at most: each prefix and table is compared with all.
const TABLES_MAX: usize = 16;
/// A route that was withdrawn ten minutes ago says nothing about the network.
const WITHDRAW_HOLD_MS_MAX: u32 = 600_000;
/// More errors a second than this are no limit.
const ERRORS_PER_S_MAX: u32 = 1_000_000;

/// More than any kernel takes through a TUN device.
const PUNTS_PER_S_MAX: u32 = 10_000_000;

/// What goes to the kernel by default: more than the traffic of a workload on this machine, and less
/// than what would keep a core busy with writing to the TUN device.
const PUNTS_PER_S_DEFAULT: u32 = 250_000;

/// More than fits a link with fragments of any size.
const FRAGMENTED_PER_S_MAX: u32 = 10_000_000;

/// What is fragmented by default: at 1500 bytes 240 Mbit/s. Senders that do more of it are to find
/// the path's MTU, and clouds drop fragments above low rates.
const FRAGMENTED_PER_S_DEFAULT: u32 = 20_000;
/// Bound of core numbers: CONFIG_NR_CPUS of distribution kernels.
const CORES_MAX: u32 = 8192;

impl Checker<'_> {
    pub(super) fn router(&mut self, raw: &RawConfig, links: &Names<InterfaceId>) -> Router {
        let at = self.table("router", &raw.router);
        let empty = crate::raw::RawRouter::default();
        let raw_router = raw.router.as_ref().map_or(&empty, Spanned::get_ref);
        let name = match &raw_router.name {
            Some(name) => {
                let at = self.key(&at, "name", &raw_router.name);
                self.accept(&at, check_name(name.get_ref())).unwrap_or_default()
            }
            None => "default".to_owned(),
        };
        let batch_frames = self.number(
            &at,
            "batch_frames",
            &raw_router.batch_frames,
            1..=Router::BATCH_FRAMES_MAX.into(),
            BATCH_FRAMES_DEFAULT,
        );
        let rx_ring_entries = self.rx_ring_entries(&at, &raw_router.rx_ring_entries);
        Router {
            poll: raw_router.poll.as_ref().map(|poll| *poll.get_ref()).unwrap_or_default(),
            on_exit: raw_router.on_exit.as_ref().map(|exit| *exit.get_ref()).unwrap_or_default(),
            batch_frames: u16::try_from(batch_frames).unwrap_or(Router::BATCH_FRAMES_MAX),
            frames_per_worker: self.frames_per_worker(
                &at,
                &raw_router.frames_per_worker,
                raw.interface.len(),
                rx_ring_entries,
            ),
            rx_ring_entries,
            control_socket: self.control_socket(&at, &raw_router.control_socket, &name),
            metrics_listen: self.metrics_listen(&at, &raw_router.metrics_listen),
            bpffs: self.absolute(&at, "bpffs", &raw_router.bpffs, "/sys/fs/bpf"),
            punt_device: self.punt_device(&at, &raw_router.punt_device, links),
            name,
        }
    }

    fn rx_ring_entries(&mut self, at: &Place, field: &Field<i64>) -> u32 {
        let bounds = Router::RX_RING_ENTRIES_MIN..=Router::RX_RING_ENTRIES_MAX;
        let entries =
            self.number(at, "rx_ring_entries", field, bounds, Router::RX_RING_ENTRIES_MIN);
        if !entries.is_power_of_two() {
            let at = self.key(at, "rx_ring_entries", field);
            self.refuse(&at, Reason::NoPowerOfTwo(entries));
        }
        entries
    }

    fn frames_per_worker(
        &mut self,
        at: &Place,
        field: &Field<i64>,
        interfaces: usize,
        rx_ring_entries: u32,
    ) -> u32 {
        let count = u32::try_from(interfaces).unwrap_or(u32::MAX);
        let least = Router::FRAMES_PER_INTERFACE_MIN
            .max(Router::FRAMES_PER_RX_ENTRY_MIN * rx_ring_entries)
            .saturating_mul(count);
        // Half of the chunks are for receiving.
        let is_long = rx_ring_entries > Router::RX_RING_ENTRIES_MIN;
        let ample = if is_long { least.saturating_mul(2) } else { least };
        let default = FRAMES_PER_WORKER_DEFAULT.max(ample).min(Router::FRAMES_PER_WORKER_MAX);
        let bounds = Router::FRAMES_PER_INTERFACE_MIN..=Router::FRAMES_PER_WORKER_MAX;
        let frames = self.number(at, "frames_per_worker", field, bounds, default);
        if frames < least {
            let at = self.key(at, "frames_per_worker", field);
            self.refuse(&at, Reason::TooFewFrames { frames, interfaces, least });
        }
        frames
    }

    fn control_socket(&mut self, at: &Place, field: &Field<String>, name: &str) -> PathBuf {
        let default = format!("/run/sluice/{name}.sock");
        let path = self.absolute(at, "control_socket", field, &default);
        let (bytes, most) = (path.as_os_str().len(), Router::SOCKET_PATH_BYTES_MAX);
        if bytes > most {
            let at = self.key(at, "control_socket", field);
            self.refuse(&at, Reason::SocketPathTooLong { bytes, most });
        }
        path
    }

    fn metrics_listen(&mut self, at: &Place, field: &Field<String>) -> Option<SocketAddr> {
        let text = field.as_ref()?.get_ref();
        let at = self.key(at, "metrics_listen", field);
        let listen = text.parse().ok().filter(|listen: &SocketAddr| listen.port() != 0);
        self.accept(&at, listen.ok_or_else(|| Reason::BadListen(text.clone())))
    }

    pub(super) fn absolute(
        &mut self,
        at: &Place,
        name: &str,
        field: &Field<String>,
        default: &str,
    ) -> PathBuf {
        let text = field.as_ref().map_or(default, |path| path.get_ref());
        if !Path::new(text).is_absolute() {
            let at = self.key(at, name, field);
            self.refuse(&at, Reason::NotAbsolute(text.to_owned()));
        }
        PathBuf::from(text)
    }

    fn punt_device(
        &mut self,
        at: &Place,
        field: &Field<String>,
        links: &Names<InterfaceId>,
    ) -> String {
        let name = field.as_ref().map_or("sluice0", |name| name.get_ref());
        let at = self.key(at, "punt_device", field);
        if let Some(other) = links.place(name) {
            let (name, other) = (name.to_owned(), other.clone());
            self.refuse(&at, Reason::PuntDeviceIsInterface { name, other });
        }
        self.accept(&at, check_interface_name(name)).unwrap_or_default()
    }

    pub(super) fn workers(&mut self, raw: &RawConfig) -> Workers {
        let at = self.table("workers", &raw.workers);
        let Some(raw) = &raw.workers else { return Workers::Auto };
        let field = &raw.get_ref().cores;
        let at = self.key(&at, "cores", field);
        let list = match field.as_ref().map(Spanned::get_ref) {
            None => return Workers::Auto,
            Some(WordOr::Word(word)) if word == "auto" => return Workers::Auto,
            Some(WordOr::Word(word)) => {
                let expected = "\"auto\" or a list of core numbers";
                self.refuse(&at, Reason::Word { value: word.clone(), expected });
                return Workers::Auto;
            }
            Some(WordOr::Other(list)) => list,
        };
        if list.is_empty() {
            let meaning = "at least one core, or \"auto\"";
            self.refuse(&at, Reason::Missing(meaning.to_owned()));
        }
        let mut seen = Names::new("core");
        let mut cores = Vec::with_capacity(list.len());
        for (position, core) in list.iter().enumerate() {
            let at = self.place(format!("{}[{position}]", at.key), core);
            let Some(core) = self.accept(&at, bounded(*core.get_ref(), 0..=CORES_MAX - 1)) else {
                continue;
            };
            let added = seen.add(&core.to_string(), (), &at);
            self.accept(&at, added);
            cores.extend(u16::try_from(core));
        }
        Workers::Cores(cores)
    }

    pub(super) fn kernel(&mut self, raw: &RawConfig) -> Kernel {
        let at = self.table("kernel", &raw.kernel);
        let empty = crate::raw::RawKernel::default();
        let raw = raw.kernel.as_ref().map_or(&empty, Spanned::get_ref);
        let tables = match &raw.tables {
            None => vec![self.number(&at, "table", &raw.table, 1..=u32::MAX, MAIN_TABLE)],
            Some(list) => {
                if raw.table.is_some() {
                    let at = self.key(&at, "table", &raw.table);
                    let key = "kernel.tables";
                    self.refuse(&at, Reason::NotBeside { key });
                }
                self.tables(&at, list)
            }
        };
        Kernel {
            routes: raw.routes.as_ref().is_none_or(|routes| *routes.get_ref()),
            tables,
            neighbors: raw.neighbors.as_ref().is_none_or(|neighbors| *neighbors.get_ref()),
        }
    }

    pub(super) fn validation(raw: &RawConfig) -> Validation {
        let empty = crate::raw::RawValidation::default();
        let raw = raw.validation.as_ref().map_or(&empty, Spanned::get_ref);
        let is_on = |field: &Field<bool>| field.as_ref().is_none_or(|value| *value.get_ref());
        Validation {
            drop_martians: is_on(&raw.drop_martians),
            drop_source_routes: is_on(&raw.drop_source_routes),
        }
    }

    fn tables(&mut self, at: &Place, list: &[Spanned<i64>]) -> Vec<u32> {
        let key = format!("{}.tables", at.key);
        if list.is_empty() || list.len() > TABLES_MAX {
            let at = Place { key: key.clone(), line: at.line };
            self.refuse(&at, Reason::Missing(format!("1 to {TABLES_MAX} numbers of tables")));
        }
        let mut seen = Names::new("table");
        let mut tables = Vec::with_capacity(list.len());
        for (position, table) in list.iter().enumerate() {
            let at = self.place(format!("{key}[{position}]"), table);
            let Some(table) = self.accept(&at, bounded(*table.get_ref(), 1..=u32::MAX)) else {
                continue;
            };
            let added = seen.add(&table.to_string(), (), &at);
            self.accept(&at, added);
            tables.push(table);
        }
        tables
    }

    pub(super) fn route_options(&mut self, raw: &RawConfig) -> RouteOptions {
        let at = self.table("routes", &raw.routes);
        let empty = crate::raw::RawRoutes::default();
        let raw = raw.routes.as_ref().map_or(&empty, Spanned::get_ref);
        let mut preference = Vec::new();
        let mut seen = Names::new("source of routes");
        for (position, word) in raw.preference.iter().flatten().enumerate() {
            let at = self.place(format!("{}.preference[{position}]", at.key), word);
            let text = word.get_ref();
            let Some(from) = RoutesFrom::parse(text) else {
                let expected = "\"static\", \"kernel\" or \"kernel:PROTOCOL\"";
                self.refuse(&at, Reason::Word { value: text.clone(), expected });
                continue;
            };
            let added = seen.add(text, (), &at);
            self.accept(&at, added);
            preference.push(from);
        }
        if raw.preference.is_none() {
            preference = vec![RoutesFrom::Configuration, RoutesFrom::Kernel(None)];
        }
        RouteOptions {
            preference,
            withdraw_hold_ms: self.number(
                &at,
                "withdraw_hold_ms",
                &raw.withdraw_hold_ms,
                0..=WITHDRAW_HOLD_MS_MAX,
                0,
            ),
        }
    }

    pub(super) fn icmp(&mut self, raw: &RawConfig) -> Icmp {
        let at = self.table("icmp", &raw.icmp);
        let empty = crate::raw::RawIcmp::default();
        let raw = raw.icmp.as_ref().map_or(&empty, Spanned::get_ref);
        let mut rate =
            |name, field, default| self.number(&at, name, field, 0..=ERRORS_PER_S_MAX, default);
        Icmp {
            errors_per_s: rate("errors_per_s", &raw.errors_per_s, 1000),
            per_source_prefix_per_s: rate(
                "per_source_prefix_per_s",
                &raw.per_source_prefix_per_s,
                50,
            ),
        }
    }

    pub(super) fn punt(&mut self, raw: &RawConfig) -> Punt {
        let at = self.table("punt", &raw.punt);
        let empty = crate::raw::RawPunt::default();
        let raw = raw.punt.as_ref().map_or(&empty, Spanned::get_ref);
        let rate = &raw.packets_per_s;
        let range = 0..=PUNTS_PER_S_MAX;
        Punt { packets_per_s: self.number(&at, "packets_per_s", rate, range, PUNTS_PER_S_DEFAULT) }
    }

    pub(super) fn hold(&mut self, raw: &RawConfig, frames_per_worker: u32) -> Hold {
        let at = self.table("hold", &raw.hold);
        let empty = crate::raw::RawHold::default();
        let raw = raw.hold.as_ref().map_or(&empty, Spanned::get_ref);
        let per_neighbor =
            self.number(&at, "frames_max_per_neighbor", &raw.frames_max_per_neighbor, 0..=64, 8);
        let frames_max = self.number(&at, "frames_max", &raw.frames_max, 0..=16_384, 1024);
        if frames_max > frames_per_worker / 2 {
            let at = self.key(&at, "frames_max", &raw.frames_max);
            self.refuse(&at, Reason::HoldTooBig { frames_max, frames_per_worker });
        }
        Hold {
            frames_max_per_neighbor: u16::try_from(per_neighbor).unwrap_or(u16::MAX),
            frames_max,
            timeout_ms: self.number(&at, "timeout_ms", &raw.timeout_ms, 10..=10_000, 1000),
        }
    }

    pub(super) fn fragments(&mut self, raw: &RawConfig, frames_per_worker: u32) -> Fragments {
        let at = self.table("fragments", &raw.fragments);
        let empty = crate::raw::RawFragments::default();
        let raw = raw.fragments.as_ref().map_or(&empty, Spanned::get_ref);
        let short = |value| u16::try_from(value).unwrap_or(u16::MAX);
        let packets_max = self.number(&at, "packets_max", &raw.packets_max, 0..=32_768, 4096);
        let frames_max = self.number(&at, "frames_max", &raw.frames_max, 0..=8192, 512);
        if frames_max > frames_per_worker / 2 {
            let at = self.key(&at, "frames_max", &raw.frames_max);
            self.refuse(&at, Reason::HoldTooBig { frames_max, frames_per_worker });
        }
        let rate = &raw.egress_packets_per_s;
        let (rate_max, rate_default) = (FRAGMENTED_PER_S_MAX, FRAGMENTED_PER_S_DEFAULT);
        Fragments {
            packets_max: short(packets_max),
            frames_max: short(frames_max),
            bytes_max: self.number(&at, "bytes_max", &raw.bytes_max, 0..=32 << 20, 768 << 10),
            timeout_ms: self.number(&at, "timeout_ms", &raw.timeout_ms, 10..=60_000, 2000),
            egress: raw.egress.as_ref().is_none_or(|egress| *egress.get_ref()),
            egress_packets_per_s: self.number(
                &at,
                "egress_packets_per_s",
                rate,
                0..=rate_max,
                rate_default,
            ),
        }
    }
}
