/*
 * test-overcommit-real.c as process 1 of a virtual machine: a system with
 * cgroup v2 only, the test in a cgroup of its own
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef OVERCOMMIT_REAL_INIT_H
#define OVERCOMMIT_REAL_INIT_H

#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <glib/gstdio.h>

static void init_put(const char *path, const char *text)
{
    FILE *out = fopen(path, "w");

    if (!out || fputs(text, out) < 0 || fclose(out)) {
        printf("Bail out! writing '%s' to %s: %s\n", text, path,
               g_strerror(errno));
        reboot(RB_POWER_OFF);
    }
}

static void init_mount(const char *type, const char *where)
{
    if (g_mkdir_with_parents(where, 0755) || mount(type, where, type, 0, "")) {
        printf("Bail out! mounting %s: %s\n", type, g_strerror(errno));
        reboot(RB_POWER_OFF);
    }
}

/* Returns in the process that is to run the tests */
static void init_system(void)
{
    pid_t child;
    int status;

    setvbuf(stdout, NULL, _IOLBF, 0);
    init_mount("proc", "/proc");
    init_mount("sysfs", "/sys");
    init_mount("cgroup2", "/sys/fs/cgroup");
    init_mount("tmpfs", "/tmp");
    init_put("/sys/fs/cgroup/cgroup.subtree_control", "+cpuset +cpu");
    if (g_mkdir_with_parents("/sys/fs/cgroup/vm", 0755)) {
        printf("Bail out! making a cgroup: %s\n", g_strerror(errno));
        reboot(RB_POWER_OFF);
    }
    child = fork();
    if (!child) {
        init_put("/sys/fs/cgroup/vm/cgroup.procs", "0");
        return;
    }
    while (waitpid(child, &status, 0) != child) {
        /* interrupted */
    }
    printf("# exit status %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : -1);
    fflush(stdout);
    reboot(RB_POWER_OFF);
}

#endif /* OVERCOMMIT_REAL_INIT_H */
