/*
 * A session that receives one part of a set
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "error.h"
#include "set.h"

#define READ_SIZE (64 << 10)

Set *set_new(const SessionWish *w)
{
    Set *s = g_new0(Set, 1);

    s->id = g_strdup(w->set);
    s->head = g_strdup(w->head);
    s->head_id = g_strdup(w->head_id);
    s->part = w->part;
    s->parts = w->parts;
    s->told = g_byte_array_new();
    g_mutex_init(&s->telling);
    g_mutex_init(&s->merging);
    return s;
}

void set_free(Set *s)
{
    if (!s) {
        return;
    }
    for (unsigned i = 0; i < s->parts; i++) {
        g_free(s->peers[i].error);
    }
    layout_free(s->layout);
    ranks_free(s->ranks);
    merge_free(s->merge);
    g_byte_array_unref(s->told);
    g_mutex_clear(&s->telling);
    g_mutex_clear(&s->merging);
    g_free(s->id);
    g_free(s->head);
    g_free(s->head_id);
    g_free(s->parent);
    g_free(s->why);
    g_free(s);
}

void set_inherit(Session *s)
{
    if (s->incremental) {
        ranks_inherit(s->set->ranks, s->ticket->parent->generation);
    }
}

unsigned set_peers(const Session *s)
{
    unsigned n = s->set->conn != NULL;

    for (unsigned i = 1; i < s->set->parts; i++) {
        n += s->set->peers[i].conn != NULL;
    }
    return n;
}

bool set_is_connected(const Session *s)
{
    return set_peers(s) == (s->set->part ? 1 : s->set->parts - 1);
}

bool set_tell(Conn *c, const GByteArray *message, GError **errp)
{
    return conn_write(c, message->data, message->len, errp);
}

void set_hear(Conn *c, PeerParser *parser, const char *closed, GError **errp)
{
    g_autofree uint8_t *buffer = g_malloc(READ_SIZE);
    bool ok;
    gssize n;

    do {
        n = conn_read_some(c, buffer, READ_SIZE, errp);
        ok = n > 0 && peer_parser_feed(parser, buffer, n, errp);
    } while (ok);
    peer_parser_free(parser);
    if (!n) {
        ms_fail(errp, "%s", closed);
    }
}

/*
 * Of those that are connected; one that does not take it is found out by its
 * reader.
 */
static void tell_each(Set *set, const GByteArray *message)
{
    if (set->conn) {
        set_tell(set->conn, message, NULL);
    }
    for (unsigned i = 0; i < set->parts; i++) {
        if (set->peers[i].conn) {
            set_tell(set->peers[i].conn, message, NULL);
        }
    }
}

void set_start(Session *s)
{
    if (s->set->part) {
        s->set->reader = g_thread_new("head", set_part_reader, s);
        s->set->worker = g_thread_new("part", set_part_worker, s);
    }
}

void set_say_alive(Session *s)
{
    g_autoptr(GByteArray) message = g_byte_array_new();

    /* Whoever writes at length is alive as well. */
    if (g_mutex_trylock(&s->set->telling)) {
        peer_put_signal(message, PEER_ALIVE);
        tell_each(s->set, message);
        g_mutex_unlock(&s->set->telling);
    }
}

static void tell_failure(Session *s)
{
    g_autoptr(GByteArray) message = g_byte_array_new();
    g_autoptr(GError) error = NULL;

    if (session_failed(s, &error)) {
        peer_put_failed(message, error->message);
        g_mutex_lock(&s->set->telling);
        tell_each(s->set, message);
        g_mutex_unlock(&s->set->telling);
    }
}

void set_end(Session *s)
{
    Set *set = s->set;

    tell_failure(s);
    if (!set->part) {
        return;
    }
    g_thread_join(set->worker);
    g_mutex_lock(&s->lock);
    if (set->conn) {
        conn_abort(set->conn);
    }
    g_mutex_unlock(&s->lock);
    g_thread_join(set->reader);
    /* Nobody writes any more. */
    g_mutex_lock(&s->lock);
    g_clear_pointer(&set->conn, conn_free);
    g_mutex_unlock(&s->lock);
}
