/*
 * tlm-serve-checkpoint: restores a waiting QEMU from the file of a checkpoint
 *
 * What goes on is told as lines of JSON on the standard output, at least ten
 * times a second: so whoever reads them notices when it hangs.  That nobody
 * reads them is no reason to end: a guest may depend on it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <errno.h>
#include <fcntl.h>
#include <glib-unix.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "error.h"
#include "instant.h"
#include "tls-options.h"
#include "whole.h"

#define TELL_MS 50
#define WRONG_USAGE 2

static char *to, *tls_host;
static char **page_size_words, *vm, *generation, *expect;
static int file_fd = -1;
static gboolean resume, in_whole;
static gint64 rate;
static gint channels = 2;
static char *uuid;

static const GOptionEntry options[] = {
    { "to", 0, 0, G_OPTION_ARG_STRING, &to,
      "QEMU waits here: tcp:HOST:PORT, unix:PATH", "ADDRESS" },
    { "tls-hostname", 0, 0, G_OPTION_ARG_STRING, &tls_host,
      "with --tls x509: name in QEMU's certificate (default: that of --to)",
      "NAME" },
    { "resume", 0, 0, G_OPTION_ARG_NONE, &resume,
      "go on where another server has ended, after migrate-recover", NULL },
    { "page-size", 0, 0, G_OPTION_ARG_STRING_ARRAY, &page_size_words,
      "of QEMU's RAM block, if not 4096", "BLOCK=BYTES" },
    { "rate", 0, 0, G_OPTION_ARG_INT64, &rate,
      "limit for what QEMU has not asked for (default: none)", "BYTES/S" },
    { "whole", 0, 0, G_OPTION_ARG_NONE, &in_whole,
      "all of RAM first, by multifd, which must be on in QEMU", NULL },
    { "channels", 0, 0, G_OPTION_ARG_INT, &channels,
      "with --whole: QEMU's multifd-channels (default: 2)", "NUMBER" },
    { "uuid", 0, 0, G_OPTION_ARG_STRING, &uuid,
      "with --whole: QEMU's, if it has one", "UUID" },
    { "fd", 0, 0, G_OPTION_ARG_INT, &file_fd,
      "the file is open as this one", "NUMBER" },
    { "vm", 0, 0, G_OPTION_ARG_STRING, &vm, "name of the VM", "NAME" },
    { "generation", 0, 0, G_OPTION_ARG_STRING, &generation,
      "name of the checkpoint", "NAME" },
    { "expect", 0, 0, G_OPTION_ARG_STRING, &expect,
      "refuse a checkpoint that is another one: a ticket as this program "
      "prints it", "TICKET" },
    { NULL }
};

static GMutex lock;                     /* what is told, in whole lines */
static GMainLoop *loop;
static Instant *session;                /* one of these two */
static Whole *whole;
static TlsCreds *tls;                   /* or NULL */
static gint status;                     /* of the process */

static int open_file(int argc, char **argv, GError **errp)
{
    int fd;

    if (argc != (file_fd < 0 ? 2 : 1) || !to) {
        ms_fail(errp, "one file (or --fd) and --to are needed");
        exit(WRONG_USAGE);
    }
    if (file_fd >= 0) {
        return file_fd;
    }
    fd = open(argv[1], O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        ms_fail(errp, "%s: %s", argv[1], g_strerror(errno));
    }
    return fd;
}

static uint64_t *page_sizes(const Layout *l, GError **errp)
{
    g_autofree uint64_t *sizes = g_new(uint64_t, layout_num_blocks(l));

    for (unsigned i = 0; i < layout_num_blocks(l); i++) {
        sizes[i] = PAGE_SIZE;
    }
    for (char **w = page_size_words; w && *w; w++) {
        /* Names of blocks may have a "=" */
        char *value = strrchr(*w, '=');
        g_autofree char *name = g_strndup(*w, value ? value - *w : 0);
        int block = layout_find(l, name);

        if (block < 0) {
            ms_fail(errp, "--page-size %s: there is no such block", *w);
            return NULL;
        }
        sizes[block] = g_ascii_strtoull(value + 1, NULL, 10);
    }
    return g_steal_pointer(&sizes);
}

