/*
 * How far ahead of QEMU one may be
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "credit.h"
#include "layout.h"

#define MS 1000000LL

/*
 * A message while pages are asked for: QEMU loads it in 60 us, and 400 Mbit/s
 * carry it in 1.3 ms.  One while none are: fewer PINGs.
 */
#define PAGES_BUSY 16
#define PAGES_CALM 128

/*
 * What is queued in front of a request, beyond what the path holds: so much
 * time, but from two messages, with which QEMU is never idle, to eight.
 */
#define QUEUE_BUSY (MS / 2)
#define QUEUE_CALM (20 * MS)

/* The shortest time is forgotten after this; paths change. */
#define SHORTEST_FOR (5000 * MS)

typedef struct Ping {
    uint32_t value;
    uint64_t bytes;                     /* that it covers */
    uint64_t loaded;                    /* c->loaded when it was sent */
    int64_t when;
} Ping;

struct Credit {
    GQueue pings;                       /* Ping *, unanswered, oldest first */
    uint32_t last;
    uint64_t in_flight, loaded;         /* bytes */
    double rate;                        /* bytes/s */
    int64_t shortest, recent;           /* ns; of this span, and the next */
    int64_t since;
};

Credit *credit_new(uint32_t last)
{
    Credit *c = g_new0(Credit, 1);

    g_queue_init(&c->pings);
    c->last = last;
    return c;
}

void credit_free(Credit *c)
{
    if (c) {
        g_queue_clear_full(&c->pings, g_free);
        g_free(c);
    }
}

uint32_t credit_ping(Credit *c, uint64_t bytes, int64_t now)
{
    Ping *p = g_new(Ping, 1);

    *p = (Ping) { ++c->last, bytes, c->loaded, now };
    g_queue_push_tail(&c->pings, p);
    c->in_flight += bytes;
    return p->value;
}

static void learn_time(Credit *c, int64_t took, int64_t now)
{
    if (!c->shortest || took < c->shortest) {
        c->shortest = took;
    }
    if (!c->recent || took < c->recent) {
        c->recent = took;
    }
    if (now - c->since > SHORTEST_FOR) {
        c->shortest = c->recent;
        c->recent = 0;
        c->since = now;
    }
}

bool credit_pong(Credit *c, uint32_t value, int64_t now)
{
    g_autofree Ping *p = g_queue_peek_head(&c->pings);
    int64_t took;

    if (!p || p->value != value) {
        g_steal_pointer(&p);
        return false;
    }
    g_queue_pop_head(&c->pings);
    c->in_flight -= p->bytes;
    c->loaded += p->bytes;
    took = MAX(now - p->when, 1);
    if (!c->since) {
        c->since = now;
    }
    learn_time(c, took, now);
    if (p->bytes) {
        double rate = (c->loaded - p->loaded) * 1e9 / took;

        c->rate = c->rate ? c->rate + (rate - c->rate) / 4 : rate;
    }
    return true;
}

unsigned credit_pages(const Credit *c, bool busy)
{
    return busy ? PAGES_BUSY : PAGES_CALM;
}

bool credit_may(const Credit *c, bool busy)
{
    double message = (double)credit_pages(c, busy) * PAGE_SIZE;
    double path = c->rate * c->shortest / 1e9;
    double queue = c->rate * (busy ? QUEUE_BUSY : QUEUE_CALM) / 1e9;

    return c->in_flight < path + CLAMP(queue, 2 * message, 8 * message);
}

bool credit_idle(const Credit *c)
{
    return !c->pings.length;
}

uint64_t credit_in_flight(const Credit *c)
{
    return c->in_flight;
}

double credit_rate(const Credit *c)
{
    return c->rate;
}

int64_t credit_shortest(const Credit *c)
{
    return c->shortest;
}
