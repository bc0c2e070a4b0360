/*
 * TLM checkpoint: copies of the pages that are owed when the guest is paused
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/mman.h>
#include "qemu/atomic.h"
#include "qemu/madvise.h"
#include "qemu/stats64.h"
#include "qemu/units.h"
#include "copies.h"
#include "memory-left.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23      /* Linux 5.14 */
#endif

/*
 * More may be owed in the pause than when the memory was faulted in, as the
 * guest goes on: one part in so many more is looked for.  What is beyond that
 * is faulted in during the pause.
 */
#define GROWTH_PART 4
/* To be left to others on the host */
#define KEEP_FREE   (64 * MiB)

struct TlmCopies {
    TlmEngine *engine;
    unsigned page_bits;
    uint64_t limit;
    unsigned nr_blocks;
    RAMBlock *guest;            /* the blocks as they were, */
    RAMBlock *copy;             /* and with the copies in place of host */
    bool no_memory;
    Stat64 bytes;
};

static void fault_in(void *opaque, unsigned block, unsigned long first,
                     unsigned long num)
{
    TlmCopies *c = opaque;
    uint64_t offset = (uint64_t)first << c->page_bits;
    uint64_t len = (uint64_t)num << c->page_bits;
    uint8_t *from = c->copy[block].host + offset;

    if (c->no_memory) {
        return;
    }
    /* Host pages may be larger than the guest's */
    len += (uintptr_t)from & ~qemu_real_host_page_mask();
    from = QEMU_ALIGN_PTR_DOWN(from, qemu_real_host_page_size());
    if (!madvise(from, len, MADV_POPULATE_WRITE)) {
        return;
    }
    if (errno != EINVAL) {
        c->no_memory = true;
        return;
    }
    /* An older kernel */
    for (uint64_t i = 0; i < len; i += qemu_real_host_page_size()) {
        qatomic_set(from + i, 0);
    }
}

/* Address space: no memory yet, even if all of QEMU's is to be locked */
static void *reserve(size_t len)
{
    void *p = mmap(NULL, len, PROT_NONE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (p == MAP_FAILED) {
        return NULL;
    }
    if (munlock(p, len) || mprotect(p, len, PROT_READ | PROT_WRITE)) {
        munmap(p, len);
        return NULL;
    }
    qemu_madvise(p, len, QEMU_MADV_DONTDUMP);
    qemu_madvise(p, len, QEMU_MADV_DONTFORK);
    return p;
}

void tlm_copies_copy(TlmCopies *c, unsigned block, unsigned long first,
                     unsigned long num)
{
    uint64_t offset = (uint64_t)first << c->page_bits;
    uint64_t len = (uint64_t)num << c->page_bits;

    memcpy(c->copy[block].host + offset, c->guest[block].host + offset, len);
    stat64_add(&c->bytes, len);
}

static void copy_run(void *opaque, unsigned block, unsigned long first,
                     unsigned long num)
{
    tlm_copies_copy(opaque, block, first, num);
}

static uint64_t owed(const TlmCopies *c)
{
    return tlm_engine_owed(c->engine) << c->page_bits;
}

TlmCopies *tlm_copies_new(const TlmGuestRam *ram, uint64_t limit,
                          GError **why)
{
    TlmCopies *c = g_new0(TlmCopies, 1);
    uint64_t need, left = tlm_memory_left();

    c->engine = ram->engine;
    c->page_bits = ram->page_bits;
    c->limit = limit;
    need = owed(c) + owed(c) / GROWTH_PART;
    if (limit && owed(c) > limit) {
        g_set_error(why, G_FILE_ERROR, G_FILE_ERROR_NOMEM,
                    "%" PRIu64 " bytes are left to be copied, more than the "
                    "buffer may have (%" PRIu64 ")", owed(c), limit);
        g_free(c);
        return NULL;
    }
    if (left < need + KEEP_FREE) {
        g_set_error(why, G_FILE_ERROR, G_FILE_ERROR_NOMEM,
                    "%" PRIu64 " bytes of memory are wanted for copies, and "
                    "the host, or QEMU's cgroup, has %" PRIu64, need, left);
        g_free(c);
        return NULL;
    }

    c->guest = g_new(RAMBlock, ram->blocks->len);
    c->copy = g_new(RAMBlock, ram->blocks->len);
    for (unsigned i = 0; i < ram->blocks->len; i++) {
        const RAMBlock *rb = g_ptr_array_index(ram->blocks, i);

        c->guest[i] = c->copy[i] = *rb;
        c->copy[i].host = reserve(rb->used_length);
        if (!c->copy[i].host) {
            g_set_error(why, G_FILE_ERROR, G_FILE_ERROR_NOMEM,
                        "Cannot reserve memory for copies: %s",
                        strerror(errno));
            tlm_copies_free(c);
            return NULL;
        }
        c->nr_blocks++;
    }
    tlm_engine_foreach_owed(c->engine, fault_in, c);
    if (c->no_memory) {
        g_set_error(why, G_FILE_ERROR, G_FILE_ERROR_NOMEM,
                    "There is not enough memory for copies");
        tlm_copies_free(c);
        return NULL;
    }
    return c;
}

bool tlm_copies_fit(const TlmCopies *c)
{
    return !c->limit || owed(c) <= c->limit;
}

void tlm_copies_take(TlmCopies *c)
{
    tlm_engine_foreach_owed(c->engine, copy_run, c);
}

RAMBlock *tlm_copies_block(const TlmCopies *c, unsigned i)
{
    return &c->copy[i];
}

uint64_t tlm_copies_bytes(const TlmCopies *c)
{
    return stat64_get(&c->bytes);
}

void tlm_copies_free(TlmCopies *c)
{
    if (!c) {
        return;
    }
    for (unsigned i = 0; i < c->nr_blocks; i++) {
        munmap(c->copy[i].host, c->copy[i].used_length);
    }
    g_free(c->guest);
    g_free(c->copy);
    g_free(c);
}
