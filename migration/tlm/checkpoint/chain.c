/*
 * TLM checkpoint: which pages have changed since an earlier one
 *
 * A generation is a checkpoint after which the dirty log stays on.  What its
 * child has to have is in the log, from the pause on; and, once somebody has
 * read the log, in @since:
 *
 *   begin      the log is read, into the migration's bitmaps and into @since
 *   live       the same with each further sync
 *   pause      the last sync; what is owed is armed (README.md, rule 2)
 *   good end   @since is what this generation has; a new one begins, empty
 *   bad end    nothing: @since has all that was taken out of the log, sent or
 *              not, and the log what was written since the last sync
 *
 * So a checkpoint that fails or is cancelled costs its child nothing.  @last
 * is the newest generation's own set: somebody who has lost that generation
 * can still have a child of the one before.
 *
 * Nobody else may take bits out of the log.  Whoever does ends the chain, and
 * the next checkpoint is a full one that says why.
 *
 * Everything here is under the BQL; @since also under bitmap_mutex.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/bitmap.h"
#include "qemu/rcu.h"
#include "qemu/uuid.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-migration-tlm-checkpoint.h"
#include "exec/ramlist.h"
#include "exec/target_page.h"
#include "migration/misc.h"
#include "migration/ram.h"
#include "../qemu-compat.h"
#include "../tlm.h"
#include "chain.h"

typedef struct ChainBlock {
    RAMBlock *rb;               /* only to be compared */
    ram_addr_t used_length;
    unsigned long pages;
    unsigned long *since;       /* changed since the newest generation */
    unsigned long *last;        /* changed between the two newest ones */
} ChainBlock;

static struct {
    /* Kept from one checkpoint to the next */
    bool on;                    /* the log is on for this */
    GArray *blocks;
    uint32_t layout;            /* ram_list.version */
    char *newest;               /* generation; NULL: none is complete */
    char *older;                /* its parent, if it had one */
    char *ended;                /* why there is no chain; NULL: never was */

    /* Of the checkpoint that runs, or was last */
    bool keep;
    char *asked;                /* parent that the user has */
    bool begun;                 /* it has read the log */
    bool incremental;           /* since @parent; read without locks */
    char *generation;
    char *parent;
    char *full_reason;
    uint64_t filled;            /* pages */
} chain;

static void set_text(char **text, char *value)
{
    g_free(*text);
    *text = value;
}

static void free_blocks(void)
{
    for (unsigned i = 0; chain.blocks && i < chain.blocks->len; i++) {
        ChainBlock *b = &g_array_index(chain.blocks, ChainBlock, i);

        g_free(b->since);
        g_free(b->last);
    }
    g_clear_pointer(&chain.blocks, g_array_unref);
}

/* Forgets all generations; the log stays as it is */
static void forget(const char *why)
{
    free_blocks();
    g_clear_pointer(&chain.newest, g_free);
    g_clear_pointer(&chain.older, g_free);
    set_text(&chain.ended, g_strdup(why));
}

void tlm_chain_end(const char *why)
{
    if (chain.on) {
        forget(why);
        chain.on = false;
        memory_global_dirty_log_stop(GLOBAL_DIRTY_CHECKPOINT);
    }
}

void qmp_tlm_checkpoint_forget(Error **errp)
{
    if (migration_is_running() || tlm_is_checkpoint()) {
        error_setg(errp, "There's a migration process in progress");
        return;
    }
    tlm_chain_end("'tlm-checkpoint-forget' has ended the chain");
}

/* Unplugged memory would be a third kind of page */
bool tlm_chain_possible(Error **errp)
{
    RAMBlock *rb;

    RCU_READ_LOCK_GUARD();

    RAMBLOCK_FOREACH_NOT_IGNORED(rb) {
        if (memory_region_has_ram_discard_manager(rb->mr)) {
            error_setg(errp, "Incremental checkpoints do not go with memory "
                       "of which parts can be unplugged, such as "
                       "virtio-mem: '%s'", rb->idstr);
            return false;
        }
    }
    return true;
}

static bool add_blocks(Error **errp)
{
    RAMBlock *rb;

    chain.blocks = g_array_new(false, true, sizeof(ChainBlock));
    chain.layout = ram_list.version;
    RAMBLOCK_FOREACH_NOT_IGNORED(rb) {
        ChainBlock b = {
            .rb = rb,
            .used_length = rb->used_length,
            .pages = rb->used_length >> qemu_target_page_bits(),
        };

        b.since = bitmap_try_new(MAX(b.pages, 1));
        b.last = bitmap_try_new(MAX(b.pages, 1));
        g_array_append_val(chain.blocks, b);
        if (!b.since || !b.last) {
            error_setg(errp, "Not enough memory for the bitmaps of "
                       "incremental checkpoints");
            return false;
        }
    }
    return true;
}

