/*
 * Streams that a real QEMU has sent
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <zlib.h>

#include "recorded.h"

GByteArray *recorded(const char *name)
{
    g_autofree char *path =
        g_strdup_printf("%s/tests/unit/memserver/%s.gz",
                        g_getenv("TLM_CHECKOUT"), name);
    gzFile f = gzopen(path, "rb");
    GByteArray *b = g_byte_array_new();
    char buffer[4096];
    int n;

    g_assert_nonnull(f);
    while ((n = gzread(f, buffer, sizeof(buffer))) > 0) {
        g_byte_array_append(b, (void *)buffer, n);
    }
    g_assert_cmpint(n, ==, 0);
    gzclose(f);
    return b;
}
