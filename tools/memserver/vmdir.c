/*
 * The directory of a virtual machine
 *
 *   ../.id            what the directory with all of them is called
 *   .owner            who may see it
 *   .lock             held by the server; "tlm checkpoint" respects it
 *   NAME.part         was being written
 *   NAME.checkpoint   a checkpoint, if there is also
 *   NAME.json         its manifest
 *   NAME.tentative    it is not settled
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "error.h"
#include "manifest.h"
#include "parity.h"
#include "vmdir.h"

/* 64 MiB of file need 67 bytes of it: enough for 50 TiB. */
#define MANIFEST_MAX (64 << 20)

#define OWNER ".owner"
#define ID ".id"
#define TENTATIVE ".tentative"

int vmdir_lock(const char *dir, GError **errp)
{
    g_autofree char *path = g_build_filename(dir, ".lock", NULL);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);

    if (fd < 0) {
        ms_fail(errp, "%s: %s", path, g_strerror(errno));
        return -1;
    }
    if (flock(fd, LOCK_EX | LOCK_NB)) {
        ms_fail(errp, "%s: another program is at work in this directory", dir);
        close(fd);
        return -1;
    }
    return fd;
}

static bool sync_parent(const char *path)
{
    g_autofree char *dir = g_path_get_dirname(path);
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool ok = fd >= 0 && !fsync(fd);

    if (fd >= 0) {
        close(fd);
    }
    return ok;
}

char *vmdir_id(const char *dir, GError **errp)
{
    g_autofree char *path = g_build_filename(dir, ID, NULL);
    g_autofree char *id = NULL;

    if (g_file_get_contents(path, &id, NULL, NULL) &&
        g_uuid_string_is_valid(g_strchomp(id))) {
        return g_steal_pointer(&id);
    }
    g_free(id);
    id = g_uuid_string_random();
    return g_file_set_contents_full(path, id, -1,
                                    G_FILE_SET_CONTENTS_CONSISTENT |
                                    G_FILE_SET_CONTENTS_DURABLE, 0644, errp)
        ? g_steal_pointer(&id) : NULL;
}

bool vmdir_make(const char *dir, const char *owner, GError **errp)
{
    g_autofree char *path = g_build_filename(dir, OWNER, NULL);

    if (mkdir(dir, 0700) && errno != EEXIST) {
        return ms_fail(errp, "%s: %s", dir, g_strerror(errno));
    }
    if (access(path, F_OK) &&
        !g_file_set_contents_full(path, owner, -1,
                                  G_FILE_SET_CONTENTS_CONSISTENT |
                                  G_FILE_SET_CONTENTS_DURABLE, 0600, errp)) {
        return false;
    }
    /* A server that was killed may have made them, and not synced. */
    return (sync_parent(path) && sync_parent(dir)) ||
           ms_fail(errp, "%s: cannot sync", dir);
}

char *vmdir_owner(const char *dir)
{
    g_autofree char *path = g_build_filename(dir, OWNER, NULL);
    char *owner;

    return g_file_get_contents(path, &owner, NULL, NULL) ? owner : NULL;
}

bool vmdir_mark_tentative(const char *dir, const char *name, GError **errp)
{
    g_autofree char *path = g_strconcat(dir, "/", name, TENTATIVE, NULL);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    bool ok = fd >= 0 && sync_parent(path);

    if (fd >= 0) {
        close(fd);
    }
    return ok || ms_fail(errp, "%s: cannot make it: %s", path,
                         g_strerror(errno));
}

bool vmdir_settle(const char *dir, const char *name, GError **errp)
{
    g_autofree char *path = g_strconcat(dir, "/", name, TENTATIVE, NULL);

    return ((!unlink(path) || errno == ENOENT) && sync_parent(path)) ||
           ms_fail(errp, "%s: cannot remove: %s", path, g_strerror(errno));
}

static bool load_parity(Checkpoint *c, const char *path, GError **errp)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    g_autoptr(MemImage) image = NULL;

    if (fd < 0) {
        return ms_fail(errp, "%s: %s", path, g_strerror(errno));
    }
    image = mem_image_part_from_file(fd, c->vm, c->name, errp);
    close(fd);
    c->parity = image ? parity_from_image(image, errp) : NULL;
    return c->parity;
}

