/* main.c - brigd: the API daemon. Options, then the parts in their order.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/limits.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "app.h"
#include "auth.h"
#include "fd.h"
#include "http.h"
#include "limits.h"
#include "log.h"
#include "meminfo.h"
#include "peer_spawn.h"
#include "pool.h"
#include "runlog.h"
#include "sandbox.h"
#include "snapshot.h"
#include "snapstore.h"
#include "standby.h"
#include "store.h"
#include "template.h"
#include "wire/spawn.h"
#include "worker.h"

#define DEFAULT_STATE "/var/lib/brig"
#define DEFAULT_LISTEN "127.0.0.1:2744"
#define LISTEN_BACKLOG 512
#define BOOT_TIMEOUT_MAX_S 3600u

struct options {
	const char *state;
	const char *listen;
	const char *socket;
	const char *spawn;
	char kernel[PATH_MAX];
	char initrd[PATH_MAX];
	char images[PATH_MAX];
	char key_file[PATH_MAX];
	char database[PATH_MAX];
	char lock[PATH_MAX];
	char snapshots[PATH_MAX];
	unsigned int boot_timeout_s;
	unsigned int pool;
	unsigned int standby;
	unsigned int template_memory_mib; /* 0: a part of all memory */
	bool no_templates;
};

enum option_id {
	OPT_STATE = 1,
	OPT_LISTEN,
	OPT_SOCKET,
	OPT_SPAWN,
	OPT_KERNEL,
	OPT_INITRD,
	OPT_IMAGES,
	OPT_KEY_FILE,
	OPT_BOOT_TIMEOUT,
	OPT_POOL,
	OPT_STANDBY,
	OPT_TEMPLATE_MEMORY,
	OPT_NO_TEMPLATES,
	OPT_HELP,
	OPT_VERSION,
};

static const struct option long_options[] = {
	{ "state", required_argument, NULL, OPT_STATE },
	{ "listen", required_argument, NULL, OPT_LISTEN },
	{ "socket", required_argument, NULL, OPT_SOCKET },
	{ "spawn", required_argument, NULL, OPT_SPAWN },
	{ "kernel", required_argument, NULL, OPT_KERNEL },
	{ "initrd", required_argument, NULL, OPT_INITRD },
	{ "images", required_argument, NULL, OPT_IMAGES },
	{ "key-file", required_argument, NULL, OPT_KEY_FILE },
	{ "boot-timeout", required_argument, NULL, OPT_BOOT_TIMEOUT },
	{ "pool", required_argument, NULL, OPT_POOL },
	{ "standby", required_argument, NULL, OPT_STANDBY },
	{ "template-memory", required_argument, NULL, OPT_TEMPLATE_MEMORY },
	{ "no-templates", no_argument, NULL, OPT_NO_TEMPLATES },
	{ "help", no_argument, NULL, OPT_HELP },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ NULL, 0, NULL, 0 },
};

static const char usage[] =
	"usage: brigd [OPTION]...\n"
	"The brig API daemon.\n"
	"\n"
	"  --state DIR          database, key, snapshots (" DEFAULT_STATE ")\n"
	"  --listen ADDR:PORT   TCP address (" DEFAULT_LISTEN "); - for none\n"
	"  --socket PATH        unix socket to listen on as well\n"
	"  --spawn PATH         brig-spawn's socket (" SPAWN_SOCKET_PATH ")\n"
	"  --kernel FILE        guest kernel (STATE/kernel/vmlinux)\n"
	"  --initrd FILE        guest initramfs (STATE/kernel/initrd.img)\n"
	"  --images DIR         images, NAME.ext4 (STATE/images)\n"
	"  --key-file FILE      API key, made if missing (STATE/key)\n"
	"  --boot-timeout S     seconds until a boot is given up (60)\n"
	"  --pool N             microVMs without a guest that are kept ready\n"
	"                       (2 for each processor)\n"
	"  --standby N          sandboxes of the default template that run ahead\n"
	"                       (2)\n"
	"  --template-memory M  MiB that automatic templates may keep in memory\n"
	"                       (a quarter of all)\n"
	"  --no-templates       make and use no automatic templates\n";

/* --- Options -------------------------------------------------------------------------------- */

