/*
 * JSON: reading it from strangers, and a form of it that is always the same
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_JSON_H
#define MEMSERVER_JSON_H

#include <glib.h>
#include <json-c/json.h>
#include <stdbool.h>

/* An object, and nothing else, from text that need not end with 0. */
struct json_object *json_read_object(const char *text, size_t size,
                                     GError **errp);

/* Sorted keys, no spaces, ASCII; Python's json.dumps() can do the same. */
char *json_canonical(struct json_object *o);

/* "PATH.KEY": NULL or 0 if it is not there or of another type. */
const char *json_get_string(struct json_object *o, const char *path);
guint64 json_get_uint(struct json_object *o, const char *path);
struct json_object *json_get(struct json_object *o, const char *path);

static inline void json_set(struct json_object *o, const char *key,
                            struct json_object *value)
{
    json_object_object_add(o, key, value);
}

/* @value may be NULL. */
static inline void json_set_string(struct json_object *o, const char *key,
                                   const char *value)
{
    json_set(o, key, value ? json_object_new_string(value) : NULL);
}

static inline void json_set_uint(struct json_object *o, const char *key,
                                 guint64 value)
{
    json_set(o, key, json_object_new_uint64(value));
}

static inline void json_set_bool(struct json_object *o, const char *key,
                                 bool value)
{
    json_set(o, key, json_object_new_boolean(value));
}

#endif
