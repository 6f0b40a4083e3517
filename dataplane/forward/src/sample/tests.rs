use std::sync::atomic::AtomicBool;
use std::thread;

use frame::CHUNK_BYTES;

use super::*;

const SECOND: u64 = 1_000_000_000;

/// A frame of this length whose bytes are all `fill`.
fn frame(length: usize, fill: u8) -> Frame {
    let mut frame = Frame::new(Box::leak(Box::new([0; CHUNK_BYTES])), 0);
    frame.set_ingress(InterfaceId(3));
    frame.reset(length).expect("it fits").fill(fill);
    frame
}

fn sampler() -> (Arc<SampleRing>, Sampler) {
    let ring = Arc::new(SampleRing::default());
    (Arc::clone(&ring), Sampler::new(ring))
}

#[test]
fn a_quiet_router_remembers_every_packet_and_its_first_bytes() {
    let (ring, mut sampler) = sampler();
    assert!(ring.read().is_empty());
    let lengths = [14, 60, 61, 67, 223, 224, 225, 1514, 3498];
    for (number, length) in (1_u8..).zip(lengths) {
        sampler.received(&[frame(length, number)], Nanos(u64::from(number) * SECOND));
    }
    // A burst is no reason to forget.
    let burst: Vec<Frame> = (0..64).map(|fill| frame(60, 100 + fill)).collect();
    for _ in 0..4 {
        sampler.received(&burst, Nanos(10 * SECOND));
    }
    let samples = ring.read();
    assert_eq!(samples.len(), lengths.len() + 4 * 64);
    for (number, (length, sample)) in (1_u8..).zip(lengths.into_iter().zip(&samples)) {
        assert_eq!((sample.length, sample.weight), (length, 1));
        assert_eq!(
            (sample.ingress, sample.time),
            (InterfaceId(3), Nanos(u64::from(number) * SECOND))
        );
        assert_eq!(sample.head, vec![number; length.min(SAMPLE_HEAD_BYTES)]);
        assert_eq!(sample.is_whole(), length <= SAMPLE_HEAD_BYTES);
        assert_eq!(sample.frame().len(), length);
    }
    let fills: Vec<u8> = samples[lengths.len()..].iter().map(|sample| sample.head[0]).collect();
    let expected: Vec<u8> = (0..4 * 64).map(|at| 100 + (at % 64) as u8).collect();
    assert_eq!(fills, expected, "in their order");
}

#[test]
#[cfg_attr(miri, ignore = "thousands of samples")]
fn the_ring_keeps_the_last() {
    let (ring, mut sampler) = sampler();
    let count = SAMPLE_RECORDS + 10;
    let frames = [frame(60, 1)];
    for number in 0..count as u64 {
        sampler.received(&frames, Nanos(number * SECOND));
    }
    let samples = ring.read();
    assert_eq!(samples.len(), SAMPLE_RECORDS);
    assert_eq!(samples[0].time, Nanos(10 * SECOND));
    assert_eq!(samples[SAMPLE_RECORDS - 1].time, Nanos((count as u64 - 1) * SECOND));
}

/// Sends packets at a rate in batches, and returns the sampler with the number of packets.
fn send(sampler: &mut Sampler, frames: &[Frame], per_s: u64, from: u64, seconds: u64) -> u64 {
    let batches = per_s * seconds / frames.len() as u64;
    for batch in 0..batches {
        sampler.received(frames, Nanos(from + batch * seconds * SECOND / batches));
    }
    batches * frames.len() as u64
}

