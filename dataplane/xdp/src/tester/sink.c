// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR MIT
//
// The sink: counts tagged packets, times them, tells duplicates and reordered ones, and drops them
// all. Everything else goes to the kernel.
//
// Several CPUs may run it. What only adds up is kept for each CPU and summed by the reader; what has
// to be known of the other CPUs (which packets were seen, which sequence is the highest) is changed by
// compare-and-swap.

#include "bpf.h"

enum { TCP = 6, UDP = 17 };

// Histogram of latencies: below 2^SUB_BITS one bucket for each nanosecond, above that 2^SUB_BITS
// buckets for each power of two, up to 2^LATENCY_BITS. tester/histogram.rs repeats the numbers.
enum { SUB_BITS = 6, LATENCY_BITS = 40 };
enum { BUCKETS = (LATENCY_BITS - SUB_BITS + 1) << SUB_BITS };

// Attempts at a compare-and-swap. Each failure means that another CPU succeeded.
enum { ATTEMPTS_MAX = 64 };

// A payload with a wrong check passes for a damaged tag if its timestamp lies within the last 2^37 ns
// (137 s); by chance one in 2^27 does.
enum { AGE_BITS = 37 };

// What one CPU counted of one stream. tester/sink.rs repeats the order of the words.
struct cell {
	u64 packets;
	u64 bytes;
	u64 reordered;
	u64 duplicates;
	u64 unjudged;
	u64 first_ns;
	u64 last_ns;
	u64 latency_sum_ns;
	u64 latency_min_inverted; // all bits inverted, so that 0 says that there is none
	u64 latency_max_ns;
	u64 reserved[6];
	u64 histogram[BUCKETS];
};

// What one CPU counted of packets without a good tag; a cache line.
struct stray {
	u64 refused;
	u64 foreign;
	u64 reserved[6];
};

// What a run knows of a stream as a whole; a cache line.
struct next {
	u64 sequence; // that follows the highest one
	u64 start_ns; // of the run: what was sent before is a straggler of another one
	u64 reserved[6];
};

// Number of entries of each: set when the maps are made.
struct {
	uint(type, MAP_ARRAY);
	type(key, u32);
	type(value, struct cell);
	uint(max_entries, 1); // CPU * streams + stream
	uint(map_flags, MMAPABLE);
} cells SECTION(".maps");

struct {
	uint(type, MAP_ARRAY);
	type(key, u32);
	type(value, struct stray);
	uint(max_entries, 1); // CPU
	uint(map_flags, MMAPABLE);
} strays SECTION(".maps");

struct {
	uint(type, MAP_ARRAY);
	type(key, u32);
	type(value, struct next);
	uint(max_entries, 1); // stream
	uint(map_flags, MMAPABLE);
} nexts SECTION(".maps");

// Which sequences were seen: an entry stands for 32 of them that follow each other, and is used again
// for those a window later. High half: how many windows came before; low half: one bit for each.
struct {
	uint(type, MAP_ARRAY);
	type(key, u32);
	type(value, u64);
	uint(max_entries, 1); // stream * (window / 32) + sequence % window / 32
	uint(map_flags, MMAPABLE);
} seen SECTION(".maps");

// Set when the program is loaded.
const volatile u64 key0 = 0;
const volatile u64 key1 = 0;
const volatile u32 streams = 1;
const volatile u32 window_bits = 24; // the window is 2^window_bits packets
const volatile u32 port_low = 1; // destination ports of the run; none if the low one is higher
const volatile u32 port_high = 0;

enum seen_as { NEW, DUPLICATE, UNJUDGED };

// Marks a sequence as seen and tells whether it was.
INLINE enum seen_as mark(u32 stream, u64 sequence)
{
	u32 slot = (sequence & ((1ULL << window_bits) - 1)) >> 5;
	u32 key = (stream << (window_bits - 5)) + slot;
	u64 window = sequence >> window_bits;
	u64 bit = 1ULL << (sequence & 31);
	u64 *entry = map_lookup(&seen, &key);

	if (!entry)
		return UNJUDGED;
	for (int i = 0; i < ATTEMPTS_MAX; i++) {
		u64 old = *(volatile u64 *)entry;
		u64 old_window = old >> 32;
		u64 new;

		if (old_window > window)
			return UNJUDGED; // more than a window late
		if (old_window == window) {
			if (old & bit)
				return DUPLICATE;
			new = old | bit;
		} else {
			new = window << 32 | bit;
		}
		if (likely(__sync_val_compare_and_swap(entry, old, new) == old))
			return NEW;
	}
	return UNJUDGED;
}

// Whether a higher sequence of the stream came before (RFC 4737 section 3.3).
INLINE int is_reordered(u32 stream, u64 sequence)
{
	u32 key = stream;
	struct next *next = map_lookup(&nexts, &key);

	if (!next)
		return 0;
	for (int i = 0; i < ATTEMPTS_MAX; i++) {
		u64 old = *(volatile u64 *)&next->sequence;

		if (sequence < old)
			return 1;
		if (likely(__sync_val_compare_and_swap(&next->sequence, old, sequence + 1) == old))
			return 0;
	}
	return 0;
}

