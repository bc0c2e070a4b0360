/*
 * JSON: reading it from strangers, and a form of it that is always the same
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <string.h>

#include "error.h"
#include "json.h"

/* Deeper than anything that is sent here. */
#define DEPTH 16

struct json_object *json_read_object(const char *text, size_t size,
                                     GError **errp)
{
    struct json_tokener *t;
    struct json_object *o = NULL;
    size_t end;

    if (!size || size > G_MAXINT32 || !g_utf8_validate(text, size, NULL)) {
        ms_fail(errp, "this is no UTF-8 text");
        return NULL;
    }
    t = json_tokener_new_ex(DEPTH);
    json_tokener_set_flags(t, JSON_TOKENER_STRICT |
                           JSON_TOKENER_ALLOW_TRAILING_CHARS);
    o = json_tokener_parse_ex(t, text, size);
    end = json_tokener_get_parse_end(t);
    while (o && end < size && strchr(" \t\r\n", text[end])) {
        end++;
    }
    if (!o || end < size || !json_object_is_type(o, json_type_object)) {
        ms_fail(errp, "this is no JSON object: %s",
                o ? "something follows it, or it is another type"
                  : json_tokener_error_desc(json_tokener_get_error(t)));
        json_object_put(o);
        o = NULL;
    }
    json_tokener_free(t);
    return o;
}

static void string(GString *to, const char *s, size_t size)
{
    const char *end = s + size;

    g_string_append_c(to, '"');
    while (s < end) {
        gunichar c = *s ? g_utf8_get_char(s) : 0;

        s = *s ? g_utf8_next_char(s) : s + 1;
        switch (c) {
        case '"':
        case '\\':
            g_string_append_printf(to, "\\%c", c);
            break;
        case '\b':
            g_string_append(to, "\\b");
            break;
        case '\f':
            g_string_append(to, "\\f");
            break;
        case '\n':
            g_string_append(to, "\\n");
            break;
        case '\r':
            g_string_append(to, "\\r");
            break;
        case '\t':
            g_string_append(to, "\\t");
            break;
        default:
            if (c >= 0x10000) {         /* as UTF-16 */
                g_string_append_printf(to, "\\u%04x\\u%04x",
                                       0xd800 + ((c - 0x10000) >> 10),
                                       0xdc00 + ((c - 0x10000) & 0x3ff));
            } else if (c < 0x20 || c > 0x7e) {
                g_string_append_printf(to, "\\u%04x", c);
            } else {
                g_string_append_c(to, c);
            }
        }
    }
    g_string_append_c(to, '"');
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void write_value(GString *to, struct json_object *o)
{
    switch (json_object_get_type(o)) {
    case json_type_object: {
        g_autoptr(GPtrArray) keys = g_ptr_array_new();

        json_object_object_foreach(o, key, value) {
            (void)value;
            g_ptr_array_add(keys, key);
        }
        g_ptr_array_sort(keys, by_name);
        g_string_append_c(to, '{');
        for (unsigned i = 0; i < keys->len; i++) {
            g_string_append(to, i ? "," : "");
            string(to, keys->pdata[i], strlen(keys->pdata[i]));
            g_string_append_c(to, ':');
            write_value(to, json_object_object_get(o, keys->pdata[i]));
        }
        g_string_append_c(to, '}');
        break;
    }
    case json_type_array:
        g_string_append_c(to, '[');
        for (size_t i = 0; i < json_object_array_length(o); i++) {
            g_string_append(to, i ? "," : "");
            write_value(to, json_object_array_get_idx(o, i));
        }
        g_string_append_c(to, ']');
        break;
    case json_type_string:
        string(to, json_object_get_string(o), json_object_get_string_len(o));
        break;
    default:
        g_string_append(to, json_object_to_json_string_ext(
                                o, JSON_C_TO_STRING_PLAIN));
    }
}

char *json_canonical(struct json_object *o)
{
    GString *text = g_string_new(NULL);

    write_value(text, o);
    return g_string_free(text, false);
}

struct json_object *json_get(struct json_object *o, const char *path)
{
    g_auto(GStrv) keys = g_strsplit(path, ".", -1);

    for (char **k = keys; *k && o; k++) {
        if (!json_object_is_type(o, json_type_object) ||
            !json_object_object_get_ex(o, *k, &o)) {
            return NULL;
        }
    }
    return o;
}

const char *json_get_string(struct json_object *o, const char *path)
{
    struct json_object *s = json_get(o, path);

    return json_object_is_type(s, json_type_string)
        ? json_object_get_string(s) : NULL;
}

guint64 json_get_uint(struct json_object *o, const char *path)
{
    struct json_object *n = json_get(o, path);

    return json_object_is_type(n, json_type_int)
        ? json_object_get_uint64(n) : 0;
}
