/* sandbox_start.c - from "creating" to vCPUs that run: turns, shells, claims.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation
 *
 * Each sandbox that starts goes through these steps, and may end in any:
 *
 *   QUEUED  until it is its turn: a boot takes all of a processor, a restore
 *           less, and both are bounded (boots_max, restores_max). Also while
 *           the template that it could start from is being loaded.
 *   LOAD    its snapshot is verified and brought into memory.
 *   SHELL   waits for a shell; there is one at once if the pool had it.
 *   CLAIM   BOOT or RESTORE is sent.
 *   AGENT   the vCPUs run; the rest is in sandbox_vm.c.
 *
 * One deadline covers SHELL to AGENT. LOAD always ends: the worker calls
 * back. QUEUED ends because everybody before it ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "console.h"
#include "fd.h"
#include "id.h"
#include "image.h"
#include "log.h"
#include "pool.h"
#include "sandbox_vm.h"
#include "template.h"
#include "wire/vmm.h"

static struct app *app_of(const struct sandbox *sb)
{
	return sb->set->app;
}

static void begin_step(struct sandbox *sb, enum sandbox_step step)
{
	sb->step = step;
	sb->step_ns = now_ns();
}

static uint64_t step_us(const struct sandbox *sb)
{
	return (now_ns() - sb->step_ns) / 1000;
}

/* --- Boot and restore: what goes to the VMM ------------------------------------------ */

struct claim {
	struct vmm_msg msg;
	size_t nfds;
	int fds[VMM_FDS_MAX];
	bool borrowed[VMM_FDS_MAX]; /* not ours to close */
};

/* Takes over `fd`, which may be -errno. */
static int own(struct claim *c, int fd)
{
	if (fd < 0)
		return fd;
	c->fds[c->nfds++] = fd;
	return 0;
}

static void borrow(struct claim *c, int fd)
{
	c->borrowed[c->nfds] = true;
	c->fds[c->nfds++] = fd;
}

static void claim_close(struct claim *c)
{
	for (size_t i = 0; i < c->nfds; i++) {
		if (!c->borrowed[i])
			fd_close(&c->fds[i]);
	}
}

