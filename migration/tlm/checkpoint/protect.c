/*
 * TLM checkpoint: owed pages are write-protected in the pause, and copied
 * after it
 *
 * RAM is copied in chunks.  Three copy side by side, and each chunk is copied
 * by one of them:
 *
 *   the workers   first chunk to last, just before they send it, to a slot that
 *                 is free again when it has been sent
 *   "ahead"       last chunk to first, to memory that has to be faulted in
 *   "cow"         the same, the chunks that the guest wants to write to
 *
 * So the guest waits for memory only, and never for a disk or a network: if
 * these are slow, "ahead" copies nearly all.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <poll.h>
#include <sys/mman.h>
#include "qemu/atomic.h"
#include "qemu/bitmap.h"
#include "qemu/cutils.h"
#include "qemu/event_notifier.h"
#include "qemu/rcu.h"
#include "qemu/thread.h"
#include "qemu/units.h"
#include "qemu/userfaultfd.h"
#include "protect.h"
#include "slots.h"

#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)   /* Linux 6.4 */
#endif

/*
 * Runs of owed pages that are nearer to each other are protected as one: to
 * protect pages between them in vain costs less than another system call.
 */
#define GAP_PAGES   64
/*
 * Copied, and let go, at once: what one page table has, as the kernel takes
 * its lock for each; or a huge page, which is not split then.
 */
#define CHUNK_BYTES (2 * MiB)
#define EVENTS      16
/* us; to copy a chunk takes hundreds of them */
#define BUSY_US     50
/* One part in so many more may be owed in the pause, and comes before slots */
#define GROWTH_PART 4

/* Of a chunk */
typedef enum {
    FREE,                       /* not protected: what is owed is copied */
    HELD,                       /* protected */
    BUSY,                       /* being copied, by who made it so */
    IN_SLOT,                    /* copied to slot 0; and so on */
} ChunkState;

QEMU_BUILD_BUG_ON(IN_SLOT + TLM_SLOTS_MAX > UINT8_MAX);

struct TlmProtect {
    TlmEngine *engine;
    TlmCopies *copies;
    unsigned page_bits;
    unsigned long chunk_pages;
    unsigned nr_blocks;
    RAMBlock **block;
    /*
     * Of each block: pages that are protected to be copied.  They stay here
     * when they were copied to a slot.
     */
    unsigned long **todo;
    uint8_t **state;            /* of each block: its chunks; atomic */
    TlmSlots *slots;            /* NULL: there are none */
    unsigned nr_slots;
    int uffd;
    /* Atomic: */
    bool failed;
    long budget;                /* pages to be copied in the pause */
    bool mixed;                 /* some were */
    unsigned long faults;
    unsigned long left;         /* chunks that are not copied yet */
    bool stop;                  /* "ahead" is to end */

    EventNotifier quit;
    QemuThread server, ahead;
    bool serving, going_ahead;
    /* What is before it has been sent; coordinator */
    unsigned sent_block;
    unsigned long sent_chunk;
};

/* Whether writes to it can be caught: not if another process maps it */
static bool can_protect(const RAMBlock *rb)
{
    return !(rb->flags & RAM_SHARED) &&
           rb->page_size == qemu_real_host_page_size();
}

/* Nobody writes to it but QEMU itself, seldom: it is copied in the pause */
static bool read_only(const RAMBlock *rb)
{
    return rb->mr->readonly || rb->mr->rom_device;
}

static bool change(TlmProtect *p, unsigned block, unsigned long first,
                   unsigned long num, bool protect)
{
    return !uffd_change_protection(
        p->uffd, p->block[block]->host + ((uint64_t)first << p->page_bits),
        (uint64_t)num << p->page_bits, protect, false);
}

/* The guest must not wait for ever: no checkpoint, rather */
static void give_up(TlmProtect *p)
{
    qatomic_set(&p->failed, true);
    for (unsigned i = 0; i < p->nr_blocks; i++) {
        uffd_unregister_memory(p->uffd, p->block[i]->host,
                               p->block[i]->max_length);
    }
}

