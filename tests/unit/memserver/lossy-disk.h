/*
 * A disk that loses what was not brought to it
 *
 * Calls that change files below one directory are noted, by --wrap of the
 * linker (LOSSY_DISK_CALLS in meson.build), and are done as well.  Of what has
 * not been synced since, a loss of power may leave anything: of the content of
 * a file each block of 4 KiB by itself, of a directory each change by itself.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TEST_LOSSY_DISK_H
#define TEST_LOSSY_DISK_H

#include <glib.h>
#include <stdbool.h>

/*
 * From now on, for files below @dir, which is empty.  @before is called before
 * each of the calls, and may use files of other directories; or NULL.
 */
void lossy_disk_start(const char *dir, void (*before)(void *opaque),
                      void *opaque);
void lossy_disk_stop(void);

/* The call of this number, from 1, fails with EIO.  0: none of them. */
void lossy_disk_fail(unsigned number);
/* Whether it has. */
bool lossy_disk_failed(void);

typedef enum LossyChoice { LOSSY_NOTHING, LOSSY_ALL, LOSSY_SOME } LossyChoice;

/*
 * Makes the files in @to, an empty directory, that a loss of power would leave
 * now.  @keep: how much of what has not been synced.
 */
void lossy_disk_crash(const char *to, LossyChoice keep, GRand *rnd);

#endif