static void set_path(char to[PATH_MAX], const char *dir, const char *name)
{
	int n = snprintf(to, PATH_MAX, "%s%s%s", dir,
			 name[0] != '\0' ? "/" : "", name);

	if (n < 0 || n >= PATH_MAX)
		die("path too long: %s", dir);
}

static unsigned int parse_number(const char *text, const char *what,
				 unsigned int min, unsigned int max)
{
	char *end = NULL;
	unsigned long v = strtoul(text, &end, 10);

	if (*text < '0' || *text > '9' || *end != '\0' || v < min || v > max)
		die("not a number of %s from %u to %u: %s", what, min, max,
		    text);
	return (unsigned int)v;
}

static unsigned int default_pool(void)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned int n = cpus > 0 ? (unsigned int)cpus * POOL_PER_CPU : 0;

	if (n < POOL_MIN)
		return POOL_MIN;
	return n < POOL_MAX ? n : POOL_MAX;
}

static void set_option(struct options *o, int id, const char *value)
{
	switch (id) {
	case OPT_STATE:
		o->state = value;
		break;
	case OPT_LISTEN:
		o->listen = value;
		break;
	case OPT_SOCKET:
		o->socket = value;
		break;
	case OPT_SPAWN:
		o->spawn = value;
		break;
	case OPT_KERNEL:
		set_path(o->kernel, value, "");
		break;
	case OPT_INITRD:
		set_path(o->initrd, value, "");
		break;
	case OPT_IMAGES:
		set_path(o->images, value, "");
		break;
	case OPT_KEY_FILE:
		set_path(o->key_file, value, "");
		break;
	case OPT_BOOT_TIMEOUT:
		o->boot_timeout_s =
			parse_number(value, "seconds", 1, BOOT_TIMEOUT_MAX_S);
		break;
	case OPT_STANDBY:
		o->standby = parse_number(value, "sandboxes", 0, STANDBY_MAX);
		break;
	case OPT_POOL:
		o->pool = parse_number(value, "microVMs", 0, POOL_MAX);
		break;
	case OPT_TEMPLATE_MEMORY:
		o->template_memory_mib =
			parse_number(value, "MiB", 1, TEMPLATE_MEMORY_MIB_MAX);
		break;
	case OPT_NO_TEMPLATES:
		o->no_templates = true;
		break;
	case OPT_HELP:
		(void)fputs(usage, stdout);
		exit(EXIT_SUCCESS);
	case OPT_VERSION:
		(void)puts("brigd " BRIG_VERSION);
		exit(EXIT_SUCCESS);
	default:
		(void)fputs(usage, stderr);
		exit(2);
	}
}

static void parse_options(int argc, char **argv, struct options *o)
{
	int id;

	*o = (struct options){
		.state = DEFAULT_STATE,
		.listen = DEFAULT_LISTEN,
		.spawn = SPAWN_SOCKET_PATH,
		.boot_timeout_s = BOOT_TIMEOUT_S,
		.pool = default_pool(),
		.standby = STANDBY_DEFAULT,
	};
	while ((id = getopt_long(argc, argv, "", long_options, NULL)) != -1)
		set_option(o, id, optarg);
	if (optind < argc)
		set_option(o, '?', NULL);
	if (o->kernel[0] == '\0')
		set_path(o->kernel, o->state, "kernel/vmlinux");
	if (o->initrd[0] == '\0')
		set_path(o->initrd, o->state, "kernel/initrd.img");
	if (o->images[0] == '\0')
		set_path(o->images, o->state, "images");
	if (o->key_file[0] == '\0')
		set_path(o->key_file, o->state, "key");
	set_path(o->database, o->state, "brig.db");
	set_path(o->lock, o->state, "brigd.lock");
	set_path(o->snapshots, o->state, "snapshots");
}

/* --- State directory ------------------------------------------------------------------------ */

