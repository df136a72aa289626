# brig: the only Makefile. `make help` lists the targets.

SHELL := /bin/bash
.DEFAULT_GOAL := all
MAKEFLAGS += --no-builtin-rules

include mk/flags.mk

B := build
PREFIX ?= /usr
VERSION := 0.1.0

CC_gcc := gcc
CC_clang := clang-14

# --- What each program is made of -------------------------------------------

BASE := assert log fd buf loop
BASE_OBJS := $(BASE:%=src/base/%.o)

# The monitor, its main() apart: tests and fuzzers link the rest.
VMM_CORE := gmem virtio/queue virtio/mmio
VMM_DEVS := blk/cow dev/blk dev/rng dev/serial dev/vsock dev/vsock_gate
VMM_REST := config kvm bus stop vcpu machine control probe x86/acpi x86/boot \
	x86/cpuid x86/elf claim memory workset save state/stream x86/state \
	x86/check
VMM_OBJS := $(VMM_CORE:%=src/vmm/%.o) $(VMM_DEVS:%=src/vmm/%.o) \
	$(VMM_REST:%=src/vmm/%.o)

INIT := main boot configure identity ready quiesce freezer hooks agent reaper \
	run warm spawn leftover files status cgroup accounts meminfo poweroff \
	textfile stream frames
INIT_OBJS := $(INIT:%=src/init/%.o)
SPAWN_OBJS := $(patsubst %,src/spawn/%.o,main request cgroup jail launch kvm \
	probe)
BRIGD := main agent api_clone api_create api_delete api_exec api_files api_logs \
	api_move api_sandbox api_snapshot api_state api_status api_system api_template \
	args args_make auth body cgroup console creation exec_reply fault frame \
	gate http id image meminfo peer_guest peer_spawn peer_vmm pool receipt removal route \
	run runlog sandbox sandbox_new sandbox_start sandbox_vm save settings shell snapshot \
	standby store template template_build utf8 when
BRIGD += manifest saved snapfile snapio snapload snappublish snapstore sparse \
	worker
BRIGD_OBJS := $(BRIGD:%=src/brigd/%.o)
CLI_OBJS := $(patsubst %,src/cli/%.o,main api base64 cmd code cp create \
	diagnose doctor events host info job key listing logs making move opt ps \
	ref run sandbox snapshot stop target template term when where)

# Static programs may not allocate or look anything up at run time.
PROGRAMS_STATIC := brig-vmm brig-spawn brig-init
PROGRAMS_DYNAMIC := brig brigd
PROGRAMS := $(PROGRAMS_STATIC) $(PROGRAMS_DYNAMIC)

OBJS_brig-vmm = src/vmm/main.o $(VMM_OBJS) src/base/assert.o src/base/log.o src/base/fd.o
OBJS_brig-init = $(INIT_OBJS) $(BASE_OBJS)
OBJS_brig-spawn = $(SPAWN_OBJS) $(BASE_OBJS)
OBJS_brigd = $(BRIGD_OBJS) $(BASE_OBJS)
OBJS_brig = $(CLI_OBJS) $(BASE_OBJS)

LIBS_brig-vmm := -pthread
LIBS_brig-init :=
LIBS_brig-spawn :=
LIBS_brigd := -lmicrohttpd -ljansson -lsqlite3 -lgnutls -lm
LIBS_brig := -lcurl -ljansson

# The DSDT: preprocessed with wire/boot.h, compiled by iasl into C bytes.
$(B)/gen/dsdt.h: src/vmm/x86/dsdt.asl wire/boot.h
	@mkdir -p $(@D)
	$(Q)cpp -P -undef -I. -x assembler-with-cpp $< > $(B)/gen/dsdt.asl
	$(Q)iasl -va -vs -p $(B)/gen/dsdt -tc $(B)/gen/dsdt.asl > $(B)/gen/iasl.log \
		|| { cat $(B)/gen/iasl.log; exit 1; }
	$(Q)sed 's/^unsigned char/static const unsigned char/' $(B)/gen/dsdt.hex > $@
$(B)/gcc/obj/src/vmm/x86/acpi.o $(B)/clang/obj/src/vmm/x86/acpi.o \
$(B)/test/obj/src/vmm/x86/acpi.o $(B)/fuzz/obj/src/vmm/x86/acpi.o: $(B)/gen/dsdt.h

# --- Building with both compilers -------------------------------------------

.PHONY: all gcc clang help run stop test bench install clean fuzz images \
	format deps test-programs

all: gcc clang ## build every program with gcc 12 and with clang 14

