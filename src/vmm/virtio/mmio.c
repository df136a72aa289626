/* mmio.c - the virtio-mmio transport, version 2 (virtio 1.2, 4.2).
 * SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation. A driver brings a device up in one order only (virtio
 * 1.2, 3.1.1), one status bit in each write:
 *
 *   0 -> ACKNOWLEDGE -> DRIVER -> FEATURES_OK -> DRIVER_OK
 *          features are written here ^      ^ queues are set up here
 *
 * Any other write of the status register is ignored, but for two: 0 resets
 * from everywhere, and FAILED may be added everywhere. Registers can be
 * written only in the step to which they belong. So after DRIVER_OK they are
 * frozen; what devices use then is the checked copy in struct virtio_dev.
 *
 * NEEDS_RESET belongs to the device: what a driver writes there is ignored. A
 * device that needs a reset, or whose driver gave up (FAILED), stays as it
 * is until status is 0.
 *
 * Threads: see virtio.h. Everything here runs under vmm_lock, but for the two
 * interrupt registers, which a guest touches on each interrupt: they must not
 * wait for a disk.
 */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "log.h"
#include "num.h"
#include "virtio.h"

/* virtio 1.2, 4.2.2 */
enum reg {
	REG_MAGIC = 0x000,
	REG_VERSION = 0x004,
	REG_DEVICE_ID = 0x008,
	REG_VENDOR_ID = 0x00c,
	REG_DEVICE_FEATURES = 0x010,
	REG_DEVICE_FEATURES_SEL = 0x014,
	REG_DRIVER_FEATURES = 0x020,
	REG_DRIVER_FEATURES_SEL = 0x024,
	REG_QUEUE_SEL = 0x030,
	REG_QUEUE_NUM_MAX = 0x034,
	REG_QUEUE_NUM = 0x038,
	REG_QUEUE_READY = 0x044,
	REG_QUEUE_NOTIFY = 0x050,
	REG_INTERRUPT_STATUS = 0x060,
	REG_INTERRUPT_ACK = 0x064,
	REG_STATUS = 0x070,
	REG_QUEUE_DESC_LOW = 0x080,
	REG_QUEUE_DESC_HIGH = 0x084,
	REG_QUEUE_AVAIL_LOW = 0x090,
	REG_QUEUE_AVAIL_HIGH = 0x094,
	REG_QUEUE_USED_LOW = 0x0a0,
	REG_QUEUE_USED_HIGH = 0x0a4,
	REG_SHM_LEN_LOW = 0x0b0,
	REG_SHM_LEN_HIGH = 0x0b4,
	REG_SHM_BASE_LOW = 0x0b8,
	REG_SHM_BASE_HIGH = 0x0bc,
	REG_CONFIG = 0x100,
};

#define MAGIC 0x74726976u /* "virt" */
#define VERSION 2u
#define VENDOR_ID 0x67697262u /* "brig" */

/* virtio 1.2, 2.1 */
enum status {
	S_ACKNOWLEDGE = 1,
	S_DRIVER = 2,
	S_DRIVER_OK = 4,
	S_FEATURES_OK = 8,
	S_NEEDS_RESET = 64,
	S_FAILED = 128,
};

/* virtio 1.2, 4.2.2: InterruptStatus */
#define INT_USED 1u
#define INT_CONFIG 2u

/* Lines that one device may log about its driver's mistakes. */
#define LOG_LINES_MAX 4u

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void vmm_lock(void)
{
	int r = pthread_mutex_lock(&lock);

	ASSERT(r == 0);
}

void vmm_unlock(void)
{
	int r = pthread_mutex_unlock(&lock);

	ASSERT(r == 0);
}

void virtio_init(struct virtio_dev *d, const struct virtio_model *model,
		 struct gmem *mem, void *self, const uint8_t *config,
		 uint16_t config_len, int irq_fd)
{
	memset(d, 0, sizeof(*d));
	d->model = model;
	d->mem = mem;
	d->self = self;
	d->config = config;
	d->config_len = config_len;
	d->irq_fd = irq_fd;
}

static uint64_t offered(const struct virtio_dev *d)
{
	return d->model->features | VIRTIO_FEATURE_VERSION_1;
}

static uint16_t queue_max(const struct virtio_dev *d, uint32_t q)
{
	return q < VIRTIO_QUEUES_MAX ? d->model->queue_max[q] : 0;
}

