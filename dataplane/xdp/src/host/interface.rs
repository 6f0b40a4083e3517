//! [`InterfaceFacts`]: what the kernel says of one interface.

use std::{collections::HashMap, fs, io, path::PathBuf};

use wire::MacAddress;

use super::ethtool::Ethtool;
use crate::{AttachedMode, XdpError, bpf};

/// What the kernel says of one interface. `None` stands for what driver or kernel do not tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceFacts {
    /// Name in this network namespace.
    pub name: String,
    /// Index in this network namespace.
    pub index: u32,
    /// Link-layer address; `None` if it is not an Ethernet interface.
    pub mac: Option<MacAddress>,
    /// MTU in bytes, without Ethernet header.
    pub mtu: u32,
    /// Name of the driver, as `ethtool -i` shows it.
    pub driver: String,
    /// Version of the driver; drivers of the kernel's tree report the kernel's.
    pub driver_version: String,
    /// Whether it is one end of a veth pair. The offloads of the other end matter as much, and cannot
    /// be seen from here.
    pub is_veth: bool,
    /// Whether it is set up (`IFF_UP`).
    pub is_up: bool,
    /// Whether it can carry packets (`IFF_RUNNING`): set up, with a carrier.
    pub is_running: bool,
    /// Numbers of queues, as `ethtool -l` shows them.
    pub channels: Option<Channels>,
    /// RX queues in use.
    pub rx_queues: Option<u32>,
    /// TX queues in use.
    pub tx_queues: Option<u32>,
    /// The XDP program that is attached, by number and mode.
    pub xdp_program: Option<(u32, AttachedMode)>,
    /// Whether the driver runs XDP programs itself. Told by Linux 6.3 and later.
    pub native_xdp: Option<bool>,
    /// Whether the driver supports zero-copy sockets. Told by Linux 6.3 and later.
    pub zero_copy: Option<bool>,
    /// What the device does to packets on its own.
    pub offloads: Offloads,
    /// Whether ENA's driver uses large LLQ entries, without which headers beyond 96 bytes are dropped
    /// to a slow path; the module's parameter, since the device itself does not tell. `None` for other
    /// drivers.
    pub ena_large_llq: Option<bool>,
}

/// Numbers of queues of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channels {
    /// Queues that only receive.
    pub rx: u32,
    /// Queues that only send.
    pub tx: u32,
    /// Queues that do both.
    pub combined: u32,
    /// The most that [`Self::rx`] can be set to.
    pub rx_max: u32,
    /// The most that [`Self::tx`] can be set to.
    pub tx_max: u32,
    /// The most that [`Self::combined`] can be set to.
    pub combined_max: u32,
}

/// What the device does to packets on its own, true for on. A router wants the receive side to leave
/// packets as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// The device verifies checksums on reception.
    pub rx_checksum: Option<bool>,
    /// The device fills checksums in. On a veth pair: checksums are *missing* in what the peer gets.
    pub tx_checksum: Option<bool>,
    /// The kernel merges received packets (GRO).
    pub gro: Option<bool>,
    /// The device merges received packets (LRO): XDP refuses that.
    pub lro: Option<bool>,
    /// The device cuts large TCP segments.
    pub tso: Option<bool>,
    /// The kernel cuts large packets of any kind just before the device.
    pub gso: Option<bool>,
    /// The device takes 802.1Q tags off: then the classifier sees tagged packets as untagged ones.
    pub rx_vlan: Option<bool>,
}

/// Index of the interface `name` in the thread's network namespace.
///
/// # Errors
/// [`XdpError::UnknownInterface`].
pub fn interface_index(name: &str) -> Result<u32, XdpError> {
    nix::net::if_::if_nametoindex(name)
        .map_err(|_| XdpError::UnknownInterface { interface: name.into() })
}

