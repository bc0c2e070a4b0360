/*
 * tlm-memserver: receives checkpoints of virtual machines by multifd
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <glib-unix.h>
#include <stdio.h>
#include <string.h>

#include "client.h"
#include "config.h"
#include "control.h"
#include "session.h"
#include "tls-options.h"

static char *config_path, *control_address;

static const GOptionEntry options[] = {
    { "config", 'c', 0, G_OPTION_ARG_FILENAME, &config_path,
      "The server's configuration", "FILE" },
    { "control", 0, 0, G_OPTION_ARG_STRING, &control_address,
      "As a client: the server's control address", "ADDRESS" },
    { NULL },
};

static gboolean on_signal(void *loop)
{
    g_main_loop_quit(loop);
    return G_SOURCE_CONTINUE;
}

static bool serve(Server *server, GError **errp)
{
    g_autoptr(GMainLoop) loop = g_main_loop_new(NULL, false);
    Control *control;

    server->store = store_new(&server->config->store, errp);
    if (!server->store) {
        return false;
    }
    g_mutex_init(&server->lock);
    server->sessions = g_hash_table_new_full(g_int64_hash, g_int64_equal, NULL,
                                             (GDestroyNotify)session_unref);
    control = control_start(server, errp);
    if (control) {
        g_unix_signal_add(SIGTERM, on_signal, loop);
        g_unix_signal_add(SIGINT, on_signal, loop);
        g_main_loop_run(loop);
        g_message("ending");
        session_cancel_all(server);
        control_stop(control);
    }
    g_hash_table_unref(server->sessions);
    store_free(server->store);
    return control;
}

static int run_server(void)
{
    g_autoptr(GError) error = NULL;
    Config *config = config_load(config_path, &error);
    Server server = { .config = config };

    if (config && !serve(&server, &error)) {
        config_free(config);
        config = NULL;
    }
    if (!config) {
        fprintf(stderr, "tlm-memserver: %s\n", error->message);
        return 1;
    }
    config_free(config);
    return 0;
}

static int run_client(char **words)
{
    g_autoptr(GError) error = NULL;
    TlsCreds *tls;
    int status;

    if (!control_address) {
        control_address = (char *)"unix:/run/tlm-memserver/control";
    }
    if (!tls_options_creds(&tls, &error)) {
        fprintf(stderr, "tlm-memserver: %s\n", error->message);
        return 1;
    }
    status = strcmp(words[0], "pipe")
        ? client_call(control_address, tls, words[0], words + 1)
        : client_pipe(control_address, tls);
    tls_creds_free(tls);
    return status;
}

int main(int argc, char **argv)
{
    g_autoptr(GOptionContext) context =
        g_option_context_new("[COMMAND [NAME=VALUE...]]");
    g_autoptr(GError) error = NULL;

    g_option_context_set_summary(
        context, "Receives checkpoints of virtual machines from QEMU, keeps "
        "them in memory, and\nwrites them to the disk. With a COMMAND: sends "
        "it to a server that runs.");
    g_option_context_add_main_entries(context, options, NULL);
    g_option_context_add_main_entries(context, tls_options, NULL);
    if (!g_option_context_parse(context, &argc, &argv, &error)) {
        fprintf(stderr, "tlm-memserver: %s\n", error->message);
        return 2;
    }
    return argc > 1 ? run_client(argv + 1) : run_server();
}