bool virtio_usable(const struct virtio_dev *d, unsigned int q)
{
	return d->active && q < VIRTIO_QUEUES_MAX && d->queues[q].size != 0 &&
	       (d->mmio.status & (S_NEEDS_RESET | S_FAILED)) == 0;
}

static void interrupt(struct virtio_dev *d, uint32_t bit)
{
	uint64_t one = 1;
	ssize_t n;

	atomic_fetch_or(&d->interrupt_status, bit);
	n = write(d->irq_fd, &one, sizeof(one));
	(void)n; /* only a full counter can fail: an interrupt is pending */
}

/* --- what a model calls ---------------------------------------------------- */

int virtio_pop(struct virtio_dev *d, unsigned int q, struct queue_chain *ret)
{
	int r;

	if (!virtio_usable(d, q))
		return 0;
	r = queue_pop(&d->queues[q], d->mem, ret);
	if (r < 0)
		virtio_needs_reset(d, "bad chain");
	return r;
}

int virtio_push(struct virtio_dev *d, unsigned int q, uint16_t head,
		uint32_t written)
{
	int r;

	if (!virtio_usable(d, q))
		return -EPROTO;
	r = queue_push(&d->queues[q], d->mem, head, written);
	if (r < 0)
		virtio_needs_reset(d, "bad used ring");
	return r;
}

void virtio_interrupt(struct virtio_dev *d, unsigned int q)
{
	bool wanted = false;

	if (!virtio_usable(d, q))
		return;
	if (queue_wants_interrupt(&d->queues[q], d->mem, &wanted) < 0)
		virtio_needs_reset(d, "bad available ring");
	else if (wanted)
		interrupt(d, INT_USED);
}

void virtio_needs_reset(struct virtio_dev *d, const char *why)
{
	if ((d->mmio.status & S_NEEDS_RESET) != 0)
		return;
	d->mmio.status |= S_NEEDS_RESET;
	if (d->needs_reset_count < UINT32_MAX)
		d->needs_reset_count++;
	if (d->needs_reset_count <= LOG_LINES_MAX)
		log_warn("device=%s needs_reset=%u why=\"%s\"", d->model->name,
			 d->needs_reset_count, why);
	interrupt(d, INT_CONFIG);
}

/* --- status ---------------------------------------------------------------- */

static void reset(struct virtio_dev *d)
{
	if (d->active && d->model->reset != NULL)
		d->model->reset(d);
	d->active = false;
	d->features = 0;
	memset(d->queues, 0, sizeof(d->queues));
	memset(&d->mmio, 0, sizeof(d->mmio));
	atomic_store(&d->interrupt_status, 0);
}

/* Checks and freezes queue `i`; a queue that is not ready stays unused. */
static int freeze_queue(struct virtio_dev *d, unsigned int i)
{
	uint32_t num = d->mmio.queue[i].num;

	if (d->mmio.queue[i].ready == 0)
		return 0;
	if (num > queue_max(d, i))
		return -EINVAL;
	return queue_activate(d->mem, (uint16_t)num, queue_max(d, i),
			      GPA(d->mmio.queue[i].desc),
			      GPA(d->mmio.queue[i].avail),
			      GPA(d->mmio.queue[i].used), &d->queues[i]);
}

/* From the registers, which a driver or a file gave. */
static int activate(struct virtio_dev *d)
{
	int r = 0;

	for (unsigned int i = 0; i < VIRTIO_QUEUES_MAX && r == 0; i++)
		r = freeze_queue(d, i);
	d->features = d->mmio.driver_features;
	d->active = true;
	if (r == 0 && d->model->activate != NULL)
		r = d->model->activate(d);
	if (r == 0)
		return 0;
	d->active = false;
	d->features = 0;
	memset(d->queues, 0, sizeof(d->queues));
	return r;
}

static void driver_ok(struct virtio_dev *d)
{
	d->mmio.status |= S_DRIVER_OK;
	if (activate(d) < 0)
		virtio_needs_reset(d, "cannot activate");
}

static bool features_are_acceptable(const struct virtio_dev *d,
				    uint64_t features)
{
	return (features & ~offered(d)) == 0 &&
	       (features & VIRTIO_FEATURE_VERSION_1) != 0;
}

