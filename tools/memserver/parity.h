/*
 * Parity of a set: what makes it survive the loss of servers
 *
 * A server that has parity of a set has also, for each part, which pages it
 * has and their checksums; and the device state.  So it can make a part that
 * is lost again, from the other pieces, and knows whether each page is right.
 * In a file, all that is in pages behind those of the parity: parity-table.c.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MEMSERVER_PARITY_H
#define MEMSERVER_PARITY_H

#include "erasure.h"
#include "piece.h"
#include "server.h"

/* A part, as it was when parity was made. */
typedef struct PartTable {
    PageMap *map;
    uint64_t *sums;                     /* CRC-64 of each page that is there */
} PartTable;

/* Beside the pages of a parity; it does not change. */
typedef struct Parity {
    gatomicrefcount refs;
    unsigned data, parity, index;       /* number of this one: index */
    PartTable parts[ERASURE_MAX_DATA];
    GByteArray *state;                  /* of the devices */
    char *part_name;                    /* what the parts are called */
    char *from[ERASURE_MAX_DATA];       /* where they were */
} Parity;

Parity *parity_alloc(void);
Parity *parity_ref(Parity *p);          /* NULL: NULL */
void parity_unref(Parity *p);

/* As bytes, as many with any checksums; and back. */
GByteArray *parity_table(const Parity *p);
Parity *parity_from_table(const uint8_t *data, uint64_t size, GError **errp);

/* Of a parity that is in a file; see parity-table.c. */
Parity *parity_from_image(const MemImage *image, GError **errp);

/* Of pieces of a set; all strings live as long as the call. */
typedef struct ParityWish {
    Store *store;
    const char *who;                    /* see conn_peer() */
    const char *vm, *name, *set;        /* as the parts are called */
    unsigned data, parity;
    unsigned index;                     /* which parity is meant */
    /* Control address of the server of each piece; NULL: there is none */
    const char *from[ERASURE_MAX_DATA + ERASURE_MAX_PARITY];
    const char *source;                 /* JSON: see manifest.h; or NULL */
    uint64_t max_ram;
    const TlsCreds *tls;
    unsigned patience;                  /* s, for each read */
    Level level;                        /* of a parity */
    Claim *claim;                       /* of what is stored; or NULL */
    /* Who waits for it: nothing is stored if this is over; or NULL */
    const Conn *client;
    Counters *counters;
} ParityWish;

/* What parity number @index of a checkpoint is called. */
char *parity_name(const char *name, unsigned index);

/* Reads all parts, and stores parity.  The new checkpoint, or NULL. */
Checkpoint *parity_build(const ParityWish *w, GError **errp);

/*
 * Stores part @lost again.  This server has parity @index, from which data,
 * parity and max_ram are taken.  Parts that are found damaged are not used if
 * others do; *damaged has a bit for each of them.
 */
Checkpoint *parity_rebuild(const ParityWish *w, unsigned lost,
                           uint32_t *damaged, GError **errp);

/*
 * Reads all parts, and compares them with the checksums that this server has
 * with parity @index.  @wrong: for each part, how many pages differ.
 */
bool parity_compare(const ParityWish *w, uint64_t *wrong, GError **errp);

#endif
