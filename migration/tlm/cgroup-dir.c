/*
 * TLM: where the cgroups of a process are
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "cgroup-dir.h"

bool tlm_has_word(const char *list, const char *word)
{
    g_auto(GStrv) words = g_strsplit_set(list, " ,\n", -1);

    return g_strv_contains((const char *const *)words, word);
}

char *tlm_cgroup_path(const char *text, const char *controller, bool v2)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);

    for (char **line = lines; *line; line++) {
        /* HIERARCHY:CONTROLLERS:PATH; the path may hold colons */
        g_auto(GStrv) part = g_strsplit(*line, ":", 3);

        if (g_strv_length(part) != 3) {
            continue;
        }
        if (v2 ? !strcmp(part[0], "0") && !*part[1] :
                 tlm_has_word(part[1], controller)) {
            return g_strdup(part[2]);
        }
    }
    return NULL;
}

/* The part of @path below @top, "" or beginning with a slash; or NULL */
static const char *below(const char *path, const char *top)
{
    size_t len = strcmp(top, "/") ? strlen(top) : 0;

    if (strncmp(path, top, len) || (path[len] && path[len] != '/')) {
        return NULL;
    }
    return path + len;
}

/*
 * mountinfo, from proc(5):
 * ID PARENT MAJOR:MINOR ROOT MOUNTPOINT OPTIONS [TAG...] - TYPE SOURCE SUPER
 */
static char *dir_in_mount(const char *line, const char *controller, bool v2,
                          const char *path)
{
    const char *rest = strstr(line, " - ");
    g_auto(GStrv) head = g_strsplit(line, " ", 6);
    g_auto(GStrv) tail = rest ? g_strsplit(rest + 3, " ", 3) : NULL;
    g_autofree char *root = NULL, *point = NULL;
    const char *sub;

    if (!tail || g_strv_length(head) != 6 || g_strv_length(tail) != 3 ||
        strcmp(tail[0], v2 ? "cgroup2" : "cgroup") ||
        (!v2 && !tlm_has_word(tail[2], controller))) {
        return NULL;
    }
    /* Blanks and backslashes are written in octal */
    root = g_strcompress(head[3]);
    point = g_strcompress(head[4]);
    sub = below(path, root);
    return sub ? g_strconcat(point, strcmp(sub, "/") ? sub : "", NULL) : NULL;
}

char *tlm_cgroup_dir(const char *root, const char *controller, bool v2,
                     const char *path)
{
    g_autofree char *file = g_strconcat(root, "/proc/self/mountinfo", NULL);
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;

    /* "/..": outside of this process's cgroup namespace */
    if (strstr(path, "/..") ||
        !g_file_get_contents(file, &text, NULL, NULL)) {
        return NULL;
    }
    lines = g_strsplit(text, "\n", -1);
    for (char **line = lines; *line; line++) {
        g_autofree char *dir = dir_in_mount(*line, controller, v2, path);

        if (dir) {
            return g_strconcat(root, dir, NULL);
        }
    }
    return NULL;
}