static void write_status(struct virtio_dev *d, uint32_t v)
{
	uint32_t had = d->mmio.status & ~(uint32_t)S_NEEDS_RESET;
	uint32_t gained = v & ~had & ~(uint32_t)S_NEEDS_RESET;

	if (v == 0) {
		reset(d);
		return;
	}
	if ((v & had) != had)
		return; /* bits cannot be taken back */
	if (gained == S_FAILED) {
		d->mmio.status |= S_FAILED;
		return;
	}
	if ((d->mmio.status & (S_NEEDS_RESET | S_FAILED)) != 0)
		return;

	if (had == 0 && gained == S_ACKNOWLEDGE)
		d->mmio.status |= S_ACKNOWLEDGE;
	else if (had == S_ACKNOWLEDGE && gained == S_DRIVER)
		d->mmio.status |= S_DRIVER;
	else if (had == (S_ACKNOWLEDGE | S_DRIVER) && gained == S_FEATURES_OK) {
		/* the driver reads the bit back to learn whether it is set */
		if (features_are_acceptable(d, d->mmio.driver_features))
			d->mmio.status |= S_FEATURES_OK;
	} else if (had == (S_ACKNOWLEDGE | S_DRIVER | S_FEATURES_OK) &&
		   gained == S_DRIVER_OK)
		driver_ok(d);
}

/* --- the other registers --------------------------------------------------- */

static uint32_t half(uint64_t v, uint32_t sel)
{
	return sel > 1 ? 0 : (uint32_t)(v >> (32 * sel));
}

static void set_half(uint64_t *to, uint32_t sel, uint32_t v)
{
	unsigned int shift = 32 * sel;

	if (sel > 1)
		return;
	*to = (*to & ~(UINT64_C(0xffffffff) << shift)) | (uint64_t)v << shift;
}

static uint32_t read_reg(const struct virtio_dev *d, uint64_t offset)
{
	uint32_t sel = d->mmio.queue_sel;

	switch (offset) {
	case REG_DEVICE_ID:
		return d->model->id;
	case REG_VENDOR_ID:
		return VENDOR_ID;
	case REG_DEVICE_FEATURES:
		return half(offered(d), d->mmio.features_sel);
	case REG_QUEUE_NUM_MAX:
		return queue_max(d, sel);
	case REG_QUEUE_READY:
		return queue_max(d, sel) != 0 ? d->mmio.queue[sel].ready : 0;
	case REG_STATUS:
		return d->mmio.status;
	case REG_SHM_LEN_LOW:
	case REG_SHM_LEN_HIGH:
	case REG_SHM_BASE_LOW:
	case REG_SHM_BASE_HIGH:
		return UINT32_MAX; /* no such region (virtio 1.2, 4.2.2) */
	default:
		/* write-only, unknown, or 0 for a device whose configuration
		 * never changes: ConfigGeneration */
		return 0;
	}
}

/* Registers of the selected queue: only between FEATURES_OK and DRIVER_OK,
 * and, QueueReady apart, only while the queue is not ready. */
static void write_queue_reg(struct virtio_dev *d, uint64_t offset, uint32_t v)
{
	uint32_t sel = d->mmio.queue_sel;

	if (d->mmio.status != (S_ACKNOWLEDGE | S_DRIVER | S_FEATURES_OK) ||
	    queue_max(d, sel) == 0)
		return;
	if (offset == REG_QUEUE_READY) {
		if (v <= 1)
			d->mmio.queue[sel].ready = v;
		return;
	}
	if (d->mmio.queue[sel].ready != 0)
		return;
	switch (offset) {
	case REG_QUEUE_NUM:
		d->mmio.queue[sel].num = v;
		break;
	case REG_QUEUE_DESC_LOW:
	case REG_QUEUE_DESC_HIGH:
		set_half(&d->mmio.queue[sel].desc,
			 offset == REG_QUEUE_DESC_HIGH, v);
		break;
	case REG_QUEUE_AVAIL_LOW:
	case REG_QUEUE_AVAIL_HIGH:
		set_half(&d->mmio.queue[sel].avail,
			 offset == REG_QUEUE_AVAIL_HIGH, v);
		break;
	case REG_QUEUE_USED_LOW:
	case REG_QUEUE_USED_HIGH:
		set_half(&d->mmio.queue[sel].used,
			 offset == REG_QUEUE_USED_HIGH, v);
		break;
	default:
		break;
	}
}

