/*
 * The search for pages that were never populated, while the kernel moves,
 * collapses, swaps and discards pages under it
 *
 * All of the memory holds data, so that none of it may ever be reported.
 * Against the running kernel; and by test-populated-guest.py in a virtual
 * machine with Linux 6.1, two NUMA nodes and swap, as process 1.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include "engine/populated.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25        /* Linux 6.1 */
#endif
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21         /* Linux 5.4 */
#endif
#define MOVE_MF_MOVE (1 << 1)   /* MPOL_MF_MOVE of numaif.h */

#define MB (1UL << 20)
#define HUGE_SIZE (2 * MB)
#define SIZE (8 * MB)
/* Without the mends hundreds of searches see a fault on Linux 6.1 */
#define SEARCHES 3000

typedef enum {
    ANON_SCAN,
    ANON_READ,
    SHMEM,
} Way;

static const char *const way_names[] = { "scan", "read", "shmem" };

typedef struct Fixture Fixture;

typedef struct Mover {
    const char *name;
    /* Why it cannot be had here; NULL: it can */
    const char *(*missing)(Fixture *f);
    /* Move all of the memory; false: nothing was moved */
    bool (*move)(Fixture *f);
    /* How often at least, while the memory is searched */
    int times;
    /* How much memory: a search meets more of what moves slowly if small */
    size_t size;
} Mover;

struct Fixture {
    TlmPagemap p;
    Way way;
    const Mover *mover;
    int fd;
    uint64_t page;
    uint8_t *mem;
    size_t size;
    /* The page that is discarded and filled again: not looked at */
    bool discards;
    unsigned round;
    gint stop;
    gint moves;
    unsigned found;
    uint64_t first_found;
};

/* One byte that is not zero, at another place in every page */
static void fill_page(Fixture *f, uint64_t i)
{
    f->mem[i * f->page + i % f->page] = 1 + i % 255;
}

static bool page_filled(const Fixture *f, uint64_t i)
{
    /* volatile: the read has to happen */
    const volatile uint8_t *mem = f->mem;

    return mem[i * f->page + i % f->page] == 1 + i % 255;
}

