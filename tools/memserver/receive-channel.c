/*
 * Receiving a multifd channel of a checkpoint
 *
 * Pages go from the socket to their slots, neighbours with one system call.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "codec.h"
#include "error.h"
#include "receive.h"
#include "set.h"

typedef struct Channel {
    Session *session;
    Link *link;
    Conn *conn;
    Multifd parser;
    Generation *generation;             /* NULL: not known yet */
    SlabCursor cursor;
    Codec *codec;                       /* NULL: plain, or not known yet */
    MultifdMethod method;
    bool has_method;
    uint8_t *packed;                    /* a compressed packet */
    void *where[MULTIFD_PAGES];
    struct iovec iov[MULTIFD_PAGES];
} Channel;

/* One iovec for each run of slots that follow each other. */
static unsigned runs(Channel *c, unsigned pages)
{
    unsigned n = 0;

    for (unsigned i = 0; i < pages; i++) {
        struct iovec *last = &c->iov[n ? n - 1 : 0];

        if (n && (char *)last->iov_base + last->iov_len == c->where[i]) {
            last->iov_len += PAGE_SIZE;
        } else {
            c->iov[n++] = (struct iovec) { c->where[i], PAGE_SIZE };
        }
    }
    return n;
}

static bool choose_method(Channel *c, MultifdMethod method, GError **errp)
{
    if (c->has_method) {
        return c->method == method ||
            ms_fail(errp, "channel %u changes its compression", c->parser.id);
    }
    c->has_method = true;
    c->method = method;
    if (method == MULTIFD_PLAIN) {
        return true;
    }
    c->codec = codec_new(method, errp);
    c->packed = g_malloc(MULTIFD_MAX_COMPRESSED);
    return c->codec;
}

static bool read_pages(Channel *c, const MultifdPacket *p, GError **errp)
{
    if (!p->normal) {
        return true;
    }
    if (!choose_method(c, p->method, errp)) {
        return false;
    }
    if (p->method == MULTIFD_PLAIN) {
        return conn_readv(c->conn, c->iov, runs(c, p->normal), errp);
    }
    return conn_read(c->conn, c->packed, p->payload, errp) &&
        codec_unpack(c->codec, c->packed, p->payload, c->where, p->normal,
                     errp);
}

static bool pages(Channel *c, const MultifdPacket *p, GError **errp)
{
    Session *s = c->session;
    unsigned index = session_channel_index(s, c->parser.id);
    int block;
    bool ok;

    if (!c->generation) {
        c->generation = session_generation(s, errp);
        if (!c->generation) {
            return false;
        }
    }
    block = multifd_locate(p, generation_layout(c->generation), errp);
    if (block < 0 || !epochs_enter(&s->epochs, index, errp)) {
        return false;
    }
    ok = generation_place(c->generation, &c->cursor, block, p, c->where,
                          errp) &&
        read_pages(c, p, errp) &&
        (!s->set || ranks_note(s->set->ranks, block, p,
                               s->epochs.syncs[index], errp));
    epochs_leave(&s->epochs, index);
    count(&s->pages, p->normal + p->zero);
    count(&s->server->counters.received_pages, p->normal + p->zero);
    return ok;
}

static bool packet(Channel *c, GError **errp)
{
    const MultifdPacket *p = &c->parser.packet;
    uint64_t size = MULTIFD_PACKET_SIZE + p->payload;

    count(&c->session->bytes, size);
    count(&c->session->server->counters.received_bytes, size);
    if ((p->normal || p->zero) && !pages(c, p, errp)) {
        return false;
    }
    return !p->sync ||
        epochs_sync(&c->session->epochs,
                    session_channel_index(c->session, c->parser.id), errp);
}

/*
 * No more bytes (@n is 0), or an error.  A source without a return path just
 * goes when it has sent all; whether that was all is for epochs to say.
 */
static bool ended(Channel *c, size_t have, gssize n, GError **errp)
{
    Session *s = c->session;
    bool complete;

    if (have || c->parser.state != MULTIFD_AT_HEADER) {
        return n == 0 && ms_fail(errp, "a multifd channel has ended early");
    }
    g_mutex_lock(&s->lock);
    complete = s->state == SESSION_DONE || s->state == SESSION_STORING;
    g_mutex_unlock(&s->lock);
    if (complete) {
        g_clear_error(errp);
    }
    return complete || n == 0;
}

static bool receive(Channel *c, size_t have, GError **errp)
{
    for (;;) {
        uint8_t *buffer;
        size_t want = multifd_wants(&c->parser, (void **)&buffer);

        if (have < want) {
            gssize n = conn_read_some(c->conn, buffer + have, want - have,
                                      errp);

            if (n <= 0) {
                return ended(c, have, n, errp);
            }
            have += n;
            continue;
        }
        have = 0;
        switch (multifd_got(&c->parser, errp)) {
        case MULTIFD_ERROR:
            return false;
        case MULTIFD_MORE:
            break;
        case MULTIFD_INTRODUCED:
            c->link->introduced = true;
            conn_patient(c->conn);
            if (!session_claim_channel(c->session, c->link,
                                       c->parser.id, errp)) {
                return false;
            }
            break;
        case MULTIFD_HAS_PACKET:
            if (!packet(c, errp)) {
                return false;
            }
            break;
        }
    }
}

bool receive_channel(Session *s, Link *l, const uint8_t *first, size_t size,
                     GError **errp)
{
    Channel c = { .session = s, .link = l, .conn = l->conn };
    bool ok;

    multifd_init(&c.parser);
    memcpy(c.parser.buffer, first, size);
    ok = receive(&c, size, errp);
    if (c.generation) {
        slab_close(s->slab, &c.cursor);
    }
    codec_free(c.codec);
    g_free(c.packed);
    return ok;
}
