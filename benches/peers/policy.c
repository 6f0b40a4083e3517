/* Runs a policy of policy.bpf.c over the packets of the bench by BPF_PROG_TEST_RUN.
 *
 *   policy OBJECT POLICY PACKETS PASSES VERDICTS
 *
 * PACKETS holds 4096 descriptors. First the policy judges them PASSES times, 64 packets a run, and the
 * verdicts of each time are appended to the file VERDICTS, a byte for each packet; then it is measured: one
 * line with the nanoseconds a packet, 64 packets a run and one packet a run. Needs CAP_BPF and CAP_NET_ADMIN.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>

enum { SAMPLES = 21, BATCH = 64, PACKETS = 4096, PACKET_BYTES = 64, REPEAT = 40 };

static struct bpf_object *object;
static unsigned char *globals;
static size_t globals_bytes;
static int globals_map;

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

/* Where a global variable lies among them. */
static size_t offset_of(const char *wanted)
{
	const struct btf *btf = bpf_object__btf(object);
	int section = btf__find_by_name_kind(btf, ".bss", BTF_KIND_DATASEC);
	const struct btf_type *type = btf__type_by_id(btf, section);
	const struct btf_var_secinfo *variable = btf_var_secinfos(type);
	for (int v = 0; v < btf_vlen(type); v++, variable++)
		if (!strcmp(btf__name_by_offset(btf, btf__type_by_id(btf, variable->type)->name_off), wanted))
			return variable->offset;
	fprintf(stderr, "skipped: ebpf: the program has no `%s`\n", wanted);
	exit(1);
}

/* Nanoseconds of a run, which the kernel tells as a whole number. (The system call takes milliseconds
 * around the runs: it waits for all processors to see the program.) */
static double run(const char *name, int repeat)
{
	static unsigned char packet[64];
	struct bpf_program *program = bpf_object__find_program_by_name(object, name);
	LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = packet, .data_size_in = sizeof(packet),
		    .repeat = repeat);
	if (!program || bpf_prog_test_run_opts(bpf_program__fd(program), &options)) {
		fprintf(stderr, "skipped: ebpf: `%s` cannot be run: %s\n", name, strerror(errno));
		exit(1);
	}
	return options.duration;
}

static double median(const char *name, int runs)
{
	double samples[SAMPLES];
	for (int s = 0; s < SAMPLES; s++)
		samples[s] = run(name, runs);
	qsort(samples, SAMPLES, sizeof(*samples), by_value);
	return samples[SAMPLES / 2];
}

int main(int argc, char **argv)
{
	if (argc != 6) {
		fprintf(stderr, "policy OBJECT POLICY PACKETS PASSES VERDICTS\n");
		return 2;
	}
	object = bpf_object__open(argv[1]);
	if (!object || bpf_object__load(object)) {
		fprintf(stderr, "skipped: ebpf: the program cannot be loaded: %s\n", strerror(errno));
		return 1;
	}
	struct bpf_map *bss = bpf_object__find_map_by_name(object, ".bss");
	globals_map = bpf_map__fd(bss);
	globals_bytes = bpf_map__value_size(bss);
	globals = calloc(1, globals_bytes);
	FILE *packets = fopen(argv[3], "rb"), *verdicts = fopen(argv[5], "wb");
	if (!globals || !packets || !verdicts ||
	    fread(globals + offset_of("packets"), PACKET_BYTES, PACKETS, packets) != PACKETS) {
		perror("policy");
		return 2;
	}
	uint32_t zero = 0;
	if (bpf_map_update_elem(globals_map, &zero, globals, BPF_ANY)) {
		perror("skipped: ebpf: the packets");
		return 1;
	}
	for (int pass = atoi(argv[4]); pass > 0; pass--) {
		run(argv[2], PACKETS / BATCH);
		if (bpf_map_lookup_elem(globals_map, &zero, globals)) {
			perror("skipped: ebpf: the verdicts");
			return 1;
		}
		fwrite(globals + offset_of("verdicts"), 1, PACKETS, verdicts);
	}
	char each[64];
	snprintf(each, sizeof(each), "%s_each", argv[2]);
	double batched = median(argv[2], PACKETS / BATCH * REPEAT) / BATCH;
	printf("%.2f %.2f\n", batched, median(each, PACKETS * REPEAT));
	return fclose(verdicts) != 0;
}
