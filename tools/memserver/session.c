/*
 * The states of a session
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <sys/eventfd.h>
#include <unistd.h>

#include "error.h"
#include "session-internal.h"
#include "set.h"

const char *const session_states[SESSION__MAX] = {
    [SESSION_ANNOUNCED] = "announced",
    [SESSION_RECEIVING] = "receiving",
    [SESSION_STORING] = "storing",
    [SESSION_DONE] = "done",
    [SESSION_FAILED] = "failed",
};

Session *session_new(Server *server, const char *who, const SessionWish *w)
{
    Session *s = g_new0(Session, 1);

    g_atomic_ref_count_init(&s->refs);
    g_mutex_init(&s->lock);
    g_mutex_init(&s->answering);
    g_cond_init(&s->changed);
    s->server = server;
    s->who = g_strdup(who);
    s->vm = g_strdup(w->vm);
    s->name = g_strdup(w->name);
    s->source = g_strdup(w->source);
    s->senders = g_strdupv((char **)w->senders);
    s->redundancy = w->redundancy;
    s->claim = claim_ref(w->claim);
    s->channels = s->own_channels = w->channels;
    s->level = w->level;
    if (w->set) {
        s->set = set_new(w);
        s->own_channels = (w->channels - w->part + w->parts - 1) / w->parts;
    }
    epochs_init(&s->epochs, s->own_channels);
    s->max_ram = w->ram;
    s->return_path = w->return_path;
    s->held = w->hold;
    s->asks = w->parent || w->confirm;
    s->links = g_ptr_array_new();
    s->listener = -1;
    s->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return s;
}

Session *session_ref(Session *s)
{
    g_atomic_ref_count_inc(&s->refs);
    return s;
}

void session_unref(Session *s)
{
    if (!s || !g_atomic_ref_count_dec(&s->refs)) {
        return;
    }
    set_free(s->set);
    slab_leave(s->slab);
    g_ptr_array_unref(s->links);
    epochs_clear(&s->epochs);
    g_mutex_clear(&s->lock);
    g_mutex_clear(&s->answering);
    g_cond_clear(&s->changed);
    if (s->wake >= 0) {
        close(s->wake);
    }
    g_free(s->who);
    g_free(s->vm);
    g_free(s->name);
    g_free(s->source);
    g_strfreev(s->senders);
    claim_unref(s->claim);
    g_free(s->address);
    g_free(s->socket_path);
    g_free(s->error);
    g_free(s);
}

bool session_ended(const Session *s)
{
    return s->state == SESSION_DONE ||
        (s->state == SESSION_FAILED && !s->ticket);
}

static void wake_watcher(Session *s)
{
    uint64_t one = 1;

    g_mutex_lock(&s->lock);
    /* The watcher closes it at its end. */
    if (s->wake >= 0) {
        ssize_t ignored = write(s->wake, &one, sizeof(one));

        (void)ignored;
    }
    g_mutex_unlock(&s->lock);
}

void session_fail(Session *s, const GError *error)
{
    g_mutex_lock(&s->lock);
    /* What is being stored has come whole. */
    if (s->state < SESSION_STORING) {
        s->state = SESSION_FAILED;
        s->error = g_strdup(error->message);
        /* They wait for bytes; the main stream can still answer. */
        for (unsigned i = 0; i < s->links->len; i++) {
            conn_abort(((Link *)g_ptr_array_index(s->links, i))->conn);
        }
        g_cond_broadcast(&s->changed);
    }
    g_mutex_unlock(&s->lock);
    epochs_break(&s->epochs);
    wake_watcher(s);
}

void session_let_go(Session *s)
{
    StoreTicket *ticket;
    Generation *g;

    g_mutex_lock(&s->lock);
    while (s->channels_at_work) {
        g_cond_wait(&s->changed, &s->lock);
    }
    ticket = s->ticket;
    g = g_steal_pointer(&s->generation);
    g_mutex_unlock(&s->lock);

    generation_unref(g);
    store_end(ticket);

    g_mutex_lock(&s->lock);
    s->ticket = NULL;
    g_cond_broadcast(&s->changed);
    g_mutex_unlock(&s->lock);
}

bool session_failed(Session *s, GError **errp)
{
    bool failed;

    g_mutex_lock(&s->lock);
    failed = s->state == SESSION_FAILED;
    if (failed) {
        ms_fail(errp, "%s", s->error);
    }
    g_mutex_unlock(&s->lock);
    return failed;
}

bool session_claim_main(Session *s, Link *l, GError **errp)
{
    bool ok;

    if (s->set && s->set->part) {
        return ms_fail(errp, "this is part %u of a set: the main stream goes "
                       "to part 0", s->set->part);
    }
    g_mutex_lock(&s->lock);
    ok = !s->main && s->state == SESSION_ANNOUNCED;
    if (ok) {
        s->main = l;
        s->state = SESSION_RECEIVING;
        g_cond_broadcast(&s->changed);
    }
    g_mutex_unlock(&s->lock);
    return ok || ms_fail(errp, "there is a main stream already");
}

bool session_claim_channel(Session *s, Link *l, unsigned id, GError **errp)
{
    bool ok = false;

    g_mutex_lock(&s->lock);
    if (id >= s->channels) {
        ms_fail(errp, "channel %u comes, announced were %u channels", id,
                s->channels);
    } else if (s->set && id % s->set->parts != s->set->part) {
        ms_fail(errp, "channel %u comes, which is that of part %u of the set; "
                "this is part %u", id, id % s->set->parts, s->set->part);
    } else if (s->has_channel[id]) {
        ms_fail(errp, "channel %u comes twice", id);
    } else {
        s->has_channel[id] = ok = true;
        s->num_channels++;
        s->channels_at_work++;
        l->is_channel = true;
        g_cond_broadcast(&s->changed);
    }
    g_mutex_unlock(&s->lock);
    return ok;
}

