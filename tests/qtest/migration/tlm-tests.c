/*
 * QTest testcases for TLM, time-bound, thread-based live migration
 *
 * The guest writes to all pages from X86_TEST_MEM_START to
 * X86_TEST_MEM_END, over and over.  That is dtx's and stage 3's.  For mtx
 * there are pages above, that the guest never touches; the tests fill them
 * with a pattern and look for it at the destination.  With the bandwidth
 * held down, they keep mtx busy for more than a minute: time enough to
 * look at the live stage, or to break it.
 *
 * Capability 'tlm' is only ever set at the source: the destination, which
 * QTEST_QEMU_BINARY_DST can name, need not know it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"

#include <poll.h>
#include <sched.h>

#include "libqtest.h"
#include "migration/bootfile.h"
#include "migration/framework.h"
#include "migration/migration-qmp.h"
#include "migration/migration-util.h"
#include "qemu/bswap.h"
#include "qemu/sockets.h"
#include "qemu/units.h"
#include "qobject/qlist.h"
#include "qobject/qnum.h"
#include "qobject/qstring.h"
#ifdef CONFIG_GNUTLS
# include "crypto/tlscredspsk.h"
# include "tests/unit/crypto-tls-psk-helpers.h"
# ifdef CONFIG_TASN1
#  include "tests/unit/crypto-tls-x509-helpers.h"
# endif
#endif

/* A test does not hang when something does not happen */
#define TIMEOUT_S 120

/* Pages that the guest does not use */
#define PATTERN_START (X86_TEST_MEM_END + 4 * MiB)
#define PATTERN_SIZE (20 * MiB)
/* One that mtx comes by early */
#define MARKER (512 * KiB)
#define MARKER_VALUE 0xFEED12345678CAFEULL

/* Bytes a second */
#define HELD (256 * KiB)

#define MAX_CHANNELS 16

typedef struct TlmTest {
    MigrateStart start;
    const char *uri;                /* tcp:127.0.0.1:0 if not given */
    unsigned channels;              /* 2 if not given */
    unsigned dtx_channels;
    const char *caps[8];            /* for both sides */
    /* Before the destination listens; false: skipped */
    bool (*prepare)(QTestState *from, QTestState *to);
    /* In the live stage */
    void (*live)(QTestState *from, QTestState *to);
    void (*end)(void);
    bool no_tlm;
} TlmTest;

static char *tmpfs;
static QTestMigrationState dst_state;
/* Stages of the current migration, each with a comma behind it */
static GString *stages;

/*
 * Events that somebody waits for with qtest_qmp_eventwait() do not come by
 * here: do not do that on the source.
 */
static bool watch_source(QTestState *who, const char *name, QDict *event,
                         void *opaque)
{
    if (g_str_equal(name, "MIGRATION_TLM_STAGE")) {
        g_string_append_printf(stages, "%s,",
                               qdict_get_str(qdict_get_qdict(event, "data"),
                                             "stage"));
        return true;
    }
    return migrate_watch_for_events(who, name, event, get_src());
}

/* Waits a little, for what @func waits for; fails when the time is up */
static void wait_some(const char *func, int64_t start_us)
{
    if (g_get_monotonic_time() - start_us >= TIMEOUT_S * G_USEC_PER_SEC) {
        g_test_message("%s: not in time; stages %s", func, stages->str);
        g_assert_not_reached();
    }
    g_usleep(1000);
}

#define more_time(start_us) wait_some(__func__, start_us)

static uint64_t pattern(uint64_t addr)
{
    return addr * 0x9E3779B97F4A7C15ULL | 1;
}

static void fill_pattern(QTestState *from)
{
    g_autofree uint64_t *buf = g_malloc(64 * KiB);

    for (uint64_t addr = PATTERN_START; addr < PATTERN_START + PATTERN_SIZE;
         addr += 64 * KiB) {
        for (unsigned i = 0; i < 64 * KiB / 8; i++) {
            buf[i] = pattern(addr + i * 8);
        }
        qtest_bufwrite(from, addr, buf, 64 * KiB);
    }
    qtest_writeq(from, MARKER, MARKER_VALUE);
}

static void check_pattern(QTestState *to)
{
    g_autofree uint64_t *buf = g_malloc(64 * KiB);

    for (uint64_t addr = PATTERN_START; addr < PATTERN_START + PATTERN_SIZE;
         addr += 64 * KiB) {
        qtest_bufread(to, addr, buf, 64 * KiB);
        for (unsigned i = 0; i < 64 * KiB / 8; i++) {
            if (buf[i] != pattern(addr + i * 8)) {
                g_test_message("differs at 0x%" PRIx64, addr + i * 8);
            }
            g_assert_cmphex(buf[i], ==, pattern(addr + i * 8));
        }
    }
}

static bool guest_is_running(QTestState *who)
{
    QDict *rsp = qtest_qmp_assert_success_ref(
        who, "{ 'execute': 'query-status' }");
    bool running = qdict_get_bool(rsp, "running");

    qobject_unref(rsp);
    return running;
}

static void check_guest_runs(QTestState *who)
{
    int64_t start_us = g_get_monotonic_time();
    uint8_t byte;

    while (!guest_is_running(who)) {
        more_time(start_us);
    }
    byte = qtest_readb(who, X86_TEST_MEM_START);
    while (qtest_readb(who, X86_TEST_MEM_START) == byte) {
        more_time(start_us);
    }
}

/* Each of the words, separated by commas, is in the error's description */
static void check_error(QDict *err, const char *words)
{
    const char *desc = qdict_get_str(err, "desc");
    g_auto(GStrv) word = g_strsplit(words, ",", 0);

    for (unsigned i = 0; word[i]; i++) {
        if (!strstr(desc, word[i])) {
            g_test_message("'%s' does not say '%s'", desc, word[i]);
        }
        g_assert_nonnull(strstr(desc, word[i]));
    }
    qobject_unref(err);
}

static QDict *tlm_member(QDict *rsp)
{
    QDict *tlm = qdict_get_qdict(rsp, "tlm");

    g_assert_nonnull(tlm);
    return tlm;
}

static int64_t query_tlm_int(QTestState *from, const char *name)
{
    QDict *rsp = migrate_query(from);
    int64_t value = qdict_get_int(tlm_member(rsp), name);

    qobject_unref(rsp);
    return value;
}

static double number(QDict *dict, const char *name)
{
    QNum *num = qobject_to(QNum, qdict_get(dict, name));

    g_assert_nonnull(num);
    return qnum_get_double(num);
}

/* Until so many have begun */
static void wait_for_epochs(QTestState *from, int64_t epochs)
{
    int64_t start_us = g_get_monotonic_time();

    while (query_tlm_int(from, "epochs") < epochs) {
        more_time(start_us);
    }
}

static void wait_for_stage(QTestState *from, const char *stage)
{
    g_autofree char *what = g_strdup_printf("%s,", stage);
    int64_t start_us = g_get_monotonic_time();

    while (!g_str_has_suffix(stages->str, what)) {
        /* Any command will do to receive events */
        QDict *rsp = migrate_query(from);
        const char *error = qdict_get_try_str(rsp, "error-desc");

        if (error && !g_str_equal(stage, "done")) {
            g_test_message("in place of stage '%s': %s", stage, error);
            g_assert_null(error);
        }
        qobject_unref(rsp);
        more_time(start_us);
    }
}

static void wait_for_status(QTestState *from, const char *status)
{
    static const char *ungoals[] = { "completed", NULL };

    wait_for_migration_status(from, status, ungoals);
}

/* Memory is on its way */
static void wait_for_arrival(QTestState *from, QTestState *to, uint64_t value)
{
    int64_t start_us = g_get_monotonic_time();

    while (qtest_readq(to, MARKER) != value) {
        QDict *rsp = migrate_query_not_failed(from);

        qobject_unref(rsp);
        more_time(start_us);
    }
}

static bool has_yank_instance(QTestState *from)
{
    QDict *rsp = qtest_qmp(from, "{ 'execute': 'query-yank' }");
    QListEntry *entry;
    bool found = false;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(rsp, "return"), entry) {
        QDict *instance = qobject_to(QDict, qlist_entry_obj(entry));

        found |= g_str_equal(qdict_get_str(instance, "type"), "migration");
    }
    qobject_unref(rsp);
    return found;
}

static bool has_migration_threads(QTestState *from)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/task",
                                            qtest_pid(from));
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    bool found = false;
    const char *tid;

    g_assert_nonnull(dir);
    while ((tid = g_dir_read_name(dir))) {
        g_autofree char *file = g_strdup_printf("%s/%s/comm", path, tid);
        g_autofree char *comm = NULL;

        /* A thread may have ended by now */
        if (g_file_get_contents(file, &comm, NULL, NULL)) {
            found |= g_str_has_prefix(comm, "mig/src/");
        }
    }
    return found;
}

static unsigned count_sockets(QTestState *from)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/fd", qtest_pid(from));
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    unsigned count = 0;
    const char *fd;

    g_assert_nonnull(dir);
    while ((fd = g_dir_read_name(dir))) {
        g_autofree char *file = g_strdup_printf("%s/%s", path, fd);
        g_autofree char *link = g_file_read_link(file, NULL);

        count += link && g_str_has_prefix(link, "socket:");
    }
    return count;
}

/* All threads are joined, all sockets closed: another one may start */
static void check_nothing_left(QTestState *from, unsigned sockets)
{
    int64_t start_us = g_get_monotonic_time();
    QDict *rsp;

    while (has_yank_instance(from)) {
        more_time(start_us);
    }
    while (has_migration_threads(from)) {
        more_time(start_us);
    }
    while (count_sockets(from) != sockets) {
        more_time(start_us);
    }
    rsp = qtest_qmp(from, "{ 'execute': 'query-migrationthreads' }");
    g_assert_true(qlist_empty(qdict_get_qlist(rsp, "return")));
    qobject_unref(rsp);
}

static void set_cap_both(QTestState *from, QTestState *to, const char *cap)
{
    migrate_set_capability(from, cap, true);
    migrate_set_capability(to, cap, true);
}

/*
 * Starts the VMs, or a destination only.  The guest is at work in the
 * source when this returns, and the destination listens.
 */
static bool tlm_boot(QTestState **from, QTestState **to, const TlmTest *t)
{
    MigrateStart start = t->start;
    unsigned channels = t->channels ?: 2;

    if (migrate_start(from, to, "defer", &start)) {
        return false;
    }
    dst_state = (QTestMigrationState) {};
    qtest_qmp_set_event_callback(*to, migrate_watch_for_events, &dst_state);
    if (!start.only_target) {
        qtest_qmp_set_event_callback(*from, watch_source, NULL);
    }

    set_cap_both(*from, *to, "multifd");
    for (unsigned i = 0; t->caps[i]; i++) {
        set_cap_both(*from, *to, t->caps[i]);
    }
    migrate_set_parameter_int(*from, "multifd-channels", channels);
    migrate_set_parameter_int(*to, "multifd-channels", channels);
    if (!t->no_tlm) {
        migrate_set_capability(*from, "tlm", true);
        migrate_set_parameter_int(*from, "tlm-dtx-channels",
                                  t->dtx_channels);
    }
    if (t->prepare && !t->prepare(*from, *to)) {
        migrate_end(*from, *to, false);
        return false;
    }

    if (!start.only_target) {
        wait_for_serial("src_serial");
        fill_pattern(*from);
    }
    /* The last migration may have left something else here */
    qtest_writeq(*from, MARKER, MARKER_VALUE);
    if (!t->uri || !g_str_has_prefix(t->uri, "file:")) {
        migrate_incoming_qmp(*to, t->uri ?: "tcp:127.0.0.1:0", NULL, "{}");
    }
    return true;
}

