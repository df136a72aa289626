/* acpi.c - the ACPI tables that describe the machine.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Hardware-reduced ACPI: no PM timer, no SCI, no FACS, no legacy PIC or PIT.
 * Reset and power-off are three I/O ports that the FADT names. The DSDT is
 * compiled from dsdt.asl by iasl when brig is built.
 */
#include <assert.h>
#include <errno.h>
#include <stdint.h>

#include "acpi.h"
#include "dsdt.h" /* generated: static unsigned char dsdt_aml_code[] */
#include "num.h"
#include "wire/boot.h"
#include "wire/limits.h"

static_assert(BRIG_MMIO_BASE == 0xd0000000 && BRIG_MMIO_SLOT_SIZE == 0x1000 &&
		      BRIG_MMIO_SLOTS == 8 && BRIG_MMIO_GSI_BASE == 16,
	      "dsdt.asl spells these out");

#define LAPIC_ADDRESS 0xfee00000u
#define IOAPIC_ADDRESS 0xfec00000u

/* FADT flags and boot architecture flags (ACPI 6.4, 5.2.9). */
#define FADT_WBINVD (1u << 0)
#define FADT_RESET_REG_SUP (1u << 10)
#define FADT_HW_REDUCED (1u << 20)
#define IAPC_NO_VGA (1u << 2)
#define IAPC_NO_MSI (1u << 3)
#define IAPC_NO_ASPM (1u << 4)
#define IAPC_NO_CMOS_RTC (1u << 5)

struct __attribute__((packed)) header {
	char signature[4];
	uint32_t length;
	uint8_t revision;
	uint8_t checksum;
	char oem_id[6];
	char oem_table_id[8];
	uint32_t oem_revision;
	char creator_id[4];
	uint32_t creator_revision;
};
static_assert(sizeof(struct header) == 36, "ACPI 6.4, 5.2.6");

struct __attribute__((packed)) rsdp {
	char signature[8];
	uint8_t checksum;
	char oem_id[6];
	uint8_t revision;
	uint32_t rsdt;
	uint32_t length;
	uint64_t xsdt;
	uint8_t extended_checksum;
	uint8_t reserved[3];
};
static_assert(sizeof(struct rsdp) == 36, "ACPI 6.4, 5.2.5.3");

struct __attribute__((packed)) gas { /* generic address structure */
	uint8_t space;               /* 1: system I/O */
	uint8_t bit_width;
	uint8_t bit_offset;
	uint8_t access;
	uint64_t address;
};

struct __attribute__((packed)) fadt {
	struct header h;
	uint8_t unused0[73];
	uint16_t iapc_boot_arch;
	uint8_t unused1;
	uint32_t flags;
	struct gas reset_reg;
	uint8_t reset_value;
	uint16_t arm_boot_arch;
	uint8_t minor_version;
	uint64_t x_firmware_ctrl;
	uint64_t x_dsdt;
	uint8_t unused2[96];
	struct gas sleep_control;
	struct gas sleep_status;
	uint64_t hypervisor_id;
};
static_assert(sizeof(struct fadt) == 276, "ACPI 6.4, 5.2.9");
static_assert(offsetof(struct fadt, iapc_boot_arch) == 109, "5.2.9");
static_assert(offsetof(struct fadt, x_dsdt) == 140, "5.2.9");
static_assert(offsetof(struct fadt, sleep_control) == 244, "5.2.9");

struct __attribute__((packed)) madt_lapic {
	uint8_t type, length, processor, apic_id;
	uint32_t flags; /* 1: enabled */
};

struct __attribute__((packed)) madt_ioapic {
	uint8_t type, length, id, reserved;
	uint32_t address;
	uint32_t gsi_base;
};

struct __attribute__((packed)) madt {
	struct header h;
	uint32_t lapic_address;
	uint32_t flags;
	struct madt_ioapic ioapic;
	struct madt_lapic lapics[BRIG_VCPUS_MAX];
};

struct __attribute__((packed)) xsdt {
	struct header h;
	uint64_t tables[2];
};

static uint8_t sum(const void *p, size_t n)
{
	unsigned int total = 0;

	for (size_t i = 0; i < n; i++)
		total += ((const uint8_t *)p)[i];
	return (uint8_t)total;
}

