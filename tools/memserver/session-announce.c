/*
 * Which sessions there are: they are announced, found and forgotten
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "error.h"
#include "receive.h"
#include "session-internal.h"
#include "session-watch.h"
#include "set.h"

/* Sessions that have ended are remembered; then the oldest are forgotten. */
#define REMEMBERED 200

/* Whether there is room for one more; called with the server's lock. */
static bool make_room(Server *server, GError **errp)
{
    GHashTableIter i;
    Session *s, *oldest = NULL;
    unsigned live = 0;

    g_hash_table_iter_init(&i, server->sessions);
    while (g_hash_table_iter_next(&i, NULL, (void **)&s)) {
        g_mutex_lock(&s->lock);
        if (!session_ended(s)) {
            live++;
        } else if (!oldest || s->id < oldest->id) {
            oldest = s;
        }
        g_mutex_unlock(&s->lock);
    }
    if (live >= server->config->max_sessions) {
        return ms_fail(errp, "the server is receiving %u checkpoints already",
                       live);
    }
    if (oldest && g_hash_table_size(server->sessions) >= REMEMBERED) {
        g_hash_table_remove(server->sessions, &oldest->id);
    }
    return true;
}

static bool part_wish_is_possible(const Config *c, const SessionWish *w,
                                  GError **errp)
{
    if (w->channels < w->parts) {
        return ms_fail(errp, "channels=%u: a checkpoint in %u parts needs as "
                       "many channels", w->channels, w->parts);
    }
    if (w->part && w->hold) {
        return ms_fail(errp, "only part 0 can hold the source back");
    }
    if (c->tls && w->head && !c->tls_client) {
        return ms_fail(errp, "this server cannot connect to the head of the "
                       "set: %s", c->tls_client_problem);
    }
    return true;
}

static bool wish_is_possible(const Config *c, const SessionWish *w,
                             GError **errp)
{
    uint64_t quota = MIN(c->store.vm_memory, c->store.memory);

    if (w->set && !part_wish_is_possible(c, w, errp)) {
        return false;
    }
    if (!w->channels || w->channels > c->max_channels) {
        return ms_fail(errp, "channels=%u: it must be 1 to %u", w->channels,
                       c->max_channels);
    }
    /* Of a set, each server gets about its share. */
    if (!w->ram || w->ram / MAX(w->parts, 1) > quota) {
        return ms_fail(errp, "ram=%" PRIu64 ": the quota of a virtual machine "
                       "is %" PRIu64 " bytes", w->ram, quota);
    }
    if (!w->return_path && c->require_return_path) {
        return ms_fail(errp, "the server insists on capability return-path: "
                       "without it the source believes too early that its "
                       "checkpoint is safe");
    }
    return true;
}

/*
 * Each server of a set inherits its part of the parent.  Any other checkpoint
 * would have pages that nobody inherits, and they would be zero.
 */
static bool parent_fits(const SessionWish *w, const Checkpoint *parent,
                        GError **errp)
{
    if (parent->parts == MAX(w->parts, 1) && parent->part == w->part) {
        return true;
    }
    return parent->parts == 1
        ? ms_fail(errp, "checkpoint '%s' is whole: an increment to it has no "
                  "parts", parent->name)
        : ms_fail(errp, "checkpoint '%s' is part %u of %u here: an increment "
                  "to it has as many parts, and this one here",
                  parent->name, parent->part, parent->parts);
}

/* With what is here: a ticket, and the parent. */
static bool prepare(Session *s, const char *who, const SessionWish *w,
                    GError **errp)
{
    s->ticket = store_begin(s->server->store, who, w->vm, w->name, w->parent,
                            w->level, errp);
    if (!s->ticket) {
        return false;
    }
    s->ticket->keep_all = w->keep_all;
    s->slab = slab_use(s->ticket->slab);
    if (s->ticket->parent) {
        if (!parent_fits(w, s->ticket->parent, errp)) {
            return false;
        }
        if (s->set) {
            s->set->parent = g_strdup(s->ticket->parent->set);
        }
    }
    return true;
}

Session *session_announce(Server *server, const char *who,
                          const SessionWish *w, GError **errp)
{
    Session *s;
    bool ok;

    if (!wish_is_possible(server->config, w, errp)) {
        return NULL;
    }
    s = session_new(server, who, w);

    g_mutex_lock(&server->lock);
    ok = make_room(server, errp);
    s->id = ++server->next_session;
    g_mutex_unlock(&server->lock);
    if (!ok || !prepare(s, who, w, errp) || !session_watch(s, errp)) {
        store_end(s->ticket);
        session_unref(s);
        return NULL;
    }
    g_mutex_lock(&server->lock);
    g_hash_table_insert(server->sessions, &s->id, session_ref(s));
    g_mutex_unlock(&server->lock);
    return s;
}

Session *session_find(Server *server, const char *who, uint64_t id,
                      GError **errp)
{
    Session *s;

    g_mutex_lock(&server->lock);
    s = g_hash_table_lookup(server->sessions, &id);
    if (s && (!strcmp(who, s->who) ||
              (server->config->store.admins &&
               g_strv_contains((const char *const *)
                               server->config->store.admins, who)))) {
        session_ref(s);
    } else {
        s = NULL;
        ms_fail(errp, "no session %" PRIu64 " of %s is known here", id, who);
    }
    g_mutex_unlock(&server->lock);
    return s;
}

bool session_of_set_goes_on(Server *server, const char *set)
{
    GHashTableIter i;
    Session *s;
    bool found = false;

    g_mutex_lock(&server->lock);
    g_hash_table_iter_init(&i, server->sessions);
    while (!found && g_hash_table_iter_next(&i, NULL, (void **)&s)) {
        g_mutex_lock(&s->lock);
        found = s->set && !strcmp(s->set->id, set) && !session_ended(s);
        g_mutex_unlock(&s->lock);
    }
    g_mutex_unlock(&server->lock);
    return found;
}

void session_release(Session *s)
{
    g_autoptr(GError) error = NULL;

    g_mutex_lock(&s->lock);
    s->held = false;
    g_mutex_unlock(&s->lock);
    if (!receive_ack(s, &error)) {
        session_fail(s, error);
    }
}

void session_cancel_all(Server *server)
{
    g_autoptr(GPtrArray) all =
        g_ptr_array_new_with_free_func((GDestroyNotify)session_unref);
    GHashTableIter i;
    Session *s;

    g_mutex_lock(&server->lock);
    g_hash_table_iter_init(&i, server->sessions);
    while (g_hash_table_iter_next(&i, NULL, (void **)&s)) {
        g_ptr_array_add(all, session_ref(s));
    }
    g_mutex_unlock(&server->lock);
    for (unsigned n = 0; n < all->len; n++) {
        s = g_ptr_array_index(all, n);
        session_cancel(s);
        session_watch_join(s);
    }
}