static void copy_todo(TlmProtect *p, unsigned block, unsigned long first,
                      unsigned long end)
{
    unsigned long *todo = p->todo[block];

    first = find_next_bit(todo, end, first);
    while (first < end) {
        unsigned long next = find_next_zero_bit(todo, end, first);

        tlm_copies_copy(p->copies, block, first, next - first);
        bitmap_clear(todo, first, next - first);
        first = find_next_bit(todo, end, next);
    }
}

static unsigned long block_chunks(const TlmProtect *p, unsigned block)
{
    return DIV_ROUND_UP(p->block[block]->used_length >> p->page_bits,
                        p->chunk_pages);
}

static unsigned long chunk_end(const TlmProtect *p, unsigned block,
                               unsigned long chunk)
{
    return MIN((chunk + 1) * p->chunk_pages,
               p->block[block]->used_length >> p->page_bits);
}

/* True: this thread, and no other, copies it and lets it go */
static bool claim(TlmProtect *p, unsigned block, unsigned long chunk)
{
    return qatomic_cmpxchg(&p->state[block][chunk], HELD, BUSY) == HELD;
}

/* All of it was copied; to where @state says */
static void let_go(TlmProtect *p, unsigned block, unsigned long chunk,
                   uint8_t state)
{
    unsigned long first = chunk * p->chunk_pages;

    if (!change(p, block, first, chunk_end(p, block, chunk) - first, false)) {
        give_up(p);
    }
    qatomic_store_release(&p->state[block][chunk], state);
    qatomic_dec(&p->left);
}

/*
 * If it is not held any more, another thread has taken it, and lets all go
 * that wait for it.  The kernel looks at a page again before a thread waits.
 */
static void copy_and_let_go(TlmProtect *p, unsigned block,
                            unsigned long chunk)
{
    if (claim(p, block, chunk)) {
        copy_todo(p, block, chunk * p->chunk_pages,
                  chunk_end(p, block, chunk));
        let_go(p, block, chunk, FREE);
    }
}

/* It is claimed.  Returns its new state. */
static uint8_t copy_to_slot(TlmProtect *p, unsigned block,
                            unsigned long chunk)
{
    unsigned long *todo = p->todo[block];
    unsigned long first = chunk * p->chunk_pages;
    unsigned long end = chunk_end(p, block, chunk);
    int slot = -1;

    if (p->slots) {
        slot = tlm_slots_take(p->slots, tlm_copies_guest(p->copies, block),
                              (ram_addr_t)first << p->page_bits);
    }
    if (slot < 0) {
        copy_todo(p, block, first, end);
        return FREE;
    }
    first = find_next_bit(todo, end, first);
    while (first < end) {
        unsigned long next = find_next_zero_bit(todo, end, first);

        tlm_copies_copy_to(p->copies, tlm_slots_block(p->slots, slot), block,
                           first, next - first);
        first = find_next_bit(todo, end, next);
    }
    return IN_SLOT + slot;
}

RAMBlock *tlm_protect_source(TlmProtect *p, unsigned block,
                             const unsigned long *page, unsigned *num)
{
    unsigned long chunk = page[0] / p->chunk_pages;
    bool in_slot = false;
    uint8_t state;
    unsigned n = 1;

    if (claim(p, block, chunk)) {
        let_go(p, block, chunk, copy_to_slot(p, block, chunk));
    }
    while ((state = qatomic_load_acquire(&p->state[block][chunk])) == BUSY) {
        g_usleep(BUSY_US);
    }
    if (state >= IN_SLOT) {
        /* Others of the chunk's pages were copied in the pause */
        in_slot = test_bit(page[0], p->todo[block]);
    }
    while (n < *num && page[n] / p->chunk_pages == chunk &&
           (state < IN_SLOT ||
            test_bit(page[n], p->todo[block]) == in_slot)) {
        n++;
    }
    *num = n;
    return in_slot ? tlm_slots_block(p->slots, state - IN_SLOT) :
                     tlm_copies_block(p->copies, block);
}

