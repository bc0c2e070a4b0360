/*
 * Streams that a real QEMU has sent (see record-streams)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TEST_MEMSERVER_RECORDED_H
#define TEST_MEMSERVER_RECORDED_H

#include <glib.h>

/* @name: "main" */
GByteArray *recorded(const char *name);

#endif
