/* state.c - any saved state of the devices, then a driver that goes on.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Input: u16 length, so many bytes of a state file (its size and CRC are set
 * here, so only its content counts), then a script, one byte and its operands
 * for each step:
 *   0  register write: device (1), register (1, times 4), value (4)
 *   1  kick: device and queue (1)
 *   2  write low memory: offset (2), length (1), bytes
 *   3  descriptor: ring and index (1), offset (2), length (2), flags (1), next
 *   4  offer a head: ring (1), head (1)
 *   5  serial port: register and direction (1), value (1)
 *   6  brigd connects to the guest
 *   7  bring a device up anew (1)
 *
 * A file that is accepted must be a state that a driver can bring about: what
 * holds of any device is checked, and saved again it is the same file.
 *
 * With BRIG_FUZZ_SEEDS=DIR in the environment it writes seeds there and ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "../unit/ring.h"
#include "../unit/statefile.h"
#include "script.h"
#include "src/vmm/dev/blk.h"
#include "src/vmm/dev/rng.h"
#include "src/vmm/dev/serial.h"
#include "src/vmm/dev/vsock.h"
#include "wire/boot.h"

#define DISK_BYTES (40ull << 20) /* three chunks of map */
#define LAYERS 2u
#define DATA_AT 0x8000u
#define FILE_MAX 16384u
#define RINGS 5u /* blk, vsock rx, tx, event, rng */
#define RING_SIZE 8u

int LLVMFuzzerInitialize(int *argc, char ***argv);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max,
			       unsigned int seed);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct guest guest;
static struct ring rings[RINGS];
static struct vmm_console console;
static struct {
	struct serial serial;
	struct cow cow;
	struct blk blk;
	struct vsock vsock;
	struct rng rng;
	uint8_t *map;
	uint8_t *buffers;
	int epoll_fd;
	int irq_fd;
} m;

/* --- the machine ------------------------------------------------------------------ */

static int empty_file(void)
{
	int fd = memfd_create("file", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, (off_t)DISK_BYTES) < 0)
		abort();
	return fd;
}

