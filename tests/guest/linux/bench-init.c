/*
 * Process 1 of the guests of scripts/bench
 *
 * Starts the workload (/run.sh, by busybox), says how it ended, and counts in
 * the page of counter.h that the guest is alive: every few ms, by a thread
 * that goes before all others, so that this count stands still when, and
 * only when, the whole guest does.
 *
 * With tlm_probe=N on the command line it also counts work on behalf of a
 * workload that does not: N threads of low weight count up beside it. They
 * get a fixed share of the vCPUs, whatever speed these have.
 *
 * Under other names this program is a command: "tlm-state ready" sets the
 * state, "tlm-wait" returns when the host asks to stop.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "counter.h"

#define ALIVE_NS 5000000
#define PROBE_NICE 10           /* a tenth of what a thread at 0 gets */
#define PROBE_STEP 20000        /* some tens of microseconds under TCG */

static volatile TlmCounter *counter;

_Noreturn static void die(const char *what)
{
    fprintf(stderr, "TLM-BENCH-FAILED %s: %s\n", what, strerror(errno));
    if (counter) {
        counter->state = TLM_FAILED;
    }
    for (;;) {
        pause();
    }
}

static void start(void *(*body)(void *))
{
    pthread_t thread;

    if (pthread_create(&thread, NULL, body, NULL)) {
        die("cannot start a thread");
    }
}

static void *alive_main(void *opaque)
{
    const struct sched_param param = { .sched_priority = 50 };
    const struct timespec pause = { .tv_nsec = ALIVE_NS };

    if (sched_setscheduler(0, SCHED_FIFO, &param)) {
        die("no real-time thread");
    }
    for (;;) {
        counter->alive++;
        nanosleep(&pause, NULL);
    }
    return opaque;
}

static void *probe_main(void *opaque)
{
    volatile unsigned i;

    if (setpriority(PRIO_PROCESS, syscall(SYS_gettid), PROBE_NICE)) {
        die("cannot lower the priority");
    }
    for (;;) {
        for (i = 0; i < PROBE_STEP; i++) {
        }
        tlm_counter_add(&counter->work, 1);
    }
    return opaque;
}

static void mount_on(const char *where, const char *kind)
{
    mkdir(where, 0755);
    if (mount(kind, where, kind, 0, NULL) && errno != EBUSY) {
        die(where);
    }
}

static int command(const char *name, const char *argument)
{
    const struct timespec pause = { .tv_nsec = 50000000 };

    if (!counter) {
        fprintf(stderr, "%s: no counter\n", name);
        return 1;
    }
    if (!strcmp(name, "tlm-wait")) {
        while (!counter->stop) {
            nanosleep(&pause, NULL);
        }
        return 0;
    }
    if (!strcmp(name, "tlm-state") && argument &&
        !strcmp(argument, "ready")) {
        counter->state = TLM_READY;
        return 0;
    }
    fprintf(stderr, "%s: what?\n", name);
    return 1;
}

static int run(void)
{
    static char *const argv[] = { "sh", "/run.sh", NULL };
    pid_t child = fork(), ended;
    int status;

    if (!child) {
        setsid();
        execv("/bin/busybox", argv);
        die("/bin/busybox");
    }
    do {
        ended = wait(&status);          /* of orphans, too */
    } while (ended != child && (ended > 0 || errno == EINTR));
    return status;
}

int main(int argc, char **argv)
{
    const char *name = strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1
                                             : argv[0];
    const char *offset, *probes;
    int fd, status, i;

    if (getpid() != 1) {
        counter = tlm_counter_open();
        return command(name, argc > 1 ? argv[1] : NULL);
    }
    mount_on("/dev", "devtmpfs");
    mount_on("/proc", "proc");
    mount_on("/sys", "sysfs");
    mount_on("/dev/shm", "tmpfs");
    mount_on("/tmp", "tmpfs");
    fd = open("/dev/console", O_RDWR);
    for (i = 0; fd >= 0 && i < 3; i++) {
        dup2(fd, i);
    }
    /* The kernel puts what it does not know itself into the environment */
    offset = getenv("tlm_counter");
    if (!offset) {
        die("no tlm_counter= on the command line");
    }
    setenv("TLM_COUNTER", "/dev/mem", 1);
    setenv("TLM_COUNTER_OFFSET", offset, 1);
    setenv("PATH", "/bin:/usr/bin:/usr/sbin:/sbin", 1);
    counter = tlm_counter_open();
    if (!counter) {
        die("cannot map the counter");
    }
    memset((void *)counter, 0, sizeof(*counter));
    start(alive_main);
    probes = getenv("tlm_probe");
    for (i = 0; probes && i < atoi(probes); i++) {
        start(probe_main);
    }
    counter->magic = TLM_COUNTER_MAGIC;

    status = run();
    printf("TLM-BENCH ended %s %d\n", WIFEXITED(status) ? "with status"
           : "by signal", WIFEXITED(status) ? WEXITSTATUS(status)
           : WTERMSIG(status));
    fflush(stdout);
    counter->state = status || !counter->stop ? TLM_FAILED : TLM_DONE;
    for (;;) {
        pause();
    }
}