static void setup_memory(Fixture *f, Way way, bool small_pages)
{
    const int prot = PROT_READ | PROT_WRITE;
    uint8_t *mem = mmap(NULL, SIZE + HUGE_SIZE, PROT_NONE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    memset(f, 0, sizeof(*f));
    f->way = way;
    f->page = getauxval(AT_PAGESZ);
    f->size = SIZE;
    f->fd = -1;
    g_assert_true(tlm_pagemap_open(&f->p, f->page));
    f->p.can_scan = way == ANON_SCAN;
    g_assert(mem != MAP_FAILED);
    mem = (uint8_t *)QEMU_ALIGN_UP((uintptr_t)mem, HUGE_SIZE);
    if (way == SHMEM) {
        f->fd = memfd_create("test", MFD_CLOEXEC);
        g_assert_cmpint(f->fd, >=, 0);
        g_assert_cmpint(ftruncate(f->fd, SIZE), ==, 0);
        f->mem = mmap(mem, SIZE, prot, MAP_SHARED | MAP_FIXED, f->fd, 0);
    } else {
        f->mem = mmap(mem, SIZE, prot,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    }
    g_assert(f->mem == mem);
    /* EINVAL: a kernel without transparent huge pages, which is as good */
    g_assert_true(!small_pages ||
                  madvise(mem, SIZE, MADV_NOHUGEPAGE) == 0 ||
                  errno == EINVAL);
    for (uint64_t i = 0; i < SIZE / f->page; i++) {
        fill_page(f, i);
    }
}

static void free_memory(Fixture *f)
{
    tlm_pagemap_close(&f->p);
    munmap(f->mem, SIZE);
    if (f->fd >= 0) {
        close(f->fd);
    }
}

static void found(void *opaque, uint64_t start, uint64_t len)
{
    Fixture *f = opaque;

    for (uint64_t at = start; at < start + len; at += f->page) {
        if (f->discards && at % HUGE_SIZE == 0) {
            continue;
        }
        if (!f->found++) {
            f->first_found = at / f->page;
        }
    }
}

static bool search(Fixture *f, uint8_t *mem, size_t len)
{
    return f->way == SHMEM ?
        tlm_populated_shmem(f->fd, f->page, mem - f->mem, len, found, f) :
        tlm_populated_anon(&f->p, mem, len, found, f);
}

static void discard(Fixture *f, uint8_t *mem, size_t len)
{
    g_assert_cmpint(madvise(mem, len, f->way == SHMEM ? MADV_REMOVE :
                            MADV_DONTNEED), ==, 0);
}

static uint64_t vmstat(const char *name)
{
    g_autofree char *text = NULL;
    g_autofree char *key = g_strdup_printf("%s ", name);
    const char *line;

    g_assert_true(g_file_get_contents("/proc/vmstat", &text, NULL, NULL));
    line = strstr(text, key);
    return line ? g_ascii_strtoull(line + strlen(key), NULL, 10) : 0;
}

/*
 * Huge pages, what khugepaged makes.  Discarding a page of one splits it, so
 * that there is something to be collapsed again.
 */
static bool collapse(Fixture *f)
{
    bool moved = false;

    for (size_t at = 0; at < f->size; at += HUGE_SIZE) {
        discard(f, f->mem + at, f->page);
        fill_page(f, at / f->page);
        moved |= madvise(f->mem + at, HUGE_SIZE, MADV_COLLAPSE) == 0;
    }
    return moved;
}

static const char *cannot_collapse(Fixture *f)
{
    f->discards = true;
    return collapse(f) ? NULL : "no MADV_COLLAPSE here";
}

/* To the other NUMA node, as automatic balancing does */
static bool to_other_node(Fixture *f)
{
    const unsigned long num = f->size / f->page;
    const int node = f->round++ % 2;
    bool moved = false;
    g_autofree void **pages = g_new(void *, num);
    g_autofree int *nodes = g_new(int, num);
    g_autofree int *status = g_new(int, num);

    for (unsigned long i = 0; i < num; i++) {
        /* What the kernel has swapped out is not moved */
        g_assert_true(page_filled(f, i));
        pages[i] = f->mem + i * f->page;
        nodes[i] = node;
    }
    if (syscall(SYS_move_pages, 0, num, pages, nodes, status,
                MOVE_MF_MOVE) < 0) {
        return false;
    }
    for (unsigned long i = 0; i < num; i++) {
        moved |= status[i] == node;
    }
    return moved;
}

static const char *one_node(Fixture *f)
{
    return to_other_node(f) && to_other_node(f) ? NULL :
        "no second NUMA node";
}

/* Of what the whole system has: some of it may be ours */
static bool compact(Fixture *f)
{
    int fd = open("/proc/sys/vm/compact_memory", O_WRONLY | O_CLOEXEC);
    bool done = fd >= 0 && write(fd, "1", 1) == 1;

    if (fd >= 0) {
        close(fd);
    }
    return done;
}

static const char *cannot_compact(Fixture *f)
{
    uint64_t before = vmstat("pgmigrate_success");

    if (!compact(f)) {
        return "compact_memory cannot be written to";
    }
    return vmstat("pgmigrate_success") > before ? NULL :
        "there is nothing to be compacted";
}

/* To the swap device; and back, by what looks at the pages */
static bool page_out(Fixture *f)
{
    uint64_t before = vmstat("pswpout");

    g_assert_cmpint(madvise(f->mem, f->size, MADV_PAGEOUT), ==, 0);
    for (uint64_t i = 0; i < f->size / f->page; i++) {
        g_assert_true(page_filled(f, i));
        /* Or what is on the swap device would do for the next time */
        fill_page(f, i);
    }
    return vmstat("pswpout") > before;
}

static const char *no_swap(Fixture *f)
{
    return page_out(f) ? NULL : "nothing can be swapped out here";
}

static const Mover movers[] = {
    { "collapse", cannot_collapse, collapse, 30, SIZE },
    { "nodes", one_node, to_other_node, 10, MB },
    { "compaction", cannot_compact, compact, 3, SIZE },
    { "swap", no_swap, page_out, 10, MB },
};

static void *move_thread(void *opaque)
{
    Fixture *f = opaque;

    while (!g_atomic_int_get(&f->stop)) {
        if (f->mover->move(f)) {
            g_atomic_int_inc(&f->moves);
        }
    }
    return NULL;
}

static bool kernel_has(Fixture *f)
{
    /* can_scan is cleared by a search on a kernel that has no PAGEMAP_SCAN */
    if (f->way == ANON_SCAN &&
        (!search(f, f->mem, f->page) || !f->p.can_scan)) {
        g_test_skip("this kernel has no PAGEMAP_SCAN");
        return false;
    }
    return true;
}

typedef struct Case {
    Way way;
    const Mover *mover;
} Case;

static void test_moved(gconstpointer opaque)
{
    const Case *c = opaque;
    Fixture f;
    GThread *thread;
    const char *missing;
    unsigned searches = 0;
    unsigned wrong = 0;
    unsigned unanswered = 0;

    setup_memory(&f, c->way, c->mover->move != collapse);
    f.mover = c->mover;
    f.size = f.mover->size;
    missing = f.mover->missing(&f);
    if (missing) {
        g_test_skip(missing);
        free_memory(&f);
        return;
    }
    if (!kernel_has(&f)) {
        free_memory(&f);
        return;
    }
    f.found = 0;
    thread = g_thread_new("move", move_thread, &f);
    while (searches < SEARCHES ||
           g_atomic_int_get(&f.moves) < c->mover->times) {
        unsigned before = f.found;

        unanswered += !search(&f, f.mem, f.size);
        wrong += f.found > before;
        searches++;
    }
    g_atomic_int_set(&f.stop, 1);
    g_thread_join(thread);
    for (uint64_t i = 0; i < f.size / f.page; i++) {
        g_assert_true(page_filled(&f, i));
    }
    g_test_message("%u searches while the memory was moved %d times",
                   searches, f.moves);
    if (unanswered) {
        g_test_message("%u searches were given up", unanswered);
        g_test_fail();
    }
    if (f.found) {
        g_test_message("%u pages with data were reported, in %u of the "
                       "searches; page %" PRIu64 " was the first", f.found,
                       wrong, f.first_found);
        g_test_fail();
    }
    free_memory(&f);
}

/*
 * Behind a huge page of zeros that comes and goes lies memory with data, and
 * behind that, memory that was never populated: an answer that is short of
 * the first, and so is about other pages than it says, would report the data.
 */
static bool discard_first(Fixture *f)
{
    /* volatile: the read has to happen */
    g_assert_cmpint(*(volatile uint8_t *)f->mem, ==, 0);
    discard(f, f->mem, HUGE_SIZE);
    return true;
}

static void found_behind(void *opaque, uint64_t start, uint64_t len)
{
    Fixture *f = opaque;
    uint64_t from = MAX(start, HUGE_SIZE);
    uint64_t to = MIN(start + len, 2 * HUGE_SIZE);

    if (from < to && !f->found++) {
        f->first_found = from / f->page;
    }
}

static void test_discarded(gconstpointer opaque)
{
    static const Mover mover = {
        .name = "discard", .move = discard_first, .times = 1000,
    };
    const Case *c = opaque;
    Fixture f;
    GThread *thread;
    unsigned searches = 0;

    setup_memory(&f, c->way, false);
    if (madvise(f.mem, f.size, MADV_HUGEPAGE) < 0) {
        g_test_skip("no transparent huge pages");
        free_memory(&f);
        return;
    }
    if (!kernel_has(&f)) {
        free_memory(&f);
        return;
    }
    f.mover = &mover;
    discard(&f, f.mem, HUGE_SIZE);
    discard(&f, f.mem + 2 * HUGE_SIZE, f.size - 2 * HUGE_SIZE);
    thread = g_thread_new("discard", move_thread, &f);
    while (searches < 10 * SEARCHES ||
           g_atomic_int_get(&f.moves) < mover.times) {
        g_assert_true(tlm_populated_anon(&f.p, f.mem, 3 * HUGE_SIZE,
                                         found_behind, &f));
        searches++;
    }
    g_atomic_int_set(&f.stop, 1);
    g_thread_join(thread);
    g_test_message("%u searches, %d times discarded", searches, f.moves);
    if (f.found) {
        g_test_message("pages with data were reported %u times; page "
                       "%" PRIu64 " was the first", f.found, f.first_found);
        g_test_fail();
    }
    free_memory(&f);
}

static void add(const char *name, Way way, const Mover *mover,
                void (*test)(gconstpointer))
{
    g_autofree char *path = g_strdup_printf("/populated-moved/%s/%s", name,
                                            way_names[way]);
    Case *c = g_new(Case, 1);

    *c = (Case) { .way = way, .mover = mover };
    g_test_add_data_func_full(path, c, test, g_free);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; i < ARRAY_SIZE(movers); i++) {
        for (Way way = 0; way < ARRAY_SIZE(way_names); way++) {
            add(movers[i].name, way, &movers[i], test_moved);
        }
    }
    add("discard", ANON_SCAN, NULL, test_discarded);
    add("discard", ANON_READ, NULL, test_discarded);
    return g_test_run();
}
