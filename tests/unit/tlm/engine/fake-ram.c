/*
 * A guest's RAM, its vCPUs, and a dirty log as KVM keeps it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "fake-ram.h"

/* BREAK_CLEAR_UNREAD: time for writes that no reader is told of */
#define UNREAD_US 500

#define BITS (sizeof(unsigned long) * 8)

typedef struct Range {
    unsigned block;
    unsigned long first, num;
} Range;

typedef struct Vcpu {
    FakeRam *ram;
    unsigned seed;
} Vcpu;

FakeRam *fake_ram_new(GRand *rand, FakeBreak broken)
{
    FakeRam *ram = g_new0(FakeRam, 1);

    ram->kind = g_rand_int_range(rand, 0, FAKE_LOGS);
    ram->broken = broken;
    if (broken == BREAK_ARM_LATE || broken == BREAK_CLEAR_UNREAD) {
        ram->kind = FAKE_LOG_MANUAL;
    }
    ram->nr_blocks = g_rand_int_range(rand, 1, 4);
    ram->block = g_new0(FakeBlock, ram->nr_blocks);
    ram->nr_vcpus = g_rand_int_range(rand, 1, 4);
    ram->vcpu = g_new0(pthread_t, ram->nr_vcpus);
    ram->vcpu_seed = g_rand_int(rand);
    ram->hot_share = g_rand_double(rand);
    ram->pause_us = g_rand_int_range(rand, 0, 40);
    ram->late = g_array_new(false, false, sizeof(Range));
    qemu_mutex_init(&ram->bitmap_mutex);
    qemu_mutex_init(&ram->mmu_lock);

    for (unsigned i = 0; i < ram->nr_blocks; i++) {
        FakeBlock *b = &ram->block[i];
        bool sparse = g_rand_boolean(rand);

        b->pages = g_rand_int_range(rand, 1, 700);
        b->mem = g_new0(uint64_t, b->pages);
        b->log = g_new0(bool, b->pages);
        b->writable = g_new0(bool, b->pages);
        b->read = g_new0(bool, b->pages);
        b->dirty = g_new0(unsigned long, b->pages / BITS + 1);
        for (unsigned long p = 0; p < b->pages; p++) {
            if (!sparse || g_rand_boolean(rand)) {
                b->mem[p] = g_rand_int(rand) | 1;
            }
            b->dirty[p / BITS] |= 1UL << p % BITS;
            b->log[p] = b->writable[p] = ram->kind == FAKE_LOG_INITIALLY_SET;
        }
    }
    return ram;
}

void fake_ram_free(FakeRam *ram)
{
    g_assert_cmpint(ram->threads, ==, 0);
    for (unsigned i = 0; i < ram->nr_blocks; i++) {
        FakeBlock *b = &ram->block[i];

        g_free(b->mem);
        g_free(b->copy);
        g_free(b->frozen);
        g_free(b->log);
        g_free(b->writable);
        g_free(b->read);
        g_free(b->dirty);
    }
    g_free(ram->block);
    g_free(ram->vcpu);
    g_array_free(ram->late, true);
    qemu_mutex_destroy(&ram->bitmap_mutex);
    qemu_mutex_destroy(&ram->mmu_lock);
    g_free(ram);
}

void fake_ram_add_blocks(FakeRam *ram)
{
    QEMU_LOCK_GUARD(&ram->bitmap_mutex);
    for (unsigned i = 0; i < ram->nr_blocks; i++) {
        g_assert(tlm_engine_add_block(ram->engine, ram->block[i].dirty,
                                      ram->block[i].pages, BITS));
    }
}

uint64_t fake_ram_read(const FakeRam *ram, unsigned block, unsigned long page)
{
    return __atomic_load_n(&ram->block[block].mem[page], __ATOMIC_RELAXED);
}

uint64_t fake_ram_read_sent(const FakeRam *ram, unsigned block,
                            unsigned long page)
{
    return ram->copied ? ram->block[block].copy[page] :
                         fake_ram_read(ram, block, page);
}

uint64_t fake_ram_read_wanted(const FakeRam *ram, unsigned block,
                              unsigned long page)
{
    return ram->copied ? ram->block[block].frozen[page] :
                         fake_ram_read(ram, block, page);
}

static void copy_owed(FakeRam *ram, unsigned block)
{
    FakeBlock *b = &ram->block[block];
    unsigned long first = 0, num;

    while ((num = tlm_engine_next(ram->engine, TLM_TAKE_ALL, block, &first,
                                  b->pages))) {
        g_assert_cmpuint(first + num, <=, b->pages);
        memcpy(&b->copy[first], &b->mem[first], num * sizeof(*b->mem));
        first += num;
    }
}

void fake_ram_freeze(FakeRam *ram)
{
    for (unsigned i = 0; i < ram->nr_blocks; i++) {
        FakeBlock *b = &ram->block[i];

        b->frozen = g_memdup2(b->mem, b->pages * sizeof(*b->mem));
        b->copy = g_new0(uint64_t, b->pages);
        copy_owed(ram, i);
    }
    ram->copied = true;
}

/* A write by a vCPU */
static void write_page(FakeRam *ram, FakeBlock *b, unsigned long page,
                       uint64_t value)
{
    while (true) {
        WITH_QEMU_LOCK_GUARD(&ram->mmu_lock) {
            if (b->writable[page]) {
                __atomic_store_n(&b->mem[page], value, __ATOMIC_RELAXED);
                return;
            }
            b->log[page] = true;
            b->writable[page] = true;
        }
        if (value % 8 == 0) {
            sched_yield();
        }
    }
}

