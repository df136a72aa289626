/* acpi.c - the tables form a tree with right sums that names each vCPU.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/num.h"
#include "src/vmm/x86/acpi.h"
#include "wire/boot.h"

#define RAM_BYTES (2u << 20)

static uint8_t *ram;

static int set_up(void **state)
{
	ram = calloc(1, RAM_BYTES);
	return ram == NULL;
}

static int tear_down(void **state)
{
	free(ram);
	return 0;
}

static uint8_t sum(uint64_t at, uint64_t n)
{
	uint8_t total = 0;

	for (uint64_t i = 0; i < n; i++)
		total = (uint8_t)(total + ram[at + i]);
	return total;
}

/* A table at `at` with this signature and a right sum; its length. */
static uint32_t table(uint64_t at, const char *signature)
{
	uint32_t length = load_le32(ram + at + 4);

	assert_true(at >= ACPI_START && at + length <= ACPI_END);
	assert_memory_equal(ram + at, signature, 4);
	assert_int_equal(sum(at, length), 0);
	return length;
}

static void tables_for(unsigned int vcpus)
{
	struct gmem mem = { .count = 1, .regions = { { 0, RAM_BYTES, ram } } };
	gpa_t rsdp;

	memset(ram, 0, RAM_BYTES);
	assert_int_equal(acpi_write(&mem, vcpus, &rsdp), 0);
	assert_memory_equal(ram + rsdp.v, "RSD PTR ", 8);
	assert_int_equal(sum(rsdp.v, 20), 0);
	assert_int_equal(sum(rsdp.v, 36), 0);

	uint64_t xsdt = load_le64(ram + rsdp.v + 24);
	assert_int_equal(table(xsdt, "XSDT"), 36 + 2 * 8);
	uint64_t fadt = load_le64(ram + xsdt + 36);
	uint64_t madt = load_le64(ram + xsdt + 44);
	table(fadt, "FACP");
	table(load_le64(ram + fadt + 140), "DSDT");
	assert_int_equal(load_le64(ram + fadt + 116 + 4), BRIG_PM_RESET);
	assert_int_equal(ram[fadt + 128], BRIG_PM_RESET_VALUE);

	uint32_t length = table(madt, "APIC");
	assert_int_equal(length, 44 + 12 + 8 * vcpus);
	for (unsigned int i = 0; i < vcpus; i++)
		assert_int_equal(ram[madt + 44 + 12 + 8 * i + 3], i);
}

static void every_count_of_vcpus_has_right_tables(void **state)
{
	for (unsigned int vcpus = 1; vcpus <= 8; vcpus++)
		tables_for(vcpus);
}

static void nothing_is_written_outside_the_reserved_range(void **state)
{
	tables_for(8);
	for (uint64_t i = 0; i < RAM_BYTES; i++) {
		if (i < ACPI_START || i >= ACPI_END)
			assert_int_equal(ram[i], 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_count_of_vcpus_has_right_tables),
		cmocka_unit_test(nothing_is_written_outside_the_reserved_range),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
