/*
 * Lanes to a destination, with delays, errors, and a peer that may die
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "fake-sink.h"

#define PAGE_BYTES 4096
#define MAX_FAULT_IN 30

typedef enum { ITEM_PAGES, ITEM_FLUSH, ITEM_END } ItemKind;

/* On the wire */
typedef struct Item {
    ItemKind kind;
    unsigned block, num;
    unsigned long *page;
    uint64_t *value;
} Item;

struct FakeLane {
    FakeSink *sink;
    TlmGroup group;
    unsigned seed;
    pthread_t sender, receiver;
    /* (GLib's own asynchronous queue hides its locks from ThreadSanitizer) */
    GQueue wire;                /* Item */
    QemuMutex wire_lock;
    QemuCond filled;
    Item *job;                  /* under the sink's lock; NULL: free */
};

static void push_item(FakeLane *lane, Item *item)
{
    QEMU_LOCK_GUARD(&lane->wire_lock);
    g_queue_push_tail(&lane->wire, item);
    qemu_cond_signal(&lane->filled);
}

static Item *pop_item(FakeLane *lane)
{
    QEMU_LOCK_GUARD(&lane->wire_lock);
    while (g_queue_is_empty(&lane->wire)) {
        qemu_cond_wait(&lane->filled, &lane->wire_lock);
    }
    return g_queue_pop_head(&lane->wire);
}

static void free_item(Item *item)
{
    g_free(item->page);
    g_free(item->value);
    g_free(item);
}

/* At one page in so many */
static void delay(const FakeSink *sink, GRand *rand)
{
    if (sink->delay_us && !g_rand_int_range(rand, 0, 64)) {
        g_usleep(g_rand_int_range(rand, 0, sink->delay_us));
    }
}

/* The peer is gone for this batch: true if it is lost.  Lock held. */
static bool fault(FakeSink *sink)
{
    if (sink->fault == FAULT_NOTHING || --sink->fault_in > 0) {
        return sink->broken;
    }
    if (sink->fault == FAULT_DEAD_PEER) {
        while (!sink->cancelled) {
            qemu_cond_wait(&sink->changed, &sink->lock);
        }
    }
    sink->broken = true;
    return true;
}

static void *sender(void *opaque)
{
    FakeLane *lane = opaque;
    FakeSink *sink = lane->sink;
    GRand *rand = g_rand_new_with_seed(lane->seed);

    qemu_mutex_lock(&sink->lock);
    while (true) {
        Item *item;
        bool lost;

        while (!lane->job && !sink->end) {
            qemu_cond_wait(&sink->changed, &sink->lock);
        }
        if (!lane->job) {
            break;
        }
        item = lane->job;
        lost = fault(sink);
        qemu_mutex_unlock(&sink->lock);
        if (lost) {
            free_item(item);
        } else {
            uint64_t bytes = item->num * (uint64_t)PAGE_BYTES;

            for (unsigned i = 0; i < item->num; i++) {
                delay(sink, rand);
                item->value[i] = fake_ram_read_sent(sink->ram, item->block,
                                                    item->page[i]);
            }
            push_item(lane, item);
            __atomic_fetch_add(&sink->sent, bytes, __ATOMIC_RELAXED);
        }
        qemu_mutex_lock(&sink->lock);
        lane->job = NULL;
        qemu_cond_broadcast(&sink->changed);
    }
    qemu_mutex_unlock(&sink->lock);
    g_rand_free(rand);
    return NULL;
}

/* All receivers meet */
static void meet(FakeSink *sink)
{
    unsigned this_one;

    QEMU_LOCK_GUARD(&sink->lock);
    this_one = sink->passed;
    if (++sink->arrived == sink->nr_lanes) {
        sink->arrived = 0;
        sink->passed++;
        qemu_cond_broadcast(&sink->changed);
    }
    while (sink->passed == this_one) {
        qemu_cond_wait(&sink->changed, &sink->lock);
    }
}

