/* cli.c - the pure parts of brig: options, names, times, events, escaping.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "src/cli/base64.h"
#include "src/cli/cmd.h"
#include "src/cli/diagnose.h"
#include "src/cli/events.h"
#include "src/cli/key.h"
#include "src/cli/opt.h"
#include "src/cli/ref.h"
#include "src/cli/term.h"
#include "src/cli/when.h"

/* --- values of options -------------------------------------------------------- */

static void test_numbers(void **state)
{
	uint64_t v = 77;

	assert_int_equal(opt_read_number("128", 128, 16384, &v), 0);
	assert_int_equal(v, 128);
	assert_int_equal(opt_read_number("16384", 128, 16384, &v), 0);
	assert_int_equal(
		opt_read_number("18446744073709551615", 0, UINT64_MAX, &v), 0);
	assert_true(v == UINT64_MAX);
	static const char *const wrong[] = {
		"",    "127",      "16385", "-1",  "+1",
		" 1",  "1 ",       "0x80",  "1e3", "18446744073709551744",
		"1.0", "\xd9\xa1",
	};
	v = 77;
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
		assert_int_equal(opt_read_number(wrong[i], 128, 16384, &v),
				 -EINVAL);
	assert_int_equal(v, 77);
}

static void test_cpus(void **state)
{
	uint64_t v = 77;

	assert_int_equal(opt_read_cpus("0.25", &v), 0);
	assert_int_equal(v, 1);
	assert_int_equal(opt_read_cpus("1", &v), 0);
	assert_int_equal(v, 4);
	assert_int_equal(opt_read_cpus("7.75", &v), 0);
	assert_int_equal(v, 31);
	assert_int_equal(opt_read_cpus("1.500", &v), 0);
	assert_int_equal(v, 6);
	static const char *const wrong[] = { "",      "0",  "0.0",        "0.3",
					     ".5",    "1.", "-1",         "1x",
					     "1.2",   "1 ", "9999999999", "inf",
					     "0.25.0" };
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
		assert_int_equal(opt_read_cpus(wrong[i], &v), -EINVAL);
	assert_int_equal(v, 6);
}

static void test_durations(void **state)
{
	static const struct {
		const char *text;
		uint64_t ms;
	} right[] = {
		{ "1", 1000 },           { "90", 90000 },    { "90s", 90000 },
		{ "1.5s", 1500 },        { "500ms", 500 },   { "10m", 600000 },
		{ "1.5h", 5400000 },     { "1d", 86400000 }, { "0.001", 1 },
		{ "366d", 31622400000 },
	};
	static const char *const wrong[] = {
		"",
		"0",
		"0ms",
		"0.5ms",
		"s",
		"1 s",
		"1w",
		"-1",
		"367d",
		"99999999999999999999",
		"99999999999h",
		"1.s",
		"1s1",
	};
	uint64_t v = 0;

	for (size_t i = 0; i < ARRAY_LEN(right); i++) {
		assert_int_equal(opt_read_duration(right[i].text, &v), 0);
		assert_true(v == right[i].ms);
	}
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
		assert_int_equal(opt_read_duration(wrong[i], &v), -EINVAL);
}

/* --- names --------------------------------------------------------------------- */

static void test_ids(void **state)
{
	char longest[REF_ID_MAX + 2];

	assert_true(ref_is_id("sb_0123456789abcdefghijklmn"));
	assert_true(ref_is_id("A-b_9"));
	assert_false(ref_is_id(""));
	assert_false(ref_is_id(".."));
	assert_false(ref_is_id("a/b"));
	assert_false(ref_is_id("a?b"));
	assert_false(ref_is_id("a%2fb"));
	assert_false(ref_is_id("a b"));
	assert_false(ref_is_id("sb_\xc3\xa9"));
	memset(longest, 'a', sizeof(longest));
	longest[REF_ID_MAX + 1] = '\0';
	assert_false(ref_is_id(longest));
	longest[REF_ID_MAX] = '\0';
	assert_true(ref_is_id(longest));
}

static void check_file(const char *text, const char *id, const char *path)
{
	struct ref_file f;

	assert_int_equal(ref_read_file(text, &f), 0);
	assert_string_equal(f.id, id);
	assert_string_equal(f.path, path);
}

