//! [`Namespace`]: a network namespace, and work within it.
//!
//! A thread enters the namespace with `setns`, does its work and ends; a child that it starts stays
//! inside. `ip netns exec` would mount another `/sys` over the one of this machine, in which
//! `/sys/fs/bpf` is empty: the router could pin nothing.
//!
//! So `/sys/class/net` shows the interfaces of the machine, also to processes inside: what is in a
//! namespace is asked by netlink, by `ip` and `ethtool`, or in `/proc/sys/net`.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command};
use std::thread;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};

use super::cleanup;
use crate::command;

/// A network namespace of this process. It is deleted when this is dropped, unless it is kept.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    role: String,
    handle: File,
}

impl Namespace {
    /// Makes the namespace `slt-GROUP-PID-ROLE`, with its loopback up. IPv6 addresses in it can be
    /// used at once, without duplicate address detection.
    ///
    /// # Errors
    /// When it exists already, or this process may not make one.
    pub fn create(group: &str, role: &str) -> Result<Self> {
        let name = cleanup::name(group, role);
        let mut made = cleanup::made();
        command::output(Command::new("ip").args(["netns", "add", &name]))?;
        made.namespaces.insert(name.clone());
        drop(made);
        let path = Path::new(cleanup::NAMESPACES).join(&name);
        let handle = File::open(&path).with_context(|| path.display().to_string());
        let handle = handle.inspect_err(|_| remove(&name))?;
        let namespace = Self { name, role: role.to_owned(), handle };
        namespace.ip(&["link", "set", "lo", "up"])?;
        for scope in ["all", "default"] {
            namespace.sysctl(&format!("net/ipv6/conf/{scope}/accept_dad"), "0")?;
        }
        Ok(namespace)
    }

    /// Its name under `/run/netns`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is in the network, the last part of its name.
    #[must_use]
    pub fn role(&self) -> &str {
        &self.role
    }

    /// Leaves the namespace when this is dropped, until [`cleanup::delete_leftovers`].
    pub fn keep(&mut self) {
        cleanup::made().namespaces.remove(&self.name);
    }

    /// Does `work` on a thread inside the namespace. Sockets that it opens and processes that it
    /// starts stay inside.
    ///
    /// # Errors
    /// When this process may not enter the namespace (CAP_SYS_ADMIN).
    pub fn within<R: Send>(&self, work: impl FnOnce() -> R + Send) -> Result<R> {
        let inside = || {
            setns(&self.handle, CloneFlags::CLONE_NEWNET)
                .with_context(|| format!("cannot enter namespace {}", self.name))?;
            Ok(work())
        };
        thread::scope(|scope| match scope.spawn(inside).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Starts a process inside.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        let line = command::line(command);
        self.within(|| command.spawn())?
            .with_context(|| format!("`{line}` cannot be started in {}", self.name))
    }

    /// Runs a program inside and returns its standard output.
    ///
    /// # Errors
    /// When it cannot be started or fails: with what it wrote.
    pub fn output(&self, command: &mut Command) -> Result<String> {
        self.within(|| command::output(command))?.with_context(|| format!("in {}", self.name))
    }

    /// Runs `ip` for this namespace and returns its standard output.
    ///
    /// # Errors
    /// When it fails: with what it wrote.
    pub fn ip(&self, arguments: &[&str]) -> Result<String> {
        command::output(Command::new("ip").args(["-n", &self.name]).args(arguments))
    }

    /// Sets a variable below `/proc/sys`, such as `net/ipv4/ip_forward`.
    ///
    /// # Errors
    /// When there is no such variable or it refuses the value.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys").join(key);
        self.within(|| std::fs::write(&path, value))?
            .with_context(|| format!("{} = {value} in {}", path.display(), self.name))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Deletes a namespace that was made and is not kept.
fn remove(name: &str) {
    let mut made = cleanup::made();
    if made.namespaces.remove(name)
        && let Err(error) = cleanup::delete_namespace(name)
    {
        eprintln!("{error:#}");
    }
}
