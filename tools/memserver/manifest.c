/*
 * The manifest of a checkpoint on the disk
 *
 * Its own checksum is of its canonical JSON without the checksum.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <string.h>

#include "be.h"
#include "erasure.h"
#include "error.h"
#include "json.h"
#include "manifest.h"
#include "peer-proto.h"

#define FORMAT 1

/* QEMU's section of device "globalstate": its name, as it is in the stream */
#define GLOBALSTATE "\013globalstate"
#define RUN_STATE_MAX 100

char *manifest_run_state(const GByteArray *state)
{
    size_t name = strlen(GLOBALSTATE);
    const uint8_t *at = state->len
        ? memmem(state->data, state->len, GLOBALSTATE, name) : NULL;
    size_t left = at ? state->data + state->len - at : 0;

    /* instance, version, size, text */
    if (left < name + 12 + RUN_STATE_MAX || !memchr(at + name + 12, 0,
                                                    RUN_STATE_MAX)) {
        return NULL;
    }
    at += name + 12;
    for (const uint8_t *p = at; *p; p++) {
        if (!g_ascii_islower(*p) && *p != '-') {
            return NULL;
        }
    }
    return *at ? g_strdup((const char *)at) : NULL;
}

static bool is_list_of(struct json_object *o, enum json_type type)
{
    bool ok = json_object_is_type(o, json_type_array);

    for (size_t i = 0; ok && i < json_object_array_length(o); i++) {
        ok = json_object_is_type(json_object_array_get_idx(o, i), type);
    }
    return ok;
}

#define COMMAND "command"
#define DISKS "disks"

/* What a client may say of a source. */
static const char *const source_members[] = {
    "uuid", "qemu", "directory", "domain", COMMAND, DISKS, NULL
};

static bool is_source_member(const char *name, struct json_object *o)
{
    if (!g_strv_contains(source_members, name)) {
        return false;
    }
    return !strcmp(name, COMMAND) ? is_list_of(o, json_type_string)
        : !strcmp(name, DISKS) ? is_list_of(o, json_type_object)
        : json_object_is_type(o, json_type_string);
}

bool manifest_check_source(struct json_object *o, GError **errp)
{
    if (!json_object_is_type(o, json_type_object)) {
        return ms_fail(errp, "argument 'source' must be an object");
    }
    json_object_object_foreach(o, name, value) {
        if (!is_source_member(name, value)) {
            return ms_fail(errp, "argument 'source': '%s' is not known, or of "
                           "another type", name);
        }
    }
    return true;
}

struct json_object *manifest_machine(const Checkpoint *c)
{
    struct json_object *m = json_object_new_object();
    struct json_object *said = c->source ? json_tokener_parse(c->source)
                                         : NULL;
    g_autofree char *state = c->state ? manifest_run_state(c->state)
                                      : g_strdup(json_get_string(said,
                                                                 "status"));

    json_set_string(m, "uuid", "");
    json_set_string(m, "qemu", "");
    json_set(m, COMMAND, NULL);
    json_set(m, "directory", NULL);
    for (const char *const *name = source_members; *name; name++) {
        struct json_object *value = json_get(said, *name);

        if (is_source_member(*name, value)) {
            json_set(m, *name, json_object_get(value));
        }
    }
    json_set_string(m, "type", c->machine);
    json_set_string(m, "name", c->vm);
    json_set_uint(m, "ram", c->ram);
    json_set_string(m, "status", state ? state : "");
    json_set_bool(m, "running", !g_strcmp0(state, "running"));
    json_object_put(said);
    return m;
}

char *manifest_machine_text(const Checkpoint *c)
{
    struct json_object *m = manifest_machine(c);
    char *text = g_strdup(json_object_to_json_string_ext(
                              m, JSON_C_TO_STRING_PLAIN));

    json_object_put(m);
    return text;
}

static struct json_object *file(const Checkpoint *c, const ManifestSum *sums,
                                size_t count)
{
    struct json_object *f = json_object_new_object();
    struct json_object *list = json_object_new_array();

    for (size_t i = 0; i < count; i++) {
        json_object_array_add(list, json_object_new_string(sums[i]));
    }
    json_set_uint(f, "size", c->file.size);
    json_set_uint(f, "allocated", c->file.allocated);
    json_set_uint(f, "chunk", MANIFEST_CHUNK);
    json_set_uint(f, "block", MANIFEST_BLOCK);
    json_set(f, "sha256", list);
    return f;
}

/* In a manifest, the disks are beside the machine. */
static void move_member(const char *name, struct json_object *from,
                        struct json_object *to)
{
    struct json_object *value = json_get(from, name);

    if (value) {
        json_set(to, name, json_object_get(value));
        json_object_object_del(from, name);
    }
}

/* What a manifest says of the source, as JSON. */
static char *source_text(struct json_object *manifest)
{
    struct json_object *source = NULL;
    char *text;

    json_object_deep_copy(json_get(manifest, "machine"), &source, NULL);
    if (json_object_is_type(source, json_type_object) &&
        json_get(manifest, DISKS)) {
        json_set(source, DISKS, json_object_get(json_get(manifest, DISKS)));
    }
    text = g_strdup(json_object_to_json_string_ext(source,
                                                   JSON_C_TO_STRING_PLAIN));
    json_object_put(source);
    return text;
}

