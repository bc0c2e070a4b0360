# SPDX-License-Identifier: GPL-2.0-or-later
"""The error that every subcommand reports to the user."""

import functools
import sys


class MigrateError(Exception):
    """Something that the user is told in one line."""


class Gone(MigrateError):
    """There is no such QEMU, or domain, any more."""


class Silent(MigrateError):
    """QEMU, libvirt or the host does not answer; it may be there."""


class Refused(MigrateError):
    """By QEMU, which has answered a command with an error."""


def in_words(main):
    """For the main(parser, words) of a subcommand, which returns the exit
    status: what it raises is told in one line."""
    @functools.wraps(main)
    def wrapped(parser, words):
        try:
            return main(parser, words)
        except (MigrateError, OSError) as e:
            print(f'{parser.prog}: {e}', file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 130
    return wrapped