/* @uri: where @to listens, if not given */
static void tlm_migrate(QTestState *from, QTestState *to, const char *uri,
                        uint64_t bandwidth)
{
    migrate_set_parameter_int(from, "max-bandwidth", bandwidth);
    migrate_set_parameter_int(from, "downtime-limit", 1);
    g_string_truncate(stages, 0);
    migrate_qmp(from, to, uri, NULL, "{}");
}

static void check_completed(QTestState *from)
{
    bool paused = strstr(stages->str, "pre-switchover");
    QDict *rsp = migrate_query(from);
    QDict *ram = qdict_get_qdict(rsp, "ram");
    QDict *tlm = tlm_member(rsp);
    QDict *down = qdict_get_qdict(tlm, "downtime");
    int64_t down_us = qdict_get_int(down, "vm-stop") +
                      qdict_get_int(down, "sync") +
                      qdict_get_int(down, "ram") +
                      qdict_get_int(down, "hold") +
                      qdict_get_int(down, "device") +
                      qdict_get_int(down, "switchover");
    int64_t sent = qdict_get_int(tlm, "mtx-bytes") +
                   qdict_get_int(tlm, "dtx-bytes") +
                   qdict_get_int(tlm, "stop-bytes");
    int64_t qemu_sent = (qdict_get_int(ram, "duplicate") +
                         qdict_get_int(ram, "normal")) *
                        qdict_get_int(ram, "page-size");

    g_assert_cmpstr(stages->str, ==, paused ?
                    "setup,live,stop,pre-switchover,device,done," :
                    "setup,live,stop,device,done,");
    g_assert_cmpstr(qdict_get_str(tlm, "stage"), ==, "done");
    g_assert_cmpfloat(number(tlm, "progress"), ==, 100);
    g_assert_cmpint(qdict_get_int(tlm, "eta"), ==, 0);

    /* All of RAM but what is zero anyway, and what was sent again */
    g_assert_cmpint(sent, ==, qdict_get_int(ram, "total") -
                              qdict_get_int(tlm, "skipped-bytes") +
                              qdict_get_int(tlm, "resent-bytes"));
    /* QEMU's own sync comes after TLM's last, and may find some more */
    g_assert_cmpint(qemu_sent, >=, sent);

    g_assert_cmpint(down_us, ==, qdict_get_int(rsp, "downtime") * 1000);
    qobject_unref(rsp);
}

/* Lets the migration run to its end, and checks both sides */
static void tlm_complete(QTestState *from, QTestState *to, bool no_tlm)
{
    int64_t start_us = g_get_monotonic_time();
    double progress = 0;
    int64_t passed = 0, epochs = 0;
    bool done = false;

    migrate_ensure_converge(from);
    while (!done) {
        QDict *rsp = migrate_query_not_failed(from);

        done = g_str_equal(qdict_get_str(rsp, "status"), "completed");
        g_assert_cmpint(qdict_haskey(rsp, "tlm"), ==, !no_tlm);
        if (!no_tlm) {
            QDict *tlm = tlm_member(rsp);

            g_assert_cmpfloat(number(tlm, "progress"), >=, progress);
            g_assert_cmpfloat(number(tlm, "progress"), <=, 100);
            g_assert_cmpint(qdict_get_int(tlm, "passed-bytes"), >=, passed);
            g_assert_cmpint(qdict_get_int(tlm, "epochs"), >=, epochs);
            progress = number(tlm, "progress");
            passed = qdict_get_int(tlm, "passed-bytes");
            epochs = qdict_get_int(tlm, "epochs");
        }
        qobject_unref(rsp);
        more_time(start_us);
    }
    wait_for_stop(from, get_src());
    if (no_tlm) {
        g_assert_cmpstr(stages->str, ==, "");
    } else {
        g_assert_cmpint(epochs, >, 0);
        wait_for_stage(from, "done");
        check_completed(from);
    }
    wait_for_migration_complete(to);
    wait_for_resume(to, &dst_state);
    wait_for_serial("dest_serial");
    check_pattern(to);
}

static void test_tlm(const TlmTest *t)
{
    QTestState *from, *to;

    if (!tlm_boot(&from, &to, t)) {
        return;
    }
    tlm_migrate(from, to, NULL, HELD);
    if (!t->no_tlm) {
        wait_for_stage(from, "live");
    }
    wait_for_arrival(from, to, MARKER_VALUE);
    g_assert_true(guest_is_running(from));
    if (t->live) {
        t->live(from, to);
    }
    tlm_complete(from, to, t->no_tlm);
    migrate_end(from, to, true);
    if (t->end) {
        t->end();
    }
}

/*
 * After something went wrong: the guest runs on at the source, nothing is
 * left of the migration, and the next one, to a fresh destination,
 * completes.  Ends both VMs.
 */
static void check_recovers(QTestState *from, unsigned sockets,
                           const TlmTest *t)
{
    TlmTest again = *t;
    QTestState *to;

    check_guest_runs(from);
    check_nothing_left(from, sockets);
    /* The first is empty if it did not get as far as RAM */
    g_assert_true(stages->len == 0 ||
                  g_str_has_suffix(stages->str, "done,"));

    migrate_set_capability(from, "pause-before-switchover", false);
    again.start.only_target = true;
    again.start.hide_stderr = false;
    again.prepare = NULL;
    g_assert_true(tlm_boot(&from, &to, &again));
    tlm_migrate(from, to, NULL, HELD);
    wait_for_stage(from, "live");
    wait_for_arrival(from, to, MARKER_VALUE);
    tlm_complete(from, to, false);
    migrate_end(from, to, true);
}

/*
 * A crash of the destination, if it has not ended before: one whose stream
 * breaks may wait for its multifd channels forever.  The guest has not run
 * there, or it would have written to its serial port.
 *
 * Frees nothing: libqtest takes the signal for a failure of the test.
 */
static void kill_target(QTestState *to)
{
    g_autofree char *serial = g_strdup_printf("%s/dest_serial", tmpfs);
    g_autofree char *out = NULL;
    pid_t pid = qtest_pid(to);

    g_assert_cmpint(kill(pid, SIGKILL), ==, 0);
    g_assert_cmpint(RETRY_ON_EINTR(waitpid(pid, NULL, 0)), ==, pid);
    qtest_remove_abrt_handler(to);

    g_assert_true(g_file_get_contents(serial, &out, NULL, NULL));
    g_assert_cmpstr(out, ==, "");
}

/*
 * A forwarder between source and destination, which can stop to forward,
 * and reset one of the connections.  It knows the multifd channels by the
 * id in their first packet.
 */
#define PROXY_MAIN -1
#define PROXY_UNKNOWN -2

/* A multifd channel's first packet: MultiFDInit_t in migration/multifd.c */
#define MULTIFD_MAGIC 0x11223344U
#define MULTIFD_ID_OFFSET 24

typedef struct ProxyPipe {
    int from, to;
    char *buf;
    size_t start, len;
    uint64_t bytes;
    bool eof;
} ProxyPipe;

typedef struct ProxyConn {
    int id;
    bool open;
    ProxyPipe pipe[2];              /* towards the destination, and back */
} ProxyConn;

typedef struct Proxy {
    char *uri;                      /* for the source to connect to */
    int listener, wake[2];
    bool only_first;                /* other connections are not served */
    struct sockaddr_in target;
    GThread *thread;
    ProxyConn conn[MAX_CHANNELS + 1];   /* thread */
    unsigned nr_conns;              /* thread */
    GMutex lock;                    /* protects what follows */
    bool stalled, quit;
    int reset_id;                   /* PROXY_UNKNOWN: none */
    uint64_t bytes[MAX_CHANNELS];   /* to the destination */
} Proxy;

static void proxy_close(ProxyConn *c, bool reset)
{
    struct linger now = { .l_onoff = 1 };

    if (!c->open) {
        return;
    }
    for (unsigned i = 0; i < 2; i++) {
        if (reset) {
            setsockopt(c->pipe[i].from, SOL_SOCKET, SO_LINGER, &now,
                       sizeof(now));
        }
        close(c->pipe[i].from);
        g_free(c->pipe[i].buf);
    }
    c->open = false;
}

static void proxy_accept(Proxy *p)
{
    ProxyConn *c = &p->conn[p->nr_conns];
    int in = accept4(p->listener, NULL, NULL, SOCK_CLOEXEC);
    int out = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    g_assert_cmpint(in, >=, 0);
    g_assert_cmpint(p->nr_conns, <, ARRAY_SIZE(p->conn));
    if (connect(out, (struct sockaddr *)&p->target, sizeof(p->target))) {
        /* The destination is gone */
        close(out);
        close(in);
        return;
    }
    g_assert_true(g_unix_set_fd_nonblocking(in, true, NULL));
    g_assert_true(g_unix_set_fd_nonblocking(out, true, NULL));
    *c = (ProxyConn) {
        .id = PROXY_UNKNOWN,
        .open = true,
        .pipe = { { .from = in, .to = out, .buf = g_malloc(64 * KiB) },
                  { .from = out, .to = in, .buf = g_malloc(64 * KiB) } },
    };
    p->nr_conns++;
}

/* False: not enough has come to tell; what has come stays in the socket */
static bool proxy_identify(ProxyConn *c)
{
    uint8_t head[MULTIFD_ID_OFFSET + 1];
    ssize_t len;

    if (c->id != PROXY_UNKNOWN) {
        return true;
    }
    len = recv(c->pipe[0].from, head, sizeof(head), MSG_PEEK);
    if (len >= 4 && ldl_be_p(head) != MULTIFD_MAGIC) {
        c->id = PROXY_MAIN;
    } else if (len == sizeof(head)) {
        c->id = head[MULTIFD_ID_OFFSET];
        g_assert_cmpint(c->id, <, MAX_CHANNELS);
    } else {
        /* At the end of the stream, nothing is left to tell it by */
        return len == 0;
    }
    return true;
}

/* False: the connection is broken */
static bool proxy_forward(ProxyPipe *pipe)
{
    ssize_t len;

    if (!pipe->len && !pipe->eof) {
        len = read(pipe->from, pipe->buf, 64 * KiB);
        if (len < 0) {
            return errno == EAGAIN;
        }
        if (len == 0) {
            pipe->eof = true;
            shutdown(pipe->to, SHUT_WR);
        }
        pipe->start = 0;
        pipe->len = len;
    }
    if (pipe->len) {
        len = send(pipe->to, pipe->buf + pipe->start, pipe->len,
                   MSG_NOSIGNAL);
        if (len < 0) {
            return errno == EAGAIN;
        }
        pipe->start += len;
        pipe->len -= len;
        pipe->bytes += len;
    }
    return true;
}

static void proxy_conn_events(ProxyConn *c, bool stalled, GArray *fds)
{
    for (unsigned i = 0; i < 2; i++) {
        ProxyPipe *in = &c->pipe[i], *out = &c->pipe[!i];
        struct pollfd fd = { .fd = in->from };

        /* With no events, poll() tells of resets all the same */
        if (!stalled && !in->len && !in->eof) {
            fd.events |= POLLIN;
        }
        if (!stalled && out->len) {
            fd.events |= POLLOUT;
        }
        g_array_append_val(fds, fd);
    }
}

static void proxy_conn_run(ProxyConn *c, const struct pollfd *fd,
                           bool stalled)
{
    if ((fd[0].revents | fd[1].revents) & (POLLERR | POLLNVAL)) {
        proxy_close(c, true);
        return;
    }
    if (stalled || !proxy_identify(c)) {
        return;
    }
    for (unsigned i = 0; i < 2; i++) {
        if (!proxy_forward(&c->pipe[i])) {
            proxy_close(c, true);
            return;
        }
    }
    if (c->pipe[0].eof && c->pipe[1].eof) {
        proxy_close(c, false);
    }
}

