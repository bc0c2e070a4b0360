/*
 * TLM checkpoint: how much memory QEMU may still take
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_MEMORY_LEFT_H
#define TLM_MEMORY_LEFT_H

/*
 * Bytes that this process can use before the kernel kills a process for
 * want of memory: what the host has available, and what the limits of
 * the cgroups (v2) that it is in leave.  UINT64_MAX if nothing is known.
 */
uint64_t tlm_memory_left(void);

#endif
