// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR MIT
//
// The classifier: decides for each packet, before the kernel's stack sees it, who handles it.
//
//   First match wins:
//   1. destination is an egress address, even one that the kernel has:  XSK; without a socket DROP
//   2. tunnel packet for this node, or an ICMP error that quotes one:   XSK; without a socket DROP
//   3. ARP, ND, non-IP, multicast, 802.1Q, any other local address:     kernel
//   4. the rest (transit, and what is sent to the broadcast address of a subnet of ours by a unicast
//      frame):                          XSK; without a socket as `on_exit` says
//
// The fast path of a packet to be forwarded is one look-up (its destination is no address of this
// machine) and one redirect. Whether it goes to an egress address or is transit makes no difference
// while there is a socket, so the longest-prefix look-up is paid only without one.
//
// Neighbor Discovery (rule 3) is tried before rule 1: a neighbor's probe of an egress address on a
// connected subnet is unicast, and who owns a slice has no say in it. Its hop limit of 255 shows that
// it was never forwarded (RFC 4861 section 7.1), so that no stranger can use this.
//
// No header is included: what the program needs of the kernel's interface is a page, and stands here.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SECTION(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define likely(x) __builtin_expect(!!(x), 1)
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define be16(x) ((u16)__builtin_bswap16(x))
#define be32(x) ((u32)__builtin_bswap32(x))
#else
#define be16(x) ((u16)(x))
#define be32(x) ((u32)(x))
#endif

// linux/bpf.h: enum xdp_action, enum bpf_map_type, enum bpf_func_id, struct xdp_md.
enum { XDP_DROP = 1, XDP_PASS = 2, XDP_REDIRECT = 4 };
enum { MAP_HASH = 1, MAP_ARRAY = 2, MAP_PERCPU_ARRAY = 6, MAP_LPM_TRIE = 11, MAP_XSKMAP = 17 };
enum { NO_PREALLOC = 1, PIN_BY_NAME = 1 };
static void *(*map_lookup)(const void *map, const void *key) = (void *)1;
static long (*redirect_map)(const void *map, u64 key, u64 flags) = (void *)51;

struct xdp_md {
	u32 data;
	u32 data_end;
	u32 data_meta;
	u32 ingress_ifindex;
	u32 rx_queue_index;
	u32 egress_ifindex;
};

#define uint(name, value) int (*name)[value]
#define type(name, t) t *name

// Sizes, which classifier.rs repeats and a test compares.
enum { QUEUES_MAX = 64, INTERFACES_MAX = 64, LOCALS_MAX = 16384, EGRESS_MAX = 131072 };

// One counter for each reason; classifier/reason.rs repeats the list, and a test compares.
enum reason {
	TO_XSK_FORWARD,
	TO_XSK_EGRESS,
	TO_XSK_TUNNEL,
	KERNEL_LOCAL,
	KERNEL_ARP,
	KERNEL_ND,
	KERNEL_MULTICAST,
	KERNEL_LINK_LOCAL,
	KERNEL_VLAN,
	KERNEL_NON_IP,
	KERNEL_TRUNCATED,
	KERNEL_ON_EXIT,
	DROP_ON_EXIT,
	DROP_EGRESS_NO_SOCKET,
	DROP_TUNNEL_NO_SOCKET,
	REASONS,
};
enum { REASONS_MAX = 32 };

// Flags of an address in `locals4` and `locals6`.
enum { LOCAL_EGRESS = 1, LOCAL_TUNNEL = 2, LOCAL_BROADCAST = 4 };

// Kinds of tunnels beside GUE, in `settings`.
enum { TUNNEL_GRE = 1, TUNNEL_IPIP = 2 };

struct settings {
	u16 tunnel_port; // of GUE, big endian; 0: no such tunnels
	u8 drop_on_exit;
	u8 tunnel_kinds; // TUNNEL_*
};

struct address6 {
	u32 words[4];
};

