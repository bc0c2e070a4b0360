/*
 * Fuzzer: the main stream of a migration
 *
 * The first byte says in what pieces the rest comes.  What two ways of cutting
 * make of the same bytes must be the same.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "error.h"
#include "fuzz.h"
#include "stream.h"

#define MAX_RAM (1ull << 40)
#define MAX_STATE (1 << 16)

typedef struct Told {
    unsigned calls;
    uint64_t total, syncs;
} Told;

static bool on_return_path(void *opaque, GError **errp)
{
    ((Told *)opaque)->calls++;
    return true;
}

static bool on_ping(void *opaque, uint32_t value, GError **errp)
{
    ((Told *)opaque)->calls++;
    return value != 0xdead || ms_fail(errp, "refused");
}

static bool on_layout(void *opaque, const Layout *l, GError **errp)
{
    Told *t = opaque;
    uint64_t sum = 0;

    for (unsigned i = 0; i < layout_num_blocks(l); i++) {
        g_assert(layout_block(l, i)->length % PAGE_SIZE == 0);
        sum += layout_block(l, i)->length;
    }
    g_assert(sum == l->total && sum <= MAX_RAM);
    t->calls++;
    t->total = l->total;
    return true;
}

static bool on_ram_end(void *opaque, uint64_t syncs, GError **errp)
{
    Told *t = opaque;

    g_assert(t->total);
    t->calls++;
    t->syncs = syncs;
    return true;
}

static const StreamOps ops = {
    .return_path = on_return_path,
    .ping = on_ping,
    .layout = on_layout,
    .ram_end = on_ram_end,
};

/* Returns whether all was good; @complete at the end. */
static bool feed(Told *t, const uint8_t *data, size_t size, size_t step,
                 bool *complete)
{
    Stream *s = stream_new(&ops, t, MAX_RAM, MAX_STATE);
    GError *error = NULL;
    bool ok = true;

    for (size_t at = 0; ok && at < size && !stream_complete(s); at += step) {
        ok = stream_feed(s, data + at, MIN(step, size - at), &error);
        g_assert(ok == !error);
    }
    *complete = stream_complete(s);
    g_assert(stream_state(s)->len <= MAX_STATE);
    g_clear_error(&error);
    stream_free(s);
    return ok;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Told a = { 0 }, b = { 0 };
    bool whole, parts;

    if (!size) {
        return 0;
    }
    if (feed(&a, data + 1, size - 1, size, &whole)) {
        feed(&b, data + 1, size - 1, 1 + data[0], &parts);
        g_assert(a.calls == b.calls && a.syncs == b.syncs);
        /* In parts, the end may be seen before what follows it. */
        g_assert(!whole || parts);
    }
    return 0;
}
