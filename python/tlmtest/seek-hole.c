/*
 * For LD_PRELOAD: lseek() that finds no data in a file, so many times as the
 * environment variable SEEK_HOLES says.  For shared memory the kernel does
 * that while it moves or collapses the pages that are left of the file.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static off_t seek(int fd, off_t offset, int whence)
{
    static atomic_int holes;
    const char *max = getenv("SEEK_HOLES");

    if (whence == SEEK_DATA && max &&
        atomic_fetch_add(&holes, 1) < atoi(max)) {
        fprintf(stderr, "TLM-SEEK-HOLE\n");
        errno = ENXIO;
        return -1;
    }
    return syscall(SYS_lseek, fd, offset, whence);
}

off_t lseek(int fd, off_t offset, int whence)
{
    return seek(fd, offset, whence);
}

off_t lseek64(int fd, off_t offset, int whence)
{
    return seek(fd, offset, whence);
}
