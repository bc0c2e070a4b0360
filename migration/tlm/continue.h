/*
 * TLM: the wait for "migrate-continue" in pre-switchover
 *
 * QEMU 10.0 has a semaphore for it.  10.1 has made that an event, which can
 * neither be asked nor waited for with a time-out: there it is looked at.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_CONTINUE_H
#define TLM_CONTINUE_H

#include "qemu/atomic.h"
#include "migration/migration.h"

#if QEMU_VERSION_MAJOR > 10 || QEMU_VERSION_MINOR >= 1

/* EV_SET of util/event.c */
#define TLM_EVENT_SET       0
/* So much longer than need be may a guest be paused */
#define TLM_EVENT_LOOK_US   500

static inline bool tlm_continue_came(MigrationState *s)
{
    return qatomic_load_acquire(&s->pause_event.value) == TLM_EVENT_SET;
}

static inline void tlm_continue_forget(MigrationState *s)
{
    qemu_event_reset(&s->pause_event);
}

static inline void tlm_continue_post(MigrationState *s)
{
    qemu_event_set(&s->pause_event);
}

static inline bool tlm_continue_wait(MigrationState *s, uint64_t timeout_ms)
{
    int64_t end_us = g_get_monotonic_time() +
                     MIN(timeout_ms, INT_MAX) * G_TIME_SPAN_MILLISECOND;

    if (!timeout_ms) {
        qemu_event_wait(&s->pause_event);
    }
    while (!tlm_continue_came(s)) {
        if (g_get_monotonic_time() >= end_us) {
            return false;
        }
        g_usleep(TLM_EVENT_LOOK_US);
    }
    return true;
}

#else

/* Takes what has come */
static inline bool tlm_continue_came(MigrationState *s)
{
    return !qemu_sem_timedwait(&s->pause_sem, 0);
}

/* Posts that were too many for an earlier migration */
static inline void tlm_continue_forget(MigrationState *s)
{
    while (tlm_continue_came(s)) {
        /* One each time */
    }
}

static inline void tlm_continue_post(MigrationState *s)
{
    qemu_sem_post(&s->pause_sem);
}

/* False: it has not come in @timeout_ms; 0: wait for ever.  No locks */
static inline bool tlm_continue_wait(MigrationState *s, uint64_t timeout_ms)
{
    if (timeout_ms) {
        return !qemu_sem_timedwait(&s->pause_sem, MIN(timeout_ms, INT_MAX));
    }
    qemu_sem_wait(&s->pause_sem);
    return true;
}

#endif

#endif
