/*
 * A part of a set that is not the head
 *
 * One thread reads what the head says; another does what receive-main.c does
 * for a whole checkpoint.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "error.h"
#include "set.h"

/* What the head says */

static bool on_layout(void *opaque, const Layout *l, GError **errp)
{
    Session *s = opaque;
    Generation *g;

    if (l->total > s->max_ram) {
        return ms_fail(errp, "the machine has %" PRIu64 " bytes of RAM, "
                       "announced were %" PRIu64, l->total, s->max_ram);
    }
    s->set->layout = layout_copy(l);
    s->set->ranks = ranks_new(l, errp);
    g = s->set->ranks ? session_make_generation(s, l, errp) : NULL;
    if (!g) {
        return false;
    }
    g_mutex_lock(&s->lock);
    if (s->state == SESSION_ANNOUNCED) {
        s->state = SESSION_RECEIVING;
    }
    g_mutex_unlock(&s->lock);
    session_set_generation(s, g);
    return true;
}

static bool on_end(void *opaque, uint64_t syncs, GError **errp)
{
    Session *s = opaque;

    g_mutex_lock(&s->lock);
    s->set->syncs = syncs;
    s->set->at_end = true;
    g_cond_broadcast(&s->changed);
    g_mutex_unlock(&s->lock);
    return true;
}

static bool on_superseded(void *opaque, unsigned block, uint64_t first,
                          const uint64_t *words, unsigned count,
                          GError **errp)
{
    Session *s = opaque;
    const Layout *l = s->set->layout;
    PageCursor *cursor = &s->set->cursor;
    uint64_t pages = count * 64ull, left = 0;
    bool asked;

    g_mutex_lock(&s->lock);
    asked = s->set->ranks_sent && s->state == SESSION_RECEIVING;
    g_mutex_unlock(&s->lock);
    if (!asked) {
        return ms_fail(errp, "it drops pages before it can know of them");
    }
    if (block < layout_num_blocks(l) && first < layout_pages(l, block)) {
        left = layout_pages(l, block) - first;
    }
    /* The last word may be longer than the block. */
    pages = pages - left < 64 ? left : pages;
    if (!page_cursor_move(cursor, l, block, first, pages, errp)) {
        return false;
    }
    generation_drop(s->generation, block, first, words, pages);
    return true;
}

static bool on_signal(void *opaque, PeerSignal signal, GError **errp)
{
    Session *s = opaque;
    Set *set = s->set;
    bool ok;

    g_mutex_lock(&s->lock);
    if (signal == PEER_SUPERSEDED_END) {
        ok = set->ranks_sent &&
            page_cursor_at_end(&set->cursor, set->layout);
        set->dropped = ok;
    } else {
        ok = set->stored;
        set->verdict = ok ? VERDICT_COMMIT : set->verdict;
    }
    g_cond_broadcast(&s->changed);
    g_mutex_unlock(&s->lock);
    return ok || ms_fail(errp, "it says too early that all is done");
}

/* The first is the one; *why must not change any more. */
static void decide(Session *s, Verdict verdict, const char *why)
{
    g_mutex_lock(&s->lock);
    if (s->set->verdict == VERDICT_NONE) {
        s->set->verdict = verdict;
        s->set->why = g_strdup(why);
    }
    g_cond_broadcast(&s->changed);
    g_mutex_unlock(&s->lock);
}

static bool on_failed(void *opaque, const char *text, GError **errp)
{
    decide(opaque, VERDICT_FAILED, text);
    return ms_fail(errp, "it has failed: %s", text);
}

/* What failed before there was a connection has not been told to anybody. */
static bool told_failure(Session *s, Conn *c, GError **errp)
{
    g_autoptr(GByteArray) message = g_byte_array_new();
    g_autoptr(GError) error = NULL;

    if (!session_failed(s, &error)) {
        return false;
    }
    peer_put_failed(message, error->message);
    set_tell(c, message, NULL);
    g_propagate_error(errp, g_steal_pointer(&error));
    return true;
}

static Conn *introduce(Session *s, GError **errp)
{
    g_autoptr(GByteArray) message = g_byte_array_new();
    Set *set = s->set;
    PeerHello h = {
        .part = set->part, .parts = set->parts, .channels = s->channels,
        .level = s->level,
    };
    const Config *config = s->server->config;
    bool tls = config->tls && g_str_has_prefix(set->head, "tcp:");
    Conn *c = conn_open(set->head, tls ? config->tls_client : NULL, NULL,
                        errp);
    bool ok;

    if (!c) {
        return NULL;
    }
    conn_impatient(c, config->stall_timeout);
    g_strlcpy(h.set, set->id, sizeof(h.set));
    g_strlcpy(h.parent, set->parent ?: "", sizeof(h.parent));
    peer_put_hello(message, &h);
    g_mutex_lock(&set->telling);
    g_mutex_lock(&s->lock);
    set->conn = c;
    g_mutex_unlock(&s->lock);
    ok = set_tell(c, message, errp) && !told_failure(s, c, errp);
    g_mutex_unlock(&set->telling);
    return ok ? c : NULL;
}

