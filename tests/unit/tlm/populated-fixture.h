/*
 * For test-populated.c: memory of this process of which is known what was
 * used, and a kernel that errs when it is told to
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TEST_POPULATED_FIXTURE_H
#define TEST_POPULATED_FIXTURE_H

/* What is tested, with these in place of the system calls */
static off_t seam_lseek(int fd, off_t offset, int whence);
static ssize_t seam_pread(int fd, void *buf, size_t size, off_t offset);

#define lseek seam_lseek
#define pread seam_pread
#include "pagemap.c"
#include "engine/populated.c"
#undef lseek
#undef pread

#define MB (1UL << 20)

typedef struct {
    TlmPagemap p;
    bool scan;                  /* with PAGEMAP_SCAN */
    uint64_t page;
    uint64_t pages;
    uint8_t *mem;
    bool *reported;
    uint64_t end;               /* of the last run */
    unsigned runs;
} Fixture;

/* How a kernel errs: nothing of it happens where these are 0 */
static struct {
    unsigned holes;             /* so many SEEK_DATA find nothing */
    unsigned flaps;             /* so many SEEK_HOLE find one at once */
    uint8_t *left_out;          /* pagemap: the page table of this address */
    unsigned errors;            /* how many of these there were */
} kernel;

static off_t seam_lseek(int fd, off_t offset, int whence)
{
    if (whence == SEEK_DATA && kernel.holes) {
        kernel.holes--;
        kernel.errors++;
        errno = ENXIO;
        return -1;
    }
    if (whence == SEEK_HOLE && kernel.flaps) {
        kernel.flaps--;
        kernel.errors++;
        return offset;
    }
    return lseek(fd, offset, whence);
}

/* Linux before 6.5: what is behind the page table takes its place */
static ssize_t seam_pread(int fd, void *buf, size_t size, off_t offset)
{
    const uint64_t page = getauxval(AT_PAGESZ), table = 2 * MB / page * 8;
    uint64_t from = (uintptr_t)kernel.left_out / page * 8;

    if (!kernel.left_out || offset >= from + table || offset + size <= from) {
        return pread(fd, buf, size, offset);
    }
    kernel.errors++;
    if (offset < from) {
        g_assert_cmpint(pread(fd, buf, from - offset, offset), ==,
                        from - offset);
        buf = (uint8_t *)buf + (from - offset);
        size -= from - offset;
    }
    g_assert_cmpint(pread(fd, buf, size, from + table), ==, size);
    return offset < from ? size + (from - offset) : size;
}

static void ignore(void *opaque, uint64_t start, uint64_t len)
{
}

static bool kernel_has_scan(void)
{
    TlmPagemap p;
    uint64_t page = getauxval(AT_PAGESZ);
    void *mem = mmap(NULL, page, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    g_assert(mem != MAP_FAILED);
    g_assert_true(tlm_pagemap_open(&p, page));
    tlm_populated_anon(&p, mem, page, ignore, NULL);
    tlm_pagemap_close(&p);
    munmap(mem, page);
    return p.can_scan;
}

static void setup(Fixture *f, gconstpointer scan)
{
    memset(f, 0, sizeof(*f));
    memset(&kernel, 0, sizeof(kernel));
    f->page = getauxval(AT_PAGESZ);
    f->scan = GPOINTER_TO_INT(scan);
    g_assert_true(tlm_pagemap_open(&f->p, f->page));
    f->p.can_scan = f->scan;
}

static void map_memory(Fixture *f, size_t size, int flags, int fd)
{
    f->pages = size / f->page;
    f->mem = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);
    g_assert(f->mem != MAP_FAILED);
    f->reported = g_new0(bool, f->pages);
}

/* EINVAL: a kernel without transparent huge pages, which is as good */
static void use_small_pages(Fixture *f)
{
    g_assert_true(madvise(f->mem, f->pages * f->page, MADV_NOHUGEPAGE) == 0 ||
                  errno == EINVAL);
}

static void teardown(Fixture *f, gconstpointer scan)
{
    tlm_pagemap_close(&f->p);
    if (f->mem) {
        munmap(f->mem, f->pages * f->page);
    }
    g_free(f->reported);
    memset(&kernel, 0, sizeof(kernel));
}

static bool unsupported(Fixture *f)
{
    if (f->scan && !kernel_has_scan()) {
        g_test_skip("this kernel has no PAGEMAP_SCAN");
        return true;
    }
    return false;
}

static void found(void *opaque, uint64_t start, uint64_t len)
{
    Fixture *f = opaque;

    g_assert_cmpuint(len, >, 0);
    g_assert_cmpuint(start % f->page, ==, 0);
    g_assert_cmpuint(len % f->page, ==, 0);
    g_assert_cmpuint(start + len, <=, f->pages * f->page);
    /* Ascending, and adjacent ones joined */
    g_assert_true(start > f->end || !f->runs);
    f->end = start + len;
    f->runs++;
    for (uint64_t i = start / f->page; i < f->end / f->page; i++) {
        f->reported[i] = true;
    }
}

static void look_part(Fixture *f, uint64_t first, uint64_t pages)
{
    memset(f->reported, 0, f->pages * sizeof(bool));
    f->runs = 0;
    f->end = 0;
    g_assert_true(tlm_populated_anon(&f->p, f->mem + first * f->page,
                                     pages * f->page, found, f));
    g_assert_cmpint(f->p.can_scan, ==, f->scan);
}

static void look(Fixture *f)
{
    look_part(f, 0, f->pages);
}

static void look_shmem(Fixture *f, int fd)
{
    memset(f->reported, 0, f->pages * sizeof(bool));
    f->runs = 0;
    f->end = 0;
    g_assert_true(tlm_populated_shmem(fd, f->page, 0, f->pages * f->page,
                                      found, f));
}

static uint8_t read_page(const uint8_t *mem)
{
    /* volatile: the read has to happen */
    return *(const volatile uint8_t *)mem;
}

static void write_page(Fixture *f, uint64_t i)
{
    f->mem[i * f->page + i % f->page] = 1;
}

static bool *write_all_but(Fixture *f, uint64_t page)
{
    bool *used = g_new0(bool, f->pages);

    for (uint64_t i = 0; i < f->pages; i++) {
        used[i] = i != page;
        if (used[i]) {
            write_page(f, i);
        }
    }
    return used;
}

static void assert_reported(Fixture *f, const bool *used)
{
    for (uint64_t i = 0; i < f->pages; i++) {
        if (f->reported[i] != !used[i]) {
            g_error("page %" PRIu64 ": %s, but %s", i,
                    used[i] ? "written to" : "never touched",
                    f->reported[i] ? "reported" : "not reported");
        }
    }
}

#endif