/// The weights add up to the packets, and the cost is the same at every rate that is large.
#[test]
#[cfg_attr(miri, ignore = "millions of packets")]
fn weights_add_up_and_the_rate_of_copies_is_bounded() {
    for per_s in [10_000, 100_000, 1_000_000, 10_000_000] {
        for size in [1, 7, 64, 256] {
            let (ring, mut sampler) = sampler();
            let frames: Vec<Frame> = (0..size).map(|_| frame(60, 1)).collect();
            let sent = send(&mut sampler, &frames, per_s, SECOND, 4);
            // What the full bucket gave at first, and the steady state.
            let written = sampler.written;
            assert!(written < 4 * 256 + TOKENS_MAX + 64, "{per_s} in {size}: {written} copies");
            assert!(written > 4 * 200, "{per_s} in {size}: {written} copies");
            assert!(written <= SAMPLE_RECORDS as u64, "all are in the ring");
            let weights: u64 = ring.read().iter().map(|sample| sample.weight).sum();
            let error = weights.abs_diff(sent);
            assert!(error <= 2 << GROUP_SHIFT_MAX && error * 50 <= sent, "{weights} of {sent}");
            for frame in frames {
                drop(frame);
            }
        }
    }
}

/// A flow that sends in the rhythm of the batches is seen as often as it sends.
#[test]
#[cfg_attr(miri, ignore = "millions of packets")]
fn no_place_in_a_batch_is_preferred() {
    for place in [0, 31, 63] {
        let (ring, mut sampler) = sampler();
        let frames: Vec<Frame> = (0..64).map(|at| frame(60, u8::from(at == place))).collect();
        send(&mut sampler, &frames, 2_000_000, SECOND, 30);
        let samples = ring.read();
        let all: u64 = samples.iter().map(|sample| sample.weight).sum();
        let flow: u64 =
            samples.iter().filter(|sample| sample.head[0] == 1).map(|sample| sample.weight).sum();
        let share = flow as f64 / all as f64;
        // 4096 samples of which 1 of 64 is the flow's: 0.0156 with a standard deviation of 0.0019.
        assert!((share - 1.0 / 64.0).abs() < 0.008, "place {place}: {share}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "millions of packets")]
fn when_traffic_goes_down_every_packet_is_remembered_again() {
    let (ring, mut sampler) = sampler();
    let frames: Vec<Frame> = (0..64).map(|_| frame(60, 1)).collect();
    send(&mut sampler, &frames, 10_000_000, SECOND, 2);
    assert!(sampler.group > 1000);
    let lone = [frame(60, 2)];
    for number in 0..20 {
        sampler.received(&lone, Nanos((10 + number) * SECOND));
    }
    let samples = ring.read();
    let after: Vec<&Sample> = samples.iter().filter(|sample| sample.head[0] == 2).collect();
    assert_eq!(after.len(), 20);
    assert!(after.iter().skip(1).all(|sample| sample.weight == 1), "{after:?}");
}

/// A reader never sees half of a sample.
#[test]
fn readers_see_whole_samples() {
    let rounds = if cfg!(miri) { 30 } else { 200_000 };
    let (ring, mut sampler) = sampler();
    // Few slots, so that the writer is always at those that are read.
    let frames: Vec<[Frame; 1]> =
        (0..=255).map(|fill| [frame(60 + usize::from(fill), fill)]).collect();
    let done = AtomicBool::new(false);
    let seen = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = 0;
            loop {
                let is_last = done.load(Ordering::Acquire);
                let slots = ring.slots.iter().take(4);
                for (_, sample) in slots.filter_map(Slot::read) {
                    let fill = sample.head[0];
                    assert!(sample.head.iter().all(|byte| *byte == fill), "torn: {sample:?}");
                    assert_eq!(sample.length, 60 + usize::from(fill));
                    assert_eq!(sample.time.0 % 256, u64::from(fill));
                    seen += 1;
                }
                if is_last {
                    return seen;
                }
            }
        });
        for number in 0..rounds {
            let [frame] = &frames[usize::try_from(number % 256).expect("small")];
            let slot = &ring.slots[usize::try_from(number % 4).expect("small")];
            slot.write(number, frame, 1, Nanos(number));
            sampler.written += 1;
        }
        done.store(true, Ordering::Release);
        reader.join().expect("no panic")
    });
    assert!(seen > 0);
}
