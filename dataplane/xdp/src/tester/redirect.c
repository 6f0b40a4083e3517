// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR MIT
//
// The redirector: gives every UDP and TCP packet to the socket of its queue, and the rest (ARP, ND,
// ICMP) to the kernel, which answers for the tester's addresses.

#include "bpf.h"

enum { QUEUES_MAX = 64, TCP = 6, UDP = 17 };

struct {
	uint(type, MAP_XSKMAP);
	type(key, u32);
	type(value, u32);
	uint(max_entries, QUEUES_MAX);
} sockets SECTION(".maps");

// One counter: what went to the kernel.
struct {
	uint(type, MAP_PERCPU_ARRAY);
	type(key, u32);
	type(value, u64);
	uint(max_entries, 1);
} passed SECTION(".maps");

INLINE int pass(void)
{
	u32 zero = 0;
	u64 *counter = map_lookup(&passed, &zero);

	if (counter)
		*counter += 1;
	return XDP_PASS;
}

SECTION("xdp") int tester_redirect(const struct xdp_md *ctx)
{
	const u8 *packet = (const void *)(unsigned long)ctx->data;
	const u8 *end = (const void *)(unsigned long)ctx->data_end;
	u8 protocol;

	// Bytes 12 and 13: EtherType. IPv4's protocol is byte 9 of its header, IPv6's byte 6.
	if (packet + 14 + 20 > end)
		return pass();
	switch (*(const u16 *)(packet + 12)) {
	case be16(0x0800):
		protocol = packet[14 + 9];
		break;
	case be16(0x86dd):
		protocol = packet[14 + 6];
		break;
	default:
		return pass();
	}
	if (protocol != UDP && protocol != TCP)
		return pass();
	if (redirect_map(&sockets, ctx->rx_queue_index, XDP_PASS) != XDP_REDIRECT)
		return pass();
	return XDP_REDIRECT;
}

SECTION("license") const char license_text[] = "Dual MIT/GPL";