static void test_files(void **state)
{
	struct ref_file f;

	check_file("sb_1:/etc/x", "sb_1", "/etc/x");
	check_file("sb_1:a:b", "sb_1", "a:b");
	check_file("file", "", "file");
	check_file("-", "", "-");
	check_file("./a:b", "", "./a:b");
	check_file("/a:b", "", "/a:b");
	check_file("dir/a:b", "", "dir/a:b");
	assert_int_equal(ref_read_file("", &f), -EINVAL);
	assert_int_equal(ref_read_file("sb_1:", &f), -EINVAL);
	assert_int_equal(ref_read_file(":x", &f), -EINVAL);
	assert_int_equal(ref_read_file("a b:x", &f), -EINVAL);
	assert_string_equal(ref_base_name("/a/b"), "b");
	assert_string_equal(ref_base_name("b"), "b");
	assert_null(ref_base_name("a/"));
	assert_null(ref_base_name("a/.."));
	assert_null(ref_base_name("."));
	assert_null(ref_base_name(""));
}

static void test_local_urls(void **state)
{
	assert_true(key_is_local("http://127.0.0.1:2744"));
	assert_true(key_is_local("http://127.0.0.1"));
	assert_true(key_is_local("https://localhost/brig"));
	assert_true(key_is_local("http://[::1]:2744"));
	assert_false(key_is_local("http://127.0.0.1.example.org"));
	assert_false(key_is_local("http://localhost.example.org:2744"));
	assert_false(key_is_local("http://127.0.0.1:x@example.org"));
	assert_false(key_is_local("http://127.0.0.1@example.org"));
	assert_false(key_is_local("http://192.168.0.1"));
	assert_false(key_is_local("127.0.0.1"));
	assert_false(key_is_local(""));
}

/* --- times ----------------------------------------------------------------------- */

static void test_times(void **state)
{
	char text[WHEN_ISO_BYTES];
	int64_t ms = 0;

	assert_int_equal(when_read("1970-01-01T00:00:00.000Z", &ms), 0);
	assert_true(ms == 0);
	assert_int_equal(when_read("2026-01-31T12:00:00.250Z", &ms), 0);
	assert_true(ms == 1769860800250);
	assert_int_equal(when_read("2026-01-31T12:00:00+00:00", &ms), 0);
	assert_true(ms == 1769860800000);
	when_write(1769860800250, text);
	assert_string_equal(text, "2026-01-31T12:00:00.250Z");
	when_write(-1, text);
	assert_string_equal(text, "");
	when_write(INT64_MAX, text);
	assert_true(strlen(text) < WHEN_ISO_BYTES);
	assert_int_equal(when_read("", &ms), -EINVAL);
	assert_int_equal(when_read("2026-01-31", &ms), -EINVAL);
	assert_int_equal(when_read("2026-01-31T12:00:00.250", &ms), -EINVAL);
	assert_int_equal(when_read("2026-13-31T12:00:00Z", &ms), -EINVAL);
	assert_int_equal(when_read("2026-01-31T12:00:00Zx", &ms), -EINVAL);
}

static void test_ages(void **state)
{
	char text[WHEN_AGE_BYTES];

	when_age(-5, text);
	assert_string_equal(text, "0 s");
	when_age(119999, text);
	assert_string_equal(text, "119 s");
	when_age(120000, text);
	assert_string_equal(text, "2 min");
	when_age(7200000, text);
	assert_string_equal(text, "2 h");
	when_age(172800000, text);
	assert_string_equal(text, "2 d");
	when_age(INT64_MAX, text);
	assert_true(strlen(text) < WHEN_AGE_BYTES - 1);
}

/* --- base64 ---------------------------------------------------------------------- */

static void test_base64_round_trip(void **state)
{
	char bytes[256];

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (char)i;
	for (size_t n = 0; n <= sizeof(bytes); n++) {
		struct buf text cleanup_buf = BUF_INIT(4096);
		struct buf back cleanup_buf = BUF_INIT(4096);
		assert_int_equal(base64_write(&text, bytes, n), 0);
		assert_int_equal(text.len, (n + 2) / 3 * 4);
		assert_int_equal(base64_read(&back, text.data, text.len), 0);
		assert_int_equal(back.len, n);
		if (n > 0)
			assert_memory_equal(back.data, bytes, n);
	}
}

