/* elf.c - the kernel loader refuses what it must and loads what it should.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <elf.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/num.h"
#include "src/vmm/x86/elf.h"

#define RAM_BYTES (4u << 20)
#define LOAD_AT 0x200000u
#define CODE_BYTES 64u

struct image {
	Elf64_Ehdr eh;
	Elf64_Phdr ph[2];
	struct {
		Elf64_Nhdr h;
		char name[4];
		uint32_t entry;
	} note;
	uint8_t code[CODE_BYTES];
};

static struct image good(void)
{
	struct image i = { .eh = { .e_machine = EM_X86_64,
				   .e_phoff = offsetof(struct image, ph),
				   .e_phentsize = sizeof(Elf64_Phdr),
				   .e_phnum = 2 } };

	memcpy(i.eh.e_ident, ELFMAG, SELFMAG);
	i.eh.e_ident[EI_CLASS] = ELFCLASS64;
	i.eh.e_ident[EI_DATA] = ELFDATA2LSB;
	i.ph[0] = (Elf64_Phdr){ .p_type = PT_LOAD,
				.p_offset = offsetof(struct image, code),
				.p_paddr = LOAD_AT,
				.p_filesz = CODE_BYTES,
				.p_memsz = CODE_BYTES * 2 };
	i.ph[1] = (Elf64_Phdr){ .p_type = PT_NOTE,
				.p_offset = offsetof(struct image, note),
				.p_filesz = sizeof(i.note),
				.p_memsz = sizeof(i.note) };
	i.note.h = (Elf64_Nhdr){ 4, 4, 18 };
	memcpy(i.note.name, "Xen", 4);
	i.note.entry = LOAD_AT + 8;
	memset(i.code, 0xab, sizeof(i.code));
	return i;
}

static uint8_t *ram;

static int load(const void *bytes, size_t n, struct elf_kernel *ret)
{
	struct gmem mem = { .count = 1, .regions = { { 0, RAM_BYTES, ram } } };
	int fd = memfd_create("kernel", 0);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, n), n);
	int r = elf_load(fd, &mem, ret);
	close(fd);
	return r;
}

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

static void loads_segments_and_finds_the_entry(void **state)
{
	struct image i = good();
	struct elf_kernel k;

	assert_int_equal(load(&i, sizeof(i), &k), 0);
	assert_int_equal(k.entry.v, LOAD_AT + 8);
	assert_int_equal(k.end.v, LOAD_AT + CODE_BYTES * 2);
	assert_memory_equal(ram + LOAD_AT, i.code, CODE_BYTES);
	assert_int_equal(ram[LOAD_AT + CODE_BYTES], 0);
}

static void refuses_a_truncated_file_at_every_byte(void **state)
{
	struct image i = good();
	struct elf_kernel k;

	for (size_t n = 0; n < offsetof(struct image, code) + CODE_BYTES; n++)
		assert_true(load(&i, n, &k) < 0);
}

static void a26_refuses_hostile_headers(void **state)
{
	struct elf_kernel k;
	struct image i;
	static const struct {
		uint64_t paddr, filesz, memsz, offset;
		int error;
	} cases[] = {
		{ 0, 64, 64, 0, -ENOEXEC },             /* below 1 MiB */
		{ LOAD_AT, 65, 64, 0, -ENOEXEC },       /* filesz > memsz */
		{ UINT64_MAX, 1, 2, 0, -EFAULT },       /* wraps */
		{ RAM_BYTES - 63, 64, 64, 0, -EFAULT }, /* one byte beyond */
		{ LOAD_AT, 1, UINT64_MAX, 0, -EFAULT },
		{ LOAD_AT, 64, 64, UINT64_MAX - 1, -ENOEXEC },
		{ LOAD_AT, 64, 64, 1 << 20, -EIO }, /* beyond the file */
	};

	for (size_t n = 0; n < ARRAY_LEN(cases); n++) {
		i = good();
		i.ph[0].p_paddr = cases[n].paddr;
		i.ph[0].p_filesz = cases[n].filesz;
		i.ph[0].p_memsz = cases[n].memsz;
		i.ph[0].p_offset = cases[n].offset;
		assert_int_equal(load(&i, sizeof(i), &k), cases[n].error);
	}
}

static void a26_refuses_hostile_counts_and_notes(void **state)
{
	struct elf_kernel k;
	struct image i = good();

	i.eh.e_phnum = 0;
	assert_int_equal(load(&i, sizeof(i), &k), -ENOEXEC);
	i.eh.e_phnum = 65535;
	assert_int_equal(load(&i, sizeof(i), &k), -ENOEXEC);
	i = good();
	i.eh.e_phentsize = 0;
	assert_int_equal(load(&i, sizeof(i), &k), -ENOEXEC);
	i = good();
	i.eh.e_phoff = UINT64_MAX - 8;
	assert_int_equal(load(&i, sizeof(i), &k), -ENOEXEC);
	i = good();
	i.note.h.n_namesz = UINT32_MAX;
	assert_int_equal(load(&i, sizeof(i), &k), -ENOEXEC);
	i = good();
	i.note.h.n_descsz = UINT32_MAX;
	assert_int_equal(load(&i, sizeof(i), &k), -ENOEXEC);
	i = good();
	i.ph[1].p_filesz = 1 << 20;
	assert_int_equal(load(&i, sizeof(i), &k), -ENOEXEC);
	i = good();
	i.note.entry = LOAD_AT - 1;
	assert_int_equal(load(&i, sizeof(i), &k), -ENOEXEC);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(loads_segments_and_finds_the_entry),
		cmocka_unit_test(refuses_a_truncated_file_at_every_byte),
		cmocka_unit_test(a26_refuses_hostile_headers),
		cmocka_unit_test(a26_refuses_hostile_counts_and_notes),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
