/*
 * The control connection: what a line means
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <string.h>

#include "control.h"
#include "error.h"

static const ControlCommand *const groups[] = {
    control_checkpoint_commands,
    control_store_commands,
    control_restore_commands,
    control_parity_commands,
};

static const ControlCommand *find_command(const char *name)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(groups); i++) {
        for (const ControlCommand *c = groups[i]; c->name; c++) {
            if (!strcmp(c->name, name)) {
                return c;
            }
        }
    }
    return NULL;
}

bool control_string(const ControlCall *c, const char *name, const char **to,
                    GError **errp)
{
    struct json_object *o;

    if (!json_object_object_get_ex(c->arguments, name, &o)) {
        return true;
    }
    if (!json_object_is_type(o, json_type_string) ||
        strlen(json_object_get_string(o)) != json_object_get_string_len(o)) {
        return ms_fail(errp, "argument '%s' must be a string", name);
    }
    *to = json_object_get_string(o);
    return true;
}

bool control_name(const ControlCall *c, const char *name, const char **to,
                  GError **errp)
{
    const char *text = NULL;

    if (!control_string(c, name, &text, errp)) {
        return false;
    }
    if (text && !name_is_valid(text, strlen(text))) {
        return ms_fail(errp, "argument '%s' must be a name of up to 100 "
                       "letters, digits, '.', '_' and '-' that begins with "
                       "none of '.' and '-'", name);
    }
    *to = text ? text : *to;
    return true;
}

bool control_may_connect(const ControlCall *c, const char *name,
                         const char *to, GError **errp)
{
    if (g_str_has_prefix(to, "tcp:") ||
        (g_str_has_prefix(to, "unix:") && g_str_has_prefix(c->who, "uid:"))) {
        return true;
    }
    return ms_fail(errp, "argument '%s' must be tcp:HOST:PORT, or unix:PATH "
                   "from a client that is connected by a Unix socket", name);
}

bool control_uint(const ControlCall *c, const char *name, uint64_t *to,
                  GError **errp)
{
    struct json_object *o;

    if (!json_object_object_get_ex(c->arguments, name, &o)) {
        return true;
    }
    /* json-c keeps a negative number negative. */
    if (!json_object_is_type(o, json_type_int) ||
        json_object_get_int64(o) < 0) {
        return ms_fail(errp, "argument '%s' must be a number", name);
    }
    *to = json_object_get_uint64(o);
    return true;
}

bool control_level(const ControlCall *c, Level *to, GError **errp)
{
    const char *name = level_names[LEVEL_DURABLE];

    if (!control_string(c, "level", &name, errp)) {
        return false;
    }
    for (*to = 0; *to < LEVEL__MAX; (*to)++) {
        if (!strcmp(name, level_names[*to])) {
            return true;
        }
    }
    return ms_fail(errp, "argument 'level' must be memory or durable");
}

bool control_bool(const ControlCall *c, const char *name, bool *to,
                  GError **errp)
{
    struct json_object *o;

    if (!json_object_object_get_ex(c->arguments, name, &o)) {
        return true;
    }
    if (!json_object_is_type(o, json_type_boolean)) {
        return ms_fail(errp, "argument '%s' must be true or false", name);
    }
    *to = json_object_get_boolean(o);
    return true;
}

static bool arguments_are_known(const ControlCommand *command,
                                struct json_object *arguments, GError **errp)
{
    g_auto(GStrv) names = g_strsplit(command->arguments, " ", -1);

    for (char **n = names; *n; n++) {
        bool must = g_str_has_suffix(*n, "!");

        if (must) {
            (*n)[strlen(*n) - 1] = '\0';
        }
        if (must && !json_object_object_get_ex(arguments, *n, NULL)) {
            return ms_fail(errp, "'%s' needs argument '%s'", command->name,
                           *n);
        }
    }
    json_object_object_foreach(arguments, key, value) {
        (void)value;
        if (!*key || !g_strv_contains((const char *const *)names, key)) {
            return ms_fail(errp, "'%s' has no argument '%s'", command->name,
                           key);
        }
    }
    return true;
}

static struct json_object *run(Server *server, const char *who,
                               struct json_object *request,
                               ControlClient *client, GError **errp)
{
    ControlCall call = { .server = server, .who = who, .client = client };
    const char *name = json_get_string(request, "execute");
    const ControlCommand *command = name ? find_command(name) : NULL;
    struct json_object *arguments = NULL, *result = NULL;

    if (!name) {
        ms_fail(errp, "a command is {\"execute\": NAME, \"arguments\": {...}}");
        return NULL;
    }
    if (!command) {
        ms_fail(errp, "there is no command '%s'", name);
        return NULL;
    }
    if (json_object_object_get_ex(request, "arguments", &arguments) &&
        !json_object_is_type(arguments, json_type_object)) {
        ms_fail(errp, "'arguments' must be an object");
        return NULL;
    }
    arguments = arguments ? json_object_get(arguments)
                          : json_object_new_object();
    call.arguments = arguments;
    if (arguments_are_known(command, arguments, errp)) {
        result = command->run(&call, errp);
    }
    json_object_put(arguments);
    return result;
}

char *control_line(Server *server, const char *who, const char *line,
                   size_t size, ControlClient *client)
{
    g_autoptr(GError) error = NULL;
    struct json_object *request = json_read_object(line, size, &error);
    struct json_object *reply = json_object_new_object();
    struct json_object *result = NULL, *id;
    char *text;

    if (request) {
        result = run(server, who, request, client, &error);
    }
    if (result) {
        json_set(reply, "return", result);
    } else {
        struct json_object *e = json_object_new_object();

        json_set_string(e, "desc", error->message);
        json_set(reply, "error", e);
    }
    if (request && json_object_object_get_ex(request, "id", &id)) {
        json_set(reply, "id", json_object_get(id));
    }
    text = g_strconcat(json_object_to_json_string_ext(
                           reply, JSON_C_TO_STRING_PLAIN |
                           JSON_C_TO_STRING_NOSLASHESCAPE), "\n", NULL);
    json_object_put(reply);
    json_object_put(request);
    return text;
}