unsigned session_channel_index(const Session *s, unsigned id)
{
    return s->set ? id / s->set->parts : id;
}

Generation *session_make_generation(Session *s, const Layout *l,
                                    GError **errp)
{
    const Checkpoint *parent = s->ticket->parent;

    if (parent && !layout_same_blocks(l, generation_layout(
                                          parent->generation))) {
        ms_fail(errp, "the machine has other RAM than checkpoint '%s': there "
                "can be no increment to it", parent->name);
        return NULL;
    }
    return generation_new(l, s->slab, parent ? parent->generation : NULL,
                          errp);
}

void session_set_generation(Session *s, Generation *g)
{
    g_mutex_lock(&s->lock);
    s->generation = g;
    g_cond_broadcast(&s->changed);
    g_mutex_unlock(&s->lock);
}

bool session_await_confirmed(Session *s, GError **errp)
{
    gint64 end = g_get_monotonic_time() +
        s->server->config->stall_timeout * G_USEC_PER_SEC;
    bool ok;

    g_mutex_lock(&s->lock);
    while (s->asks && !s->confirmed && s->state != SESSION_FAILED &&
           g_cond_wait_until(&s->changed, &s->lock, end)) {
        ;
    }
    ok = !s->asks || s->confirmed;
    g_mutex_unlock(&s->lock);
    return ok || ms_fail(errp, "nobody has confirmed what this is: an "
                         "increment to its parent, or what disks it has");
}

bool session_start_storing(Session *s)
{
    bool ok;

    g_mutex_lock(&s->lock);
    ok = s->state == SESSION_RECEIVING;
    if (ok) {
        s->state = SESSION_STORING;
    }
    g_mutex_unlock(&s->lock);
    return ok;
}

Checkpoint *session_checkpoint(Session *s, const GByteArray *state)
{
    Checkpoint *c = checkpoint_new(s->vm, s->name);
    const Layout *l = generation_layout(s->generation);
    bool incremental = s->asks && s->incremental;

    generation_seal(s->generation, incremental);
    c->generation = generation_ref(s->generation);
    c->state = g_byte_array_new();
    g_byte_array_append(c->state, state->data, state->len);
    c->machine = g_strdup(l->machine);
    c->ram = l->total;
    c->source = g_strdup(s->source);
    c->parent = incremental ? g_strdup(s->ticket->parent->name) : NULL;
    if (s->set) {
        c->set = g_strdup(s->set->id);
        c->head_id = g_strdup(s->set->head_id);
        c->part = s->set->part;
        c->parts = s->set->parts;
        c->redundancy = s->redundancy;
        c->claim = claim_ref(s->claim);
    }
    return c;
}

void session_stored(Session *s, bool ok)
{
    g_mutex_lock(&s->lock);
    if (ok) {
        s->ticket = NULL;
    }
    s->state = ok ? SESSION_DONE : SESSION_RECEIVING;
    g_cond_broadcast(&s->changed);
    g_mutex_unlock(&s->lock);
}

Generation *session_generation(Session *s, GError **errp)
{
    Generation *g;

    g_mutex_lock(&s->lock);
    while (!s->generation && s->state < SESSION_STORING) {
        g_cond_wait(&s->changed, &s->lock);
    }
    g = s->state < SESSION_STORING ? s->generation : NULL;
    g_mutex_unlock(&s->lock);
    if (!g) {
        ms_fail(errp, "the main stream has not said what RAM there is");
    }
    return g;
}

bool session_confirm(Session *s, bool incremental, const char *source,
                     GError **errp)
{
    bool ok;

    g_mutex_lock(&s->lock);
    ok = s->asks && !s->confirmed &&
        (!incremental || (s->ticket && s->ticket->parent));
    if (ok) {
        s->confirmed = true;
        s->incremental = incremental;
        if (source) {
            g_free(s->source);
            s->source = g_strdup(source);
        }
        g_cond_broadcast(&s->changed);
    }
    g_mutex_unlock(&s->lock);
    return ok || ms_fail(errp, "this session has no parent, has been "
                         "confirmed, or does not ask for it");
}

void session_cancel(Session *s)
{
    GError error = { MS_ERROR, 0, (char *)"cancelled" };

    session_fail(s, &error);
}

void session_view(Session *s, SessionView *v)
{
    g_mutex_lock(&s->lock);
    v->id = s->id;
    v->vm = g_strdup(s->vm);
    v->name = g_strdup(s->name);
    v->address = g_strdup(s->address);
    v->state = s->state;
    v->error = g_strdup(s->error);
    v->bytes = counted(&s->bytes);
    v->pages = counted(&s->pages);
    v->held = s->held;
    v->asks = s->asks && !s->confirmed;
    if (s->set) {
        v->set = s->set->id;
        v->part = s->set->part;
        v->parts = s->set->parts;
        v->peers = set_peers(s);
    }
    g_mutex_unlock(&s->lock);
}

void session_view_clear(SessionView *v)
{
    g_free(v->address);
    g_free(v->vm);
    g_free(v->name);
    g_free(v->error);
}

bool session_wait(Session *s, uint64_t ms)
{
    gint64 end = g_get_monotonic_time() + ms * 1000;
    bool over;

    g_mutex_lock(&s->lock);
    while (!(over = session_ended(s)) &&
           g_cond_wait_until(&s->changed, &s->lock, end)) {
        ;
    }
    g_mutex_unlock(&s->lock);
    return over;
}
