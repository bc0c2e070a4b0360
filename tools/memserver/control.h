/*
 * The control connection: a line of JSON for each command and each answer
 *
 *   {"execute": NAME, "arguments": {...}, "id": ANYTHING}
 *   {"return": ANYTHING, "id": ANYTHING} or {"error": {"desc": TEXT}, ...}
 *
 * To add a command: a function, and a line in the table of its group.  To add
 * a group: a file with a table, and its name in control.c.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_CONTROL_H
#define MEMSERVER_CONTROL_H

#include "json.h"
#include "conn.h"
#include "image.h"
#include "server.h"

/* A connection; of a test it may have none of these. */
typedef struct ControlClient {
    Conn *conn;
    Claim *claim;                       /* it is there */
    /* Is sent behind the answer, which ends it; a reference for the caller */
    MemImage *piece;
} ControlClient;

typedef struct ControlCall {
    Server *server;
    const char *who;                    /* see conn_peer() */
    struct json_object *arguments;      /* an object; known names only */
    ControlClient *client;
} ControlCall;

typedef struct ControlCommand {
    const char *name;
    /* Names of the arguments, with spaces between; those with "!" must be. */
    const char *arguments;
    /* Returns what is answered, or NULL and an error. */
    struct json_object *(*run)(const ControlCall *c, GError **errp);
} ControlCommand;

/* Ends with a name of NULL. */
extern const ControlCommand control_checkpoint_commands[];
extern const ControlCommand control_store_commands[];
extern const ControlCommand control_restore_commands[];
extern const ControlCommand control_parity_commands[];

/* Arguments; *to is left alone when the argument is not there. */
bool control_string(const ControlCall *c, const char *name, const char **to,
                    GError **errp);
bool control_name(const ControlCall *c, const char *name, const char **to,
                  GError **errp);
/*
 * Whether the server may connect to @to, which is argument @name.  A client of
 * another host must not make it talk to a socket of this one.
 */
bool control_may_connect(const ControlCall *c, const char *name,
                         const char *to, GError **errp);
/* "memory" or "durable", which is what is meant without. */
bool control_level(const ControlCall *c, Level *to, GError **errp);
bool control_uint(const ControlCall *c, const char *name, uint64_t *to,
                  GError **errp);
bool control_bool(const ControlCall *c, const char *name, bool *to,
                  GError **errp);

/*
 * One line; the answer is a line as well.  Does no I/O, but for commands about
 * parity.
 */
char *control_line(Server *server, const char *who, const char *line,
                   size_t size, ControlClient *client);

/* Listens at all addresses of the configuration; then serves, in threads. */
typedef struct Control Control;
Control *control_start(Server *server, GError **errp);
void control_stop(Control *c);

#endif
