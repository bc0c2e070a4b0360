/*
 * Fuzzer: lines of the control connection, and manifests
 *
 * The first byte says which.  The server takes no checkpoint (no channel is
 * allowed), so nothing listens and no thread is started.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <string.h>

#include "control.h"
#include "fuzz.h"
#include "manifest.h"
#include "session.h"

static Server *server(void)
{
    static Config config;
    static Server s;

    if (!s.store) {
        config.store = (StoreConfig) { .memory = 1 << 21, .vm_memory = 1 << 21,
                                       .vm_disk = 1 << 21, .max_vms = 1,
                                       .threads = 1 };
        s.config = &config;
        s.sessions = g_hash_table_new_full(
            g_int64_hash, g_int64_equal, NULL, (GDestroyNotify)session_unref);
        s.store = store_new(&config.store, NULL);
    }
    return &s;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *answer = NULL;
    g_autofree char *text = NULL;

    if (!size) {
        return 0;
    }
    /* A copy, so that a read behind its end is seen. */
    text = g_memdup2(data + 1, size - 1);
    if (data[0] & 1) {
        g_autoptr(GArray) sums = NULL;
        g_autoptr(Checkpoint) c = manifest_parse("vm", text, size - 1, &sums,
                                                 NULL);

        return 0;
    }
    answer = control_line(server(), "anyone", text, size - 1, NULL);
    g_assert(answer[strlen(answer) - 1] == '\n');
    g_assert(strchr(answer, '\n') == answer + strlen(answer) - 1);
    return 0;
}
