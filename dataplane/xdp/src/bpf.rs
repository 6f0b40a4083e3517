//! The few `bpf(2)` calls about links and pins that aya has no way for: updating a link that stays
//! pinned, asking a link for its interface, detaching it by force. They go through the libbpf that
//! xsk-rs links anyway.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use libxdp_sys as sys;

/// In which mode an XDP program runs on an interface (`XDP_FLAGS_*` of linux/if_link.h).
pub(crate) const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
/// See [`XDP_FLAGS_SKB_MODE`].
pub(crate) const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// `XDP_ATTACHED_SKB` of linux/if_link.h.
pub(crate) const XDP_ATTACHED_SKB: u8 = 2;

/// `NETDEV_XDP_ACT_BASIC` of linux/netdev.h: the driver runs XDP programs itself.
const FEATURE_BASIC: u64 = 1 << 0;
/// `NETDEV_XDP_ACT_XSK_ZEROCOPY` of linux/netdev.h.
const FEATURE_ZERO_COPY: u64 = 1 << 3;

/// What the kernel says of XDP on an interface.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct XdpQuery {
    /// Number of the attached program, 0 if there is none.
    pub(crate) program_id: u32,
    /// `XDP_ATTACHED_*`.
    pub(crate) attach_mode: u8,
    /// Whether the driver runs programs itself; `None` when the kernel does not tell (before 6.3).
    pub(crate) native: Option<bool>,
    /// Whether the driver supports zero-copy sockets; `None` when the kernel does not tell.
    pub(crate) zero_copy: Option<bool>,
}

/// libbpf's way to report: a negative errno.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result) }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Opens the object that is pinned at `path`.
pub(crate) fn object_get(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    // SAFETY: `path` is a C string that lives until the call returns.
    let fd = check(unsafe { sys::bpf_obj_get(path.as_ptr()) })?;
    // SAFETY: the call returned a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Pins an object at `path`.
pub(crate) fn object_pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    // SAFETY: `path` is a C string that lives until the call returns, and `object` is open.
    check(unsafe { sys::bpf_obj_pin(object.as_raw_fd(), path.as_ptr()) }).map(drop)
}

/// Attaches an XDP program to an interface by a new link.
pub(crate) fn link_create(
    program: BorrowedFd<'_>,
    if_index: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    // SAFETY: the struct consists of integers, pointers and unions of these: all zero is valid, and
    // means that no option is given.
    let mut options: sys::bpf_link_create_opts = unsafe { std::mem::zeroed() };
    options.sz = size_of_val(&options);
    options.flags = flags;
    // SAFETY: `options` lives until the call returns; its pointers are null; `program` is open.
    let fd = check(unsafe {
        sys::bpf_link_create(
            program.as_raw_fd(),
            if_index as libc::c_int,
            sys::bpf_attach_type_BPF_XDP,
            &raw const options,
        )
    })?;
    // SAFETY: the call returned a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Replaces the program of a link at once: each packet meets the old one or the new one.
pub(crate) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both descriptors are open, and null options are allowed.
    check(unsafe { sys::bpf_link_update(link.as_raw_fd(), program.as_raw_fd(), std::ptr::null()) })
        .map(drop)
}

/// Detaches a link from its interface, whoever else holds it.
pub(crate) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the descriptor is open.
    check(unsafe { sys::bpf_link_detach(link.as_raw_fd()) }).map(drop)
}

/// The interface that an XDP link is attached to, or `None` when that is gone.
pub(crate) fn link_if_index(link: BorrowedFd<'_>) -> io::Result<Option<u32>> {
    // SAFETY: the struct consists of integers and unions of integers: all zero is valid.
    let mut info: sys::bpf_link_info = unsafe { std::mem::zeroed() };
    let mut length = size_of_val(&info) as u32;
    // SAFETY: the kernel writes at most `length` bytes of `info`, which is borrowed exclusively.
    check(unsafe {
        sys::bpf_link_get_info_by_fd(link.as_raw_fd(), &raw mut info, &raw mut length)
    })?;
    if info.type_ != sys::bpf_link_type_BPF_LINK_TYPE_XDP {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the link is not of type XDP"));
    }
    // SAFETY: the type says that `xdp` is the member that was written; any bytes are a valid integer.
    let if_index = unsafe { info.__bindgen_anon_1.xdp.ifindex };
    Ok((if_index != 0).then_some(if_index))
}

/// Asks what is attached to an interface and what its driver can do.
pub(crate) fn xdp_query(if_index: u32) -> io::Result<XdpQuery> {
    // SAFETY: the struct consists of integers: all zero is valid.
    let mut options: sys::bpf_xdp_query_opts = unsafe { std::mem::zeroed() };
    options.sz = size_of_val(&options);
    // SAFETY: `options` is borrowed exclusively for the call, and says its own size.
    check(unsafe { sys::bpf_xdp_query(if_index as libc::c_int, 0, &raw mut options) })?;
    // A kernel that does not know the netdev family leaves the features at 0; one that does always
    // reports some bit for a device that can do anything with XDP. Hence 0 may mean either.
    let features = options.feature_flags;
    let known = |bit| (features != 0 || netdev_family_known()).then_some(features & bit != 0);
    Ok(XdpQuery {
        program_id: options.prog_id,
        attach_mode: options.attach_mode,
        native: known(FEATURE_BASIC),
        zero_copy: known(FEATURE_ZERO_COPY),
    })
}

/// Whether the kernel has the netlink family that reports XDP features: since Linux 6.3.
fn netdev_family_known() -> bool {
    crate::host::kernel_version().is_ok_and(|version| version >= (6, 3))
}
