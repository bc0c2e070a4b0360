/*
 * For LD_PRELOAD: KVM as it was before it had KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2
 *
 * QEMU uses that whenever it is there, and has no option for it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include <linux/kvm.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <unistd.h>

int ioctl(int fd, unsigned long request, ...)
{
    va_list ap;
    unsigned long arg;

    va_start(ap, request);
    arg = va_arg(ap, unsigned long);
    va_end(ap);
    if (request == KVM_CHECK_EXTENSION &&
        arg == KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2) {
        return 0;
    }
    return syscall(SYS_ioctl, fd, request, arg);
}
