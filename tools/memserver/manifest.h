/*
 * The manifest of a checkpoint on the disk: JSON, as "tlm checkpoint" has it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_MANIFEST_H
#define MEMSERVER_MANIFEST_H

#include "checkpoint.h"
#include "json.h"

/* A checksum is of this many bytes of the file ... */
#define MANIFEST_CHUNK (64u << 20)
/* ... of which blocks of this size are left out when they are zero. */
#define MANIFEST_BLOCK (64u << 10)

#define MANIFEST_SUM_SIZE 65            /* SHA-256 in hexadecimal, and 0 */

typedef char ManifestSum[MANIFEST_SUM_SIZE];

/* Text of the manifest.  @sums: @count of them. */
char *manifest_compose(const Checkpoint *c, const ManifestSum *sums,
                       size_t count);

/*
 * A checkpoint that is in the file only.  @sums: if not NULL, a new array
 * (element: ManifestSum).
 */
Checkpoint *manifest_parse(const char *vm, const char *text, size_t size,
                           GArray **sums, GError **errp);

/*
 * What a client says of the source when it announces a checkpoint, and is told
 * again: uuid, qemu, directory, domain (strings), command (a list of strings),
 * disks (a list of objects).  None of it is used here.
 */
bool manifest_check_source(struct json_object *o, GError **errp);

/* The machine of a checkpoint, with all that is known of the source. */
struct json_object *manifest_machine(const Checkpoint *c);
char *manifest_machine_text(const Checkpoint *c);

/* The state of the machine in @state, as "running", or NULL. */
char *manifest_run_state(const GByteArray *state);

#endif