/// Asks the kernel about the interface `name` of the thread's network namespace.
///
/// # Errors
/// [`XdpError::UnknownInterface`]; [`XdpError::Interface`] when a question that every driver answers is
/// refused.
pub fn interface(name: &str) -> Result<InterfaceFacts, XdpError> {
    let index = interface_index(name)?;
    let failed =
        |operation| move |error| XdpError::Interface { interface: name.into(), operation, error };
    let ethtool = Ethtool::new(name).map_err(failed("socket"))?;
    let flags = ethtool.flags().map_err(failed("SIOCGIFFLAGS"))?;
    // Interfaces without ethtool operations (tun without a user, for instance) have neither.
    let (driver, driver_version) = ethtool.driver().unwrap_or_default();
    let channels = ethtool.channels().ok().map(|raw| Channels {
        rx: raw.rx,
        tx: raw.tx,
        combined: raw.combined,
        rx_max: raw.max_rx,
        tx_max: raw.max_tx,
        combined_max: raw.max_combined,
    });
    let queues = |in_use: fn(&Channels) -> u32, prefix| {
        channels.as_ref().map(in_use).or_else(|| sysfs_queues(name, index, prefix))
    };
    let xdp = bpf::xdp_query(index).map_err(failed("query of XDP"))?;
    let features: HashMap<String, bool> =
        ethtool.features().unwrap_or_default().into_iter().collect();

    Ok(InterfaceFacts {
        name: name.into(),
        index,
        mac: ethtool.mac().map_err(failed("SIOCGIFHWADDR"))?.map(MacAddress),
        mtu: ethtool.mtu().map_err(failed("SIOCGIFMTU"))?,
        is_veth: driver == "veth",
        is_up: flags & libc::IFF_UP != 0,
        is_running: flags & libc::IFF_RUNNING != 0,
        channels,
        rx_queues: queues(|channels| channels.rx + channels.combined, "rx-"),
        tx_queues: queues(|channels| channels.tx + channels.combined, "tx-"),
        xdp_program: (xdp.program_id != 0).then(|| {
            let mode = if xdp.attach_mode == bpf::XDP_ATTACHED_SKB {
                AttachedMode::Generic
            } else {
                AttachedMode::Native
            };
            (xdp.program_id, mode)
        }),
        native_xdp: xdp.native,
        zero_copy: xdp.zero_copy,
        offloads: Offloads::from_features(&features),
        ena_large_llq: (driver == "ena").then(ena_large_llq).flatten(),
        driver,
        driver_version,
    })
}

impl Offloads {
    /// From the kernel's names of features (net/ethtool/common.c, `netdev_features_strings`).
    fn from_features(features: &HashMap<String, bool>) -> Self {
        let get = |name: &str| features.get(name).copied();
        let any = |names: &[&str]| names.iter().filter_map(|name| get(name)).reduce(|a, b| a || b);
        Self {
            rx_checksum: get("rx-checksum"),
            tx_checksum: any(&["tx-checksum-ipv4", "tx-checksum-ip-generic", "tx-checksum-ipv6"]),
            gro: get("rx-gro"),
            lro: get("rx-lro"),
            tso: any(&["tx-tcp-segmentation", "tx-tcp6-segmentation"]),
            gso: get("tx-generic-segmentation"),
            rx_vlan: get("rx-vlan-hw-parse"),
        }
    }
}

/// Number of queues by sysfs, if that shows the same interface as this network namespace.
fn sysfs_queues(name: &str, index: u32, prefix: &str) -> Option<u32> {
    let directory = PathBuf::from("/sys/class/net").join(name);
    let shown: u32 = fs::read_to_string(directory.join("ifindex")).ok()?.trim().parse().ok()?;
    if shown != index {
        return None;
    }
    let queues = fs::read_dir(directory.join("queues")).ok()?;
    let count = queues
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .count();
    u32::try_from(count).ok()
}

fn ena_large_llq() -> Option<bool> {
    let text = fs::read_to_string("/sys/module/ena/parameters/force_large_llq_header").ok()?;
    match text.trim() {
        "Y" | "1" => Some(true),
        "N" | "0" => Some(false),
        _ => None,
    }
}

/// The counters of the interface's driver by its own names, as `ethtool -S` shows them. Empty for
/// drivers without any.
///
/// # Errors
/// [`XdpError::UnknownInterface`]; [`XdpError::Interface`] when the driver refuses to tell.
pub fn driver_statistics(name: &str) -> Result<Vec<(String, u64)>, XdpError> {
    interface_index(name)?;
    let failed =
        |operation| move |error| XdpError::Interface { interface: name.into(), operation, error };
    let ethtool = Ethtool::new(name).map_err(failed("socket"))?;
    match ethtool.statistics() {
        // Interfaces without any ethtool operation.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(Vec::new()),
        result => result.map_err(failed("ETHTOOL_GSTATS")),
    }
}

/// Keeps interrupts of the interface away while a worker polls it: they are deferred as long as polls
/// come within 200 us, and twice an empty poll is waited for
/// (Documentation/networking/napi.rst, "IRQ mitigation"). It lasts until the interface is gone or is
/// set otherwise.
///
/// # Errors
/// [`XdpError::Interface`] when sysfs of this network namespace does not show the interface or is
/// read-only; the router works without.
pub fn defer_interrupts(name: &str) -> Result<(), XdpError> {
    let directory = PathBuf::from("/sys/class/net").join(name);
    let index = interface_index(name)?;
    let failed =
        |operation| move |error| XdpError::Interface { interface: name.into(), operation, error };
    let shown = fs::read_to_string(directory.join("ifindex")).map_err(failed("reading sysfs"))?;
    if shown.trim() != index.to_string() {
        return Err(failed("reading sysfs")(io::Error::other(
            "/sys shows the interfaces of another network namespace",
        )));
    }
    fs::write(directory.join("napi_defer_hard_irqs"), "2")
        .map_err(failed("writing napi_defer_hard_irqs"))?;
    fs::write(directory.join("gro_flush_timeout"), "200000")
        .map_err(failed("writing gro_flush_timeout"))
}