static void *proxy_thread(void *opaque)
{
    Proxy *p = opaque;
    g_autoptr(GArray) fds = g_array_new(false, true, sizeof(struct pollfd));

    while (true) {
        struct pollfd fd[2] = {
            { .fd = p->listener, .events = POLLIN },
            { .fd = p->wake[0], .events = POLLIN },
        };
        unsigned nr_conns = p->nr_conns;
        unsigned at = ARRAY_SIZE(fd);
        bool stalled, quit;
        int reset_id;
        char c;

        g_mutex_lock(&p->lock);
        stalled = p->stalled;
        quit = p->quit;
        reset_id = p->reset_id;
        p->reset_id = PROXY_UNKNOWN;
        for (unsigned i = 0; i < nr_conns; i++) {
            if (p->conn[i].id >= 0) {
                p->bytes[p->conn[i].id] = p->conn[i].pipe[0].bytes;
            }
        }
        g_mutex_unlock(&p->lock);

        for (unsigned i = 0; i < nr_conns; i++) {
            if (quit) {
                proxy_close(&p->conn[i], false);
            } else if (reset_id != PROXY_UNKNOWN &&
                       p->conn[i].id == reset_id) {
                proxy_close(&p->conn[i], true);
            }
        }
        if (quit) {
            return NULL;
        }

        g_array_set_size(fds, 0);
        g_array_append_vals(fds, fd, ARRAY_SIZE(fd));
        for (unsigned i = 0; i < nr_conns; i++) {
            if (p->conn[i].open) {
                proxy_conn_events(&p->conn[i],
                                  stalled || (i && p->only_first), fds);
            }
        }
        if (poll((struct pollfd *)fds->data, fds->len, -1) < 0) {
            g_assert_cmpint(errno, ==, EINTR);
            continue;
        }
        for (unsigned i = 0; i < nr_conns; i++) {
            if (p->conn[i].open) {
                proxy_conn_run(&p->conn[i],
                               &g_array_index(fds, struct pollfd, at),
                               stalled || (i && p->only_first));
                at += 2;
            }
        }
        if (g_array_index(fds, struct pollfd, 1).revents) {
            g_assert_cmpint(read(p->wake[0], &c, 1), ==, 1);
        }
        if (g_array_index(fds, struct pollfd, 0).revents) {
            proxy_accept(p);
        }
    }
}

static struct sockaddr_in loopback(unsigned port)
{
    return (struct sockaddr_in) {
        .sin_family = AF_INET,
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
        .sin_port = htons(port),
    };
}

static int listen_loopback(unsigned *port, int backlog)
{
    struct sockaddr_in addr = loopback(0);
    socklen_t len = sizeof(addr);
    /* Accepted sockets inherit it: little fits into a stalled connection */
    int fd, size = 64 * KiB;

    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size,
                               sizeof(size)), ==, 0);
    g_assert_cmpint(bind(fd, (struct sockaddr *)&addr, len), ==, 0);
    g_assert_cmpint(listen(fd, backlog), ==, 0);
    g_assert_cmpint(getsockname(fd, (struct sockaddr *)&addr, &len), ==, 0);
    *port = ntohs(addr.sin_port);
    return fd;
}

static Proxy *proxy_new(QTestState *to)
{
    g_autofree char *uri = migrate_get_connect_uri(to);
    Proxy *p = g_new0(Proxy, 1);
    unsigned port;

    g_assert_true(g_str_has_prefix(uri, "tcp:127.0.0.1:"));
    p->target = loopback(atoi(strrchr(uri, ':') + 1));
    p->listener = listen_loopback(&port, 2 * MAX_CHANNELS);
    p->uri = g_strdup_printf("tcp:127.0.0.1:%u", port);
    p->reset_id = PROXY_UNKNOWN;
    g_mutex_init(&p->lock);
    g_assert_true(g_unix_open_pipe(p->wake, FD_CLOEXEC, NULL));
    p->thread = g_thread_new("proxy", proxy_thread, p);
    return p;
}

static void proxy_wake(Proxy *p)
{
    g_assert_cmpint(write(p->wake[1], "", 1), ==, 1);
}

static void proxy_stall(Proxy *p, bool stalled)
{
    g_mutex_lock(&p->lock);
    p->stalled = stalled;
    g_mutex_unlock(&p->lock);
    proxy_wake(p);
}

static void proxy_reset(Proxy *p, int id)
{
    g_mutex_lock(&p->lock);
    p->reset_id = id;
    g_mutex_unlock(&p->lock);
    proxy_wake(p);
}

static uint64_t proxy_bytes(Proxy *p, unsigned id)
{
    uint64_t bytes;

    g_mutex_lock(&p->lock);
    bytes = p->bytes[id];
    g_mutex_unlock(&p->lock);
    return bytes;
}

static void proxy_free(Proxy *p)
{
    g_mutex_lock(&p->lock);
    p->quit = true;
    g_mutex_unlock(&p->lock);
    proxy_wake(p);
    g_thread_join(p->thread);
    close(p->listener);
    close(p->wake[0]);
    close(p->wake[1]);
    g_mutex_clear(&p->lock);
    g_free(p->uri);
    g_free(p);
}

/* Transports and features of multifd */

static void test_plain(void)
{
    test_tlm(&(TlmTest) {});
}

static void test_unix(void)
{
    g_autofree char *uri = g_strdup_printf("unix:%s/migsocket", tmpfs);

    test_tlm(&(TlmTest) { .uri = uri });
}

/* Capability off: nothing of TLM shows */
static void test_off(void)
{
    test_tlm(&(TlmTest) { .no_tlm = true });
}

static void test_channels(void *opaque)
{
    g_autofree char *name = g_path_get_basename(opaque);
    g_auto(GStrv) number = g_strsplit(name, "-", 2);

    test_tlm(&(TlmTest) {
        .channels = atoi(number[0]),
        .dtx_channels = number[1] ? atoi(number[1]) : 0,
    });
}

static void set_both(QTestState *from, QTestState *to, const char *name,
                     const char *value)
{
    migrate_set_parameter_str(from, name, value);
    migrate_set_parameter_str(to, name, value);
}

static bool prepare_zlib(QTestState *from, QTestState *to)
{
    set_both(from, to, "multifd-compression", "zlib");
    return true;
}

static void test_zlib(void)
{
    test_tlm(&(TlmTest) { .channels = 4, .prepare = prepare_zlib });
}

#ifdef CONFIG_ZSTD
static bool prepare_zstd(QTestState *from, QTestState *to)
{
    set_both(from, to, "multifd-compression", "zstd");
    return true;
}

static void test_zstd(void)
{
    test_tlm(&(TlmTest) { .channels = 4, .prepare = prepare_zstd });
}
#endif

static bool prepare_no_zero_page(QTestState *from, QTestState *to)
{
    migrate_set_parameter_str(from, "zero-page-detection", "none");
    return true;
}

static void test_no_zero_page(void)
{
    test_tlm(&(TlmTest) { .prepare = prepare_no_zero_page });
}

#ifdef CONFIG_LINUX
static bool prepare_zero_copy(QTestState *from, QTestState *to)
{
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int ret;
    QDict *rsp;

    g_assert_cmpint(fd, >=, 0);
    ret = setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &one, sizeof(one));
    close(fd);
    if (ret) {
        g_test_skip("the kernel does not offer SO_ZEROCOPY");
        return false;
    }
    rsp = qtest_qmp(from, "{ 'execute': 'migrate-set-capabilities',"
                          "  'arguments': { 'capabilities': [ {"
                          "      'capability': 'zero-copy-send',"
                          "      'state': true } ] } }");
    if (qdict_haskey(rsp, "error")) {
        g_test_skip(qdict_get_str(qdict_get_qdict(rsp, "error"), "desc"));
        qobject_unref(rsp);
        return false;
    }
    qobject_unref(rsp);
    return true;
}

static void test_zero_copy(void)
{
    test_tlm(&(TlmTest) { .prepare = prepare_zero_copy });
}
#endif

#ifdef CONFIG_GNUTLS
static char *tls_dir;

static char *tls_file(const char *name)
{
    return g_strdup_printf("%s/%s", tls_dir, name);
}

static void tls_add(QTestState *who, const char *type, const char *endpoint)
{
    bool client = g_str_equal(endpoint, "client");
    bool psk = g_str_equal(type, "tls-creds-psk");

    if (psk && client) {
        qtest_qmp_assert_success(
            who, "{ 'execute': 'object-add',"
            "  'arguments': { 'qom-type': %s, 'id': 'creds',"
            "                 'endpoint': %s, 'dir': %s,"
            "                 'username': 'qemu' } }",
            type, endpoint, tls_dir);
    } else {
        qtest_qmp_assert_success(
            who, "{ 'execute': 'object-add',"
            "  'arguments': { 'qom-type': %s, 'id': 'creds',"
            "                 'endpoint': %s, 'dir': %s,"
            "                 'verify-peer': %i } }",
            type, endpoint, tls_dir, !psk);
    }
    migrate_set_parameter_str(who, "tls-creds", "creds");
}

static bool prepare_tls_psk(QTestState *from, QTestState *to)
{
    g_autofree char *key = NULL;

    tls_dir = g_strdup_printf("%s/tlm-tls", tmpfs);
    key = tls_file(QCRYPTO_TLS_CREDS_PSKFILE);
    g_assert_cmpint(g_mkdir_with_parents(tls_dir, 0700), ==, 0);
    test_tls_psk_init(key);
    tls_add(from, "tls-creds-psk", "client");
    tls_add(to, "tls-creds-psk", "server");
    return true;
}

static void end_tls_psk(void)
{
    g_autofree char *key = tls_file(QCRYPTO_TLS_CREDS_PSKFILE);

    test_tls_psk_cleanup(key);
    rmdir(tls_dir);
    g_clear_pointer(&tls_dir, g_free);
}

static void test_tls_psk(void)
{
    test_tlm(&(TlmTest) {
        .channels = 4, .prepare = prepare_tls_psk, .end = end_tls_psk,
    });
}

#ifdef CONFIG_TASN1
static bool prepare_tls_x509(QTestState *from, QTestState *to)
{
    g_autofree char *key = NULL;
    g_autofree char *cacert = NULL;
    g_autofree char *servercert = NULL;
    g_autofree char *serverkey = NULL;
    g_autofree char *clientcert = NULL;
    g_autofree char *clientkey = NULL;

    tls_dir = g_strdup_printf("%s/tlm-tls", tmpfs);
    key = tls_file("key.pem");
    cacert = tls_file("ca-cert.pem");
    servercert = tls_file("server-cert.pem");
    serverkey = tls_file("server-key.pem");
    clientcert = tls_file("client-cert.pem");
    clientkey = tls_file("client-key.pem");
    g_assert_cmpint(g_mkdir_with_parents(tls_dir, 0700), ==, 0);
    test_tls_init(key);
    g_assert_cmpint(link(key, serverkey), ==, 0);
    g_assert_cmpint(link(key, clientkey), ==, 0);

    TLS_ROOT_REQ_SIMPLE(cacertreq, cacert);
    TLS_CERT_REQ_SIMPLE_CLIENT(clientcertreq, cacertreq, "tlm.example.org",
                               clientcert);
    TLS_CERT_REQ_SIMPLE_SERVER(servercertreq, cacertreq, servercert, NULL,
                               "127.0.0.1");
    test_tls_deinit_cert(&clientcertreq);
    test_tls_deinit_cert(&servercertreq);
    test_tls_deinit_cert(&cacertreq);

    tls_add(from, "tls-creds-x509", "client");
    tls_add(to, "tls-creds-x509", "server");
    return true;
}

