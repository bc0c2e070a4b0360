/*
 * Instant restore: the source of a post-copy migration, made from an image
 *
 * One thread: QEMU loads pages with one thread, too, and that is the slower
 * one.  What must never happen, worst first: the end is told while a page with
 * data is missing (QEMU would fill it with zeros); a page is sent twice; a
 * request is not answered.  owed.h and order.h see to the last two.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "credit.h"
#include "error.h"
#include "instant.h"
#include "order.h"
#include "rp.h"
#include "speak.h"

#define MS 1000000LL
#define S (1000 * MS)

/* Beats at least so often */
#define BEAT_MS 50

/*
 * Nobody asked for pages for so long: the guest has what it needs for now.
 */
#define CALM_AFTER (100 * MS)

/*
 * Slow start: at first the guest asks for hundreds of pages, and each one that
 * it has not asked for would delay it.  Pages go unasked when it has not asked
 * for so long, and then in any case.
 */
#define EBB_AFTER (20 * MS)
#define SLOW_START (150 * MS)

/*
 * When it goes on for another server: QEMU has loaded the devices if it has
 * not asked for so long, which is longer than any round trip.
 */
#define LOADED_AFTER (2000 * MS)

/* What may be made up of a rate after a delay */
#define RATE_BURST (10 * MS)

/* Pages that were asked for, in one message */
#define REQUESTS_MAX 64

/* Zero pages that go with one that was asked for */
#define ZEROS_MAX 63

/* A host that is gone is noticed after so many seconds. */
#define PEER_TIMEOUT 20

#define READ_SIZE 65536

#define ALL_PONGS (1 << PING_HELLO | 1 << PING_DISCARDED | \
                   1 << PING_LOADED | 1 << PING_LISTENING)

const char *const instant_states[INSTANT__MAX] = {
    [INSTANT_CONNECTING] = "connecting",
    [INSTANT_LOADING] = "loading",
    [INSTANT_SERVING] = "serving",
    [INSTANT_ENDING] = "ending",
    [INSTANT_ENDED] = "ended",
    [INSTANT_LOST] = "lost",
};

struct Instant {
    MemImage *image;
    Target *target;
    uint64_t *page_sizes;
    bool resume;
    uint64_t rate;

    int stop_fd;
    bool tcp, connected;
    Out *out;
    Rp *rp;
    Owed *owed;
    Order *order;
    Credit *credit;
    int last_block;                     /* see speak_page() */
    uint64_t unpinged;                  /* bytes that no PING covers yet */
    unsigned pongs;                     /* of the first PINGs: 1 << value */
    unsigned bitmaps;                   /* that are still to come */
    uint8_t *have_bitmap;               /* by block */
    bool end_sent, shut;
    int64_t started, served, asked;     /* ns; 0: not yet */
    int64_t not_before;                 /* by the rate */
    uint64_t sent, there, requests;

    GMutex lock;                        /* status */
    InstantStatus status;
};

static int64_t now_ns(void)
{
    return g_get_monotonic_time() * 1000;
}

/* - what QEMU says */

static bool on_pong(void *opaque, uint32_t value, GError **errp)
{
    Instant *s = opaque;

    /* 4 may come before 3: the package is loaded by another thread */
    if (value <= PING_LISTENING && !(s->pongs >> value & 1)) {
        s->pongs |= 1 << value;
        return true;
    }
    return credit_pong(s->credit, value, now_ns()) ||
           ms_fail(errp, "QEMU answers a PING that it did not get (%u)",
                   value);
}

static bool on_request(void *opaque, unsigned block, uint64_t page,
                       GError **errp)
{
    Instant *s = opaque;

    s->asked = now_ns();
    s->requests++;
    order_request(s->order, block, page);
    return true;
}

