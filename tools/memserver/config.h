/*
 * The configuration file
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_CONFIG_H
#define MEMSERVER_CONFIG_H

#include "store.h"
#include "tls.h"

typedef struct Config {
    char **control;                     /* addresses */
    char *data;                         /* address; TCP with port 0 */
    unsigned data_port_min, data_port_max;      /* 0: any */
    char *data_socket_dir;              /* instead of @data: Unix sockets */
    unsigned socket_mode;
    TlsCreds *tls;                      /* NULL: none */
    TlsCreds *tls_client;               /* towards QEMUs and other servers, */
    char *tls_client_problem;           /* or why there are none */
    bool allow_plain;
    unsigned max_clients, max_sessions, max_channels;
    uint64_t max_state;                 /* bytes of device state */
    unsigned connect_timeout, stall_timeout;    /* s */
    bool require_return_path;
    char *dir;
    StoreConfig store;
} Config;

/* @path: NULL: nothing but defaults */
Config *config_load(const char *path, GError **errp);
void config_free(Config *c);

#endif