static void *anonymous(size_t n)
{
	void *p = mmap(NULL, n, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		abort();
	return p;
}

static int on_accept(void *arg, uint32_t port, int fd)
{
	(void)arg;
	(void)port;
	close(fd);
	return 0;
}

static void rings_init(void)
{
	for (uint32_t i = 0; i < RINGS; i++)
		ring_init(&rings[i], &guest, RING_SIZE, 0x1000 + 0x400 * i);
}

static void set_up(void)
{
	int sealed[LAYERS] = { empty_file(), empty_file() };

	guest_init(&guest);
	m.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	m.irq_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	m.map = anonymous(cow_map_bytes(DISK_BYTES));
	m.buffers = anonymous(VSOCK_BUFFERS_BYTES);
	if (m.epoll_fd < 0 || m.irq_fd < 0 ||
	    cow_init(&m.cow, DISK_BYTES, m.map) < 0 ||
	    cow_open(&m.cow, empty_file(), DISK_BYTES / 2, sealed, LAYERS,
		     empty_file()) < 0)
		abort();
}

/* Devices as in a new process; the files of the disk stay. */
static void start(void)
{
	memset(guest.mem.regions[0].host, 0, GUEST_LOW_BYTES);
	memset(&console, 0, sizeof(console));
	memset(m.map, 0, cow_map_bytes(DISK_BYTES));
	m.cow.layer_blocks = 0;
	rings_init();
	serial_init(&m.serial, m.irq_fd);
	serial_set_console(&m.serial, &console);
	blk_init(&m.blk, &m.cow, &guest.mem, m.irq_fd);
	vsock_init(&m.vsock, &guest.mem, m.irq_fd, m.epoll_fd, 0, m.buffers,
		   on_accept, NULL);
	rng_init(&m.rng, &guest.mem, m.irq_fd);
	/* past the lines they may log */
	m.blk.dev.needs_reset_count = 1000;
	m.vsock.dev.needs_reset_count = 1000;
	m.rng.dev.needs_reset_count = 1000;
}

static void machine_state(struct state_stream *s)
{
	serial_state(s, &m.serial);
	cow_state(s, &m.cow);
	blk_state(s, &m.blk);
	vsock_state(s, &m.vsock);
	rng_state(s, &m.rng);
}

static size_t save(uint8_t *file)
{
	struct state_stream s;
	size_t n;

	state_save(&s, file, FILE_MAX + COW_STATE_BYTES(DISK_BYTES));
	machine_state(&s);
	if (state_finish(&s, &n) != 0)
		abort();
	return n;
}

static int load(const uint8_t *file, size_t n)
{
	struct state_stream s;

	state_load(&s, file, n);
	machine_state(&s);
	return state_finish(&s, NULL);
}

static struct virtio_dev *dev(unsigned int i)
{
	struct virtio_dev *all[] = { &m.blk.dev, &m.vsock.dev, &m.rng.dev };

	return all[i % 3];
}

static void bring_up(unsigned int i)
{
	static const uint32_t first[] = { 0, 1, 4 }, count[] = { 1, 3, 1 };
	uint64_t features = i % 3 == 0 ? 1ull << 9 : 0;

	for (uint32_t q = 0; q < count[i % 3]; q++)
		ring_init(&rings[first[i % 3] + q], &guest, RING_SIZE,
			  0x1000 + 0x400 * (first[i % 3] + q));
	if (reg_bring_up(dev(i), features, &rings[first[i % 3]],
			 count[i % 3]) != 15)
		abort();
}

/* --- what holds at any time --------------------------------------------------------- */

static void check_device(const struct virtio_dev *d)
{
	uint32_t status = d->mmio.status;
	uint32_t base = status & ~(64u | 128u);

	if (base != 0 && base != 1 && base != 3 && base != 11 && base != 15)
		abort();
	if (d->active ? base != 15 : base == 15 && (status & 64) == 0)
		abort();
	if ((status & 64) != 0 && base != 15)
		abort();
	if (d->active &&
	    (d->features != d->mmio.driver_features ||
	     (d->features & VIRTIO_FEATURE_VERSION_1) == 0 ||
	     (d->features & ~(d->model->features | VIRTIO_FEATURE_VERSION_1))))
		abort();
	for (unsigned int i = 0; i < VIRTIO_QUEUES_MAX; i++) {
		const struct queue *q = &d->queues[i];

		if (q->size == 0)
			continue;
		if (!d->active || q->size > d->model->queue_max[i] ||
		    (q->size & (q->size - 1)) != 0 ||
		    !guest_has(&guest, q->desc.v, 16u * q->size) ||
		    !guest_has(&guest, q->avail.v, 6 + 2u * q->size) ||
		    !guest_has(&guest, q->used.v, 6 + 8u * q->size))
			abort();
		if ((uint16_t)(q->next_avail - q->next_used) != q->in_flight ||
		    q->in_flight > 1)
			abort();
	}
}

static void check(void)
{
	for (unsigned int i = 0; i < 3; i++)
		check_device(dev(i));
	if (m.rng.tokens > RNG_BURST_BYTES)
		abort();
	if (m.serial.thr_pending && (m.serial.ier & 2) == 0)
		abort();
}

static void check_map(uint8_t most)
{
	for (uint64_t b = 0; b < cow_map_bytes(DISK_BYTES); b++)
		if (m.map[b] > most)
			abort();
}

/* --- the script ------------------------------------------------------------------------ */

static void put_desc(struct script *s)
{
	uint8_t i = script_u8(s);
	uint64_t at = DATA_AT + script_u16(s) % 0x4000;
	uint32_t len = script_u16(s) % 0x4000;
	uint16_t flags = script_u8(s);

	ring_desc(&rings[i % RINGS], (i >> 4) % RING_SIZE, at, len, flags,
		  script_u8(s));
}

static void put_bytes(struct script *s)
{
	uint16_t at = script_u16(s) % (GUEST_LOW_BYTES - 256);
	uint8_t buf[256];
	uint8_t n = script_u8(s);

	script_take(s, buf, n);
	guest_put(&guest, at, buf, n);
}

static void connect_guest(void)
{
	int fd = -1;

	vmm_lock();
	if (vsock_connect(&m.vsock, BRIG_AGENT_PORT, &fd) == 0)
		close(fd);
	vmm_unlock();
}

static void device_thread(void)
{
	struct epoll_event ev[16];
	int n = epoll_wait(m.epoll_fd, ev, 16, 0);

	for (int i = 0; i < n; i++)
		vsock_event(&m.vsock, (uint32_t)ev[i].data.u64, ev[i].events);
}

static void step(struct script *s)
{
	uint8_t v;

	switch (script_u8(s) % 8) {
	case 0:
		v = script_u8(s);
		reg_write(dev(v >> 6), v % 64 * 4u, script_u32(s));
		break;
	case 1:
		v = script_u8(s);
		virtio_kick(dev(v), v >> 6);
		break;
	case 2:
		put_bytes(s);
		break;
	case 3:
		put_desc(s);
		break;
	case 4:
		v = script_u8(s);
		ring_offer(&rings[v % RINGS], script_u8(s));
		break;
	case 5:
		v = script_u8(s);
		if (v & 0x80)
			serial_write(&m.serial, v & 7, script_u8(s));
		else
			(void)serial_read(&m.serial, v & 7);
		break;
	case 6:
		connect_guest();
		device_thread();
		break;
	default:
		bring_up(script_u8(s));
		break;
	}
}

/* --- seeds ------------------------------------------------------------------------------- */

static void write_seed(const char *dir, const char *name)
{
	static const uint8_t script[] = {
		3,  0x02, 0,    1, 44, 0, 2, 0, 4, 2, 0, 1,    0x41, 6, 3,
		3,  0,    0,    4, 0,  2, 0, 4, 3, 0, 1, 0x81, 6,    5, 0x80,
		65, 0,    0x1c, 0, 0,  0, 0, 1, 0, 7, 1, 7,    0,    1, 2,
	};
	static uint8_t file[FILE_MAX + COW_STATE_BYTES(DISK_BYTES)];
	uint16_t n = (uint16_t)save(file);
	char path[512];

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0 || write(fd, &n, 2) != 2 || write(fd, file, n) != n ||
	    write(fd, script, sizeof(script)) != sizeof(script) ||
	    close(fd) != 0)
		abort();
}

