//! Loading the tester's programs, and attaching them to an interface for the life of a value.

use std::os::fd::{AsFd, OwnedFd};

use aya::{
    Ebpf, EbpfLoader,
    programs::{ProgramFd, Xdp},
};

use super::TesterError;
use crate::{AttachedMode, XdpMode, bpf, error::chain, host};

/// Loads an object whose options `configure` set, and its only program.
pub(super) fn load(
    program: &'static str,
    bytes: &[u8],
    loader: &mut EbpfLoader<'_>,
) -> Result<Ebpf, TesterError> {
    let failed =
        |error: &dyn std::error::Error| TesterError::Load { program, reason: chain(error) };
    let mut object = loader.load(bytes).map_err(|error| failed(&error))?;
    xdp(&mut object, program)?.load().map_err(|error| failed(&error))?;
    Ok(object)
}

/// The descriptor of a loaded program.
pub(super) fn descriptor<'object>(
    object: &'object mut Ebpf,
    program: &'static str,
) -> Result<&'object ProgramFd, TesterError> {
    xdp(object, program)?.fd().map_err(|error| TesterError::Load { program, reason: chain(&error) })
}

fn xdp<'object>(
    object: &'object mut Ebpf,
    program: &'static str,
) -> Result<&'object mut Xdp, TesterError> {
    object
        .program_mut(program)
        .ok_or_else(|| TesterError::Load { program, reason: "the object has none".into() })?
        .try_into()
        .map_err(|error| TesterError::Load { program, reason: chain(&error) })
}

/// Attaches a loaded program to the interface, until the returned link is closed.
pub(super) fn attach(
    object: &mut Ebpf,
    program: &'static str,
    interface: &str,
    mode: XdpMode,
) -> Result<(OwnedFd, AttachedMode), TesterError> {
    let if_index = host::interface_index(interface)?;
    let descriptor = descriptor(object, program)?;
    let create = |mode: AttachedMode| {
        let flags = match mode {
            AttachedMode::Native => bpf::XDP_FLAGS_DRV_MODE,
            AttachedMode::Generic => bpf::XDP_FLAGS_SKB_MODE,
        };
        bpf::link_create(descriptor.as_fd(), if_index, flags).map(|link| (link, mode)).map_err(
            |error| TesterError::Attach {
                interface: interface.into(),
                program,
                mode: mode.label(),
                error,
            },
        )
    };
    match mode {
        XdpMode::Native => create(AttachedMode::Native),
        XdpMode::Generic => create(AttachedMode::Generic),
        XdpMode::Auto => create(AttachedMode::Native).or_else(|error| {
            tracing::warn!(
                interface, %error,
                "the driver does not run the tester's program; it runs in the stack, which is slow"
            );
            create(AttachedMode::Generic)
        }),
    }
}
