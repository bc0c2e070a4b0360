/*
 * TLM: which pages of guest RAM were never populated
 *
 * A page of private anonymous memory that is neither present nor in swap
 * reads as zero.  To find that out from the kernel's tables costs far less
 * than to read the page, which maps a page of zeros there.  Shared memory
 * is read, but by its file: to read a hole through the mapping would
 * allocate it.
 *
 * The functions report what is known to be zero, never what is not: when
 * in doubt, when something cannot be read, or when the kernel reports less
 * than was asked for, nothing is reported.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_POPULATED_H
#define TLM_POPULATED_H

#include "../pagemap.h"

/*
 * [@start, @start + @len) reads as zero; in bytes from the start of the
 * range that was asked about.
 */
typedef void TlmZeroRun(void *opaque, uint64_t start, uint64_t len);

/*
 * Bytes of private anonymous memory in use by this process; 0: not known.
 * No locks, any thread; the same goes for what follows.
 */
uint64_t tlm_populated_resident(uint64_t page_size);

/*
 * Reports all of [@host, @host + @len) that is zero, in ascending order:
 * private anonymous memory of this process with pages of the host's page
 * size (or transparent huge pages), @host aligned to it.  Returns false if
 * the kernel did not answer for all of the range.
 */
bool tlm_populated_anon(TlmPagemap *p, const void *host, uint64_t len,
                        TlmZeroRun *found, void *opaque);

/*
 * The same for [@offset, @offset + @len) of a file that holds shared
 * memory.  Reports nothing for any file but one of tmpfs, which memfd and
 * POSIX shared memory are.  What lseek() calls a hole is read before it is
 * reported: nothing is allocated by that, and nothing is swapped in.
 * Changes the file's position.
 */
bool tlm_populated_shmem(int fd, uint64_t page_size, uint64_t offset,
                         uint64_t len, TlmZeroRun *found, void *opaque);

#endif
