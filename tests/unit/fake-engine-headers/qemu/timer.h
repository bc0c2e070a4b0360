/*
 * Stands in for QEMU's qemu/timer.h where the engine is tested without QEMU
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_TEST_TIMER_H
#define TLM_TEST_TIMER_H

#define SCALE_US 1000
#define SCALE_MS 1000000

enum { QEMU_CLOCK_REALTIME };

static inline int64_t qemu_clock_get_ns(int clock)
{
    return g_get_monotonic_time() * SCALE_US;
}

#endif
