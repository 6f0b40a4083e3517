//! Any text as a configuration: errors, or a checked configuration from which tables are built that a
//! worker runs on.
//!
//! ```text
//!  text, or the running one's text | 0 byte | the new one's text
//! ```
//!
//! Nothing that the text names is opened: it is read as `sluice check --no-plugins` reads it.

use std::net::IpAddr;
use std::sync::Arc;

use config::{Checked, diff};
use control::publication::Publication;
use crossbeam::channel::bounded;
use forward::{Worker, WorkerCounters, WorkerParts, punt_channel};
use frame::{Nanos, NoHook};
use network::host_view;
use sim::{MemoryQueue, memory_pool, reclaim_pool};
use wire::InterfaceId;

use crate::common::packets;

const FRAMES: usize = 256;

/// The target.
pub fn run(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (first, second) = text.split_once('\0').unwrap_or((&text, ""));
    let Some(running) = checked(first) else { return };
    let running = Arc::new(running);
    let host = host_view(&running);
    assert_eq!(diff(&running, &running), Ok(Vec::new()));
    let Ok(mut publication) = Publication::new(Arc::clone(&running), &host, 1) else { return };
    carry(&publication, &running);
    let Some(new) = checked(second) else { return };
    match diff(&running, &new) {
        Ok(actions) => assert!(*running != new || actions.is_empty()),
        Err(errors) => return assert!(!errors.is_empty()),
    }
    let new = Arc::new(new);
    let host = host_view(&new);
    if let Ok(prepared) = publication.prepare(Arc::clone(&new), &host) {
        publication.config_changed(prepared, &host);
        carry(&publication, &new);
    }
}

fn checked(text: &str) -> Option<Checked> {
    match Checked::parse(text, "f") {
        Ok(checked) => {
            // What is accepted is accepted by the table of slices.
            tables::SliceTable::build(checked.slice_blocks()).expect("slices of a checked file");
            Some(checked)
        }
        Err(errors) => {
            assert!(!errors.is_empty());
            assert_eq!(errors.to_string().lines().count(), errors.len(), "{errors}");
            None
        }
    }
}

/// A worker on these tables takes a packet to each address that the configuration names, on each
/// interface.
fn carry(publication: &Publication, config: &Checked) {
    let (punt, receiver) = punt_channel(16, || {});
    let (wanted, _asked) = bounded(16);
    let interfaces = u8::try_from(config.interfaces.len()).expect("few interfaces");
    let mut worker = Worker::new(WorkerParts {
        id: 0,
        queues: (0..interfaces).map(|id| MemoryQueue::new(InterfaceId(id))).collect(),
        pool: memory_pool(FRAMES, 0),
        hook: NoHook,
        reader: publication.reader(),
        counters: Arc::new(WorkerCounters::new(config.interfaces.len())),
        punt: Some(punt),
        handoff: None,
        wanted,
        batch_frames: 64,
    });
    worker.turn(Nanos(0));
    let prefixes = config.egress.iter().map(|egress| egress.prefix.addr());
    let routes = config.routes.iter().map(|route| route.prefix.addr());
    let own = config.interfaces.iter().flat_map(|interface| interface.replay.addresses.iter());
    let to: Vec<IpAddr> =
        prefixes.chain(routes).chain(own.map(|net| net.addr())).take(16).collect();
    let macs: Vec<_> = config.interfaces.iter().map(|interface| interface.replay.mac.0).collect();
    for (ms, to) in (0_u64..).zip(to) {
        let from: IpAddr = match to {
            IpAddr::V4(_) => [198, 51, 100, 7].into(),
            IpAddr::V6(_) => crate::common::address("2001:db8:7::7"),
        };
        let datagram = packets::udp(53, 2000, b"to whom it belongs");
        let there = packets::ip(from, to, 64, packets::UDP, &datagram).expect("one family");
        let back = packets::ip(to, from, 64, packets::UDP, &datagram).expect("one family");
        for (queue, mac) in worker.queues_mut().iter_mut().zip(&macs) {
            for packet in [&there, &back] {
                let mut frame = packets::frame(0, packet);
                frame[..6].copy_from_slice(mac);
                queue.push_rx(&frame);
            }
        }
        worker.turn(Nanos(ms * 1_000_000));
        while let Some(frame) = receiver.receive() {
            receiver.give_back(frame);
        }
        for queue in worker.queues_mut() {
            queue.drain_tx(|_| {});
        }
        assert_eq!(worker.frames_missing(), 0, "chunks are missing");
        for interface in &worker.counters().interfaces {
            assert_eq!(interface.imbalance(), 0, "the accounting is off");
        }
    }
    worker.turn(Nanos(1 << 40));
    let (queues, pool) = worker.into_parts();
    drop(queues);
    reclaim_pool(pool);
}
