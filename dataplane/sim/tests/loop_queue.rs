//! The benchmark's queue: packets come in the order of the templates, on few chunks, without loss.

use frame::{Batch, CHUNK_BYTES, HEADROOM_BYTES, QueueIo};
use sim::{HEADER_BYTES_MAX, HeaderTemplate, LoopQueue, Rewrite, memory_pool, reclaim_pool};
use wire::InterfaceId;

/// Packets of many lengths, whose bytes name them.
fn packets() -> Vec<Vec<u8>> {
    [14, 60, 64, 65, 128, 129, 1514, CHUNK_BYTES - HEADROOM_BYTES]
        .into_iter()
        .enumerate()
        .map(|(number, len)| vec![u8::try_from(number).unwrap() + 1; len])
        .collect()
}

fn queue(interface: u8, ring_frames: usize, rewrite: Rewrite) -> LoopQueue {
    let templates = packets().iter().map(|packet| HeaderTemplate::new(packet).unwrap()).collect();
    LoopQueue::new(InterfaceId(interface), ring_frames, templates, rewrite)
}

#[test]
fn packets_come_in_order_from_one_queue_and_leave_by_another() {
    for rewrite in [Rewrite::OnReceive, Rewrite::OnPrepare] {
        let packets = packets();
        let mut pool = memory_pool(24, 0);
        let mut from = queue(0, 16, rewrite);
        let mut to = LoopQueue::new(InterfaceId(1), 16, Vec::new(), rewrite);
        let mut batch = Batch::new();
        let mut expected = packets.iter().cycle();
        let mut forwarded = 0;
        for _ in 0..100 {
            from.reclaim(&mut pool);
            to.reclaim(&mut pool);
            from.refill(&mut pool);
            from.prepare();
            assert_eq!(from.receive(&mut batch, &mut pool, 7), 7);
            for mut frame in batch.frames.drain(..) {
                let packet = expected.next().unwrap();
                let header = packet.len().min(HEADER_BYTES_MAX);
                assert_eq!(frame.len(), packet.len());
                assert_eq!(frame.start(), HEADROOM_BYTES);
                assert_eq!(frame.ingress(), InterfaceId(0));
                assert_eq!(frame.bytes()[..header], packet[..header]);
                // What the router writes must not show in a later packet.
                frame.bytes_mut()[..header].fill(0xff);
                to.transmit(frame).expect("room on TX");
                forwarded += 1;
            }
            to.flush();
            to.inspect_tx(|bytes| assert_eq!(bytes[0], 0xff));
            let on_queues = [&from, &to]
                .map(|queue| queue.status().receiving + queue.status().transmitting)
                .iter()
                .sum::<usize>();
            assert_eq!(pool.free() + on_queues, 24);
        }
        assert_eq!(forwarded, 700);
        assert_eq!(to.status().kicks, 100);
        reclaim_pool(pool);
    }
}

#[test]
fn prepared_mode_gives_only_prepared_frames() {
    let mut pool = memory_pool(16, 0);
    let mut queue = queue(0, 16, Rewrite::OnPrepare);
    let mut batch = Batch::new();
    assert_eq!(queue.refill(&mut pool), 16);
    assert_eq!(queue.receive(&mut batch, &mut pool, 16), 0);
    assert_eq!(queue.prepare(), 16);
    assert_eq!(queue.prepare(), 0);
    assert_eq!(queue.receive(&mut batch, &mut pool, 4), 4);
    for frame in batch.frames.drain(..) {
        queue.transmit(frame).expect("room on TX");
    }
    queue.reclaim(&mut pool);
    queue.refill(&mut pool);
    assert_eq!(queue.receive(&mut batch, &mut pool, 16), 12, "the refilled four wait for prepare");
    assert_eq!(queue.prepare(), 4);
    sim::reclaim_frames(batch.frames.drain(..));
}

#[test]
fn a_full_ring_gives_the_frame_back() {
    let mut pool = memory_pool(5, 0);
    let mut queue = queue(0, 4, Rewrite::OnReceive);
    for _ in 0..4 {
        queue.transmit(pool.take().unwrap()).expect("room on TX");
    }
    let frame = pool.take().unwrap();
    let address = frame.chunk_address();
    let frame = queue.transmit(frame).expect_err("four frames fit");
    assert_eq!(frame.chunk_address(), address);
    pool.give(frame);
    assert_eq!(queue.reclaim(&mut pool), 4);
    assert_eq!(pool.free(), 5);
    reclaim_pool(pool);
}

#[test]
fn a_packet_that_no_chunk_holds_is_refused() {
    assert!(HeaderTemplate::new(&vec![0; CHUNK_BYTES - HEADROOM_BYTES + 1]).is_none());
}
