/*
 * The page in which a guest of scripts/bench counts its work
 *
 * It is reserved on the kernel's command line and mapped through /dev/mem, so
 * that the host finds it at the same place of the guest's RAM whatever runs
 * there, and reads it from outside without asking anybody.
 *
 * TLM_COUNTER names the file to map, TLM_COUNTER_OFFSET where in it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TLM_COUNTER_H
#define TLM_COUNTER_H

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define TLM_COUNTER_MAGIC UINT64_C(0x544e554f434d4c54)      /* "TLMCOUNT" */
#define TLM_COUNTER_SIZE 4096

enum {
    TLM_STARTING,
    TLM_READY,          /* in steady work: may be migrated */
    TLM_DONE,           /* stopped when asked to, and all was right */
    TLM_FAILED,
};

#define TLM_MAX_CLIENTS 8

/* What a client of a database has asked for, and what that has said is done */
typedef struct TlmClient {
    uint64_t asked;
    uint64_t acknowledged;
} TlmClient;

typedef struct TlmCounter {
    uint64_t magic;
    uint64_t alive;     /* init's, some hundred times a second */
    uint64_t work;      /* units that are done */
    uint64_t state;
    uint64_t stop;      /* the host's: come to an end and check */
    uint64_t runs;      /* that have been checked and were right */
    TlmClient client[TLM_MAX_CLIENTS];  /* see journal.c */
} TlmCounter;

/* NULL: nobody asked for it, or there is none */
static inline volatile TlmCounter *tlm_counter_open(void)
{
    const char *name = getenv("TLM_COUNTER");
    const char *offset = getenv("TLM_COUNTER_OFFSET");
    void *page;
    int fd;

    if (!name) {
        return NULL;
    }
    fd = open(name, O_RDWR | O_SYNC | O_CLOEXEC);
    if (fd < 0) {
        return NULL;
    }
    page = mmap(NULL, TLM_COUNTER_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
                fd, offset ? strtoull(offset, NULL, 0) : 0);
    close(fd);
    return page == MAP_FAILED ? NULL : page;
}

static inline void tlm_counter_add(volatile uint64_t *what, uint64_t n)
{
    __atomic_fetch_add(what, n, __ATOMIC_RELAXED);
}

#endif