static bool on_received(void *opaque, unsigned block, const uint8_t *bitmap,
                        GError **errp)
{
    Instant *s = opaque;
    uint64_t before = owed_left(s->owed);

    if (!s->bitmaps || s->have_bitmap[block]) {
        return ms_fail(errp, "QEMU sends a bitmap that was not asked for");
    }
    s->have_bitmap[block] = true;
    s->bitmaps--;
    owed_received(s->owed, block, bitmap);
    s->there += before - owed_left(s->owed);
    if (!s->bitmaps) {
        speak_command(s->out, MIG_CMD_POSTCOPY_RESUME, NULL, 0);
    }
    return true;
}

static bool on_resume_ack(void *opaque, GError **errp)
{
    Instant *s = opaque;

    if (!s->resume || s->bitmaps || s->pongs) {
        return ms_fail(errp, "QEMU goes on, and was not asked to");
    }
    s->pongs = ALL_PONGS;
    return true;
}

static bool on_shut(void *opaque, uint32_t value, GError **errp)
{
    Instant *s = opaque;

    if (value || !s->end_sent) {
        return ms_fail(errp, "QEMU says that the restore has failed; its "
                       "messages may tell why");
    }
    s->shut = true;
    return true;
}

static const RpOps rp_ops = {
    .pong = on_pong,
    .request = on_request,
    .received = on_received,
    .resume_ack = on_resume_ack,
    .shut = on_shut,
};

/* - what it is told */

static bool had_pong(const Instant *s, unsigned value)
{
    return s->pongs >> value & 1;
}

static bool busy(const Instant *s, int64_t now)
{
    return s->asked && now - s->asked < CALM_AFTER;
}

static void add_page(Instant *s, const Pick *p)
{
    uint64_t size = s->page_sizes[p->block];

    speak_page(s->out, s->image, p->block, p->page, size, &s->last_block);
    s->unpinged += size;
    s->sent += size;
}

/*
 * Ends a message.  One of few pages, which the guest waits for, goes without a
 * PING: QEMU's answer would take the time of two pages.
 */
static void end_message(Instant *s, bool ping, int64_t now)
{
    speak_section_end(s->out, s->image);
    if (ping) {
        speak_ping(s->out, credit_ping(s->credit, s->unpinged, now));
        s->unpinged = 0;
    }
}

static bool send_requested(Instant *s, int64_t now)
{
    Pick p;
    unsigned count = 0;

    if (!order_has_requests(s->order)) {
        return false;
    }
    speak_section(s->out, s->image, QEMU_VM_SECTION_PART);
    while (count++ < REQUESTS_MAX && order_next(s->order, ORDER_REQUEST, &p)) {
        unsigned zeros = 0;

        do {
            add_page(s, &p);
        } while (zeros++ < ZEROS_MAX && order_next_zero(s->order, &p));
    }
    end_message(s, s->unpinged >= credit_pages(s->credit, true) * PAGE_SIZE,
                now);
    return true;
}

/* May pages go that nobody asked for?  Only neighbours at first. */
static OrderFor unasked(const Instant *s, int64_t now)
{
    int64_t quiet = now - MAX(s->asked, s->served);

    return quiet >= EBB_AFTER || now - s->served >= SLOW_START ?
           ORDER_ALL : ORDER_FOLLOW;
}

static bool send_others(Instant *s, int64_t now)
{
    OrderFor what = unasked(s, now);
    bool guest_asks = busy(s, now);
    unsigned count = credit_pages(s->credit, guest_asks);
    uint64_t bytes = 0;
    Pick p;

    if (!credit_may(s->credit, guest_asks) || now < s->not_before ||
        !order_next(s->order, what, &p)) {
        return false;
    }
    speak_section(s->out, s->image, QEMU_VM_SECTION_PART);
    do {
        add_page(s, &p);
        bytes += s->page_sizes[p.block];
    } while (bytes < count * PAGE_SIZE && order_next(s->order, what, &p));
    end_message(s, true, now);
    if (s->rate) {
        s->not_before = MAX(s->not_before, now - RATE_BURST) +
                        bytes * S / s->rate;
    }
    return true;
}

