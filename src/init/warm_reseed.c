/* warm_reseed.c - loaded into a warm node: its OpenSSL takes new entropy.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Node seeds OpenSSL's generator when it starts, which is before the machine
 * is copied, and offers no way to do it again. This library has no other code
 * than its constructor; where OpenSSL is not the process's own, or does not
 * obey, the process ends and another one runs the code.
 */

extern int RAND_poll(void) __attribute__((weak));
extern int RAND_status(void) __attribute__((weak));
extern void _exit(int status) __attribute__((noreturn));

__attribute__((constructor)) static void reseed(void)
{
	if (RAND_poll == (void *)0 || RAND_status == (void *)0 ||
	    RAND_poll() != 1 || RAND_status() != 1)
		_exit(127);
}
