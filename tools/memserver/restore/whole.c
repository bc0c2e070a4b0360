/*
 * Whole restore: the source of a migration with multifd, made from an image
 *
 * A thread for each channel.  Channel i sends each n-th range of pages; no
 * page is sent twice, so one SYNC at the beginning and one at the end do.
 *
 * Of a checkpoint in parts each server sends what it has.  A page that a part
 * has not is zero, or another part's.  So part 0 sends zeros for small blocks
 * between two SYNCs more, before all that has data.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "error.h"
#include "rp.h"
#include "speak.h"
#include "whole.h"

#define PACKET_HEAD 320                 /* before the offsets */
#define PACKET_SIZE (PACKET_HEAD + MULTIFD_PACKET_PAGES * 8)
#define INIT_SIZE 64
#define UUID_SIZE 16

/*
 * Firmware and tables: QEMU fills them before it loads, perhaps with another
 * version than that of the checkpoint.  So their zero pages are sent, too.
 */
#define SMALL_BLOCK (4ULL << 20)

#define WAIT_MS 100

typedef struct Channel {
    Whole *w;
    unsigned index;                     /* among those of this part */
    unsigned id;                        /* QEMU's */
    Target *target;
    Out *out;
    GThread *thread;
    GError *error;
} Channel;

struct Whole {
    MemImage *image;
    unsigned part, parts;
    unsigned num;                       /* channels of this part */
    uint8_t uuid[UUID_SIZE];
    Target *target;                     /* of the main stream */
    Out *out;
    Channel *channels;
    gint stop, connected;
    Channel *failed;                    /* the first one, which stops all */
    uint64_t sent;
    bool shut;
};

static const uint8_t zero_page[PAGE_SIZE];

static bool stopped(Whole *w)
{
    return g_atomic_int_get(&w->stop);
}

static bool goes_on(void *opaque)
{
    return !stopped(opaque);
}

/* All of it. */
static bool flush(Whole *w, Out *out, Target *target, GError **errp)
{
    for (;;) {
        struct pollfd p = { .fd = target_fd(target), .events = POLLOUT };

        if (!out_write(out, target, errp)) {
            return false;
        }
        if (!out_pending(out)) {
            return true;
        }
        if (stopped(w)) {
            return ms_fail(errp, "ended as told to");
        }
        poll(&p, 1, WAIT_MS);
    }
}

/* - a channel */

typedef struct Packet {
    uint64_t offsets[MULTIFD_PACKET_PAGES];
    const void *pages[MULTIFD_PACKET_PAGES];
    unsigned count;
} Packet;

static void put_packet(Channel *c, unsigned flags, const char *block,
                       const Packet *p)
{
    char name[MULTIFD_BLOCK_NAME] = "";

    out_be32(c->out, MULTIFD_MAGIC);
    out_be32(c->out, MULTIFD_VERSION);
    out_be32(c->out, flags);
    out_be32(c->out, MULTIFD_PACKET_PAGES);
    out_be32(c->out, p->count);
    out_be32(c->out, p->count * PAGE_SIZE);
    out_be64(c->out, 0);                /* number: QEMU only traces it */
    out_copy(c->out, zero_page, 4 + 4 + 3 * 8);
    g_strlcpy(name, block, sizeof(name));
    out_copy(c->out, name, sizeof(name));
    for (unsigned i = 0; i < MULTIFD_PACKET_PAGES; i++) {
        out_be64(c->out, i < p->count ? p->offsets[i] : 0);
    }
    for (unsigned i = 0; i < p->count; i++) {
        out_refer(c->out, p->pages[i], PAGE_SIZE);
    }
}

static bool send_packet(Channel *c, unsigned flags, const char *block,
                        const Packet *p)
{
    put_packet(c, flags, block, p);
    if (!flush(c->w, c->out, c->target, &c->error)) {
        return false;
    }
    __atomic_fetch_add(&c->w->sent, p->count * PAGE_SIZE, __ATOMIC_RELAXED);
    return true;
}

/* What is sent in one go: pages with data, zeros of small blocks. */
typedef struct Which {
    bool data, zeros;
} Which;

static bool send_range(Channel *c, unsigned block, uint64_t from, Which which)
{
    const MemImage *image = c->w->image;
    const LayoutBlock *b = layout_block(mem_image_layout(image), block);
    uint64_t end = MIN(from + MULTIFD_PACKET_PAGES, b->length / PAGE_SIZE);
    bool zeros = which.zeros && b->length <= SMALL_BLOCK;
    Packet p = { .count = 0 };

    for (uint64_t i = from; i < end; i++) {
        const void *page = mem_image_page(image, block, i);

        if (page ? which.data : zeros) {
            p.offsets[p.count] = i * PAGE_SIZE;
            p.pages[p.count++] = page ?: zero_page;
        }
    }
    return !p.count || send_packet(c, 0, b->name, &p);
}