static void test_base64_is_strict(void **state)
{
	static const char *const wrong[] = {
		"A",    "AA",   "AAA",      "A===",     "====",
		"=AAA", "AA=A", "AAA=AAAA", "AAAA====", "AA A",
		"AA-_", "AB==", "AAB=",     "AA\n=",    "\xff\xff\xff\xff",
	};

	for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
		struct buf back cleanup_buf = BUF_INIT(64);
		assert_int_equal(base64_read(&back, wrong[i], strlen(wrong[i])),
				 -EINVAL);
	}
	struct buf small cleanup_buf = BUF_INIT(2);
	assert_int_equal(base64_read(&small, "AAAA", 4), -ENOSPC);
}

/* --- events ---------------------------------------------------------------------- */

static int read_event(const char *text, struct event *ret)
{
	return event_read(text, strlen(text), ret);
}

static void test_events(void **state)
{
	struct event e;

	assert_int_equal(read_event("{\"event\":\"stdout\",\"encoding\":"
				    "\"base64\",\"data\":\"AP8=\"}",
				    &e),
			 0);
	assert_int_equal(e.kind, EVENT_STDOUT);
	assert_int_equal(e.data.len, 2);
	assert_memory_equal(e.data.data, "\0\xff", 2);
	event_free(&e);
	assert_int_equal(read_event("{\"event\":\"stderr\",\"encoding\":"
				    "\"utf-8\",\"data\":\"a\\u0000b\"}",
				    &e),
			 0);
	assert_int_equal(e.kind, EVENT_STDERR);
	assert_int_equal(e.data.len, 3);
	assert_memory_equal(e.data.data, "a\0b", 3);
	event_free(&e);
	assert_int_equal(read_event("{\"event\":\"started\"}", &e), 0);
	assert_int_equal(e.kind, EVENT_STARTED);
	event_free(&e);
	assert_int_equal(read_event("{\"event\":\"exit\"}", &e), 0);
	assert_int_equal(e.kind, EVENT_EXIT);
	event_free(&e);
	assert_int_equal(read_event("{\"new\":1}", &e), 0);
	assert_int_equal(e.kind, EVENT_OTHER);
	event_free(&e);
	static const char *const wrong[] = {
		"",
		"[]",
		"1",
		"null",
		"{",
		"{\"event\":\"stdout\"}",
		"{\"event\":\"stdout\",\"data\":\"x\"}",
		"{\"event\":\"stdout\",\"data\":1,\"encoding\":\"utf-8\"}",
		"{\"event\":\"stdout\",\"data\":\"?\",\"encoding\":\"base64\"}",
		"{\"event\":\"stdout\",\"data\":\"\xff\",\"encoding\":\"utf-8\"}",
	};
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
		assert_int_equal(read_event(wrong[i], &e), -EPROTO);
}

struct seen {
	char text[64];
	int lines;
	int stop_at;
};

static int see_line(void *ctx, const char *line, size_t n)
{
	struct seen *s = ctx;

	if (++s->lines == s->stop_at)
		return -ECANCELED;
	memcpy(s->text + strlen(s->text), line, n);
	s->text[strlen(s->text)] = '|';
	return 0;
}

static void test_lines(void **state)
{
	static const char text[] = "one\n\ntwo\nthree\nrest";

	/* however the stream is cut, the lines are the same */
	for (size_t cut = 1; cut < sizeof(text); cut++) {
		struct buf rest cleanup_buf = BUF_INIT(16);
		struct seen s = { .lines = 0 };
		for (size_t i = 0; i < sizeof(text) - 1; i += cut) {
			size_t n = sizeof(text) - 1 - i;
			assert_int_equal(lines_feed(&rest, text + i,
						    n < cut ? n : cut, see_line,
						    &s),
					 0);
		}
		assert_string_equal(s.text, "one|two|three|");
		assert_int_equal(rest.len, 4);
	}
	struct buf rest cleanup_buf = BUF_INIT(4);
	struct seen s = { .stop_at = 2 };
	assert_int_equal(lines_feed(&rest, "a\nb\nc\n", 6, see_line, &s),
			 -ECANCELED);
	assert_string_equal(s.text, "a|");
	assert_int_equal(lines_feed(&rest, "12345", 5, see_line, &s), -ENOSPC);
}

