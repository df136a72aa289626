/* start.S - entry of a tiny guest: 32-bit protected mode, EBX = start info.
 * SPDX-License-Identifier: Apache-2.0
 */
	.section .note.pvh, "a", @note
	.long 4, 4, 18		/* name size, descriptor size, PHYS32_ENTRY */
	.asciz "Xen"
	.long _start

	.section .text.start, "ax"
	.globl _start
_start:
	movl	$stack_end, %esp
	pushl	%ebx
	call	guest_main
	/* A guest that returns powers off. */
	movl	$0x600, %edx
	movb	$0x34, %al	/* SLP_EN | 5 << 2 */
	outb	%al, %dx
1:	hlt
	jmp	1b

	.bss
	.balign 16
	.skip	8192
stack_end:
	.section .note.GNU-stack, "", @progbits
