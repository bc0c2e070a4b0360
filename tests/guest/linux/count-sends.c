/*
 * LD_PRELOAD for the client of a server: each request that it sends is a unit
 * of work in the page of counter.h
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include <sys/socket.h>
#include <sys/syscall.h>

#include "counter.h"

static volatile TlmCounter *counter;

__attribute__((constructor))
static void open_counter(void)
{
    counter = tlm_counter_open();
}

static void count(int fd)
{
    if (counter && fd > STDERR_FILENO) {
        tlm_counter_add(&counter->work, 1);
    }
}

ssize_t write(int fd, const void *data, size_t size)
{
    count(fd);
    return syscall(SYS_write, fd, data, size);
}

ssize_t send(int fd, const void *data, size_t size, int flags)
{
    count(fd);
    return syscall(SYS_sendto, fd, data, size, flags, NULL, 0);
}
