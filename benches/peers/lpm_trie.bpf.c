/* The kernel's BPF_MAP_TYPE_LPM_TRIE, asked for 64 destinations a run. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

enum { DESTINATIONS = 1 << 16, BATCH = 64 };

struct key4 {
	__u32 length;
	__u8 address[4];
};

struct key6 {
	__u32 length;
	__u8 address[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 2000000);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct key4);
	__type(value, __u32);
} routes4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1000000);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct key6);
	__type(value, __u32);
} routes6 SEC(".maps");

__u8 destinations4[DESTINATIONS][4];
__u8 destinations6[DESTINATIONS][16];
__u32 next, sum;

SEC("xdp")
int look_up4(struct xdp_md *context)
{
	struct key4 key = {.length = 32};
	__u32 first = next;
	for (__u32 n = 0; n < BATCH; n++) {
		__builtin_memcpy(key.address, destinations4[(first + n) & (DESTINATIONS - 1)], 4);
		__u32 *hop = bpf_map_lookup_elem(&routes4, &key);
		sum += hop ? *hop : 0;
	}
	next = first + BATCH;
	return XDP_PASS;
}

SEC("xdp")
int look_up6(struct xdp_md *context)
{
	struct key6 key = {.length = 128};
	__u32 first = next;
	for (__u32 n = 0; n < BATCH; n++) {
		__builtin_memcpy(key.address, destinations6[(first + n) & (DESTINATIONS - 1)], 16);
		__u32 *hop = bpf_map_lookup_elem(&routes6, &key);
		sum += hop ? *hop : 0;
	}
	next = first + BATCH;
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
