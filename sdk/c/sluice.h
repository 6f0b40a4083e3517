/* The plugin ABI of Sluice, version 1.0, for C and C++: layouts, constants, and the host's functions.
 *
 * What each means is described in sdk/ABI.md; the names are those of sdk/abi. Build with
 *     clang --target=wasm32 -O2 -nostdlib -Wl,--no-entry ...
 * A plugin exports the functions that are declared with SLUICE_EXPORT below, states its areas in a
 * struct sluice_layout, and embeds its manifest with SLUICE_MANIFEST. sdk/c/example is a whole plugin.
 *
 * Structures only ever grow at their end.
 */
#ifndef SLUICE_H
#define SLUICE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
#define SLUICE_ASSERT(condition, text) static_assert(condition, text)
extern "C" {
#else
#define SLUICE_ASSERT(condition, text) _Static_assert(condition, text)
#endif

#define SLUICE_ABI_VERSION 0x00010000u
#define SLUICE_BATCH_MAX 256u
/* A verdict's argument for a drop for no reason of the plugin's own. */
#define SLUICE_REASON_DEFAULT 0xffffffffu
#define SLUICE_LAYOUT_BYTES_LEAST 48u

/* What is known of one packet. Addresses are in network order, IPv4 as ::ffff:a.b.c.d; integers are
 * little-endian, ports included. */
struct sluice_descriptor {
    uint8_t source[16];
    uint8_t destination[16];
    uint16_t source_port;      /* or the identifier of an ICMP echo, or 0 */
    uint16_t destination_port; /* or the identifier of an ICMP echo, or 0 */
    uint8_t protocol;          /* of the transport header */
    uint8_t tcp_flags;         /* byte 13 of the TCP header, or 0 */
    uint8_t flags;             /* SLUICE_FLAGS_* */
    uint8_t direction;         /* SLUICE_DIRECTION_* */
    uint16_t length;           /* of the IP packet in bytes, header included */
    uint16_t ingress;          /* position of the interface that received it */
    uint32_t hash;             /* of addresses, protocol and ports */
    uint16_t vrf;
    uint16_t l3_offset;        /* of the IP header in the frame, in bytes */
    uint16_t l4_offset;        /* of the transport header in the frame, in bytes */
    uint8_t ttl;               /* as received */
    uint8_t traffic_class;     /* or type of service */
    uint32_t slice;            /* that holds the destination, plus 1; 0: none. From `forward` on */
    uint16_t next_hop;         /* group chosen, plus 1; 0: none. From `forward` on */
    uint16_t egress;           /* interface that it leaves by, plus 1; 0: none. At `egress` */
} __attribute__((aligned(8)));

#define SLUICE_FLAGS_IPV6 1u
#define SLUICE_FLAGS_FRAGMENT 2u
#define SLUICE_FLAGS_LATER_FRAGMENT 4u
#define SLUICE_FLAGS_PORTS 8u
#define SLUICE_FLAGS_ICMP_ERROR 16u
#define SLUICE_FLAGS_DECAPSULATED 32u
#define SLUICE_FLAGS_OPTIONS 64u

#define SLUICE_DIRECTION_TRANSIT 0u
#define SLUICE_DIRECTION_OUTBOUND 1u
#define SLUICE_DIRECTION_INBOUND 2u

/* A plugin's answer for one packet. */
struct sluice_verdict {
    uint8_t action;    /* SLUICE_ACTION_* */
    uint8_t flags;     /* SLUICE_EDIT_* */
    uint16_t lifetime; /* of granularity "flow": tenths of a second that it holds for the flow; else 0 */
    uint32_t argument; /* index of a reason, number of a next hop, or 0 */
} __attribute__((aligned(8)));

#define SLUICE_ACTION_CONTINUE 0u
#define SLUICE_ACTION_DROP 1u
#define SLUICE_ACTION_TRANSMIT 2u

#define SLUICE_EDIT_MARK 1u
#define SLUICE_EDIT_TAG 2u
#define SLUICE_EDIT_MIRROR 4u
#define SLUICE_EDIT_CLASS 8u
#define SLUICE_EDIT_DSCP 16u
#define SLUICE_EDIT_MSS 32u
#define SLUICE_EDIT_TCP_OPTIONS 64u

/* What is to be done with a packet besides its verdict. Only the fields that the verdict's flags name
 * are read. */
struct sluice_edit {
    uint32_t mark;
    uint16_t tag;
    uint16_t mss;
    uint8_t class_; /* `class` is a word of C++ */
    uint8_t dscp;
    uint8_t tcp_options; /* SLUICE_TCP_OPTION_* */
    uint8_t reserved[5];
} __attribute__((aligned(8)));

#define SLUICE_TCP_OPTION_WINDOW_SCALE 1u
#define SLUICE_TCP_OPTION_SACK_PERMITTED 2u
#define SLUICE_TCP_OPTION_TIMESTAMPS 4u
#define SLUICE_TCP_OPTION_MULTIPATH 8u
#define SLUICE_TCP_OPTION_FAST_OPEN 16u

/* What earlier plugins set on a packet. */
struct sluice_marks {
    uint32_t mark;
    uint16_t tag;
    uint8_t class_;
    uint8_t reserved;
} __attribute__((aligned(8)));

/* Before the bytes of each packet in the payload area. */
struct sluice_payload_header {
    uint16_t len;
    uint16_t reserved[3];
} __attribute__((aligned(8)));

/* Where the plugin keeps what the host reads and writes: addresses and sizes in its memory. */
struct sluice_layout {
    uint32_t size;      /* sizeof(struct sluice_layout) */
    uint32_t batch_max; /* SLUICE_BATCH_MAX */
    uint32_t descriptors;
    uint32_t descriptor_stride;
    uint32_t verdicts;
    uint32_t verdict_stride;
    uint32_t config;
    uint32_t config_capacity;
    uint32_t error;
    uint32_t error_capacity;
    uint32_t counters;
    uint32_t counters_len;
    uint32_t edits; /* this and what follows: 0 for none */
    uint32_t edit_stride;
    uint32_t marks;
    uint32_t payload;
    uint32_t payload_stride;
    uint32_t state;
    uint32_t state_capacity;
    uint32_t reserved;
};

SLUICE_ASSERT(sizeof(struct sluice_descriptor) == 64, "descriptor");
SLUICE_ASSERT(offsetof(struct sluice_descriptor, source_port) == 32, "descriptor");
SLUICE_ASSERT(offsetof(struct sluice_descriptor, length) == 40, "descriptor");
SLUICE_ASSERT(offsetof(struct sluice_descriptor, slice) == 56, "descriptor");
SLUICE_ASSERT(sizeof(struct sluice_verdict) == 8, "verdict");
SLUICE_ASSERT(offsetof(struct sluice_verdict, argument) == 4, "verdict");
SLUICE_ASSERT(sizeof(struct sluice_edit) == 16, "edit");
SLUICE_ASSERT(offsetof(struct sluice_edit, tcp_options) == 10, "edit");
SLUICE_ASSERT(sizeof(struct sluice_marks) == 8, "marks");
SLUICE_ASSERT(sizeof(struct sluice_payload_header) == 8, "payload header");
SLUICE_ASSERT(sizeof(struct sluice_layout) == 80, "layout");

/* Kinds of names for sluice_name_number. */
#define SLUICE_NAME_KIND_NEXT_HOP 0
#define SLUICE_NAME_KIND_EGRESS_TAG 1
#define SLUICE_NAME_KIND_CLASS 2
#define SLUICE_NAME_KIND_INTERFACE 3

/* The host's functions. Each needs its capability in the manifest's `imports`, and the operator's grant. */
#define SLUICE_IMPORT(name) __attribute__((import_module("sluice"), import_name(#name)))

/* log */
SLUICE_IMPORT(log) void sluice_log(int32_t level, const char *text, uint32_t len);
/* random */
SLUICE_IMPORT(random) uint64_t sluice_random(void);
/* names */
SLUICE_IMPORT(name_number) int32_t sluice_name_number(int32_t kind, const char *text, uint32_t len);
/* meter */
SLUICE_IMPORT(meter_open) int32_t sluice_meter_open(int64_t rate_per_s_milli, int64_t burst, uint32_t entries);
SLUICE_IMPORT(meter_batch)
void sluice_meter_batch(int32_t handle, const uint8_t (*keys)[16], uint32_t n, uint64_t now_ns,
                        const uint32_t *costs, uint8_t *results);
SLUICE_IMPORT(meter_prefix_batch)
void sluice_meter_prefix_batch(int32_t handle, const void *addresses, uint32_t stride, uint32_t n,
                               uint32_t len4, uint32_t len6, uint64_t now_ns, uint8_t *results);
/* table */
SLUICE_IMPORT(table_open) int32_t sluice_table_open(const char *name, uint32_t len);
SLUICE_IMPORT(table_word) uint32_t sluice_table_word(int32_t handle, const char *text, uint32_t len);
SLUICE_IMPORT(table_batch)
void sluice_table_batch(int32_t handle, const void *keys, uint32_t stride, uint32_t n, uint32_t *results);
/* quota */
SLUICE_IMPORT(quota_open) int32_t sluice_quota_open(uint32_t budget, uint32_t members, uint64_t lifetime_ms);
SLUICE_IMPORT(quota_batch)
void sluice_quota_batch(int32_t handle, const uint8_t (*groups)[16], const uint8_t (*members)[16],
                        uint32_t n, uint64_t now_ns, uint8_t *results);
SLUICE_IMPORT(quota_contains)
void sluice_quota_contains(int32_t handle, const uint8_t (*groups)[16], const uint8_t (*members)[16],
                           uint32_t n, uint64_t now_ns, uint8_t *results);
SLUICE_IMPORT(quota_leave)
void sluice_quota_leave(int32_t handle, const uint8_t (*groups)[16], const uint8_t (*members)[16],
                        uint32_t n, uint64_t now_ns, uint8_t *results);

/* What a plugin defines. The last three go with `tick_ms` and `state` of the manifest. After an export the
 * instance may go on judging, beside a candidate that was given the state. */
#define SLUICE_EXPORT(name) __attribute__((export_name(#name), visibility("default")))

SLUICE_EXPORT(sluice_abi_version) uint32_t sluice_abi_version(void);
SLUICE_EXPORT(sluice_layout) const struct sluice_layout *sluice_layout(void);
SLUICE_EXPORT(sluice_configure) int32_t sluice_configure(uint32_t len);
SLUICE_EXPORT(sluice_process) void sluice_process(uint32_t n, uint64_t now_ns);
SLUICE_EXPORT(sluice_tick) void sluice_tick(uint64_t now_ns);
SLUICE_EXPORT(sluice_export) int32_t sluice_export(void);
SLUICE_EXPORT(sluice_import) int32_t sluice_import(uint32_t schema, uint32_t len);

/* Leaves a text in the plugin's own error area and traps: the host shows the text with the trap. `error` is
 * the area, an array, as the layout states it; what it has no room for is cut. */
#define sluice_give_up(error, text) sluice_give_up_in((error), sizeof(error), (text))

__attribute__((noreturn, unused)) static inline void sluice_give_up_in(char *error, size_t capacity,
                                                                        const char *text) {
    size_t at = 0;
    for (; at < capacity && text[at] != 0; at++) error[at] = text[at];
    if (at < capacity) error[at] = 0;
    /* The compiler must not leave out stores that nobody but the host reads. */
    __asm__ volatile("" : : "r"(error) : "memory");
    __builtin_trap();
}

/* Embeds the manifest, a file that the assembler finds (its folder given by -Wa,-I or -I). */
#define SLUICE_MANIFEST(file)                            \
    __asm__(".section .custom_section.sluice.manifest,\"\",@\n" \
            ".incbin \"" file "\"\n"                     \
            ".text\n")

#ifdef __cplusplus
}
#endif
#endif
