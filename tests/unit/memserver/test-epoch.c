/*
 * SYNCs of channels, in threads
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <string.h>

#include "epoch.h"

#define CHANNELS 4
#define SYNCS 2000

typedef struct Channel {
    Epochs *e;
    unsigned id, syncs;
    unsigned *now;                      /* epochs of all channels */
    bool ok;
} Channel;

static void *channel(void *opaque)
{
    Channel *c = opaque;

    c->ok = true;
    for (unsigned i = 0; c->ok && i < c->syncs; i++) {
        c->ok = epochs_enter(c->e, c->id, NULL);
        /* Nobody is an epoch behind one that writes. */
        for (unsigned k = 0; k < CHANNELS; k++) {
            unsigned other = __atomic_load_n(&c->now[k], __ATOMIC_SEQ_CST);

            g_assert_true(other + 1 >= i && other <= i + 1);
        }
        epochs_leave(c->e, c->id);
        __atomic_store_n(&c->now[c->id], i + 1, __ATOMIC_SEQ_CST);
        c->ok = c->ok && epochs_sync(c->e, c->id, NULL);
    }
    return NULL;
}

static bool run(uint64_t said, unsigned of_last, bool break_it)
{
    Epochs e;
    unsigned now[CHANNELS] = { 0 };
    Channel c[CHANNELS];
    GThread *t[CHANNELS];
    bool ok;

    epochs_init(&e, CHANNELS);
    for (unsigned i = 0; i < CHANNELS; i++) {
        c[i] = (Channel) { &e, i, i == CHANNELS - 1 ? of_last : SYNCS, now };
        t[i] = g_thread_new("channel", channel, &c[i]);
    }
    if (break_it) {
        epochs_break(&e);
    }
    ok = epochs_complete(&e, said, NULL);
    epochs_break(&e);
    for (unsigned i = 0; i < CHANNELS; i++) {
        g_thread_join(t[i]);
    }
    epochs_clear(&e);
    return ok;
}

static void test_all(void)
{
    g_assert_true(run(SYNCS, SYNCS, false));
}

static void test_broken(void)
{
    g_assert_false(run(SYNCS + 1, SYNCS, true));
    g_assert_false(run(SYNCS, SYNCS - 1, true));
}

static void test_more_than_said(void)
{
    Epochs e;

    epochs_init(&e, 1);
    g_assert_true(epochs_sync(&e, 0, NULL));
    g_assert_true(epochs_sync(&e, 0, NULL));
    g_assert_false(epochs_complete(&e, 1, NULL));
    epochs_clear(&e);
}

static void test_behind_the_last(void)
{
    g_autoptr(GError) error = NULL;
    Epochs e;

    epochs_init(&e, 1);
    g_assert_true(epochs_sync(&e, 0, NULL));
    g_assert_true(epochs_enter(&e, 0, NULL));
    epochs_leave(&e, 0);
    g_assert_false(epochs_complete(&e, 1, &error));
    g_assert_nonnull(strstr(error->message, "after the last SYNC"));
    epochs_clear(&e);

    epochs_init(&e, 1);
    g_assert_true(epochs_complete(&e, 0, NULL));
    g_assert_false(epochs_enter(&e, 0, NULL));
    g_assert_false(epochs_sync(&e, 0, NULL));
    epochs_clear(&e);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/memserver/epoch/all", test_all);
    g_test_add_func("/memserver/epoch/broken", test_broken);
    g_test_add_func("/memserver/epoch/more", test_more_than_said);
    g_test_add_func("/memserver/epoch/behind", test_behind_the_last);
    return g_test_run();
}
