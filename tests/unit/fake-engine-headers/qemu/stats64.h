/*
 * Stands in for QEMU's qemu/stats64.h where the engine is tested without QEMU
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_TEST_STATS64_H
#define TLM_TEST_STATS64_H

typedef struct Stat64 { uint64_t value; } Stat64;

static inline uint64_t stat64_get(const Stat64 *s)
{
    return __atomic_load_n(&s->value, __ATOMIC_RELAXED);
}

static inline void stat64_set(Stat64 *s, uint64_t value)
{
    __atomic_store_n(&s->value, value, __ATOMIC_RELAXED);
}

static inline void stat64_add(Stat64 *s, uint64_t value)
{
    __atomic_fetch_add(&s->value, value, __ATOMIC_RELAXED);
}

#endif
