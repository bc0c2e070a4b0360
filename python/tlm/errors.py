# SPDX-License-Identifier: GPL-2.0-or-later
"""The error that every subcommand reports to the user."""


class MigrateError(Exception):
    """Something that the user is told in one line."""
