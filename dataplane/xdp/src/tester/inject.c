// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR MIT
//
// The injector: turns a run of this program over an empty frame (BPF_PROG_TEST_RUN with live frames)
// into a packet on an interface, when one is due.
//
// A frame starts as IMAGE_BYTES zeros. It gets the bytes of the next image, the tag and the checksum,
// is cut or grown to its length (the kernel clears what it grows by), and is redirected. While no
// packet is due the frame is dropped, and the run goes on with the next: that is how time passes.
//
// One thread runs one copy of this program, so that its state needs no atomics.

#include "bpf.h"

enum { IMAGE_BYTES = 112, IMAGES_MAX = 1 << 20, ORDER_MAX = 1 << 24 };

// tester/plan.rs repeats it.
enum { HELD_UP_NS = 1000000 };

// tester/image.rs describes it.
struct image {
	u64 bytes[IMAGE_BYTES / 8];
	u16 frame_len;
	u16 tag_offset;
	u16 checksum_offset;
	u16 reserved;
	u32 checksum_base;
	u32 reserved2;
};

// tester/live.rs writes the plan before a run and reads the rest during and after it. The order of
// the words is repeated there.
struct state {
	u64 sequence; // of the next packet, and so the number of those sent
	u64 position; // of the next packet in the order
	u64 due_ns; // time of the next packet's slot, and 2^-32 ns of it
	u64 due_fraction;
	u64 interval_ns; // from slot to slot
	u64 interval_fraction;
	u64 sequence_end; // the plan's end, whichever is first
	u64 until_ns;
	u64 lag_max_ns; // the most that a packet was sent after its slot
	u64 first_ns; // time of the plan's first and last packet
	u64 last_ns;
	u64 failures; // packets that the kernel did not take
	u64 lag_ns; // by how much the last packet was sent after its slot
	u64 held_up_ns; // sum of what packets fell behind by at once, from HELD_UP_NS on
	u64 reserved[2];
};

struct {
	uint(type, MAP_ARRAY);
	type(key, u32);
	type(value, struct image);
	uint(max_entries, IMAGES_MAX);
	uint(map_flags, MMAPABLE);
} images SECTION(".maps");

struct {
	uint(type, MAP_ARRAY);
	type(key, u32);
	type(value, u64);
	uint(max_entries, ORDER_MAX);
	uint(map_flags, MMAPABLE);
} order SECTION(".maps");

struct {
	uint(type, MAP_ARRAY);
	type(key, u32);
	type(value, struct state);
	uint(max_entries, 1);
	uint(map_flags, MMAPABLE);
} state SECTION(".maps");

struct {
	uint(type, MAP_DEVMAP);
	type(key, u32);
	type(value, u64);
	uint(max_entries, 1);
} interface SECTION(".maps");

// Set when the program is loaded.
const volatile u64 key0 = 0;
const volatile u64 key1 = 0;
const volatile u64 stream = 0;
const volatile u64 order_length = 1;

// Writes the 16-bit word `number` of the tag at `place`, and returns it for the checksum.
INLINE u64 put(u16 *place, int number, u16 word)
{
	place[number] = be16(word);
	return word;
}

// Makes the frame the packet of `image`, all but its length. Returns 0 if it cannot be.
INLINE int fill(const struct xdp_md *ctx, const struct image *image, u64 sequence, u64 now)
{
	void *data = (void *)(unsigned long)ctx->data;
	void *end = (void *)(unsigned long)ctx->data_end;
	u64 *words = data;

	if (data + IMAGE_BYTES > end)
		return 0;
#pragma unroll
	for (int i = 0; i < IMAGE_BYTES / 8; i++)
		words[i] = image->bytes[i];

	// The masks tell the verifier what the loader made sure of.
	u16 *tag = data + (image->tag_offset & 127);

	if ((void *)(tag + TAG_WORDS) > end)
		return 0;

	u64 identity = stream << 40 | (sequence & 0xffffffffff);
	u32 check = tag_check(key0, key1, identity, now);
	u64 sum = image->checksum_base;

	sum += put(tag, 0, check >> 16);
	sum += put(tag, 1, check);
	sum += put(tag, 2, identity >> 32);
	sum += put(tag, 3, identity >> 16);
	sum += put(tag, 4, identity);
	sum += put(tag, 5, now >> 48);
	sum += put(tag, 6, now >> 32);
	sum += put(tag, 7, now >> 16);
	sum += put(tag, 8, now);
	if (!image->checksum_offset)
		return 1;

	u16 *checksum = data + (image->checksum_offset & 127);

	if ((void *)(checksum + 1) > end)
		return 0;
	sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	// 0 and 0xffff are the same number here; UDP has given 0 another meaning (RFC 768).
	*checksum = be16(sum == 0xffff ? 0xffff : ~sum);
	return 1;
}

SECTION("xdp") int tester_inject(const struct xdp_md *ctx)
{
	u32 zero = 0;
	struct state *now_state = map_lookup(&state, &zero);
	u64 now = ktime_get_ns();

	if (!now_state || now_state->sequence >= now_state->sequence_end ||
	    now >= now_state->until_ns || now < now_state->due_ns)
		return XDP_DROP;

	u64 sequence = now_state->sequence;
	u32 position = now_state->position;
	const u64 *number = map_lookup(&order, &position);

	if (!number)
		return XDP_DROP;

	u32 key = *number;
	const struct image *image = map_lookup(&images, &key);

	if (!image)
		return XDP_DROP;

	int delta = (int)image->frame_len - IMAGE_BYTES;

	if (unlikely(!fill(ctx, image, sequence, now)) || (delta && adjust_tail(ctx, delta)) ||
	    redirect_map(&interface, 0, 0) != XDP_REDIRECT) {
		now_state->failures++;
		return XDP_DROP;
	}

	u64 lag = now - now_state->due_ns;
	u64 fraction = now_state->due_fraction + now_state->interval_fraction;

	if (lag > now_state->lag_max_ns)
		now_state->lag_max_ns = lag;
	if (lag >= now_state->lag_ns + HELD_UP_NS)
		now_state->held_up_ns += lag - now_state->lag_ns;
	now_state->lag_ns = lag;
	if (!now_state->first_ns)
		now_state->first_ns = now;
	now_state->last_ns = now;
	now_state->due_ns += now_state->interval_ns + (fraction >> 32);
	now_state->due_fraction = (u32)fraction;
	position++;
	now_state->position = position < order_length ? position : 0;
	now_state->sequence = sequence + 1;
	return XDP_REDIRECT;
}

SECTION("license") const char license_text[] = "Dual MIT/GPL";
