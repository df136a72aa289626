/* elf.c - loads a kernel: an ELF executable with a PVH note.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The file is read with pread, headers into private structs, segments
 * straight into guest memory; no vCPU runs yet. Linux is ELF64; the tiny
 * guests of the tests are ELF32, converted to the same struct at once.
 */
#include <elf.h>
#include <errno.h>
#include <stdbool.h>

#include "elf.h"
#include "fd.h"
#include "num.h"

#define ELF_PHDRS_MAX 32u
#define ELF_NOTES_BYTES_MAX (64u << 10)

/* xen/include/public/elfnote.h: the PVH entry point. */
#define NOTE_PHYS32_ENTRY 18u

/* Below 1 MiB is ours: boot parameters and ACPI tables. */
#define KERNEL_START_MIN 0x100000u

struct segment {
	uint32_t type;
	uint64_t offset;
	uint64_t paddr;
	uint64_t filesz;
	uint64_t memsz;
};

struct layout {
	bool wide; /* ELF64 */
	uint64_t phoff;
	uint16_t phnum;
};

static int pread_exact(int fd, void *to, size_t n, uint64_t at)
{
	if (at > INT64_MAX - n)
		return -ENOEXEC;
	ssize_t got = fd_pread_all(fd, to, n, (off_t)at);
	if (got < 0)
		return (int)got;
	return (size_t)got == n ? 0 : -EIO;
}

static int read_layout(int fd, struct layout *ret)
{
	union {
		unsigned char ident[EI_NIDENT];
		Elf64_Ehdr e64;
		Elf32_Ehdr e32;
	} h;
	int r = pread_exact(fd, &h, sizeof(h.e32), 0);

	if (r < 0)
		return r == -EIO ? -ENOEXEC : r;
	if (memcmp(h.ident, ELFMAG, SELFMAG) != 0 ||
	    h.ident[EI_DATA] != ELFDATA2LSB)
		return -ENOEXEC;
	bool wide = h.ident[EI_CLASS] == ELFCLASS64;
	if (wide) {
		r = pread_exact(fd, &h, sizeof(h.e64), 0);
		if (r < 0)
			return r == -EIO ? -ENOEXEC : r;
		if (h.e64.e_machine != EM_X86_64 ||
		    h.e64.e_phentsize != sizeof(Elf64_Phdr))
			return -ENOEXEC;
		*ret = (struct layout){ true, h.e64.e_phoff, h.e64.e_phnum };
	} else {
		if (h.ident[EI_CLASS] != ELFCLASS32 ||
		    h.e32.e_machine != EM_386 ||
		    h.e32.e_phentsize != sizeof(Elf32_Phdr))
			return -ENOEXEC;
		*ret = (struct layout){ false, h.e32.e_phoff, h.e32.e_phnum };
	}
	return ret->phnum >= 1 && ret->phnum <= ELF_PHDRS_MAX ? 0 : -ENOEXEC;
}

static int read_segment(int fd, const struct layout *l, unsigned int i,
			struct segment *ret)
{
	Elf64_Phdr p64;
	Elf32_Phdr p32;
	size_t size = l->wide ? sizeof(p64) : sizeof(p32);
	uint64_t at;

	if (!u64_add(l->phoff, (uint64_t)i * size, &at))
		return -ENOEXEC;
	int r = l->wide ? pread_exact(fd, &p64, size, at)
			: pread_exact(fd, &p32, size, at);
	if (r < 0)
		return r;
	if (l->wide)
		*ret = (struct segment){ p64.p_type, p64.p_offset, p64.p_paddr,
					 p64.p_filesz, p64.p_memsz };
	else
		*ret = (struct segment){ p32.p_type, p32.p_offset, p32.p_paddr,
					 p32.p_filesz, p32.p_memsz };
	return 0;
}

/* RAM is fresh, so what p_memsz has beyond p_filesz is zero already. */
static int load_segment(int fd, struct gmem *mem, const struct segment *s,
			struct elf_kernel *k)
{
	struct iovec iov;
	uint64_t end;

	if (s->memsz == 0)
		return 0;
	if (s->filesz > s->memsz || s->paddr < KERNEL_START_MIN)
		return -ENOEXEC;
	if (!u64_add(s->paddr, s->memsz, &end))
		return -EFAULT;
	int r = gmem_iovec(mem, GPA(s->paddr), s->memsz, &iov);
	if (r < 0)
		return r;
	k->start.v = u64_min(k->start.v, s->paddr);
	k->end.v = u64_max(k->end.v, end);
	if (s->filesz == 0)
		return 0;
	return pread_exact(fd, iov.iov_base, s->filesz, s->offset);
}

/* Walks the notes of one PT_NOTE segment: name size, descriptor size, type,
 * then both padded to 4 bytes. */
static int find_entry(int fd, const struct segment *s, gpa_t *ret)
{
	static unsigned char notes[ELF_NOTES_BYTES_MAX];
	uint64_t n = s->filesz;

	if (n > sizeof(notes))
		return -ENOEXEC;
	int r = pread_exact(fd, notes, n, s->offset);
	if (r < 0)
		return r;
	for (uint64_t at = 0; n - at >= sizeof(Elf64_Nhdr);) {
		Elf64_Nhdr h;
		memcpy(&h, notes + at, sizeof(h));
		at += sizeof(h);
		uint64_t name = align_up(h.n_namesz, 4);
		uint64_t desc = align_up(h.n_descsz, 4);
		if (name > n - at || desc > n - at - name)
			return 0;
		if (h.n_type == NOTE_PHYS32_ENTRY && h.n_namesz == 4 &&
		    memcmp(notes + at, "Xen", 4) == 0 && h.n_descsz >= 4) {
			ret->v = load_le32(notes + at + name);
			return 1;
		}
		at += name + desc;
	}
	return 0;
}

int elf_load(int fd, struct gmem *mem, struct elf_kernel *ret)
{
	struct elf_kernel k = { .start = GPA(UINT64_MAX) };
	struct layout layout;
	bool found = false;
	int r = read_layout(fd, &layout);

	if (r < 0)
		return r;
	for (unsigned int i = 0; i < layout.phnum; i++) {
		struct segment s;
		r = read_segment(fd, &layout, i, &s);
		if (r < 0)
			return r;
		if (s.type == PT_LOAD)
			r = load_segment(fd, mem, &s, &k);
		else if (s.type == PT_NOTE && !found)
			r = find_entry(fd, &s, &k.entry);
		if (r < 0)
			return r;
		found = found || r == 1;
	}
	if (!found || k.entry.v < k.start.v || k.entry.v >= k.end.v)
		return -ENOEXEC;
	*ret = k;
	return 0;
}
