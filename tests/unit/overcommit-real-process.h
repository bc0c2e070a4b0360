/*
 * Tests of test-overcommit-real.c that need a process of their own: killed in
 * the middle, without privileges, in a sandbox
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef OVERCOMMIT_REAL_PROCESS_H
#define OVERCOMMIT_REAL_PROCESS_H

/* Runs @func in a child; returns its process id once it has written a byte */
static pid_t start_child(void (*func)(const Method *m, int fd),
                         const Method *m, char *byte)
{
    int fds[2];
    pid_t pid;

    g_assert_cmpint(pipe(fds), ==, 0);
    fflush(NULL);
    pid = fork();
    g_assert_cmpint(pid, >=, 0);
    if (!pid) {
        close(fds[0]);
        func(m, fds[1]);
        _exit(0);
    }
    close(fds[1]);
    child_pid = pid;
    if (read(fds[0], byte, 1) != 1) {
        *byte = 0;
    }
    close(fds[0]);
    return pid;
}

static int end_child(pid_t pid)
{
    int status;

    while (waitpid(pid, &status, 0) != pid) {
        /* interrupted */
    }
    return status;
}

static void say(int fd, char byte)
{
    g_assert_cmpint(write(fd, &byte, 1), ==, 1);
}

static void hold_until_killed(const Method *m, int fd)
{
    TlmOc *oc;

    start_all(false);
    oc = new_oc(m->method);
    if (!tlm_oc_apply(oc, tids, N_THREADS, 1, NULL) ||
        strcmp(tlm_oc_method_in_use(oc), m->name)) {
        tlm_oc_free(oc);
        say(fd, 's');
        return;
    }
    say(fd, 'h');
    for (;;) {
        pause();
    }
}

static unsigned count_groups(GPtrArray *paths, pid_t pid)
{
    unsigned n = 0;

    for (unsigned i = 0; i < paths->len; i++) {
        g_autofree char *name = g_path_get_basename(g_ptr_array_index(paths,
                                                                      i));

        n += is_group_of(name, pid);
    }
    return n;
}

/* kill -9 in the middle: the next process removes what is left */
static void test_killed(gconstpointer opaque)
{
    const Method *m = opaque;
    TlmOcConfig cfg = { 0 };
    g_autoptr(GPtrArray) removed = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GError) err = NULL;
    g_autofree char *before = snapshot();
    char byte;
    pid_t pid = start_child(hold_until_killed, m, &byte);

    if (byte != 'h') {
        g_assert_cmpint(byte, ==, 's');
        end_child(pid);
        g_test_skip("this method cannot be used here");
        return;
    }
    /* It lives: nothing is stale */
    g_assert_true(tlm_oc_cleanup_stale(&cfg, removed, &err));
    g_assert_cmpuint(count_groups(removed, pid), ==, 0);
    g_assert_cmpint(kill(pid, SIGKILL), ==, 0);
    end_child(pid);
    if (strcmp(m->name, "affinity")) {
        g_autofree char *left = snapshot();

        g_assert_cmpstr(left, !=, before);
    }
    g_assert_true(tlm_oc_cleanup_stale(&cfg, removed, &err));
    g_assert_no_error(err);
    g_assert_cmpuint(count_groups(removed, pid), ==,
                     strcmp(m->name, "affinity") ? 1 : 0);
    check_same(before);
}

/* Reports the method that AUTO comes to: a affinity, u unavailable, ? other */
static void hold_auto(int fd)
{
    g_autofree char *before = snapshot();
    TlmOc *oc = new_oc(TLM_OC_METHOD_AUTO);
    g_autoptr(GError) err = NULL;

    if (tlm_oc_apply(oc, tids, N_THREADS, 1, &err)) {
        bool affinity = !strcmp(tlm_oc_method_in_use(oc), "affinity");

        check_restore(oc, before);
        say(fd, affinity ? 'a' : '?');
    } else {
        g_assert_error(err, TLM_OC_ERROR, TLM_OC_ERROR_UNAVAILABLE);
        g_assert_nonnull(strstr(err->message, g_strerror(EPERM)));
        check_same(before);
        say(fd, 'u');
    }
    tlm_oc_free(oc);
}

static void as_nobody(const Method *m, int fd)
{
    if (setgid(NOBODY) || setuid(NOBODY)) {
        say(fd, 's');
        return;
    }
    start_all(false);
    hold_auto(fd);
}

/* sched_setaffinity gives EPERM, as under QEMU's -sandbox resourcecontrol=deny */
static void in_sandbox(const Method *m, int fd)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_sched_setaffinity, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { G_N_ELEMENTS(filter), filter };

    if (setgid(NOBODY) || setuid(NOBODY) ||
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) {
        say(fd, 's');
        return;
    }
    start_all(false);
    hold_auto(fd);
}

static void check_child(void (*func)(const Method *m, int fd), char want)
{
    char byte;
    pid_t pid = start_child(func, NULL, &byte);
    int status = end_child(pid);

    if (byte == 's') {
        g_test_skip("cannot become another user");
        return;
    }
    g_assert_cmpint(status, ==, 0);
    g_assert_cmpint(byte, ==, want);
}

static void test_nobody(void)
{
    check_child(as_nobody, 'a');
}

static void test_sandbox(void)
{
    check_child(in_sandbox, 'u');
}

#endif /* OVERCOMMIT_REAL_PROCESS_H */