/* With its neighbours, which are likely to be written to soon */
static void serve_fault(TlmProtect *p, uint64_t address)
{
    for (unsigned i = 0; i < p->nr_blocks; i++) {
        uint64_t offset = address - (uintptr_t)p->block[i]->host;

        if (offset < p->block[i]->used_length) {
            copy_and_let_go(p, i, (offset >> p->page_bits) / p->chunk_pages);
        }
    }
    qatomic_inc(&p->faults);
}

/* Never takes the BQL: whoever holds it may be the one that waits */
static void *serve(void *opaque)
{
    TlmProtect *p = opaque;
    struct pollfd fds[] = {
        { .fd = p->uffd, .events = POLLIN },
        { .fd = event_notifier_get_fd(&p->quit), .events = POLLIN },
    };

    rcu_register_thread();
    while (!fds[1].revents) {
        struct uffd_msg events[EVENTS];
        int num;

        if (poll(fds, ARRAY_SIZE(fds), -1) < 0 || !fds[0].revents) {
            continue;
        }
        num = uffd_read_events(p->uffd, events, EVENTS);
        for (int i = 0; i < num; i++) {
            if (events[i].event == UFFD_EVENT_PAGEFAULT) {
                serve_fault(p, events[i].arg.pagefault.address);
            }
        }
    }
    rcu_unregister_thread();
    return NULL;
}

/* From the end, as the workers begin at the beginning */
static void *go_ahead(void *opaque)
{
    TlmProtect *p = opaque;

    rcu_register_thread();
    for (unsigned i = p->nr_blocks; i-- > 0;) {
        unsigned long c = block_chunks(p, i);

        while (c-- > 0 && !qatomic_read(&p->stop)) {
            copy_and_let_go(p, i, c);
        }
    }
    rcu_unregister_thread();
    return NULL;
}

static void fail(GError **why, const char *reason)
{
    g_set_error(why, G_FILE_ERROR, G_FILE_ERROR_FAILED,
                "RAM cannot be write-protected: %s", reason);
}

/*
 * Before Linux 6.4 a page that is not there is not protected either.  Reading
 * it makes it be there.
 */
static void populate(void *opaque, unsigned block, unsigned long first,
                     unsigned long end)
{
    TlmProtect *p = opaque;
    uint8_t *host = p->block[block]->host;
    unsigned long num;

    while ((num = tlm_engine_next(p->engine, TLM_TAKE_ALL, block, &first,
                                  end))) {
        for (; num; first++, num--) {
            (void)qatomic_read(host + ((uint64_t)first << p->page_bits));
        }
    }
}

static void make_slots(TlmProtect *p)
{
    uint64_t limit = tlm_copies_limit(p->copies);
    uint64_t owed = tlm_engine_owed(p->engine) << p->page_bits;
    uint64_t spare = limit - MIN(limit, owed + owed / GROWTH_PART);

    p->nr_slots = MIN(spare / CHUNK_BYTES, TLM_SLOTS_MAX);
    p->slots = p->nr_slots ? tlm_slots_new(p->nr_slots, CHUNK_BYTES) : NULL;
    if (p->slots) {
        tlm_copies_share_limit(p->copies, p->nr_slots * CHUNK_BYTES);
    }
}

