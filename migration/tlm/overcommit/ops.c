/*
 * TLM: vCPU over-commit: reads files, and changes the system
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <sched.h>
#include "error.h"
#include "ops.h"

/* A cgroup file takes its whole text in one write */
static int real_write(const char *path, const char *text, void *opaque)
{
    size_t len = strlen(text);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    ssize_t done;
    int ret;

    if (fd < 0) {
        return -errno;
    }
    do {
        done = write(fd, text, len);
    } while (done < 0 && errno == EINTR);
    ret = done < 0 ? -errno : done == len ? 0 : -EIO;
    close(fd);
    return ret;
}

static int real_mkdir(const char *path, void *opaque)
{
    return mkdir(path, 0755) ? -errno : 0;
}

static int real_rmdir(const char *path, void *opaque)
{
    return rmdir(path) ? -errno : 0;
}

static int real_set_affinity(pid_t tid, const TlmCpuSet *cpus, void *opaque)
{
    return sched_setaffinity(tid, sizeof(cpus->bits),
                             (const cpu_set_t *)cpus->bits) ? -errno : 0;
}

const TlmOcOps tlm_oc_real_ops = {
    .write = real_write,
    .mkdir = real_mkdir,
    .rmdir = real_rmdir,
    .set_affinity = real_set_affinity,
};

char *tlm_oc_read(const char *dir, const char *file, GError **errp)
{
    g_autofree char *path = g_build_filename(dir, file, NULL);
    char *text;

    if (!g_file_get_contents(path, &text, NULL, errp)) {
        return NULL;
    }
    return g_strchomp(text);
}

bool tlm_oc_failed(GError **errp, int ret, const char *what, const char *path)
{
    g_set_error(errp, TLM_OC_ERROR, TLM_OC_ERROR_UNAVAILABLE, "%s %s: %s",
                what, path, g_strerror(-ret));
    return false;
}

bool tlm_oc_write(const TlmOcSystem *sys, const char *dir, const char *file,
                  const char *text, GError **errp)
{
    g_autofree char *path = g_build_filename(dir, file, NULL);
    g_autofree char *what = NULL;
    int ret = sys->ops->write(path, text, sys->opaque);

    if (ret) {
        what = g_strdup_printf("writing '%s' to", text);
        return tlm_oc_failed(errp, ret, what, path);
    }
    return true;
}
