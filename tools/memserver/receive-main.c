/*
 * Receiving the main stream of a checkpoint, and answering the source
 *
 * SHUT with 0, the last answer, makes the source say "completed".  It is sent
 * only when the checkpoint has the level that was asked for; anything else
 * makes the source say "failed", and its virtual machine runs on.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "be.h"
#include "error.h"
#include "receive.h"
#include "set.h"
#include "stream.h"

/* Types of answers */
#define RP_SHUT 1
#define RP_PONG 2
#define RP_SWITCHOVER_ACK 7

#define READ_SIZE (64 << 10)

typedef struct MainStream {
    Session *session;
    Conn *conn;
    uint64_t syncs;                     /* once RAM has ended */
} MainStream;

/* @value: as its payload, if @has_value */
static bool answer(Session *s, Conn *c, uint16_t type, bool has_value,
                   uint32_t value, GError **errp)
{
    g_autoptr(GByteArray) message = g_byte_array_new();
    bool ok;

    put_be16(message, type);
    put_be16(message, has_value ? 4 : 0);
    if (has_value) {
        put_be32(message, value);
    }
    g_mutex_lock(&s->answering);
    ok = conn_write(c, message->data, message->len, errp);
    g_mutex_unlock(&s->answering);
    return ok;
}

bool receive_ack(Session *s, GError **errp)
{
    Conn *c = NULL;

    /* The lock keeps the connection from being freed. */
    g_mutex_lock(&s->lock);
    if (s->answers && !s->held && !s->acked && !s->main_over) {
        s->acked = true;
        c = s->main->conn;
    }
    if (c && !answer(s, c, RP_SWITCHOVER_ACK, false, 0, errp)) {
        g_mutex_unlock(&s->lock);
        return false;
    }
    g_mutex_unlock(&s->lock);
    return true;
}

static bool on_return_path(void *opaque, GError **errp)
{
    MainStream *m = opaque;

    g_mutex_lock(&m->session->lock);
    m->session->answers = true;
    g_mutex_unlock(&m->session->lock);
    return receive_ack(m->session, errp);
}

static bool on_ping(void *opaque, uint32_t value, GError **errp)
{
    MainStream *m = opaque;

    return !m->session->answers ||
        answer(m->session, m->conn, RP_PONG, true, value, errp);
}

static bool on_layout(void *opaque, const Layout *layout, GError **errp)
{
    MainStream *m = opaque;
    Session *s = m->session;
    Generation *g;

    if (s->return_path && !s->answers) {
        return ms_fail(errp, "capability return-path is off at the source: "
                       "turn it on");
    }
    if (s->set && !set_head_layout(s, layout, errp)) {
        return false;
    }
    g = session_make_generation(s, layout, errp);
    if (!g) {
        return false;
    }
    session_set_generation(s, g);
    return true;
}

static bool on_ram_end(void *opaque, uint64_t syncs, GError **errp)
{
    MainStream *m = opaque;

    m->syncs = syncs;
    if (m->session->set) {
        set_head_end(m->session, syncs);
    }
    return true;
}

static bool receive_stream(MainStream *m, Stream *stream, GError **errp)
{
    g_autofree uint8_t *buffer = g_malloc(READ_SIZE);

    while (!stream_complete(stream)) {
        gssize n = conn_read_some(m->conn, buffer, READ_SIZE, errp);

        if (n < 0) {
            return false;
        }
        if (n == 0) {
            return ms_fail(errp, "the source has closed the connection; "
                           "awaited was %s", stream_awaits(stream));
        }
        count(&m->session->bytes, n);
        if (!stream_feed(stream, buffer, n, errp)) {
            return false;
        }
    }
    return true;
}

/*
 * A set is there when all its parts have their level: the head's manifest, and
 * what its list says, come last.
 */
static bool store(Session *s, const GByteArray *state, GError **errp)
{
    g_autoptr(Checkpoint) c = session_checkpoint(s, state);
    bool ok = store_write(s->ticket, c, errp) &&
        (!s->set || set_head_await_stored(s, errp)) &&
        store_sign(s->ticket, c, errp);

    if (ok) {
        store_commit(s->ticket, c);
        if (s->set) {
            set_head_committed(s);
        }
        /* Whoever hears of the end may announce the next one. */
        store_end(s->ticket);
    } else {
        store_discard(s->ticket, c);
    }
    session_stored(s, ok);
    return ok;
}

static bool receive_all(MainStream *m, Stream *stream, GError **errp)
{
    Session *s = m->session;

    return receive_stream(m, stream, errp) &&
        epochs_complete(&s->epochs, m->syncs, errp) &&
        session_await_confirmed(s, errp) && (!s->set || set_head_merge(s, errp)) &&
        session_start_storing(s) &&
        store(s, stream_state(stream), errp);
}

bool receive_main(Session *s, Conn *c, const uint8_t *first, size_t size,
                  GError **errp)
{
    static const StreamOps ops = {
        .return_path = on_return_path,
        .ping = on_ping,
        .layout = on_layout,
        .ram_end = on_ram_end,
    };
    MainStream m = { .session = s, .conn = c };
    Stream *stream = stream_new(&ops, &m, s->max_ram,
                                s->server->config->max_state);
    g_autoptr(GError) error = NULL;
    bool ok = stream_feed(stream, first, size, &error) &&
        receive_all(&m, stream, &error);

    stream_free(stream);
    if (!ok) {
        /* What came first is the cause; then all others are told. */
        g_autoptr(GError) cause = NULL;

        if (session_failed(s, &cause)) {
            g_clear_error(&error);
            error = g_steal_pointer(&cause);
        } else {
            session_fail(s, error);
        }
        session_let_go(s);
        g_propagate_error(errp, g_steal_pointer(&error));
    }
    if (s->answers) {
        g_autoptr(GError) ignored = NULL;

        answer(s, c, RP_SHUT, true, ok ? 0 : 1, &ignored);
        conn_end(c);
    }
    return ok;
}
