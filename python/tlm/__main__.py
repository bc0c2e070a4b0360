# SPDX-License-Identifier: GPL-2.0-or-later
"""Entry: which subcommand is it?"""

import os
import sys

from . import estimate, migrate, options, parser
from .checkpoint import (commands, commit, flatten, look, restore, save, standby,
                         takeover, tidy, watch)
from .cluster import commands as cluster
from .cluster import look as cluster_look
from .cluster import restore as cluster_restore
from .cluster import save as cluster_save
from .cluster import watch as cluster_watch
from .memserver import commands as memserver
from .memserver import look as memserver_look
from .virsh import command as virsh_migrate

MAIN = {options.MIGRATE: migrate.main, options.ESTIMATE: estimate.main,
        options.VIRSH: virsh_migrate.main,
        commands.SAVE: save.main, commands.WATCH: watch.main,
        commands.LIST: look.main_list, commands.SHOW: look.main_show,
        commands.VERIFY: tidy.main_verify, commands.PRUNE: tidy.main_prune,
        commands.RESTORE: restore.main, commands.FLATTEN: flatten.main,
        commands.COMMIT: commit.main, commands.STANDBY: standby.main,
        commands.TAKEOVER: takeover.main,
        cluster.SAVE: cluster_save.main, cluster.WATCH: cluster_watch.main,
        cluster.LIST: cluster_look.main_list,
        cluster.SHOW: cluster_look.main_show,
        cluster.VERIFY: cluster_look.main_verify,
        cluster.PRUNE: cluster_look.main_prune,
        cluster.RESTORE: cluster_restore.main,
        memserver.LIST: memserver_look.main_list,
        memserver.SHOW: memserver_look.main_show,
        memserver.VERIFY: memserver_look.main_verify,
        memserver.PRUNE: memserver_look.main_prune,
        memserver.REMOVE: memserver_look.main_remove}


def find(words):
    """The subcommand, of one word or two, that @words begin with; None."""
    for n in (1, 2):
        if ' '.join(words[:n]) in options.COMMANDS:
            return ' '.join(words[:n])
    return None


def main():
    """Returns the exit status."""
    called, words = os.path.basename(sys.argv[0]), sys.argv[1:]
    old_name = called if called in options.OLD_NAMES else None
    if old_name:
        name = options.OLD_NAMES[old_name]
    elif name := find(words):
        words = words[len(name.split()):]
    else:
        name, words = parser.of_all().parse_args(words).command, []
    return MAIN[name](parser.of_command(options.COMMANDS[name], old_name),
                      words)


def run():
    """For the single file, whose entry point returns nothing."""
    sys.exit(main())


if __name__ == '__main__':
    run()
