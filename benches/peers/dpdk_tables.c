/* DPDK's tables with the routes and destinations of the bench: one line `NAME/BATCH NANOSECONDS` for each
 * table and batch, and `NAME/update MEDIAN` for changes of one route.
 *
 *   dpdk_tables 4|6 ROUTES DESTINATIONS
 *
 * ROUTES: records of an address (4 or 16 bytes in network order), a length, a zero byte and a next hop
 * (16 bits, little-endian). DESTINATIONS: addresses (IPv4 in host order, IPv6 in network order).
 *
 * Built by the bench with `cc -O3 -march=native` where pkg-config knows libdpdk. Without huge pages of
 * the kernel's pool DPDK takes 4 KiB ones; the bench says which.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_fib.h>
#include <rte_fib6.h>
#include <rte_lpm.h>
#include <rte_lpm6.h>

enum { SAMPLES = 15, BATCH_MAX = 256, UPDATES = 20000 };
static const unsigned batches[] = {32, 64, 256};

static void *load(const char *path, size_t *bytes)
{
	FILE *file = fopen(path, "rb");
	if (!file) {
		perror(path);
		exit(2);
	}
	fseek(file, 0, SEEK_END);
	*bytes = ftell(file);
	rewind(file);
	void *data = malloc(*bytes);
	if (!data || fread(data, 1, *bytes, file) != *bytes) {
		perror(path);
		exit(2);
	}
	fclose(file);
	return data;
}

static double now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static double median(double *values, size_t count)
{
	qsort(values, count, sizeof(*values), by_value);
	return values[count / 2];
}

static size_t refused;

/* A table without some of the routes must not be compared with one that has them. */
static int is_whole(const char *name, size_t count)
{
	if (refused)
		fprintf(stderr, "skipped: %s: it refuses %zu of %zu routes\n", name, refused, count);
	int whole = refused == 0;
	refused = 0;
	return whole;
}

#define MEASURE(name, count, size, call)                                                          \
	for (unsigned b = 0; b < RTE_DIM(batches); b++) {                                         \
		const unsigned batch = batches[b];                                                \
		double samples[SAMPLES];                                                          \
		for (int s = 0; s < SAMPLES; s++) {                                               \
			double start = now_ns();                                                  \
			for (size_t at = 0; at + batch <= (count); at += batch) {                 \
				call;                                                             \
				__asm__ volatile("" ::"r"(hops) : "memory");                          \
			}                                                                         \
			samples[s] = (now_ns() - start) / ((count) / batch * batch);              \
		}                                                                                 \
		printf("%s/%u %.2f\n", name, batch, median(samples, SAMPLES));                    \
	}

#define UPDATE(name, call)                                                                        \
	do {                                                                                      \
		static double samples[UPDATES];                                                   \
		for (int u = 0; u < UPDATES; u++) {                                               \
			size_t r = (size_t)u * 7919 % count;                                      \
			double start = now_ns();                                                  \
			call;                                                                     \
			samples[u] = now_ns() - start;                                            \
		}                                                                                 \
		printf("%s/update %.0f\n", name, median(samples, UPDATES));                       \
	} while (0)

struct route4 {
	uint8_t address[4];
	uint8_t length, zero;
	uint16_t hop;
};

struct route6 {
	uint8_t address[16];
	uint8_t length, zero;
	uint16_t hop;
};

static uint32_t host_order(const uint8_t *a)
{
	return (uint32_t)a[0] << 24 | a[1] << 16 | a[2] << 8 | a[3];
}

static void run4(struct route4 *routes, size_t count, uint32_t *to, size_t to_count)
{
	struct rte_lpm_config config = {.max_rules = 2000000, .number_tbl8s = 65536};
	struct rte_lpm *lpm = rte_lpm_create("lpm", 0, &config);
	if (lpm) {
		for (size_t r = 0; r < count; r++)
			/* It has no prefix of length 0. */
			if (routes[r].length)
				refused += rte_lpm_add(lpm, host_order(routes[r].address),
						       routes[r].length, routes[r].hop) != 0;
	}
	if (lpm && is_whole("rte_lpm", count)) {
		uint32_t hops[BATCH_MAX];
		MEASURE("rte_lpm", to_count, 4, rte_lpm_lookup_bulk(lpm, to + at, hops, batch));
		UPDATE("rte_lpm", if (routes[r].length)
			rte_lpm_add(lpm, host_order(routes[r].address), routes[r].length, u));
		rte_lpm_free(lpm);
	}
	if (!lpm)
		fprintf(stderr, "skipped: rte_lpm: %s\n", rte_strerror(rte_errno));
	struct rte_fib_conf fib_config = {
		.type = RTE_FIB_DIR24_8,
		.default_nh = 0,
		.max_routes = 2000000,
		.dir24_8 = {.nh_sz = RTE_FIB_DIR24_8_4B, .num_tbl8 = 65536},
	};
	struct rte_fib *fib = rte_fib_create("fib", 0, &fib_config);
	if (!fib) {
		fprintf(stderr, "skipped: rte_fib: %s\n", rte_strerror(rte_errno));
		return;
	}
	for (size_t r = 0; r < count; r++)
		refused += rte_fib_add(fib, host_order(routes[r].address), routes[r].length,
				       routes[r].hop) != 0;
	if (!is_whole("rte_fib", count))
		return;
	uint64_t hops[BATCH_MAX];
	rte_fib_select_lookup(fib, RTE_FIB_LOOKUP_DIR24_8_SCALAR_MACRO);
	MEASURE("rte_fib", to_count, 4, rte_fib_lookup_bulk(fib, to + at, hops, batch));
	if (rte_fib_select_lookup(fib, RTE_FIB_LOOKUP_DIR24_8_VECTOR_AVX512) == 0)
		MEASURE("rte_fib-avx512", to_count, 4, rte_fib_lookup_bulk(fib, to + at, hops, batch));
	UPDATE("rte_fib",
	       rte_fib_add(fib, host_order(routes[r].address), routes[r].length, u % 60000));
	rte_fib_free(fib);
}

