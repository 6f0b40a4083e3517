//! The ethtool and interface ioctls (linux/ethtool.h, linux/sockios.h): one request each, on a socket
//! of the thread's network namespace.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

const SIOCETHTOOL: libc::Ioctl = 0x8946;
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSTATS: u32 = 0x1d;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
const ETH_SS_STATS: u32 = 1;
const ETH_SS_FEATURES: u32 = 4;
const ETH_GSTRING_LEN: usize = 32;

/// Room for entries beyond those that were announced. The kernel writes as many names or counters as
/// there are when it is asked (net/ethtool/ioctl.c, `ethtool_get_strings`, `ethtool_get_stats`),
/// which is more when somebody adds queues in between. A queue has some 20 counters.
const SPARE_ENTRIES: usize = 4096;

/// Asks about one interface.
pub(super) struct Ethtool {
    socket: OwnedFd,
    name: [libc::c_char; libc::IFNAMSIZ],
}

/// `struct ethtool_drvinfo`.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    version: [u8; 32],
    firmware: [u8; 32],
    bus: [u8; 32],
    expansion_rom: [u8; 32],
    reserved: [u8; 12],
    counts: [u32; 5],
}

/// `struct ethtool_channels`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct RawChannels {
    command: u32,
    pub(super) max_rx: u32,
    pub(super) max_tx: u32,
    pub(super) max_other: u32,
    pub(super) max_combined: u32,
    pub(super) rx: u32,
    pub(super) tx: u32,
    pub(super) other: u32,
    pub(super) combined: u32,
}