static void end_tls_x509(void)
{
    static const char *const names[] = {
        "ca-cert.pem", "server-cert.pem", "server-key.pem",
        "client-cert.pem", "client-key.pem",
    };
    g_autofree char *key = tls_file("key.pem");

    for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
        g_autofree char *file = tls_file(names[i]);

        unlink(file);
    }
    test_tls_cleanup(key);
    rmdir(tls_dir);
    g_clear_pointer(&tls_dir, g_free);
}

static void test_tls_x509(void)
{
    test_tlm(&(TlmTest) {
        .channels = 4, .prepare = prepare_tls_x509, .end = end_tls_x509,
    });
}
#endif /* CONFIG_TASN1 */
#endif /* CONFIG_GNUTLS */

/* Machine types before 8.1 */
static void test_flush_each_section(void)
{
    const char *old = "-global migration.multifd-flush-after-each-section=on";

    test_tlm(&(TlmTest) {
        .start.opts_source = old, .start.opts_target = old, .channels = 4,
    });
}

/* What libvirt turns on, but for the pause, see below */
static void test_return_path(void)
{
    test_tlm(&(TlmTest) {
        .caps = { "return-path", "switchover-ack", "late-block-activate" },
    });
}

static void live_pause(QTestState *from, QTestState *to)
{
    migrate_ensure_converge(from);
    wait_for_status(from, "pre-switchover");
    g_assert_false(guest_is_running(from));
    wait_for_stage(from, "pre-switchover");
    g_assert_cmpstr(stages->str, ==, "setup,live,stop,pre-switchover,");
    migrate_continue(from, "pre-switchover");
}

static void test_libvirt(void)
{
    test_tlm(&(TlmTest) {
        .caps = { "return-path", "switchover-ack", "late-block-activate",
                  "pause-before-switchover" },
        .live = live_pause,
    });
}

/* The guest is paused, and stays so at the destination */
static void test_paused(void)
{
    QTestState *from, *to;

    if (!tlm_boot(&from, &to, &(TlmTest) {})) {
        return;
    }
    qtest_qmp_assert_success(from, "{ 'execute': 'stop' }");
    tlm_migrate(from, to, NULL, 1000 * MiB);
    wait_for_migration_complete(from);
    wait_for_stage(from, "done");
    check_completed(from);
    wait_for_migration_complete(to);
    g_assert_false(dst_state.resume_seen);
    g_assert_false(guest_is_running(to));
    check_pattern(to);
    qtest_qmp_assert_success(to, "{ 'execute': 'cont' }");
    wait_for_resume(to, &dst_state);
    wait_for_serial("dest_serial");
    migrate_end(from, to, true);
}

/* To a file */

static void test_file_tlm(const TlmTest *t, bool stop)
{
    QTestState *from, *to;
    g_autofree char *uri = g_strdup_printf("file:%s/%s", tmpfs,
                                           FILE_TEST_FILENAME);
    TlmTest file = *t;

    file.uri = uri;
    file.channels = 4;
    file.caps[0] = "mapped-ram";
    if (!tlm_boot(&from, &to, &file)) {
        return;
    }
    if (stop) {
        qtest_qmp_assert_success(from, "{ 'execute': 'stop' }");
    }
    tlm_migrate(from, to, uri, 1000 * MiB);
    wait_for_migration_complete(from);
    wait_for_stage(from, "done");
    check_completed(from);

    migrate_incoming_qmp(to, uri, NULL, "{}");
    wait_for_migration_complete(to);
    if (stop) {
        qtest_qmp_assert_success(to, "{ 'execute': 'cont' }");
    }
    wait_for_resume(to, &dst_state);
    wait_for_serial("dest_serial");
    check_pattern(to);
    migrate_end(from, to, true);
}

static void test_file(void)
{
    test_file_tlm(&(TlmTest) {}, false);
}

static void test_file_paused(void)
{
    test_file_tlm(&(TlmTest) {}, true);
}

static bool prepare_direct_io(QTestState *from, QTestState *to)
{
    migrate_set_parameter_bool(from, "direct-io", true);
    migrate_set_parameter_bool(to, "direct-io", true);
    return true;
}

static void test_file_direct_io(void)
{
    if (!probe_o_direct_support(tmpfs)) {
        g_test_skip("Filesystem does not support O_DIRECT");
        return;
    }
    test_file_tlm(&(TlmTest) { .prepare = prepare_direct_io }, false);
}

/* The live stage */

/*
 * mtx has come by the marker.  Who else than dtx could send it again,
 * before the guest is stopped?
 */
static void live_dtx(QTestState *from, QTestState *to)
{
    g_assert_cmpint(query_tlm_int(from, "mtx-bytes"), >, 0);
    for (unsigned i = 1; i <= 3; i++) {
        qtest_writeq(from, MARKER, MARKER_VALUE + i);
        wait_for_arrival(from, to, MARKER_VALUE + i);
        g_assert_true(guest_is_running(from));
        g_assert_cmpint(query_tlm_int(from, "dtx-bytes"), >=,
                        i * TEST_MEM_PAGE_SIZE);
    }
    g_assert_cmpint(query_tlm_int(from, "resent-bytes"), >=,
                    3 * TEST_MEM_PAGE_SIZE);
    g_assert_cmpstr(stages->str, ==, "setup,live,");
}

static void test_dtx(void)
{
    test_tlm(&(TlmTest) { .live = live_dtx });
}

static bool prepare_dtx_off(QTestState *from, QTestState *to)
{
    migrate_set_parameter_bool(from, "tlm-dtx", false);
    return true;
}

/* Pages that dtx would send: dirty, and not written to for a while */
static int64_t settled_bytes(QTestState *from, int64_t *epochs)
{
    QDict *rsp = migrate_query_not_failed(from);
    QDict *tlm = tlm_member(rsp);
    int64_t bytes = qdict_get_int(tlm, "dirty-bytes") -
                    qdict_get_int(tlm, "hot-bytes");

    *epochs = qdict_get_int(tlm, "epochs");
    qobject_unref(rsp);
    return bytes;
}

/* What dtx does not send, stage 3 does */
static void test_dtx_off(void)
{
    TlmTest t = { .prepare = prepare_dtx_off };
    int64_t start_us, first, epochs;
    QTestState *from, *to;

    if (!tlm_boot(&from, &to, &t)) {
        return;
    }
    tlm_migrate(from, to, NULL, HELD);
    wait_for_stage(from, "live");
    wait_for_arrival(from, to, MARKER_VALUE);
    qtest_writeq(from, MARKER, MARKER_VALUE + 1);
    start_us = g_get_monotonic_time();
    while (!settled_bytes(from, &first)) {
        more_time(start_us);
    }
    /* It stays so, although there is time to send it */
    do {
        g_assert_cmpint(settled_bytes(from, &epochs), >, 0);
        more_time(start_us);
    } while (epochs < first + 3);
    g_assert_cmphex(qtest_readq(to, MARKER), ==, MARKER_VALUE);
    g_assert_cmpint(query_tlm_int(from, "dtx-bytes"), ==, 0);
    g_assert_cmpstr(stages->str, ==, "setup,live,");

    tlm_complete(from, to, false);
    g_assert_cmphex(qtest_readq(to, MARKER), ==, MARKER_VALUE + 1);
    g_assert_cmpint(query_tlm_int(from, "dtx-bytes"), ==, 0);
    g_assert_cmpint(query_tlm_int(from, "stop-bytes"), >, 0);
    migrate_end(from, to, true);
}

static bool prepare_epoch(QTestState *from, QTestState *to)
{
    migrate_set_parameter_int(from, "tlm-epoch", 100);
    return true;
}

/* Can be changed while it runs */
static void live_epoch(QTestState *from, QTestState *to)
{
    static const unsigned ms[] = { 20, 200, 0 };

    for (unsigned i = 0; i < ARRAY_SIZE(ms); i++) {
        int64_t epochs = query_tlm_int(from, "epochs");

        migrate_set_parameter_int(from, "tlm-epoch", ms[i]);
        wait_for_epochs(from, epochs + 2);
    }
    g_assert_cmpstr(stages->str, ==, "setup,live,");
}

static void test_epoch(void)
{
    test_tlm(&(TlmTest) { .prepare = prepare_epoch, .live = live_epoch });
}

/*
 * In the live stage, what is sent stays below the cap.  The clock is read
 * before and after: a busy host can make this test lenient, not fail.
 */
static void live_bandwidth(QTestState *from, QTestState *to)
{
    const int64_t cap = MiB, window_us = 4 * G_USEC_PER_SEC;
    int64_t start_us, first;

    migrate_set_parameter_int(from, "max-bandwidth", cap);
    /* Taken over by now */
    wait_for_epochs(from, query_tlm_int(from, "epochs") + 2);
    start_us = g_get_monotonic_time();
    first = read_ram_property_int(from, "transferred");
    while (g_get_monotonic_time() - start_us < window_us) {
        int64_t sent = read_ram_property_int(from, "transferred") - first;
        int64_t us = g_get_monotonic_time() - start_us;

        g_assert_cmpstr(stages->str, ==, "setup,live,");
        if (us > G_USEC_PER_SEC) {
            g_assert_cmpint(sent, <=,
                            cap * us / G_USEC_PER_SEC / 100 * 105);
        }
        g_usleep(1000);
    }
    /* It does send */
    g_assert_cmpint(read_ram_property_int(from, "transferred"), >, first);
}

static void test_bandwidth(void)
{
    test_tlm(&(TlmTest) { .channels = 4, .live = live_bandwidth });
}

static void live_threads(QTestState *from, QTestState *to)
{
    static const char *const names[] = { "mig/src/mtx", "mig/src/dtx" };
    QDict *rsp = qtest_qmp(from, "{ 'execute': 'query-migrationthreads' }");
    int64_t tid[2] = {};
    QListEntry *entry;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(rsp, "return"), entry) {
        QDict *thread = qobject_to(QDict, qlist_entry_obj(entry));

        for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
            if (g_str_equal(qdict_get_str(thread, "name"), names[i])) {
                g_assert_cmpint(tid[i], ==, 0);
                tid[i] = qdict_get_int(thread, "thread-id");
            }
        }
    }
    qobject_unref(rsp);

    /* They are threads of this process, under these names */
    g_assert_cmpint(tid[0], !=, tid[1]);
    for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
        g_autofree char *comm = NULL;
        g_autofree char *file = g_strdup_printf(
            "/proc/%d/task/%" PRId64 "/comm", qtest_pid(from), tid[i]);

        g_assert_true(g_file_get_contents(file, &comm, NULL, NULL));
        g_assert_cmpstr(g_strchomp(comm), ==, names[i]);
    }
}

static void test_threads(void)
{
    QTestState *from, *to;
    unsigned sockets;

    if (!tlm_boot(&from, &to, &(TlmTest) {})) {
        return;
    }
    sockets = count_sockets(from);
    tlm_migrate(from, to, NULL, HELD);
    wait_for_stage(from, "live");
    /* A thread is known once it runs, and at the end of an epoch it has */
    wait_for_epochs(from, 2);
    live_threads(from, to);
    tlm_complete(from, to, false);
    check_nothing_left(from, sockets);
    migrate_end(from, to, true);
}

/* Each channel is used, and the groups are what tlm-dtx-channels says */
static void test_groups(void)
{
    TlmTest t = { .channels = 3, .dtx_channels = 1 };
    QTestState *from, *to;
    uint64_t before;
    Proxy *proxy;
    int64_t start_us;

    if (!tlm_boot(&from, &to, &t)) {
        return;
    }
    proxy = proxy_new(to);
    tlm_migrate(from, to, proxy->uri, HELD);
    wait_for_stage(from, "live");
    wait_for_arrival(from, to, MARKER_VALUE);
    live_dtx(from, to);
    tlm_complete(from, to, false);
    /* Stage 3 takes all channels: some 100 MiB over three of them */
    start_us = g_get_monotonic_time();
    for (unsigned i = 0; i < 3; i++) {
        do {
            before = proxy_bytes(proxy, i);
            more_time(start_us);
        } while (before < 4 * MiB);
    }
    g_assert_cmpint(proxy_bytes(proxy, 3), ==, 0);
    proxy_free(proxy);
    migrate_end(from, to, true);
}

