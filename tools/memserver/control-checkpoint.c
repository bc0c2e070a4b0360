/*
 * Commands about a checkpoint that is to come
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "control.h"
#include "erasure.h"
#include "error.h"
#include "manifest.h"
#include "peer-proto.h"
#include "session.h"

static struct json_object *view(Session *s)
{
    struct json_object *o = json_object_new_object();
    SessionView v = { 0 };

    session_view(s, &v);
    json_set_uint(o, "session", v.id);
    json_set_string(o, "vm", v.vm);
    json_set_string(o, "name", v.name);
    json_set_string(o, "uri", v.address);
    json_set_string(o, "state", session_states[v.state]);
    json_set_uint(o, "bytes", v.bytes);
    json_set_uint(o, "pages", v.pages);
    json_set_bool(o, "held", v.held);
    json_set_bool(o, "asks", v.asks);
    if (v.set) {
        json_set_string(o, "set", v.set);
        json_set_uint(o, "part", v.part);
        json_set_uint(o, "parts", v.parts);
        json_set_uint(o, "peers", v.peers);
    }
    if (v.error) {
        json_set_string(o, "error", v.error);
    }
    session_view_clear(&v);
    return o;
}

static bool source(const ControlCall *c, const char **to, GError **errp)
{
    struct json_object *o;

    if (!json_object_object_get_ex(c->arguments, "source", &o)) {
        return true;
    }
    if (!manifest_check_source(o, errp)) {
        return false;
    }
    *to = json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN);
    return true;
}

/* Names as conn_peer() has them, of other servers: they are clients, too. */
static bool senders(const ControlCall *c, GPtrArray *to, GError **errp)
{
    struct json_object *o;

    if (!json_object_object_get_ex(c->arguments, "senders", &o)) {
        return true;
    }
    for (size_t i = 0; json_object_is_type(o, json_type_array) &&
                       i < json_object_array_length(o); i++) {
        struct json_object *name = json_object_array_get_idx(o, i);

        if (json_object_is_type(name, json_type_string)) {
            g_ptr_array_add(to, (char *)json_object_get_string(name));
        }
    }
    if (!to->len || to->len != json_object_array_length(o)) {
        return ms_fail(errp, "argument 'senders' must be a list of names");
    }
    g_ptr_array_add(to, NULL);
    return true;
}

/* Which part of a set is to come; without "parts" it is a whole checkpoint. */
static bool part(const ControlCall *c, SessionWish *w, GError **errp)
{
    uint64_t number = 0, parts = 1, redundancy = 0;

    if (!control_string(c, "set", &w->set, errp) ||
        !control_string(c, "head", &w->head, errp) ||
        !control_string(c, "head-id", &w->head_id, errp) ||
        !control_uint(c, "part", &number, errp) ||
        !control_uint(c, "parts", &parts, errp) ||
        !control_uint(c, "redundancy", &redundancy, errp)) {
        return false;
    }
    if (parts == 1 && !number && !redundancy && !w->set && !w->head &&
        !w->head_id) {
        return true;
    }
    if (!part_is_possible(w->set, number, parts)) {
        return ms_fail(errp, "a set has 2 to %u parts and a UUID: say parts=, "
                       "part= (from 0 on) and set=", PARTS_MAX);
    }
    if (!number != !w->head) {
        return ms_fail(errp, number ? "part %u needs the data address of "
                       "part 0: say head=" : "part %u is the head: say no "
                       "head=", (unsigned)number);
    }
    if (w->head_id && (!number || !g_uuid_string_is_valid(w->head_id))) {
        return ms_fail(errp, "head-id is a UUID, that of the server of part 0 "
                       "(whoami), for the other parts");
    }
    w->part = number;
    w->parts = parts;
    if (redundancy && !erasure_possible(parts, redundancy)) {
        return ms_fail(errp, "%" PRIu64 " parts cannot have %" PRIu64
                       " parities", parts, redundancy);
    }
    /* It is tentative until there is parity. */
    w->redundancy = redundancy;
    w->claim = redundancy && c->client ? c->client->claim : NULL;
    return !w->head || control_may_connect(c, "head", w->head, errp);
}

