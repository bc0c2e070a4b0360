/*
 * TLM checkpoint: how much memory QEMU may still take
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TLM_MEMORY_LEFT_H
#define TLM_MEMORY_LEFT_H

/*
 * Bytes: what the host has to spare (MemAvailable), or less if a limit of
 * this process's memory cgroup, or of one above it, leaves less; v1 and v2.
 * UINT64_MAX if nothing is known.
 *
 * @root is put before /proc and the cgroups' mounts: "", but in tests.
 */
uint64_t tlm_memory_left(const char *root);

#endif
