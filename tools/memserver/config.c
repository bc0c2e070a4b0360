/*
 * The configuration file
 *
 * Each option is one line of a table: group, key, what it is, the default.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "address.h"
#include "config.h"
#include "error.h"

typedef enum Type { STRING, LIST, NUMBER, SIZE, OCTAL, BOOL } Type;

typedef struct Option {
    const char *group, *key;
    Type type;
    const char *value;                  /* default; NULL: none */
    uint64_t min, max;
    size_t at;                          /* in Raw */
} Option;

/* The options as they are written. */
typedef struct Raw {
    char **control;
    char *data, *data_ports, *data_socket_dir;
    uint64_t socket_mode;
    char *tls, *tls_dir, *client, *client_dir, *client_user;
    uint64_t allow_plain;
    uint64_t max_clients, max_sessions, max_channels, max_state;
    uint64_t connect_timeout, stall_timeout, require_return_path;
    char *dir;
    char **admins;
    uint64_t memory, vm_memory, vm_disk, keep, max_vms, threads;
} Raw;

#define AT(field) offsetof(Raw, field)

static const Option options[] = {
    { "control", "listen", LIST, "unix:/run/tlm-memserver/control", 0, 0,
      AT(control) },
    { "control", "max-clients", NUMBER, "64", 1, 10000, AT(max_clients) },
    { "control", "admins", LIST, "uid:0", 0, 0, AT(admins) },
    { "data", "listen", STRING, "tcp:127.0.0.1:0", 0, 0, AT(data) },
    { "data", "ports", STRING, NULL, 0, 0, AT(data_ports) },
    { "data", "socket-dir", STRING, NULL, 0, 0, AT(data_socket_dir) },
    { "data", "socket-mode", OCTAL, "600", 0, 0777, AT(socket_mode) },
    { "data", "max-sessions", NUMBER, "64", 1, 10000, AT(max_sessions) },
    { "data", "max-channels", NUMBER, "32", 1, 255, AT(max_channels) },
    { "data", "max-device-state", SIZE, "64M", 1 << 16, 4ull << 30,
      AT(max_state) },
    { "data", "connect-timeout", NUMBER, "60", 1, 86400, AT(connect_timeout) },
    { "data", "stall-timeout", NUMBER, "60", 1, 86400, AT(stall_timeout) },
    { "data", "require-return-path", BOOL, "true", 0, 0,
      AT(require_return_path) },
    { "tls", "credentials", STRING, NULL, 0, 0, AT(tls) },
    { "tls", "dir", STRING, NULL, 0, 0, AT(tls_dir) },
    { "tls", "client-credentials", STRING, NULL, 0, 0, AT(client) },
    { "tls", "client-dir", STRING, NULL, 0, 0, AT(client_dir) },
    { "tls", "client-user", STRING, "qemu", 0, 0, AT(client_user) },
    { "tls", "allow-plain", BOOL, "false", 0, 0, AT(allow_plain) },
    { "store", "dir", STRING, NULL, 0, 0, AT(dir) },
    { "store", "memory", SIZE, "4G", 2 << 20, 4ull << 40, AT(memory) },
    { "store", "vm-memory", SIZE, "4G", 2 << 20, 4ull << 40, AT(vm_memory) },
    { "store", "vm-disk", SIZE, "1T", 2 << 20, 1ull << 60, AT(vm_disk) },
    { "store", "keep", NUMBER, "2", 0, 10000, AT(keep) },
    { "store", "max-vms", NUMBER, "1000", 1, 1000000, AT(max_vms) },
    { "store", "threads", NUMBER, "2", 1, 64, AT(threads) },
};

static bool parse_number(const Option *o, const char *text, uint64_t *to,
                         GError **errp)
{
    static const char units[] = "KMGT";
    char *end;
    uint64_t n = g_ascii_strtoull(text, &end, o->type == OCTAL ? 8 : 10);
    const char *unit = *end ? strchr(units, *end) : NULL;
    unsigned shift = unit ? 10 * (unit - units + 1) : 0;

    if (end == text || *text == '-' || (*end && (o->type != SIZE || !unit ||
                                                 end[1])) ||
        n > UINT64_MAX >> shift || n << shift < o->min ||
        n << shift > o->max) {
        return ms_fail(errp, "[%s] %s=%s: it must be a number from %" PRIu64
                       " to %" PRIu64 "%s", o->group, o->key, text, o->min,
                       o->max, o->type == SIZE ? ", or with K, M, G, T" : "");
    }
    *to = n << shift;
    return true;
}

static bool parse_option(const Option *o, GKeyFile *file, Raw *raw,
                         GError **errp)
{
    g_autofree char *text = g_key_file_get_string(file, o->group, o->key,
                                                  NULL);
    char *field = (char *)raw + o->at;

    if (!text) {
        text = g_strdup(o->value);
    }
    switch (o->type) {
    case STRING:
        *(char **)field = g_steal_pointer(&text);
        return true;
    case LIST:
        *(char ***)field = g_strsplit(text, ";", -1);
        return true;
    case BOOL:
        *(uint64_t *)field = !strcmp(text, "true");
        return !strcmp(text, "true") || !strcmp(text, "false") ||
            ms_fail(errp, "[%s] %s=%s: it must be true or false", o->group,
                    o->key, text);
    default:
        return parse_number(o, text, (uint64_t *)field, errp);
    }
}

static bool known(const char *group, const char *key)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(options); i++) {
        if (!strcmp(options[i].group, group) && !strcmp(options[i].key, key)) {
            return true;
        }
    }
    return false;
}