static bool send_pages(Channel *c, Which which)
{
    const Layout *l = mem_image_layout(c->w->image);

    for (unsigned b = 0; b < layout_num_blocks(l); b++) {
        for (uint64_t i = c->index * MULTIFD_PACKET_PAGES;
             i < layout_pages(l, b);
             i += (uint64_t)c->w->num * MULTIFD_PACKET_PAGES) {
            if (!send_range(c, b, i, which)) {
                return false;
            }
        }
    }
    return true;
}

static bool send_sync(Channel *c)
{
    static const Packet none;

    return send_packet(c, MULTIFD_FLAG_SYNC, "", &none);
}

static bool send_all(Channel *c)
{
    const Whole *w = c->w;

    if (w->parts == 1) {
        return send_sync(c) && send_pages(c, (Which) { true, true }) &&
               send_sync(c);
    }
    return send_sync(c) &&
           (w->part || send_pages(c, (Which) { .zeros = true })) &&
           send_sync(c) && send_pages(c, (Which) { .data = true }) &&
           send_sync(c);
}

static gpointer run_channel(gpointer opaque)
{
    Channel *c = opaque;

    if (!send_all(c) &&
        g_atomic_int_compare_and_exchange(&c->w->stop, 0, 1)) {
        c->w->failed = c;
    }
    return NULL;
}

static bool open_channel(Channel *c, GError **errp)
{
    int on = 1;

    if (!target_connect(c->target, goes_on, c->w, errp)) {
        return false;
    }
    setsockopt(target_fd(c->target), IPPROTO_TCP, TCP_NODELAY, &on,
               sizeof(on));
    out_be32(c->out, MULTIFD_MAGIC);
    out_be32(c->out, MULTIFD_VERSION);
    out_copy(c->out, c->w->uuid, UUID_SIZE);
    out_u8(c->out, c->id);
    out_copy(c->out, zero_page, INIT_SIZE - 4 - 4 - UUID_SIZE - 1);
    return flush(c->w, c->out, c->target, errp);
}

/* - what QEMU says */

static bool on_pong(void *opaque, uint32_t value, GError **errp)
{
    return ms_fail(errp, "QEMU answers a PING that it did not get");
}

static bool on_request(void *opaque, unsigned block, uint64_t page,
                       GError **errp)
{
    return ms_fail(errp, "QEMU asks for a page, and this is no post-copy");
}

static bool on_received(void *opaque, unsigned block, const uint8_t *bitmap,
                        GError **errp)
{
    return ms_fail(errp, "QEMU sends a bitmap that was not asked for");
}

static bool on_resume_ack(void *opaque, GError **errp)
{
    return ms_fail(errp, "QEMU goes on, and was not asked to");
}

static bool on_shut(void *opaque, uint32_t value, GError **errp)
{
    Whole *w = opaque;

    w->shut = true;
    return !value || ms_fail(errp, "QEMU says that the restore has failed; "
                             "its messages may tell why");
}

static const RpOps rp_ops = {
    .pong = on_pong,
    .request = on_request,
    .received = on_received,
    .resume_ack = on_resume_ack,
    .shut = on_shut,
};

static bool await_shut(Whole *w, GError **errp)
{
    g_autoptr(Rp) rp = rp_new(&rp_ops, w, mem_image_layout(w->image), NULL);
    struct pollfd p = { .fd = target_fd(w->target), .events = POLLIN };
    uint8_t buffer[512];

    while (!w->shut) {
        gssize n = target_read(w->target, buffer, sizeof(buffer), errp);

        if (n < 0) {
            g_prefix_error(errp, "before it had all, ");
            return false;
        }
        if (n && !rp_feed(rp, buffer, n, errp)) {
            return false;
        }
        if (stopped(w)) {
            return ms_fail(errp, "ended as told to");
        }
        if (!n) {
            poll(&p, 1, WAIT_MS);
        }
    }
    return true;
}

/* - all of it */

static bool open_channels(Whole *w, GError **errp)
{
    for (unsigned i = 0; i < w->num; i++) {
        if (!open_channel(&w->channels[i], errp)) {
            return false;
        }
    }
    return true;
}

static void speak_flush(Whole *w, uint8_t section)
{
    speak_section(w->out, w->image, section);
    if (section == QEMU_VM_SECTION_START) {
        speak_blocks(w->out, w->image, NULL);
    }
    out_be64(w->out, RAM_SAVE_FLAG_MULTIFD_FLUSH);
    speak_section_end(w->out, w->image);
}

static bool begin(Whole *w, GError **errp)
{
    if (w->part) {
        g_atomic_int_set(&w->connected, 1);
        return open_channels(w, errp);
    }
    if (!target_connect(w->target, goes_on, w, errp)) {
        return false;
    }
    /* The magic number tells QEMU which connection this is. */
    speak_header(w->out, w->image);
    speak_command(w->out, MIG_CMD_OPEN_RETURN_PATH, NULL, 0);
    if (!flush(w, w->out, w->target, errp)) {
        return false;
    }
    g_atomic_int_set(&w->connected, 1);
    if (!open_channels(w, errp)) {
        return false;
    }
    speak_flush(w, QEMU_VM_SECTION_START);
    if (w->parts > 1) {
        speak_flush(w, QEMU_VM_SECTION_PART);
    }
    return flush(w, w->out, w->target, errp);
}

