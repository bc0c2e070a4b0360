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
 * time, but from two messages, with which QEMU is never idle, to eight; and
 * always this part of what the path holds, which is what lets a long path
 * fill where answers come late for other reasons than a queue.
 */
#define QUEUE_PART 0.5
#define QUEUE_BUSY (MS / 2)
#define QUEUE_CALM (20 * MS)

/*
 * The shortest time and the highest rate are forgotten after this; paths
 * change.  The mean would not do: on a busy host most answers are late, so
 * what was loaded meanwhile is less than the path holds, and the less is sent
 * for it, the less is loaded.
 */
#define SHORTEST_FOR (5000 * MS)
#define HIGHEST_FOR (1000 * MS)

typedef struct Ping {
    uint32_t value;
    uint64_t bytes;                     /* that it covers */
    uint64_t loaded;                    /* c->loaded when it was sent */
    int64_t when;
} Ping;

/* The most that was seen; 0: nothing was */
typedef struct Best {
    double best, recent;                /* of this span, and the next */
    int64_t since;
} Best;

struct Credit {
    GQueue pings;                       /* Ping *, unanswered, oldest first */
    uint32_t last;
    uint64_t in_flight, loaded;         /* bytes */
    Best shortest;                      /* time, -ns */
    Best highest;                       /* rate, bytes/s */
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

static void learn(Best *b, double value, int64_t span, int64_t now)
{
    if (!b->best || now - b->since > span) {
        b->best = b->recent;
        b->recent = 0;
        b->since = now;
    }
    b->recent = b->recent ? MAX(b->recent, value) : value;
    b->best = b->best ? MAX(b->best, value) : value;
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
    learn(&c->shortest, -took, SHORTEST_FOR, now);
    if (p->bytes) {
        learn(&c->highest, (c->loaded - p->loaded) * 1e9 / took, HIGHEST_FOR,
              now);
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
    double path = c->highest.best * -c->shortest.best / 1e9;
    double queue = c->highest.best * (busy ? QUEUE_BUSY : QUEUE_CALM) / 1e9;

    return c->in_flight < path + MAX(path * QUEUE_PART,
                                     CLAMP(queue, 2 * message, 8 * message));
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
    return c->highest.best;
}

int64_t credit_shortest(const Credit *c)
{
    return -c->shortest.best;
}
