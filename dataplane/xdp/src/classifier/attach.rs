//! Loading, pinning, taking over and detaching.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapError, PerCpuArray, XskMap},
    programs::Xdp,
};
use wire::InterfaceId;

use super::probe::Probe;
use super::{Attached, Classifier, ClassifierRules, INTERFACES_MAX, RuleMaps};
use crate::{XdpError, bpf, error::chain, host};

/// The compiled program.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/classifier.o"));

/// Name of the program in the object.
const PROGRAM: &str = "sluice_classify";

/// The maps, which all copies of the program share.
const MAPS: [&str; 7] =
    ["xsks", "locals4", "locals6", "egress4", "egress6", "settings", "counters"];

/// Ending of a link's pin. Interfaces' names cannot collide with maps this way.
const LINK_SUFFIX: &str = "-link";

/// Where on the packet's path the classifier is to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum XdpMode {
    /// In the driver if it can, else in the stack, with a warning.
    #[default]
    Auto,
    /// In the driver, or an error.
    Native,
    /// In the stack, on packets that the kernel already made an skb of: slow, for every driver.
    Generic,
}

/// Where on the packet's path the classifier runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttachedMode {
    /// In the driver.
    Native,
    /// In the stack.
    Generic,
}

impl AttachedMode {
    /// The mode in one word, as logs and metrics show it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// An interface that the classifier is to be attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachSpec {
    /// Name of the interface in this network namespace.
    pub name: String,
    /// Its position in the configuration.
    pub id: InterfaceId,
    /// Where the classifier is to run.
    pub mode: XdpMode,
}

pub(super) fn attach(
    instance: &str,
    bpffs: &Path,
    interfaces: &[AttachSpec],
    initial: &ClassifierRules,
) -> Result<(Classifier, Vec<AttachedMode>), XdpError> {
    if interfaces.is_empty() || interfaces.len() > INTERFACES_MAX {
        return Err(XdpError::OutOfRange {
            what: "the number of interfaces",
            value: interfaces.len(),
            range: format!("1 to {INTERFACES_MAX}"),
        });
    }
    let directory = instance_directory(instance, bpffs)?;
    for spec in interfaces {
        check_pin_name(&spec.name)?;
    }
    fs::create_dir_all(&directory).map_err(pin_error(&directory, "create directory"))?;
    let lock = lock(&directory, instance)?;

    // Foreign programs are found before anything is changed.
    let mut targets = Vec::with_capacity(interfaces.len());
    for spec in interfaces {
        targets.push(Target::find(spec, &directory)?);
    }

    // The maps of an earlier run stay alive as long as its program runs. New ones take their names, so
    // that neither stale rules nor another layout are inherited.
    for map in MAPS {
        remove_pin(&directory.join(map))?;
    }
    let mut objects = Vec::with_capacity(interfaces.len());
    for slot in 0..interfaces.len() {
        objects.push(load(&directory, slot as u32)?);
    }
    let first = &mut objects[0];
    let mut rules = RuleMaps::take(first)?;
    let mut xsks: XskMap<_> = take_map(first, "xsks")?;
    let counters: PerCpuArray<_, u64> = take_map(first, "counters")?;
    rules.update(initial)?;
    let probe = match interfaces.len() {
        ..INTERFACES_MAX => Some(Probe::new(&directory, &mut xsks)?),
        _ => None,
    };

    let mut attached = Vec::with_capacity(interfaces.len());
    let mut modes = Vec::with_capacity(interfaces.len());
    for (target, object) in targets.into_iter().zip(&mut objects) {
        let program = program(object)?;
        let program = program.fd().map_err(|error| XdpError::Load { reason: chain(&error) })?;
        let (link, mode) = target.attach(program.as_fd())?;
        attached.push(Attached { id: target.spec.id, _link: link });
        modes.push(mode);
    }
    // An interface that is not configured any more must not stay on the program of the earlier run.
    let kept: Vec<PathBuf> =
        interfaces.iter().map(|spec| link_path(&directory, &spec.name)).collect();
    for path in link_pins(&directory)? {
        if !kept.contains(&path) {
            detach_link(&path)?;
        }
    }
    Ok((Classifier { interfaces: attached, rules, xsks, counters, probe, _lock: lock }, modes))
}