static void fill_header(struct header *h, const char *signature,
			uint8_t revision, size_t length)
{
	memcpy(h->signature, signature, sizeof(h->signature));
	h->length = (uint32_t)length;
	h->revision = revision;
	memcpy(h->oem_id, "BRIG  ", sizeof(h->oem_id));
	memcpy(h->oem_table_id, "BRIGVMM ", sizeof(h->oem_table_id));
	h->oem_revision = 1;
	memcpy(h->creator_id, "BRIG", sizeof(h->creator_id));
	h->creator_revision = 1;
	h->checksum = 0;
}

static struct gas io_register(uint64_t port)
{
	return (struct gas){
		.space = 1, .bit_width = 8, .access = 1, .address = port
	};
}

/* Appends one table, 16-aligned; *at moves behind it. */
static int put(struct gmem *mem, const void *table, size_t n, uint64_t *at,
	       uint64_t *ret)
{
	uint64_t here = align_up(*at, 16);

	if (here + n > ACPI_END)
		return -EFAULT;
	*ret = here;
	*at = here + n;
	return gmem_write(mem, GPA(here), table, n);
}

static int put_fadt(struct gmem *mem, uint64_t dsdt, uint64_t *at,
		    uint64_t *ret)
{
	struct fadt f = {
		.iapc_boot_arch = IAPC_NO_VGA | IAPC_NO_MSI | IAPC_NO_ASPM |
				  IAPC_NO_CMOS_RTC,
		.flags = FADT_WBINVD | FADT_RESET_REG_SUP | FADT_HW_REDUCED,
		.reset_reg = io_register(BRIG_PM_RESET),
		.reset_value = BRIG_PM_RESET_VALUE,
		.minor_version = 4,
		.x_dsdt = dsdt,
		.sleep_control = io_register(BRIG_PM_SLEEP_CONTROL),
		.sleep_status = io_register(BRIG_PM_SLEEP_STATUS),
	};

	fill_header(&f.h, "FACP", 6, sizeof(f));
	f.h.checksum = (uint8_t)-sum(&f, sizeof(f));
	return put(mem, &f, sizeof(f), at, ret);
}

static int put_madt(struct gmem *mem, unsigned int vcpus, uint64_t *at,
		    uint64_t *ret)
{
	struct madt m = {
		.lapic_address = LAPIC_ADDRESS,
		.ioapic = { .type = 1,
			    .length = sizeof(struct madt_ioapic),
			    .address = IOAPIC_ADDRESS },
	};
	size_t n = offsetof(struct madt, lapics) +
		   vcpus * sizeof(struct madt_lapic);

	for (unsigned int i = 0; i < vcpus && i < BRIG_VCPUS_MAX; i++)
		m.lapics[i] = (struct madt_lapic){
			.length = sizeof(struct madt_lapic),
			.processor = (uint8_t)i,
			.apic_id = (uint8_t)i,
			.flags = 1,
		};
	fill_header(&m.h, "APIC", 5, n);
	m.h.checksum = (uint8_t)-sum(&m, n);
	return put(mem, &m, n, at, ret);
}

static int put_xsdt(struct gmem *mem, uint64_t fadt, uint64_t madt,
		    uint64_t *at, uint64_t *ret)
{
	struct xsdt x = { .tables = { fadt, madt } };

	fill_header(&x.h, "XSDT", 1, sizeof(x));
	x.h.checksum = (uint8_t)-sum(&x, sizeof(x));
	return put(mem, &x, sizeof(x), at, ret);
}

int acpi_write(struct gmem *mem, unsigned int vcpus, gpa_t *ret_rsdp)
{
	struct rsdp r = { .revision = 2, .length = sizeof(r) };
	uint64_t at = ACPI_START + sizeof(r);
	uint64_t dsdt;
	uint64_t fadt;
	uint64_t madt;
	uint64_t xsdt;
	int e = put(mem, dsdt_aml_code, sizeof(dsdt_aml_code), &at, &dsdt);

	if (e == 0)
		e = put_fadt(mem, dsdt, &at, &fadt);
	if (e == 0)
		e = put_madt(mem, vcpus, &at, &madt);
	if (e == 0)
		e = put_xsdt(mem, fadt, madt, &at, &xsdt);
	if (e < 0)
		return e;
	r.xsdt = xsdt;
	memcpy(r.signature, "RSD PTR ", sizeof(r.signature));
	memcpy(r.oem_id, "BRIG  ", sizeof(r.oem_id));
	r.checksum = (uint8_t)-sum(&r, 20);
	r.extended_checksum = (uint8_t)-sum(&r, sizeof(r));
	*ret_rsdp = GPA(ACPI_START);
	return gmem_write(mem, GPA(ACPI_START), &r, sizeof(r));
}
