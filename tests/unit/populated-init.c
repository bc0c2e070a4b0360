/*
 * test-populated.c, or test-populated-moved.c, as process 1 of a virtual
 * machine: their main() is test_main() here
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/auxv.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include "populated-init.h"

#define INIT_SWAP_DEVICE "/dev/nvme0n1"

static void init_fail(const char *what)
{
    printf("Bail out! %s: %s\n", what, g_strerror(errno));
    fflush(stdout);
    reboot(RB_POWER_OFF);
}

static void init_mount(const char *type, const char *where)
{
    if (mkdir(where, 0755) < 0 && errno != EEXIST) {
        init_fail(where);
    }
    if (mount(type, where, type, 0, "") < 0) {
        init_fail(type);
    }
}

/* As mkswap(8) does, see linux/swap.h: a header of one page */
static void init_swap(void)
{
    const off_t page = getauxval(AT_PAGESZ);
    g_autofree uint8_t *header = g_malloc0(page);
    int fd = open(INIT_SWAP_DEVICE, O_RDWR | O_CLOEXEC);
    off_t size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
    uint32_t info[] = { 1 /* version */, size / page - 1 /* last page */ };

    memcpy(header + 1024, info, sizeof(info));
    memcpy(header + page - 10, "SWAPSPACE2", 10);
    if (size < 0 || pwrite(fd, header, page, 0) != page || fsync(fd) < 0 ||
        swapon(INIT_SWAP_DEVICE, 0) < 0) {
        init_fail("no swap on " INIT_SWAP_DEVICE);
    }
    close(fd);
}

/* Returns in the process that is to run the tests */
static void init_system(void)
{
    pid_t child;
    int status;

    setvbuf(stdout, NULL, _IOLBF, 0);
    init_mount("proc", "/proc");
    init_mount("sysfs", "/sys");
    init_mount("devtmpfs", "/dev");
    init_mount("tmpfs", "/tmp");
    init_swap();
    child = fork();
    if (!child) {
        return;
    }
    while (waitpid(child, &status, 0) != child) {
        /* interrupted, or another one */
    }
    printf("# exit status %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : -1);
    fflush(stdout);
    reboot(RB_POWER_OFF);
}

#undef main
int main(int argc, char **argv)
{
    char *args[] = { argv[0], (char *)"--tap", (char *)"-k", NULL };

    init_system();
    return test_main(3, args);
}