/// Removes everything that an instance left in the kernel: links, so that the kernel handles all
/// packets again, and maps. Returns what was removed, in words; nothing if there was nothing.
///
/// # Errors
/// [`XdpError::InstanceRunning`] while the instance runs, [`XdpError::NotBpffs`],
/// [`XdpError::PinName`], [`XdpError::Pin`].
pub fn detach(instance: &str, bpffs: &Path) -> Result<Vec<String>, XdpError> {
    let directory = instance_directory(instance, bpffs)?;
    if !directory.exists() {
        return Ok(Vec::new());
    }
    let _lock = lock(&directory, instance)?;
    let mut removed = Vec::new();
    for path in link_pins(&directory)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let interface = name.strip_suffix(LINK_SUFFIX).unwrap_or(&name);
        if detach_link(&path)? {
            removed.push(format!("classifier of interface {interface}"));
        } else {
            removed.push(format!("stale link of interface {interface}"));
        }
    }
    for map in MAPS {
        if remove_pin(&directory.join(map))? {
            removed.push(format!("map {map}"));
        }
    }
    fs::remove_dir(&directory).map_err(pin_error(&directory, "remove directory"))?;
    // The parent is shared by instances: it goes with the last of them.
    if let Some(parent) = directory.parent() {
        let _ = fs::remove_dir(parent);
    }
    Ok(removed)
}

/// An interface, and the pinned link of an earlier run if there is one that still holds.
struct Target<'spec> {
    spec: &'spec AttachSpec,
    if_index: u32,
    path: PathBuf,
    link: Option<OwnedFd>,
}

impl<'spec> Target<'spec> {
    fn find(spec: &'spec AttachSpec, directory: &Path) -> Result<Self, XdpError> {
        let if_index = host::interface_index(&spec.name)?;
        let path = link_path(directory, &spec.name);
        let link = match bpf::object_get(&path) {
            Ok(link) => {
                let on = bpf::link_if_index(link.as_fd()).map_err(pin_error(&path, "read link"))?;
                if on == Some(if_index) {
                    Some(link)
                } else {
                    // The interface was made anew, or the name went to another one.
                    detach_link(&path)?;
                    None
                }
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => None,
            Err(error) => return Err(pin_error(&path, "open link")(error)),
        };
        let target = Self { spec, if_index, path, link };
        if target.link.is_none() {
            let query = target.query()?;
            if query.program_id != 0 {
                return Err(XdpError::ForeignProgram {
                    interface: spec.name.clone(),
                    program_id: query.program_id,
                });
            }
        }
        Ok(target)
    }

    fn query(&self) -> Result<bpf::XdpQuery, XdpError> {
        bpf::xdp_query(self.if_index).map_err(|error| XdpError::Interface {
            interface: self.spec.name.clone(),
            operation: "query of XDP",
            error,
        })
    }

    /// Puts the program into the link, or makes a link and pins it.
    fn attach(&self, program: BorrowedFd<'_>) -> Result<(OwnedFd, AttachedMode), XdpError> {
        let interface = &self.spec.name;
        let wanted = match self.spec.mode {
            XdpMode::Auto => None,
            XdpMode::Native => Some(AttachedMode::Native),
            XdpMode::Generic => Some(AttachedMode::Generic),
        };
        if let Some(link) = &self.link {
            let attached = self.mode()?;
            if let Some(wanted) = wanted.filter(|&wanted| wanted != attached) {
                return Err(XdpError::ModeChanged {
                    interface: interface.clone(),
                    attached: attached.label(),
                    wanted: wanted.label(),
                });
            }
            bpf::link_update(link.as_fd(), program).map_err(|error| XdpError::Attach {
                interface: interface.clone(),
                mode: attached.label(),
                error,
            })?;
            tracing::info!(interface, "took over the classifier of an earlier run");
            let link = link.try_clone().map_err(pin_error(&self.path, "duplicate link"))?;
            return Ok((link, attached));
        }

        let create = |mode: AttachedMode| {
            let flags = match mode {
                AttachedMode::Native => bpf::XDP_FLAGS_DRV_MODE,
                AttachedMode::Generic => bpf::XDP_FLAGS_SKB_MODE,
            };
            bpf::link_create(program, self.if_index, flags).map(|link| (link, mode)).map_err(
                |error| XdpError::Attach {
                    interface: interface.clone(),
                    mode: mode.label(),
                    error,
                },
            )
        };
        let (link, mode) = match wanted {
            Some(mode) => create(mode)?,
            None => create(AttachedMode::Native).or_else(|error| {
                tracing::warn!(
                    interface, %error,
                    "the driver does not run the classifier; it runs in the stack, which is slow"
                );
                create(AttachedMode::Generic)
            })?,
        };
        bpf::object_pin(link.as_fd(), &self.path).map_err(pin_error(&self.path, "pin link"))?;
        Ok((link, mode))
    }

    fn mode(&self) -> Result<AttachedMode, XdpError> {
        Ok(if self.query()?.attach_mode == bpf::XDP_ATTACHED_SKB {
            AttachedMode::Generic
        } else {
            AttachedMode::Native
        })
    }
}

/// Loads one copy of the program. The first one makes and pins the maps, later ones find them.
pub(super) fn load(directory: &Path, slot: u32) -> Result<Ebpf, XdpError> {
    let failed = |error: &dyn std::error::Error| XdpError::Load { reason: chain(error) };
    let mut object = EbpfLoader::new()
        .default_map_pin_directory(directory)
        .override_global("slot", &slot, true)
        .load(OBJECT)
        .map_err(|error| failed(&error))?;
    program(&mut object)?.load().map_err(|error| failed(&error))?;
    Ok(object)
}

pub(super) fn program(object: &mut Ebpf) -> Result<&mut Xdp, XdpError> {
    let program = object
        .program_mut(PROGRAM)
        .ok_or_else(|| XdpError::Load { reason: format!("the object has no program {PROGRAM}") })?;
    program.try_into().map_err(|error| XdpError::Load { reason: chain(&error) })
}

/// Takes a map out of a loaded object.
pub(super) fn take_map<M>(object: &mut Ebpf, name: &'static str) -> Result<M, XdpError>
where
    M: TryFrom<Map, Error = MapError>,
{
    let map = object
        .take_map(name)
        .ok_or_else(|| XdpError::Load { reason: format!("the object has no map {name}") })?;
    M::try_from(map).map_err(|error| super::map_error(name, "open", &error))
}

fn link_path(directory: &Path, interface: &str) -> PathBuf {
    directory.join(format!("{interface}{LINK_SUFFIX}"))
}

/// The pins of links in an instance's directory.
fn link_pins(directory: &Path) -> Result<Vec<PathBuf>, XdpError> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(pin_error(directory, "list directory"))? {
        let path = entry.map_err(pin_error(directory, "list directory"))?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(LINK_SUFFIX)) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Detaches a pinned link and removes the pin. Returns whether it was attached to an interface.
fn detach_link(path: &Path) -> Result<bool, XdpError> {
    let link = bpf::object_get(path).map_err(pin_error(path, "open link"))?;
    let attached =
        bpf::link_if_index(link.as_fd()).map_err(pin_error(path, "read link"))?.is_some();
    if attached {
        bpf::link_detach(link.as_fd()).map_err(pin_error(path, "detach link"))?;
    }
    remove_pin(path)?;
    Ok(attached)
}

/// Removes a pin if it is there, and tells whether it was.
fn remove_pin(path: &Path) -> Result<bool, XdpError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(pin_error(path, "remove pin")(error)),
    }
}

