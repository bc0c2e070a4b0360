/*
 * TLM: vCPU over-commit: chooses host CPUs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "choose.h"
#include "ops.h"

/* Moves up to *@n CPUs of *@from that are in @filter (NULL: all) to @out */
static void move_cpus(TlmCpuSet *from, const TlmCpuSet *filter, unsigned *n,
                      TlmCpuSet *out)
{
    for (unsigned cpu = 0; cpu < TLM_OC_MAX_CPUS && *n; cpu++) {
        if (tlm_cpus_has(from, cpu) && (!filter || tlm_cpus_has(filter, cpu))) {
            tlm_cpus_remove(from, cpu);
            tlm_cpus_add(out, cpu);
            (*n)--;
        }
    }
}

/*
 * Finds the NUMA node with the most CPUs in @left, among those that "nodeN"
 * directories describe (the lowest number of several).  False: none has any.
 */
static bool best_node(const char *root, const TlmCpuSet *left, TlmCpuSet *node)
{
    g_autofree char *top = g_strconcat(root, "/sys/devices/system/node", NULL);
    g_autoptr(GDir) dir = g_dir_open(top, 0, NULL);
    guint64 best_id = G_MAXUINT64;
    unsigned best = 0;
    const char *name;

    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(top, name, NULL);
        g_autofree char *list = NULL;
        TlmCpuSet cpus, common;
        unsigned count;
        guint64 id;

        if (!g_str_has_prefix(name, "node") || !g_ascii_isdigit(name[4])) {
            continue;
        }
        list = tlm_oc_read(path, "cpulist", NULL);
        if (!list || !tlm_cpus_parse(list, &cpus, NULL)) {
            continue;
        }
        id = g_ascii_strtoull(name + 4, NULL, 10);
        common = cpus;
        tlm_cpus_and(&common, left);
        count = tlm_cpus_count(&common);
        if (count > best || (count && count == best && id < best_id)) {
            best = count;
            best_id = id;
            *node = cpus;
        }
    }
    return best;
}

void tlm_cpus_choose(const char *root, const TlmCpuSet *from, unsigned n,
                     TlmCpuSet *out)
{
    TlmCpuSet left = *from, node;

    memset(out, 0, sizeof(*out));
    while (n && best_node(root, &left, &node)) {
        move_cpus(&left, &node, &n, out);
    }
    move_cpus(&left, NULL, &n, out);
}
