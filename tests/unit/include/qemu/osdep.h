/*
 * Stands in for QEMU's include/qemu/osdep.h where files of migration/tlm
 * that know nothing of QEMU are compiled on their own: in the unit tests and
 * the simulator. Offers GLib, the C library's headers that QEMU's osdep.h
 * includes, and those of its macros that these files use: nothing that QEMU's
 * does not offer, so that what compiles here compiles there.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_TEST_OSDEP_H
#define TLM_TEST_OSDEP_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <stdarg.h>
#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <inttypes.h>
#include <limits.h>
#include <unistd.h>
#include <time.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <getopt.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <assert.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include <glib.h>

#ifndef ARRAY_SIZE
#define ARRAY_SIZE(x) G_N_ELEMENTS(x)
#endif
#ifndef DIV_ROUND_UP
#define DIV_ROUND_UP(n, d) (((n) + (d) - 1) / (d))
#endif
#ifndef ROUND_DOWN
#define ROUND_DOWN(n, d) ((n) & -(0 ? (n) : (d)))
#endif
#ifndef ROUND_UP
#define ROUND_UP(n, d) ROUND_DOWN((n) + (d) - 1, (d))
#endif
#define QEMU_ALIGN_DOWN(n, m) ((n) / (m) * (m))
#define QEMU_ALIGN_UP(n, m) QEMU_ALIGN_DOWN((n) + (m) - 1, (m))
#define HOST_LONG_BITS (__SIZEOF_LONG__ * 8)

/* 0 is an argument to be ignored, as in QEMU */
#define MIN_NON_ZERO(a, b) ((a) == 0 ? (b) : (b) == 0 ? (a) : MIN(a, b))

#define QEMU_NORETURN G_NORETURN
#define QEMU_PACKED __attribute__((packed))
#define QEMU_ALIGNED(x) __attribute__((aligned(x)))
#define QEMU_BUILD_BUG_ON(x) G_STATIC_ASSERT(!(x))
#define QEMU_BUILD_BUG_MSG(x, msg) _Static_assert(!(x), msg)
#ifndef likely
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#endif

#ifndef container_of
#define container_of(ptr, type, member) \
    ((type *)((char *)(ptr) - offsetof(type, member)))
#endif

#define TFR(expr) \
    do { \
        if ((expr) != -1) { \
            break; \
        } \
    } while (errno == EINTR)
#define RETRY_ON_EINTR(expr) \
    ({ \
        __typeof(expr) retry_ret_; \
        do { \
            retry_ret_ = (expr); \
        } while (retry_ret_ == -1 && errno == EINTR); \
        retry_ret_; \
    })

#endif