static void *vcpu_thread(void *opaque)
{
    g_autofree Vcpu *vcpu = opaque;
    FakeRam *ram = vcpu->ram;
    GRand *rand = g_rand_new_with_seed(vcpu->seed);

    while (__atomic_load_n(&ram->run, __ATOMIC_RELAXED)) {
        FakeBlock *b = &ram->block[g_rand_int_range(rand, 0,
                                                    ram->nr_blocks)];
        int pause_us = __atomic_load_n(&ram->pause_us, __ATOMIC_RELAXED);
        unsigned long range = b->pages;

        if (g_rand_int_range(rand, 0, 10)) {
            range = MAX(1, range * ram->hot_share);
        }
        write_page(ram, b, g_rand_int_range(rand, 0, range),
                   g_rand_int(rand) | 1ULL << 32);
        if (pause_us && !g_rand_int_range(rand, 0, 4)) {
            g_usleep(g_rand_int_range(rand, 0, pause_us + 1));
        }
    }
    g_rand_free(rand);
    return NULL;
}

void fake_ram_start_vcpus(FakeRam *ram)
{
    __atomic_store_n(&ram->run, 1, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < ram->nr_vcpus; i++) {
        Vcpu *vcpu = g_new(Vcpu, 1);

        *vcpu = (Vcpu) { ram, ram->vcpu_seed + i };
        g_assert(!pthread_create(&ram->vcpu[i], NULL, vcpu_thread, vcpu));
    }
}

void fake_ram_stop_vcpus(FakeRam *ram)
{
    if (__atomic_exchange_n(&ram->run, 0, __ATOMIC_RELAXED)) {
        for (unsigned i = 0; i < ram->nr_vcpus; i++) {
            pthread_join(ram->vcpu[i], NULL);
        }
    }
}

static void ram_lock(void *opaque)
{
    qemu_mutex_lock(&((FakeRam *)opaque)->bitmap_mutex);
}

static void ram_unlock(void *opaque)
{
    qemu_mutex_unlock(&((FakeRam *)opaque)->bitmap_mutex);
}

static void ram_sync(void *opaque)
{
    FakeRam *ram = opaque;

    for (unsigned i = 0; i < ram->nr_blocks; i++) {
        FakeBlock *b = &ram->block[i];

        QEMU_LOCK_GUARD(&ram->bitmap_mutex);
        QEMU_LOCK_GUARD(&ram->mmu_lock);
        for (unsigned long p = 0; p < b->pages; p++) {
            if (!b->log[p]) {
                continue;
            }
            b->dirty[p / BITS] |= 1UL << p % BITS;
            if (ram->kind == FAKE_LOG_SIMPLE) {
                b->log[p] = b->writable[p] = false;
            } else {
                b->read[p] = true;
            }
        }
    }
    if (ram->broken == BREAK_CLEAR_UNREAD) {
        g_usleep(UNREAD_US);
    }
}

/* What the log's last reader was not told of, stays */
static void clear(FakeRam *ram, const Range *r)
{
    FakeBlock *b = &ram->block[r->block];

    QEMU_LOCK_GUARD(&ram->mmu_lock);
    for (unsigned long p = r->first; p < r->first + r->num; p++) {
        if (b->read[p] || (ram->broken == BREAK_CLEAR_UNREAD && b->log[p])) {
            b->log[p] = b->writable[p] = b->read[p] = false;
        }
    }
}

static void ram_clear_log(void *opaque, unsigned block, unsigned long first,
                          unsigned long num)
{
    FakeRam *ram = opaque;
    Range r = { block, first, num };

    g_assert_cmpuint(first + num, <=, ram->block[block].pages);
    if (ram->kind == FAKE_LOG_SIMPLE) {
        return;
    }
    if (ram->broken == BREAK_ARM_LATE) {
        g_array_append_val(ram->late, r);
    } else {
        clear(ram, &r);
    }
}

void fake_ram_clear_late(FakeRam *ram)
{
    for (unsigned i = 0; i < ram->late->len; i++) {
        clear(ram, &g_array_index(ram->late, Range, i));
    }
    g_array_set_size(ram->late, 0);
}

/* As populated-ram.c: what reads as zero, now that it is armed */
static void ram_armed(void *opaque, unsigned block, unsigned long first,
                      unsigned long num)
{
    FakeRam *ram = opaque;
    unsigned long p = first, end = first + num;

    while (p < end) {
        unsigned long from = p;

        while (p < end && !fake_ram_read(ram, block, p)) {
            p++;
        }
        if (p > from) {
            tlm_engine_forget_clean(ram->engine, block, from, p - from);
        }
        p++;
    }
}

static void ram_owed(void *opaque, uint64_t pages)
{
    FakeRam *ram = opaque;
    uint64_t all = 0;

    for (unsigned i = 0; i < ram->nr_blocks; i++) {
        all += ram->block[i].pages;
    }
    g_assert_cmpuint(pages, <=, all);
}

static void *thread_begin(void *opaque, const char *name)
{
    FakeRam *ram = opaque;

    __atomic_fetch_add(&ram->threads, 1, __ATOMIC_RELAXED);
    return opaque;
}

static void thread_end(void *opaque, void *thread)
{
    FakeRam *ram = opaque;

    g_assert(thread == opaque);
    __atomic_fetch_sub(&ram->threads, 1, __ATOMIC_RELAXED);
}

const TlmRamOps fake_ram_ops = {
    .lock = ram_lock,
    .unlock = ram_unlock,
    .sync = ram_sync,
    .clear_log = ram_clear_log,
    .armed = ram_armed,
    .owed = ram_owed,
    .thread_begin = thread_begin,
    .thread_end = thread_end,
};
