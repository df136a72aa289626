/* serial.c - a 16550A serial port that only sends: the boot log.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Transmission takes no time, so the transmitter is always empty. What is
 * left of the interrupt logic is one flag: the THR-empty interrupt becomes
 * pending when a byte was sent or when it is enabled, and is acknowledged by
 * reading IIR. The eventfd is written when the flag rises, which is the edge
 * that the interrupt controller waits for.
 */
#include <errno.h>
#include <unistd.h>

#include "serial.h"

enum serial_register {
	REG_DATA = 0, /* RBR, THR; divisor low with DLAB */
	REG_IER = 1,  /* divisor high with DLAB */
	REG_IIR = 2,  /* FCR when written */
	REG_LCR = 3,
	REG_MCR = 4,
	REG_LSR = 5,
	REG_MSR = 6,
	REG_SCR = 7,
};

#define IER_THR_EMPTY 0x02u
#define IER_MASK 0x0fu

#define IIR_NONE 0x01u
#define IIR_THR_EMPTY 0x02u
#define IIR_FIFO_ON 0xc0u

#define FCR_FIFO_ON 0x01u

#define LCR_DLAB 0x80u

#define MCR_DTR 0x01u
#define MCR_RTS 0x02u
#define MCR_OUT1 0x04u
#define MCR_OUT2 0x08u
#define MCR_LOOP 0x10u
#define MCR_MASK 0x1fu

#define LSR_THR_EMPTY 0x20u
#define LSR_IDLE 0x40u

#define MSR_CTS 0x10u
#define MSR_DSR 0x20u
#define MSR_RI 0x40u
#define MSR_DCD 0x80u

/* --- interrupt ------------------------------------------------------------ */

static void signal_irq(const struct serial *s)
{
	const uint64_t one = 1;

	/* A full counter (EAGAIN) means that KVM has yet to see the last. */
	ssize_t n = write(s->irq_fd, &one, sizeof(one));
	(void)n;
}

static void raise_interrupt(struct serial *s)
{
	if (s->thr_pending || !(s->ier & IER_THR_EMPTY))
		return;
	s->thr_pending = true;
	signal_irq(s);
}

static uint8_t read_iir(struct serial *s)
{
	uint8_t id = IIR_NONE;

	if (s->thr_pending && (s->ier & IER_THR_EMPTY)) {
		id = IIR_THR_EMPTY;
		s->thr_pending = false;
	}
	return id | (s->fcr & FCR_FIFO_ON ? IIR_FIFO_ON : 0);
}

static void write_ier(struct serial *s, uint8_t v)
{
	bool was_on = s->ier & IER_THR_EMPTY;

	s->ier = v & IER_MASK;
	if (!(s->ier & IER_THR_EMPTY))
		s->thr_pending = false;
	else if (!was_on)
		raise_interrupt(s);
}

/* --- data ----------------------------------------------------------------- */

static void send(struct serial *s, uint8_t v)
{
	/* In loopback the line is cut, and there is no receiver here. */
	if (!(s->mcr & MCR_LOOP)) {
		s->console->data[s->written % BRIG_CONSOLE_RING_BYTES] = v;
		s->written++;
		__atomic_store_n(&s->console->written, s->written,
				 __ATOMIC_RELEASE);
	}
	raise_interrupt(s);
}

/* The other end is always there; in loopback the outputs come back in. */
static uint8_t read_msr(const struct serial *s)
{
	if (!(s->mcr & MCR_LOOP))
		return MSR_CTS | MSR_DSR | MSR_DCD;
	return (uint8_t)((s->mcr & MCR_RTS ? MSR_CTS : 0) |
			 (s->mcr & MCR_DTR ? MSR_DSR : 0) |
			 (s->mcr & MCR_OUT1 ? MSR_RI : 0) |
			 (s->mcr & MCR_OUT2 ? MSR_DCD : 0));
}

/* --- registers ------------------------------------------------------------ */

