/* Drops IPv4 packets whose source is in a set.
 *
 * The configuration is { "sources": ["192.0.2.1", ...] }. Without a JSON library the example reads it
 * by hand: every string in it but the key has to be an address.
 */
#include "sluice.h"

SLUICE_MANIFEST("manifest.toml");

enum { COUNTER_BLOCKED, COUNTER_PASSED, COUNTERS };
enum { REASON_BLOCKED };

#define SOURCES_MAX 1024u
#define PLACES (4u * SOURCES_MAX) /* a power of two */

/* All areas start at a multiple of 8 and are disjoint: the linker sees to it. */
#define AREA static _Alignas(8)
AREA struct sluice_descriptor descriptors[SLUICE_BATCH_MAX];
AREA struct sluice_verdict verdicts[SLUICE_BATCH_MAX];
AREA uint64_t counters[COUNTERS];
AREA char config[64 * 1024];
AREA char error[256];

/* Open addressing; 0 (0.0.0.0) is a free place. */
static uint32_t set[PLACES];
static uint32_t set_len;

uint32_t sluice_abi_version(void) { return SLUICE_ABI_VERSION; }

const struct sluice_layout *sluice_layout(void) {
    static struct sluice_layout layout;
    layout = (struct sluice_layout){
        .size = sizeof layout,
        .batch_max = SLUICE_BATCH_MAX,
        .descriptors = (uint32_t)descriptors,
        .descriptor_stride = sizeof descriptors[0],
        .verdicts = (uint32_t)verdicts,
        .verdict_stride = sizeof verdicts[0],
        .config = (uint32_t)config,
        .config_capacity = sizeof config,
        .error = (uint32_t)error,
        .error_capacity = sizeof error,
        .counters = (uint32_t)counters,
        .counters_len = COUNTERS,
    };
    return &layout;
}

static uint32_t place_of(uint32_t address) { return (address * 2654435761u) >> 20 & (PLACES - 1); }

static int is_in_set(uint32_t address) {
    for (uint32_t at = place_of(address); set[at] != 0; at = (at + 1) & (PLACES - 1))
        if (set[at] == address) return 1;
    return 0;
}

static void insert(uint32_t address) {
    uint32_t at = place_of(address);
    while (set[at] != 0 && set[at] != address) at = (at + 1) & (PLACES - 1);
    set_len += set[at] == 0;
    set[at] = address;
}

/* "a.b.c.d" of `len` letters, big-endian; 0 if it is none. */
static uint32_t address_of(const char *text, uint32_t len) {
    uint32_t address = 0, part = 0, digits = 0, dots = 0;
    for (uint32_t i = 0; i < len; i++) {
        if (text[i] >= '0' && text[i] <= '9') {
            part = part * 10 + (uint32_t)(text[i] - '0');
            if (++digits > 3 || part > 255) return 0;
        } else if (text[i] == '.' && digits > 0 && dots < 3) {
            address = address << 8 | part;
            part = digits = 0;
            dots++;
        } else {
            return 0;
        }
    }
    return dots == 3 && digits > 0 ? address << 8 | part : 0;
}

static int32_t refuse(const char *what, const char *text, uint32_t len) {
    uint32_t at = 0;
    while (*what && at < sizeof error) error[at++] = *what++;
    for (uint32_t i = 0; i < len && at < sizeof error; i++) error[at++] = text[i];
    return (int32_t)at;
}

int32_t sluice_configure(uint32_t len) {
    int has_key = 0;
    for (uint32_t at = 0; at < len; at++) {
        if (config[at] != '"') continue;
        uint32_t start = at + 1, end = start;
        while (end < len && config[end] != '"') end++;
        at = end;
        uint32_t next = end + 1;
        while (next < len && config[next] == ' ') next++;
        if (next < len && config[next] == ':') { /* a key */
            const char key[] = "sources";
            uint32_t same = 0;
            while (same < sizeof key - 1 && start + same < end && config[start + same] == key[same]) same++;
            if (has_key || same != sizeof key - 1 || end - start != same)
                return refuse("there is one key, `sources`, not ", config + start, end - start);
            has_key = 1;
            continue;
        }
        uint32_t address = address_of(config + start, end - start);
        if (address == 0) return refuse("`sources`: no IPv4 address: ", config + start, end - start);
        if (set_len >= SOURCES_MAX) return refuse("`sources` has more than 1024 entries", config, 0);
        insert(address);
    }
    return 0;
}

void sluice_process(uint32_t n, uint64_t now_ns) {
    (void)now_ns;
    for (uint32_t i = 0; i < n; i++) {
        const struct sluice_descriptor *packet = &descriptors[i];
        const uint8_t *source = packet->source + 12;
        uint32_t address = (uint32_t)source[0] << 24 | (uint32_t)source[1] << 16 | (uint32_t)source[2] << 8 | source[3];
        if (!(packet->flags & SLUICE_FLAGS_IPV6) && is_in_set(address)) {
            verdicts[i] = (struct sluice_verdict){ .action = SLUICE_ACTION_DROP, .argument = REASON_BLOCKED };
            counters[COUNTER_BLOCKED]++;
        } else {
            counters[COUNTER_PASSED]++; /* the verdict is the default, which is to continue */
        }
    }
}