TlmProtect *tlm_protect_new(const TlmGuestRam *ram, TlmCopies *copies,
                            GError **why)
{
    const uint64_t need = UFFD_FEATURE_PAGEFAULT_FLAG_WP;
    TlmProtect *p;
    uint64_t features;
    int uffd;

    if (ram_block_discard_is_disabled()) {
        fail(why, "a device writes to it by itself (VFIO, vDPA)");
        return NULL;
    }
    if (ram_block_discard_is_required()) {
        fail(why, "a device discards parts of it (virtio-mem)");
        return NULL;
    }
    for (unsigned i = 0; i < ram->blocks->len; i++) {
        RAMBlock *rb = g_ptr_array_index(ram->blocks, i);

        if (!read_only(rb) && !can_protect(rb)) {
            fail(why, "it is shared with other processes, or has huge pages");
            return NULL;
        }
    }
    if (uffd_query_features(&features) || (features & need) != need) {
        fail(why, "the kernel does not offer it, or does not permit it "
             "(userfaultfd)");
        return NULL;
    }
    uffd = uffd_create_fd(need | (features & UFFD_FEATURE_WP_UNPOPULATED),
                          true);
    if (uffd < 0) {
        fail(why, "userfaultfd is not permitted");
        return NULL;
    }

    p = g_new0(TlmProtect, 1);
    p->engine = ram->engine;
    p->copies = copies;
    p->page_bits = ram->page_bits;
    p->uffd = uffd;
    p->chunk_pages = CHUNK_BYTES >> p->page_bits;
    p->nr_blocks = ram->blocks->len;
    p->block = g_new0(RAMBlock *, p->nr_blocks);
    p->todo = g_new0(unsigned long *, p->nr_blocks);
    p->state = g_new0(uint8_t *, p->nr_blocks);
    for (unsigned i = 0; i < p->nr_blocks; i++) {
        RAMBlock *rb = g_ptr_array_index(ram->blocks, i);

        p->block[i] = rb;
        p->todo[i] = bitmap_new(rb->used_length >> p->page_bits);
        p->state[i] = g_new0(uint8_t, block_chunks(p, i));
        if (!read_only(rb) &&
            uffd_register_memory(uffd, rb->host, rb->max_length,
                                 UFFDIO_REGISTER_MODE_WP, NULL)) {
            fail(why, "the kernel has refused it");
            tlm_protect_free(p);
            return NULL;
        }
    }
    if (event_notifier_init(&p->quit, false)) {
        fail(why, "there are no file descriptors left");
        tlm_protect_free(p);
        return NULL;
    }
    if (!(features & UFFD_FEATURE_WP_UNPOPULATED)) {
        tlm_copies_share(copies, populate, p);
    }
    make_slots(p);
    /* A page that is thrown away would be lost to the copies */
    ram_block_uncoordinated_discard_disable(true);
    p->serving = true;
    qemu_thread_create(&p->server, "mig/src/cow", serve, p,
                       QEMU_THREAD_JOINABLE);
    return p;
}

/* While the budget lasts: what the guest is likely to write to at once */
static void copy_hot(TlmProtect *p, unsigned block, unsigned long first,
                     unsigned long end)
{
    unsigned long num;

    while (qatomic_read(&p->budget) > 0 &&
           (num = tlm_engine_next(p->engine, TLM_TAKE_HOT, block, &first,
                                  end))) {
        num = MIN(num, p->chunk_pages);
        if (qatomic_fetch_sub(&p->budget, num) < (long)num) {
            return;
        }
        tlm_copies_copy(p->copies, block, first, num);
        bitmap_clear(p->todo[block], first, num);
        qatomic_set(&p->mixed, true);
        first += num;
    }
}

static void protect_run(TlmProtect *p, unsigned block, unsigned long first,
                        unsigned long end)
{
    for (unsigned long c = first / p->chunk_pages;
         c <= (end - 1) / p->chunk_pages; c++) {
        if (qatomic_xchg(&p->state[block][c], HELD) == FREE) {
            qatomic_inc(&p->left);
        }
    }
    if (!change(p, block, first, end - first, true)) {
        qatomic_set(&p->failed, true);
    }
}