static void write_reg(struct virtio_dev *d, uint64_t offset, uint32_t v)
{
	switch (offset) {
	case REG_DEVICE_FEATURES_SEL:
		d->mmio.features_sel = v;
		break;
	case REG_DRIVER_FEATURES_SEL:
		d->mmio.driver_features_sel = v;
		break;
	case REG_DRIVER_FEATURES:
		if (d->mmio.status == (S_ACKNOWLEDGE | S_DRIVER))
			set_half(&d->mmio.driver_features,
				 d->mmio.driver_features_sel, v);
		break;
	case REG_QUEUE_SEL:
		d->mmio.queue_sel = v;
		break;
	case REG_STATUS:
		write_status(d, v);
		break;
	default:
		write_queue_reg(d, offset, v);
		break;
	}
}

/* --- what the machine calls ------------------------------------------------ */

static void read_config(const struct virtio_dev *d, uint64_t at, uint8_t *to,
			uint32_t len)
{
	for (uint32_t i = 0; i < len; i++) {
		if (at + i < d->config_len)
			to[i] = d->config[at + i];
	}
}

void virtio_mmio_read(struct virtio_dev *d, uint64_t offset, void *data,
		      uint32_t len)
{
	uint32_t v = 0;

	memset(data, 0, len);
	if (offset >= REG_CONFIG) {
		if (d != NULL)
			read_config(d, offset - REG_CONFIG, data, len);
		return;
	}
	if (len != sizeof(v))
		return; /* virtio 1.2, 4.2.2.2: 32 bits wide and aligned */
	if (offset == REG_MAGIC) {
		v = MAGIC;
	} else if (offset == REG_VERSION) {
		v = VERSION;
	} else if (d != NULL && offset == REG_INTERRUPT_STATUS) {
		v = atomic_load(&d->interrupt_status);
	} else if (d != NULL) {
		vmm_lock();
		v = read_reg(d, offset);
		vmm_unlock();
	}
	memcpy(data, &v, sizeof(v));
}

void virtio_mmio_write(struct virtio_dev *d, uint64_t offset, const void *data,
		       uint32_t len)
{
	uint32_t v;

	/* the configuration space is read only */
	if (d == NULL || offset >= REG_CONFIG || len != sizeof(v))
		return;
	v = load_le32(data);
	if (offset == REG_INTERRUPT_ACK) {
		atomic_fetch_and(&d->interrupt_status, ~v);
		return;
	}
	if (offset == REG_QUEUE_NOTIFY) {
		virtio_kick(d, v);
		return;
	}
	vmm_lock();
	write_reg(d, offset, v);
	vmm_unlock();
}

void virtio_kick(struct virtio_dev *d, unsigned int q)
{
	vmm_lock();
	if (virtio_usable(d, q) && d->model->notify != NULL)
		d->model->notify(d, q);
	vmm_unlock();
}

/* --- saved state ----------------------------------------------------------- */

/* What of a device is in a file; the rest follows from it. */
struct saved {
	struct virtio_mmio regs;
	uint32_t interrupts;
	bool active;
	uint16_t next[VIRTIO_QUEUES_MAX]; /* where a queue goes on */
};

/* A chain that was popped and not pushed counts as not popped: rings go on
 * where the used index stands, and nothing is in flight in a file. */
static struct saved collect(struct virtio_dev *d)
{
	struct saved f = {
		.regs = d->mmio,
		.interrupts = atomic_load(&d->interrupt_status),
		.active = d->active,
	};

	for (unsigned int i = 0; i < VIRTIO_QUEUES_MAX; i++)
		f.next[i] = d->queues[i].next_used;
	return f;
}

static void saved_state(struct state_stream *s, struct virtio_dev *d,
			struct saved *f)
{
	uint32_t id = d->model->id;

	state_begin(s, "virtio", 1);
	state_u32(s, "device_id", &id, id, id);
	state_u32(s, "status", &f->regs.status, 0, UINT8_MAX);
	state_bool(s, "active", &f->active);
	state_u32(s, "interrupt_status", &f->interrupts, 0,
		  INT_USED | INT_CONFIG);
	state_u32(s, "features_sel", &f->regs.features_sel, 0, UINT32_MAX);
	state_u32(s, "driver_features_sel", &f->regs.driver_features_sel, 0,
		  UINT32_MAX);
	state_u64(s, "driver_features", &f->regs.driver_features, 0,
		  UINT64_MAX);
	state_u32(s, "queue_sel", &f->regs.queue_sel, 0, UINT32_MAX);
	for (unsigned int i = 0; i < VIRTIO_QUEUES_MAX; i++) {
		if (d->model->queue_max[i] == 0)
			break;
		state_begin(s, "queue", 1);
		state_u32(s, "num", &f->regs.queue[i].num, 0, UINT32_MAX);
		state_u32(s, "ready", &f->regs.queue[i].ready, 0, 1);
		state_u64(s, "desc", &f->regs.queue[i].desc, 0, UINT64_MAX);
		state_u64(s, "avail", &f->regs.queue[i].avail, 0, UINT64_MAX);
		state_u64(s, "used", &f->regs.queue[i].used, 0, UINT64_MAX);
		state_u16(s, "next", &f->next[i], 0, UINT16_MAX);
		state_end(s);
	}
	state_end(s);
}

