/*
 * The directory of a virtual machine
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_VMDIR_H
#define MEMSERVER_VMDIR_H

#include "checkpoint.h"

/* Opens and locks the file @dir/.lock; -1: somebody else has it. */
int vmdir_lock(const char *dir, GError **errp);

/*
 * What a directory with those of virtual machines is called, for as long as
 * it is there: a UUID in its file .id, which is made if there is none.
 */
char *vmdir_id(const char *dir, GError **errp);

/* Makes it if it is not there. */
bool vmdir_make(const char *dir, const char *owner, GError **errp);

/* Who owns it, or NULL. */
char *vmdir_owner(const char *dir);

/* The checkpoints in it, the oldest first.  Removes what was left over. */
GPtrArray *vmdir_scan(const char *dir, const char *vm);

/*
 * It is tentative (claim.h) if it has a manifest after a crash; and, when it
 * is settled, not any more.
 */
bool vmdir_mark_tentative(const char *dir, const char *name, GError **errp);
bool vmdir_settle(const char *dir, const char *name, GError **errp);

/* A checkpoint's manifest goes first: a file without one does not exist. */
bool vmdir_remove(const char *dir, const char *name, GError **errp);

#endif
