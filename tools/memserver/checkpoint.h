/*
 * A checkpoint: a generation with its name, and where it is
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_CHECKPOINT_H
#define MEMSERVER_CHECKPOINT_H

#include "claim.h"
#include "generation.h"

/* What the server promises when it says "completed". */
typedef enum Level {
    LEVEL_MEMORY,                       /* all of it is in this server's RAM */
    LEVEL_DURABLE,                      /* and on its disk */
    LEVEL__MAX,
} Level;

extern const char *const level_names[LEVEL__MAX];

typedef struct CheckpointFile {
    bool there;
    uint64_t size, allocated;           /* bytes */
} CheckpointFile;

/* It does not change once the store has it, but for the two of claim.h. */
typedef struct Checkpoint {
    gatomicrefcount refs;
    char *vm, *name;
    char *created;                      /* ISO 8601, UTC */
    char *parent;                       /* name, or NULL: full */
    char *machine;                      /* type */
    char *source;                       /* JSON: see manifest.h; or NULL */
    char *identity;                     /* see checkpoint_identify() */
    char *set;                          /* UUID of all parts; NULL: whole */
    /* parts: 1 of a whole one; part: of a parity, its number behind theirs */
    unsigned part, parts;
    char *head_id;                      /* store of part 0; NULL: not known */
    unsigned redundancy;                /* parities of its set; 0: none */
    Claim *claim;                       /* NULL: settled; store's mutex */
    bool ready;                         /* see claim.h; store's mutex */
    uint64_t ram;                       /* bytes of all blocks */
    Generation *generation;             /* NULL: in the file only */
    GByteArray *state;                  /* of the devices; as generation */
    struct Parity *parity;              /* NULL: no parity of a set */
    CheckpointFile file;
} Checkpoint;

Checkpoint *checkpoint_new(const char *vm, const char *name);

/* If the clock says that it was made before @created, it is dated behind. */
void checkpoint_date_after(Checkpoint *c, const char *created);

Checkpoint *checkpoint_ref(Checkpoint *c);
void checkpoint_unref(Checkpoint *c);

/*
 * The identity of its generation, as the source has it, is told once, when the
 * store has it already.  False: it has another one.  NULL: it was not told, or
 * is not in memory any more.
 */
bool checkpoint_identify(Checkpoint *c, const char *identity);
const char *checkpoint_identity(Checkpoint *c);

/* Letters, digits, ".", "_", "-", at most 100; begins with none of "." and "-". */
bool name_is_valid(const char *name, size_t size);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Checkpoint, checkpoint_unref)

#endif