static bool make_session(MemImage *image, GError **errp)
{
    g_autofree uint64_t *sizes = page_sizes(mem_image_layout(image), errp);
    TargetWish target = { .to = to, .tls = tls, .tls_host = tls_host };
    WholeWish in = { .target = target, .channels = channels, .uuid = uuid };
    InstantWish at = { .target = target, .page_sizes = sizes,
                       .resume = resume, .rate = rate };

    if (!sizes) {
        return false;
    }
    if (in_whole) {
        whole = whole_new(image, &in, errp);
    } else {
        session = instant_new(image, &at, errp);
    }
    return session || whole;
}

static void tell(const char *error)
{
    InstantStatus t = { .state = INSTANT_SERVING };
    g_autofree char *escaped = g_strescape(error ?: "", NULL);

    if (session) {
        instant_status(session, &t);
    } else {
        t.sent = whole_sent(whole);
    }
    g_mutex_lock(&lock);
    printf("{\"state\": \"%s\", \"beats\": %" PRIu64 ", \"owed\": %" PRIu64
           ", \"in-flight\": %" PRIu64 ", \"sent\": %" PRIu64
           ", \"there\": %" PRIu64 ", \"requests\": %" PRIu64
           ", \"loaded-us\": %" PRId64 ", \"ended-us\": %" PRId64
           ", \"shortest-us\": %" PRId64 "%s%s%s}\n",
           instant_states[t.state], t.beats, t.owed, t.in_flight, t.sent,
           t.there, t.requests, t.loaded_us, t.ended_us, t.shortest_us,
           error ? ", \"error\": \"" : "", escaped, error ? "\"" : "");
    fflush(stdout);
    g_mutex_unlock(&lock);
}

static gboolean on_time(gpointer unused)
{
    tell(NULL);
    return G_SOURCE_CONTINUE;
}

static gboolean on_signal(gpointer unused)
{
    if (session) {
        instant_stop(session);
    } else {
        whole_stop(whole);
    }
    return G_SOURCE_CONTINUE;
}

static gpointer run(gpointer unused)
{
    g_autoptr(GError) err = NULL;

    if (session ? instant_run(session, &err) : whole_run(whole, &err)) {
        tell(NULL);
    } else {
        fprintf(stderr, "tlm-serve-checkpoint: %s\n", err->message);
        tell(err->message);
        g_atomic_int_set(&status, 1);
    }
    g_main_loop_quit(loop);
    return NULL;
}

static bool begin(int argc, char **argv, GError **errp)
{
    g_autoptr(MemImage) image = NULL;
    g_autofree char *is = NULL;
    int fd = open_file(argc, argv, errp);

    if (fd < 0 || !tls_options_creds(&tls, errp)) {
        return false;
    }
    image = mem_image_from_file(fd, vm, generation, errp);
    close(fd);
    if (!image) {
        return false;
    }
    is = mem_image_ticket(image);
    if (expect && strcmp(is, expect)) {
        return ms_fail(errp, "this is another checkpoint (%s) than the VM is "
                       "being restored from (%s)", is, expect);
    }
    if (!make_session(image, errp)) {
        return false;
    }
    printf("{\"ticket\": \"%s\"}\n", is);
    fflush(stdout);
    return true;
}

int main(int argc, char **argv)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(GOptionContext) context = g_option_context_new("[FILE]");
    GThread *thread;

    g_option_context_add_main_entries(context, options, NULL);
    g_option_context_add_main_entries(context, tls_options, NULL);
    if (!g_option_context_parse(context, &argc, &argv, &err)) {
        fprintf(stderr, "%s\n", err->message);
        return WRONG_USAGE;
    }
    signal(SIGPIPE, SIG_IGN);
    if (!begin(argc, argv, &err)) {
        fprintf(stderr, "tlm-serve-checkpoint: %s\n", err->message);
        return 1;
    }
    loop = g_main_loop_new(NULL, false);
    g_unix_signal_add(SIGTERM, on_signal, NULL);
    g_unix_signal_add(SIGINT, on_signal, NULL);
    g_timeout_add(TELL_MS, on_time, NULL);
    thread = g_thread_new("restore", run, NULL);
    g_main_loop_run(loop);
    g_thread_join(thread);
    instant_free(session);
    whole_free(whole);
    tls_creds_free(tls);
    g_main_loop_unref(loop);
    return g_atomic_int_get(&status);
}
