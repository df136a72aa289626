/* spawn_request.c - what brig-spawn accepts from brigd, and from a probe.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/spawn/probe.h"
#include "src/spawn/request.h"

#define GOOD_ID "sb_0123456789abcdefghijklmn"

static struct spawn_msg good(void)
{
	return (struct spawn_msg){
		.type = SPAWN_START,
		.id = GOOD_ID,
		.vcpus = 2,
		.memory_mib = 512,
		.disk_bytes = 1ull << 30,
	};
}

static int check(struct spawn_msg m)
{
	return request_check_start(&m, SPAWN_START_FDS);
}

#define WITH(field, value)                   \
	({                                   \
		struct spawn_msg m = good(); \
		m.field = (value);           \
		check(m);                    \
	})

static void test_good_request(void **state)
{
	(void)state;
	assert_int_equal(check(good()), 0);
	assert_int_equal(WITH(vcpus, 1), 0);
	assert_int_equal(WITH(vcpus, BRIG_VCPUS_MAX), 0);
	assert_int_equal(WITH(memory_mib, BRIG_MEMORY_MIB_MIN), 0);
	assert_int_equal(WITH(memory_mib, BRIG_MEMORY_MIB_MAX), 0);
	assert_int_equal(WITH(disk_bytes, BRIG_DISK_BYTES_MIN), 0);
	assert_int_equal(WITH(disk_bytes, BRIG_DISK_BYTES_MAX), 0);
	assert_int_equal(WITH(cpu_quota_percent, 1), 0);
	assert_int_equal(WITH(cpu_quota_percent, 800), 0);
}

static void test_each_field_out_of_bounds(void **state)
{
	(void)state;
	assert_int_equal(WITH(type, SPAWN_KILL), -EINVAL);
	assert_int_equal(WITH(vcpus, 0), -ERANGE);
	assert_int_equal(WITH(vcpus, BRIG_VCPUS_MAX + 1), -ERANGE);
	assert_int_equal(WITH(vcpus, UINT32_MAX), -ERANGE);
	assert_int_equal(WITH(memory_mib, 0), -ERANGE);
	assert_int_equal(WITH(memory_mib, BRIG_MEMORY_MIB_MIN - 1), -ERANGE);
	assert_int_equal(WITH(memory_mib, BRIG_MEMORY_MIB_MAX + 1), -ERANGE);
	assert_int_equal(WITH(memory_mib, UINT32_MAX), -ERANGE);
	assert_int_equal(WITH(disk_bytes, 0), -ERANGE);
	assert_int_equal(WITH(disk_bytes, BRIG_DISK_BYTES_MIN - 1), -ERANGE);
	assert_int_equal(WITH(disk_bytes, (1ull << 30) + 4096), -ERANGE);
	assert_int_equal(WITH(disk_bytes, BRIG_DISK_BYTES_MAX + (1u << 20)),
			 -ERANGE);
	assert_int_equal(WITH(disk_bytes, UINT64_MAX << 20), -ERANGE);
	assert_int_equal(WITH(cpu_quota_percent, 801), -ERANGE);
	assert_int_equal(WITH(cpu_quota_percent, UINT32_MAX), -ERANGE);
}

static void test_number_of_descriptors(void **state)
{
	const struct spawn_msg m = good();

	(void)state;
	for (size_t n = 0; n < 10; n++)
		assert_int_equal(request_check_start(&m, n),
				 n == SPAWN_START_FDS ? 0 : -EINVAL);
}

/* B-06: every byte of the id, with every value. */
static void test_each_byte_of_the_id(void **state)
{
	static const char prefix[] = "sb_";

	(void)state;
	for (size_t at = 0; at < BRIG_ID_BYTES; at++) {
		for (unsigned int v = 0; v < 256; v++) {
			struct spawn_msg m = good();
			m.id[at] = (char)v;
			bool ok = (v >= 'a' && v <= 'z') ||
				  (v >= '0' && v <= '9');
			if (at < 3)
				ok = v == (unsigned char)prefix[at];
			if (at >= BRIG_ID_LEN)
				ok = v == 0;
			assert_int_equal(check(m), ok ? 0 : -EINVAL);
		}
	}
}