/* Its client has gone with the server; others may be settled. */
static bool note_tentative(Checkpoint *c, const char *dir)
{
    g_autofree char *path = g_strconcat(dir, "/", c->name, TENTATIVE, NULL);

    if (!access(path, F_OK)) {
        c->claim = claim_new();
        claim_end(c->claim);
        c->ready = true;
    }
    return true;
}

static Checkpoint *load(const char *dir, const char *vm, const char *file,
                        GError **errp)
{
    g_autofree char *path = g_build_filename(dir, file, NULL);
    g_autofree char *text = NULL, *data = NULL;
    g_autoptr(Checkpoint) c = NULL;
    struct stat st;
    size_t size;

    if (stat(path, &st) || st.st_size > MANIFEST_MAX) {
        ms_fail(errp, "the manifest cannot be read, or is too large");
        return NULL;
    }
    if (!g_file_get_contents(path, &text, &size, errp)) {
        return NULL;
    }
    c = manifest_parse(vm, text, size, NULL, errp);
    if (!c) {
        return NULL;
    }
    data = g_strdup_printf("%s/%s.checkpoint", dir, c->name);
    if (strncmp(file, c->name, strlen(c->name)) ||
        strcmp(file + strlen(c->name), ".json")) {
        ms_fail(errp, "the manifest is that of %s", c->name);
        return NULL;
    }
    if (stat(data, &st) || st.st_size != c->file.size) {
        ms_fail(errp, "the file is missing, or has another size");
        return NULL;
    }
    return (c->part < c->parts || load_parity(c, data, errp)) &&
           note_tentative(c, dir) ? g_steal_pointer(&c) : NULL;
}

/* Whether @file is of no complete checkpoint. */
static bool left_over(const char *dir, const char *file)
{
    g_autofree char *manifest = NULL;

    if (g_str_has_suffix(file, ".part") ||
        g_str_has_prefix(file, OWNER ".") ||    /* GLib's draft of it */
        (*file == '.' && g_str_has_suffix(file, ".json.new"))) {
        return true;
    }
    if (!g_str_has_suffix(file, ".checkpoint") &&
        !g_str_has_suffix(file, TENTATIVE)) {
        return false;
    }
    manifest = g_strdup_printf("%s/%.*s.json", dir,
                               (int)(strrchr(file, '.') - file), file);
    return access(manifest, F_OK);
}

static int by_time(const void *a, const void *b)
{
    return strcmp((*(Checkpoint *const *)a)->created,
                  (*(Checkpoint *const *)b)->created);
}

GPtrArray *vmdir_scan(const char *dir, const char *vm)
{
    GPtrArray *list =
        g_ptr_array_new_with_free_func((GDestroyNotify)checkpoint_unref);
    g_autoptr(GDir) d = g_dir_open(dir, 0, NULL);
    const char *file;

    while (d && (file = g_dir_read_name(d))) {
        g_autoptr(GError) error = NULL;
        Checkpoint *c;

        if (left_over(dir, file)) {
            g_autofree char *path = g_build_filename(dir, file, NULL);

            g_message("%s: was left over, is removed", path);
            unlink(path);
        } else if (*file != '.' && g_str_has_suffix(file, ".json")) {
            c = load(dir, vm, file, &error);
            if (c) {
                g_ptr_array_add(list, c);
            } else {
                g_warning("%s/%s: is left alone: %s", dir, file,
                          error->message);
            }
        }
    }
    g_ptr_array_sort(list, by_time);
    return list;
}

bool vmdir_remove(const char *dir, const char *name, GError **errp)
{
    g_autofree char *manifest = g_strdup_printf("%s/%s.json", dir, name);
    g_autofree char *file = g_strdup_printf("%s/%s.checkpoint", dir, name);
    g_autofree char *tentative = g_strconcat(dir, "/", name, TENTATIVE, NULL);

    if ((unlink(manifest) && errno != ENOENT) || !sync_parent(manifest) ||
        (unlink(file) && errno != ENOENT)) {
        return ms_fail(errp, "%s: cannot remove: %s", file, g_strerror(errno));
    }
    return (!unlink(tentative) || errno == ENOENT) ||
           ms_fail(errp, "%s: cannot remove: %s", tentative,
                   g_strerror(errno));
}