static struct json_object *announce(const ControlCall *c, GError **errp)
{
    SessionWish w = { .return_path = true };
    uint64_t channels = 2;
    g_autoptr(GPtrArray) others = g_ptr_array_new();
    g_autoptr(Session) s = NULL;

    if (!control_name(c, "vm", &w.vm, errp) ||
        !control_name(c, "name", &w.name, errp) ||
        !control_name(c, "parent", &w.parent, errp) ||
        !control_uint(c, "ram", &w.ram, errp) ||
        !control_uint(c, "channels", &channels, errp) ||
        !control_level(c, &w.level, errp) ||
        !control_bool(c, "return-path", &w.return_path, errp) ||
        !control_bool(c, "hold", &w.hold, errp) ||
        !control_bool(c, "confirm", &w.confirm, errp) ||
        !control_bool(c, "keep-all", &w.keep_all, errp) ||
        !part(c, &w, errp) ||
        !source(c, &w.source, errp) || !senders(c, others, errp)) {
        return NULL;
    }
    if (others->len) {
        w.senders = (const char *const *)others->pdata;
    }
    w.channels = MIN(channels, UINT32_MAX);
    s = session_announce(c->server, c->who, &w, errp);
    return s ? view(s) : NULL;
}

static Session *find(const ControlCall *c, GError **errp)
{
    uint64_t id = 0;

    return control_uint(c, "session", &id, errp)
        ? session_find(c->server, c->who, id, errp) : NULL;
}

static struct json_object *status(const ControlCall *c, GError **errp)
{
    g_autoptr(Session) s = find(c, errp);

    return s ? view(s) : NULL;
}

/* A client that is not there any more must not hold a thread for ever. */
#define WAIT_MS_MAX 60000

static struct json_object *wait_end(const ControlCall *c, GError **errp)
{
    g_autoptr(Session) s = find(c, errp);
    uint64_t ms = WAIT_MS_MAX;

    if (!s || !control_uint(c, "timeout-ms", &ms, errp)) {
        return NULL;
    }
    session_wait(s, MIN(ms, WAIT_MS_MAX));
    return view(s);
}

static struct json_object *release(const ControlCall *c, GError **errp)
{
    g_autoptr(Session) s = find(c, errp);

    if (!s) {
        return NULL;
    }
    session_release(s);
    return view(s);
}

static struct json_object *confirm(const ControlCall *c, GError **errp)
{
    g_autoptr(Session) s = find(c, errp);
    bool incremental = false;
    const char *what = NULL;

    if (!s || !control_bool(c, "incremental", &incremental, errp) ||
        !source(c, &what, errp) ||
        !session_confirm(s, incremental, what, errp)) {
        return NULL;
    }
    return view(s);
}

static struct json_object *cancel(const ControlCall *c, GError **errp)
{
    g_autoptr(Session) s = find(c, errp);

    if (!s) {
        return NULL;
    }
    session_cancel(s);
    return view(s);
}

/*
 * What became of a set of which this server has, or was to have, part 0.  Only
 * the server that the set was announced with can say that there was no commit.
 * A set that goes on is looked for first: it may be committed meanwhile.
 */
static struct json_object *outcome(const ControlCall *c, GError **errp)
{
    const char *set = NULL, *id = NULL;
    struct json_object *o;
    bool pending;

    if (!control_string(c, "set", &set, errp) ||
        !control_string(c, "head-id", &id, errp)) {
        return NULL;
    }
    if (strcmp(id, store_id(c->server->store))) {
        ms_fail(errp, "part 0 of set %s is not a matter of this server: it is "
                "%s", set, store_id(c->server->store));
        return NULL;
    }
    pending = session_of_set_goes_on(c->server, set);
    o = json_object_new_object();
    json_set_string(o, "outcome",
                    pending ? "pending"
                    : store_has_head(c->server->store, set) ? "committed"
                    : "none");
    return o;
}

const ControlCommand control_checkpoint_commands[] = {
    { "announce", "vm! name! ram! parent channels level return-path hold "
      "confirm keep-all source senders set part parts head head-id redundancy",
      announce },
    { "status", "session!", status },
    { "wait", "session! timeout-ms", wait_end },
    { "release", "session!", release },
    { "confirm", "session! incremental! source", confirm },
    { "cancel", "session!", cancel },
    { "outcome", "set! head-id!", outcome },
    { NULL },
};