static int result_code(const char *text)
{
	json_t *json = json_loads(text, 0, NULL);
	int code = outcome_of_result(json);

	assert_non_null(json);
	json_decref(json);
	return code;
}

static int error_code(const char *text)
{
	json_t *json = json_loads(text, 0, NULL);
	int code = outcome_of_error(json);

	assert_non_null(json);
	json_decref(json);
	return code;
}

static void test_outcomes(void **state)
{
	assert_int_equal(result_code("{\"reason\":\"exit\",\"exit_code\":0}"),
			 0);
	assert_int_equal(result_code("{\"reason\":\"exit\",\"exit_code\":255}"),
			 255);
	assert_int_equal(result_code("{\"reason\":\"signal\",\"signal\":15,"
				     "\"exit_code\":143}"),
			 143);
	assert_int_equal(result_code("{\"reason\":\"timeout\",\"signal\":9,"
				     "\"exit_code\":137}"),
			 CMD_TIMEOUT);
	assert_int_equal(result_code("{\"reason\":\"lost\",\"exit_code\":0}"),
			 CMD_FAILED);
	/* a result that says nothing is no success */
	assert_int_equal(result_code("{}"), CMD_FAILED);
	assert_int_equal(result_code("{\"exit_code\":null}"), CMD_FAILED);
	assert_int_equal(result_code("{\"exit_code\":\"0\"}"), CMD_FAILED);
	assert_int_equal(result_code("{\"exit_code\":-1}"), CMD_FAILED);
	assert_int_equal(result_code("{\"exit_code\":256}"), CMD_FAILED);
	assert_int_equal(error_code("{\"code\":\"cannot_execute\",\"details\":"
				    "{\"errno\":2}}"),
			 CMD_NOT_FOUND);
	assert_int_equal(error_code("{\"code\":\"cannot_execute\",\"details\":"
				    "{\"errno\":13}}"),
			 CMD_NOT_RUNNABLE);
	assert_int_equal(error_code("{\"code\":\"not_found\",\"details\":"
				    "{\"errno\":2}}"),
			 CMD_FAILED);
	assert_int_equal(error_code("{}"), CMD_FAILED);
	assert_int_equal(
		error_code("{\"code\":\"cannot_execute\",\"message\":"
			   "\"cannot execute x: No such file or directory\"}"),
		CMD_NOT_FOUND);
	assert_int_equal(
		error_code("{\"code\":\"cannot_execute\",\"message\":"
			   "\"No such file or directory: Is a directory\"}"),
		CMD_NOT_RUNNABLE);
	assert_int_equal(error_code("{\"code\":\"cannot_execute\"}"),
			 CMD_NOT_RUNNABLE);
}

/* --- escaping ---------------------------------------------------------------------- */

static void check_escape(const char *text, size_t n, bool lines,
			 const char *want)
{
	struct buf b cleanup_buf = BUF_INIT(256);

	assert_int_equal(term_escape(&b, text, n, lines), 0);
	assert_string_equal(b.len > 0 ? b.data : "", want);
}

