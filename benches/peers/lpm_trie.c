/* The kernel's LPM trie with the routes and destinations of the bench, by BPF_PROG_TEST_RUN: one line
 * `NAME/BATCH NANOSECONDS`, and `NAME/update MEDIAN` for changes of one route.
 *
 *   lpm_trie 4|6 ROUTES DESTINATIONS OBJECT
 *
 * Files as dpdk_tables takes them. Needs CAP_BPF and CAP_NET_ADMIN.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>

enum { SAMPLES = 15, BATCH = 64, DESTINATIONS = 1 << 16, RUNS = DESTINATIONS / BATCH, UPDATES = 20000 };

static unsigned char *load(const char *path, size_t *bytes)
{
	FILE *file = fopen(path, "rb");
	if (!file) {
		perror(path);
		exit(2);
	}
	fseek(file, 0, SEEK_END);
	*bytes = ftell(file);
	rewind(file);
	unsigned char *data = malloc(*bytes);
	if (!data || fread(data, 1, *bytes, file) != *bytes) {
		perror(path);
		exit(2);
	}
	fclose(file);
	return data;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static double now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

int main(int argc, char **argv)
{
	if (argc != 5) {
		fprintf(stderr, "lpm_trie 4|6 ROUTES DESTINATIONS OBJECT\n");
		return 2;
	}
	const int is_v6 = argv[1][0] == '6';
	const size_t width = is_v6 ? 16 : 4, record = width + 4;
	size_t routes_bytes, to_bytes;
	unsigned char *routes = load(argv[2], &routes_bytes), *to = load(argv[3], &to_bytes);
	struct bpf_object *object = bpf_object__open(argv[4]);
	if (!object || bpf_object__load(object)) {
		fprintf(stderr, "skipped: lpm_trie: the program cannot be loaded: %s\n", strerror(errno));
		return 1;
	}
	int map = bpf_object__find_map_fd_by_name(object, is_v6 ? "routes6" : "routes4");
	struct bpf_program *program =
		bpf_object__find_program_by_name(object, is_v6 ? "look_up6" : "look_up4");
	struct bpf_map *bss = bpf_object__find_map_by_name(object, ".bss");
	size_t bss_bytes = bpf_map__value_size(bss);
	unsigned char *globals = calloc(1, bss_bytes);
	uint32_t zero = 0;
	if (map < 0 || !program || !globals)
		return 2;
	size_t count = routes_bytes / record;
	unsigned char key[20];
	for (size_t r = 0; r < count; r++) {
		uint32_t length = routes[r * record + width], hop = r;
		memcpy(key, &length, 4);
		memcpy(key + 4, routes + r * record, width);
		if (bpf_map_update_elem(map, key, &hop, BPF_ANY)) {
			perror("skipped: lpm_trie: a route");
			return 1;
		}
	}
	/* The two lists of destinations are found by their names. */
	size_t offset = 0;
	const struct btf *btf = bpf_object__btf(object);
	int section = btf__find_by_name_kind(btf, ".bss", BTF_KIND_DATASEC);
	const struct btf_type *type = btf__type_by_id(btf, section);
	const struct btf_var_secinfo *variable = btf_var_secinfos(type);
	for (int v = 0; v < btf_vlen(type); v++, variable++) {
		const char *name = btf__name_by_offset(btf, btf__type_by_id(btf, variable->type)->name_off);
		if (!strcmp(name, is_v6 ? "destinations6" : "destinations4"))
			offset = variable->offset;
	}
	for (size_t d = 0; d < DESTINATIONS && (d + 1) * width <= to_bytes; d++) {
		unsigned char *from = to + d * width, *into = globals + offset + d * width;
		for (size_t b = 0; b < width; b++)
			into[b] = is_v6 ? from[b] : from[width - 1 - b];
	}
	if (bpf_map_update_elem(bpf_map__fd(bss), &zero, globals, BPF_ANY)) {
		perror("skipped: lpm_trie: the destinations");
		return 1;
	}
	unsigned char packet[64] = {0};
	double samples[SAMPLES];
	for (int s = 0; s < SAMPLES; s++) {
		LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = packet, .data_size_in = 64,
			    .repeat = RUNS);
		if (bpf_prog_test_run_opts(bpf_program__fd(program), &options)) {
			perror("skipped: lpm_trie: BPF_PROG_TEST_RUN");
			return 1;
		}
		samples[s] = (double)options.duration / BATCH;
	}
	qsort(samples, SAMPLES, sizeof(*samples), by_value);
	printf("bpf-lpm-trie/%d %.2f\n", BATCH, samples[SAMPLES / 2]);
	static double updates[UPDATES];
	for (int u = 0; u < UPDATES; u++) {
		size_t r = (size_t)u * 7919 % count;
		uint32_t length = routes[r * record + width], hop = u;
		memcpy(key, &length, 4);
		memcpy(key + 4, routes + r * record, width);
		double start = now_ns();
		bpf_map_update_elem(map, key, &hop, BPF_ANY);
		updates[u] = now_ns() - start;
	}
	qsort(updates, UPDATES, sizeof(*updates), by_value);
	printf("bpf-lpm-trie/update %.0f\n", updates[UPDATES / 2]);
	return 0;
}