static void check_no_switchover(QTestState *from)
{
    check_error(qtest_qmp_assert_failure_ref(
                    from, "{ 'execute': 'migrate-tlm-switchover' }"),
                "live stage");
}

/* Ends the live stage, although most of RAM has not been sent */
static void test_switchover(void)
{
    QTestState *from, *to;

    if (!tlm_boot(&from, &to, &(TlmTest) {})) {
        return;
    }
    check_no_switchover(from);
    tlm_migrate(from, to, NULL, HELD);
    wait_for_stage(from, "live");
    wait_for_arrival(from, to, MARKER_VALUE);
    g_assert_cmpint(query_tlm_int(from, "unsent-bytes"), >,
                    PATTERN_SIZE / 2);
    qtest_qmp_assert_success(from,
                             "{ 'execute': 'migrate-tlm-switchover' }");
    /* With the bandwidth still held down: it does not bind stage 3 */
    wait_for_migration_complete(from);
    wait_for_stage(from, "done");
    check_completed(from);
    check_no_switchover(from);
    g_assert_cmpint(query_tlm_int(from, "stop-bytes"), >,
                    PATTERN_SIZE / 2);
    wait_for_migration_complete(to);
    wait_for_resume(to, &dst_state);
    wait_for_serial("dest_serial");
    check_pattern(to);
    migrate_end(from, to, true);
}

/* Things that go wrong */

static void test_cancel_setup(void)
{
    TlmTest t = { .start.hide_stderr = true };
    QTestState *from, *to;
    unsigned sockets;

    if (!tlm_boot(&from, &to, &t)) {
        return;
    }
    sockets = count_sockets(from);
    tlm_migrate(from, to, NULL, HELD);
    migrate_cancel(from);
    wait_for_status(from, "cancelled");
    kill_target(to);
    check_recovers(from, sockets, &t);
}

/*
 * Somewhere that does not accept connections: its queue of them is full
 */
typedef struct Deaf {
    char *uri;
    int listener, queued[4];
} Deaf;

static void deaf_open(Deaf *d)
{
    unsigned port;

    d->listener = listen_loopback(&port, 0);
    d->uri = g_strdup_printf("tcp:127.0.0.1:%u", port);
    for (unsigned i = 0; i < ARRAY_SIZE(d->queued); i++) {
        struct sockaddr_in addr = loopback(port);

        d->queued[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC |
                                       SOCK_NONBLOCK, 0);
        g_assert_cmpint(d->queued[i], >=, 0);
        if (connect(d->queued[i], (struct sockaddr *)&addr, sizeof(addr))) {
            g_assert_cmpint(errno, ==, EINPROGRESS);
        }
    }
}

/* Who still connects is refused */
static void deaf_close(Deaf *d)
{
    for (unsigned i = 0; i < ARRAY_SIZE(d->queued); i++) {
        close(d->queued[i]);
    }
    close(d->listener);
    g_free(d->uri);
}

static void check_in_setup(QTestState *from)
{
    for (unsigned i = 0; i < 10; i++) {
        g_autofree char *status = migrate_query_status(from);

        g_assert_cmpstr(status, ==, "setup");
    }
}

static void test_cancel_setup_deaf(void)
{
    TlmTest t = { .start.hide_stderr = true };
    QTestState *from, *to;
    unsigned sockets;
    Deaf deaf;

    if (!tlm_boot(&from, &to, &t)) {
        return;
    }
    deaf_open(&deaf);
    sockets = count_sockets(from);
    tlm_migrate(from, to, deaf.uri, HELD);
    check_in_setup(from);
    migrate_cancel(from);
    wait_for_status(from, "cancelled");
    g_assert_cmpstr(stages->str, ==, "");
    deaf_close(&deaf);
    qtest_quit(to);
    check_recovers(from, sockets, &t);
}

/* ms: long enough to see that the migration is in setup first */
#define SETUP_BOUND 1000

/* With a time bound, nobody waits longer than that for a connection */
static void check_bound_ends_setup(QTestState *from, const char *error)
{
    QDict *rsp;

    wait_for_status(from, "failed");
    rsp = migrate_query(from);
    g_assert_nonnull(strstr(qdict_get_str(rsp, "error-desc"), error));
    qobject_unref(rsp);
    check_guest_runs(from);
    migrate_set_parameter_int(from, "tlm-time-bound", 0);
}

/* A thread of QEMU is still in connect(): the next one has to wait */
static void check_refused_meanwhile(QTestState *from)
{
    g_assert_true(has_yank_instance(from));
    check_error(qtest_qmp_assert_failure_ref(
                    from, "{ 'execute': 'migrate',"
                          "  'arguments': { 'uri': 'tcp:127.0.0.1:1' } }"),
                "not been cleaned up");
}

static void test_bound_setup_deaf(void)
{
    TlmTest t = { .start.hide_stderr = true };
    QTestState *from, *to;
    unsigned sockets;
    Deaf deaf;

    if (!tlm_boot(&from, &to, &t)) {
        return;
    }
    deaf_open(&deaf);
    sockets = count_sockets(from);
    migrate_set_parameter_int(from, "tlm-time-bound", SETUP_BOUND);
    tlm_migrate(from, to, deaf.uri, HELD);
    check_in_setup(from);
    check_bound_ends_setup(from, "could not be connected within");
    g_assert_cmpstr(stages->str, ==, "");
    check_refused_meanwhile(from);
    deaf_close(&deaf);
    qtest_quit(to);
    check_recovers(from, sockets, &t);
}

#ifdef CONFIG_GNUTLS
/*
 * Connections are accepted, and then nothing is said in the handshake: on
 * none of them, or on all but the main one.
 */
static void check_silent_tls(bool main_is_served, bool bound)
{
    TlmTest t = {
        .start.hide_stderr = true, .prepare = prepare_tls_psk,
        .end = end_tls_psk,
    };
    QTestState *from, *to;
    unsigned sockets;
    Proxy *proxy;

    if (!tlm_boot(&from, &to, &t)) {
        return;
    }
    proxy = proxy_new(to);
    proxy->only_first = main_is_served;
    proxy_stall(proxy, !main_is_served);
    sockets = count_sockets(from);
    if (bound) {
        migrate_set_parameter_int(from, "tlm-time-bound", SETUP_BOUND);
    }
    tlm_migrate(from, to, proxy->uri, HELD);
    check_in_setup(from);
    if (bound) {
        check_bound_ends_setup(from, "could not be connected within");
    } else {
        migrate_cancel(from);
        wait_for_status(from, "cancelled");
    }
    if (!main_is_served) {
        /* Else QEMU may find out when RAM has been set up */
        g_assert_cmpstr(stages->str, ==, "");
    }
    proxy_free(proxy);
    kill_target(to);
    migrate_set_parameter_str(from, "tls-creds", "");
    t.end = NULL;
    check_recovers(from, sockets, &t);
    end_tls_psk();
}

static void test_bound_silent_tls(void)
{
    check_silent_tls(false, true);
}

static void test_bound_silent_tls_channels(void)
{
    check_silent_tls(true, true);
}

static void test_cancel_silent_tls(void)
{
    check_silent_tls(false, false);
}

static void test_cancel_silent_tls_channels(void)
{
    check_silent_tls(true, false);
}
#endif /* CONFIG_GNUTLS */

static void test_cancel_live(void)
{
    TlmTest t = { .start.hide_stderr = true, .channels = 4 };
    QTestState *from, *to;
    unsigned sockets;

    if (!tlm_boot(&from, &to, &t)) {
        return;
    }
    sockets = count_sockets(from);
    tlm_migrate(from, to, NULL, HELD);
    wait_for_stage(from, "live");
    wait_for_arrival(from, to, MARKER_VALUE);
    migrate_cancel(from);
    wait_for_status(from, "cancelled");
    g_assert_cmpstr(stages->str, ==, "setup,live,done,");
    kill_target(to);
    check_recovers(from, sockets, &t);
}

/* The destination does not read: mtx waits in sendmsg() */
static void test_cancel_live_stalled(void)
{
    TlmTest t = { .start.hide_stderr = true };
    QTestState *from, *to;
    int64_t start_us;
    unsigned sockets;
    Proxy *proxy;

    if (!tlm_boot(&from, &to, &t)) {
        return;
    }
    sockets = count_sockets(from);
    proxy = proxy_new(to);
    proxy_stall(proxy, true);
    tlm_migrate(from, to, proxy->uri, 1000 * MiB);
    wait_for_stage(from, "live");
    start_us = g_get_monotonic_time();
    while (query_tlm_int(from, "mtx-bytes") < MiB) {
        more_time(start_us);
    }
    check_guest_runs(from);
    migrate_cancel(from);
    wait_for_status(from, "cancelled");
    g_assert_cmpstr(stages->str, ==, "setup,live,done,");
    proxy_free(proxy);
    kill_target(to);
    check_recovers(from, sockets, &t);
}

static void test_cancel_pre_switchover(void)
{
    TlmTest t = {
        .start.hide_stderr = true, .caps = { "pause-before-switchover" },
    };
    QTestState *from, *to;
    unsigned sockets;

    if (!tlm_boot(&from, &to, &t)) {
        return;
    }
    sockets = count_sockets(from);
    tlm_migrate(from, to, NULL, 1000 * MiB);
    wait_for_status(from, "pre-switchover");
    g_assert_false(guest_is_running(from));
    migrate_cancel(from);
    wait_for_status(from, "cancelled");
    g_assert_cmpstr(stages->str, ==, "setup,live,stop,pre-switchover,done,");
    kill_target(to);
    t.caps[0] = NULL;
    check_recovers(from, sockets, &t);
}

/*
 * To the door of stage stop, with 100 MiB to send in there: more than all
 * sockets hold.  Pages that are not all zero make it certain; what the guest
 * itself writes in them comes by zero.
 */
static void to_full_stop(QTestState *from, QTestState *to, const char *uri)
{
    tlm_migrate(from, to, uri, HELD);
    wait_for_stage(from, "live");
    wait_for_arrival(from, to, MARKER_VALUE);
    for (uint64_t addr = X86_TEST_MEM_START; addr < X86_TEST_MEM_END;
         addr += TEST_MEM_PAGE_SIZE) {
        qtest_writeq(from, addr + 8, MARKER_VALUE);
    }
}

/* Into that stage; the bandwidth that is held down does not bind it */
static void into_stop(QTestState *from)
{
    qtest_qmp_assert_success(from,
                             "{ 'execute': 'migrate-tlm-switchover' }");
    wait_for_stage(from, "stop");
}

/* The same through a proxy that has stopped to forward */
static void into_stalled_stop(QTestState *from, QTestState *to, Proxy *proxy)
{
    to_full_stop(from, to, proxy->uri);
    proxy_stall(proxy, true);
    into_stop(from);
    /* QMP still answers, again and again */
    for (unsigned i = 0; i < 10; i++) {
        g_assert_false(guest_is_running(from));
        g_assert_cmpint(query_tlm_int(from, "epochs"), >, 0);
    }
    g_assert_cmpstr(stages->str, ==, "setup,live,stop,");
}