/* Whether write_status() can have led there. */
static bool is_reachable(uint32_t status, bool active)
{
	switch (status & ~(uint32_t)(S_NEEDS_RESET | S_FAILED)) {
	case 0:
	case S_ACKNOWLEDGE:
	case S_ACKNOWLEDGE | S_DRIVER:
	case S_ACKNOWLEDGE | S_DRIVER | S_FEATURES_OK:
		return !active && (status & S_NEEDS_RESET) == 0;
	case S_ACKNOWLEDGE | S_DRIVER | S_FEATURES_OK | S_DRIVER_OK:
		return active || (status & S_NEEDS_RESET) != 0;
	default:
		return false;
	}
}

/* Nothing is written to the registers of a queue before FEATURES_OK, and no
 * ring moves before DRIVER_OK. */
static bool queue_is_reachable(const struct saved *f, unsigned int i)
{
	bool touched =
		f->regs.queue[i].num != 0 || f->regs.queue[i].ready != 0 ||
		f->regs.queue[i].desc != 0 || f->regs.queue[i].avail != 0 ||
		f->regs.queue[i].used != 0;

	if (touched && (f->regs.status & S_FEATURES_OK) == 0)
		return false;
	return f->next[i] == 0 || (f->active && f->regs.queue[i].ready != 0);
}

/* NULL, or what no driver can have brought about. */
static const char *find_fault(const struct virtio_dev *d, const struct saved *f)
{
	uint32_t status = f->regs.status;
	uint64_t features = f->regs.driver_features;

	if (!is_reachable(status, f->active))
		return "status";
	if ((status & S_DRIVER) == 0 && features != 0)
		return "features before DRIVER";
	if ((status & S_FEATURES_OK) != 0 &&
	    !features_are_acceptable(d, features))
		return "features not offered";
	if ((f->interrupts & INT_USED) != 0 && !f->active)
		return "interrupt of an inactive device";
	if ((f->interrupts & INT_CONFIG) != 0 && (status & S_NEEDS_RESET) == 0)
		return "interrupt without a cause";
	for (unsigned int i = 0; i < VIRTIO_QUEUES_MAX; i++)
		if (!queue_is_reachable(f, i))
			return "queue";
	return NULL;
}

static const char *load(struct virtio_dev *d, const struct saved *f)
{
	const char *fault = find_fault(d, f);

	if (fault != NULL)
		return fault;
	d->mmio = f->regs;
	atomic_store(&d->interrupt_status, f->interrupts);
	if (!f->active)
		return NULL;
	if (activate(d) < 0)
		return "queues";
	for (unsigned int i = 0; i < VIRTIO_QUEUES_MAX; i++) {
		d->queues[i].next_avail = f->next[i];
		d->queues[i].next_used = f->next[i];
	}
	return NULL;
}

void virtio_state(struct state_stream *s, struct virtio_dev *d)
{
	struct saved f;
	const char *fault;

	if (s->loading)
		reset(d);
	f = collect(d);
	saved_state(s, d, &f);
	if (!s->loading || !state_ok(s))
		return;
	fault = load(d, &f);
	if (fault == NULL)
		return;
	state_fail(s, fault);
	reset(d);
}

void virtio_restored(struct virtio_dev *d)
{
	vmm_lock();
	/* One too many does no harm: the driver looks and finds nothing. */
	if (d->active && (d->mmio.status & (S_NEEDS_RESET | S_FAILED)) == 0)
		interrupt(d, INT_USED);
	else if (atomic_load(&d->interrupt_status) != 0)
		interrupt(d, 0);
	for (unsigned int q = 0; q < VIRTIO_QUEUES_MAX; q++)
		if (virtio_usable(d, q) && d->model->notify != NULL)
			d->model->notify(d, q);
	vmm_unlock();
}
