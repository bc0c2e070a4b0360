/*
 * The thread that watches over a session: its time limits, and its end
 *
 * It owns the links: they are freed after their threads have ended.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <poll.h>
#include <unistd.h>

#include "error.h"
#include "session-links.h"
#include "session-listen.h"
#include "session-watch.h"
#include "set.h"

/* How often the watcher looks whether bytes have come. */
#define LOOK_MS 500

/* What is wrong, or NULL.  @idle: seconds without a byte. */
static const char *too_late(Session *s, uint64_t idle)
{
    const Config *c = s->server->config;
    const char *what = NULL;

    g_mutex_lock(&s->lock);
    if ((s->state == SESSION_ANNOUNCED || s->num_channels < s->own_channels) &&
        s->state < SESSION_STORING && idle >= c->connect_timeout) {
        what = "the source has not connected in time";
    } else if (s->set && !set_is_connected(s) &&
               s->state < SESSION_STORING && idle >= c->connect_timeout) {
        what = "the other servers of the set have not connected in time";
    } else if (s->claim && claim_is_over(s->claim) &&
               s->state < SESSION_STORING) {
        what = "the client that has announced it has gone";
    } else if (s->state == SESSION_RECEIVING && idle >= c->stall_timeout) {
        what = "the source has sent nothing for too long";
    }
    g_mutex_unlock(&s->lock);
    return what;
}

static bool goes_on(Session *s, bool *full)
{
    bool on;

    g_mutex_lock(&s->lock);
    *full = s->num_channels == s->own_channels &&
        (s->set ? set_is_connected(s) && (s->main || s->set->part)
                : s->main != NULL);
    on = s->state != SESSION_FAILED &&
        !(s->state == SESSION_DONE && s->main_over);
    g_mutex_unlock(&s->lock);
    return on;
}

static void watch_until_end(Session *s)
{
    gint64 since = g_get_monotonic_time();
    uint64_t last = 0;
    bool full;

    while (goes_on(s, &full)) {
        struct pollfd fds[2] = {
            { .fd = s->wake, .events = POLLIN },
            { .fd = s->listener, .events = POLLIN },
        };
        uint64_t now = counted(&s->bytes);
        const char *late;

        if (full) {
            session_stop_listening(s);
        }
        poll(fds, s->listener >= 0 ? 2 : 1, LOOK_MS);
        if (s->listener >= 0 && (fds[1].revents & POLLIN)) {
            session_accept(s);
        }
        session_reap(s, false);
        if (s->set) {
            set_say_alive(s);
        }
        if (now != last) {
            last = now;
            since = g_get_monotonic_time();
        }
        late = too_late(s, (g_get_monotonic_time() - since) /
                        G_USEC_PER_SEC);
        if (late) {
            GError error = { MS_ERROR, 0, (char *)late };

            session_fail(s, &error);
        }
    }
}

static void say_how_it_ended(Session *s)
{
    Counters *counters = &s->server->counters;

    if (s->state == SESSION_DONE) {
        count(&counters->checkpoints_done, 1);
        g_message("session %" PRIu64 ": checkpoint %s of %s is there", s->id,
                  s->name, s->vm);
    } else {
        count(&counters->checkpoints_failed, 1);
        g_message("session %" PRIu64 ": checkpoint %s of %s failed: %s",
                  s->id, s->name, s->vm, s->error);
    }
}

/*
 * A session that has ended is remembered for long, and forgotten by nobody
 * who would wait for its thread: descriptor, address space and stack go now.
 */
static void release(Session *s)
{
    Slab *slab;
    GThread *self;

    g_mutex_lock(&s->lock);
    close(s->wake);
    s->wake = -1;
    slab = g_steal_pointer(&s->slab);
    g_mutex_unlock(&s->lock);
    slab_leave(slab);

    g_mutex_lock(&s->lock);
    self = g_steal_pointer(&s->watcher);
    g_mutex_unlock(&s->lock);
    if (self) {
        g_thread_unref(self);               /* nobody joins it */
    }
}

static void *watcher(void *opaque)
{
    Session *s = opaque;

    watch_until_end(s);
    session_stop_listening(s);
    if (s->set) {
        set_end(s);
    }
    session_linger(s);
    session_reap(s, true);
    session_let_go(s);
    say_how_it_ended(s);
    release(s);
    session_unref(s);
    return NULL;
}

bool session_watch(Session *s, GError **errp)
{
    if (!session_listen(s, errp)) {
        return false;
    }
    g_message("session %" PRIu64 ": %s announces checkpoint %s of %s, to come "
              "to %s", s->id, s->who, s->name, s->vm,
              s->address);
    if (s->set) {
        set_start(s);
    }
    /* The thread looks at it in its end. */
    g_mutex_lock(&s->lock);
    s->watcher = g_thread_new("session", watcher, session_ref(s));
    g_mutex_unlock(&s->lock);
    return true;
}

void session_watch_join(Session *s)
{
    GThread *t;

    g_mutex_lock(&s->lock);
    t = g_steal_pointer(&s->watcher);
    g_mutex_unlock(&s->lock);
    if (t) {
        g_thread_join(t);
    }
}
