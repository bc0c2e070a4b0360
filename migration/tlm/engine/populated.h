/*
 * TLM: finds pages of guest RAM that were never populated
 *
 * A page of private anonymous memory that is neither present nor in swap
 * reads as zero.  The kernel's tables tell this at far less cost than reading
 * the page, which maps a page of zeros there.  Shared memory is read, but by
 * its file: reading a hole through the mapping would allocate it.
 *
 * The functions report only pages that are known to be zero.  They report
 * nothing when in doubt, when memory cannot be read, or when the kernel
 * answers for less than was asked for.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_POPULATED_H
#define TLM_POPULATED_H

#include "../pagemap.h"

/*
 * [@start, @start + @len) reads as zero; both are in bytes, @start from the
 * start of the range that was asked about.
 */
typedef void TlmZeroRun(void *opaque, uint64_t start, uint64_t len);

/*
 * Bytes of private anonymous memory in use by this process; 0: not known.
 * No locks, any thread, as for the functions below.
 */
uint64_t tlm_populated_resident(uint64_t page_size);

/*
 * Reports all of [@host, @host + @len) that is zero, in ascending order.  The
 * range is private anonymous memory of this process with pages of the host's
 * page size (or transparent huge pages), and @host is aligned to that size.
 * Returns false if the kernel did not answer for all of the range.
 */
bool tlm_populated_anon(TlmPagemap *p, const void *host, uint64_t len,
                        TlmZeroRun *found, void *opaque);

/*
 * The same for [@offset, @offset + @len) of a file that holds shared memory.
 * Reports something only for files of tmpfs, as memfd and POSIX shared memory
 * are.  Reads each hole that lseek() finds before reporting it.  This
 * allocates nothing and swaps nothing in.  Changes the file's position.
 */
bool tlm_populated_shmem(int fd, uint64_t page_size, uint64_t offset,
                         uint64_t len, TlmZeroRun *found, void *opaque);

#endif
