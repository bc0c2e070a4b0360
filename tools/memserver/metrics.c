/*
 * Figures for Prometheus
 *
 * Nothing in it names a virtual machine: every client may read it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <inttypes.h>

#include "metrics.h"

static void add(GString *to, const char *name, const char *type,
                const char *help, uint64_t value)
{
    g_string_append_printf(to, "# HELP tlm_memserver_%s %s\n"
                           "# TYPE tlm_memserver_%s %s\n"
                           "tlm_memserver_%s %" PRIu64 "\n",
                           name, help, name, type, name, value);
}

char *metrics_text(Server *server)
{
    GString *text = g_string_new(NULL);
    const Counters *c = &server->counters;
    StoreFigures f;

    store_figures(server->store, &f);
    add(text, "vms", "gauge", "virtual machines with checkpoints", f.vms);
    add(text, "checkpoints", "gauge", "checkpoints", f.checkpoints);
    add(text, "parts", "gauge", "checkpoints that are parts of one at several "
        "servers", f.parts);
    add(text, "memory_bytes", "gauge", "memory that pages take", f.memory);
    add(text, "memory_limit_bytes", "gauge", "memory that pages may take",
        f.memory_limit);
    add(text, "disk_bytes", "gauge", "disk space of checkpoints", f.disk);
    add(text, "received_bytes_total", "counter",
        "bytes received through multifd channels",
        counted(&c->received_bytes));
    add(text, "received_pages_total", "counter", "pages received",
        counted(&c->received_pages));
    add(text, "checkpoints_done_total", "counter",
        "checkpoints that have reached their level",
        counted(&c->checkpoints_done));
    add(text, "checkpoints_failed_total", "counter",
        "checkpoints that have failed or were cancelled",
        counted(&c->checkpoints_failed));
    add(text, "refused_connections_total", "counter",
        "connections that were refused", counted(&c->refused_connections));
    add(text, "parity_jobs", "gauge", "parities and parts that are being made",
        counted(&c->parity_jobs));
    add(text, "parity_pages_total", "counter",
        "pages of parities and parts that were made",
        counted(&c->parity_pages));
    return g_string_free(text, false);
}
