/*
 * Unit tests of the search for pages that were never populated: real memory
 * of this process, against a model of what was done to it
 *
 * Every case of private memory runs with both ways of asking the kernel.
 * What must never happen is that a page with content is reported; that what is
 * zero is reported is the point of the exercise, and tested where it is
 * certain.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/auxv.h>
#include <sys/mman.h>
#include "populated-fixture.h"

static void test_untouched(Fixture *f, gconstpointer scan)
{
    if (unsupported(f)) {
        return;
    }
    map_memory(f, 1024 * MB, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
    look(f);
    g_assert_cmpuint(f->runs, ==, 1);
    g_assert_cmpuint(f->end, ==, 1024 * MB);
}

static void test_full(Fixture *f, gconstpointer scan)
{
    if (unsupported(f)) {
        return;
    }
    map_memory(f, 16 * MB, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    for (uint64_t i = 0; i < f->pages; i++) {
        write_page(f, i);
    }
    look(f);
    g_assert_cmpuint(f->runs, ==, 0);
}

/* Patterns from "hardly any" to "nearly all", more runs than a buffer has */
static void test_patterns(Fixture *f, gconstpointer scan)
{
    static const int percent[] = { 1, 10, 50, 90, 99 };
    g_autoptr(GRand) rnd = g_rand_new_with_seed(7);

    if (unsupported(f)) {
        return;
    }
    for (unsigned p = 0; p < ARRAY_SIZE(percent); p++) {
        g_autofree bool *used = NULL;

        map_memory(f, 64 * MB, MAP_PRIVATE | MAP_ANONYMOUS, -1);
        use_small_pages(f);
        used = g_new0(bool, f->pages);
        for (uint64_t i = 0; i < f->pages; i++) {
            if (g_rand_int_range(rnd, 0, 100) < percent[p]) {
                used[i] = true;
                write_page(f, i);
            }
        }
        look(f);
        assert_reported(f, used);

        munmap(f->mem, f->pages * f->page);
        g_clear_pointer(&f->reported, g_free);
        f->mem = NULL;
    }
}