/* The lock is held until the process ends. */
static void lock_state(const struct options *o)
{
	if (mkdir(o->state, 0700) < 0 && errno != EEXIST)
		die("%s: %s", o->state, strerror(errno));
	int fd = open(o->lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		die("%s: %s", o->lock, strerror(errno));
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		die("%s: another brigd uses this directory (%s)", o->state,
		    strerror(errno));
}

static void load_key(const struct options *o, struct store *store,
		     struct auth *auth)
{
	char key[API_KEY_BYTES];
	uint8_t hash[AUTH_HASH_BYTES];
	int r = auth_read_key_file(o->key_file, key);

	if (r == -EACCES)
		die("%s: must be readable by its owner only (mode 0600)",
		    o->key_file);
	if (r == -EINVAL)
		die("%s: holds no key of 16 or more characters", o->key_file);
	if (r < 0)
		die("%s: %s", o->key_file, strerror(-r));
	auth_hash(key, strlen(key), hash);
	explicit_bzero(key, sizeof(key));
	if (store_put_key(store, STORE_TENANT, "key-file", hash) < 0 ||
	    store_load_keys(store, auth) < 0)
		die("%s: keys cannot be stored", o->database);
}

/* --- Listening -------------------------------------------------------------------------------- */

static void parse_address(const char *text, struct sockaddr_in *ret)
{
	char host[64];
	const char *colon = strrchr(text, ':');
	size_t n = colon == NULL ? 0 : (size_t)(colon - text);
	char *end = NULL;

	if (n == 0 || n >= sizeof(host))
		die("--listen: not ADDR:PORT: %s", text);
	memcpy(host, text, n);
	host[n] = '\0';
	unsigned long port = strtoul(colon + 1, &end, 10);
	*ret = (struct sockaddr_in){ .sin_family = AF_INET,
				     .sin_port = htons((uint16_t)port) };
	if (colon[1] == '\0' || *end != '\0' || port > 65535 ||
	    inet_pton(AF_INET, host, &ret->sin_addr) != 1)
		die("--listen: not ADDR:PORT: %s", text);
}

static void serve(struct http *http, int fd, const char *name)
{
	if (listen(fd, LISTEN_BACKLOG) < 0)
		die("listen on %s: %s", name, strerror(errno));
	if (http_listen(http, fd) < 0)
		die("listen on %s: the HTTP library refuses", name);
	log_info("listening on %s", name);
}

static void listen_tcp(struct http *http, const char *text)
{
	struct sockaddr_in addr;
	socklen_t n = sizeof(addr);
	char name[64];
	int one = 1;

	parse_address(text, &addr);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
	    bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
	    getsockname(fd, (struct sockaddr *)&addr, &n) < 0)
		die("listen on %s: %s", text, strerror(errno));
	(void)snprintf(name, sizeof(name), "%.*s:%u",
		       (int)(strrchr(text, ':') - text), text,
		       ntohs(addr.sin_port));
	serve(http, fd, name);
}

static void listen_unix(struct http *http, const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	if (strlen(path) >= sizeof(addr.sun_path))
		die("--socket: path too long: %s", path);
	memcpy(addr.sun_path, path, strlen(path) + 1);
	/* Ours: the state directory's lock says no other brigd has it. */
	(void)unlink(path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
	    chmod(path, 0660) < 0)
		die("listen on %s: %s", path, strerror(errno));
	serve(http, fd, path);
}

/* --- Signals ---------------------------------------------------------------------------------- */

struct signals {
	struct loop *loop;
	struct loop_fd source;
	struct loop_timer timer; /* at shutdown: patience is over */
	int fd;
};

static void on_signal(struct loop_fd *source, uint32_t events)
{
	struct signals *s = container_of(source, struct signals, source);
	struct signalfd_siginfo info;

	(void)events;
	if (read(s->fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
		log_info("signal %u: shutting down", info.ssi_signo);
	loop_stop(s->loop);
}

static void on_patience(struct loop_timer *timer)
{
	loop_stop(container_of(timer, struct signals, timer)->loop);
}

static void watch_signals(struct loop *loop, struct signals *s)
{
	sigset_t set;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGTERM);
	(void)sigaddset(&set, SIGINT);
	(void)signal(SIGPIPE, SIG_IGN);
	*s = (struct signals){
		.loop = loop,
		.source = { .fd = -1, .on_event = on_signal },
		.timer = { .on_expire = on_patience },
	};
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		die("sigprocmask: %s", strerror(errno));
	s->fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (s->fd < 0 || loop_add(loop, &s->source, s->fd, EPOLLIN) < 0)
		die("signalfd: %s", strerror(errno));
}

/* Five descriptors a sandbox, one a client: the hard limit is meant for us. */
static void raise_file_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		log_warn("RLIMIT_NOFILE: %s; going on", strerror(errno));
}