gcc: $(PROGRAMS:%=$(B)/gcc/bin/%)
clang: $(PROGRAMS:%=$(B)/clang/bin/%)

define compiler_rules
$(B)/$(1)/obj/%.o: %.c mk/flags.mk
	@mkdir -p $$(@D)
	$$(Q)$$(CC_$(1)) $$(CPPFLAGS_ALL) $$(DEPFLAGS) $$(HARDEN) \
		$$(HARDEN_$(1)) $$(WARN) $$(WARN_$(1)) -DBRIG_VERSION='"$(VERSION)"' \
		-fPIE -pthread -I$(B)/gen -c $$< -o $$@
endef

define program_rules
$(B)/$(1)/bin/$(2): $$(OBJS_$(2):%=$(B)/$(1)/obj/%)
	@mkdir -p $$(@D)
	$$(Q)$$(CC_$(1)) $(3) $$(LINK_HARDEN) -o $$@ $$^ $$(LIBS_$(2))
	@echo "  built $$@"
endef

$(foreach c,gcc clang,$(eval $(call compiler_rules,$(c))))
$(foreach c,gcc clang,$(foreach p,$(PROGRAMS_STATIC),\
	$(eval $(call program_rules,$(c),$(p),-static-pie))))
$(foreach c,gcc clang,$(foreach p,$(PROGRAMS_DYNAMIC),\
	$(eval $(call program_rules,$(c),$(p),-pie))))

Q := @