/* Every other page: as many runs as there can be */
static void test_alternating(Fixture *f, gconstpointer scan)
{
    g_autofree bool *used = NULL;

    if (unsupported(f)) {
        return;
    }
    map_memory(f, 32 * MB, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    use_small_pages(f);
    used = g_new0(bool, f->pages);
    for (uint64_t i = 0; i < f->pages; i += 2) {
        used[i] = true;
        write_page(f, i);
    }
    look(f);
    assert_reported(f, used);
    g_assert_cmpuint(f->runs, ==, f->pages / 2);
}

/* A part of the memory: nothing of what lies around it, offsets from it */
static void test_part(Fixture *f, gconstpointer scan)
{
    if (unsupported(f)) {
        return;
    }
    map_memory(f, 16 * MB, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    use_small_pages(f);
    write_page(f, 1003);
    look_part(f, 1000, 10);
    g_assert_cmpuint(f->runs, ==, 2);
    g_assert_cmpuint(f->end, ==, 10 * f->page);
    for (uint64_t i = 0; i < 10; i++) {
        g_assert_cmpint(f->reported[i], ==, i != 3);
    }
}

/* What was discarded is zero again, and populated when it is used again */
static void test_discard(Fixture *f, gconstpointer scan)
{
    g_autofree bool *used = NULL;

    if (unsupported(f)) {
        return;
    }
    map_memory(f, 16 * MB, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    use_small_pages(f);
    used = g_new0(bool, f->pages);
    for (uint64_t i = 0; i < f->pages; i++) {
        write_page(f, i);
        used[i] = i < 100 || i >= 900;
    }
    madvise(f->mem + 100 * f->page, 800 * f->page, MADV_DONTNEED);
    look(f);
    assert_reported(f, used);
    write_page(f, 500);
    used[500] = true;
    look(f);
    assert_reported(f, used);
}

/*
 * Only read: pagemap says "present", PAGEMAP_SCAN also that it is the page
 * of zeros, if the kernel has not given memory for it.  After a write it is
 * not.
 */
static void test_read(Fixture *f, gconstpointer scan)
{
    unsigned sum = 0;
    uint64_t before, given;
    bool told;

    if (unsupported(f)) {
        return;
    }
    map_memory(f, 4 * MB, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    use_small_pages(f);
    before = tlm_populated_resident(f->page);
    for (uint64_t i = 0; i < f->pages; i++) {
        sum += read_page(f->mem + i * f->page);
    }
    g_assert_cmpuint(sum, ==, 0);
    given = tlm_populated_resident(f->page) - before;
    g_test_message("%" PRIu64 " bytes more are resident", given);
    told = f->scan && given < 2 * MB;
    look(f);
    g_assert_cmpuint(f->runs, ==, told);
    g_assert_cmpuint(f->end, ==, told ? 4 * MB : 0);
    for (uint64_t i = 0; i < f->pages; i++) {
        write_page(f, i);
    }
    look(f);
    g_assert_cmpuint(f->runs, ==, 0);
}

/* Transparent huge pages, and the huge page of zeros */
static void test_huge(Fixture *f, gconstpointer scan)
{
    uint8_t *aligned;
    uint64_t at;
    unsigned sum = 0;

    if (unsupported(f)) {
        return;
    }
    map_memory(f, 64 * MB, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    if (madvise(f->mem, 64 * MB, MADV_HUGEPAGE) < 0) {
        g_test_skip("no transparent huge pages");
        return;
    }
    aligned = (uint8_t *)QEMU_ALIGN_UP((uintptr_t)f->mem, 2 * MB);
    at = (aligned - f->mem) / f->page;
    aligned[0] = 1;
    aligned[10 * MB] = 1;
    sum += read_page(aligned + 20 * MB);
    g_assert_cmpuint(sum, ==, 0);
    look(f);
    /* Small pages or huge ones: as the kernel likes */
    g_assert_false(f->reported[at]);
    g_assert_false(f->reported[at + 10 * MB / f->page]);
    g_assert_true(f->reported[at + 4 * MB / f->page]);
    g_assert_true(f->reported[at + 40 * MB / f->page]);
    g_assert_cmpint(f->reported[at + 20 * MB / f->page], ==, f->scan);
}

/* Written to the swap device, where there is one */
static void test_paged_out(Fixture *f, gconstpointer scan)
{
    if (unsupported(f)) {
        return;
    }
    map_memory(f, 4 * MB, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    for (uint64_t i = 0; i < f->pages; i += 2) {
        write_page(f, i);
    }
    madvise(f->mem, 4 * MB, MADV_PAGEOUT);
    look(f);
    for (uint64_t i = 0; i < f->pages; i += 2) {
        g_assert_false(f->reported[i]);
    }
}

/* A page shared with a child by fork() is populated in both */
static void test_fork(Fixture *f, gconstpointer scan)
{
    int status;
    pid_t child;

    if (unsupported(f)) {
        return;
    }
    map_memory(f, MB, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    use_small_pages(f);
    write_page(f, 3);
    child = fork();
    if (!child) {
        f->mem[5 * f->page] = 1;
        _exit(0);
    }
    look(f);
    g_assert_false(f->reported[3]);
    g_assert_true(f->reported[5]);
    g_assert_cmpint(waitpid(child, &status, 0), ==, child);
    look(f);
    g_assert_false(f->reported[3]);
}

/* What is not mapped is not reported: it is not known to be zero */
static void test_unmapped(Fixture *f, gconstpointer scan)
{
    if (unsupported(f) || !f->scan) {
        return;
    }
    map_memory(f, 4 * MB, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    g_assert_cmpint(munmap(f->mem + 1 * MB, MB), ==, 0);
    look(f);
    g_assert_true(f->reported[0]);
    g_assert_false(f->reported[1 * MB / f->page]);
    g_assert_true(f->reported[2 * MB / f->page]);
}

/* A file descriptor that cannot answer: false, and nothing is reported */
static void test_no_answer(Fixture *f, gconstpointer scan)
{
    map_memory(f, MB, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    tlm_pagemap_close(&f->p);
    f->p.fd = open("/dev/null", O_RDONLY);
    g_assert_cmpint(f->p.fd, >=, 0);
    g_assert_false(tlm_populated_anon(&f->p, f->mem, MB, found, f));
    g_assert_cmpuint(f->runs, ==, 0);
    g_assert_false(f->p.can_scan);
}

/* One page at a time, as the dry run looks */
static void test_page(Fixture *f, gconstpointer scan)
{
    map_memory(f, MB, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    use_small_pages(f);
    f->mem[3 * f->page] = 1;
    g_assert_cmpint(tlm_pagemap_page(&f->p, f->mem + 2 * f->page), ==,
                    TLM_PAGEMAP_ABSENT);
    g_assert_cmpint(tlm_pagemap_page(&f->p, f->mem + 3 * f->page), ==,
                    TLM_PAGEMAP_PRESENT);
    g_assert_cmpint(tlm_pagemap_page(&f->p, f->mem + 4 * f->page - 1), ==,
                    TLM_PAGEMAP_PRESENT);
    g_assert_cmpint(tlm_pagemap_page(&f->p, f->mem + 4 * f->page), ==,
                    TLM_PAGEMAP_ABSENT);

    tlm_pagemap_close(&f->p);
    f->p.fd = open("/dev/null", O_RDONLY);
    g_assert_cmpint(f->p.fd, >=, 0);
    g_assert_cmpint(tlm_pagemap_page(&f->p, f->mem), ==,
                    TLM_PAGEMAP_UNKNOWN);
}

/*
 * An answer without the pages of one page table, which is as long as it was
 * to be: those were zero at that moment, but not what comes behind them.
 */
static void test_left_out(Fixture *f, gconstpointer scan)
{
    uint64_t table = 2 * MB / f->page;
    uint8_t *aligned;
    uint64_t at;

    if (unsupported(f)) {
        return;
    }
    map_memory(f, 16 * MB, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    use_small_pages(f);
    aligned = (uint8_t *)QEMU_ALIGN_UP((uintptr_t)f->mem, 2 * MB);
    at = (aligned - f->mem) / f->page;
    /* Nothing in the first table, all of the second, nothing in the others */
    for (uint64_t i = at + table; i < at + 2 * table; i++) {
        write_page(f, i);
    }
    kernel.left_out = aligned;
    look(f);
    g_assert_cmpint(kernel.errors > 0, ==, !f->scan);
    for (uint64_t i = at + table; i < at + 2 * table; i++) {
        g_assert_false(f->reported[i]);
    }
    g_assert_true(f->reported[at + 2 * table]);
}

static void test_resident(void)
{
    uint64_t page = getauxval(AT_PAGESZ);
    uint64_t before = tlm_populated_resident(page);
    uint8_t *mem = mmap(NULL, 64 * MB, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    g_assert(mem != MAP_FAILED);
    g_assert_cmpuint(before, >, 0);
    memset(mem, 1, 64 * MB);
    /* The kernel's count is not exact, but not that far off */
    g_assert_cmpuint(tlm_populated_resident(page), >=, before + 60 * MB);
    munmap(mem, 64 * MB);
}

static void test_shmem(Fixture *f, gconstpointer scan)
{
    g_autoptr(GRand) rnd = g_rand_new_with_seed(11);
    g_autofree bool *used = NULL;
    int fd = memfd_create("test", MFD_CLOEXEC);
    struct stat st;
    blkcnt_t blocks;

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ftruncate(fd, 32 * MB), ==, 0);
    map_memory(f, 32 * MB, MAP_SHARED, fd);
    look_shmem(f, fd);
    g_assert_cmpuint(f->runs, ==, 1);
    g_assert_cmpuint(f->end, ==, 32 * MB);
    g_assert_cmpint(fstat(fd, &st), ==, 0);
    g_assert_cmpuint(st.st_blocks, ==, 0);

    used = g_new0(bool, f->pages);
    for (uint64_t i = 0; i < f->pages; i++) {
        if (g_rand_int_range(rnd, 0, 100) < 20) {
            used[i] = true;
            write_page(f, i);
        }
    }
    g_assert_cmpint(fstat(fd, &st), ==, 0);
    blocks = st.st_blocks;
    look_shmem(f, fd);
    assert_reported(f, used);
    /* No hole has been filled */
    g_assert_cmpint(fstat(fd, &st), ==, 0);
    g_assert_cmpuint(st.st_blocks, ==, blocks);

    /* As a balloon does it */
    g_assert_cmpint(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                              100 * f->page, 200 * f->page), ==, 0);
    memset(used + 100, 0, 200 * sizeof(bool));
    look_shmem(f, fd);
    assert_reported(f, used);
    for (uint64_t i = 0; i < f->pages; i++) {
        used[i] = true;
        write_page(f, i);
    }
    look_shmem(f, fd);
    assert_reported(f, used);
    close(fd);
}

/* Offsets are from where the question begins, which may be in a hole */
static void test_shmem_part(Fixture *f, gconstpointer scan)
{
    int fd = memfd_create("test", MFD_CLOEXEC);

    g_assert_cmpint(ftruncate(fd, 4 * MB), ==, 0);
    map_memory(f, 4 * MB, MAP_SHARED, fd);
    write_page(f, 101);
    write_page(f, 103);
    g_assert_true(tlm_populated_shmem(fd, f->page, 100 * f->page, 3 * f->page,
                                      found, f));
    g_assert_cmpuint(f->runs, ==, 2);
    g_assert_true(f->reported[0] && !f->reported[1] && f->reported[2]);
    close(fd);
}

/*
 * A page that is moved or collapsed is a hole to lseek() at that moment, and
 * the last one of the file if there are only such pages behind it.
 */
static void test_shmem_moved(Fixture *f, gconstpointer scan)
{
    g_autofree bool *used = NULL;
    int fd = memfd_create("test", MFD_CLOEXEC);

    g_assert_cmpint(ftruncate(fd, MB), ==, 0);
    map_memory(f, MB, MAP_SHARED, fd);
    used = write_all_but(f, 50);
    for (unsigned n = 1; n <= 3; n++) {
        kernel.holes = n;
        look_shmem(f, fd);
        g_assert_cmpuint(kernel.holes, ==, n - 1);
        assert_reported(f, used);
    }
    close(fd);
}

/* Data where SEEK_DATA looks, and a hole where SEEK_HOLE does, for ever */
static void test_shmem_flaps(Fixture *f, gconstpointer scan)
{
    g_autofree bool *used = NULL;
    int fd = memfd_create("test", MFD_CLOEXEC);

    g_assert_cmpint(ftruncate(fd, MB), ==, 0);
    map_memory(f, MB, MAP_SHARED, fd);
    used = write_all_but(f, 50);
    kernel.flaps = f->pages;
    look_shmem(f, fd);
    assert_reported(f, used);
    close(fd);
}

/* Allocated beforehand, never written to: zero, and left as it is */
static void test_shmem_allocated(Fixture *f, gconstpointer scan)
{
    int fd = memfd_create("test", MFD_CLOEXEC);

    g_assert_cmpint(ftruncate(fd, 4 * MB), ==, 0);
    g_assert_cmpint(posix_fallocate(fd, 0, 4 * MB), ==, 0);
    map_memory(f, 4 * MB, MAP_SHARED, fd);
    write_page(f, 100);
    look_shmem(f, fd);
    g_assert_cmpuint(f->runs, ==, 2);
    g_assert_false(f->reported[100]);
    close(fd);
}

/* Only with "-m perf": how long it takes to look at 1 GiB */
static void test_shmem_speed(void)
{
    static const struct {
        const char *what;
        unsigned step;          /* every so many pages holds data; 0: none */
    } cases[] = {
        { "untouched", 0 }, { "every other page", 2 }, { "full", 1 }
    };

    for (unsigned c = 0; c < ARRAY_SIZE(cases); c++) {
        Fixture f = { .page = getauxval(AT_PAGESZ) };
        int fd = memfd_create("test", MFD_CLOEXEC);
        double ms;

        g_assert_cmpint(ftruncate(fd, 1024 * MB), ==, 0);
        map_memory(&f, 1024 * MB, MAP_SHARED, fd);
        for (uint64_t i = 0; cases[c].step && i < f.pages;
             i += cases[c].step) {
            write_page(&f, i);
        }
        g_test_timer_start();
        look_shmem(&f, fd);
        ms = g_test_timer_elapsed() * 1000;
        g_test_minimized_result(ms, "%s: %.1f ms", cases[c].what, ms);
        munmap(f.mem, 1024 * MB);
        g_free(f.reported);
        close(fd);
    }
}

/* Behind the end of the file there is nothing to be sure of */
static void test_shmem_end(Fixture *f, gconstpointer scan)
{
    int fd = memfd_create("test", MFD_CLOEXEC);

    g_assert_cmpint(ftruncate(fd, MB), ==, 0);
    map_memory(f, 2 * MB, MAP_SHARED, fd);
    g_assert_false(tlm_populated_shmem(fd, f->page, 0, 2 * MB, found, f));
    g_assert_cmpuint(f->end, ==, MB);
    close(fd);
}

/* Not tmpfs: nothing is reported, holes or not */
static void test_other_file(Fixture *f, gconstpointer scan)
{
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);

    g_assert_cmpint(fd, >=, 0);
    f->pages = 1;
    f->reported = g_new0(bool, 1);
    g_assert_false(tlm_populated_shmem(fd, f->page, 0, f->page, found, f));
    g_assert_cmpuint(f->runs, ==, 0);
    close(fd);
}

static void add(const char *name, void (*test)(Fixture *, gconstpointer))
{
    g_autofree char *by_scan = g_strdup_printf("/populated/%s/scan", name);
    g_autofree char *by_read = g_strdup_printf("/populated/%s/read", name);

    g_test_add(by_scan, Fixture, GINT_TO_POINTER(true), setup, test,
               teardown);
    g_test_add(by_read, Fixture, GINT_TO_POINTER(false), setup, test,
               teardown);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    add("untouched", test_untouched);
    add("full", test_full);
    add("patterns", test_patterns);
    add("alternating", test_alternating);
    add("part", test_part);
    add("discard", test_discard);
    add("only-read", test_read);
    add("huge", test_huge);
    add("paged-out", test_paged_out);
    add("fork", test_fork);
    add("unmapped", test_unmapped);
    add("no-answer", test_no_answer);
    add("left-out", test_left_out);
    g_test_add("/populated/page", Fixture, NULL, setup, test_page, teardown);
    g_test_add_func("/populated/resident", test_resident);
    g_test_add("/populated/shmem/pages", Fixture, NULL, setup, test_shmem,
               teardown);
    g_test_add("/populated/shmem/part", Fixture, NULL, setup, test_shmem_part,
               teardown);
    g_test_add("/populated/shmem/moved", Fixture, NULL, setup,
               test_shmem_moved, teardown);
    g_test_add("/populated/shmem/flaps", Fixture, NULL, setup,
               test_shmem_flaps, teardown);
    g_test_add("/populated/shmem/allocated", Fixture, NULL, setup,
               test_shmem_allocated, teardown);
    if (g_test_perf()) {
        g_test_add_func("/populated/shmem/speed", test_shmem_speed);
    }
    g_test_add("/populated/shmem/end", Fixture, NULL, setup, test_shmem_end,
               teardown);
    g_test_add("/populated/shmem/other-file", Fixture, NULL, setup,
               test_other_file, teardown);
    return g_test_run();
}
