/*
 * Figures for Prometheus
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_METRICS_H
#define MEMSERVER_METRICS_H

#include "server.h"

char *metrics_text(Server *server);

#endif
