# SPDX-License-Identifier: GPL-2.0-or-later
"""Entry: which subcommand is it?"""

import os
import sys

from . import estimate, migrate, options, parser
from .virsh import command as virsh_migrate

MAIN = {options.MIGRATE: migrate.main, options.ESTIMATE: estimate.main,
        options.VIRSH: virsh_migrate.main}


def main():
    """Returns the exit status."""
    called, words = os.path.basename(sys.argv[0]), sys.argv[1:]
    old_name = called if called in options.OLD_NAMES else None
    if old_name:
        name = options.OLD_NAMES[old_name]
    elif words and words[0] in options.COMMANDS:
        name, *words = words
    else:
        name, words = parser.of_all().parse_args(words).command, []
    return MAIN[name](parser.of_command(options.COMMANDS[name], old_name),
                      words)


def run():
    """For the single file, whose entry point returns nothing."""
    sys.exit(main())


if __name__ == '__main__':
    run()