static void test_ids_as_names(void **state)
{
	static const char *const bad[] = {
		"",
		".",
		"..",
		"daemon",
		"sb_",
		"sb_../0123456789abcdefghijkl",
		"sb_0123456789abcdefghijklm",
		"sb_0123456789abcdefghijklmno",
		"sB_0123456789abcdefghijklmn",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(request_check_id(bad[i], strlen(bad[i]) + 1),
				 -EINVAL);
	assert_int_equal(request_check_id(GOOD_ID, sizeof(GOOD_ID)), 0);
	assert_int_equal(request_check_id(GOOD_ID, BRIG_ID_LEN), -EINVAL);
}

/* --- the descriptor ------------------------------------------------------- */

/* The result for a descriptor; closes it. */
static int check_fd(int fd)
{
	int r = request_check_control(fd);

	if (fd >= 0)
		assert_int_equal(close(fd), 0);
	return r;
}

static void test_control_socket(void **state)
{
	int pair[2];

	(void)state;
	assert_int_equal(check_fd(socket(AF_UNIX, SOCK_SEQPACKET, 0)), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	assert_int_equal(check_fd(pair[0]), 0);
	assert_int_equal(check_fd(pair[1]), 0);
}

static void test_not_a_control_socket(void **state)
{
	int ends[2];

	(void)state;
	assert_int_equal(check_fd(-1), -EBADF);
	assert_int_equal(check_fd(socket(AF_UNIX, SOCK_STREAM, 0)), -EBADF);
	assert_int_equal(check_fd(socket(AF_UNIX, SOCK_DGRAM, 0)), -EBADF);
	assert_int_equal(check_fd(socket(AF_INET, SOCK_STREAM, 0)), -EBADF);
	assert_int_equal(check_fd(open("/", O_PATH)), -EBADF);
	assert_int_equal(check_fd(open("/dev/null", O_RDWR)), -EBADF);
	assert_int_equal(check_fd(memfd_create("control", 0)), -EBADF);
	assert_int_equal(pipe(ends), 0);
	assert_int_equal(check_fd(ends[0]), -EBADF);
	assert_int_equal(check_fd(ends[1]), -EBADF);
}

/* --- probe ---------------------------------------------------------------- */

static void test_probe_lines(void **state)
{
	struct spawn_msg m = { 0 };

	(void)state;
	assert_int_equal(probe_parse("{\"kvm\": \"hardware\", \"api\": 12, "
				     "\"iterations_per_s\": 123456789, "
				     "\"reason\": \"\"}\n",
				     &m),
			 0);
	assert_int_equal(m.kvm_kind, SPAWN_KVM_HARDWARE);
	assert_int_equal(m.iterations_per_s, 123456789);
	assert_int_equal(probe_parse("{\"kvm\": \"emulated\", "
				     "\"iterations_per_s\": 8}",
				     &m),
			 0);
	assert_int_equal(m.kvm_kind, SPAWN_KVM_EMULATED);
	assert_int_equal(m.iterations_per_s, 8);
	assert_int_equal(probe_parse("{\"kvm\": \"none\", "
				     "\"iterations_per_s\": 0, \"reason\": "
				     "\"open /dev/kvm\"}",
				     &m),
			 0);
	assert_int_equal(m.kvm_kind, SPAWN_KVM_NONE);
	assert_int_equal(probe_parse("", &m), -EPROTO);
	assert_int_equal(probe_parse("{\"kvm\": \"hardware\"}", &m), -EPROTO);
	assert_int_equal(probe_parse("\"iterations_per_s\": 8", &m), -EPROTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good_request),
		cmocka_unit_test(test_each_field_out_of_bounds),
		cmocka_unit_test(test_number_of_descriptors),
		cmocka_unit_test(test_each_byte_of_the_id),
		cmocka_unit_test(test_ids_as_names),
		cmocka_unit_test(test_control_socket),
		cmocka_unit_test(test_not_a_control_socket),
		cmocka_unit_test(test_probe_lines),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
