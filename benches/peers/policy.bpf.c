/* The policies of the bench as an XDP program's work, on descriptors that are parsed already: so much is
 * spared to it. POLICY_RULES names a file with the rules, a line of C each; RATE_INTERVAL and RATE_BURST are
 * those of the token bucket, in the units of the plugin's arithmetic.
 *
 * Each policy is there twice: for 64 packets a run, which no XDP program gets but which leaves the kernel's
 * way into the program out of the figure; and, `_each`, for one packet a run, as XDP is called.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

enum { PACKETS = 4096, BATCH = 64, IS_IPV6 = 1 };

struct packet {
	__u32 source[4], destination[4];
	__u16 source_port, destination_port;
	__u8 protocol, tcp_flags, flags, direction;
	__u32 rest[6];
};

struct packet packets[PACKETS];
__u8 verdicts[PACKETS];
__u32 next;
__u64 now;

struct key {
	__u64 network[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, struct key);
	__type(value, __u64);
} buckets SEC(".maps");

static __always_inline __u8 filtered(const struct packet *packet)
{
	if (packet->flags & IS_IPV6)
		return 0;
	__u32 source = bpf_ntohl(packet->source[3]), destination = bpf_ntohl(packet->destination[3]);
	__u16 source_port = packet->source_port, destination_port = packet->destination_port;
	__u8 protocol = packet->protocol;
#include POLICY_RULES
	return 0;
}

static __always_inline __u8 limited(const struct packet *packet)
{
	struct key key = {};
	if (packet->flags & IS_IPV6) {
		key.network[0] = (__u64)packet->source[1] << 32 | packet->source[0];
	} else {
		/* In network byte order: the last byte is the highest. */
		key.network[1] = packet->source[3] & 0xffffff;
		key.network[0] = 1;
	}
	__u64 *bucket = bpf_map_lookup_elem(&buckets, &key);
	if (!bucket) {
		__u64 full = 0;
		bpf_map_update_elem(&buckets, &key, &full, BPF_NOEXIST);
		bucket = bpf_map_lookup_elem(&buckets, &key);
		if (!bucket)
			return 0;
	}
	/* Two processors may charge the same bucket: as the router's, it is changed by compare-and-swap. */
	for (int tries = 0; tries < 16; tries++) {
		__u64 before = *(volatile __u64 *)bucket;
		__u64 after = (before > now ? before : now) + RATE_INTERVAL;
		if (after > now + RATE_BURST)
			return 1;
		if (__sync_val_compare_and_swap(bucket, before, after) == before)
			return 0;
	}
	return 1;
}

static __always_inline __u8 passed(const struct packet *packet)
{
	return 0;
}

#define POLICY(name, judge)                                                                        \
	static long name##_one(__u32 n, __u32 *first)                                              \
	{                                                                                          \
		__u32 at = (*first + n) & (PACKETS - 1);                                           \
		verdicts[at] = judge(&packets[at]);                                                \
		return 0;                                                                          \
	}                                                                                          \
	SEC("xdp") int name(struct xdp_md *context)                                                \
	{                                                                                          \
		__u32 first = next;                                                                \
		now += 10000 * 64;                                                                 \
		bpf_loop(BATCH, name##_one, &first, 0);                                            \
		next = first + BATCH;                                                              \
		return XDP_PASS;                                                                   \
	}                                                                                          \
	SEC("xdp") int name##_each(struct xdp_md *context)                                         \
	{                                                                                          \
		__u32 at = next++ & (PACKETS - 1);                                                 \
		if (at % BATCH == 0)                                                               \
			now += 10000 * 64;                                                         \
		return (verdicts[at] = judge(&packets[at])) ? XDP_DROP : XDP_PASS;                 \
	}

POLICY(trivial, passed)
POLICY(filter, filtered)
POLICY(rate_limit, limited)

char _license[] SEC("license") = "GPL";