static void test_cancel_stop(void)
{
    TlmTest t = { .start.hide_stderr = true, .channels = 3 };
    QTestState *from, *to;
    unsigned sockets;
    Proxy *proxy;

    if (!tlm_boot(&from, &to, &t)) {
        return;
    }
    sockets = count_sockets(from);
    proxy = proxy_new(to);
    into_stalled_stop(from, to, proxy);
    migrate_cancel(from);
    wait_for_status(from, "cancelled");
    g_assert_cmpstr(stages->str, ==, "setup,live,stop,done,");
    proxy_free(proxy);
    kill_target(to);
    check_recovers(from, sockets, &t);
}

static void check_param_taken(QTestState *vm, const char *name,
                              const char *json)
{
    g_autofree char *cmd = g_strdup_printf(
        "{ 'execute': 'migrate-set-parameters',"
        "  'arguments': { '%s': %s } }", name, json);
    QDict *rsp;

    qtest_qmp_send_raw(vm, "%s", cmd);
    rsp = qtest_qmp_receive(vm);
    if (!qdict_haskey(rsp, "return")) {
        g_test_message("'%s' does not take %s", name, json);
    }
    g_assert_true(qdict_haskey(rsp, "return"));
    qobject_unref(rsp);
}

#define STEP(progress, cpus) \
    "{ 'progress': " progress ", 'cpus': " cpus " }"

/* The threads of the vCPUs; ends with 0 */
static pid_t *vcpu_threads(QTestState *vm)
{
    g_autoptr(GArray) tids = g_array_new(true, false, sizeof(pid_t));
    QDict *rsp = qtest_qmp(vm, "{ 'execute': 'query-cpus-fast' }");
    QListEntry *entry;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(rsp, "return"), entry) {
        QDict *cpu = qobject_to(QDict, qlist_entry_obj(entry));
        pid_t tid = qdict_get_int(cpu, "thread-id");

        g_array_append_val(tids, tid);
    }
    qobject_unref(rsp);
    return (pid_t *)g_array_free(g_steal_pointer(&tids), false);
}

/* On which CPUs, and in which cgroups, a thread may run */
static char *thread_cpus(QTestState *vm, pid_t tid)
{
    static const char key[] = "\nCpus_allowed_list:\t";
    g_autofree char *path = g_strdup_printf("/proc/%d/task/%d/status",
                                            qtest_pid(vm), tid);
    g_autofree char *text = NULL;
    const char *list;

    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    list = strstr(text, key);
    g_assert_nonnull(list);
    list += strlen(key);
    return g_strndup(list, strcspn(list, "\n"));
}

static char *placement(QTestState *vm, const pid_t *tids)
{
    g_autoptr(GString) all = g_string_new(NULL);

    for (; *tids; tids++) {
        g_autofree char *path = g_strdup_printf("/proc/%d/task/%d/cgroup",
                                                qtest_pid(vm), *tids);
        g_autofree char *cpus = thread_cpus(vm, *tids);
        g_autofree char *groups = NULL;

        /* A kernel may have no cgroups */
        g_file_get_contents(path, &groups, NULL, NULL);
        g_string_append_printf(all, "%d: %s\n%s", *tids, cpus,
                               groups ?: "");
    }
    return g_strdup(all->str);
}

static unsigned overcommit_cpus(QTestState *from, char **method)
{
    QDict *rsp = migrate_query(from);
    QDict *tlm = tlm_member(rsp);
    unsigned cpus = qdict_get_try_int(tlm, "overcommit-cpus", 0);

    *method = g_strdup(qdict_get_try_str(tlm, "overcommit-method"));
    qobject_unref(rsp);
    return cpus;
}

static void start_overcommit(QTestState *from, QTestState *to,
                             const char *method, const pid_t *tids)
{
    g_autofree char *used = NULL;
    int64_t start_us;

    migrate_set_parameter_str(from, "tlm-overcommit-method", method);
    check_param_taken(from, "tlm-overcommit", "[" STEP("0", "1") "]");
    tlm_migrate(from, to, NULL, HELD);
    wait_for_stage(from, "live");
    start_us = g_get_monotonic_time();
    while (overcommit_cpus(from, &used) != 1) {
        g_clear_pointer(&used, g_free);
        more_time(start_us);
    }
    g_test_message("by %s", used);
    if (g_str_equal(used, "affinity") || strstr(used, "cpuset")) {
        for (unsigned i = 0; tids[i]; i++) {
            g_autofree char *cpus = thread_cpus(from, tids[i]);

            /* A single one */
            g_assert_cmpuint(strspn(cpus, "0123456789"), ==, strlen(cpus));
        }
    } else {
        g_assert_cmpstr(used, ==, "throttle");
    }
}

/* The placement of every vCPU thread is what it was */
static void test_cancel_overcommit(void *opaque)
{
    g_autofree char *method = g_path_get_basename(opaque);
    TlmTest t = {
        .start.hide_stderr = true,
        .start.opts_source = "-smp 3", .start.opts_target = "-smp 3",
    };
    g_autofree char *before = NULL, *after = NULL, *used = NULL;
    g_autofree pid_t *tids = NULL;
    QTestState *from, *to;
    unsigned sockets;
    cpu_set_t one;

    if (!tlm_boot(&from, &to, &t)) {
        return;
    }
    sockets = count_sockets(from);
    tids = vcpu_threads(from);
    /* One of them pinned */
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    g_assert_cmpint(sched_setaffinity(tids[1], sizeof(one), &one), ==, 0);
    before = placement(from, tids);

    start_overcommit(from, to, method, tids);
    wait_for_arrival(from, to, MARKER_VALUE);
    migrate_cancel(from);
    wait_for_status(from, "cancelled");
    wait_for_stage(from, "done");
    after = placement(from, tids);
    g_assert_cmpstr(after, ==, before);
    g_assert_cmpuint(overcommit_cpus(from, &used), ==, 0);
    kill_target(to);
    check_recovers(from, sockets, &t);
}

static void test_killed_live(void)
{
    TlmTest t = { .start.hide_stderr = true };
    QTestState *from, *to;
    unsigned sockets;

    if (!tlm_boot(&from, &to, &t)) {
        return;
    }
    sockets = count_sockets(from);
    tlm_migrate(from, to, NULL, HELD);
    wait_for_stage(from, "live");
    wait_for_arrival(from, to, MARKER_VALUE);
    kill_target(to);
    wait_for_status(from, "failed");
    wait_for_stage(from, "done");
    g_assert_cmpstr(stages->str, ==, "setup,live,done,");
    check_recovers(from, sockets, &t);
}

static void test_killed_stop(void)
{
    TlmTest t = { .start.hide_stderr = true };
    QTestState *from, *to;
    unsigned sockets;

    if (!tlm_boot(&from, &to, &t)) {
        return;
    }
    sockets = count_sockets(from);
    to_full_stop(from, to, NULL);
    g_assert_cmpint(kill(qtest_pid(to), SIGSTOP), ==, 0);
    into_stop(from);
    g_assert_false(guest_is_running(from));
    kill_target(to);
    wait_for_status(from, "failed");
    wait_for_stage(from, "done");
    g_assert_cmpstr(stages->str, ==, "setup,live,stop,done,");
    check_recovers(from, sockets, &t);
}

static int channel_id(const char *name)
{
    return g_str_equal(name, "mtx") ? 0 : g_str_equal(name, "dtx") ? 1 :
           PROXY_MAIN;
}

static void check_failed(QTestState *from)
{
    QDict *rsp;

    wait_for_status(from, "failed");
    wait_for_stage(from, "done");
    rsp = migrate_query(from);
    g_assert_cmpstr(qdict_get_try_str(rsp, "error-desc") ?: "", !=, "");
    qobject_unref(rsp);
}

static void test_broken_live(void *opaque)
{
    g_autofree char *channel = g_path_get_basename(opaque);
    TlmTest t = { .start.hide_stderr = true };
    QTestState *from, *to;
    unsigned sockets;
    Proxy *proxy;

    if (!tlm_boot(&from, &to, &t)) {
        return;
    }
    sockets = count_sockets(from);
    proxy = proxy_new(to);
    tlm_migrate(from, to, proxy->uri, HELD);
    wait_for_stage(from, "live");
    wait_for_arrival(from, to, MARKER_VALUE);
    proxy_reset(proxy, channel_id(channel));
    check_failed(from);
    g_assert_cmpstr(stages->str, ==, "setup,live,done,");
    proxy_free(proxy);
    kill_target(to);
    check_recovers(from, sockets, &t);
}

static void test_broken_stop(void *opaque)
{
    g_autofree char *channel = g_path_get_basename(opaque);
    int id = channel_id(channel);
    TlmTest t = { .start.hide_stderr = true };
    QTestState *from, *to;
    unsigned sockets;
    Proxy *proxy;

    if (!tlm_boot(&from, &to, &t)) {
        return;
    }
    sockets = count_sockets(from);
    proxy = proxy_new(to);
    into_stalled_stop(from, to, proxy);
    proxy_reset(proxy, id);
    if (id == PROXY_MAIN) {
        /* Nobody looks at it before the channels have sent all */
        proxy_stall(proxy, false);
    }
    check_failed(from);
    g_assert_cmpstr(stages->str, ==, "setup,live,stop,done,");
    proxy_free(proxy);
    kill_target(to);
    check_recovers(from, sockets, &t);
}

static void do_yank(QTestState *from)
{
    qtest_qmp_assert_success(from, "{ 'execute': 'yank', 'arguments': {"
                                   "  'instances': [ {"
                                   "      'type': 'migration' } ] } }");
}

static void test_yank_live(void)
{
    TlmTest t = { .start.hide_stderr = true };
    QTestState *from, *to;
    unsigned sockets;

    if (!tlm_boot(&from, &to, &t)) {
        return;
    }
    sockets = count_sockets(from);
    tlm_migrate(from, to, NULL, HELD);
    wait_for_stage(from, "live");
    wait_for_arrival(from, to, MARKER_VALUE);
    do_yank(from);
    check_failed(from);
    g_assert_cmpstr(stages->str, ==, "setup,live,done,");
    kill_target(to);
    check_recovers(from, sockets, &t);
}

static void test_yank_stop(void)
{
    TlmTest t = { .start.hide_stderr = true };
    QTestState *from, *to;
    unsigned sockets;
    Proxy *proxy;

    if (!tlm_boot(&from, &to, &t)) {
        return;
    }
    sockets = count_sockets(from);
    proxy = proxy_new(to);
    into_stalled_stop(from, to, proxy);
    do_yank(from);
    check_failed(from);
    proxy_free(proxy);
    kill_target(to);
    check_recovers(from, sockets, &t);
}

/* Many in one process; then one that completes */
static void test_cancel_repeated(void)
{
    TlmTest t = { .start.hide_stderr = true }, again = t;
    QTestState *from, *to;
    unsigned sockets;

    if (!tlm_boot(&from, &to, &t)) {
        return;
    }
    sockets = count_sockets(from);
    again.start.only_target = true;
    for (unsigned i = 0; i < 5; i++) {
        if (i) {
            g_assert_true(tlm_boot(&from, &to, &again));
        }
        /* The fast ones shall not get past the end before they are cancelled */
        migrate_set_capability(from, "pause-before-switchover", i % 2);
        tlm_migrate(from, to, NULL, i % 2 ? 1000 * MiB : HELD);
        if (i % 2 == 0) {
            wait_for_stage(from, "live");
        }
        migrate_cancel(from);
        /* The last thing that can still fail may be past */
        wait_for_status(from, "cancelled");
        kill_target(to);
        check_guest_runs(from);
        check_nothing_left(from, sockets);
    }
    check_recovers(from, sockets, &t);
}

/* What is refused */

static QDict *set_cap(QTestState *who, const char *cap, bool on)
{
    return qtest_qmp(who, "{ 'execute': 'migrate-set-capabilities',"
                          "  'arguments': { 'capabilities': [ {"
                          "      'capability': %s, 'state': %i } ] } }",
                     cap, on);
}