# What brig-init gives to the interpreters that it keeps warm: two scripts as
# strings, and a shared library without any of its own as bytes.
W := src/init
$(B)/gen/warm_scripts.h: $(W)/warm.py $(W)/warm.js $(W)/warm_reseed.c
	@mkdir -p $(@D)
	$(Q)gcc -shared -fPIC -nostdlib -O2 -s -Wall -Wextra -Werror \
		-Wl,-z,norelro,-z,noseparate-code,--hash-style=sysv,--build-id=none \
		-o $(B)/gen/warm_reseed.so $(W)/warm_reseed.c
	$(Q){ for name in python:py node:js; do \
		echo "static const char warm_$${name%:*}[] ="; \
	sed 's/[\\"]/\\&/g; s/.*/"&\\n"/' $(W)/warm.$${name#*:}; echo ';'; \
	done; echo 'static const unsigned char warm_library[] = {'; \
	od -An -v -tx1 $(B)/gen/warm_reseed.so | sed 's/ \(..\)/0x\1,/g'; \
	echo '};'; } > $@
$(foreach c,gcc clang test fuzz,$(B)/$(c)/obj/$(W)/warm.o): $(B)/gen/warm_scripts.h

# `brig completion bash` prints this file.
$(B)/gen/brig-bash.h: completion/brig.bash
	@mkdir -p $(@D)
	$(Q){ echo 'static const char brig_bash[] ='; \
		sed 's/[\\"]/\\&/g; s/.*/"&\\n"/' $<; echo ';'; } > $@

$(B)/gcc/obj/src/cli/info.o $(B)/clang/obj/src/cli/info.o: $(B)/gen/brig-bash.h

# --- Tiny guests: freestanding ELF32 programs with a PVH note -----------------

TINY_GUESTS := hello script faults ports state answer
TINY_CFLAGS := -m32 -march=i686 -O1 -std=gnu17 -ffreestanding -fno-pic \
	-fno-stack-protector -fcf-protection=none -nostdlib -static -no-pie \
	-Wall -Wextra -Werror -I. -Itests/guest -Wl,-T,tests/guest/guest.ld \
	-Wl,--build-id=none -Wl,--no-warn-rwx-segments

$(B)/tests/guest/%.elf: tests/guest/%.c tests/guest/start.S tests/guest/guest.h \
		tests/guest/script.h tests/guest/guest.ld tests/bench/question.h
	@mkdir -p $(@D)
	$(Q)gcc $(TINY_CFLAGS) -o $@ tests/guest/start.S $<

# What measures brig-vmm with tiny guests.
$(B)/bench/machine: tests/bench/machine.c tests/bench/vm.c tests/bench/vm.h \
		tests/bench/question.h wire/vmm.h src/base/fd.c src/base/log.c \
		src/base/assert.c
	@mkdir -p $(@D)
	$(Q)gcc $(CPPFLAGS_ALL) -O2 -g $(WARN) -o $@ $(filter %.c,$^) -lm

# What brig is compared with: QEMU's guest, and what starts QEMU. Both run in
# root file systems of their own.
$(B)/bench/peer_guest $(B)/bench/peer_host: $(B)/bench/%: tests/bench/%.c
	@mkdir -p $(@D)
	$(Q)gcc $(CPPFLAGS_ALL) -O2 -g -static $(WARN) -o $@ $<

# --- Unit tests (cmocka; address and undefined sanitizers) -------------------

# Each test is tests/unit/NAME.c, linked with the objects named here.
UNIT_TESTS :=

UNIT_TESTS += gmem queue queue_model virtio_mmio
UNIT_gmem := src/vmm/gmem.o
UNIT_queue := src/vmm/gmem.o src/vmm/virtio/queue.o src/base/assert.o
UNIT_queue_model := $(UNIT_queue)
UNIT_virtio_mmio := $(UNIT_queue) src/vmm/virtio/mmio.o src/base/log.o \
	src/vmm/state/stream.o

UNIT_TESTS += stream
UNIT_stream := src/vmm/state/stream.o src/base/assert.o

UNIT_TESTS += cow serial blk rng
UNIT_cow := src/vmm/blk/cow.o src/base/fd.o $(UNIT_stream)
UNIT_LIBS_cow := -Wl,--wrap=preadv,--wrap=pwritev
UNIT_serial := src/vmm/dev/serial.o $(UNIT_stream)
UNIT_blk := src/vmm/dev/blk.o src/vmm/blk/cow.o src/base/fd.o $(UNIT_virtio_mmio)
UNIT_LIBS_blk := $(UNIT_LIBS_cow)
UNIT_rng := src/vmm/dev/rng.o $(UNIT_virtio_mmio)
UNIT_LIBS_rng := -Wl,--wrap=clock_gettime,--wrap=getrandom

UNIT_TESTS += vsock vsock_abuse vsock_state
UNIT_vsock := src/vmm/dev/vsock.o src/vmm/dev/vsock_gate.o src/base/fd.o \
	$(UNIT_virtio_mmio)
UNIT_vsock_abuse := $(UNIT_vsock)
UNIT_vsock_state := $(UNIT_vsock)

UNIT_TESTS += device_state
UNIT_device_state := src/vmm/dev/serial.o src/vmm/dev/rng.o $(UNIT_blk)

UNIT_TESTS += vcpu
UNIT_vcpu := $(patsubst %,src/vmm/%.o,vcpu kvm stop state/stream x86/state \
	x86/check x86/cpuid) src/base/assert.o

UNIT_TESTS += x86_state x86_kvm
UNIT_x86_state := $(patsubst %,src/vmm/%.o,kvm state/stream x86/state \
	x86/check x86/cpuid) src/base/assert.o
UNIT_LIBS_x86_state := -Wl,--wrap=ioctl
UNIT_x86_kvm := $(UNIT_x86_state)
UNIT_LIBS_x86_kvm := $(UNIT_LIBS_x86_state)

UNIT_TESTS += memory
UNIT_memory := src/vmm/memory.o src/vmm/gmem.o src/base/fd.o src/base/assert.o
UNIT_LIBS_memory := -Wl,--wrap=ioctl

UNIT_TESTS += workset
UNIT_workset := src/vmm/workset.o $(UNIT_memory)
UNIT_LIBS_workset := -Wl,--wrap=ioctl

UNIT_TESTS += elf acpi base
UNIT_acpi := src/vmm/x86/acpi.o src/vmm/gmem.o src/base/assert.o
UNIT_base := $(BASE_OBJS)
UNIT_elf := src/vmm/x86/elf.o src/vmm/gmem.o src/base/fd.o src/base/assert.o

UNIT_TESTS += cli
UNIT_cli := $(patsubst %,src/cli/%.o,base64 cmd diagnose events key opt ref \
	term when where) $(BASE_OBJS)
UNIT_LIBS_cli := -ljansson

UNIT_TESTS += init_frames init_accounts
UNIT_init_frames := src/init/frames.o
UNIT_init_accounts := src/init/accounts.o src/base/fd.o src/base/assert.o

UNIT_TESTS += brigd_text brigd_args brigd_frame brigd_store
UNIT_brigd_text := $(patsubst %,src/brigd/%.o,fault id utf8 when) $(BASE_OBJS)
UNIT_LIBS_brigd_text := -ljansson
UNIT_brigd_args := $(patsubst %,src/brigd/%.o,args args_make body fault id settings) \
	$(BASE_OBJS)
UNIT_LIBS_brigd_args := -ljansson -lm
UNIT_brigd_frame := $(patsubst %,src/brigd/%.o,frame peer_guest) $(BASE_OBJS)
UNIT_brigd_store := $(patsubst %,src/brigd/%.o,auth id image saved store) \
	$(BASE_OBJS)
UNIT_LIBS_brigd_store := -ljansson -lsqlite3 -lgnutls

UNIT_TESTS += manifest worker snapstore snap_damage snap_crash snap_power snapfile
UNIT_manifest := $(patsubst %,src/brigd/%.o,auth id manifest settings utf8) $(BASE_OBJS)
UNIT_LIBS_manifest := -ljansson -lgnutls
UNIT_worker := src/brigd/worker.o $(BASE_OBJS)
UNIT_snapstore := $(patsubst %,src/brigd/%.o,auth id manifest saved settings snapfile \
	snapio snapload snappublish snapstore sparse utf8 when worker) \
	$(BASE_OBJS)
UNIT_LIBS_snapstore := -ljansson -lgnutls
UNIT_snap_damage := $(UNIT_snapstore)
UNIT_LIBS_snap_damage := $(UNIT_LIBS_snapstore)
UNIT_snap_crash := $(UNIT_snapstore)
UNIT_LIBS_snap_crash := $(UNIT_LIBS_snapstore)
UNIT_snap_power := $(UNIT_snapstore)
UNIT_LIBS_snap_power := $(UNIT_LIBS_snapstore)
UNIT_snapfile := $(UNIT_snapstore)
UNIT_LIBS_snapfile := $(UNIT_LIBS_snapstore)

UNIT_TESTS += spawn_request
UNIT_spawn_request := $(patsubst %,src/spawn/%.o,request probe jail) \
	src/base/fd.o src/base/log.o src/base/assert.o

UNIT_CFLAGS := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all \
	-DBRIG_TEST -Wall -Wextra -Werror -Wno-unused-parameter

$(B)/test/obj/%.o: %.c mk/flags.mk
	@mkdir -p $(@D)
	$(Q)clang-14 $(CPPFLAGS_ALL) $(DEPFLAGS) $(UNIT_CFLAGS) -pthread \
		-DBRIG_VERSION='"$(VERSION)"' -I$(B)/gen -c $< -o $@

define unit_rules
$(B)/test/unit/$(1): $(B)/test/obj/tests/unit/$(1).o $$(UNIT_$(1):%=$(B)/test/obj/%)
	@mkdir -p $$(@D)
	$$(Q)clang-14 -fsanitize=address,undefined -pthread -o $$@ $$^ -lcmocka $$(UNIT_LIBS_$(1))
endef
$(foreach t,$(UNIT_TESTS),$(eval $(call unit_rules,$(t))))

# The agent on a unix socket, for tests/agent.
$(B)/test/bin/brig-init: $(OBJS_brig-init:%=$(B)/test/obj/%)
	@mkdir -p $(@D)
	$(Q)clang-14 -fsanitize=address,undefined -o $@ $^

# --- Fuzz targets (libFuzzer) -------------------------------------------------

# Each target is tests/fuzz/NAME.c with a corpus in tests/fuzz/corpus/NAME/.
FUZZ_TARGETS :=

FUZZ_TARGETS += queue mmio
FUZZ_queue := src/vmm/gmem.o src/vmm/virtio/queue.o src/base/assert.o
FUZZ_mmio := $(UNIT_virtio_mmio)

FUZZ_TARGETS += serial blk rng
FUZZ_serial := $(UNIT_serial)
FUZZ_blk := $(UNIT_blk)
FUZZ_rng := $(UNIT_rng)
FUZZ_LIBS_rng := $(UNIT_LIBS_rng)

FUZZ_TARGETS += vsock state
FUZZ_vsock := $(UNIT_vsock)
FUZZ_state := src/vmm/dev/vsock.o src/vmm/dev/vsock_gate.o $(UNIT_device_state)

FUZZ_TARGETS += elf
FUZZ_elf := $(UNIT_elf)

FUZZ_TARGETS += x86_state
FUZZ_x86_state := $(UNIT_x86_state)
FUZZ_LIBS_x86_state := $(UNIT_LIBS_x86_state)

FUZZ_TARGETS += init_frames
FUZZ_init_frames := src/init/frames.o src/base/assert.o

FUZZ_TARGETS += cli_events
FUZZ_cli_events := $(addprefix src/cli/,base64.o events.o term.o) $(BASE_OBJS)
FUZZ_LIBS_cli_events := -ljansson

FUZZ_TARGETS += agent_frames api_json
FUZZ_agent_frames := $(patsubst %,src/brigd/%.o,agent args settings body cgroup \
	exec_reply fault frame id peer_guest run utf8 when) $(BASE_OBJS)
FUZZ_LIBS_agent_frames := -ljansson -lgnutls -lm
FUZZ_api_json := $(patsubst %,src/brigd/%.o,args args_make body fault id settings utf8 when) \
	$(BASE_OBJS)
FUZZ_LIBS_api_json := -ljansson -lm

FUZZ_TARGETS += manifest snapfile
FUZZ_manifest := $(UNIT_manifest)
FUZZ_LIBS_manifest := $(UNIT_LIBS_manifest)
FUZZ_snapfile := $(UNIT_snapstore)
FUZZ_LIBS_snapfile := $(UNIT_LIBS_snapstore)

FUZZ_TARGETS += spawn_request
FUZZ_spawn_request := src/spawn/request.o

FUZZ_CFLAGS := -O1 -g -fsanitize=fuzzer-no-link,address,undefined \
	-fno-sanitize-recover=all -DBRIG_TEST -Wall -Wextra -Werror

$(B)/fuzz/obj/%.o: %.c mk/flags.mk
	@mkdir -p $(@D)
	$(Q)clang-14 $(CPPFLAGS_ALL) $(DEPFLAGS) $(FUZZ_CFLAGS) -pthread \
		-DBRIG_VERSION='"$(VERSION)"' -I$(B)/gen -c $< -o $@

define fuzz_rules
$(B)/fuzz/$(1): $(B)/fuzz/obj/tests/fuzz/$(1).o $$(FUZZ_$(1):%=$(B)/fuzz/obj/%)
	@mkdir -p $$(@D)
	$$(Q)clang-14 -fsanitize=fuzzer,address,undefined -pthread -o $$@ $$^ $$(FUZZ_LIBS_$(1))
endef
$(foreach t,$(FUZZ_TARGETS),$(eval $(call fuzz_rules,$(t))))

# --- Images -------------------------------------------------------------------

I := $(B)/images

deps: ## install the Debian packages that are missing (as root)
	@tools/deps

$(I)/vmlinux: images/kernel.sh
	$(Q)images/kernel.sh
$(I)/initrd.img: images/initrd.sh $(I)/vmlinux $(B)/gcc/bin/brig-init
	$(Q)images/initrd.sh $(B)/gcc/bin/brig-init $(I)
images: $(I)/vmlinux $(I)/initrd.img ## guest kernel, initramfs, default image, host VM
	$(Q)images/default.sh
	$(Q)images/host.sh

# --- The two commands, and what else people type ------------------------------

run: ## install what is missing, build, start brig, run examples/hello.py
	@tools/deps
	@$(MAKE) --no-print-directory gcc
	@$(MAKE) --no-print-directory images
	@tools/brig-up
	@tools/hello

stop: ## end what `make run` started
	@tools/brig-down

TEST_PROGRAMS := $(UNIT_TESTS:%=$(B)/test/unit/%) \
	$(FUZZ_TARGETS:%=$(B)/fuzz/%) $(TINY_GUESTS:%=$(B)/tests/guest/%.elf)

test-programs: $(TEST_PROGRAMS)

test: ## install what is missing, build, run every test (ONLY=family for one)
	@tools/deps
	@$(MAKE) --no-print-directory -j2 all
	@$(MAKE) --no-print-directory -j2 test-programs
	@$(MAKE) --no-print-directory images
	@tools/test $(ONLY)

bench: ## measure, print p50 p95 p99, write build/bench.json (ONLY=name for one)
	@tools/deps
	@$(MAKE) --no-print-directory gcc $(B)/bench/machine $(B)/tests/guest/answer.elf \
		$(B)/bench/peer_guest $(B)/bench/peer_host
	@$(MAKE) --no-print-directory images
	@tools/bench $(ONLY)

fuzz: $(FUZZ_TARGETS:%=$(B)/fuzz/%) ## run every fuzz target for a minute
	@for t in $(FUZZ_TARGETS); do mkdir -p $(B)/fuzz/found/$$t; \
		$(B)/fuzz/$$t -max_total_time=60 -artifact_prefix=$(B)/fuzz/found/$$t/ \
		$(B)/fuzz/found/$$t tests/fuzz/corpus/$$t || exit 1; done

format: ## lay out all C files with clang-format
	git ls-files '*.c' '*.h' | xargs clang-format-14 -i

DESTDIR ?=
install: gcc images ## install into DESTDIR/PREFIX (as root: makes the user brig and the key)
	@DESTDIR=$(DESTDIR) PREFIX=$(PREFIX) tools/install

print-%:
	@echo $($*)

clean: ## remove everything that was built (not the host VM's data)
	rm -rf $(B)/gcc $(B)/clang $(B)/test $(B)/fuzz $(B)/gen

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' Makefile

-include $(shell find $(B) -path $(B)/images -prune -o -type f -name '*.d' -print 2>/dev/null)
