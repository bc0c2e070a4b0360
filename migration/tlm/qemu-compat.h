/*
 * TLM: what differs among the releases of QEMU that the series is for
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_QEMU_COMPAT_H
#define TLM_QEMU_COMPAT_H

/* QEMU 10.1 has moved them */
#if QEMU_VERSION_MAJOR > 10 || QEMU_VERSION_MINOR >= 1
#include "system/memory.h"
#include "system/ramblock.h"
#else
#include "exec/memory.h"
#include "exec/ramblock.h"
#endif

/* QEMU 10.1 lets multifd and post-copy go together */
#if QEMU_VERSION_MAJOR > 10 || QEMU_VERSION_MINOR >= 1
#define TLM_HAS_POSTCOPY true
#else
#define TLM_HAS_POSTCOPY false
#endif

#endif