/* Ends what runs, for at most SHUTDOWN_TIMEOUT_S. */
static void shut_down(struct app *app, struct signals *s)
{
	app->ending = true;
	http_quiesce(app->http);
	pool_stop(app->pool);
	sandbox_set_stop_all(app->sandboxes);
	loop_timer_set(app->loop, &s->timer, SHUTDOWN_TIMEOUT_S * NS_PER_S);
	app->loop->stopping = false;
	while (app->shells.count > 0 && !app->loop->stopping) {
		if (loop_once(app->loop, -1) < 0)
			break;
	}
	if (app->shells.count > 0)
		log_warn("some microVMs did not end in time");
	/* Replies that tell clients of it are still on their way. */
	if (loop_once(app->loop, 0) < 0)
		log_warn("epoll failed; going on");
	loop_timer_del(app->loop, &s->timer);
}

static uint64_t template_bytes(const struct options *o)
{
	uint64_t mib = o->template_memory_mib;

	if (mib == 0)
		mib = meminfo_mib("MemTotal") / TEMPLATE_MEMORY_PART;
	return mib << 20;
}

static void open_state(struct app *app, const struct options *o)
{
	if (store_open(o->database, &app->store) < 0)
		die("%s: cannot be opened", o->database);
	load_key(o, app->store, app->auth);
	app->worker = worker_new(app->loop);
	if (app->worker == NULL)
		die("no thread for the snapshot store");
	app->snapstore = snapstore_open(o->snapshots, app->worker);
	if (app->snapstore == NULL)
		die("%s: cannot be used", o->snapshots);
	snapstore_keep(app->snapstore, template_bytes(o));
}

static void build_app(struct app *app, const struct options *o)
{
	shell_set_init(&app->shells, app->loop, &app->spawn);
	app->runlog = runlog_new(app);
	app->templates =
		template_set_new(app, !o->no_templates, template_bytes(o));
	app->pool = pool_new(app);
	app->sandboxes = sandbox_set_new(app, o->boot_timeout_s);
	app->standbys = standby_set_new(app, o->standby);
	app->http = http_new(app->loop, app);
	if (app->runlog == NULL || app->templates == NULL ||
	    app->pool == NULL || app->standbys == NULL ||
	    app->sandboxes == NULL || app->http == NULL)
		die("out of memory or no database");
	snapshot_drop_orphans(app);
	app->spawn = spawn_peer_new(app->loop, o->spawn, shell_set_exited,
				    &app->shells);
	if (app->spawn == NULL)
		die("out of memory");
	template_set_start(app->templates);
}

static void free_app(struct app *app)
{
	http_free(app->http);
	worker_free(app->worker);
	app->worker = NULL; /* nothing is swept from here on */
	standby_set_free(app->standbys);
	template_set_free(app->templates);
	sandbox_set_free(app->sandboxes);
	pool_free(app->pool);
	shell_set_fini(&app->shells);
	spawn_peer_free(app->spawn);
	runlog_free(app->runlog);
	snapstore_close(app->snapstore);
	store_close(app->store);
}

int main(int argc, char **argv)
{
	static struct options o; /* seven paths: too much for the stack */
	struct loop loop;
	struct signals signals;
	struct auth auth = { .count = 0 };
	struct app app = { .loop = &loop, .auth = &auth };

	log_init("brigd");
	(void)umask(0077);
	parse_options(argc, argv, &o);
	lock_state(&o);
	raise_file_limit();
	if (loop_init(&loop) < 0)
		die("epoll: %s", strerror(errno));
	watch_signals(&loop, &signals);
	app.images_dir = o.images;
	app.kernel_path = o.kernel;
	app.initrd_path = o.initrd;
	app.pool_size = o.pool;
	open_state(&app, &o);
	build_app(&app, &o);
	if (strcmp(o.listen, "-") != 0)
		listen_tcp(app.http, o.listen);
	if (o.socket != NULL)
		listen_unix(app.http, o.socket);

	int r = loop_run(&loop);
	if (r < 0)
		log_error("epoll: %s", strerror(-r));
	shut_down(&app, &signals);
	free_app(&app);
	loop_del(&loop, &signals.source);
	fd_close(&signals.fd);
	loop_fini(&loop);
	log_info("ended");
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
