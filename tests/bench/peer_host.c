/* peer_host.c - starts QEMU from its own snapshot, and holds the clock.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Runs where KVM is (in the host VM), since neither shell nor Python there
 * could time it well. In the current directory:
 *
 *   peer_host save -- QEMU...          boots, warms up, writes `state`
 *   peer_host ask S|P N -- QEMU...     N times: restore, ask, kill
 *   peer_host standby S|P N -- QEMU... the same, restored before the clock
 *   peer_host clones N -- QEMU...      N at once, all alive to the end
 *
 * QEMU finds its guest's port at descriptor 3, QMP at 4, `state` at 5.
 * Prints microseconds, one number a line; `clones` then prints the pids in one
 * line, and waits for the end of its input.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CLONES_MAX 1000
#define BOOT_MS 120000
#define ANSWER_MS 60000
#define SETTLE_US 1000000
#define TEXT_SIZE 65536

struct qemu {
	pid_t pid;
	int port;
	int qmp;
};

static struct qemu running[CLONES_MAX];
static size_t running_count;

static const char restore[] =
	"{\"execute\":\"qmp_capabilities\"}"
	"{\"execute\":\"migrate-set-capabilities\",\"arguments\":{"
	"\"capabilities\":[{\"capability\":\"x-ignore-shared\","
	"\"state\":true}]}}"
	"{\"execute\":\"migrate-incoming\",\"arguments\":{\"uri\":\"fd:5\"}}";

static const char save[] =
	"{\"execute\":\"qmp_capabilities\"}"
	"{\"execute\":\"migrate-set-capabilities\",\"arguments\":{"
	"\"capabilities\":[{\"capability\":\"x-ignore-shared\","
	"\"state\":true}]}}"
	"{\"execute\":\"migrate\",\"arguments\":{"
	"\"uri\":\"exec:cat > state\"}}";

static void end_all(void)
{
	for (size_t i = 0; i < running_count; i++)
		kill(running[i].pid, SIGKILL);
	for (size_t i = 0; i < running_count; i++) {
		waitpid(running[i].pid, NULL, 0);
		close(running[i].port);
		close(running[i].qmp);
	}
	running_count = 0;
}

/* Tells what QEMU said last. */
static _Noreturn void die(const char *what)
{
	static char text[TEXT_SIZE];

	fprintf(stderr, "peer_host: %s: %s\n", what, strerror(errno));
	for (size_t i = 0; i < running_count; i++) {
		ssize_t n =
			recv(running[i].qmp, text, sizeof(text), MSG_DONTWAIT);

		if (n > 0)
			fprintf(stderr, "QMP: %.*s\n", (int)n, text);
	}
	end_all();
	exit(1);
}

static int64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void send_text(int fd, const char *text)
{
	size_t size = strlen(text);

	if (send(fd, text, size, MSG_NOSIGNAL) != (ssize_t)size)
		die("send");
}

/* Reads until `end` is in what came. */
static void read_until(int fd, const char *end, int ms, char text[TEXT_SIZE])
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	size_t have = 0;

	text[0] = '\0';
	while (strstr(text, end) == NULL) {
		ssize_t n;

		errno = ETIMEDOUT;
		if (have == TEXT_SIZE - 1 || poll(&p, 1, ms) != 1)
			die(text);
		n = recv(fd, text + have, TEXT_SIZE - 1 - have, 0);
		if (n <= 0)
			die("QEMU ended");
		have += (size_t)n;
		text[have] = '\0';
	}
}

/* --- QEMU -------------------------------------------------------------------*/

static struct qemu *start(char *const argv[], const char *commands, int state)
{
	struct qemu *q = &running[running_count];
	posix_spawn_file_actions_t actions;
	int port[2], qmp[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, port) != 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, qmp) != 0)
		die("socketpair");
	if (posix_spawn_file_actions_init(&actions) != 0 ||
	    posix_spawn_file_actions_adddup2(&actions, port[1], 3) != 0 ||
	    posix_spawn_file_actions_adddup2(&actions, qmp[1], 4) != 0 ||
	    posix_spawn_file_actions_adddup2(&actions, state, 5) != 0)
		die("posix_spawn_file_actions");
	errno = posix_spawn(&q->pid, argv[0], &actions, NULL, argv, environ);
	if (errno != 0)
		die(argv[0]);
	running_count++;
	posix_spawn_file_actions_destroy(&actions);
	close(port[1]);
	close(qmp[1]);
	q->port = port[0];
	q->qmp = qmp[0];
	send_text(q->qmp, commands);
	return q;
}

/* Descriptors that QEMU is to find at 3 to 5 must not be there yet. */
static int open_high(const char *path)
{
	int low = open(path, O_RDONLY | O_CLOEXEC);
	int high;

	if (low < 0)
		die(path);
	high = fcntl(low, F_DUPFD_CLOEXEC, 10);
	if (high < 0)
		die(path);
	close(low);
	return high;
}

