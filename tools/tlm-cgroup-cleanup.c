/*
 * Remove the cgroups that a QEMU left behind which was killed while TLM
 * held its vCPUs on few host CPUs
 *
 * Usage: tlm-cgroup-cleanup [DIRECTORY]
 *
 * DIRECTORY is what parameter 'tlm-cgroup' was set to; without it, the
 * children of the caller's own cgroups are looked at.  Prints what it has
 * removed.  Only directories named as TLM names them, of processes that are
 * gone, are removed; the kernel removes none that a process is in.  The next
 * TLM migration of a QEMU in the same cgroup does the same.
 *
 * Exit status: 0 all that was found is removed, 1 something could not be, 2
 * wrong usage.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "overcommit/overcommit.h"

int main(int argc, char **argv)
{
    g_autoptr(GPtrArray) removed = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GError) err = NULL;
    TlmOcConfig cfg = {};
    bool ok;

    if (argc > 2 || (argc == 2 && argv[1][0] == '-')) {
        fprintf(stderr, "Usage: %s [DIRECTORY]\n", argv[0]);
        return 2;
    }
    cfg.cgroup = argc == 2 ? argv[1] : NULL;
    ok = tlm_oc_cleanup_stale(&cfg, removed, &err);
    for (unsigned i = 0; i < removed->len; i++) {
        printf("%s\n", (char *)g_ptr_array_index(removed, i));
    }
    if (!ok) {
        fprintf(stderr, "%s: %s\n", argv[0], err->message);
    }
    return ok ? 0 : 1;
}