static void check_cap_refused(QDict *rsp, const char *cap)
{
    g_autofree char *words = g_strdup_printf("'tlm',%s", cap);
    QDict *err = qdict_get_qdict(rsp, "error");

    g_assert_nonnull(err);
    qobject_ref(err);
    check_error(err, words);
    qobject_unref(rsp);
}

static void test_caps_excluded(void)
{
    static const struct {
        const char *cap;
        bool optional;              /* not every host or build offers it */
    } excluded[] = {
        { "postcopy-ram" }, { "xbzrle" }, { "auto-converge" },
        { "dirty-limit", true }, { "background-snapshot", true },
        { "x-colo", true }, { "rdma-pin-all" }, { "release-ram" },
    };
    QTestState *vm = qtest_init("-machine none");

    for (unsigned i = 0; i < ARRAY_SIZE(excluded); i++) {
        const char *cap = excluded[i].cap;
        QDict *rsp = set_cap(vm, cap, true);

        if (qdict_haskey(rsp, "error")) {
            g_test_message("%s", qdict_get_str(qdict_get_qdict(rsp, "error"),
                                               "desc"));
            g_assert_true(excluded[i].optional);
            qobject_unref(rsp);
            continue;
        }
        qobject_unref(rsp);

        /* It first, then 'tlm' */
        check_cap_refused(set_cap(vm, "tlm", true), cap);
        migrate_set_capability(vm, cap, false);
        /* 'tlm' first */
        migrate_set_capability(vm, "tlm", true);
        check_cap_refused(set_cap(vm, cap, true), cap);
        migrate_set_capability(vm, "tlm", false);
        /* Both at once */
        rsp = qtest_qmp(vm, "{ 'execute': 'migrate-set-capabilities',"
                            "  'arguments': { 'capabilities': ["
                            "    { 'capability': 'tlm', 'state': true },"
                            "    { 'capability': %s, 'state': true } ] } }",
                        cap);
        check_cap_refused(rsp, cap);
        /* Nothing has stuck */
        migrate_set_capability(vm, cap, true);
        migrate_set_capability(vm, cap, false);
    }
    qtest_quit(vm);
}

static void check_start_refused(QTestState *vm, const char *uri,
                                const char *words)
{
    QDict *rsp;

    check_error(qtest_qmp_assert_failure_ref(
                    vm, "{ 'execute': 'migrate',"
                        "  'arguments': { 'uri': %s } }", uri), words);
    rsp = migrate_query(vm);
    g_assert_false(qdict_haskey(rsp, "tlm"));
    qobject_unref(rsp);
}

static void test_start_refused(void)
{
    g_autofree char *file = g_strdup_printf("file:%s/%s", tmpfs,
                                            FILE_TEST_FILENAME);
    g_autofree char *unix_uri = g_strdup_printf("unix:%s/migsocket", tmpfs);
    const char *uri = "tcp:127.0.0.1:1";
    QTestState *vm = qtest_init("-machine none");

    /* Either order: what is missing is only said at the start */
    migrate_set_capability(vm, "tlm", true);
    check_start_refused(vm, uri, "'tlm','multifd'");
    migrate_set_capability(vm, "multifd", true);

    migrate_set_parameter_int(vm, "multifd-channels", 1);
    check_start_refused(vm, uri, "'tlm',multifd-channels,2");
    for (unsigned channels = 2; channels <= 8; channels *= 2) {
        g_autofree char *words = g_strdup_printf(
            "tlm-dtx-channels,multifd-channels,%u", channels);

        migrate_set_parameter_int(vm, "multifd-channels", channels);
        migrate_set_parameter_int(vm, "tlm-dtx-channels", channels);
        check_start_refused(vm, uri, words);
        migrate_set_parameter_int(vm, "tlm-dtx-channels", 255);
        check_start_refused(vm, uri, words);
    }
    migrate_set_parameter_int(vm, "tlm-dtx-channels", 0);

    migrate_set_parameter_str(vm, "zero-page-detection", "legacy");
    /* 'multifd' loses pages to an older destination: never advised alone */
    check_start_refused(vm, uri, "'tlm',zero-page-detection,legacy,'none',"
                        "'multifd' if the destination is QEMU 9.0 or later");
    migrate_set_capability(vm, "tlm", false);
    migrate_set_capability(vm, "tlm", true);
    check_start_refused(vm, unix_uri, "'tlm',zero-page-detection,legacy");
    migrate_set_parameter_str(vm, "zero-page-detection", "multifd");

    migrate_set_parameter_str(vm, "mode", "cpr-reboot");
    check_start_refused(vm, uri, "'tlm',mode");
    migrate_set_parameter_str(vm, "mode", "normal");

    /* Only one connection */
    check_start_refused(vm, "exec:cat>/dev/null", "multi-channel");
    check_start_refused(vm, "fd:none", "multi-channel");
#ifdef CONFIG_RDMA
    check_start_refused(vm, "rdma:127.0.0.1:1", "multi-channel");
#endif
    check_start_refused(vm, file, "");
    qtest_quit(vm);
    unlink(file + strlen("file:"));
}

static void check_param_refused_saying(QTestState *vm, const char *name,
                                       const char *json, const char *says)
{
    g_autofree char *cmd = g_strdup_printf(
        "{ 'execute': 'migrate-set-parameters',"
        "  'arguments': { '%s': %s } }", name, json);
    QDict *before = qtest_qmp_assert_success_ref(
        vm, "{ 'execute': 'query-migrate-parameters' }");
    QDict *after, *rsp;

    qtest_qmp_send_raw(vm, "%s", cmd);
    rsp = qtest_qmp_receive(vm);
    if (!qdict_haskey(rsp, "error")) {
        g_test_message("'%s' takes %s", name, json);
    }
    g_assert_true(qdict_haskey(rsp, "error"));
    check_error(qobject_ref(qdict_get_qdict(rsp, "error")), says);
    qobject_unref(rsp);

    after = qtest_qmp_assert_success_ref(
        vm, "{ 'execute': 'query-migrate-parameters' }");
    g_assert_true(qobject_is_equal(QOBJECT(before), QOBJECT(after)));
    qobject_unref(before);
    qobject_unref(after);
}

static void check_param_refused(QTestState *vm, const char *name,
                                const char *json)
{
    check_param_refused_saying(vm, name, json, name);
}

static void test_params(void)
{
    static const uint64_t epochs[] = { 20, 21, 9999, 10000, 0 };
    QTestState *vm = qtest_init("-machine none");

    for (unsigned i = 0; i < ARRAY_SIZE(epochs); i++) {
        migrate_set_parameter_int(vm, "tlm-epoch", epochs[i]);
    }
    check_param_refused(vm, "tlm-epoch", "1");
    check_param_refused(vm, "tlm-epoch", "19");
    check_param_refused(vm, "tlm-epoch", "10001");
    check_param_refused(vm, "tlm-epoch", "-1");
    check_param_refused(vm, "tlm-epoch", "18446744073709551615");
    check_param_refused(vm, "tlm-epoch", "'20'");

    migrate_set_parameter_int(vm, "tlm-time-bound", 1);
    migrate_set_parameter_int(vm, "tlm-time-bound", 365LL * 24 * 3600 * 1000);
    migrate_set_parameter_int(vm, "tlm-time-bound", 0);
    check_param_refused(vm, "tlm-time-bound", "-1");
    check_param_refused(vm, "tlm-time-bound", "31536000001");
    check_param_refused(vm, "tlm-time-bound", "18446744073709551615");

    migrate_set_parameter_int(vm, "tlm-dtx-channels", 255);
    migrate_set_parameter_int(vm, "tlm-dtx-channels", 0);
    check_param_refused(vm, "tlm-dtx-channels", "256");
    check_param_refused(vm, "tlm-dtx-channels", "-1");

    migrate_set_parameter_bool(vm, "tlm-dtx", false);
    migrate_set_parameter_bool(vm, "tlm-dtx", true);
    check_param_refused(vm, "tlm-dtx", "1");

    migrate_set_parameter_str(vm, "tlm-converge", "auto");
    migrate_set_parameter_str(vm, "tlm-converge", "none");
    check_param_refused(vm, "tlm-converge", "'always'");

    migrate_set_parameter_str(vm, "tlm-bound-action", "cancel");
    migrate_set_parameter_str(vm, "tlm-bound-action", "complete");
    check_param_refused(vm, "tlm-bound-action", "'pause'");

    /* One bad one, and none is taken over */
    qobject_unref(qtest_qmp_assert_failure_ref(
        vm, "{ 'execute': 'migrate-set-parameters',"
            "  'arguments': { 'tlm-dtx': false, 'tlm-epoch': 1 } }"));
    migrate_set_parameter_int(vm, "tlm-epoch", 0);
    {
        QDict *rsp = qtest_qmp_assert_success_ref(
            vm, "{ 'execute': 'query-migrate-parameters' }");

        g_assert_true(qdict_get_bool(rsp, "tlm-dtx"));
        qobject_unref(rsp);
    }
    qtest_quit(vm);
}

static void test_params_overcommit(void)
{
    static const char *const taken[] = {
        "[" STEP("0", "1") "]",
        "[" STEP("100", "1") "]",
        "[" STEP("0.001", "8192") "]",
        /* Up and down; to both ends */
        "[" STEP("0", "2") "," STEP("50", "4") "," STEP("100", "1") "]",
        "[]",
    };
    static const char *const refused[] = {
        "[" STEP("-0.001", "1") "]",
        "[" STEP("100.001", "1") "]",
        "[" STEP("1e300", "1") "]",
        "[" STEP("50", "0") "]",
        "[" STEP("50", "8193") "]",
        "[" STEP("50", "4294967295") "]",
        "[" STEP("50", "2") "," STEP("20", "1") "]",
        "[" STEP("50", "2") "," STEP("50", "1") "]",
        "[" STEP("20", "2") "," STEP("101", "1") "]",
    };
    /* QEMU's own errors, which name the innermost member */
    static const char *const no_steps[] = {
        "[" STEP("'50'", "1") "]",
        "[" STEP("50", "-1") "]",
        "[" STEP("50", "4294967296") "]",
        "[" STEP("50", "4294967297") "]",
        "[" STEP("50", "1.5") "]",
        "[ { 'progress': 50 } ]",
        "[ { 'cpus': 1 } ]",
        "[ { 'progress': 50, 'cpus': 1, 'more': 1 } ]",
        "[ 50 ]",
        STEP("50", "1"),
        "'0.5-(2)'",
    };
    static const char *const methods[] = {
        "'cgroup'", "'quota'", "'affinity'", "'throttle'", "'event'", "'auto'",
    };
    static const char *const cpus[] = {
        "'0'", "'0-3,8'", "'8191'", "'0-8191'", "''",
    };
    static const char *const bad_cpus[] = {
        "'0-'", "'3-1'", "','", "'0,'", "'-1'", "'x'", "'8192'", "' '", "0",
    };
    QTestState *vm = qtest_init("-machine none");

    for (unsigned i = 0; i < ARRAY_SIZE(taken); i++) {
        check_param_taken(vm, "tlm-overcommit", taken[i]);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(refused); i++) {
        check_param_refused(vm, "tlm-overcommit", refused[i]);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(no_steps); i++) {
        check_param_refused_saying(vm, "tlm-overcommit", no_steps[i], "");
    }
    for (unsigned i = 0; i < ARRAY_SIZE(methods); i++) {
        check_param_taken(vm, "tlm-overcommit-method", methods[i]);
    }
    check_param_refused(vm, "tlm-overcommit-method", "'cgroup-v2-cpuset'");
    check_param_refused(vm, "tlm-overcommit-method", "''");
    for (unsigned i = 0; i < ARRAY_SIZE(cpus); i++) {
        check_param_taken(vm, "tlm-overcommit-cpus", cpus[i]);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(bad_cpus); i++) {
        check_param_refused(vm, "tlm-overcommit-cpus", bad_cpus[i]);
    }
    /* If it exists is the migration's matter */
    check_param_taken(vm, "tlm-cgroup", "'/sys/fs/cgroup/none'");
    check_param_taken(vm, "tlm-cgroup", "''");
    check_param_refused(vm, "tlm-cgroup", "'sys/fs/cgroup'");
    check_param_refused(vm, "tlm-cgroup", "'.'");
    check_param_refused(vm, "tlm-cgroup", "1");
    qtest_quit(vm);
}

