/*
 * The head of a set: hears from the other servers, and tells them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "error.h"
#include "receive.h"
#include "set.h"

typedef struct PeerLink {
    Session *session;
    unsigned part;
    bool over;                          /* nothing more is needed of it */
} PeerLink;

/* What a part says, in the thread of its connection */

static bool on_ranks(void *opaque, unsigned block, uint64_t first,
                     const PeerRun *runs, unsigned count, GError **errp)
{
    PeerLink *l = opaque;
    Session *s = l->session;
    Set *set = s->set;
    PageCursor *cursor = &set->peers[l->part].cursor;
    bool ok;

    g_mutex_lock(&s->lock);
    ok = set->has_end && s->state < SESSION_STORING;
    g_mutex_unlock(&s->lock);
    if (!ok) {
        return ms_fail(errp, "it tells of pages before it was asked");
    }
    g_mutex_lock(&set->merging);
    for (unsigned i = 0; ok && i < count; i++) {
        ok = page_cursor_move(cursor, set->layout, block, first,
                              runs[i].count, errp) &&
            merge_add(set->merge, l->part, block, first, runs[i].count,
                      runs[i].rank, errp);
        first += runs[i].count;
    }
    g_mutex_unlock(&set->merging);
    return ok;
}

static bool on_signal(void *opaque, PeerSignal signal, GError **errp)
{
    PeerLink *l = opaque;
    Session *s = l->session;
    Peer *p = &s->set->peers[l->part];
    bool ok;

    g_mutex_lock(&s->lock);
    if (signal == PEER_RANKS_END) {
        ok = s->set->has_end &&
            page_cursor_at_end(&p->cursor, s->set->layout);
        p->ranks_complete = ok;
    } else {
        ok = s->set->merged;
        p->stored = l->over = ok;
    }
    g_cond_broadcast(&s->changed);
    g_mutex_unlock(&s->lock);
    return ok || ms_fail(errp, "it says too early that it has done all");
}

static bool on_failed(void *opaque, const char *text, GError **errp)
{
    return ms_fail(errp, "%s", text);
}

/* Until the connection is over; *errp says why. */
static void read_all(PeerLink *l, Conn *c, GError **errp)
{
    static const PeerOps ops = {
        .ranks = on_ranks,
        .step = on_signal,
        .failed = on_failed,
    };

    set_hear(c, peer_parser_new(false, &ops, l),
             "its server has closed the connection", errp);
}

/* Its connection is over; that matters until it has been stored. */
static bool ended(PeerLink *l, const GError *error, GError **errp)
{
    Session *s = l->session;
    Peer *p = &s->set->peers[l->part];

    if (l->over) {
        return true;
    }
    g_mutex_lock(&s->lock);
    p->error = g_strdup_printf("part %u of the set: %s", l->part,
                               error->message);
    g_cond_broadcast(&s->changed);
    g_mutex_unlock(&s->lock);
    return ms_fail(errp, "%s", p->error);
}

/* Who connects */

static bool fits(Session *s, const PeerHello *h, GError **errp)
{
    const Set *set = s->set;

    if (!set || set->part || strcmp(h->set, set->id)) {
        return ms_fail(errp, "the head of set %s is not announced here",
                       h->set);
    }
    if (strcmp(h->parent, set->parent ?: "")) {
        return ms_fail(errp, "part %u is an increment to %s%s, the head to "
                       "%s%s", h->part, *h->parent ? "set " : "nothing",
                       h->parent, set->parent ? "set " : "nothing",
                       set->parent ?: "");
    }
    if (!h->part || h->parts != set->parts || h->channels != s->channels ||
        h->level != s->level) {
        return ms_fail(errp, "part %u was not announced as the head of the "
                       "set: %u parts, %u channels, level %s", h->part,
                       set->parts, s->channels, level_names[s->level]);
    }
    return true;
}

/* The part is there; hears at once what the others have heard. */
static bool claim(Session *s, Link *l, unsigned part, GError **errp)
{
    Set *set = s->set;
    bool ok;

    g_mutex_lock(&set->telling);
    g_mutex_lock(&s->lock);
    ok = !set->peers[part].conn && s->state < SESSION_STORING;
    if (ok) {
        set->peers[part].conn = l->conn;
        l->is_peer = true;
        g_cond_broadcast(&s->changed);
    }
    g_mutex_unlock(&s->lock);
    if (ok && set->told->len) {
        set_tell(l->conn, set->told, NULL);
    }
    g_mutex_unlock(&set->telling);
    return ok || ms_fail(errp, "another server is part %u of the set already",
                         part);
}

static bool greet(Session *s, Link *l, const uint8_t *first, size_t size,
                  PeerHello *h, GError **errp)
{
    g_autoptr(GByteArray) refusal = g_byte_array_new();
    g_autoptr(GError) error = NULL;
    uint8_t hello[PEER_HELLO_SIZE];

    memcpy(hello, first, size);
    if (!conn_read(l->conn, hello + size, PEER_START_SIZE - size, errp)) {
        return false;
    }
    if (peer_check_start(hello, &error)) {
        if (!conn_read(l->conn, hello + PEER_START_SIZE,
                       sizeof(hello) - PEER_START_SIZE, errp)) {
            return false;
        }
        conn_impatient(l->conn, s->server->config->stall_timeout);
        if (peer_get_hello(hello, h, &error) && fits(s, h, &error) &&
            claim(s, l, h->part, &error)) {
            return true;
        }
    }
    peer_put_failed(refusal, error->message);
    set_tell(l->conn, refusal, NULL);
    g_propagate_error(errp, g_steal_pointer(&error));
    return false;
}

