# Warnings, hardening and modes. Tried on gcc 12 and clang 14.

WARN := -Wall -Wextra -Werror -Wshadow -Wconversion -Wcast-qual -Wcast-align \
	-Wformat=2 -Wvla -Wundef -Wnull-dereference -Wpointer-arith \
	-Wwrite-strings -Wswitch-enum -Wimplicit-fallthrough \
	-Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition \
	-Wdouble-promotion -Wdate-time -Walloca
WARN_gcc := -Wlogical-op -Wduplicated-cond -Wduplicated-branches \
	-Wjump-misses-init -Wstack-usage=16384 -Wbidi-chars=any
WARN_clang := -Wthread-safety

HARDEN := -O2 -g -D_FORTIFY_SOURCE=2 -fstack-protector-strong \
	-fstack-clash-protection -fcf-protection=full -fno-strict-aliasing \
	-fno-common
HARDEN_gcc := -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3 \
	-ftrivial-auto-var-init=zero -fzero-call-used-regs=used-gpr
# clang 14 knows no automatic zeroing without a warning, and FORTIFY 3 there
# falls back to 2.
HARDEN_clang :=

LINK_HARDEN := -Wl,-z,relro,-z,now,-z,noexecstack,-z,separate-code

CPPFLAGS_ALL := -std=gnu17 -D_GNU_SOURCE -I. -Isrc/base \
	-include src/base/banned.h
DEPFLAGS = -MMD -MP
