/*
 * QTest for TLM: what a migration that has ended may leave behind
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"

#include "qobject/qlist.h"
#include "leftovers.h"
#include "wait.h"

bool tlm_has_yank_instance(QTestState *from)
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

bool tlm_has_threads(QTestState *from)
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

unsigned tlm_count_sockets(QTestState *from)
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

void tlm_check_nothing_left(QTestState *from, unsigned sockets)
{
    int64_t start_us = g_get_monotonic_time();
    QDict *rsp;

    while (tlm_has_yank_instance(from)) {
        tlm_more_time(start_us);
    }
    while (tlm_has_threads(from)) {
        tlm_more_time(start_us);
    }
    while (tlm_count_sockets(from) != sockets) {
        tlm_more_time(start_us);
    }
    rsp = qtest_qmp(from, "{ 'execute': 'query-migrationthreads' }");
    g_assert_true(qlist_empty(qdict_get_qlist(rsp, "return")));
    qobject_unref(rsp);
}
