/*
 * TLM: guest RAM and QEMU's dirty log, as the engine sees them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/rcu.h"
#include "exec/ramlist.h"
#include "exec/target_page.h"
#include "migration/migration.h"
#include "migration/ram.h"
#include "migration/threadinfo.h"
#include "guest-ram.h"

static RAMBlock *block(const TlmGuestRam *ram, unsigned i)
{
    return g_ptr_array_index(ram->blocks, i);
}

static void unref_block(void *opaque)
{
    RAMBlock *rb = opaque;

    memory_region_unref(rb->mr);
}

void tlm_guest_ram_init(TlmGuestRam *ram)
{
    ram->page_bits = qemu_target_page_bits();
    ram->blocks = g_ptr_array_new_with_free_func(unref_block);
}

bool tlm_guest_ram_add_blocks(TlmGuestRam *ram)
{
    RAMBlock *rb;

    RCU_READ_LOCK_GUARD();
    QEMU_LOCK_GUARD(ram_bitmap_mutex());

    RAMBLOCK_FOREACH_NOT_IGNORED(rb) {
        if (!tlm_engine_add_block(ram->engine, rb->bmap,
                                  rb->used_length >> ram->page_bits,
                                  1UL << rb->clear_bmap_shift)) {
            return false;
        }
        /* A guest may still eject memory if it was asked to before */
        memory_region_ref(rb->mr);
        g_ptr_array_add(ram->blocks, rb);
    }
    return true;
}

void tlm_guest_ram_destroy(TlmGuestRam *ram)
{
    g_clear_pointer(&ram->blocks, g_ptr_array_unref);
}

/*
 * Memory cannot be plugged during a migration, but a guest may still eject
 * memory if it was asked to before.  The block stays as long as there is a
 * reference to it, but is not migrated any more.
 */
bool tlm_guest_ram_layout_unchanged(const TlmGuestRam *ram)
{
    RAMBlock *rb;
    unsigned i = 0;

    RCU_READ_LOCK_GUARD();

    RAMBLOCK_FOREACH_NOT_IGNORED(rb) {
        if (i == ram->blocks->len || block(ram, i) != rb ||
            tlm_engine_block_pages(ram->engine, i) !=
            rb->used_length >> ram->page_bits) {
            return false;
        }
        i++;
    }
    return i == ram->blocks->len;
}

void tlm_guest_ram_forget(TlmGuestRam *ram, RAMBlock *rb,
                          unsigned long first, unsigned long num)
{
    for (unsigned i = 0; i < ram->blocks->len; i++) {
        if (block(ram, i) == rb) {
            tlm_engine_forget(ram->engine, i, first, num);
        }
    }
}

static void lock(void *opaque)
{
    qemu_mutex_lock(ram_bitmap_mutex());
}

static void unlock(void *opaque)
{
    qemu_mutex_unlock(ram_bitmap_mutex());
}

/* The BQL may be held or not; only the sync of the log needs it */
static void sync_log(void *opaque)
{
    bool locked = bql_locked();

    if (!locked) {
        bql_lock();
    }
    WITH_RCU_READ_LOCK_GUARD() {
        migration_bitmap_sync_precopy(false);
    }
    if (!locked) {
        bql_unlock();
    }
}

/* Without the BQL: clearing a large chunk takes milliseconds */
static void clear_log(void *opaque, unsigned i, unsigned long first,
                      unsigned long num)
{
    migration_clear_memory_region_dirty_bitmap_range(block(opaque, i), first,
                                                     num);
}

static void owed(void *opaque, uint64_t pages)
{
    ram_set_dirty_pages(pages);
}

static void *thread_begin(void *opaque, const char *name)
{
    rcu_register_thread();
    return migration_threads_add(name, qemu_get_thread_id());
}

static void thread_end(void *opaque, void *thread)
{
    rcu_unregister_thread();
    migration_threads_remove(thread);
}

const TlmRamOps tlm_guest_ram_ops = {
    .lock = lock,
    .unlock = unlock,
    .sync = sync_log,
    .clear_log = clear_log,
    .armed = tlm_guest_ram_skip_unpopulated,
    .owed = owed,
    .thread_begin = thread_begin,
    .thread_end = thread_end,
};
