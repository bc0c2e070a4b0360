/*
 * Commands that restore a waiting QEMU from a checkpoint
 *
 * Each restore has a thread and a number.  It pins its checkpoint until its
 * end, and can be looked at as long as the server runs, or until there are
 * many newer ones.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <string.h>

#include "address.h"
#include "control.h"
#include "error.h"
#include "image-store.h"
#include "parity.h"
#include "restore/instant.h"
#include "restore/whole.h"

/* Of those that have ended; a client asks soon, or never. */
#define REMEMBERED 64

/* At once; each has a thread and up to 1/16384 of the RAM in maps. */
#define AT_ONCE 64

typedef struct Restore {
    gint refs;
    uint64_t id;
    char *owner, *vm, *name, *ticket;
    GMutex lock;                        /* all below */
    Instant *instant;                   /* one of these two; none at the end */
    Whole *whole;
    InstantStatus last;
    bool ended;
    char *error;
} Restore;

static GMutex restores_lock;
static GQueue restores = G_QUEUE_INIT;  /* Restore *, the newest first */
static uint64_t last_id;

static void restore_unref(Restore *r)
{
    if (!g_atomic_int_dec_and_test(&r->refs)) {
        return;
    }
    instant_free(r->instant);
    whole_free(r->whole);
    g_mutex_clear(&r->lock);
    g_free(r->owner);
    g_free(r->vm);
    g_free(r->name);
    g_free(r->ticket);
    g_free(r->error);
    g_free(r);
}

/* With the lock held. */
static void look(Restore *r)
{
    if (r->instant) {
        instant_status(r->instant, &r->last);
    } else if (r->whole) {
        r->last.state = whole_connected(r->whole) ? INSTANT_SERVING
                                                  : INSTANT_CONNECTING;
        r->last.sent = whole_sent(r->whole);
    }
}

/* Only this thread makes an end of r->instant and r->whole. */
static gpointer run(gpointer opaque)
{
    Restore *r = opaque;
    g_autoptr(GError) error = NULL;

    if (r->instant) {
        instant_run(r->instant, &error);
    } else {
        whole_run(r->whole, &error);
    }
    g_mutex_lock(&r->lock);
    look(r);
    r->ended = true;
    r->error = error ? g_strdup(error->message) : NULL;
    r->last.state = error ? INSTANT_LOST : INSTANT_ENDED;
    /* Closes the connection, and lets the checkpoint go */
    g_clear_pointer(&r->instant, instant_free);
    g_clear_pointer(&r->whole, whole_free);
    g_mutex_unlock(&r->lock);
    restore_unref(r);
    return NULL;
}

static bool has_ended(Restore *r)
{
    bool ended;

    g_mutex_lock(&r->lock);
    ended = r->ended;
    g_mutex_unlock(&r->lock);
    return ended;
}

/* Makes it known, and forgets the oldest of those that have ended. */
static bool add(Restore *r, GError **errp)
{
    unsigned running = 0, old = 0;

    g_mutex_lock(&restores_lock);
    for (GList *l = restores.head, *next; l; l = next) {
        next = l->next;
        if (!has_ended(l->data)) {
            running++;
        } else if (++old > REMEMBERED) {
            restore_unref(l->data);
            g_queue_delete_link(&restores, l);
        }
    }
    if (running < AT_ONCE) {
        r->id = ++last_id;
        g_atomic_int_inc(&r->refs);
        g_queue_push_head(&restores, r);
    }
    g_mutex_unlock(&restores_lock);
    return running < AT_ONCE ||
           ms_fail(errp, "there are %u restores under way: wait for one",
                   running);
}

static Restore *find(const ControlCall *c, GError **errp)
{
    uint64_t id = 0;
    Restore *found = NULL;

    if (!control_uint(c, "restore", &id, errp)) {
        return NULL;
    }
    g_mutex_lock(&restores_lock);
    for (GList *l = restores.head; l; l = l->next) {
        Restore *r = l->data;

        if (r->id == id && !strcmp(r->owner, c->who)) {
            g_atomic_int_inc(&r->refs);
            found = r;
        }
    }
    g_mutex_unlock(&restores_lock);
    if (!found) {
        ms_fail(errp, "there is no restore %" PRIu64, id);
    }
    return found;
}