/* Monitor for humans */

static void check_hmp(QTestState *vm, const char *command, const char *says)
{
    g_autofree char *out = qtest_hmp(vm, "%s", command);

    if (!strstr(out, says)) {
        g_test_message("%s: '%s' does not say '%s'", command, out, says);
    }
    g_assert_nonnull(strstr(out, says));
}

static void test_hmp_params(void)
{
    static const struct {
        const char *name, *value, *shown;
    } params[] = {
        { "tlm-time-bound", "60000", "tlm-time-bound: 60000 ms" },
        { "tlm-bound-action", "cancel", "tlm-bound-action: cancel" },
        { "tlm-converge", "auto", "tlm-converge: auto" },
        { "tlm-dtx", "off", "tlm-dtx: off" },
        { "tlm-dtx-channels", "3", "tlm-dtx-channels: 3" },
        { "tlm-epoch", "250", "tlm-epoch: 250 ms" },
    };
    QTestState *vm = qtest_init("-machine none");

    for (unsigned i = 0; i < ARRAY_SIZE(params); i++) {
        g_autofree char *before = qtest_hmp(vm, "info migrate_parameters");
        g_autofree char *set = g_strdup_printf(
            "migrate_set_parameter %s %s", params[i].name, params[i].value);
        g_autofree char *bad = g_strdup_printf(
            "migrate_set_parameter %s nonsense", params[i].name);

        g_assert_null(strstr(before, params[i].shown));
        check_hmp(vm, bad, params[i].name);
        check_hmp(vm, set, "");
        check_hmp(vm, "info migrate_parameters", params[i].shown);
    }
    check_hmp(vm, "migrate_set_parameter tlm-epoch 1", "tlm-epoch");
    check_hmp(vm, "info migrate_parameters", "tlm-epoch: 250 ms");
    check_hmp(vm, "migrate_set_parameter tlm-none 1", "tlm-none");
    check_hmp(vm, "migrate_set_capability tlm on", "");
    check_hmp(vm, "info migrate_capabilities", "tlm: on");
    check_hmp(vm, "migrate_tlm_switchover", "live stage");
    qtest_quit(vm);
}

static void live_hmp(QTestState *from, QTestState *to)
{
    static const char *const says[] = {
        "tlm stage: live", "tlm progress: ", "tlm eta: ", "tlm mtx: ",
        "tlm dtx: ", "tlm unsent: ", "tlm dirty: ", "tlm bandwidth: ",
    };

    for (unsigned i = 0; i < ARRAY_SIZE(says); i++) {
        check_hmp(from, "info migrate", says[i]);
    }
    check_hmp(from, "migrate_tlm_switchover", "");
    wait_for_stage(from, "done");
    check_hmp(from, "info migrate", "tlm stage: done");
    check_hmp(from, "info migrate", "tlm downtime: ");
}

static void test_hmp(void)
{
    test_tlm(&(TlmTest) { .live = live_hmp });
}

/* A snapshot is no live migration: TLM has no part in it */
static void test_snapshot(void)
{
    g_autofree char *image = g_strdup_printf("%s/snapshot.qcow2", tmpfs);
    g_autofree char *opts = g_strdup_printf(
        "-blockdev qcow2,node-name=snap,file.driver=file,file.filename=%s",
        image);
    static const char *const commands[] = { "save", "load", "delete" };
    MigrateStart start = { .opts_source = opts };
    QTestState *from, *to;

    if (!have_qemu_img()) {
        g_test_skip("no qemu-img");
        return;
    }
    g_assert_true(mkimg(image, "qcow2", 256));
    if (migrate_start(&from, &to, "defer", &start)) {
        unlink(image);
        return;
    }
    qtest_qmp_set_event_callback(from, watch_source, NULL);
    g_string_truncate(stages, 0);
    migrate_set_capability(from, "tlm", true);
    wait_for_serial("src_serial");
    fill_pattern(from);

    for (unsigned i = 0; i < ARRAY_SIZE(commands); i++) {
        g_autofree char *command = g_strdup_printf("snapshot-%s",
                                                   commands[i]);
        int64_t start_us = g_get_monotonic_time();
        bool done = false;

        if (i < 2) {
            qtest_qmp_assert_success(
                from, "{ 'execute': %s, 'arguments': {"
                      "  'job-id': %s, 'tag': 'tag', 'vmstate': 'snap',"
                      "  'devices': [ 'snap' ] } }", command, commands[i]);
        } else {
            qtest_qmp_assert_success(
                from, "{ 'execute': %s, 'arguments': {"
                      "  'job-id': %s, 'tag': 'tag',"
                      "  'devices': [ 'snap' ] } }", command, commands[i]);
        }
        while (!done) {
            QDict *rsp = qtest_qmp(from, "{ 'execute': 'query-jobs' }");
            const QListEntry *entry =
                qlist_first(qdict_get_qlist(rsp, "return"));
            QDict *job = qobject_to(QDict, qlist_entry_obj(entry));

            done = g_str_equal(qdict_get_str(job, "status"), "concluded");
            if (done && qdict_haskey(job, "error")) {
                g_test_message("%s", qdict_get_str(job, "error"));
                g_assert_false(qdict_haskey(job, "error"));
            }
            qobject_unref(rsp);
            more_time(start_us);
        }
        qtest_qmp_assert_success(
            from, "{ 'execute': 'job-dismiss',"
                  "  'arguments': { 'id': %s } }", commands[i]);
        if (i == 0) {
            /* To see that it comes back */
            qtest_memset(from, PATTERN_START, 0, PATTERN_SIZE);
            qtest_writeq(from, MARKER, 0);
        } else if (i == 1) {
            check_pattern(from);
            g_assert_cmphex(qtest_readq(from, MARKER), ==, MARKER_VALUE);
        }
    }
    g_assert_cmpstr(stages->str, ==, "");
    g_assert_false(has_migration_threads(from));
    check_guest_runs(from);
    migrate_end(from, to, false);
    unlink(image);
}

static void migration_test_add_tlm_smoke(void)
{
    migration_test_add("/migration/tlm/plain", test_plain);
    migration_test_add("/migration/tlm/off", test_off);
    migration_test_add("/migration/tlm/refused/caps", test_caps_excluded);
    migration_test_add("/migration/tlm/refused/start", test_start_refused);
    migration_test_add("/migration/tlm/refused/params", test_params);
    migration_test_add("/migration/tlm/refused/params/overcommit",
                       test_params_overcommit);
    migration_test_add("/migration/tlm/cancel/live", test_cancel_live);
}

void migration_test_add_tlm(MigrationTestEnv *env)
{
    static const char *const channels[] = {
        "2", "3", "8", "16", "2-1", "8-1", "8-7", "16-15",
    };
    static const char *const conns[] = { "mtx", "dtx", "main" };
    static const char *const methods[] = { "auto", "affinity", "throttle" };

    /* The memory layout of the guest, and /proc */
    if (!env->is_x86) {
        return;
    }
    tmpfs = env->tmpfs;
    stages = g_string_new("");

    migration_test_add_tlm_smoke();
    if (!env->full_set) {
        return;
    }

    migration_test_add("/migration/tlm/unix", test_unix);
    for (unsigned i = 0; i < ARRAY_SIZE(channels); i++) {
        migration_test_add_suffix("/migration/tlm/channels/", channels[i],
                                  test_channels);
    }
    migration_test_add("/migration/tlm/zlib", test_zlib);
#ifdef CONFIG_ZSTD
    migration_test_add("/migration/tlm/zstd", test_zstd);
#endif
    migration_test_add("/migration/tlm/zero-page/none", test_no_zero_page);
#ifdef CONFIG_LINUX
    migration_test_add("/migration/tlm/zero-copy", test_zero_copy);
#endif
#ifdef CONFIG_GNUTLS
    migration_test_add("/migration/tlm/tls/psk", test_tls_psk);
#ifdef CONFIG_TASN1
    migration_test_add("/migration/tlm/tls/x509", test_tls_x509);
#endif
#endif
    migration_test_add("/migration/tlm/flush-after-each-section",
                       test_flush_each_section);
    migration_test_add("/migration/tlm/return-path", test_return_path);
    migration_test_add("/migration/tlm/libvirt", test_libvirt);
    migration_test_add("/migration/tlm/paused", test_paused);
    migration_test_add("/migration/tlm/file", test_file);
    migration_test_add("/migration/tlm/file/paused", test_file_paused);
    migration_test_add("/migration/tlm/file/direct-io", test_file_direct_io);

    migration_test_add("/migration/tlm/dtx", test_dtx);
    migration_test_add("/migration/tlm/dtx/off", test_dtx_off);
    migration_test_add("/migration/tlm/epoch", test_epoch);
    migration_test_add("/migration/tlm/bandwidth", test_bandwidth);
    migration_test_add("/migration/tlm/threads", test_threads);
    migration_test_add("/migration/tlm/groups", test_groups);
    migration_test_add("/migration/tlm/switchover", test_switchover);

    migration_test_add("/migration/tlm/cancel/setup", test_cancel_setup);
    migration_test_add("/migration/tlm/cancel/setup/deaf",
                       test_cancel_setup_deaf);
    migration_test_add("/migration/tlm/bound/setup-deaf",
                       test_bound_setup_deaf);
#ifdef CONFIG_GNUTLS
    migration_test_add("/migration/tlm/bound/silent-tls",
                       test_bound_silent_tls);
    migration_test_add("/migration/tlm/bound/silent-tls-channels",
                       test_bound_silent_tls_channels);
    migration_test_add("/migration/tlm/cancel/silent-tls",
                       test_cancel_silent_tls);
    migration_test_add("/migration/tlm/cancel/silent-tls-channels",
                       test_cancel_silent_tls_channels);
#endif
    migration_test_add("/migration/tlm/cancel/live/stalled",
                       test_cancel_live_stalled);
    migration_test_add("/migration/tlm/cancel/pre-switchover",
                       test_cancel_pre_switchover);
    migration_test_add("/migration/tlm/cancel/stop", test_cancel_stop);
    for (unsigned i = 0; i < ARRAY_SIZE(methods); i++) {
        migration_test_add_suffix("/migration/tlm/cancel/overcommit/",
                                  methods[i], test_cancel_overcommit);
    }
    migration_test_add("/migration/tlm/cancel/repeated",
                       test_cancel_repeated);
    migration_test_add("/migration/tlm/killed/live", test_killed_live);
    migration_test_add("/migration/tlm/killed/stop", test_killed_stop);
    for (unsigned i = 0; i < ARRAY_SIZE(conns); i++) {
        migration_test_add_suffix("/migration/tlm/broken/live/", conns[i],
                                  test_broken_live);
        migration_test_add_suffix("/migration/tlm/broken/stop/", conns[i],
                                  test_broken_stop);
    }
    migration_test_add("/migration/tlm/yank/live", test_yank_live);
    migration_test_add("/migration/tlm/yank/stop", test_yank_stop);

    migration_test_add("/migration/tlm/hmp", test_hmp);
    migration_test_add("/migration/tlm/hmp/params", test_hmp_params);
    migration_test_add("/migration/tlm/snapshot", test_snapshot);
}