/* RCU read lock held */
static bool layout_unchanged(void)
{
    RAMBlock *rb;
    unsigned i = 0;

    if (chain.layout != ram_list.version) {
        return false;
    }
    RAMBLOCK_FOREACH_NOT_IGNORED(rb) {
        ChainBlock *b = &g_array_index(chain.blocks, ChainBlock, i);

        if (i == chain.blocks->len || b->rb != rb ||
            b->used_length != rb->used_length) {
            return false;
        }
        i++;
    }
    return i == chain.blocks->len;
}

/* Why there can be no child of the generation that was asked for; or NULL */
static char *why_full(void)
{
    if (!chain.on) {
        return g_strdup(chain.ended ?: "No checkpoint was made with "
                        "'incremental' yet");
    }
    if (g_strcmp0(chain.asked, chain.newest) &&
        g_strcmp0(chain.asked, chain.older)) {
        return g_strdup_printf("Generation %s is not known (any more); the "
                               "newest is %s", chain.asked, chain.newest);
    }
    if (!layout_unchanged()) {
        return g_strdup("The layout of RAM has changed");
    }
    return NULL;
}

bool tlm_ram_begin(Error **errp)
{
    char *why;

    if (!tlm_is_checkpoint() || chain.begun) {
        /* Perhaps "savevm", before the last checkpoint is cleaned up */
        tlm_chain_end("A migration or a snapshot has used the dirty log");
        qatomic_set(&chain.incremental, false);
        return true;
    }
    why = chain.asked ? why_full() : NULL;
    chain.begun = true;
    chain.filled = 0;
    if (chain.asked && !why) {
        set_text(&chain.parent, g_strdup(chain.asked));
        qatomic_set(&chain.incremental, true);
        return true;
    }
    set_text(&chain.full_reason, why);
    if (!chain.keep) {
        tlm_chain_end("The last checkpoint was made without 'incremental'");
        return true;
    }
    forget("The last full checkpoint has failed");
    if (!memory_global_dirty_log_start(GLOBAL_DIRTY_CHECKPOINT, errp)) {
        chain.on = false;
        return false;
    }
    chain.on = true;
    if (!add_blocks(errp)) {
        tlm_chain_end("There was not enough memory");
        return false;
    }
    return true;
}

static ChainBlock *find(const RAMBlock *rb)
{
    for (unsigned i = 0; chain.blocks && i < chain.blocks->len; i++) {
        ChainBlock *b = &g_array_index(chain.blocks, ChainBlock, i);

        if (b->rb == rb) {
            return b;
        }
    }
    return NULL;
}

void tlm_ram_init_bitmap(RAMBlock *rb, unsigned long pages)
{
    ChainBlock *b;

    if (!tlm_is_incremental()) {
        bitmap_set(rb->bmap, 0, pages);
        return;
    }
    /* RAM's layout was compared when the checkpoint began */
    b = find(rb);
    assert(b);
    bitmap_copy(rb->bmap, b->since, b->pages);
    if (g_strcmp0(chain.parent, chain.newest)) {
        bitmap_or(rb->bmap, b->since, b->last, b->pages);
    }
    chain.filled += bitmap_count_one(rb->bmap, b->pages);
    ram_set_dirty_pages(chain.filled);
}

void tlm_ram_synced(RAMBlock *rb)
{
    ChainBlock *b = tlm_is_incremental() ? find(rb) : NULL;

    if (b) {
        bitmap_or(b->since, b->since, rb->bmap, b->pages);
    }
}

bool tlm_is_incremental(void)
{
    return qatomic_read(&chain.incremental);
}

void tlm_chain_ask(bool keep, const char *parent)
{
    QemuUUID uuid;

    chain.keep = keep;
    set_text(&chain.asked, g_strdup(parent));
    qemu_uuid_generate(&uuid);
    set_text(&chain.generation, keep ? qemu_uuid_unparse_strdup(&uuid) : NULL);
    set_text(&chain.parent, NULL);
    set_text(&chain.full_reason, NULL);
}

/* What was written since the pause is in the log, and belongs to its child */
static void add_generation(void)
{
    for (unsigned i = 0; i < chain.blocks->len; i++) {
        ChainBlock *b = &g_array_index(chain.blocks, ChainBlock, i);
        unsigned long *since = b->since;

        b->since = b->last;
        b->last = since;
        bitmap_zero(b->since, b->pages);
    }
    set_text(&chain.older, g_strdup(chain.parent));
    set_text(&chain.newest, g_strdup(chain.generation));
}

void tlm_chain_done(bool good)
{
    if (chain.begun && chain.on) {
        if (good && chain.keep) {
            add_generation();
        } else if (good) {
            tlm_chain_end("The last checkpoint was made without "
                          "'incremental'");
        } else if (!chain.newest) {
            tlm_chain_end("The last full checkpoint has failed");
        }
    }
    if (!chain.on) {
        g_clear_pointer(&chain.generation, g_free);
    }
    chain.begun = false;
    qatomic_set(&chain.incremental, false);
}

void tlm_chain_info(MigrationTlmCheckpoint *info, bool completed)
{
    info->generation = completed ? g_strdup(chain.generation) : NULL;
    info->parent = g_strdup(chain.parent);
    info->full_reason = g_strdup(chain.full_reason);
}