struct prefix4 {
	u32 length;
	u32 address;
};

struct prefix6 {
	u32 length;
	u32 address[4];
};

struct {
	uint(type, MAP_XSKMAP);
	type(key, u32);
	type(value, u32);
	uint(max_entries, INTERFACES_MAX *QUEUES_MAX);
	uint(pinning, PIN_BY_NAME);
} xsks SECTION(".maps");

struct {
	uint(type, MAP_HASH);
	type(key, u32);
	type(value, u32);
	uint(max_entries, LOCALS_MAX);
	uint(pinning, PIN_BY_NAME);
} locals4 SECTION(".maps");

struct {
	uint(type, MAP_HASH);
	type(key, struct address6);
	type(value, u32);
	uint(max_entries, LOCALS_MAX);
	uint(pinning, PIN_BY_NAME);
} locals6 SECTION(".maps");

struct {
	uint(type, MAP_LPM_TRIE);
	type(key, struct prefix4);
	type(value, u32);
	uint(max_entries, EGRESS_MAX);
	uint(map_flags, NO_PREALLOC);
	uint(pinning, PIN_BY_NAME);
} egress4 SECTION(".maps");

struct {
	uint(type, MAP_LPM_TRIE);
	type(key, struct prefix6);
	type(value, u32);
	uint(max_entries, EGRESS_MAX);
	uint(map_flags, NO_PREALLOC);
	uint(pinning, PIN_BY_NAME);
} egress6 SECTION(".maps");

struct {
	uint(type, MAP_ARRAY);
	type(key, u32);
	type(value, struct settings);
	uint(max_entries, 1);
	uint(pinning, PIN_BY_NAME);
} settings SECTION(".maps");

struct {
	uint(type, MAP_PERCPU_ARRAY);
	type(key, u32);
	type(value, u64);
	uint(max_entries, INTERFACES_MAX *REASONS_MAX);
	uint(pinning, PIN_BY_NAME);
} counters SECTION(".maps");

// Which interface this copy of the program is attached to; set when it is loaded.
const volatile u32 slot = 0;

INLINE void count(enum reason reason)
{
	u32 key = slot * REASONS_MAX + reason;
	u64 *counter = map_lookup(&counters, &key);

	if (likely(counter))
		*counter += 1; // per CPU, and XDP is not interrupted by itself
}

INLINE int pass(enum reason reason)
{
	count(reason);
	return XDP_PASS;
}

// To the socket of the queue that received the packet, else `otherwise` (the low bits of the flags
// are the verdict for an empty slot).
INLINE long redirect(const struct xdp_md *ctx, int otherwise)
{
	u32 queue = ctx->rx_queue_index;

	if (queue >= QUEUES_MAX)
		return otherwise;
	return redirect_map(&xsks, slot * QUEUES_MAX + queue, otherwise);
}

INLINE int xsk_or_drop(const struct xdp_md *ctx, enum reason to_xsk, enum reason no_socket)
{
	long verdict = redirect(ctx, XDP_DROP);

	count(likely(verdict == XDP_REDIRECT) ? to_xsk : no_socket);
	return verdict;
}

// A transit packet that no socket takes.
INLINE int on_exit(void)
{
	u32 key = 0;
	const struct settings *set = map_lookup(&settings, &key);

	if (set && !set->drop_on_exit)
		return pass(KERNEL_ON_EXIT);
	count(DROP_ON_EXIT);
	return XDP_DROP;
}

struct ipv4 {
	u8 version_ihl;
	u8 tos;
	u16 total_length;
	u16 id;
	u16 fragment;
	u8 ttl;
	u8 protocol;
	u16 checksum;
	u32 source;
	u32 destination;
};

struct ipv6 {
	u32 version_class_label;
	u16 payload_length;
	u8 next_header;
	u8 hop_limit;
	u32 source[4];
	u32 destination[4];
};

struct udp {
	u16 source;
	u16 destination;
};