/*
 * The end: nothing is owed, and QEMU has answered what was sent behind the
 * last page; so it has loaded all.  Zero pages that nobody has asked for stay
 * missing: QEMU ends its userfaultfd now, and the kernel makes them.  But not
 * before it has loaded the devices: it waits for that, and a device that needs
 * a zero page would wait for the page.  That PONG may have gone to a server
 * before this one.  But while QEMU loads them it asks again and again.
 */
static void send_end(Instant *s, int64_t now)
{
    if (owed_left(s->owed) || order_has_requests(s->order) ||
        !had_pong(s, PING_LOADED) ||
        (s->resume && now - MAX(s->asked, s->served) < LOADED_AFTER)) {
        return;
    }
    if (s->unpinged) {
        speak_ping(s->out, credit_ping(s->credit, s->unpinged, now));
        s->unpinged = 0;
    } else if (credit_idle(s->credit)) {
        speak_section(s->out, s->image, QEMU_VM_SECTION_END);
        speak_section_end(s->out, s->image);
        out_u8(s->out, QEMU_VM_EOF);
        s->end_sent = true;
    }
}

static void send_next(Instant *s, int64_t now)
{
    if (!had_pong(s, PING_LISTENING) || s->end_sent) {
        return;
    }
    if (!s->served) {
        s->served = now;
    }
    if (!send_requested(s, now) && !send_others(s, now)) {
        send_end(s, now);
    }
}

/* - the connection */

static void tell(Instant *s)
{
    InstantStatus *t = &s->status;
    int64_t us = (now_ns() - s->started) / 1000;

    g_mutex_lock(&s->lock);
    t->beats++;
    t->sent = s->sent;
    t->there = s->there;
    t->requests = s->requests;
    t->owed = owed_left(s->owed);
    t->in_flight = credit_in_flight(s->credit) + s->unpinged;
    t->shortest_us = credit_shortest(s->credit) / 1000;
    t->state = s->shut ? INSTANT_ENDED :
               s->end_sent ? INSTANT_ENDING :
               s->pongs == ALL_PONGS ? INSTANT_SERVING :
               s->connected ? INSTANT_LOADING : INSTANT_CONNECTING;
    if (!t->loaded_us && had_pong(s, PING_LOADED)) {
        t->loaded_us = us;
    }
    if (!t->ended_us && s->shut) {
        t->ended_us = us;
    }
    g_mutex_unlock(&s->lock);
}

/* While it is being connected; false: it was told to end. */
static bool waits(void *opaque)
{
    Instant *s = opaque;
    struct pollfd p = { .fd = s->stop_fd, .events = POLLIN };

    tell(s);
    return poll(&p, 1, 0) <= 0;
}

static bool start(Instant *s, GError **errp)
{
    int on = 1, idle = PEER_TIMEOUT / 2, probe = PEER_TIMEOUT / 4;
    unsigned timeout = PEER_TIMEOUT * 1000;
    int fd;

    if (!target_connect(s->target, waits, s, errp)) {
        return false;
    }
    fd = target_fd(s->target);
    if (s->tcp) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
        setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
        setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &probe, sizeof(probe));
        setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout,
                   sizeof(timeout));
    }
    s->connected = true;
    if (s->resume) {
        s->bitmaps = layout_num_blocks(mem_image_layout(s->image));
        speak_bitmaps(s->out, s->image);
    } else {
        speak_postcopy(s->out, s->image, s->page_sizes);
    }
    return true;
}

static bool receive(Instant *s, GError **errp)
{
    static const int on = 1;
    uint8_t buffer[READ_SIZE];

    /* Until there is nothing: poll() does not see what TLS has read ahead. */
    while (!s->shut) {
        gssize n = target_read(s->target, buffer, sizeof(buffer), errp);

        if (n <= 0) {
            return n == 0;
        }
        /*
         * QEMU holds a small message back until the one before is
         * acknowledged, and the kernel would take 40 ms for that.
         */
        if (s->tcp) {
            setsockopt(target_fd(s->target), IPPROTO_TCP, TCP_QUICKACK, &on,
                       sizeof(on));
        }
        if (!rp_feed(s->rp, buffer, n, errp)) {
            return false;
        }
    }
    return true;
}

