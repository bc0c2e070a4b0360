/*
 * Commands about checkpoints that are there
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "control.h"
#include "error.h"
#include "manifest.h"
#include "metrics.h"
#include "parity.h"
#include "sums.h"

/* Where the parts were when parity was made */
static struct json_object *part_servers(const Parity *p)
{
    struct json_object *list = json_object_new_array();

    for (unsigned i = 0; i < p->data; i++) {
        json_object_array_add(list, json_object_new_string(p->from[i]));
    }
    return list;
}

static struct json_object *describe(const ControlCall *c, Checkpoint *k)
{
    const char *tentative = store_tentative(c->server->store, k);
    struct json_object *o = json_object_new_object();

    json_set_string(o, "vm", k->vm);
    json_set_string(o, "name", k->name);
    json_set_string(o, "created", k->created);
    json_set_string(o, "parent", k->parent);
    json_set_string(o, "machine", k->machine);
    if (k->parity) {
        json_set_string(o, "set", k->set);
        json_set_string(o, "parity-of", k->parity->part_name);
        json_set_uint(o, "parity", k->parity->index);
        json_set_uint(o, "redundancy", k->redundancy);
        json_set(o, "from", part_servers(k->parity));
        json_set_uint(o, "parts", k->parts);
    } else if (k->parts > 1) {
        json_set_string(o, "set", k->set);
        json_set_uint(o, "part", k->part);
        json_set_uint(o, "parts", k->parts);
        if (k->redundancy) {
            json_set_uint(o, "redundancy", k->redundancy);
        }
    }
    if (k->head_id) {
        json_set_string(o, "head-id", k->head_id);
    }
    if (tentative) {
        json_set_string(o, "tentative", tentative);
    }
    json_set_uint(o, "ram", k->ram);
    json_set_string(o, "level", level_names[k->file.there]);
    json_set_bool(o, "in-memory", k->generation);
    if (k->generation) {
        json_set_uint(o, "pages", generation_pages(k->generation));
        json_set_uint(o, "own-pages", generation_own_pages(k->generation));
        json_set_uint(o, "device-state", k->state->len);
        if (checkpoint_identity(k)) {
            json_set_string(o, "identity", checkpoint_identity(k));
        }
    }
    if (k->file.there) {
        g_autofree char *path = store_path(c->server->store, k, "checkpoint");

        json_set_string(o, "file", path);
        json_set_uint(o, "size", k->file.size);
        json_set_uint(o, "allocated", k->file.allocated);
    }
    return o;
}

static struct json_object *list(const ControlCall *c, GError **errp)
{
    struct json_object *o;
    g_autoptr(GPtrArray) all = NULL;
    const char *vm = NULL;

    if (!control_name(c, "vm", &vm, errp)) {
        return NULL;
    }
    all = store_list(c->server->store, c->who, vm, errp);
    if (!all) {
        return NULL;
    }
    o = json_object_new_array();
    for (unsigned i = 0; i < all->len; i++) {
        json_object_array_add(o, describe(c, g_ptr_array_index(all, i)));
    }
    return o;
}

static Checkpoint *find(const ControlCall *c, GError **errp)
{
    const char *vm = NULL, *name = NULL;

    if (!control_name(c, "vm", &vm, errp) ||
        !control_name(c, "name", &name, errp)) {
        return NULL;
    }
    return store_get(c->server->store, c->who, vm, name, errp);
}

static struct json_object *show(const ControlCall *c, GError **errp)
{
    g_autoptr(Checkpoint) k = find(c, errp);

    struct json_object *o = k ? describe(c, k) : NULL;

    if (o) {
        json_set(o, "source", manifest_machine(k));
    }
    return o;
}

static struct json_object *identify(const ControlCall *c, GError **errp)
{
    g_autoptr(Checkpoint) k = find(c, errp);
    const char *identity = NULL;

    if (!k || !control_name(c, "identity", &identity, errp)) {
        return NULL;
    }
    if (!checkpoint_identify(k, identity)) {
        ms_fail(errp, "checkpoint '%s' has another identity already",
                k->name);
        return NULL;
    }
    return describe(c, k);
}

static bool read_sums(const ControlCall *c, Checkpoint *k, GArray **sums,
                      GError **errp)
{
    g_autofree char *path = store_path(c->server->store, k, "json");
    g_autofree char *text = NULL;
    g_autoptr(Checkpoint) parsed = NULL;
    size_t size;

    if (!g_file_get_contents(path, &text, &size, errp)) {
        return false;
    }
    parsed = manifest_parse(k->vm, text, size, sums, errp);
    return parsed;
}

static struct json_object *verify(const ControlCall *c, GError **errp)
{
    g_autoptr(Checkpoint) k = find(c, errp);
    g_autoptr(GArray) sums = NULL;
    g_autofree char *path = NULL;

    if (!k) {
        return NULL;
    }
    if (!k->file.there) {
        ms_fail(errp, "checkpoint '%s' is in memory only: there are no "
                "checksums", k->name);
        return NULL;
    }
    path = store_path(c->server->store, k, "checkpoint");
    if (!read_sums(c, k, &sums, errp) ||
        !sums_verify(path, k->file.size, sums,
                     c->server->config->store.threads, errp)) {
        return NULL;
    }
    return describe(c, k);
}

static struct json_object *prune(const ControlCall *c, GError **errp)
{
    const char *vm = NULL;
    uint64_t keep = 0;
    g_autoptr(GPtrArray) names = NULL;
    struct json_object *o;

    if (!control_name(c, "vm", &vm, errp) ||
        !control_uint(c, "keep", &keep, errp)) {
        return NULL;
    }
    names = store_prune(c->server->store, c->who, vm, MIN(keep, UINT32_MAX),
                        errp);
    if (!names) {
        return NULL;
    }
    o = json_object_new_array();
    for (unsigned i = 0; i < names->len; i++) {
        json_object_array_add(
            o, json_object_new_string(g_ptr_array_index(names, i)));
    }
    return o;
}

static struct json_object *remove_one(const ControlCall *c, GError **errp)
{
    const char *vm = NULL, *name = NULL, *set = NULL;

    if (!control_name(c, "vm", &vm, errp) ||
        !control_name(c, "name", &name, errp) ||
        !control_string(c, "set", &set, errp) ||
        !store_remove(c->server->store, c->who, vm, name, set, errp)) {
        return NULL;
    }
    return json_object_new_object();
}

static struct json_object *metrics(const ControlCall *c, GError **errp)
{
    g_autofree char *text = metrics_text(c->server);

    return json_object_new_string(text);
}

/* The other servers have to be told who this one is. */
static struct json_object *whoami(const ControlCall *c, GError **errp)
{
    const TlsCreds *tls = c->server->config->tls_client;
    struct json_object *o = json_object_new_object();

    json_set_string(o, "you", c->who);
    json_set_string(o, "id", store_id(c->server->store));
    if (tls) {
        json_set_string(o, "server", tls_client_name(tls));
    }
    return o;
}

const ControlCommand control_store_commands[] = {
    { "list", "vm", list },
    { "show", "vm! name", show },
    { "identify", "vm! name! identity!", identify },
    { "verify", "vm! name", verify },
    { "prune", "vm! keep!", prune },
    { "remove", "vm! name! set", remove_one },
    { "metrics", "", metrics },
    { "whoami", "", whoami },
    { NULL },
};
