/*
 * For LD_PRELOAD: the process is killed just before, or in the middle of, one
 * of its writes to a file whose name ends in ".part".
 *
 * The environment variable DIE_AT_WRITE names a file of 8 bytes, a number:
 * that of writes that are still to come.  0: the process is left alone.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

static _Atomic int64_t *left;

static void __attribute__((constructor)) init(void)
{
    const char *path = getenv("DIE_AT_WRITE");
    int fd = path ? open(path, O_RDWR) : -1;
    void *map;

    if (fd < 0) {
        return;
    }
    map = mmap(NULL, sizeof(*left), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (map != MAP_FAILED) {
        left = map;
    }
}

static int is_part(int fd)
{
    static const char end[] = ".part";
    char link[32], name[PATH_MAX];
    ssize_t len;

    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    len = readlink(link, name, sizeof(name));
    return len > (ssize_t)strlen(end) &&
           !memcmp(name + len - strlen(end), end, strlen(end));
}

/* Is this the one? */
static int last(int fd)
{
    int64_t before;

    if (!left || !atomic_load(left) || !is_part(fd)) {
        return 0;
    }
    before = atomic_fetch_sub(left, 1);
    if (before <= 0) {              /* another thread's was */
        atomic_store(left, 0);
        return 0;
    }
    return before == 1;
}

static void die(void)
{
    kill(getpid(), SIGKILL);
    for (;;) {
        pause();
    }
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define PWRITEV(name)                                                       \
    ssize_t name(int fd, const struct iovec *iov, int num, off_t at)        \
    {                                                                       \
        if (last(fd)) {                                                     \
            /* Half of it is in the file, as after a power failure */       \
            pwrite(fd, iov->iov_base, iov->iov_len / 2, at) < 0 ? (void)0 : \
                (void)0;                                                    \
            die();                                                          \
        }                                                                   \
        return NEXT(name)(fd, iov, num, at);                                \
    }

PWRITEV(pwritev)
PWRITEV(pwritev64)

ssize_t writev(int fd, const struct iovec *iov, int num)
{
    if (last(fd)) {
        die();
    }
    return NEXT(writev)(fd, iov, num);
}

int fdatasync(int fd)
{
    if (last(fd)) {
        die();
    }
    return NEXT(fdatasync)(fd);
}