static void test_escape(void **state)
{
	check_escape("plain ~", 7, false, "plain ~");
	check_escape("caf\xc3\xa9 \xe2\x98\x83 \xf0\x9f\x8e\x89", 14, false,
		     "caf\xc3\xa9 \xe2\x98\x83 \xf0\x9f\x8e\x89");
	check_escape("\x1b[31m\x07\x7f\r", 8, false,
		     "\\x1b[31m\\x07\\x7f\\x0d");
	check_escape("a\tb\n", 4, false, "a\\x09b\\x0a");
	check_escape("a\tb\n\r", 5, true, "a\tb\n\\x0d");
	check_escape("a\0b", 3, true, "a\\x00b");
	/* C1 controls: 0x9b is a CSI of its own */
	check_escape("\xc2\x9b", 2, true, "\\xc2\\x9b");
	check_escape("\x9b", 1, true, "\\x9b");
	/* what turns the direction of text */
	check_escape("\xe2\x80\xae", 3, true, "\\xe2\\x80\\xae");
	check_escape("\xe2\x81\xa7", 3, true, "\\xe2\\x81\\xa7");
	/* not UTF-8: overlong, surrogate, too high, cut */
	check_escape("\xc0\x9b", 2, true, "\\xc0\\x9b");
	check_escape("\xe0\x80\x9b", 3, true, "\\xe0\\x80\\x9b");
	check_escape("\xed\xa0\x80", 3, true, "\\xed\\xa0\\x80");
	check_escape("\xf4\x90\x80\x80", 4, true, "\\xf4\\x90\\x80\\x80");
	check_escape("\xe2\x98", 2, true, "\\xe2\\x98");
	check_escape("\xff", 1, true, "\\xff");
}

static void test_table(void **state)
{
	struct table t cleanup_table = TABLE_INIT(2);

	assert_int_equal(table_add(&t, "a"), 0);
	assert_int_equal(table_add(&t, NULL), 0);
	assert_int_equal(table_add(&t, "caf\xc3\xa9"), 0);
	assert_int_equal(table_add(&t, "\x1b"), 0);
	assert_int_equal(t.count, 4);
	assert_int_equal(t.width[0], 4);
	assert_int_equal(t.width[1], 4);
	assert_memory_equal(t.cells.data, "a\0-\0caf\xc3\xa9\0\\x1b", 15);
}

/* --- diagnosis ---------------------------------------------------------------------- */

static void test_readers(void **state)
{
	struct facts f = { .kvm = KVM_UNKNOWN };

	facts_read_cpuinfo(&f, "processor\t: 0\nflags\t\t: fpu vmx_x svmx avx\n"
			       "bugs: svm vmx\n");
	assert_false(f.svm);
	assert_false(f.vmx);
	facts_read_cpuinfo(&f, "processor\t: 0\nflags\t\t: fpu vmx avx svm\n");
	assert_true(f.svm);
	assert_true(f.vmx);
	facts_read_mountinfo(&f, "31 23 0:28 / /sys/fs/cgroup rw - tmpfs x rw\n"
				 "garbage\n"
				 "41 31 0:38 / /sys/fs/cgroup/unified rw "
				 "shared:1 - cgroup2 cgroup2 rw\n");
	assert_string_equal(f.cgroup2, "/sys/fs/cgroup/unified");
	f.cgroup2[0] = '\0';
	facts_read_mountinfo(&f, "1 2 0:1 / /x rw - tmpfs cgroup2 rw\nhalf");
	assert_string_equal(f.cgroup2, "");
	facts_read_meminfo(&f, "MemTotal:       2048 kB\nMemFree:  1 kB\n"
			       "MemAvailable:   1024 kB\n");
	assert_int_equal(f.memory_bytes, 2048 * 1024);
	assert_int_equal(f.memory_free_bytes, 1024 * 1024);
	facts_read_meminfo(&f, "");
	assert_int_equal(f.memory_bytes, 0);
}

static void test_probe_line(void **state)
{
	struct facts f = { .kvm = KVM_UNKNOWN };

	facts_read_probe(&f,
			 "{\"kvm\": \"emulated\", \"api\": 12, "
			 "\"iterations_per_s\": 800000, \"reason\": \"\"}\n");
	assert_int_equal(f.kvm, KVM_EMULATED);
	assert_int_equal(f.iterations_per_s, 800000);
	static const char *const wrong[] = { "", "[]", "{\"kvm\": 1}",
					     "{\"kvm\": \"quantum\"}", "kvm" };
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
		facts_read_probe(&f, wrong[i]);
		assert_int_equal(f.kvm, KVM_UNKNOWN);
		assert_int_equal(f.iterations_per_s, 0);
	}
	facts_read_probe(&f, "{\"kvm\":\"none\",\"iterations_per_s\":-5,"
			     "\"reason\":\"no device\"}");
	assert_int_equal(f.kvm, KVM_NONE);
	assert_int_equal(f.iterations_per_s, 0);
	assert_string_equal(f.kvm_reason, "no device");
}

