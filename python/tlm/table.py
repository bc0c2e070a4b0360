# SPDX-License-Identifier: GPL-2.0-or-later
"""What the table of subcommands and options (options.py) is made of."""

import dataclasses
from collections.abc import Callable, Mapping


@dataclasses.dataclass(frozen=True)
class Command:
    name: str
    summary: str
    usage: str                      # behind the name
    text: str
    exits: tuple                    # (exit status, meaning)
    examples: tuple                 # (words behind the name, what they do)
    # (name, meaning); [NAME] can be left out, [NAME...] are any number
    arguments: tuple = ()

    @property
    def page(self):
        """Its manual page."""
        return f"tlm-{self.name.replace(' ', '-')}"


@dataclasses.dataclass(frozen=True)
class Old:
    """An option of a command's old name: how it is written there too, and
    the unit of a number without one."""

    flag: str = ''
    bare: str = ''


@dataclasses.dataclass(frozen=True)
class Option:
    """@parse: None for a switch.  @help may differ by subcommand."""

    name: str
    commands: tuple
    help: str | Mapping[str, str]
    parse: Callable | None = None
    metavar: str = ''
    choices: tuple = ()
    short: str = ''
    default: object = None
    many: bool = False
    required: tuple = ()            # subcommands that need it
    file: bool = False              # for the completion
    old: Mapping[str, Old] = dataclasses.field(default_factory=dict)

    @property
    def dest(self):
        return self.name.replace('-', '_')

    def help_for(self, command):
        return self.help if isinstance(self.help, str) else \
            self.help[command]

    def flags(self, old_name=None):
        """All spellings; the last one is what the user is told."""
        old = self.old.get(old_name, Old()).flag
        return [f for f in (self.short, f'--{self.name}', old) if f]

    def parser(self, old_name=None):
        """For one value, as text."""
        bare = self.old.get(old_name, Old()).bare
        return dataclasses.replace(self.parse, bare=bare) if bare else \
            self.parse

    @property
    def value(self):
        """The value in usage and help; '' for a switch."""
        return '|'.join(self.choices) if self.choices else self.metavar