struct icmp {
	u8 type;
	u8 code;
	u16 checksum;
	u32 rest;
};

enum { ICMP = 1, IPIP = 4, UDP = 17, IPV6 = 41, GRE = 47, ICMPV6 = 58 };

// The bytes behind an IPv4 header, or 0 for a broken header.
INLINE const void *payload4(const struct ipv4 *ip)
{
	u32 header_length = (ip->version_ihl & 0x0f) * 4;

	return header_length < sizeof(*ip) ? 0 : (const void *)ip + header_length;
}

// Whether a packet is one of a tunnel by its protocol and, in UDP, the port: 0 for `payload` stands
// for what a fragment other than the first hides. Other kinds need no port, so that their fragments
// are found too; no tunnel of ours is fragmented, and the router refuses them.
INLINE int is_tunnel_protocol(const struct settings *set, u8 protocol, const void *payload,
			      const void *end)
{
	const struct udp *udp = payload;

	switch (protocol) {
	case UDP:
		return set->tunnel_port && udp && (const void *)(udp + 1) <= end &&
		       udp->destination == set->tunnel_port;
	case GRE:
		return set->tunnel_kinds & TUNNEL_GRE;
	case IPIP:
	case IPV6:
		return set->tunnel_kinds & TUNNEL_IPIP;
	default:
		return 0;
	}
}

// A tunnel packet, or an ICMP error about one that this address sent.
INLINE int is_tunnel4(const struct ipv4 *ip, const void *end)
{
	u32 key = 0;
	const struct settings *set = map_lookup(&settings, &key);
	const void *payload = payload4(ip);

	if (!set || !payload)
		return 0;
	if (ip->fragment & be16(0x1fff))
		return is_tunnel_protocol(set, ip->protocol, 0, end);
	if (ip->protocol != ICMP)
		return is_tunnel_protocol(set, ip->protocol, payload, end);

	const struct icmp *icmp = payload;
	const struct ipv4 *quoted = (const void *)(icmp + 1);

	if ((const void *)(quoted + 1) > end)
		return 0;
	// RFC 792: unreachable, source quench, time exceeded, parameter problem.
	if (icmp->type != 3 && icmp->type != 4 && icmp->type != 11 && icmp->type != 12)
		return 0;
	payload = payload4(quoted);
	return payload && !(quoted->fragment & be16(0x1fff)) &&
	       quoted->source == ip->destination &&
	       is_tunnel_protocol(set, quoted->protocol, payload, end);
}

// The same for IPv6. Tunnel packets have no extension headers: nodes send none, and do not fragment.
INLINE int is_tunnel6(const struct ipv6 *ip, const void *end)
{
	u32 key = 0;
	const struct settings *set = map_lookup(&settings, &key);
	const void *payload = ip + 1;

	if (!set)
		return 0;
	if (ip->next_header != ICMPV6)
		return is_tunnel_protocol(set, ip->next_header, payload, end);

	const struct icmp *icmp = payload;
	const struct ipv6 *quoted = (const void *)(icmp + 1);

	if ((const void *)(quoted + 1) > end)
		return 0;
	// RFC 4443 section 2.1: types below 128 are errors; 1 to 4 are defined.
	if (icmp->type < 1 || icmp->type > 4)
		return 0;
	return quoted->source[0] == ip->destination[0] && quoted->source[1] == ip->destination[1] &&
	       quoted->source[2] == ip->destination[2] && quoted->source[3] == ip->destination[3] &&
	       is_tunnel_protocol(set, quoted->next_header, quoted + 1, end);
}

