/*
 * A connection to whoever is restored: a socket that does not block, with TLS
 * or without
 *
 * For one thread, and not after the one that made it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef RESTORE_TARGET_H
#define RESTORE_TARGET_H

#include <glib.h>
#include <stdbool.h>
#include <sys/uio.h>

#include "tls.h"

typedef struct TargetWish {
    const char *to;                     /* tcp:HOST:PORT, unix:PATH */
    const TlsCreds *tls;                /* of a client; NULL: without TLS */
    const char *tls_host;               /* in the certificate; NULL: of @to */
} TargetWish;

typedef struct Target Target;

/* Not connected yet.  Copies what @wish has, but for the credentials. */
Target *target_new(const TargetWish *wish);
void target_free(Target *t);

/*
 * Blocks until the connection is there, with TLS until both sides know each
 * other: QEMU takes the first connection with TLS for the main stream.
 * @go_on is called again and again meanwhile; false: give up.
 */
bool target_connect(Target *t, bool (*go_on)(void *opaque), void *opaque,
                    GError **errp);

/* To poll; -1: not connected. */
int target_fd(const Target *t);

/*
 * How many bytes have gone; 0: none can go now, and the next call must begin
 * with the same ones; -1: an error, which tells whether memory of @iov is not
 * there (EFAULT).
 */
gssize target_write(Target *t, const struct iovec *iov, unsigned count,
                    GError **errp);

/* How many bytes have come; 0: none are there now; -1: the end, an error. */
gssize target_read(Target *t, void *to, size_t size, GError **errp);

/*
 * 1: QEMU has closed it, and has taken all that was sent; 0: not yet; -1: it
 * has closed it before, or says something.
 */
int target_closed(Target *t);

/* Says that nothing follows, if that is possible now. */
void target_end(Target *t);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Target, target_free)

#endif