static int open_file(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static int add_console(struct sandbox *sb, struct claim *c)
{
	struct vmm_console *map = NULL;
	int fd = -1;
	int r = console_make(&fd, &map);

	if (r < 0)
		return r;
	console_free(sb->console);
	sb->console = map;
	return own(c, fd);
}

static int add_top(struct sandbox *sb, struct claim *c)
{
	int fd = snapstore_file(app_of(sb)->snapstore);

	if (fd < 0)
		return fd;
	fd_close(&sb->top_fd);
	sb->top_fd = fd;
	borrow(c, fd);
	return 0;
}

static void add_layers(struct claim *c, const struct saved *below)
{
	for (unsigned int i = 0; below != NULL && i < below->layer_count; i++)
		borrow(c, below->layers[i]->fd);
}

static int fill_boot(struct sandbox *sb, struct claim *c)
{
	const struct app *app = app_of(sb);

	c->msg.type = VMM_BOOT;
	c->msg.u.boot.base_bytes = sb->shape.base_bytes;
	c->msg.u.boot.layers = sb->below != NULL ? sb->below->layer_count : 0;
	int r = own(c, open_file(app->kernel_path));
	if (r == 0)
		r = own(c, open_file(app->initrd_path));
	if (r == 0)
		r = add_console(sb, c);
	if (r == 0)
		r = own(c, image_open_shape(app->images_dir, &sb->shape));
	if (r == 0)
		r = add_top(sb, c);
	if (r == 0)
		add_layers(c, sb->below);
	return r;
}

static int fill_restore(struct sandbox *sb, struct claim *c,
			enum vmm_msg_type type)
{
	const struct saved *s = sb->from;

	c->msg.type = type;
	c->msg.u.restore.base_bytes = sb->shape.base_bytes;
	c->msg.u.restore.layers = s->layer_count;
	borrow(c, s->state->fd);
	borrow(c, s->base->fd);
	int r = add_console(sb, c);
	if (r == 0)
		r = own(c,
			image_open_shape(app_of(sb)->images_dir, &sb->shape));
	if (r < 0)
		return r;
	if (s->delta != NULL) {
		c->msg.u.restore.flags = VMM_RESTORE_DELTA;
		borrow(c, s->delta->fd);
	}
	if (sb->rehearsal)
		c->msg.u.restore.flags |= VMM_RESTORE_REHEARSAL;
	if (s->base->working_set_fd >= 0) {
		c->msg.u.restore.flags |= VMM_RESTORE_WORKING_SET;
		borrow(c, s->base->working_set_fd);
	}
	add_layers(c, s);
	return add_top(sb, c);
}

static int send_claim(struct sandbox *sb, enum vmm_msg_type type)
{
	struct claim c;

	memset(&c, 0, sizeof(c));
	int r = type == VMM_BOOT ? fill_boot(sb, &c)
				 : fill_restore(sb, &c, type);
	if (r == 0)
		r = vmm_peer_send(sandbox_vmm(sb), &c.msg, c.fds, c.nfds,
				  CLAIM_TIMEOUT_S, &sb->claim_call);
	claim_close(&c);
	return r;
}

static const char *reason_of(int error)
{
	switch (error) {
	case -EBADMSG:
		return "state_damaged";
	case -ENOTSUP:
		return "state_version";
	case -ESTALE:
		return "image_changed";
	case -ENOSPC:
		return "host_disk_full";
	default:
		return "vmm_error";
	}
}

static void start_failed(struct sandbox *sb, const char *what, int error)
{
	log_error("sandbox=%s %s: %s", sb->id, what, strerror(-error));
	sandbox_set_ended(sb, SANDBOX_FAILED, reason_of(error));
}

static void on_claimed(struct vmm_call *call, int status, int fd,
		       const struct vmm_msg *msg)
{
	struct sandbox *sb = container_of(call, struct sandbox, claim_call);

	(void)fd;
	(void)msg;
	/* Of a VMM that is gone there are last words. */
	if (status < 0 && status != -EPIPE)
		start_failed(sb, "claim", status);
}

void sandbox_start_claim(struct sandbox *sb)
{
	sb->receipt.claim_us = step_us(sb);
	begin_step(sb, STEP_CLAIM);
	int r = send_claim(sb, sb->from != NULL ? VMM_RESTORE : VMM_BOOT);
	if (r < 0)
		start_failed(sb, "claim", r);
}

void sandbox_start_running(struct sandbox *sb)
{
	sb->receipt.restore_us = step_us(sb);
	begin_step(sb, STEP_AGENT);
}

void sandbox_start_over(struct sandbox *sb)
{
	ASSERT(sb->state == SANDBOX_RUNNING && sb->ready != NULL);
	sandbox_set_creating(sb);
	sb->receipt = (struct receipt){ .valid = false };
	sb->started_ns = now_ns();
	begin_step(sb, STEP_AGENT);
	loop_timer_set(app_of(sb)->loop, &sb->timer,
		       sb->set->boot_timeout_s * NS_PER_S);
	sandbox_vm_configure(sb);
}

int sandbox_reset(struct sandbox *sb, struct fault *fault)
{
	ASSERT(sb->state == SANDBOX_RUNNING && sb->template_as_made);
	sandbox_set_creating(sb);
	sandbox_vm_forget_agent(sb);
	sb->receipt = (struct receipt){ .valid = false };
	sb->started_ns = now_ns();
	begin_step(sb, STEP_CLAIM);
	loop_timer_set(app_of(sb)->loop, &sb->timer,
		       sb->set->boot_timeout_s * NS_PER_S);
	int r = send_claim(sb, VMM_RESET);
	if (r < 0) {
		start_failed(sb, "reset", r);
		return fault_set(fault, 503, "reset_failed",
				 "the sandbox cannot be reset: %s",
				 strerror(-r));
	}
	saved_unref(sb->below);
	sb->below = saved_ref(sb->from);
	return 0;
}

/* --- Loading what it starts from -------------------------------------------------------- */

struct sandbox_load {
	struct snap_load load;
	struct sandbox *sb; /* NULL: nobody waits any more */
};

static bool is_loaded(const struct sandbox *sb)
{
	return sb->below != NULL;
}

/* The machine to go on from, or the disk to boot with. */
static void use_saved(struct sandbox *sb, struct saved *saved)
{
	sb->below = saved_ref(saved);
	sb->from = saved->state != NULL ? saved_ref(saved) : NULL;
	sb->shape.base_bytes = saved->shape.base_bytes;
	memcpy(sb->shape.image_hash, saved->shape.image_hash,
	       sizeof(sb->shape.image_hash));
}

static void on_loaded(struct snap_load *l, int error, struct saved *saved)
{
	struct sandbox_load *load = container_of(l, struct sandbox_load, load);
	struct sandbox *sb = load->sb;

	free(load);
	if (sb != NULL) {
		sb->load = NULL;
		sb->step = STEP_QUEUED;
		if (error < 0)
			start_failed(sb, "load", error);
		else if (!shape_equal(&saved->shape, &sb->shape))
			start_failed(sb, "load", -ESTALE);
		else
			use_saved(sb, saved);
		sandbox_start_next(sb->set);
	}
	saved_unref(saved);
}

static void start_load(struct sandbox *sb)
{
	struct sandbox_load *load = calloc(1, sizeof(*load));

	if (load == NULL) {
		start_failed(sb, "load", -ENOMEM);
		return;
	}
	load->sb = sb;
	load->load.on_done = on_loaded;
	sb->load = load;
	begin_step(sb, STEP_LOAD);
	snapstore_load(app_of(sb)->snapstore, sb->snapshot, &load->load);
}

/* --- Shells --------------------------------------------------------------------------------- */

static void get_kind(const struct sandbox *sb, struct shell_kind *ret)
{
	*ret = (struct shell_kind){
		.vcpus = sb->shape.vcpus,
		.memory_mib = sb->shape.memory_mib,
		.cpu_quota_percent = sb->cpus * 25,
		.disk_bytes = sb->shape.disk_bytes,
	};
}

/* A shell for a sandbox that goes on under the id it has. */
static int get_shell(struct sandbox *sb)
{
	struct app *app = app_of(sb);
	struct shell_kind kind;
	char id[BRIG_ID_BYTES];

	get_kind(sb, &kind);
	/* One that was ended may still have the cgroup of our id. */
	memcpy(id, sb->id, sizeof(id));
	if (sb->id_used) {
		sb->shell = pool_take(app->pool, &kind);
		id_make(id, "sb_");
	}
	sb->id_used = true;
	if (sb->shell == NULL)
		return shell_start(&app->shells, id, &kind,
				   &sandbox_shell_events, sb, &sb->shell);
	shell_own(sb->shell, &sandbox_shell_events, sb);
	return 0;
}

static int begin(struct sandbox *sb)
{
	int r = sb->shell == NULL ? get_shell(sb) : 0;

	if (r < 0)
		return r;
	loop_timer_set(app_of(sb)->loop, &sb->timer,
		       sb->set->boot_timeout_s * NS_PER_S);
	begin_step(sb, STEP_SHELL);
	if (sb->shell->built)
		sandbox_start_claim(sb);
	return 0;
}

/* --- Taking turns ------------------------------------------------------------------------------ */

/* How many are between SHELL and ready. */
struct turns {
	unsigned int boots;
	unsigned int restores;
};

static struct turns count_turns(const struct sandbox_set *set)
{
	struct turns t = { 0 };
	const struct sandbox *sb;

	TAILQ_FOREACH(sb, &set->list, link) {
		if (sb->step >= STEP_SHELL && sb->from != NULL)
			t.restores++;
		else if (sb->step >= STEP_SHELL)
			t.boots++;
	}
	return t;
}

/* True: it is this one's turn, and counted. */
static bool take_turn(const struct sandbox *sb, struct turns *t)
{
	unsigned int *n = sb->from != NULL ? &t->restores : &t->boots;
	unsigned int max =
		sb->from != NULL ? sb->set->restores_max : sb->set->boots_max;

	if (*n >= max)
		return false;
	(*n)++;
	return true;
}

/* False: it has to wait for its template. */
static bool find_template(struct sandbox *sb)
{
	const struct template *t = NULL;

	switch (template_for(app_of(sb)->templates, &sb->shape, &t)) {
	case TEMPLATE_COMES:
		return false;
	case TEMPLATE_NONE:
		sb->may_use_template = false;
		return true;
	case TEMPLATE_THERE:
		break;
	}
	use_saved(sb, t->saved);
	sb->origin = ORIGIN_TEMPLATE;
	sb->template_as_made = true;
	memcpy(sb->template_name, t->name, sizeof(sb->template_name));
	memcpy(sb->parent, t->snapshot, sizeof(sb->parent));
	return true;
}

/* Brings one in the queue a step further, if it can go. 0 or -errno. */
static int advance(struct sandbox *sb, struct turns *turns)
{
	if (sb->snapshot[0] != '\0' && !is_loaded(sb)) {
		start_load(sb);
		return 0;
	}
	if (sb->may_use_template && !is_loaded(sb) && !find_template(sb))
		return 0;
	return take_turn(sb, turns) ? begin(sb) : 0;
}

static void on_next_start(struct loop_timer *timer)
{
	struct sandbox_set *set =
		container_of(timer, struct sandbox_set, next_start);
	struct turns turns = count_turns(set);
	struct sandbox *sb;

	TAILQ_FOREACH(sb, &set->list, link) {
		if (sb->step != STEP_QUEUED || sb->state != SANDBOX_CREATING)
			continue;
		int r = advance(sb, &turns);
		if (r < 0)
			start_failed(sb, "start", r);
	}
}

void sandbox_start_next(struct sandbox_set *set)
{
	loop_timer_set(set->app->loop, &set->next_start, 0);
}

int sandbox_start(struct sandbox *sb)
{
	struct turns turns = count_turns(sb->set);

	sb->started_ns = now_ns();
	sb->receipt = (struct receipt){ .valid = false };
	begin_step(sb, STEP_QUEUED);
	return advance(sb, &turns);
}

void sandbox_start_end(struct sandbox *sb)
{
	sb->step = STEP_NONE;
	vmm_peer_cancel(sandbox_vmm(sb), &sb->claim_call);
	if (sb->load != NULL)
		sb->load->sb = NULL;
	sb->load = NULL;
}

void sandbox_start_init(struct sandbox *sb)
{
	sb->claim_call.on_reply = on_claimed;
}

/* A boot takes all of a processor: more at once than there are processors
 * would only make each take longer, up to its deadline. */
void sandbox_start_init_set(struct sandbox_set *set)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	set->boots_max = cpus > BOOTS_MIN ? (unsigned int)cpus : BOOTS_MIN;
	set->restores_max = set->boots_max + set->app->pool_size;
	set->next_start.on_expire = on_next_start;
}
