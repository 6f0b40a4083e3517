// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR MIT
//
// What the tester's programs have in common: the page of the kernel's interface that they need (no
// header of the system is included, as in the classifier), and the tag.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long s64;

#define SECTION(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define be16(x) ((u16)__builtin_bswap16(x))
#else
#define be16(x) ((u16)(x))
#endif

// linux/bpf.h: enum xdp_action, enum bpf_map_type, enum bpf_func_id, map flags, struct xdp_md.
enum { XDP_DROP = 1, XDP_PASS = 2, XDP_REDIRECT = 4 };
enum { MAP_ARRAY = 2, MAP_PERCPU_ARRAY = 6, MAP_DEVMAP = 14, MAP_XSKMAP = 17 };
enum { MMAPABLE = 1 << 10 };

struct xdp_md {
	u32 data;
	u32 data_end;
	u32 data_meta;
	u32 ingress_ifindex;
	u32 rx_queue_index;
	u32 egress_ifindex;
};

static void *(*map_lookup)(const void *map, const void *key) __attribute__((unused)) = (void *)1;
static u64 (*ktime_get_ns)(void) __attribute__((unused)) = (void *)5;
static u32 (*get_cpu)(void) __attribute__((unused)) = (void *)8;
static long (*redirect_map)(const void *map, u64 key, u64 flags) __attribute__((unused)) =
	(void *)51;
static long (*adjust_tail)(const struct xdp_md *ctx, int delta) __attribute__((unused)) =
	(void *)65;

#define uint(name, value) int (*name)[value]
#define type(name, t) t *name

// The tag, at the start of the payload; tester.rs draws it.
enum { TAG_WORDS = 18 / 2 };

#define ROTATE(x, bits) (((x) << (bits)) | ((x) >> (64 - (bits))))
#define ROUND                                                                                      \
	do {                                                                                       \
		v0 += v1, v1 = ROTATE(v1, 13), v1 ^= v0, v0 = ROTATE(v0, 32);                      \
		v2 += v3, v3 = ROTATE(v3, 16), v3 ^= v2;                                           \
		v0 += v3, v3 = ROTATE(v3, 21), v3 ^= v0;                                           \
		v2 += v1, v1 = ROTATE(v1, 17), v1 ^= v2, v2 = ROTATE(v2, 32);                      \
	} while (0)

// The low half of SipHash-1-3 (Aumasson and Bernstein 2012) of the tag's two words behind the check,
// each as 8 bytes with the least significant first: as SipHash reads words, so that nothing is swapped.
// A third word holds the length, 16.
INLINE u32 tag_check(u64 key0, u64 key1, u64 identity, u64 timestamp_ns)
{
	const u64 length = 16ULL << 56;
	u64 v0 = key0 ^ 0x736f6d6570736575;
	u64 v1 = key1 ^ 0x646f72616e646f6d;
	u64 v2 = key0 ^ 0x6c7967656e657261;
	u64 v3 = key1 ^ 0x7465646279746573;

	v3 ^= identity;
	ROUND;
	v0 ^= identity;
	v3 ^= timestamp_ns;
	ROUND;
	v0 ^= timestamp_ns;
	v3 ^= length;
	ROUND;
	v0 ^= length;
	v2 ^= 0xff;
	ROUND;
	ROUND;
	ROUND;
	return v0 ^ v1 ^ v2 ^ v3;
}