static void *receiver(void *opaque)
{
    FakeLane *lane = opaque;
    FakeSink *sink = lane->sink;
    GRand *rand = g_rand_new_with_seed(~lane->seed);
    bool end = false;

    while (!end) {
        Item *item = pop_item(lane);

        switch (item->kind) {
        case ITEM_PAGES:
            for (unsigned i = 0; i < item->num; i++) {
                delay(sink, rand);
                __atomic_store_n(&sink->mem[item->block][item->page[i]],
                                 item->value[i], __ATOMIC_RELAXED);
            }
            __atomic_fetch_add(&sink->acked, item->num * (uint64_t)PAGE_BYTES,
                               __ATOMIC_RELAXED);
            break;
        case ITEM_FLUSH:
            meet(sink);
            break;
        case ITEM_END:
            end = true;
            break;
        }
        free_item(item);
    }
    g_rand_free(rand);
    return NULL;
}

FakeSink *fake_sink_new(GRand *rand, FakeRam *ram, FakeFault fault)
{
    FakeSink *sink = g_new0(FakeSink, 1);

    sink->ram = ram;
    sink->nr_lanes = g_rand_int_range(rand, TLM_WORKERS, TLM_WORKERS + 3);
    sink->lane = g_new0(FakeLane, sink->nr_lanes);
    sink->rate = g_rand_boolean(rand) ? 0 :
                 g_rand_int_range(rand, 20, 2000) * 1000000ULL;
    sink->delay_us = g_rand_int_range(rand, 0, 60);
    sink->fault = fault;
    sink->fault_in = g_rand_int_range(rand, 1, MAX_FAULT_IN);
    qemu_mutex_init(&sink->lock);
    qemu_cond_init(&sink->changed);
    sink->flushes = 1;
    sink->mem = g_new0(uint64_t *, ram->nr_blocks);
    sink->flight = g_new0(unsigned *, ram->nr_blocks);
    for (unsigned i = 0; i < ram->nr_blocks; i++) {
        sink->mem[i] = g_new0(uint64_t, ram->block[i].pages);
        sink->flight[i] = g_new0(unsigned, ram->block[i].pages);
    }
    for (unsigned i = 0; i < sink->nr_lanes; i++) {
        FakeLane *lane = &sink->lane[i];

        lane->sink = sink;
        lane->group = i % TLM_WORKERS;
        lane->seed = g_rand_int(rand);
        g_queue_init(&lane->wire);
        qemu_mutex_init(&lane->wire_lock);
        qemu_cond_init(&lane->filled);
        g_assert(!pthread_create(&lane->sender, NULL, sender, lane));
        g_assert(!pthread_create(&lane->receiver, NULL, receiver, lane));
    }
    return sink;
}

static void push(FakeSink *sink, ItemKind kind)
{
    for (unsigned i = 0; i < sink->nr_lanes; i++) {
        Item *item = g_new0(Item, 1);

        item->kind = kind;
        push_item(&sink->lane[i], item);
    }
}

void fake_sink_end(FakeSink *sink)
{
    WITH_QEMU_LOCK_GUARD(&sink->lock) {
        sink->end = true;
        sink->cancelled = true;
        qemu_cond_broadcast(&sink->changed);
    }
    for (unsigned i = 0; i < sink->nr_lanes; i++) {
        pthread_join(sink->lane[i].sender, NULL);
    }
    push(sink, ITEM_END);
    for (unsigned i = 0; i < sink->nr_lanes; i++) {
        pthread_join(sink->lane[i].receiver, NULL);
    }
}

unsigned fake_sink_differing(const FakeSink *sink)
{
    unsigned num = 0;

    for (unsigned i = 0; i < sink->ram->nr_blocks; i++) {
        for (unsigned long p = 0; p < sink->ram->block[i].pages; p++) {
            num += sink->mem[i][p] != fake_ram_read_wanted(sink->ram, i, p);
        }
    }
    return num;
}

