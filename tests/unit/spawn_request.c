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
#include "wire/vmm.h"

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

/* --- descriptors ---------------------------------------------------------- */

static int sealed(size_t size, int seals)
{
	int fd = memfd_create("console", MFD_ALLOW_SEALING | MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

static int regular(int flags, size_t size)
{
	char path[] = "/tmp/brig-test-XXXXXX";
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	int again = open(path, flags | O_CLOEXEC);
	assert_true(again >= 0);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(close(fd), 0);
	return again;
}

static int socket_of(int domain, int type)
{
	int fd = socket(domain, type | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	return fd;
}

static int good_fds[SPAWN_START_FDS];

static int set_up_fds(void **state)
{
	(void)state;
	good_fds[0] = socket_of(AF_UNIX, SOCK_SEQPACKET);
	good_fds[1] = regular(O_RDONLY, 100);
	good_fds[2] = regular(O_RDONLY, 100);
	good_fds[3] = regular(O_RDONLY, 4096);
	good_fds[4] = regular(O_RDWR, 0);
	good_fds[5] =
		sealed(sizeof(struct vmm_console), F_SEAL_SHRINK | F_SEAL_GROW);
	return 0;
}

static int tear_down_fds(void **state)
{
	(void)state;
	for (int i = 0; i < SPAWN_START_FDS; i++)
		assert_int_equal(close(good_fds[i]), 0);
	return 0;
}

/* The result with one descriptor replaced; closes it. */
static int check_with(unsigned int index, int fd)
{
	struct spawn_msg m = good();
	int fds[SPAWN_START_FDS];

	memcpy(fds, good_fds, sizeof(fds));
	fds[index] = fd;
	int r = request_check_files(&m, fds);
	(void)close(fd);
	return r;
}

static void test_good_descriptors(void **state)
{
	struct spawn_msg m = good();

	(void)state;
	assert_int_equal(request_check_files(&m, good_fds), 0);
	m.base_bytes = 4096;
	assert_int_equal(request_check_files(&m, good_fds), 0);
	m.base_bytes = 4608;
	assert_int_equal(request_check_files(&m, good_fds), -ERANGE);
}

static void test_wrong_descriptors(void **state)
{
	const size_t size = sizeof(struct vmm_console);

	(void)state;
	for (unsigned int i = 0; i < SPAWN_START_FDS; i++) {
		assert_int_equal(check_with(i, -1), -EBADF);
		assert_int_equal(check_with(i, open("/", O_PATH)), -EBADF);
		assert_int_equal(check_with(i, open("/dev/null", O_RDWR)),
				 -EBADF);
		assert_int_equal(check_with(i, open("/dev/null", O_RDONLY)),
				 -EBADF);
		if (i != 0)
			assert_int_equal(
				check_with(i,
					   socket_of(AF_UNIX, SOCK_SEQPACKET)),
				-EBADF);
	}
	assert_int_equal(check_with(0, socket_of(AF_UNIX, SOCK_STREAM)),
			 -EBADF);
	assert_int_equal(check_with(0, socket_of(AF_UNIX, SOCK_DGRAM)), -EBADF);
	assert_int_equal(check_with(0, socket_of(AF_INET, SOCK_STREAM)),
			 -EBADF);
	for (unsigned int i = 1; i < 4; i++) {
		assert_int_equal(check_with(i, regular(O_RDWR, 4096)), -EBADF);
		assert_int_equal(check_with(i, regular(O_WRONLY, 4096)),
				 -EBADF);
	}
	assert_int_equal(check_with(4, regular(O_RDONLY, 0)), -EBADF);
	assert_int_equal(check_with(4, regular(O_WRONLY, 0)), -EBADF);
	assert_int_equal(check_with(4, regular(O_RDWR, 1)), -EBADF);
	assert_int_equal(check_with(4, regular(O_RDWR | O_APPEND, 0)), -EBADF);
	assert_int_equal(check_with(5, regular(O_RDWR, size)), -EBADF);
	assert_int_equal(check_with(5, sealed(size, 0)), -EBADF);
	assert_int_equal(check_with(5, sealed(size, F_SEAL_GROW)), -EBADF);
	assert_int_equal(check_with(5, sealed(size, F_SEAL_SHRINK)), -EBADF);
	assert_int_equal(
		check_with(5, sealed(size + 1, F_SEAL_SHRINK | F_SEAL_GROW)),
		-EBADF);
}

/* A layer that still has a name could be somebody's file. */
static void test_layer_with_a_name(void **state)
{
	char path[] = "/tmp/brig-test-XXXXXX";
	int fd = mkstemp(path);

	(void)state;
	assert_int_equal(check_with(4, dup(fd)), -EBADF);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(check_with(4, fd), 0);
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

#define WITH_FDS(f) \
	cmocka_unit_test_setup_teardown(f, set_up_fds, tear_down_fds)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good_request),
		cmocka_unit_test(test_each_field_out_of_bounds),
		cmocka_unit_test(test_number_of_descriptors),
		cmocka_unit_test(test_each_byte_of_the_id),
		cmocka_unit_test(test_ids_as_names),
		WITH_FDS(test_good_descriptors),
		WITH_FDS(test_wrong_descriptors),
		WITH_FDS(test_layer_with_a_name),
		cmocka_unit_test(test_probe_lines),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