INLINE u32 bucket(u64 latency_ns)
{
	u32 shift = 0;

	if (latency_ns >> LATENCY_BITS)
		return BUCKETS - 1;

	// Base-2 logarithm by bisection: BPF has no instruction for it.
	u64 high = latency_ns >> SUB_BITS;

	if (high >> 32)
		high >>= 32, shift += 32;
	if (high >> 16)
		high >>= 16, shift += 16;
	if (high >> 8)
		high >>= 8, shift += 8;
	if (high >> 4)
		high >>= 4, shift += 4;
	if (high >> 2)
		high >>= 2, shift += 2;
	if (high >> 1)
		shift += 1;
	return (shift << SUB_BITS) + (u32)(latency_ns >> shift);
}

INLINE void account(struct cell *cell, u32 stream, u64 sequence, u64 sent_ns, u64 now, u64 bytes)
{
	cell->packets++;
	cell->bytes += bytes;
	if (!cell->first_ns)
		cell->first_ns = now;
	cell->last_ns = now;

	switch (mark(stream, sequence)) {
	case DUPLICATE:
		cell->duplicates++;
		return;
	case UNJUDGED:
		cell->unjudged++;
		return;
	case NEW:
		break;
	}
	if (is_reordered(stream, sequence))
		cell->reordered++;

	u64 latency = now > sent_ns ? now - sent_ns : 0;
	u32 index = bucket(latency);

	if (index < BUCKETS)
		cell->histogram[index]++;
	cell->latency_sum_ns += latency;
	if (~latency > cell->latency_min_inverted)
		cell->latency_min_inverted = ~latency;
	if (latency > cell->latency_max_ns)
		cell->latency_max_ns = latency;
}

INLINE struct stray *stray(void)
{
	u32 cpu = get_cpu();

	return map_lookup(&strays, &cpu);
}

INLINE int foreign(void)
{
	struct stray *count = stray();

	if (count)
		count->foreign++;
	return XDP_PASS;
}

INLINE int refuse(void)
{
	struct stray *count = stray();

	if (count)
		count->refused++;
	return XDP_DROP;
}

INLINE u64 be48(const u16 *words)
{
	return (u64)be16(words[0]) << 32 | (u64)be16(words[1]) << 16 | be16(words[2]);
}

// What follows the IP header: ports, then for TCP the header's length, then the tag.
INLINE int transport(const u16 *header, u8 protocol, const void *packet, const void *end)
{
	const u16 *tag;

	if (protocol == UDP) {
		if ((const void *)(header + 4) > end)
			return foreign();
		tag = header + 4;
	} else if (protocol == TCP) {
		if ((const void *)(header + 10) > end)
			return foreign();

		u32 length = (be16(header[6]) >> 12) * 4;

		if (length < 20)
			return foreign();
		tag = (const void *)header + length;
	} else {
		return foreign();
	}

	u16 port = be16(header[1]);
	int is_ours = port >= port_low && port <= port_high;

	if ((const void *)(tag + TAG_WORDS) > end)
		return is_ours ? refuse() : foreign();

	u32 check = (u32)be16(tag[0]) << 16 | be16(tag[1]);
	u64 identity = be48(tag + 2);
	u64 sent_ns = (u64)be16(tag[5]) << 48 | be48(tag + 6);
	u64 now = ktime_get_ns();
	u32 stream = identity >> 40;

	if (unlikely(stream >= streams || check != tag_check(key0, key1, identity, sent_ns))) {
		int is_like_a_tag = stream < streams && now - sent_ns < 1ULL << AGE_BITS;

		return is_ours || is_like_a_tag ? refuse() : foreign();
	}

	const struct next *next = map_lookup(&nexts, &stream);

	if (!next || unlikely(sent_ns < next->start_ns))
		return refuse();

	u32 key = get_cpu() * streams + stream;
	struct cell *cell = map_lookup(&cells, &key);

	if (cell)
		account(cell, stream, identity & 0xffffffffff, sent_ns, now, end - packet);
	return XDP_DROP;
}

SECTION("xdp") int tester_sink(const struct xdp_md *ctx)
{
	const void *packet = (const void *)(unsigned long)ctx->data;
	const void *end = (const void *)(unsigned long)ctx->data_end;
	const u16 *ethernet = packet;
	const u8 *ip = packet + 14;

	if ((const void *)(ip + 20) > end)
		return foreign();
	switch (ethernet[6]) {
	case be16(0x0800): {
		u32 length = (ip[0] & 0x0f) * 4;

		// A tag is never in a fragment: bytes 6 and 7 hold flags, of which "don't" is allowed.
		if (length < 20 || *(const u16 *)(ip + 6) & be16(0x3fff))
			return foreign();
		return transport((const void *)(ip + length), ip[9], packet, end);
	}
	case be16(0x86dd):
		return transport((const void *)(ip + 40), ip[6], packet, end);
	default:
		return foreign();
	}
}

SECTION("license") const char license_text[] = "Dual MIT/GPL";
