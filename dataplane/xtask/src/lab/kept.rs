//! A lab that stays: what to try with it, and how it ends.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::configuration::Which;
use super::plan::{SERVER, SHARED};
use super::stage::Stage;
use super::{GROUP, cleanup};

/// The file in a kept folder that lists its processes: leaders of process groups.
const PROCESSES: &str = "processes";

/// Leaves the stage as it is and prints what to try; to the standard error if the outcome for machines
/// is on the standard output.
///
/// # Errors
/// When what has to end later cannot be noted.
pub fn leave(mut stage: Stage, to_stderr: bool) -> Result<()> {
    let text = what_to_try(&stage);
    if to_stderr {
        eprint!("{text}")
    } else {
        print!("{text}")
    }
    let folder = stage.folder.path().to_owned();
    let pids: Vec<_> = stage.keep().iter().map(u32::to_string).collect();
    let file = folder.join(PROCESSES);
    std::fs::write(&file, pids.join("\n")).with_context(|| file.display().to_string())
}

fn what_to_try(stage: &Stage) -> String {
    let files = stage.a.files();
    let sluice = stage.a.command(&[]).get_program().to_string_lossy().into_owned();
    let folder = stage.folder.path().display();
    let (a, b) = (files.socket(Which::A), files.socket(Which::B));
    let (a, b) = (a.display(), b.display());
    let topology = &stage.topology;
    let enter = |name: &str| format!("nsenter --net=/run/netns/{name}");
    let (host_a, node_a, node_b, ix) = (
        enter(topology.host_a.name()),
        enter(topology.node_a.name()),
        enter(topology.node_b.name()),
        enter(topology.ix.name()),
    );
    let rules = files.rules(Which::A);
    let rules = rules.display();
    let config = files.config(Which::A);
    let config = config.display();
    let config_b = files.config(Which::B);
    let config_b = config_b.display();
    let server = SERVER.v4;
    let shared = SHARED.v4;
    format!(
        r#"
Everything runs on, in {folder}. Try:

  # what both routers do, with every packet accounted for
  {sluice} status --socket {a}
  {sluice} status --socket {b}

  # from the workload behind node a: fetch a megabyte; look around
  {host_a} {sluice} workload run --slice a4 --socket {a} -- curl -o /dev/null http://{server}/1/1000000
  {host_a} ping -c 3 -e 2000 -I {shared} {server}     # identifier in the slice; -e 40000 is refused
  {node_a} bash                                        # also: {node_b} bash

  # watch returns go through the tunnel, on the exchange
  {ix} tshark -n -i br0 udp port 6080

  # drop UDP echo by a rule (the file is noticed by itself), then lift it
  printf 'default = "allow"\n[[rules]]\naction = "drop"\nprotocol = "udp"\ndestination_ports = [7]\n' > {rules}
  {sluice} plugin list --socket {a}
  printf 'default = "allow"\n' > {rules}

  # change a slice and put it into force, or make a mistake and see it refused
  ${{EDITOR:-vi}} {config} && {sluice} reload --socket {a}

  # record what comes to node a, then run it through the same configuration without a network
  timeout 10 {ix} tshark -q -i node-a -f outbound -F pcap -w {folder}/wan0.pcap & {host_a} ping -c 5 -e 2000 -I {shared} {server}; wait
  {sluice} replay --config {config} --in wan0={folder}/wan0.pcap --out-dir {folder}/replay

  # crash node b, look what is left, start it again
  kill -9 $(pgrep -f 'run --config {config_b}')
  {node_b} ip -details link show dev wan0
  {node_b} {sluice} run --config {config_b}

End it: cargo xtask lab --clean
"#
    )
}

/// Ends the processes of kept labs and removes their files. Their namespaces go with the other
/// leftovers.
///
/// # Errors
/// When a folder cannot be removed.
pub fn end() -> Result<()> {
    for (_, folder) in cleanup::leftover_entries(&std::env::temp_dir(), &format!("slt-{GROUP}-")) {
        let list = std::fs::read_to_string(folder.join(PROCESSES)).unwrap_or_default();
        for pid in list.lines().filter_map(|line| line.parse().ok()) {
            if belongs_to(pid, &folder) {
                // It may end by itself at this moment.
                let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
                eprintln!("ended process {pid} of {}", folder.display());
            }
        }
        std::fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    for (_, pins) in cleanup::leftover_entries(Path::new(cleanup::PINS), &format!("{GROUP}-")) {
        std::fs::remove_dir_all(&pins).with_context(|| pins.display().to_string())?;
    }
    Ok(())
}

/// Whether a process writes to that folder: numbers come round again.
fn belongs_to(pid: i32, folder: &Path) -> bool {
    let output = PathBuf::from(format!("/proc/{pid}/fd/1"));
    std::fs::read_link(output).is_ok_and(|file| file.starts_with(folder))
}