INLINE int classify4(const struct xdp_md *ctx, const u8 *frame, const void *packet, const void *end)
{
	const struct ipv4 *ip = packet;

	if ((const void *)(ip + 1) > end)
		return pass(KERNEL_TRUNCATED);

	u32 destination = ip->destination;

	if ((destination & be32(0xf0000000)) == be32(0xe0000000) || destination == 0xffffffff)
		return pass(KERNEL_MULTICAST);

	const u32 *flags = map_lookup(&locals4, &destination);

	// RFC 2644: a directed broadcast, which a router sent on to this station alone, is neither taken in
	// nor forwarded. A station of the subnet itself sends to all stations.
	if (flags && !(*flags & LOCAL_BROADCAST && !(frame[0] & 1))) {
		if (*flags & LOCAL_EGRESS)
			return xsk_or_drop(ctx, TO_XSK_EGRESS, DROP_EGRESS_NO_SOCKET);
		if (*flags & LOCAL_TUNNEL && is_tunnel4(ip, end))
			return xsk_or_drop(ctx, TO_XSK_TUNNEL, DROP_TUNNEL_NO_SOCKET);
		return pass(KERNEL_LOCAL);
	}

	if (likely(redirect(ctx, XDP_PASS) == XDP_REDIRECT)) {
		count(TO_XSK_FORWARD);
		return XDP_REDIRECT;
	}

	struct prefix4 host = { .length = 32, .address = destination };

	if (map_lookup(&egress4, &host)) {
		count(DROP_EGRESS_NO_SOCKET);
		return XDP_DROP;
	}
	return on_exit();
}

INLINE int classify6(const struct xdp_md *ctx, const void *packet, const void *end)
{
	const struct ipv6 *ip = packet;

	if ((const void *)(ip + 1) > end)
		return pass(KERNEL_TRUNCATED);

	struct prefix6 host = {
		.length = 128,
		.address = { ip->destination[0], ip->destination[1], ip->destination[2],
			     ip->destination[3] },
	};

	if ((host.address[0] & be32(0xff000000)) == be32(0xff000000))
		return pass(KERNEL_MULTICAST);
	if ((host.address[0] & be32(0xffc00000)) == be32(0xfe800000))
		return pass(KERNEL_LINK_LOCAL);
	if (ip->next_header == ICMPV6 && ip->hop_limit == 255) {
		const struct icmp *icmp = (const void *)(ip + 1);

		// RFC 4861 section 4: router and neighbor solicitation and advertisement, redirect.
		if ((const void *)(icmp + 1) <= end && icmp->type >= 133 && icmp->type <= 137)
			return pass(KERNEL_ND);
	}

	const u32 *flags = map_lookup(&locals6, &host.address);

	if (flags) {
		if (*flags & LOCAL_EGRESS)
			return xsk_or_drop(ctx, TO_XSK_EGRESS, DROP_EGRESS_NO_SOCKET);
		if (*flags & LOCAL_TUNNEL && is_tunnel6(ip, end))
			return xsk_or_drop(ctx, TO_XSK_TUNNEL, DROP_TUNNEL_NO_SOCKET);
		return pass(KERNEL_LOCAL);
	}

	if (likely(redirect(ctx, XDP_PASS) == XDP_REDIRECT)) {
		count(TO_XSK_FORWARD);
		return XDP_REDIRECT;
	}
	if (map_lookup(&egress6, &host)) {
		count(DROP_EGRESS_NO_SOCKET);
		return XDP_DROP;
	}
	return on_exit();
}

SECTION("xdp") int sluice_classify(const struct xdp_md *ctx)
{
	const u8 *packet = (const void *)(unsigned long)ctx->data;
	const u8 *end = (const void *)(unsigned long)ctx->data_end;

	if (packet + 14 > end)
		return pass(KERNEL_TRUNCATED);
	switch (*(const u16 *)(packet + 12)) {
	case be16(0x0800):
		return classify4(ctx, packet, packet + 14, end);
	case be16(0x86dd):
		return classify6(ctx, packet + 14, end);
	case be16(0x0806):
		return pass(KERNEL_ARP);
	case be16(0x8100):
	case be16(0x88a8):
		return pass(KERNEL_VLAN);
	default:
		return pass(KERNEL_NON_IP);
	}
}

SECTION("license") const char license_text[] = "Dual MIT/GPL";