/* Until the connection is over; *errp says why. */
static void read_all(Session *s, Conn *c, GError **errp)
{
    static const PeerOps ops = {
        .layout = on_layout,
        .end = on_end,
        .superseded = on_superseded,
        .step = on_signal,
        .failed = on_failed,
    };

    set_hear(c, peer_parser_new(true, &ops, s),
             "it has closed the connection", errp);
}

void *set_part_reader(void *opaque)
{
    Session *s = opaque;
    g_autoptr(GError) error = NULL;
    Conn *c = introduce(s, &error);

    if (c) {
        read_all(s, c, &error);
    }
    g_prefix_error(&error, "head of the set at %s: ", s->set->head);
    decide(s, VERDICT_LOST, error->message);
    session_fail(s, error);
    return NULL;
}

/* What is done */

static bool await(Session *s, const bool *what, GError **errp)
{
    bool ok;

    g_mutex_lock(&s->lock);
    while (!*what && s->state != SESSION_FAILED) {
        g_cond_wait(&s->changed, &s->lock);
    }
    ok = *what;
    g_mutex_unlock(&s->lock);
    return ok || ms_fail(errp, "the head has not gone on");
}

static bool tell(Set *set, const GByteArray *message, GError **errp)
{
    bool ok;

    g_mutex_lock(&set->telling);
    ok = set_tell(set->conn, message, errp);
    g_mutex_unlock(&set->telling);
    return ok;
}

static bool tell_signal(Set *set, PeerSignal signal, GError **errp)
{
    g_autoptr(GByteArray) message = g_byte_array_new();

    peer_put_signal(message, signal);
    return tell(set, message, errp);
}

static bool tell_runs(void *opaque, unsigned block, uint64_t first,
                      const PeerRun *runs, unsigned count, GError **errp)
{
    g_autoptr(GByteArray) message = g_byte_array_new();

    peer_put_ranks(message, block, first, runs, count);
    return tell(opaque, message, errp);
}

static bool tell_ranks(Session *s, GError **errp)
{
    Set *set = s->set;

    g_mutex_lock(&s->lock);
    set->ranks_sent = true;
    g_mutex_unlock(&s->lock);
    return ranks_for_each(set->ranks, tell_runs, set, errp) &&
        tell_signal(set, PEER_RANKS_END, errp);
}

static Verdict await_verdict(Session *s)
{
    Verdict v;

    g_mutex_lock(&s->lock);
    while (s->set->verdict == VERDICT_NONE) {
        g_cond_wait(&s->changed, &s->lock);
    }
    v = s->set->verdict;
    g_mutex_unlock(&s->lock);
    return v;
}

/* From now on the head may commit, unless it has failed before. */
static bool say_stored(Session *s, GError **errp)
{
    g_autoptr(GError) ignored = NULL;
    bool ok;

    g_mutex_lock(&s->lock);
    ok = s->set->verdict == VERDICT_NONE;
    s->set->stored = ok;
    g_mutex_unlock(&s->lock);
    if (!ok) {
        return ms_fail(errp, "the head of the set has failed: %s",
                       s->set->why);
    }
    /* If it cannot be told the reader loses the head. */
    tell_signal(s->set, PEER_STORED, &ignored);
    return true;
}

static bool decided(Session *s, Checkpoint *c, GError **errp)
{
    switch (await_verdict(s)) {
    case VERDICT_COMMIT:
        store_commit(s->ticket, c);
        store_end(s->ticket);
        return true;
    case VERDICT_LOST:
        store_keep(s->ticket, c);
        return ms_fail(errp, "the head of the set was lost after part %u was "
                       "stored: the part is kept; if no server has part 0 of "
                       "set %s, remove it", s->set->part, s->set->id);
    default:
        store_discard(s->ticket, c);
        return ms_fail(errp, "the head of the set has failed: %s",
                       s->set->why);
    }
}

static bool store(Session *s, GError **errp)
{
    g_autoptr(GByteArray) no_state = g_byte_array_new();
    g_autoptr(Checkpoint) c = session_checkpoint(s, no_state);
    bool ok = store_write(s->ticket, c, errp) &&
        store_sign(s->ticket, c, errp) && say_stored(s, errp);

    if (ok) {
        ok = decided(s, c, errp);
    } else {
        store_discard(s->ticket, c);
    }
    session_stored(s, ok);
    return ok;
}

static bool work(Session *s, GError **errp)
{
    Set *set = s->set;

    if (!await(s, &set->at_end, errp) ||
        !epochs_complete(&s->epochs, set->syncs, errp) ||
        !session_await_confirmed(s, errp)) {
        return false;
    }
    set_inherit(s);
    if (!tell_ranks(s, errp) || !await(s, &set->dropped, errp)) {
        return false;
    }
    g_clear_pointer(&set->ranks, ranks_free);
    return session_start_storing(s) && store(s, errp);
}

void *set_part_worker(void *opaque)
{
    Session *s = opaque;
    g_autoptr(GError) error = NULL;

    if (!work(s, &error) && error) {
        session_fail(s, error);
    }
    g_mutex_lock(&s->lock);
    s->main_over = true;
    g_cond_broadcast(&s->changed);
    g_mutex_unlock(&s->lock);
    return NULL;
}
