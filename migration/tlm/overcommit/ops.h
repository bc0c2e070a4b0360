/*
 * TLM: vCPU over-commit: reads files, and changes the system
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TLM_OVERCOMMIT_OPS_H
#define TLM_OVERCOMMIT_OPS_H

#include "cpus.h"

/*
 * The calls that change the system.  Each returns 0 or -errno.  Unit tests put
 * a simulated kernel here; NULL in TlmOcConfig means the real one.
 */
typedef struct TlmOcOps {
    int (*write)(const char *path, const char *text, void *opaque);
    int (*mkdir)(const char *path, void *opaque);
    int (*rmdir)(const char *path, void *opaque);
    int (*set_affinity)(pid_t tid, const TlmCpuSet *cpus, void *opaque);
} TlmOcOps;

extern const TlmOcOps tlm_oc_real_ops;

/* The host, or a simulated one */
typedef struct TlmOcSystem {
    const char *root;           /* prefix of /proc and /sys */
    const TlmOcOps *ops;
    void *opaque;               /* for ops */
} TlmOcSystem;

/* A file's text without the final newline */
char *tlm_oc_read(const char *dir, const char *file, GError **errp);
/* Writes @text to @dir/@file by sys->ops->write */
bool tlm_oc_write(const TlmOcSystem *sys, const char *dir, const char *file,
                  const char *text, GError **errp);
/* Sets the error of an operation that returned @ret; returns false */
bool tlm_oc_failed(GError **errp, int ret, const char *what,
                   const char *path);

#endif
