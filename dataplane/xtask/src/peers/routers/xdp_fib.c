// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR MIT
//
// The peer xdp-fib: forwards by the kernel's own routes and neighbors, but within XDP. It is what a
// few lines of eBPF reach: no policy, no ICMP error, no counter. What it cannot forward (no route, no
// neighbor, a small TTL, an option) goes to the kernel, as in the kernel's samples/bpf/xdp_fwd_kern.c.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#define SECTION(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define be16(x) ((__u16)__builtin_bswap16(x))
#else
#define be16(x) ((__u16)(x))
#endif

enum { AF_INET = 2, AF_INET6 = 10 };

static long (*redirect)(__u32 ifindex, __u64 flags) = (void *)BPF_FUNC_redirect;
static long (*fib_lookup)(void *ctx, struct bpf_fib_lookup *params, int bytes,
			  __u32 flags) = (void *)BPF_FUNC_fib_lookup;

// TTL - 1 raises the checksum by 0x0100 (RFC 1624).
INLINE void lower_ttl(struct iphdr *ip)
{
	__u32 check = ip->check;

	check += be16(0x0100);
	ip->check = (__u16)(check + (check >= 0xffff));
	ip->ttl--;
}

SECTION("xdp") int xdp_fib(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct bpf_fib_lookup fib = {};
	struct ethhdr *eth = data;
	struct iphdr *ip = (void *)(eth + 1);
	struct ipv6hdr *ip6 = (void *)(eth + 1);

	if ((void *)(eth + 1) > end)
		return XDP_PASS;
	if (eth->h_proto == be16(ETH_P_IP)) {
		if ((void *)(ip + 1) > end || ip->ihl != 5 || ip->ttl <= 1)
			return XDP_PASS;
		fib.family = AF_INET;
		fib.tos = ip->tos;
		fib.l4_protocol = ip->protocol;
		fib.tot_len = be16(ip->tot_len);
		fib.ipv4_src = ip->saddr;
		fib.ipv4_dst = ip->daddr;
	} else if (eth->h_proto == be16(ETH_P_IPV6)) {
		if ((void *)(ip6 + 1) > end || ip6->hop_limit <= 1)
			return XDP_PASS;
		fib.family = AF_INET6;
		fib.l4_protocol = ip6->nexthdr;
		fib.tot_len = be16(ip6->payload_len) + sizeof(*ip6);
		__builtin_memcpy(fib.ipv6_src, &ip6->saddr, sizeof(ip6->saddr));
		__builtin_memcpy(fib.ipv6_dst, &ip6->daddr, sizeof(ip6->daddr));
	} else {
		return XDP_PASS;
	}
	fib.ifindex = ctx->ingress_ifindex;
	if (fib_lookup(ctx, &fib, sizeof(fib), 0) != BPF_FIB_LKUP_RET_SUCCESS)
		return XDP_PASS;
	if (eth->h_proto == be16(ETH_P_IP))
		lower_ttl(ip);
	else
		ip6->hop_limit--;
	__builtin_memcpy(eth->h_dest, fib.dmac, ETH_ALEN);
	__builtin_memcpy(eth->h_source, fib.smac, ETH_ALEN);
	return redirect(fib.ifindex, 0);
}

char _license[] SECTION("license") = "Dual MIT/GPL";