/* QEMU reads the state from the offset that all who opened it once share. */
static struct qemu *start_restored(char *const argv[])
{
	int state = open_high("state");
	struct qemu *q = start(argv, restore, state);

	close(state);
	return q;
}

/* --- questions ----------------------------------------------------------------*/

struct question {
	char text[128];
	char answer[32];
};

/* Two numbers that nobody knows ahead; `how` is S or P. */
static struct question make_question(char how)
{
	struct question q;
	uint32_t n[2];

	if (getrandom(n, sizeof(n), 0) != (ssize_t)sizeof(n))
		die("getrandom");
	n[0] = n[0] % 999000 + 1000;
	n[1] = n[1] % 999000 + 1000;
	snprintf(q.text, sizeof(q.text),
		 how == 'S' ? "Secho $((%u * %u))\n" : "Pprint(%u * %u)\n",
		 n[0], n[1]);
	snprintf(q.answer, sizeof(q.answer), "%llu\n",
		 (unsigned long long)n[0] * n[1]);
	return q;
}

static void read_answer(const struct qemu *vm, const struct question *q, int ms)
{
	static char text[TEXT_SIZE];

	read_until(vm->port, "\n", ms, text);
	if (strcmp(text, q->answer) != 0) {
		errno = EPROTO;
		die(text);
	}
}

static void ask(const struct qemu *vm, char how, int ms)
{
	struct question q = make_question(how);

	send_text(vm->port, q.text);
	read_answer(vm, &q, ms);
}

/* --- what is measured -----------------------------------------------------------*/

static void save_once(char *const argv[])
{
	static char text[TEXT_SIZE];
	int nothing = open_high("/dev/null");
	struct qemu *vm = start(argv, "", nothing);

	close(nothing);
	for (int i = 0; i < 3; i++) {
		ask(vm, 'S', BOOT_MS);
		ask(vm, 'P', BOOT_MS);
	}
	usleep(SETTLE_US);
	send_text(vm->qmp, save);
	do {
		usleep(100000);
		send_text(vm->qmp, "{\"execute\":\"query-migrate\"}");
		read_until(vm->qmp, "\"status\"", ANSWER_MS, text);
		if (strstr(text, "\"error\"") || strstr(text, "\"failed\""))
			die(text);
	} while (strstr(text, "\"completed\"") == NULL);
	end_all();
}

static int64_t ask_new(char *const argv[], char how)
{
	struct question q = make_question(how);
	int64_t begin = now_us(), end;
	struct qemu *vm = start_restored(argv);

	send_text(vm->port, q.text);
	read_answer(vm, &q, ANSWER_MS);
	end = now_us();
	end_all();
	return end - begin;
}

static int64_t ask_standby(char *const argv[], char how)
{
	static char text[TEXT_SIZE];
	struct qemu *vm = start_restored(argv);
	int64_t begin, end;

	read_until(vm->qmp, "\"RESUME\"", ANSWER_MS, text);
	usleep(SETTLE_US);
	begin = now_us();
	ask(vm, how, ANSWER_MS);
	end = now_us();
	end_all();
	return end - begin;
}

static void clones(char *const argv[], size_t count)
{
	int64_t begin = now_us();

	for (size_t i = 0; i < count; i++)
		ask(start_restored(argv), 'S', ANSWER_MS);
	printf("%lld\n", (long long)(now_us() - begin));
	for (size_t i = 0; i < count; i++)
		printf("%d ", (int)running[i].pid);
	printf("\n");
	fflush(stdout);
	while (getchar() != EOF) {
	}
	end_all();
}

static void repeat(int64_t (*work)(char *const argv[], char how),
		   char *const argv[], char how, size_t rounds)
{
	for (size_t i = 0; i < rounds; i++) {
		printf("%lld\n", (long long)work(argv, how));
		fflush(stdout);
	}
}

static size_t number(const char *text)
{
	size_t n = strtoul(text, NULL, 10);

	errno = ERANGE;
	if (n < 1 || n > CLONES_MAX)
		die(text);
	return n;
}

int main(int argc, char **argv)
{
	int at = 1;
	const char *what = argc > 1 ? argv[1] : "";

	while (at < argc && strcmp(argv[at], "--") != 0)
		at++;
	if (argc - at < 2)
		return 2;
	if (strcmp(what, "save") == 0 && at == 2)
		save_once(argv + at + 1);
	else if (strcmp(what, "ask") == 0 && at == 4)
		repeat(ask_new, argv + at + 1, argv[2][0], number(argv[3]));
	else if (strcmp(what, "standby") == 0 && at == 4)
		repeat(ask_standby, argv + at + 1, argv[2][0], number(argv[3]));
	else if (strcmp(what, "clones") == 0 && at == 3)
		clones(argv + at + 1, number(argv[2]));
	else
		return 2;
	return 0;
}