char *manifest_compose(const Checkpoint *c, const ManifestSum *sums,
                       size_t count)
{
    struct json_object *o = json_object_new_object();
    g_autofree char *text = NULL, *sum = NULL;
    char *result;

    json_set_uint(o, "format", FORMAT);
    json_set_string(o, "name", c->name);
    json_set_string(o, "created", c->created);
    /* Its file is whole: it needs no parent. */
    json_set_string(o, "since", c->parent);
    json_set(o, "machine", manifest_machine(c));
    move_member(DISKS, json_get(o, "machine"), o);
    /* What only QEMU knows; "tlm checkpoint" asks it. */
    json_set_uint(o, "pause-us", 0);
    json_set(o, "pause-parts-us", json_object_new_object());
    json_set(o, "kept-by", NULL);
    json_set_uint(o, "copied", 0);
    json_set_string(o, "note", "received by tlm-memserver");
    json_set_uint(o, "flushed-ms", 0);
    json_set_uint(o, "total-ms", 0);
    if (c->parts > 1) {
        json_set_string(o, "set", c->set);
        json_set_uint(o, "part", c->part);
        json_set_uint(o, "parts", c->parts);
        if (c->redundancy) {
            json_set_uint(o, "redundancy", c->redundancy);
        }
    }
    if (c->head_id) {
        json_set_string(o, "head-id", c->head_id);
    }
    json_set(o, "file", file(c, sums, count));
    text = json_canonical(o);
    sum = g_compute_checksum_for_string(G_CHECKSUM_SHA256, text, -1);
    json_set_string(o, "checksum", sum);
    result = g_strconcat(json_object_to_json_string_ext(
                             o, JSON_C_TO_STRING_PRETTY |
                             JSON_C_TO_STRING_SPACED |
                             JSON_C_TO_STRING_NOSLASHESCAPE), "\n", NULL);
    json_object_put(o);
    return result;
}

static bool checksum_is_right(struct json_object *o)
{
    g_autofree char *claimed = g_strdup(json_get_string(o, "checksum"));
    g_autofree char *text = NULL, *sum = NULL;

    json_object_object_del(o, "checksum");
    text = json_canonical(o);
    sum = g_compute_checksum_for_string(G_CHECKSUM_SHA256, text, -1);
    return claimed && !strcmp(sum, claimed);
}

static bool read_sums(struct json_object *o, uint64_t size, GArray **sums,
                      GError **errp)
{
    struct json_object *list = json_get(o, "file.sha256");
    size_t count = json_object_is_type(list, json_type_array)
        ? json_object_array_length(list) : 0;

    if (json_get_uint(o, "file.chunk") != MANIFEST_CHUNK ||
        json_get_uint(o, "file.block") != MANIFEST_BLOCK ||
        count != size / MANIFEST_CHUNK + !!(size % MANIFEST_CHUNK)) {
        return ms_fail(errp, "the checksums are not those of the file");
    }
    if (!sums) {
        return true;
    }
    *sums = g_array_new(false, true, sizeof(ManifestSum));
    g_array_set_size(*sums, count);
    for (size_t i = 0; i < count; i++) {
        const char *s =
            json_object_get_string(json_object_array_get_idx(list, i));

        g_strlcpy(g_array_index(*sums, ManifestSum, i), s ? s : "",
                  MANIFEST_SUM_SIZE);
    }
    return true;
}

/* Which part of which set it is; a whole one says nothing. */
static bool read_part(struct json_object *o, Checkpoint *c, GError **errp)
{
    const char *set = json_get_string(o, "set");
    uint64_t part = json_get_uint(o, "part"), parts = json_get_uint(o, "parts");

    if (!json_get(o, "set") && !json_get(o, "parts")) {
        return true;
    }
    c->redundancy = json_get_uint(o, "redundancy");
    if (c->redundancy && !erasure_possible(parts, c->redundancy)) {
        return ms_fail(errp, "the manifest is of no possible parity");
    }
    if (!part_is_possible(set, part, parts) &&
        !(c->redundancy && part < parts + c->redundancy &&
          part_is_possible(set, 0, parts))) {
        return ms_fail(errp, "the manifest is of no possible part of a set");
    }
    c->set = g_strdup(set);
    c->part = part;
    c->parts = parts;
    c->head_id = g_strdup(json_get_string(o, "head-id"));
    return true;
}

Checkpoint *manifest_parse(const char *vm, const char *text, size_t size,
                           GArray **sums, GError **errp)
{
    struct json_object *o = json_read_object(text, size, errp);
    g_autoptr(Checkpoint) c = NULL;
    const char *name, *created;
    bool ok;

    if (!o) {
        return NULL;
    }
    name = json_get_string(o, "name");
    created = json_get_string(o, "created");
    if (json_get_uint(o, "format") != FORMAT) {
        ok = ms_fail(errp, "the manifest has another format");
    } else if (!name || !created || !name_is_valid(name, strlen(name))) {
        ok = ms_fail(errp, "the manifest has no name, or no time");
    } else {
        c = checkpoint_new(vm, name);
        g_free(c->created);
        c->created = g_strdup(created);
        /* "parent" is what was written before "since". */
        c->parent = g_strdup(json_get_string(o, "since") ?:
                             json_get_string(o, "parent"));
        c->machine = g_strdup(json_get_string(o, "machine.type"));
        c->source = source_text(o);
        c->ram = json_get_uint(o, "machine.ram");
        c->file.there = true;
        c->file.size = json_get_uint(o, "file.size");
        c->file.allocated = json_get_uint(o, "file.allocated");
        ok = read_part(o, c, errp) &&
            read_sums(o, c->file.size, sums, errp) &&
            (checksum_is_right(o) ||
             ms_fail(errp, "the manifest is not as it was written"));
    }
    json_object_put(o);
    if (!ok && sums && *sums) {
        g_array_unref(*sums);
        *sums = NULL;
    }
    return ok ? g_steal_pointer(&c) : NULL;
}
