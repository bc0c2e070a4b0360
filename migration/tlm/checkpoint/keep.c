/*
 * TLM checkpoint: how the RAM that is owed in the pause stays as it was then
 *
 *   copy           all of it is copied in the pause
 *   mixed          so much of it is copied as the pause may last, the hottest
 *                  pages, to which the guest would write at once; the rest is
 *                  write-protected
 *   write-protect  nothing is copied but what cannot be protected
 *   write          not at all: the pause lasts until it is written
 *
 * Copying is best where it fits into the pause: the guest does not wait for
 * anything afterwards, and it works with all RAM.
 *
 * A buffer that is smaller than what is owed is not used, and the pause is as
 * long as writing takes.  It could be used again and again while the guest
 * runs on protected RAM.  But then the guest would wait for the disk or the
 * network at each write, for as long as the checkpoint takes: a pause that is
 * not called one.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "keep.h"
#include "protect.h"

/*
 * ms of the pause for all but RAM: vCPUs, devices, the log.  Measured were
 * 1.5 to 3.
 */
#define OTHER_MS 3

struct TlmKeep {
    const TlmGuestRam *ram;
    MigrationTlmCheckpointMode mode;
    uint64_t buffer;
    TlmCopies *copies;
    TlmProtect *protect;
    GError *no_copies;          /* why there are none */
    bool crowded;               /* there was too little memory before */
    uint64_t budget;            /* bytes that may be copied in the pause */
};

TlmKeep *tlm_keep_new(const TlmGuestRam *ram, MigrationTlmCheckpointMode mode,
                      uint64_t buffer)
{
    TlmKeep *k = g_new0(TlmKeep, 1);

    k->ram = ram;
    k->mode = mode;
    k->buffer = buffer;
    k->copies = tlm_copies_new(ram, buffer, &k->no_copies);
    return k;
}

void tlm_keep_free(TlmKeep *k)
{
    if (k) {
        tlm_protect_free(k->protect);
        tlm_copies_free(k->copies);
        g_clear_error(&k->no_copies);
        g_free(k);
    }
}

void tlm_keep_expect(TlmKeep *k)
{
    /* Of write-protected RAM little is copied to memory of its own */
    if (k->copies && k->mode != MIGRATION_TLM_CHECKPOINT_MODE_WRITE_PROTECT) {
        tlm_copies_expect(k->copies);
    }
}

/*
 * Where room must be made for all that is owed, that costs as much as to go on
 * with the pass.
 */
uint64_t tlm_keep_capacity(const TlmKeep *k)
{
    return k->copies && !k->crowded &&
           k->mode == MIGRATION_TLM_CHECKPOINT_MODE_WRITE_PROTECT ?
           tlm_copies_capacity(k->copies) : 0;
}

bool tlm_keep_try(TlmKeep *k)
{
    k->crowded = !k->copies || !tlm_copies_allowed(k->copies, NULL);
    return !k->crowded;
}

/* Would copying all of it take too long? */
static bool too_slow(TlmKeep *k, uint64_t limit_ms)
{
    uint64_t owed = tlm_engine_owed(k->ram->engine) << k->ram->page_bits;
    double rate = tlm_copies_rate(k->copies);

    k->budget = rate * (limit_ms - MIN(limit_ms, OTHER_MS));
    return rate && owed > k->budget;
}

char *tlm_keep_prepare(TlmKeep *k, uint64_t limit_ms)
{
    g_autoptr(GError) why = NULL;

    if (k->copies && k->mode == MIGRATION_TLM_CHECKPOINT_MODE_WRITE_PROTECT &&
        tlm_copies_allowed(k->copies, NULL)) {
        k->protect = tlm_protect_new(k->ram, k->copies, &why);
    }
    if (k->copies && !k->protect &&
        !tlm_copies_prepare(k->copies, &k->no_copies)) {
        g_clear_pointer(&k->copies, tlm_copies_free);
    }
    if (k->copies && k->mode == MIGRATION_TLM_CHECKPOINT_MODE_AUTO &&
        too_slow(k, limit_ms)) {
        k->protect = tlm_protect_new(k->ram, k->copies, &why);
    }
    return k->no_copies ? g_strdup(k->no_copies->message) :
           why ? g_strdup(why->message) : NULL;
}

bool tlm_keep_ready(TlmKeep *k)
{
    return k->copies && tlm_copies_fit(k->copies, &k->no_copies);
}

const char *tlm_keep_why_not(const TlmKeep *k)
{
    return k->no_copies ? k->no_copies->message : NULL;
}

MigrationTlmCheckpointMethod tlm_keep_take(TlmKeep *k)
{
    if (!k->protect) {
        tlm_copies_take(k->copies);
        return MIGRATION_TLM_CHECKPOINT_METHOD_COPY;
    }
    if (!tlm_protect_take(k->protect, k->budget)) {
        g_clear_pointer(&k->protect, tlm_protect_free);
        tlm_copies_take(k->copies);
        return MIGRATION_TLM_CHECKPOINT_METHOD_COPY;
    }
    return tlm_protect_mixed(k->protect) ?
           MIGRATION_TLM_CHECKPOINT_METHOD_MIXED :
           MIGRATION_TLM_CHECKPOINT_METHOD_WRITE_PROTECT;
}

void tlm_keep_begin(TlmKeep *k)
{
    if (k->protect) {
        tlm_protect_begin(k->protect);
    }
}

RAMBlock *tlm_keep_source(TlmKeep *k, unsigned block,
                          const unsigned long *page, unsigned *num)
{
    return k->protect ? tlm_protect_source(k->protect, block, page, num) :
                        tlm_copies_block(k->copies, block);
}

bool tlm_keep_sent(TlmKeep *k)
{
    tlm_copies_release(k->copies);
    return !k->protect || tlm_protect_sent(k->protect);
}

void tlm_keep_let_go(TlmKeep *k)
{
    if (k && k->protect) {
        tlm_protect_end(k->protect);
    }
}

uint64_t tlm_keep_copied(const TlmKeep *k)
{
    return k->copies ? tlm_copies_bytes(k->copies) : 0;
}

uint64_t tlm_keep_rate(const TlmKeep *k)
{
    return k->copies ? tlm_copies_rate(k->copies) * 1000 : 0;
}

uint64_t tlm_keep_faults(const TlmKeep *k)
{
    return k->protect ? tlm_protect_faults(k->protect) : 0;
}