void fake_sink_free(FakeSink *sink)
{
    for (unsigned i = 0; i < sink->nr_lanes; i++) {
        g_assert(g_queue_is_empty(&sink->lane[i].wire));
        qemu_mutex_destroy(&sink->lane[i].wire_lock);
        qemu_cond_destroy(&sink->lane[i].filled);
    }
    for (unsigned i = 0; i < sink->ram->nr_blocks; i++) {
        g_free(sink->mem[i]);
        g_free(sink->flight[i]);
    }
    g_free(sink->lane);
    g_free(sink->mem);
    g_free(sink->flight);
    qemu_mutex_destroy(&sink->lock);
    qemu_cond_destroy(&sink->changed);
    g_free(sink);
}

/* Lock held.  NULL: all of the group are busy. */
static FakeLane *free_lane(FakeSink *sink, TlmGroup group)
{
    for (unsigned i = 0; i < sink->nr_lanes; i++) {
        if (sink->lane[i].group == group && !sink->lane[i].job) {
            return &sink->lane[i];
        }
    }
    return NULL;
}

static bool sink_send(void *opaque, TlmGroup group, const TlmBatch *batch)
{
    FakeSink *sink = opaque;
    FakeLane *lane;
    Item *item;

    g_assert_cmpuint(batch->num, >, 0);
    QEMU_LOCK_GUARD(&sink->lock);
    for (unsigned i = 0; i < batch->num; i++) {
        unsigned *flight = &sink->flight[batch->block][batch->page[i]];

        sink->twice += *flight == sink->flushes;
        *flight = sink->flushes;
    }
    while (!(lane = free_lane(sink, group))) {
        if (sink->broken || sink->cancelled) {
            return false;
        }
        qemu_cond_wait(&sink->changed, &sink->lock);
    }
    if (sink->broken || sink->cancelled) {
        return false;
    }
    item = g_new0(Item, 1);
    item->block = batch->block;
    item->num = batch->num;
    item->page = g_memdup2(batch->page, batch->num * sizeof(*item->page));
    item->value = g_new0(uint64_t, batch->num);
    lane->job = item;
    qemu_cond_broadcast(&sink->changed);
    return true;
}

static int sink_wait_idle(void *opaque)
{
    FakeSink *sink = opaque;

    QEMU_LOCK_GUARD(&sink->lock);
    for (unsigned i = 0; i < sink->nr_lanes; i++) {
        while (sink->lane[i].job && !sink->cancelled) {
            qemu_cond_wait(&sink->changed, &sink->lock);
        }
    }
    return sink->broken || sink->cancelled ? -EIO : 0;
}

static int sink_flush(void *opaque)
{
    FakeSink *sink = opaque;
    int ret = sink_wait_idle(sink);

    if (!ret && sink->ram->broken != BREAK_NO_FLUSH) {
        push(sink, ITEM_FLUSH);
        QEMU_LOCK_GUARD(&sink->lock);
        sink->flushes++;
    }
    return ret;
}

static void sink_cancel(void *opaque)
{
    FakeSink *sink = opaque;

    QEMU_LOCK_GUARD(&sink->lock);
    sink->cancelled = true;
    qemu_cond_broadcast(&sink->changed);
}

static uint64_t sink_sent(void *opaque)
{
    return __atomic_load_n(&((FakeSink *)opaque)->sent, __ATOMIC_RELAXED);
}

static uint64_t sink_acked(void *opaque)
{
    return __atomic_load_n(&((FakeSink *)opaque)->acked, __ATOMIC_RELAXED);
}

static uint64_t sink_queued(void *opaque)
{
    uint64_t acked = sink_acked(opaque);

    return sink_sent(opaque) - acked;
}

static uint64_t sink_max_rate(void *opaque)
{
    return ((FakeSink *)opaque)->rate;
}

static unsigned sink_lanes(void *opaque)
{
    return ((FakeSink *)opaque)->nr_lanes;
}

const TlmSinkOps fake_sink_ops = {
    .send = sink_send,
    .wait_idle = sink_wait_idle,
    .flush = sink_flush,
    .cancel = sink_cancel,
    .sent = sink_sent,
    .queued = sink_queued,
    .acked = sink_acked,
    .max_rate = sink_max_rate,
    .lanes = sink_lanes,
};
