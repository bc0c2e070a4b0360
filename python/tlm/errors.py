# SPDX-License-Identifier: GPL-2.0-or-later
"""The error that every subcommand reports to the user."""


class MigrateError(Exception):
    """Something that the user is told in one line."""


class Gone(MigrateError):
    """There is no such QEMU, or domain, any more."""


class Silent(MigrateError):
    """QEMU, libvirt or the host does not answer; it may be there."""


class Refused(MigrateError):
    """By QEMU, which has answered a command with an error."""
