/*
 * tlm-memserver as a client of one that runs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client.h"
#include "conn.h"
#include "error.h"
#include "json.h"

/* true, false, a number, with K, M, G if it is a size, or a string */
static struct json_object *value(const char *text)
{
    static const char units[] = "KMG";
    char *end;
    guint64 n = g_ascii_strtoull(text, &end, 10);
    const char *unit = *end ? strchr(units, *end) : NULL;

    if (!strcmp(text, "true") || !strcmp(text, "false")) {
        return json_object_new_boolean(*text == 't');
    }
    if (end == text || *text == '-' || (*end && (!unit || end[1]))) {
        return json_object_new_string(text);
    }
    return json_object_new_uint64(unit ? n << 10 * (unit - units + 1) : n);
}

/* These are strings, whatever they look like. */
static bool is_name(const char *key)
{
    return !strcmp(key, "vm") || !strcmp(key, "name") ||
        !strcmp(key, "parent");
}

static char *compose(const char *command, char **arguments, GError **errp)
{
    struct json_object *o = json_object_new_object();
    struct json_object *a = json_object_new_object();
    char *line = NULL;

    json_set_string(o, "execute", command);
    json_set(o, "arguments", a);
    for (; *arguments; arguments++) {
        const char *equal = strchr(*arguments, '=');
        g_autofree char *key = NULL;

        if (!equal) {
            ms_fail(errp, "'%s' is no argument: write NAME=VALUE", *arguments);
            break;
        }
        key = g_strndup(*arguments, equal - *arguments);
        json_set(a, key, is_name(key) ? json_object_new_string(equal + 1)
                                      : value(equal + 1));
    }
    if (!*arguments) {
        line = g_strconcat(json_object_to_json_string_ext(
                               o, JSON_C_TO_STRING_PLAIN), "\n", NULL);
    }
    json_object_put(o);
    return line;
}

/* A whole line; NULL: an error. */
static char *read_line(Conn *c, GError **errp)
{
    GString *line = g_string_new(NULL);
    char buffer[4096];

    while (!line->len || line->str[line->len - 1] != '\n') {
        gssize n = conn_read_some(c, buffer, sizeof(buffer), errp);

        if (n <= 0) {
            if (n == 0) {
                ms_fail(errp, "the server has closed the connection");
            }
            g_string_free(line, true);
            return NULL;
        }
        g_string_append_len(line, buffer, n);
    }
    return g_string_free(line, false);
}

static int print(const char *line, GError **errp)
{
    struct json_object *o = json_read_object(line, strlen(line), errp), *r;
    int status = 1;

    if (!o) {
        return status;
    }
    if (json_object_object_get_ex(o, "return", &r)) {
        printf("%s\n", json_object_is_type(r, json_type_string)
               ? json_object_get_string(r)
               : json_object_to_json_string_ext(
                     r, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED |
                     JSON_C_TO_STRING_NOSLASHESCAPE));
        status = 0;
    } else {
        const char *desc = json_get_string(o, "error.desc");

        ms_fail(errp, "%s", desc ? desc : "the answer is not known");
    }
    json_object_put(o);
    return status;
}

/* NULL: an error. */
static char *ask(Conn *c, const char *line, GError **errp)
{
    return conn_write(c, line, strlen(line), errp) ? read_line(c, errp) : NULL;
}

/* Returns the exit status. */
static int end(Conn *c, const GError *error, int status)
{
    if (c) {
        conn_free(c);
    }
    if (!error) {
        return status;
    }
    fprintf(stderr, "tlm-memserver: %s\n", error->message);
    return 1;
}

int client_call(const char *address, const TlsCreds *tls, const char *command,
                char **arguments)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *line = compose(command, arguments, &error);
    g_autofree char *answer = NULL;
    Conn *c = line ? conn_open(address, tls, NULL, &error) : NULL;
    int status = 1;

    if (c) {
        answer = ask(c, line, &error);
    }
    if (answer) {
        status = print(answer, &error);
    }
    return end(c, error, status);
}

int client_pipe(const char *address, const TlsCreds *tls)
{
    g_autoptr(GError) error = NULL;
    Conn *c = conn_open(address, tls, NULL, &error);
    char *line = NULL;
    size_t size = 0;

    while (c && !error && getline(&line, &size, stdin) > 0) {
        g_autofree char *answer = ask(c, line, &error);

        if (answer) {
            fputs(answer, stdout);
            fflush(stdout);
        }
    }
    free(line);
    return end(c, error, 0);
}
