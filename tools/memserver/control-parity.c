/*
 * Commands about parity of a set
 *
 * A client tells the servers of parity where the parts are; they ask each
 * other for pieces.  "protect" and "rebuild" answer when it is done.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <string.h>

#include "control.h"
#include "error.h"
#include "image-store.h"
#include "manifest.h"
#include "parity.h"

static Checkpoint *find(const ControlCall *c, GError **errp)
{
    const char *vm = NULL, *name = NULL, *set = NULL;
    g_autoptr(Checkpoint) k = NULL;

    if (!control_name(c, "vm", &vm, errp) ||
        !control_name(c, "name", &name, errp) ||
        !control_string(c, "set", &set, errp)) {
        return NULL;
    }
    k = store_get(c->server->store, c->who, vm, name, errp);
    if (k && g_strcmp0(k->set, set)) {
        ms_fail(errp, "checkpoint '%s' is not of set %s", name, set);
        return NULL;
    }
    return g_steal_pointer(&k);
}

/*
 * Only the owner and admins see a virtual machine.  Who asks for a piece is
 * another server of the set, and knows that there is one.
 */
static struct json_object *refuse_piece(const ControlCall *c, GError *why,
                                        GError **errp)
{
    const char *vm = json_get_string(c->arguments, "vm");
    g_autoptr(GPtrArray) seen = vm ? store_list(c->server->store, c->who, vm,
                                                NULL) : NULL;

    if (!seen && strcmp(c->who, "anyone")) {
        ms_fail(errp, "%s. For a server of the set to see it, put '%s' into "
                "[control] admins of this one's configuration, and start it "
                "again", why->message, c->who);
        g_error_free(why);
    } else {
        g_propagate_error(errp, why);
    }
    return NULL;
}

static struct json_object *piece(const ControlCall *c, GError **errp)
{
    GError *why = NULL;
    g_autoptr(Checkpoint) k = find(c, &why);
    struct json_object *o;

    if (!k) {
        return refuse_piece(c, why, errp);
    }
    if (!c->client) {
        ms_fail(errp, "a piece cannot be sent here");
        return NULL;
    }
    c->client->piece = mem_image_from_store(c->server->store, k, errp);
    if (!c->client->piece) {
        return NULL;
    }
    o = json_object_new_object();
    json_set_uint(o, "piece", k->part);
    return o;
}

/* The addresses of pieces in their order; "" where there is none. */
static bool from(const ControlCall *c, ParityWish *w, GError **errp)
{
    struct json_object *o = json_get(c->arguments, "from");
    size_t n = json_object_is_type(o, json_type_array)
        ? json_object_array_length(o) : 0;

    if (!n || n > G_N_ELEMENTS(w->from)) {
        return ms_fail(errp, "argument 'from' must be a list of up to %zu "
                       "addresses", G_N_ELEMENTS(w->from));
    }
    for (size_t i = 0; i < n; i++) {
        const char *address =
            json_object_get_string(json_object_array_get_idx(o, i));

        if (address && *address) {
            if (!control_may_connect(c, "from", address, errp)) {
                return false;
            }
            w->from[i] = address;
        }
    }
    w->data = n;
    return true;
}

static bool wish(const ControlCall *c, ParityWish *w, GError **errp)
{
    const Config *config = c->server->config;
    uint64_t index = 0;

    w->store = c->server->store;
    w->who = c->who;
    w->tls = config->tls ? config->tls_client : NULL;
    w->patience = config->stall_timeout;
    w->client = c->client ? c->client->conn : NULL;
    w->counters = &c->server->counters;
    if (!control_name(c, "vm", &w->vm, errp) ||
        !control_name(c, "name", &w->name, errp) ||
        !control_string(c, "set", &w->set, errp) ||
        !control_uint(c, "index", &index, errp) || !from(c, w, errp)) {
        return false;
    }
    w->index = MIN(index, ERASURE_MAX_PARITY);
    return g_uuid_string_is_valid(w->set) ||
           ms_fail(errp, "argument 'set' must be a UUID");
}

static struct json_object *answer(Checkpoint *k)
{
    struct json_object *o = json_object_new_object();

    json_set_string(o, "name", k->name);
    json_set_uint(o, "pages", generation_pages(k->generation));
    checkpoint_unref(k);
    return o;
}

static bool source(const ControlCall *c, ParityWish *w, GError **errp)
{
    struct json_object *o = json_get(c->arguments, "source");

    if (!o) {
        return true;
    }
    w->source = json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN);
    return manifest_check_source(o, errp);
}