bool receive_peer(Session *s, Link *l, const uint8_t *first, size_t size,
                  GError **errp)
{
    g_autoptr(GError) error = NULL;
    PeerLink link = { .session = s };
    PeerHello h;

    if (!greet(s, l, first, size, &h, errp)) {
        return false;
    }
    link.part = h.part;
    read_all(&link, l->conn, &error);
    return ended(&link, error, errp);
}

/* What the main stream's thread does */

/* All hear it, those that come later, too. */
static void tell_all(Set *set, const GByteArray *message)
{
    g_mutex_lock(&set->telling);
    g_byte_array_append(set->told, message->data, message->len);
    for (unsigned i = 1; i < set->parts; i++) {
        if (set->peers[i].conn) {
            /* If it cannot be told, its reader says why. */
            set_tell(set->peers[i].conn, message, NULL);
        }
    }
    g_mutex_unlock(&set->telling);
}

bool set_head_layout(Session *s, const Layout *l, GError **errp)
{
    g_autoptr(GByteArray) message = g_byte_array_new();
    Set *set = s->set;

    set->layout = layout_copy(l);
    set->ranks = ranks_new(l, errp);
    set->merge = set->ranks ? merge_new(l, set->parts, errp) : NULL;
    if (!set->merge) {
        return false;
    }
    peer_put_layout(message, l);
    tell_all(set, message);
    return true;
}

void set_head_end(Session *s, uint64_t syncs)
{
    g_autoptr(GByteArray) message = g_byte_array_new();

    g_mutex_lock(&s->lock);
    s->set->has_end = true;
    g_mutex_unlock(&s->lock);
    peer_put_end(message, syncs);
    tell_all(s->set, message);
}

static bool add_own(void *opaque, unsigned block, uint64_t first,
                    const PeerRun *runs, unsigned count, GError **errp)
{
    Set *set = opaque;
    bool ok = true;

    g_mutex_lock(&set->merging);
    for (unsigned i = 0; ok && i < count; i++) {
        ok = merge_add(set->merge, 0, block, first, runs[i].count,
                       runs[i].rank, errp);
        first += runs[i].count;
    }
    g_mutex_unlock(&set->merging);
    return ok;
}

static bool await_ranks(Session *s, GError **errp)
{
    bool all;

    g_mutex_lock(&s->lock);
    for (;;) {
        all = true;
        for (unsigned i = 1; i < s->set->parts; i++) {
            all = all && s->set->peers[i].ranks_complete;
        }
        if (all || s->state == SESSION_FAILED) {
            break;
        }
        g_cond_wait(&s->changed, &s->lock);
    }
    s->set->merged = all;
    g_mutex_unlock(&s->lock);
    return all || ms_fail(errp, "the parts of the set are not complete");
}

static bool tell_superseded(Session *s, unsigned part, GError **errp)
{
    const Layout *l = s->set->layout;
    g_autoptr(GByteArray) message = g_byte_array_new();
    Conn *c = s->set->peers[part].conn;

    for (unsigned b = 0; b < layout_num_blocks(l); b++) {
        const uint64_t *bits = merge_superseded(s->set->merge, part, b);
        uint64_t words = merge_words(layout_pages(l, b));

        for (uint64_t at = 0; at < words; at += PEER_MAX_WORDS) {
            peer_put_superseded(message, b, at * 64, bits + at,
                                MIN(PEER_MAX_WORDS, words - at));
            if (!set_tell(c, message, errp)) {
                return false;
            }
            g_byte_array_set_size(message, 0);
        }
    }
    peer_put_signal(message, PEER_SUPERSEDED_END);
    return set_tell(c, message, errp);
}

static bool tell_all_superseded(Session *s, GError **errp)
{
    bool ok = true;

    g_mutex_lock(&s->set->telling);
    for (unsigned i = 1; ok && i < s->set->parts; i++) {
        ok = tell_superseded(s, i, errp);
    }
    g_mutex_unlock(&s->set->telling);
    return ok;
}

static void drop_own(Session *s)
{
    const Layout *l = s->set->layout;

    for (unsigned b = 0; b < layout_num_blocks(l); b++) {
        generation_drop(s->generation, b, 0,
                        merge_superseded(s->set->merge, 0, b),
                        layout_pages(l, b));
    }
}

bool set_head_merge(Session *s, GError **errp)
{
    Set *set = s->set;

    set_inherit(s);
    if (!ranks_for_each(set->ranks, add_own, set, errp) ||
        !await_ranks(s, errp) || !tell_all_superseded(s, errp)) {
        return false;
    }
    drop_own(s);
    g_clear_pointer(&set->merge, merge_free);
    g_clear_pointer(&set->ranks, ranks_free);
    return true;
}

bool set_head_await_stored(Session *s, GError **errp)
{
    const char *error = NULL;
    bool all;

    g_mutex_lock(&s->lock);
    for (;;) {
        all = true;
        for (unsigned i = 1; i < s->set->parts; i++) {
            const Peer *p = &s->set->peers[i];

            all = all && p->stored;
            error = error ?: p->error;
        }
        if (all || error) {
            break;
        }
        g_cond_wait(&s->changed, &s->lock);
    }
    g_mutex_unlock(&s->lock);
    return all || ms_fail(errp, "%s", error);
}

void set_head_committed(Session *s)
{
    g_autoptr(GByteArray) message = g_byte_array_new();

    peer_put_signal(message, PEER_COMMIT);
    tell_all(s->set, message);
}
