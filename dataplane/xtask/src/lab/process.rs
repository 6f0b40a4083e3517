//! [`Process`]: a program of the lab, with a log file and an end.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::cleanup;
use super::namespace::Namespace;
use crate::command;

/// How long to wait between two looks at a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// How many lines of the log an error shows.
const LOG_LINES: usize = 20;

/// A program that runs in the background, alone in its process group. What it writes goes to a log
/// file. It is killed, with what it started, when this is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
    is_kept: bool,
}

impl Process {
    /// Starts `command`, inside `namespace` if there is one, with its output in
    /// `log_folder/NAME.log`.
    ///
    /// # Errors
    /// When the log cannot be written or the program cannot be started.
    pub fn start(
        name: &str,
        namespace: Option<&Namespace>,
        mut command: Command,
        log_folder: &Path,
    ) -> Result<Self> {
        std::fs::create_dir_all(log_folder).with_context(|| log_folder.display().to_string())?;
        let log = log_folder.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| log.display().to_string())?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone().with_context(|| log.display().to_string())?)
            .stderr(file)
            .process_group(0);
        let mut made = cleanup::made();
        let child = match namespace {
            Some(namespace) => namespace.spawn(&mut command)?,
            None => command
                .spawn()
                .with_context(|| format!("`{}` cannot be started", command::line(&command)))?,
        };
        made.process_groups.insert(group(&child).as_raw());
        drop(made);
        Ok(Self { name: name.to_owned(), child, log, ended: None, is_kept: false })
    }

    /// Its name in the lab.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its output goes.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Its whole output so far.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn output(&self) -> Result<String> {
        let bytes = std::fs::read(&self.log).with_context(|| self.log.display().to_string())?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// How it ended, or `None` while it runs.
    ///
    /// # Errors
    /// When the system does not know it.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            let mut made = cleanup::made();
            self.ended = self.child.try_wait().with_context(|| format!("{} is lost", self.name))?;
            if self.ended.is_some() {
                made.process_groups.remove(&group(&self.child).as_raw());
            }
        }
        Ok(self.ended)
    }

    /// Waits until `condition` holds; `what` completes the sentence "it did not ... in time".
    ///
    /// # Errors
    /// When the process ends before, when the time is over, or when the condition cannot be told:
    /// with the end of the log.
    pub fn wait_until(
        &mut self,
        what: &str,
        timeout: Duration,
        mut condition: impl FnMut(&Self) -> Result<bool>,
    ) -> Result<()> {
        let deadline = Instant::now() + timeout;
        loop {
            if condition(self)? {
                return Ok(());
            }
            if let Some(status) = self.ended()? {
                bail!("{} ended ({status}) before it did {what}{}", self.name, self.log_tail());
            }
            if Instant::now() >= deadline {
                let millis = timeout.as_millis();
                bail!("{} did not {what} within {millis} ms{}", self.name, self.log_tail());
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                let millis = timeout.as_millis();
                bail!("{} did not end within {millis} ms{}", self.name, self.log_tail());
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Sends it a signal, if it still runs.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.ended()?.is_none() {
            killpg(group(&self.child), signal)
                .with_context(|| format!("{signal} to {}", self.name))?;
        }
        Ok(())
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    ///
    /// # Errors
    /// When it does not end in time: it is killed then.
    pub fn terminate(&mut self, timeout: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        match self.wait(timeout) {
            Ok(status) => Ok(status),
            Err(error) => {
                self.kill()?;
                Err(error.context(format!("{} did not heed SIGTERM", self.name)))
            }
        }
    }

    /// Kills it without a chance to tidy up (SIGKILL), and waits until it is gone.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGKILL)?;
        self.wait(Duration::from_secs(10))
    }

    /// Leaves the process running when this is dropped. Returns its process number.
    pub fn keep(&mut self) -> u32 {
        cleanup::made().process_groups.remove(&group(&self.child).as_raw());
        self.is_kept = true;
        self.pid()
    }

    fn log_tail(&self) -> String {
        let text = self.output().unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let from = lines.len().saturating_sub(LOG_LINES);
        format!("; the end of {}:\n  {}", self.log.display(), lines[from..].join("\n  "))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.is_kept
            && let Err(error) = self.kill()
        {
            eprintln!("{error:#}");
        }
    }
}

/// The process group of a child that was started as the leader of one.
fn group(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

#[cfg(test)]
mod tests {
    use super::super::cleanup::Folder;
    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    /// A shell, and the folder of its log.
    fn shell(name: &str, script: &str) -> (Process, Folder) {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let folder = Folder::create("xtask", name).expect("a folder");
        let process = Process::start(name, None, command, folder.path());
        (process.expect("a shell starts"), folder)
    }

    fn is_alive(pid: &str) -> bool {
        // A zombie that nobody waits for is not alive.
        std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| !stat.contains(") Z "))
    }

    #[test]
    fn readiness_is_polled_and_a_kill_takes_the_children_too() {
        let (mut process, _folder) =
            shell("ready", "sleep 1000 & echo $!; sleep 0.1; echo ready; wait");
        process
            .wait_until("say ready", LONG, |process| Ok(process.output()?.contains("ready")))
            .expect("it gets ready");
        let grandchild = process.output().expect("a log").lines().next().expect("a pid").to_owned();
        assert!(is_alive(&grandchild));
        assert!(!process.kill().expect("it can be killed").success());
        let deadline = Instant::now() + LONG;
        while is_alive(&grandchild) {
            assert!(Instant::now() < deadline, "the shell's child {grandchild} outlived it");
            thread::sleep(POLL_INTERVAL);
        }
    }

    #[test]
    fn an_early_end_is_an_error_with_the_log() {
        let (mut process, _folder) = shell("early", "echo no configuration; exit 3");
        let error = process
            .wait_until("answer", LONG, |_| Ok(false))
            .expect_err("it never answers")
            .to_string();
        assert!(error.contains("before it did answer"), "{error}");
        assert!(error.contains("no configuration"), "{error}");
        assert_eq!(process.wait(LONG).expect("it ended").code(), Some(3));
    }

    #[test]
    fn who_does_not_heed_a_request_is_killed() {
        let (mut polite, _folder1) =
            shell("polite", "trap 'exit 7' TERM; echo up; while :; do sleep 0.01; done");
        let (mut deaf, _folder2) =
            shell("deaf", "trap '' TERM; echo up; while :; do sleep 0.01; done");
        for process in [&mut polite, &mut deaf] {
            process
                .wait_until("say up", LONG, |p| Ok(p.output()?.contains("up")))
                .expect("it is up");
        }
        assert_eq!(polite.terminate(LONG).expect("it ends").code(), Some(7));
        let error = deaf.terminate(Duration::from_millis(100)).expect_err("it does not heed");
        assert_eq!(error.to_string(), "deaf did not heed SIGTERM");
        assert!(deaf.ended().expect("known").is_some());
    }
}