static bool size_is_possible(const ControlCall *c, const ParityWish *w,
                             GError **errp)
{
    uint64_t quota = c->server->config->store.vm_memory;
    g_autofree char *name = parity_name(w->name, w->index);

    for (unsigned i = 0; i < w->data; i++) {
        if (!w->from[i]) {
            return ms_fail(errp, "argument 'from': all parts are needed");
        }
    }
    if (!w->max_ram || w->max_ram / w->data > quota) {
        return ms_fail(errp, "%u parts of %" PRIu64 " bytes of RAM may be "
                       "more than the quota of %" PRIu64, w->data, w->max_ram,
                       quota);
    }
    return name_is_valid(name, strlen(name)) ||
           ms_fail(errp, "the name '%s' is too long for parity", w->name);
}

static struct json_object *protect(const ControlCall *c, GError **errp)
{
    ParityWish w = { 0 };
    uint64_t redundancy = 1;
    Checkpoint *k;

    if (!wish(c, &w, errp) || !source(c, &w, errp) ||
        !control_uint(c, "ram", &w.max_ram, errp) ||
        (json_get(c->arguments, "level") &&
         !control_level(c, &w.level, errp)) ||
        !control_uint(c, "redundancy", &redundancy, errp)) {
        return NULL;
    }
    if (!erasure_possible(w.data, redundancy) || w.index >= redundancy) {
        ms_fail(errp, "%u parts can have 1 to %u parities, and fewer than "
                "parts; 'index' counts them from 0 on", w.data,
                ERASURE_MAX_PARITY);
        return NULL;
    }
    w.parity = redundancy;
    w.claim = c->client ? c->client->claim : NULL;
    if (!size_is_possible(c, &w, errp)) {
        return NULL;
    }
    count(&w.counters->parity_jobs, 1);
    k = parity_build(&w, errp);
    count(&w.counters->parity_jobs, -1);
    return k ? answer(k) : NULL;
}

static struct json_object *rebuild(const ControlCall *c, GError **errp)
{
    struct json_object *o, *list;
    ParityWish w = { 0 };
    uint32_t damaged;
    uint64_t part = 0;
    Checkpoint *k;

    if (!wish(c, &w, errp) || !control_uint(c, "part", &part, errp)) {
        return NULL;
    }
    count(&w.counters->parity_jobs, 1);
    k = parity_rebuild(&w, MIN(part, PARTS_MAX), &damaged, errp);
    count(&w.counters->parity_jobs, -1);
    if (!k) {
        return NULL;
    }
    o = answer(k);
    list = json_object_new_array();
    for (unsigned i = 0; i < PARTS_MAX; i++) {
        if (damaged & 1u << i) {
            json_object_array_add(list, json_object_new_int(i));
        }
    }
    json_set(o, "damaged", list);
    return o;
}

static struct json_object *compare(const ControlCall *c, GError **errp)
{
    uint64_t wrong[ERASURE_MAX_DATA] = { 0 };
    struct json_object *o, *list;
    ParityWish w = { 0 };

    if (!wish(c, &w, errp)) {
        return NULL;
    }
    if (w.data > ERASURE_MAX_DATA) {
        ms_fail(errp, "argument 'from' must be a list of parts");
        return NULL;
    }
    if (!parity_compare(&w, wrong, errp)) {
        return NULL;
    }
    o = json_object_new_object();
    list = json_object_new_array();
    for (unsigned i = 0; i < w.data; i++) {
        json_object_array_add(list, json_object_new_uint64(wrong[i]));
    }
    json_set(o, "wrong", list);
    return o;
}

/* A piece is ready, or settled: see claim.h. */
static struct json_object *settle(const ControlCall *c, GError **errp)
{
    const char *vm = NULL, *name = NULL, *set = NULL;
    bool ready = false;

    if (!control_name(c, "vm", &vm, errp) ||
        !control_name(c, "name", &name, errp) ||
        !control_string(c, "set", &set, errp) ||
        !control_bool(c, "ready", &ready, errp) ||
        !store_settle(c->server->store, c->who, vm, name, set,
                      c->client ? c->client->claim : NULL, ready, errp)) {
        return NULL;
    }
    return json_object_new_object();
}

const ControlCommand control_parity_commands[] = {
    { "compare", "vm! name! set! from! index", compare },
    { "piece", "vm! name! set!", piece },
    { "protect", "vm! name! set! ram! from! index redundancy level source",
      protect },
    { "settle", "vm! name! set! ready", settle },
    { "rebuild", "vm! name! set! part! from! index", rebuild },
    { NULL },
};