static void run6(struct route6 *routes, size_t count, uint8_t (*to)[16], size_t to_count)
{
	struct rte_fib6_conf config = {
		.type = RTE_FIB6_TRIE,
		.default_nh = 0,
		.max_routes = 1000000,
		.trie = {.nh_sz = RTE_FIB6_TRIE_4B, .num_tbl8 = 400000},
	};
	struct rte_fib6 *fib = rte_fib6_create("fib6", 0, &config);
	if (fib) {
		for (size_t r = 0; r < count; r++)
			/* Of 22.11 a route of length 0 hides the others: it is the default. */
			if (routes[r].length)
				refused += rte_fib6_add(fib, routes[r].address, routes[r].length,
							routes[r].hop) != 0;
	}
	if (fib && is_whole("rte_fib6", count)) {
		uint64_t hops[BATCH_MAX];
		size_t changes = 0;
		rte_fib6_lookup_bulk(fib, to, hops, BATCH_MAX);
		for (int n = 1; n < BATCH_MAX; n++)
			changes += hops[n] != hops[n - 1];
		fprintf(stderr, "rte_fib6: %zu of %d answers differ from the one before\n", changes,
			BATCH_MAX - 1);
		rte_fib6_select_lookup(fib, RTE_FIB6_LOOKUP_TRIE_SCALAR);
		MEASURE("rte_fib6", to_count, 16, rte_fib6_lookup_bulk(fib, to + at, hops, batch));
		if (rte_fib6_select_lookup(fib, RTE_FIB6_LOOKUP_TRIE_VECTOR_AVX512) == 0)
			MEASURE("rte_fib6-avx512", to_count, 16,
				rte_fib6_lookup_bulk(fib, to + at, hops, batch));
		UPDATE("rte_fib6",
		       rte_fib6_add(fib, routes[r].address, routes[r].length, u % 60000));
		rte_fib6_free(fib);
	}
	if (!fib)
		fprintf(stderr, "skipped: rte_fib6: %s\n", rte_strerror(rte_errno));
	struct rte_lpm6_config lpm_config = {.max_rules = 1000000, .number_tbl8s = 400000};
	struct rte_lpm6 *lpm = rte_lpm6_create("lpm6", 0, &lpm_config);
	if (!lpm) {
		fprintf(stderr, "skipped: rte_lpm6: %s\n", rte_strerror(rte_errno));
		return;
	}
	for (size_t r = 0; r < count; r++)
		if (routes[r].length)
			refused += rte_lpm6_add(lpm, routes[r].address, routes[r].length,
						routes[r].hop) != 0;
	if (!is_whole("rte_lpm6", count))
		return;
	int32_t hops[BATCH_MAX];
	MEASURE("rte_lpm6", to_count, 16,
		rte_lpm6_lookup_bulk_func(lpm, to + at, hops, batch));
	rte_lpm6_free(lpm);
}

int main(int argc, char **argv)
{
	if (argc != 4) {
		fprintf(stderr, "dpdk_tables 4|6 ROUTES DESTINATIONS\n");
		return 2;
	}
	char *eal[] = {"dpdk_tables", "--no-huge", "-m", "3072", "--no-pci", "--no-telemetry",
		       "--no-shconf", "-c", getenv("DPDK_CORES") ? getenv("DPDK_CORES") : "1",
		       "--log-level=3", "--force-max-simd-bitwidth=512"};
	if (rte_eal_init(RTE_DIM(eal), eal) < 0) {
		fprintf(stderr, "skipped: DPDK: %s\n", rte_strerror(rte_errno));
		return 1;
	}
	size_t routes_bytes, to_bytes;
	void *routes = load(argv[2], &routes_bytes), *to = load(argv[3], &to_bytes);
	if (argv[1][0] == '4')
		run4(routes, routes_bytes / sizeof(struct route4), to, to_bytes / 4);
	else
		run6(routes, routes_bytes / sizeof(struct route6), to, to_bytes / 16);
	return 0;
}
