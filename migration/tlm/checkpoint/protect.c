/*
 * TLM checkpoint: owed pages are write-protected in the pause, and copied
 * after it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <poll.h>
#include <sys/mman.h>
#include "qemu/bitmap.h"
#include "qemu/event_notifier.h"
#include "qemu/lockable.h"
#include "qemu/rcu.h"
#include "qemu/thread.h"
#include "qemu/userfaultfd.h"
#include "exec/memory.h"
#include "protect.h"

#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)   /* Linux 6.4 */
#endif

/*
 * Runs of owed pages that are nearer to each other are protected as one: to
 * protect pages between them in vain costs less than another system call.
 */
#define GAP_PAGES   64
/* Copied at once: a page table's, as the kernel takes its lock for each */
#define CHUNK_PAGES 512
#define EVENTS      16

typedef struct PageRange {
    unsigned block;
    unsigned long first, num;
} PageRange;

struct TlmProtect {
    TlmEngine *engine;
    TlmCopies *copies;
    unsigned page_bits;
    unsigned nr_blocks;
    RAMBlock **block;
    int uffd;
    GArray *ranges;             /* protected */
    PageRange next;                 /* being put together; num 0: nothing */
    bool failed;

    EventNotifier quit;
    QemuThread server;
    bool serving;
    QemuMutex lock;             /* protects what follows */
    unsigned long **todo;       /* of each block: owed, not copied */
    uint64_t faults;
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

static bool change(TlmProtect *p, const PageRange *r, bool protect)
{
    return !uffd_change_protection(
        p->uffd, p->block[r->block]->host + ((uint64_t)r->first <<
                                             p->page_bits),
        (uint64_t)r->num << p->page_bits, protect, false);
}

/* Lock held: copies those of the pages that are owed */
static void copy_todo(TlmProtect *p, const PageRange *r)
{
    unsigned long *todo = p->todo[r->block];
    unsigned long end = r->first + r->num;
    unsigned long first = find_next_bit(todo, end, r->first);

    while (first < end) {
        unsigned long next = find_next_zero_bit(todo, end, first);

        tlm_copies_copy(p->copies, r->block, first, next - first);
        bitmap_clear(todo, first, next - first);
        first = find_next_bit(todo, end, next);
    }
}

static void save_and_release(TlmProtect *p, const PageRange *r)
{
    QEMU_LOCK_GUARD(&p->lock);
    copy_todo(p, r);
    if (!change(p, r, false)) {
        /* The guest must not wait for ever: no checkpoint, rather */
        p->failed = true;
        for (unsigned i = 0; i < p->nr_blocks; i++) {
            uffd_unregister_memory(p->uffd, p->block[i]->host,
                                   p->block[i]->max_length);
        }
    }
}

static void serve_fault(TlmProtect *p, uint64_t address)
{
    for (unsigned i = 0; i < p->nr_blocks; i++) {
        uint64_t offset = address - (uintptr_t)p->block[i]->host;

        if (offset < p->block[i]->used_length) {
            PageRange page = { i, offset >> p->page_bits, 1 };

            save_and_release(p, &page);
        }
    }
    WITH_QEMU_LOCK_GUARD(&p->lock) {
        p->faults++;
    }
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
                     unsigned long num)
{
    TlmProtect *p = opaque;
    uint8_t *host = p->block[block]->host;

    for (unsigned long i = first; i < first + num; i++) {
        (void)qatomic_read(host + ((uint64_t)i << p->page_bits));
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
    p->ranges = g_array_new(false, false, sizeof(PageRange));
    p->nr_blocks = ram->blocks->len;
    p->block = g_new0(RAMBlock *, p->nr_blocks);
    p->todo = g_new0(unsigned long *, p->nr_blocks);
    qemu_mutex_init(&p->lock);
    for (unsigned i = 0; i < p->nr_blocks; i++) {
        RAMBlock *rb = g_ptr_array_index(ram->blocks, i);

        p->block[i] = rb;
        p->todo[i] = bitmap_new(rb->used_length >> p->page_bits);
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
        tlm_engine_foreach_owed(p->engine, populate, p);
    }
    /* A page that is thrown away would be lost to the copies */
    ram_block_uncoordinated_discard_disable(true);
    p->serving = true;
    qemu_thread_create(&p->server, "mig/src/cow", serve, p,
                       QEMU_THREAD_JOINABLE);
    return p;
}

static void protect_next(TlmProtect *p)
{
    if (p->next.num && !p->failed) {
        p->failed = !change(p, &p->next, true);
        g_array_append_val(p->ranges, p->next);
    }
    p->next.num = 0;
}

static void protect_run(void *opaque, unsigned block, unsigned long first,
                        unsigned long num)
{
    TlmProtect *p = opaque;
    PageRange *next = &p->next;

    if (read_only(p->block[block])) {
        tlm_copies_copy(p->copies, block, first, num);
        return;
    }
    bitmap_set(p->todo[block], first, num);
    if (!next->num || next->block != block ||
        first - (next->first + next->num) > GAP_PAGES) {
        protect_next(p);
        *next = (PageRange) { .block = block, .first = first };
    }
    next->num = first + num - next->first;
}

bool tlm_protect_take(TlmProtect *p)
{
    tlm_engine_foreach_owed(p->engine, protect_run, p);
    protect_next(p);
    if (p->failed) {
        for (unsigned i = 0; i < p->ranges->len; i++) {
            change(p, &g_array_index(p->ranges, PageRange, i), false);
        }
        return false;
    }
    return true;
}

bool tlm_protect_copy(TlmProtect *p)
{
    for (unsigned i = 0; i < p->ranges->len; i++) {
        PageRange range = g_array_index(p->ranges, PageRange, i);

        for (unsigned long at = 0; at < range.num; at += CHUNK_PAGES) {
            PageRange chunk = {
                .block = range.block,
                .first = range.first + at,
                .num = MIN(CHUNK_PAGES, range.num - at),
            };

            save_and_release(p, &chunk);
        }
    }
    QEMU_LOCK_GUARD(&p->lock);
    return !p->failed;
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
    if (p->serving) {
        event_notifier_set(&p->quit);
        qemu_thread_join(&p->server);
        ram_block_uncoordinated_discard_disable(false);
        event_notifier_cleanup(&p->quit);
    }
    /* That ends all protection, and wakes up who waits */
    uffd_close_fd(p->uffd);
    for (unsigned i = 0; i < p->nr_blocks; i++) {
        g_free(p->todo[i]);
    }
    qemu_mutex_destroy(&p->lock);
    g_array_free(p->ranges, true);
    g_free(p->todo);
    g_free(p->block);
    g_free(p);
}