/* A misspelt option would be one that is not obeyed. */
static bool all_known(GKeyFile *file, GError **errp)
{
    g_auto(GStrv) groups = g_key_file_get_groups(file, NULL);

    for (char **g = groups; *g; g++) {
        g_auto(GStrv) keys = g_key_file_get_keys(file, *g, NULL, NULL);

        for (char **k = keys; k && *k; k++) {
            if (!known(*g, *k)) {
                return ms_fail(errp, "[%s] %s: there is no such option", *g,
                               *k);
            }
        }
    }
    return true;
}

/* Whoever can connect from elsewhere must say who it is. */
static bool is_safe(const Raw *raw, GError **errp)
{
    if (raw->tls || raw->allow_plain) {
        return true;
    }
    for (char **a = raw->control; *a; a++) {
        if (!address_is_local(*a)) {
            return ms_fail(errp, "[control] listen=%s: others than this host "
                           "can connect to it: set [tls] credentials", *a);
        }
    }
    if (!raw->data_socket_dir && !address_is_local(raw->data)) {
        return ms_fail(errp, "[data] listen=%s: others than this host can "
                       "connect to it: set [tls] credentials", raw->data);
    }
    return true;
}

static bool parse_ports(Config *c, const char *text, GError **errp)
{
    unsigned min, max;
    char rest;

    if (!text) {
        return true;
    }
    if (sscanf(text, "%u-%u%c", &min, &max, &rest) != 2 || !min || min > max ||
        max > 65535) {
        return ms_fail(errp, "[data] ports=%s: write FIRST-LAST", text);
    }
    c->data_port_min = min;
    c->data_port_max = max;
    return true;
}

/*
 * As a client the server has the credentials of the same directory, if there
 * are some.  Those that are asked for must be there.
 */
static bool load_tls(Config *c, const Raw *raw, GError **errp)
{
    const char *kind = raw->client ? raw->client : raw->tls;
    const char *dir = raw->client_dir ? raw->client_dir : raw->tls_dir;
    g_autoptr(GError) error = NULL;

    if (raw->tls && !raw->tls_dir) {
        return ms_fail(errp, "[tls] dir is missing");
    }
    if (raw->tls) {
        c->tls = tls_server_creds(raw->tls, raw->tls_dir, errp);
        if (!c->tls) {
            return false;
        }
    }
    if (kind && dir) {
        c->tls_client = tls_client_creds(kind, dir, raw->client_user, &error);
    } else {
        ms_fail(&error, "set [tls] client-credentials and client-dir");
    }
    if (!c->tls_client && (raw->client || raw->client_dir)) {
        g_propagate_error(errp, g_steal_pointer(&error));
        return false;
    }
    c->tls_client_problem = error ? g_strdup(error->message) : NULL;
    return true;
}

static bool take_over(Config *c, Raw *raw, GError **errp)
{
    c->control = g_steal_pointer(&raw->control);
    c->data = g_steal_pointer(&raw->data);
    c->data_socket_dir = g_steal_pointer(&raw->data_socket_dir);
    c->socket_mode = raw->socket_mode;
    c->max_clients = raw->max_clients;
    c->max_sessions = raw->max_sessions;
    c->max_channels = raw->max_channels;
    c->max_state = raw->max_state;
    c->connect_timeout = raw->connect_timeout;
    c->stall_timeout = raw->stall_timeout;
    c->require_return_path = raw->require_return_path;
    c->dir = g_steal_pointer(&raw->dir);
    c->store = (StoreConfig) {
        .dir = c->dir, .memory = raw->memory, .vm_memory = raw->vm_memory,
        .vm_disk = raw->vm_disk, .keep = raw->keep, .max_vms = raw->max_vms,
        .threads = raw->threads, .admins = g_steal_pointer(&raw->admins),
    };
    c->allow_plain = raw->allow_plain;
    return load_tls(c, raw, errp) && parse_ports(c, raw->data_ports, errp);
}

static void raw_clear(Raw *raw)
{
    g_strfreev(raw->control);
    g_strfreev(raw->admins);
    g_free(raw->data);
    g_free(raw->data_ports);
    g_free(raw->data_socket_dir);
    g_free(raw->tls);
    g_free(raw->tls_dir);
    g_free(raw->client);
    g_free(raw->client_dir);
    g_free(raw->client_user);
    g_free(raw->dir);
}

Config *config_load(const char *path, GError **errp)
{
    g_autoptr(GKeyFile) file = g_key_file_new();
    Config *c = g_new0(Config, 1);
    Raw raw = { 0 };
    bool ok;

    ok = (!path || g_key_file_load_from_file(file, path, G_KEY_FILE_NONE,
                                             errp)) && all_known(file, errp);
    for (unsigned i = 0; ok && i < G_N_ELEMENTS(options); i++) {
        ok = parse_option(&options[i], file, &raw, errp);
    }
    ok = ok && is_safe(&raw, errp) && take_over(c, &raw, errp);
    raw_clear(&raw);
    if (!ok) {
        g_prefix_error(errp, "%s: ", path ? path : "defaults");
        config_free(c);
        return NULL;
    }
    return c;
}

void config_free(Config *c)
{
    g_strfreev(c->control);
    g_strfreev(c->store.admins);
    g_free(c->data);
    g_free(c->data_socket_dir);
    g_free(c->dir);
    tls_creds_free(c->tls);
    tls_creds_free(c->tls_client);
    g_free(c->tls_client_problem);
    g_free(c);
}