fn instance_directory(instance: &str, bpffs: &Path) -> Result<PathBuf, XdpError> {
    check_pin_name(instance)?;
    if !host::is_bpffs(bpffs) {
        return Err(XdpError::NotBpffs { path: bpffs.into() });
    }
    Ok(bpffs.join("sluice").join(instance))
}

/// bpffs refuses names with a dot, and a slash would leave the directory.
fn check_pin_name(name: &str) -> Result<(), XdpError> {
    if name.is_empty() || name.contains(['.', '/']) || name.chars().any(char::is_whitespace) {
        return Err(XdpError::PinName { name: name.into() });
    }
    Ok(())
}

/// Locks an instance's directory for the life of the returned descriptor. The kernel releases the
/// lock of a process that dies.
fn lock(directory: &Path, instance: &str) -> Result<OwnedFd, XdpError> {
    let handle = fs::File::open(directory).map_err(pin_error(directory, "open directory"))?;
    // SAFETY: the descriptor is open; flock touches no memory.
    if unsafe { libc::flock(handle.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
        return Ok(handle.into());
    }
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::WouldBlock {
        return Err(XdpError::InstanceRunning { instance: instance.into() });
    }
    Err(pin_error(directory, "lock directory")(error))
}

fn pin_error(path: &Path, operation: &'static str) -> impl Fn(io::Error) -> XdpError {
    let path = path.to_path_buf();
    move |error| XdpError::Pin { path: path.clone(), operation, error }
}