static const struct facts good = {
	.svm = true,
	.kvm = KVM_HARDWARE,
	.iterations_per_s = 3000000000,
	.kernel = "6.1.0-1-amd64",
	.cgroup2 = "/sys/fs/cgroup",
	.controllers = "cpuset cpu io memory hugetlb pids",
	.disk_free_bytes = 100ull << 30,
	.memory_bytes = 16ull << 30,
	.memory_free_bytes = 8ull << 30,
	.qemu = "/usr/bin/qemu-system-x86_64",
	.host_script = "/usr/libexec/brig/brig-host",
};

static enum verdict verdict_of(const struct facts *f)
{
	static struct diagnosis d;

	diagnose(f, &d);
	assert_true(d.count > 0 && d.count <= CHECKS_MAX);
	for (unsigned int i = 0; i < d.count; i++) {
		assert_true(d.checks[i].text[0] != '\0');
		/* who is told that something is missing is told what to do */
		if (d.checks[i].level == CHECK_MISSING)
			assert_true(d.checks[i].todo[0] != '\0');
	}
	return d.verdict;
}

static void test_verdicts(void **state)
{
	struct facts f = good;

	assert_int_equal(verdict_of(&f), VERDICT_DIRECT);
	f.api = API_ANSWERS;
	assert_int_equal(verdict_of(&f), VERDICT_DIRECT);
	f.api_kvm = KVM_HARDWARE;
	assert_int_equal(verdict_of(&f), VERDICT_RUNNING);

	f = good;
	(void)snprintf(f.controllers, sizeof(f.controllers), "cpuset memory");
	assert_int_equal(verdict_of(&f), VERDICT_HOST_VM);
	f = good;
	f.kvm = KVM_EMULATED;
	assert_int_equal(verdict_of(&f), VERDICT_HOST_VM);
	f.qemu[0] = '\0';
	assert_int_equal(verdict_of(&f), VERDICT_IMPOSSIBLE);
	f = good;
	f.kvm = KVM_NONE;
	f.host_script[0] = '\0';
	assert_int_equal(verdict_of(&f), VERDICT_IMPOSSIBLE);
	f = good;
	f.memory_free_bytes = 100 << 20;
	assert_int_equal(verdict_of(&f), VERDICT_IMPOSSIBLE);

	/* a user who may not open /dev/kvm, on a CPU that has the flag */
	f = good;
	f.kvm = KVM_NONE;
	f.kvm_errno = EACCES;
	f.uid = 1000;
	assert_int_equal(verdict_of(&f), VERDICT_DIRECT);
	f.svm = false;
	assert_int_equal(verdict_of(&f), VERDICT_HOST_VM);

	/* nothing is known */
	f = (struct facts){ .kvm_errno = ENOENT };
	assert_int_equal(verdict_of(&f), VERDICT_IMPOSSIBLE);
}

static void test_summary(void **state)
{
	static struct diagnosis d;
	struct facts f = good;

	f.kvm = KVM_EMULATED;
	f.iterations_per_s = 800000;
	diagnose(&f, &d);
	assert_string_equal(
		d.summary,
		"this machine: /dev/kvm emulates guest kernel code (0.8 M "
		"iterations/s): sandboxes run in the host VM (`brig host "
		"start`)");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_cpus),
		cmocka_unit_test(test_durations),
		cmocka_unit_test(test_ids),
		cmocka_unit_test(test_files),
		cmocka_unit_test(test_local_urls),
		cmocka_unit_test(test_times),
		cmocka_unit_test(test_ages),
		cmocka_unit_test(test_base64_round_trip),
		cmocka_unit_test(test_base64_is_strict),
		cmocka_unit_test(test_events),
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_outcomes),
		cmocka_unit_test(test_escape),
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_readers),
		cmocka_unit_test(test_probe_line),
		cmocka_unit_test(test_verdicts),
		cmocka_unit_test(test_summary),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
