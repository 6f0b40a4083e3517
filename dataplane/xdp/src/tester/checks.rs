//! What is looked at before a [`LiveSender`](super::LiveSender) sends: traffic that it cannot make, and
//! interfaces on which it would vanish uncounted.

use std::io;

use libxdp_sys as sys;

use super::{IMAGES_MAX, Image, ORDER_MAX, STREAMS_MAX, TesterError};
use crate::{XdpError, host};

/// `NETDEV_XDP_ACT_NDO_XMIT` of linux/netdev.h: the device takes redirected frames at this moment.
const FEATURE_NDO_XMIT: u64 = 1 << 2;

/// Bytes of a frame that the MTU does not count.
const ETHERNET_LEN: u32 = 14;

/// The first kernel that tells features of a device by netlink.
const KERNEL_WITH_FEATURES: (u32, u32) = (6, 3);

/// Whether there is something to send, all of which the program can be trusted with.
pub(super) fn check_traffic(
    images: &[Image],
    order: &[u32],
    stream: u8,
) -> Result<(), TesterError> {
    for (what, value, min, max) in [
        ("the number of images", images.len(), 1, IMAGES_MAX),
        ("the length of the order", order.len(), 1, ORDER_MAX),
        ("the number of the stream", stream.into(), 0, usize::from(STREAMS_MAX) - 1),
    ] {
        if value < min || value > max {
            return Err(TesterError::OutOfRange {
                what,
                value: value as u64,
                min: min as u64,
                max: max as u64,
            });
        }
    }
    for (number, image) in images.iter().enumerate() {
        image.check(number)?;
    }
    match order.iter().position(|&image| image as usize >= images.len()) {
        Some(position) => {
            Err(TesterError::Order { position, image: order[position], images: images.len() })
        }
        None => Ok(()),
    }
}

/// Whether all frames fit the interface: those that do not would be dropped without being counted
/// (`xdp_ok_fwd_dev` of include/linux/netdevice.h).
pub(super) fn check_mtu(interface: &str, images: &[Image]) -> Result<(), TesterError> {
    let mtu = host::interface(interface)?.mtu;
    let frame_len = images.iter().map(|image| u32::from(image.frame_len)).max().unwrap_or(0);
    if frame_len > mtu + ETHERNET_LEN {
        return Err(TesterError::FrameTooLong { interface: interface.into(), frame_len, mtu });
    }
    Ok(())
}

/// Whether the interface is up and takes redirected frames, the latter as far as the kernel tells (since
/// 6.3). What is redirected to one that does not is dropped without being counted.
pub(super) fn check_redirect_target(
    interface: &str,
    if_index: u32,
    kernel: (u32, u32),
) -> Result<(), TesterError> {
    let refused = || TesterError::NoRedirectTarget { interface: interface.into() };
    if !host::interface(interface)?.is_up {
        return Err(refused());
    }
    if kernel < KERNEL_WITH_FEATURES {
        return Ok(());
    }
    // SAFETY: the struct consists of integers: all zero is valid.
    let mut options: sys::bpf_xdp_query_opts = unsafe { std::mem::zeroed() };
    options.sz = size_of_val(&options);
    // SAFETY: `options` is borrowed exclusively for the call, and says its own size.
    let result = unsafe { sys::bpf_xdp_query(if_index as libc::c_int, 0, &raw mut options) };
    if result < 0 {
        return Err(TesterError::Xdp(XdpError::Interface {
            interface: interface.into(),
            operation: "query of XDP",
            error: io::Error::from_raw_os_error(-result),
        }));
    }
    if options.feature_flags & FEATURE_NDO_XMIT == 0 {
        return Err(refused());
    }
    Ok(())
}
