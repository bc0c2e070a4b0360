/*
 * QTest for TLM: a source and a destination, and a migration between them
 *
 * With the bandwidth held down, the pattern of guest.h keeps mtx busy for
 * more than a minute: time enough to look at the live stage, or to break it.
 *
 * Capability 'tlm' is only ever set at the source: the destination, which
 * QTEST_QEMU_BINARY_DST can name, need not know it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TLM_TEST_FRAMEWORK_H
#define TLM_TEST_FRAMEWORK_H

#include "libqtest.h"
#include "migration/framework.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "proxy.h"
#include "wait.h"

/* Bandwidths, bytes a second */
#define TLM_HELD (256 * KiB)
#define TLM_FAST (1000 * MiB)

typedef struct TlmPair {
    QTestState *from, *to;
    TlmProxy *proxy;                /* between the two, or NULL */
    QObject *channels;              /* to migrate to, instead of a URI */
    unsigned sockets;               /* of the source, before it migrates */
} TlmPair;

typedef struct TlmTest {
    MigrateStart start;
    const char *uri;                /* tcp:127.0.0.1:0 if not given */
    unsigned channels;              /* 2 if not given */
    unsigned dtx_channels;
    const char *caps[8];            /* for both sides */
    bool proxy;                     /* the source connects to one */
    /* Before the destination listens; false: skipped */
    bool (*prepare)(TlmPair *pair);
    /* When it listens */
    void (*listens)(TlmPair *pair);
    /* In the live stage */
    void (*live)(TlmPair *pair);
    void (*end)(void);
    bool no_tlm;
} TlmTest;

/* Before anything else */
void tlm_test_init(MigrationTestEnv *env);
/* Where to put files */
const char *tlm_tmpfs(void);

/* A whole test: a migration that completes */
void tlm_test(const TlmTest *t);

/*
 * The same in steps.
 *
 * tlm_start() starts the VMs, or with t->start.only_target a destination for
 * the source in @pair.  The guest is at work in the source when this returns,
 * and the destination listens.  False: skipped.
 */
bool tlm_start(TlmPair *pair, const TlmTest *t);
/*
 * @uri: pair->channels, the proxy's, or where the destination listens, if not
 * given
 */
void tlm_migrate(TlmPair *pair, const char *uri, uint64_t bandwidth);
/* The same; in the live stage with memory on its way when it returns */
void tlm_migrate_live(TlmPair *pair);
/* Lets the migration run to its end, and checks both sides */
void tlm_complete(TlmPair *pair);
/* Ends the VMs after that */
void tlm_end(TlmPair *pair);

/* Parts of tlm_complete(): the source, once query-migrate says so */
void tlm_check_completed(QTestState *from);
/* The destination: the guest goes on there, with all of its memory */
void tlm_check_resumes(QTestState *to);
bool tlm_target_resumed(void);

/*
 * A crash of the destination, with its proxy: pair->to is NULL then.  Fails
 * if the guest has run there.
 */
void tlm_lose_target(TlmPair *pair);
/*
 * After something went wrong, and the destination is gone: the guest runs on
 * at the source, nothing is left of the migration, and the next one, to a
 * fresh destination, completes.  Ends both VMs.
 */
void tlm_recover(TlmPair *pair, const TlmTest *t);

/* Until the marker is there, with this value */
void tlm_wait_for_arrival(TlmPair *pair, uint64_t value);

/* Each of the words, separated by commas, is in the error's description */
void tlm_check_error(QDict *err, const char *words);

/* The command that ends the live stage */
void tlm_switchover(QTestState *from);

#endif
