/*
 * Credentials for tests of TLS, in directories as QEMU has them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TEST_CREDENTIALS_H
#define TEST_CREDENTIALS_H

typedef struct Authority Authority;

Authority *authority_new(const char *name);
void authority_free(Authority *a);

/*
 * Writes ca-cert.pem, @side-cert.pem and @side-key.pem to @dir, which is made.
 * @name: both common name and host name, or IPv4 address.  The certificate is
 * good for so many @days from an hour ago; -1: it has expired.
 */
void authority_issue(Authority *a, const char *dir, const char *side,
                     const char *name, int days);

/* Writes keys.psk to @dir, which is made: one user, 32 times @byte in hex. */
void credentials_psk(const char *dir, const char *user, const char *byte);

#endif