static void write_seeds(const char *dir)
{
	set_up();
	start();
	write_seed(dir, "idle");
	for (unsigned int i = 0; i < 3; i++)
		bring_up(i);
	serial_write(&m.serial, 1, 2);
	write_seed(dir, "running");
	memset(m.map, 1, 300);
	memset(m.map + 5000, 2, 3000);
	m.rng.tokens = 77;
	m.vsock.connects = 12;
	write_seed(dir, "layers");
	ring_desc(&rings[0], 0, DATA_AT, 0, 0, 0);
	ring_offer(&rings[0], 0);
	virtio_kick(&m.blk.dev, 0);
	write_seed(dir, "needs-reset");
	for (unsigned int i = 0; i < 3; i++) {
		reg_write(dev(i), R_STATUS, 0);
		reg_write(dev(i), R_STATUS, 1);
	}
	reg_write(&m.blk.dev, R_STATUS, 3);
	reg_set_features(&m.blk.dev, VIRTIO_FEATURE_VERSION_1);
	reg_write(&m.blk.dev, R_STATUS, 11);
	reg_set_queue(&m.blk.dev, 0, &rings[0]);
	reg_write(&m.rng.dev, R_STATUS, 129);
	write_seed(dir, "half-way");
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	const char *dir = getenv("BRIG_FUZZ_SEEDS");

	(void)argc;
	(void)argv;
	if (dir != NULL) {
		write_seeds(dir);
		exit(0);
	}
	return 0;
}

/* --- one input ----------------------------------------------------------------------------- */

/* What was accepted is whole: saved and loaded again it is the same. */
static void check_same(void)
{
	static uint8_t first[FILE_MAX + COW_STATE_BYTES(DISK_BYTES)];
	static uint8_t second[FILE_MAX + COW_STATE_BYTES(DISK_BYTES)];
	size_t n = save(first);

	memset(m.map, 0, cow_map_bytes(DISK_BYTES));
	if (load(first, n) != 0 || save(second) != n ||
	    memcmp(first, second, n) != 0)
		abort();
}

/* The value of the first field from `at` on, and its size; 0: there is none. */
static size_t find_field(const uint8_t *data, size_t size, size_t at,
			 size_t *ret)
{
	for (; at + 2 < size; at++) {
		size_t value = at + 2 + data[at + 1];
		size_t n = data[at] - (size_t)'0';

		if (memchr("1248", data[at], 4) == NULL ||
		    data[at + 1] > STATE_NAME_MAX || value + n > size ||
		    data[at + 2] < 'a' || data[at + 2] > 'z')
			continue;
		*ret = value;
		return n;
	}
	return 0;
}

/* Any bytes, or one number: a file whose shape is broken teaches little. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max,
			       unsigned int seed)
{
	size_t value;
	size_t n = 0;

	if (seed % 4 != 0 && size > 0)
		n = find_field(data, size, seed / 4 % size, &value);
	if (n == 0)
		return LLVMFuzzerMutate(data, size, max);
	(void)LLVMFuzzerMutate(data + value, n, n);
	return size;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t file[FILE_MAX];
	struct script s = { data, size };
	size_t n = script_u16(&s) % FILE_MAX;
	int r;

	if (m.map == NULL)
		set_up();
	start();
	n = n < s.left ? n : s.left;
	script_take(&s, file, n);
	statefile_seal(file, n);
	r = load(file, n);
	for (unsigned int i = 0; i < 3; i++)
		check_device(dev(i));
	if (r == 0) {
		check();
		check_map(LAYERS);
		check_same();
		check();
		serial_restored(&m.serial);
		for (unsigned int i = 0; i < 3; i++)
			virtio_restored(dev(i));
		for (int steps = 0; s.left > 0 && steps < 200; steps++) {
			step(&s);
			check();
		}
		check_map(LAYERS + 1);
	}
	for (unsigned int i = 0; i < 3; i++)
		reg_write(dev(i), R_STATUS, 0);
	return 0;
}