static struct json_object *view(Restore *r)
{
    struct json_object *o = json_object_new_object();

    json_set_uint(o, "restore", r->id);
    json_set_string(o, "vm", r->vm);
    json_set_string(o, "name", r->name);
    json_set_string(o, "ticket", r->ticket);
    g_mutex_lock(&r->lock);
    look(r);
    json_set_string(o, "state", instant_states[r->last.state]);
    json_set_uint(o, "beats", r->last.beats);
    json_set_uint(o, "owed", r->last.owed);
    json_set_uint(o, "sent", r->last.sent);
    json_set_uint(o, "there", r->last.there);
    json_set_uint(o, "requests", r->last.requests);
    json_set_uint(o, "loaded-us", r->last.loaded_us);
    if (r->error) {
        json_set_string(o, "error", r->error);
    }
    g_mutex_unlock(&r->lock);
    return o;
}

/* Page sizes of QEMU's RAM blocks, where they are not 4096. */
static bool page_sizes(const ControlCall *c, const Layout *l, uint64_t *sizes,
                       GError **errp)
{
    struct json_object *o;

    for (unsigned i = 0; i < layout_num_blocks(l); i++) {
        sizes[i] = PAGE_SIZE;
    }
    if (!json_object_object_get_ex(c->arguments, "page-sizes", &o)) {
        return true;
    }
    if (!json_object_is_type(o, json_type_object)) {
        return ms_fail(errp, "argument 'page-sizes' must be an object");
    }
    json_object_object_foreach(o, block, size) {
        int i = layout_find(l, block);

        if (i < 0 || !json_object_is_type(size, json_type_int)) {
            return ms_fail(errp, "argument 'page-sizes': there is no block "
                           "'%s', or its size is no number", block);
        }
        sizes[i] = json_object_get_uint64(size);
    }
    return true;
}

/* A part is restored with the others of its set, or not at all. */
static bool check_part(const ControlCall *c, const Checkpoint *k, bool whole,
                       GError **errp)
{
    const char *set = NULL;

    if (!control_string(c, "set", &set, errp)) {
        return false;
    }
    if (k->parity) {
        return ms_fail(errp, "'%s' is parity of checkpoint '%s': nothing is "
                       "restored from it alone", k->name,
                       k->parity->part_name);
    }
    if (k->parts == 1) {
        return !set || ms_fail(errp, "checkpoint '%s' is whole here, not a "
                               "part of set %s", k->name, set);
    }
    if (!set || strcmp(set, k->set)) {
        return ms_fail(errp, "checkpoint '%s' is part %u of %u of set %s: say "
                       "set=%s to this server and to the others that have the "
                       "set", k->name, k->part, k->parts, k->set, k->set);
    }
    return whole || ms_fail(errp, "a checkpoint in parts is restored in whole "
                            "only: say whole=true");
}

/*
 * With TLS or without, as the client says.  A server that has credentials
 * shows no guest's RAM to the network because somebody forgot to say "tls".
 */
static bool find_target(const ControlCall *c, const char *to, TargetWish *t,
                        GError **errp)
{
    const Config *config = c->server->config;
    bool tls = false, plain = config->allow_plain;

    t->to = to;
    if (!control_may_connect(c, "to", to, errp) ||
        !control_bool(c, "tls", &tls, errp) ||
        !control_bool(c, "allow-plain", &plain, errp) ||
        !control_string(c, "tls-hostname", &t->tls_host, errp)) {
        return false;
    }
    if (tls && !config->tls_client) {
        return ms_fail(errp, "the server has no TLS credentials of a client: "
                       "%s", config->tls_client_problem);
    }
    if (!tls && !plain && (config->tls || config->tls_client) &&
        !address_is_local(to)) {
        return ms_fail(errp, "%s: this server has TLS credentials and does "
                       "not send to another host without them: say tls=true, "
                       "or allow-plain=true if you trust the network", to);
    }
    t->tls = tls ? config->tls_client : NULL;
    return true;
}

