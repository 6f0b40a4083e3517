//! The way into the kernel of this machine: a TUN device that punted packets are written to.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use forward::PuntReceiver;
use tracing::warn;
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use crate::run::privileges;

/// How long the thread sleeps when nothing wakes it: only the end of the router goes unannounced.
const SLEEP: Duration = Duration::from_millis(100);

/// Packets that the kernel refused, by the device.
#[derive(Debug, Default)]
pub(crate) struct PuntCounters {
    /// Packets written.
    pub(crate) written: AtomicU64,
    /// Packets that the kernel refused.
    pub(crate) refused: AtomicU64,
}

/// Makes the device, up and without addresses.
pub(crate) fn open(name: &str, mtu: u16) -> Result<SyncDevice> {
    let device = DeviceBuilder::new()
        .name(name)
        .layer(Layer::L3)
        .mtu(mtu)
        .packet_information(false)
        .build_sync()
        .with_context(|| format!("punt device {name}: cannot be made"))?;
    check_reverse_path_filter(name)?;
    Ok(device)
}

/// A packet for an egress address comes in by the TUN device although the way back leads out of
/// another interface: reverse-path filtering would swallow it without a word. The kernel takes the
/// larger of the two settings.
fn check_reverse_path_filter(name: &str) -> Result<()> {
    let path = |which: &str| PathBuf::from(format!("/proc/sys/net/ipv4/conf/{which}/rp_filter"));
    // The device is ours: its own setting is, too.
    let _ = fs::write(path(name), "0");
    for which in ["all", name] {
        let value = fs::read_to_string(path(which)).unwrap_or_default();
        if !matches!(value.trim(), "0" | "") {
            bail!(
                "punt device {name}: reverse-path filtering would drop packets for local slices; \
                 mend it with: sysctl -w net.ipv4.conf.{which}.rp_filter=0"
            );
        }
    }
    Ok(())
}

/// The thread that writes.
#[derive(Debug)]
pub(crate) struct PuntThread {
    handle: JoinHandle<()>,
    counters: Arc<PuntCounters>,
}

impl PuntThread {
    /// Starts the thread. `receivers` come later, since their other ends need the thread to wake it.
    pub(crate) fn spawn(
        device: SyncDevice,
        receivers: std::sync::mpsc::Receiver<Vec<PuntReceiver>>,
        stop: Arc<AtomicBool>,
    ) -> Result<Self> {
        let counters = Arc::new(PuntCounters::default());
        let counted = Arc::clone(&counters);
        let handle = std::thread::Builder::new()
            .name("punt".to_owned())
            .spawn(move || {
                if let Ok(receivers) = receivers.recv() {
                    run(&device, &receivers, &stop, &counted);
                }
            })
            .context("the punt thread cannot be started")?;
        Ok(Self { handle, counters })
    }

    /// The thread, to be woken.
    pub(crate) fn thread(&self) -> Thread {
        self.handle.thread().clone()
    }

    pub(crate) fn counters(&self) -> &PuntCounters {
        &self.counters
    }

    pub(crate) fn join(self) {
        self.handle.thread().unpark();
        // A panic was reported by the thread itself.
        let _ = self.handle.join();
    }
}

fn run(
    device: &SyncDevice,
    receivers: &[PuntReceiver],
    stop: &AtomicBool,
    counters: &PuntCounters,
) {
    if let Err(error) = privileges::drop_all() {
        warn!(%error, "the punt thread keeps privileges that it does not need");
    }
    loop {
        let mut moved = false;
        for receiver in receivers {
            while let Some(frame) = receiver.receive() {
                let counter = match device.send(frame.bytes()) {
                    Ok(_) => &counters.written,
                    Err(_) => &counters.refused,
                };
                counter.fetch_add(1, Ordering::Relaxed);
                receiver.give_back(frame);
                moved = true;
            }
        }
        if !moved {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            std::thread::park_timeout(SLEEP);
        }
    }
}