static uint8_t read_locked(struct serial *s, uint16_t offset)
{
	bool dlab = s->lcr & LCR_DLAB;

	switch (offset) {
	case REG_DATA:
		return dlab ? s->dll : 0;
	case REG_IER:
		return dlab ? s->dlm : s->ier;
	case REG_IIR:
		return read_iir(s);
	case REG_LCR:
		return s->lcr;
	case REG_MCR:
		return s->mcr;
	case REG_LSR:
		return LSR_THR_EMPTY | LSR_IDLE;
	case REG_MSR:
		return read_msr(s);
	case REG_SCR:
		return s->scr;
	default:
		return 0xff;
	}
}

static void write_locked(struct serial *s, uint16_t offset, uint8_t v)
{
	bool dlab = s->lcr & LCR_DLAB;

	switch (offset) {
	case REG_DATA:
		if (dlab)
			s->dll = v;
		else
			send(s, v);
		break;
	case REG_IER:
		if (dlab)
			s->dlm = v;
		else
			write_ier(s, v);
		break;
	case REG_IIR:
		s->fcr = v;
		break;
	case REG_LCR:
		s->lcr = v;
		break;
	case REG_MCR:
		s->mcr = v & MCR_MASK;
		break;
	case REG_SCR:
		s->scr = v;
		break;
	default: /* LSR and MSR are read only */
		break;
	}
}

void serial_init(struct serial *s, int irq_fd)
{
	*s = (struct serial){
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.irq_fd = irq_fd,
	};
}

void serial_set_console(struct serial *s, struct vmm_console *console)
{
	s->console = console;
	s->written = __atomic_load_n(&console->written, __ATOMIC_ACQUIRE);
}

uint8_t serial_read(struct serial *s, uint16_t offset)
{
	(void)pthread_mutex_lock(&s->lock);
	uint8_t v = read_locked(s, offset);
	(void)pthread_mutex_unlock(&s->lock);
	return v;
}

void serial_write(struct serial *s, uint16_t offset, uint8_t v)
{
	(void)pthread_mutex_lock(&s->lock);
	write_locked(s, offset, v);
	(void)pthread_mutex_unlock(&s->lock);
}

uint64_t serial_dropped(struct serial *s)
{
	(void)pthread_mutex_lock(&s->lock);
	uint64_t sent = s->written;
	(void)pthread_mutex_unlock(&s->lock);
	return sent > BRIG_CONSOLE_RING_BYTES ? sent - BRIG_CONSOLE_RING_BYTES
					      : 0;
}

/* --- saved state ---------------------------------------------------------- */

void serial_state(struct state_stream *s, struct serial *port)
{
	uint8_t ier = port->ier, fcr = port->fcr, lcr = port->lcr;
	uint8_t mcr = port->mcr, scr = port->scr;
	uint8_t dll = port->dll, dlm = port->dlm;
	bool pending = port->thr_pending;

	state_begin(s, "serial", 1);
	state_u8(s, "ier", &ier, 0, IER_MASK);
	state_u8(s, "fcr", &fcr, 0, UINT8_MAX);
	state_u8(s, "lcr", &lcr, 0, UINT8_MAX);
	state_u8(s, "mcr", &mcr, 0, MCR_MASK);
	state_u8(s, "scr", &scr, 0, UINT8_MAX);
	state_u8(s, "dll", &dll, 0, UINT8_MAX);
	state_u8(s, "dlm", &dlm, 0, UINT8_MAX);
	state_bool(s, "thr_pending", &pending);
	state_end(s);
	if (pending && (ier & IER_THR_EMPTY) == 0)
		state_fail(s, "interrupt that is not enabled");
	if (!s->loading || !state_ok(s))
		return;
	port->ier = ier;
	port->fcr = fcr;
	port->lcr = lcr;
	port->mcr = mcr;
	port->scr = scr;
	port->dll = dll;
	port->dlm = dlm;
	port->thr_pending = pending;
}

void serial_restored(struct serial *s)
{
	if (s->thr_pending)
		signal_irq(s);
}