static bool make(const ControlCall *c, Restore *r, const Checkpoint *k,
                 MemImage *image, const TargetWish *target, GError **errp)
{
    const Layout *l = mem_image_layout(image);
    g_autofree uint64_t *sizes = g_new(uint64_t, layout_num_blocks(l));
    InstantWish at = { .target = *target, .page_sizes = sizes };
    const char *uuid = NULL;
    uint64_t channels = 2;
    bool in_whole = false;

    if (!page_sizes(c, l, sizes, errp) ||
        !control_bool(c, "whole", &in_whole, errp) ||
        !control_bool(c, "resume", &at.resume, errp) ||
        !control_uint(c, "rate", &at.rate, errp) ||
        !control_uint(c, "channels", &channels, errp) ||
        !control_string(c, "uuid", &uuid, errp) ||
        !check_part(c, k, in_whole, errp)) {
        return false;
    }
    if (in_whole) {
        WholeWish in = { .target = *target, .uuid = uuid,
                         .channels = MIN(channels, UINT32_MAX),
                         .part = k->part, .parts = k->parts };

        r->whole = whole_new(image, &in, errp);
    } else {
        r->instant = instant_new(image, &at, errp);
    }
    return r->whole || r->instant;
}

static struct json_object *restore(const ControlCall *c, GError **errp)
{
    const char *vm = NULL, *name = NULL, *to = NULL, *expect = NULL;
    g_autoptr(Checkpoint) checkpoint = NULL;
    g_autoptr(MemImage) image = NULL;
    struct json_object *o = NULL;
    TargetWish target = { 0 };
    Restore *r;

    if (!control_name(c, "vm", &vm, errp) ||
        !control_name(c, "name", &name, errp) ||
        !control_string(c, "to", &to, errp) ||
        !control_string(c, "expect", &expect, errp) ||
        !find_target(c, to, &target, errp)) {
        return NULL;
    }
    checkpoint = store_get(c->server->store, c->who, vm, name, errp);
    if (!checkpoint) {
        return NULL;
    }
    image = mem_image_from_store(c->server->store, checkpoint, errp);
    if (!image) {
        return NULL;
    }
    r = g_new0(Restore, 1);
    r->refs = 1;
    g_mutex_init(&r->lock);
    r->owner = g_strdup(c->who);
    r->vm = g_strdup(vm);
    r->name = g_strdup(mem_image_id(image)->generation);
    r->ticket = mem_image_ticket(image);
    if (expect && strcmp(expect, r->ticket)) {
        ms_fail(errp, "this is another checkpoint (%s) than the VM is being "
                "restored from (%s)", r->ticket, expect);
    } else if (make(c, r, checkpoint, image, &target, errp) && add(r, errp)) {
        o = view(r);
        g_atomic_int_inc(&r->refs);
        g_thread_unref(g_thread_new("restore", run, r));
    }
    restore_unref(r);
    return o;
}

static struct json_object *status(const ControlCall *c, GError **errp)
{
    Restore *r = find(c, errp);
    struct json_object *o = r ? view(r) : NULL;

    if (r) {
        restore_unref(r);
    }
    return o;
}

static struct json_object *stop(const ControlCall *c, GError **errp)
{
    Restore *r = find(c, errp);
    struct json_object *o;

    if (!r) {
        return NULL;
    }
    g_mutex_lock(&r->lock);
    if (r->instant) {
        instant_stop(r->instant);
    } else if (r->whole) {
        whole_stop(r->whole);
    }
    g_mutex_unlock(&r->lock);
    o = view(r);
    restore_unref(r);
    return o;
}

const ControlCommand control_restore_commands[] = {
    { "restore", "vm! name to! tls tls-hostname allow-plain whole channels "
      "uuid resume rate page-sizes expect set", restore },
    { "restore-status", "restore!", status },
    { "restore-stop", "restore!", stop },
    { NULL },
};