/* ms, until something has to be sent without QEMU having said anything */
static int patience(const Instant *s)
{
    return had_pong(s, PING_LISTENING) && !s->end_sent && owed_left(s->owed) &&
           (s->not_before > now_ns() || !credit_in_flight(s->credit)) ?
           1 : BEAT_MS;
}

static bool turn(Instant *s, GError **errp)
{
    struct pollfd fds[2] = {
        { .fd = target_fd(s->target), .events = POLLIN },
        { .fd = s->stop_fd, .events = POLLIN },
    };
    int wait_ms = patience(s);

    if (!out_pending(s->out)) {
        send_next(s, now_ns());
        wait_ms = out_pending(s->out) ? 0 : wait_ms;
    }
    if (out_pending(s->out) && !out_write(s->out, s->target, errp)) {
        return false;
    }
    if (out_pending(s->out)) {
        fds[0].events |= POLLOUT;
        wait_ms = BEAT_MS;
    }
    tell(s);
    if (poll(fds, G_N_ELEMENTS(fds), wait_ms) < 0 && errno != EINTR) {
        return ms_fail(errp, "poll: %s", g_strerror(errno));
    }
    if (fds[1].revents) {
        return ms_fail(errp, "ended as told to");
    }
    return receive(s, errp);
}

bool instant_run(Instant *s, GError **errp)
{
    bool ok;

    s->started = now_ns();
    ok = start(s, errp);
    while (ok && !s->shut) {
        ok = turn(s, errp);
    }
    if (ok) {
        target_end(s->target);
    }
    tell(s);
    if (!ok) {
        g_mutex_lock(&s->lock);
        s->status.state = INSTANT_LOST;
        g_mutex_unlock(&s->lock);
    }
    return ok;
}

/* - its life */

Instant *instant_new(MemImage *image, const InstantWish *wish, GError **errp)
{
    const Layout *l = mem_image_layout(image);
    unsigned blocks = layout_num_blocks(l);
    g_autoptr(Instant) s = g_new0(Instant, 1);

    s->stop_fd = s->last_block = -1;
    g_mutex_init(&s->lock);
    s->image = mem_image_ref(image);
    s->target = target_new(&wish->target);
    s->tcp = g_str_has_prefix(wish->target.to, "tcp:");
    s->page_sizes = g_memdup2(wish->page_sizes,
                              blocks * sizeof(*s->page_sizes));
    s->resume = wish->resume;
    s->rate = wish->rate;
    s->have_bitmap = g_new0(uint8_t, blocks);
    s->out = out_new();
    s->rp = rp_new(&rp_ops, s, l, s->page_sizes);
    s->credit = credit_new(PING_LISTENING);
    s->owed = owed_new(image, s->page_sizes, errp);
    if (!s->owed) {
        return NULL;
    }
    s->order = order_new(s->owed);
    s->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (s->stop_fd < 0) {
        ms_fail(errp, "eventfd: %s", g_strerror(errno));
        return NULL;
    }
    return g_steal_pointer(&s);
}

void instant_free(Instant *s)
{
    if (!s) {
        return;
    }
    target_free(s->target);
    if (s->stop_fd >= 0) {
        close(s->stop_fd);
    }
    order_free(s->order);
    owed_free(s->owed);
    credit_free(s->credit);
    rp_free(s->rp);
    out_free(s->out);
    g_free(s->have_bitmap);
    g_free(s->page_sizes);
    mem_image_unref(s->image);
    g_mutex_clear(&s->lock);
    g_free(s);
}

void instant_status(Instant *s, InstantStatus *status)
{
    g_mutex_lock(&s->lock);
    *status = s->status;
    g_mutex_unlock(&s->lock);
}

void instant_stop(Instant *s)
{
    uint64_t one = 1;

    if (write(s->stop_fd, &one, sizeof(one)) < 0) {
        /* It was told before */
    }
}
