/*
 * TLM checkpoint: memory for parts of RAM that are about to be sent
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/lockable.h"
#include "qemu/madvise.h"
#include "qemu/memalign.h"
#include "qemu/thread.h"
#include "slots.h"

struct TlmSlots {
    unsigned num;
    size_t bytes;
    uint8_t *memory;
    RAMBlock block[TLM_SLOTS_MAX];
    QemuMutex lock;
    DECLARE_BITMAP(used, TLM_SLOTS_MAX);
};

TlmSlots *tlm_slots_new(unsigned num, size_t bytes)
{
    TlmSlots *s;
    uint8_t *memory = qemu_try_memalign(bytes, num * bytes);

    if (!memory) {
        return NULL;
    }
    qemu_madvise(memory, num * bytes, QEMU_MADV_DONTDUMP);
    s = g_new0(TlmSlots, 1);
    s->num = num;
    s->bytes = bytes;
    s->memory = memory;
    qemu_mutex_init(&s->lock);
    return s;
}

void tlm_slots_free(TlmSlots *s)
{
    if (s) {
        qemu_mutex_destroy(&s->lock);
        qemu_madvise(s->memory, s->num * s->bytes, QEMU_MADV_DODUMP);
        qemu_vfree(s->memory);
        g_free(s);
    }
}

int tlm_slots_take(TlmSlots *s, const RAMBlock *rb, ram_addr_t offset)
{
    unsigned long slot;

    WITH_QEMU_LOCK_GUARD(&s->lock) {
        slot = find_first_zero_bit(s->used, s->num);
        if (slot >= s->num) {
            return -1;
        }
        set_bit(slot, s->used);
    }
    s->block[slot] = *rb;
    s->block[slot].host = (uint8_t *)((uintptr_t)s->memory +
                                      slot * s->bytes - offset);
    return slot;
}

RAMBlock *tlm_slots_block(TlmSlots *s, int slot)
{
    return &s->block[slot];
}

void tlm_slots_give_back(TlmSlots *s, int slot)
{
    QEMU_LOCK_GUARD(&s->lock);
    clear_bit(slot, s->used);
}
