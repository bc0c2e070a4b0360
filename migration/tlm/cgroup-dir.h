/*
 * TLM: where the cgroups of a process are
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TLM_CGROUP_DIR_H
#define TLM_CGROUP_DIR_H

/* @list is separated by blanks or commas */
bool tlm_has_word(const char *list, const char *word);
/*
 * The path that the text of a file /proc/PID/cgroup gives for a v1
 * @controller, or for the v2 hierarchy (@v2); NULL: there is none.
 */
char *tlm_cgroup_path(const char *text, const char *controller, bool v2);
/*
 * The directory of cgroup @path in a mounted hierarchy; NULL: none of them
 * shows it.  @root is put before /proc and the mounts.
 */
char *tlm_cgroup_dir(const char *root, const char *controller, bool v2,
                     const char *path);

#endif