impl Ethtool {
    /// For the interface `name`.
    pub(super) fn new(name: &str) -> io::Result<Self> {
        let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        let mut c_name = [0; libc::IFNAMSIZ];
        if name.len() >= c_name.len() || name.bytes().any(|byte| byte == 0) {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        for (slot, byte) in c_name.iter_mut().zip(name.bytes()) {
            *slot = byte as libc::c_char;
        }
        Ok(Self { socket, name: c_name })
    }

    fn request(&self) -> libc::ifreq {
        // SAFETY: the struct consists of integers, arrays and a union of these and a pointer: all zero
        // is valid.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        request.ifr_name = self.name;
        request
    }

    fn ioctl(&self, number: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
        // SAFETY: `request` is borrowed exclusively for the call, and is what all requests of this
        // module take; a pointer in it was set by `command`, to memory that outlives the call.
        let result =
            unsafe { libc::ioctl(self.socket.as_raw_fd(), number, std::ptr::from_mut(request)) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// `SIOCGIFMTU`: the MTU in bytes.
    pub(super) fn mtu(&self) -> io::Result<u32> {
        let mut request = self.request();
        self.ioctl(libc::SIOCGIFMTU, &mut request)?;
        // SAFETY: the request fills this member; any bytes are a valid integer.
        Ok(unsafe { request.ifr_ifru.ifru_mtu }.cast_unsigned())
    }

    /// `SIOCGIFFLAGS`: `IFF_*`.
    pub(super) fn flags(&self) -> io::Result<libc::c_int> {
        let mut request = self.request();
        self.ioctl(libc::SIOCGIFFLAGS, &mut request)?;
        // SAFETY: the request fills this member; any bytes are a valid integer.
        Ok(libc::c_int::from(unsafe { request.ifr_ifru.ifru_flags }))
    }

    /// `SIOCGIFHWADDR`: the link-layer address, `None` if it is not an Ethernet one.
    pub(super) fn mac(&self) -> io::Result<Option<[u8; 6]>> {
        let mut request = self.request();
        self.ioctl(libc::SIOCGIFHWADDR, &mut request)?;
        // SAFETY: the request fills this member; any bytes are valid integers.
        let address = unsafe { request.ifr_ifru.ifru_hwaddr };
        if address.sa_family != libc::ARPHRD_ETHER {
            return Ok(None);
        }
        Ok(Some(std::array::from_fn(|position| address.sa_data[position] as u8)))
    }

    /// `SIOCETHTOOL` with a command's struct, whose first word is the number of the command. The
    /// kernel writes no more than the struct that the command names, which `data` must hold.
    fn command(&self, data: &mut [u8]) -> io::Result<()> {
        let mut request = self.request();
        request.ifr_ifru.ifru_data = data.as_mut_ptr().cast();
        self.ioctl(SIOCETHTOOL, &mut request)
    }

    /// Name and version of the driver.
    pub(super) fn driver(&self) -> io::Result<(String, String)> {
        let mut info: DriverInfo = bytemuck::Zeroable::zeroed();
        info.command = ETHTOOL_GDRVINFO;
        self.command(bytemuck::bytes_of_mut(&mut info))?;
        Ok((text(&info.driver), text(&info.version)))
    }

    /// Numbers of queues.
    pub(super) fn channels(&self) -> io::Result<RawChannels> {
        let mut channels: RawChannels = bytemuck::Zeroable::zeroed();
        channels.command = ETHTOOL_GCHANNELS;
        self.command(bytemuck::bytes_of_mut(&mut channels))?;
        Ok(channels)
    }

    /// The names of a set, in the kernel's order.
    fn strings(&self, set: u32) -> io::Result<Vec<String>> {
        // struct ethtool_sset_info: command, reserved, mask of 64 bits, one length.
        let mut info = [0_u32; 5];
        info[0] = ETHTOOL_GSSET_INFO;
        info[2..4].copy_from_slice(bytemuck::cast_slice(&[1_u64 << set]));
        self.command(bytemuck::cast_slice_mut(&mut info))?;
        // Without the set, the kernel clears its bit and writes no length.
        let count = info[4] as usize;

        // struct ethtool_gstrings: command, set, length, then the names.
        let mut strings = vec![0_u32; 3 + (count + SPARE_ENTRIES) * ETH_GSTRING_LEN / 4];
        strings[..3].copy_from_slice(&[ETHTOOL_GSTRINGS, set, count as u32]);
        if count > 0 {
            self.command(bytemuck::cast_slice_mut(&mut strings))?;
        }
        let names: &[u8] = bytemuck::cast_slice(&strings[3..]);
        Ok(names.chunks_exact(ETH_GSTRING_LEN).take(count).map(text).collect())
    }

    /// The driver's own counters, as `ethtool -S` shows them; none if it has none.
    pub(super) fn statistics(&self) -> io::Result<Vec<(String, u64)>> {
        let names = self.strings(ETH_SS_STATS)?;
        if names.is_empty() {
            return Ok(Vec::new());
        }
        // struct ethtool_stats: command and number in one word of 64 bits, then the values.
        let count = names.len() as u32;
        let mut values = vec![0_u64; 1 + names.len() + SPARE_ENTRIES];
        bytemuck::cast_slice_mut(&mut values[..1]).copy_from_slice(&[ETHTOOL_GSTATS, count]);
        self.command(bytemuck::cast_slice_mut(&mut values))?;
        let head: &[u32] = bytemuck::cast_slice(&values[..1]);
        if head[1] != count {
            return Err(io::Error::new(
                io::ErrorKind::Interrupted,
                "the driver's counters changed while they were read",
            ));
        }
        Ok(names.into_iter().zip(values.into_iter().skip(1)).collect())
    }

    /// Every feature that the kernel knows, and whether it is on, by its name in `ethtool -k`'s
    /// terms of the kernel (for instance `rx-checksum`).
    pub(super) fn features(&self) -> io::Result<Vec<(String, bool)>> {
        let names = self.strings(ETH_SS_FEATURES)?;

        // struct ethtool_gfeatures: command, size, then for each 32 features the masks available,
        // requested, active, never_changed.
        let blocks = names.len().div_ceil(32);
        let mut features = vec![0_u32; 2 + 4 * blocks];
        features[..2].copy_from_slice(&[ETHTOOL_GFEATURES, blocks as u32]);
        self.command(bytemuck::cast_slice_mut(&mut features))?;

        Ok(names
            .into_iter()
            .enumerate()
            .map(|(bit, name)| {
                let active = features[2 + 4 * (bit / 32) + 2];
                (name, active >> (bit % 32) & 1 == 1)
            })
            .collect())
    }
}

/// A text that ends at the first zero.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