static bool send_ram(Whole *w, GError **errp)
{
    for (unsigned i = 0; i < w->num; i++) {
        w->channels[i].thread = g_thread_new("channel", run_channel,
                                             &w->channels[i]);
    }
    for (unsigned i = 0; i < w->num; i++) {
        g_thread_join(w->channels[i].thread);
    }
    if (w->failed) {
        g_propagate_prefixed_error(errp, g_steal_pointer(&w->failed->error),
                                   "channel %u: ", w->failed->id);
        return false;
    }
    return !stopped(w) || ms_fail(errp, "ended as told to");
}

static bool send_rest(Whole *w, GError **errp)
{
    size_t size;
    const void *state = mem_image_state(w->image, &size);

    speak_flush(w, QEMU_VM_SECTION_PART);
    speak_section(w->out, w->image, QEMU_VM_SECTION_END);
    speak_section_end(w->out, w->image);
    out_refer(w->out, state, size);
    return flush(w, w->out, w->target, errp);
}

/* QEMU closes its channels when it has all, or has failed. */
static bool await_closed(Channel *c, GError **errp)
{
    struct pollfd p = { .fd = target_fd(c->target), .events = POLLIN };
    int closed;

    while (!(closed = target_closed(c->target))) {
        poll(&p, 1, WAIT_MS);
        if (stopped(c->w)) {
            return ms_fail(errp, "ended as told to");
        }
    }
    return closed > 0 ||
           ms_fail(errp, "channel %u: QEMU has not taken all of it; its "
                   "messages may tell why", c->id);
}

static bool await_all_closed(Whole *w, GError **errp)
{
    for (unsigned i = 0; i < w->num; i++) {
        if (!await_closed(&w->channels[i], errp)) {
            return false;
        }
    }
    return true;
}

bool whole_run(Whole *w, GError **errp)
{
    if (!begin(w, errp) || !send_ram(w, errp)) {
        return false;
    }
    if (w->part) {
        return await_all_closed(w, errp);
    }
    if (!send_rest(w, errp) || !await_shut(w, errp)) {
        return false;
    }
    /* QEMU takes a channel with TLS that ends without a word for cut off. */
    for (unsigned i = 0; i < w->num; i++) {
        target_end(w->channels[i].target);
    }
    target_end(w->target);
    return true;
}

static void parse_uuid(uint8_t *to, const char *from)
{
    for (unsigned i = 0; i < UUID_SIZE; i++, from += 2) {
        from += *from == '-';
        to[i] = g_ascii_xdigit_value(from[0]) << 4 |
                g_ascii_xdigit_value(from[1]);
    }
}

Whole *whole_new(MemImage *image, const WholeWish *wish, GError **errp)
{
    unsigned parts = MAX(wish->parts, 1);
    Whole *w;

    if (!wish->channels || wish->channels > WHOLE_MAX_CHANNELS) {
        ms_fail(errp, "there can be 1 to %u channels, not %u",
                WHOLE_MAX_CHANNELS, wish->channels);
        return NULL;
    }
    if (wish->channels < parts) {
        ms_fail(errp, "the checkpoint is in %u parts: so many channels are "
                "needed, not %u", parts, wish->channels);
        return NULL;
    }
    if (wish->uuid && !g_uuid_string_is_valid(wish->uuid)) {
        ms_fail(errp, "'%s' is no UUID", wish->uuid);
        return NULL;
    }
    w = g_new0(Whole, 1);
    w->image = mem_image_ref(image);
    w->part = wish->part;
    w->parts = parts;
    w->num = (wish->channels - w->part + parts - 1) / parts;
    if (wish->uuid) {
        parse_uuid(w->uuid, wish->uuid);
    }
    w->target = target_new(&wish->target);
    w->out = out_new();
    w->channels = g_new0(Channel, w->num);
    for (unsigned i = 0; i < w->num; i++) {
        w->channels[i] = (Channel) {
            .w = w, .index = i, .id = w->part + i * parts,
            .target = target_new(&wish->target),
            .out = out_new(),
        };
    }
    return w;
}

void whole_free(Whole *w)
{
    if (!w) {
        return;
    }
    for (unsigned i = 0; i < w->num; i++) {
        Channel *c = &w->channels[i];

        target_free(c->target);
        out_free(c->out);
        g_clear_error(&c->error);
    }
    g_free(w->channels);
    target_free(w->target);
    out_free(w->out);
    mem_image_unref(w->image);
    g_free(w);
}

uint64_t whole_sent(Whole *w)
{
    return __atomic_load_n(&w->sent, __ATOMIC_RELAXED);
}

bool whole_connected(Whole *w)
{
    return g_atomic_int_get(&w->connected);
}

void whole_stop(Whole *w)
{
    g_atomic_int_set(&w->stop, 1);
}