static void protect_part(void *opaque, unsigned block, unsigned long at,
                         unsigned long end)
{
    TlmProtect *p = opaque;
    unsigned long *todo = p->todo[block];
    unsigned long first = at, num;

    while ((num = tlm_engine_next(p->engine, TLM_TAKE_ALL, block, &first,
                                  end))) {
        bitmap_set(todo, first, num);
        first += num;
    }
    if (read_only(p->block[block])) {
        copy_todo(p, block, at, end);
        return;
    }
    copy_hot(p, block, at, end);
    first = find_next_bit(todo, end, at);
    while (first < end && !qatomic_read(&p->failed)) {
        unsigned long last = find_next_zero_bit(todo, end, first);
        unsigned long next = find_next_bit(todo, end, last);

        while (next < end && next - last <= GAP_PAGES) {
            last = find_next_zero_bit(todo, end, next);
            next = find_next_bit(todo, end, last);
        }
        protect_run(p, block, first, last);
        first = next;
    }
}

bool tlm_protect_take(TlmProtect *p, uint64_t budget)
{
    p->budget = MIN(budget >> p->page_bits, LONG_MAX);
    tlm_copies_share(p->copies, protect_part, p);
    if (p->failed) {
        give_up(p);
        return false;
    }
    return true;
}

bool tlm_protect_mixed(const TlmProtect *p)
{
    return p->mixed;
}

static void stop_serving(TlmProtect *p)
{
    if (p->going_ahead) {
        qatomic_set(&p->stop, true);
        qemu_thread_join(&p->ahead);
        p->going_ahead = false;
    }
    if (p->serving) {
        event_notifier_set(&p->quit);
        qemu_thread_join(&p->server);
        ram_block_uncoordinated_discard_disable(false);
        event_notifier_cleanup(&p->quit);
        p->serving = false;
    }
}

void tlm_protect_begin(TlmProtect *p)
{
    p->going_ahead = true;
    qemu_thread_create(&p->ahead, "mig/src/ahead", go_ahead, p,
                       QEMU_THREAD_JOINABLE);
}

/* Gives back the slots of what was sent */
static void empty_slots(TlmProtect *p)
{
    while (p->sent_block < p->nr_blocks) {
        unsigned i = p->sent_block;

        for (; p->sent_chunk < block_chunks(p, i); p->sent_chunk++) {
            unsigned long first = p->sent_chunk * p->chunk_pages;
            uint8_t *state = &p->state[i][p->sent_chunk];

            if (tlm_engine_next(p->engine, TLM_TAKE_ALL, i, &first,
                                chunk_end(p, i, p->sent_chunk))) {
                return;
            }
            if (qatomic_read(state) >= IN_SLOT) {
                tlm_slots_give_back(p->slots, qatomic_read(state) - IN_SLOT);
                qatomic_set(state, FREE);
            }
        }
        p->sent_block++;
        p->sent_chunk = 0;
    }
}

void tlm_protect_end(TlmProtect *p)
{
    stop_serving(p);
    /* That ends all protection, and wakes up who waits */
    if (p->uffd >= 0) {
        uffd_close_fd(p->uffd);
        p->uffd = -1;
    }
}

bool tlm_protect_sent(TlmProtect *p)
{
    if (p->slots) {
        empty_slots(p);
    }
    if (!qatomic_read(&p->left)) {
        tlm_protect_end(p);
    }
    return !qatomic_read(&p->failed);
}

uint64_t tlm_protect_faults(const TlmProtect *p)
{
    return p->faults;
}

void tlm_protect_free(TlmProtect *p)
{
    if (!p) {
        return;
    }
    tlm_protect_end(p);
    if (p->slots) {
        tlm_copies_share_limit(p->copies,
                               -(int64_t)(p->nr_slots * CHUNK_BYTES));
        tlm_slots_free(p->slots);
    }
    for (unsigned i = 0; i < p->nr_blocks; i++) {
        g_free(p->todo[i]);
        g_free(p->state[i]);
    }
    g_free(p->todo);
    g_free(p->state);
    g_free(p->block);
    g_free(p);
}
