/*
 * What all parts of the server share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_SERVER_H
#define MEMSERVER_SERVER_H

#include "config.h"
#include "store.h"

typedef struct Session Session;

/* Counted since the start, by any thread; see metrics.c. */
typedef struct Counters {
    uint64_t received_bytes, received_pages;
    uint64_t checkpoints_done, checkpoints_failed;
    uint64_t refused_connections;
    uint64_t parity_jobs;               /* that go on */
    uint64_t parity_pages;              /* made, of parities and parts */
} Counters;

typedef struct Server {
    const Config *config;
    Store *store;
    Counters counters;

    GMutex lock;                        /* the two below */
    GHashTable *sessions;               /* id: Session */
    uint64_t next_session;
} Server;

static inline void count(uint64_t *counter, uint64_t n)
{
    __atomic_fetch_add(counter, n, __ATOMIC_RELAXED);
}

static inline uint64_t counted(const uint64_t *counter)
{
    return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

#endif
