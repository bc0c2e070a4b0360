# SPDX-License-Identifier: GPL-2.0-or-later
"""Parsers of the command line, made from the table of options."""

import argparse
import textwrap

from . import __version__, completion, options

WIDTH = 76


def paragraphs(text):
    return '\n\n'.join(textwrap.fill(p, WIDTH, break_on_hyphens=False)
                       for p in text.split('\n\n'))


def exits(command):
    return 'Exit status: ' + ', '.join(f'{code} {meaning}'
                                       for code, meaning in command.exits)


def units_note(command, old_name):
    """How values of the subcommand's options are written."""
    used = {o.metavar for o in options.of(command.name)}
    notes = [f'{name} is as {how}' for name, how in options.UNITS
             if name in used]
    if old_name:
        bare = ', '.join(
            f'{o.flags(old_name)[-1]} {o.old[old_name].bare}'
            for o in options.of(command.name)
            if o.old.get(old_name) and o.old[old_name].bare)
        return f"{'. '.join(notes)}. The unit of a number without one: " \
               f"{bare}. '{old_name}' is the old name of " \
               f"'tlm {command.name}', where it is refused."
    return f"{'. '.join(notes)}. {options.BARE}" if notes else ''


def add(parser, option, command=None, old_name=None, help_text=None):
    """One option of the table; @command: as a subcommand has it, for the
    text of its help."""
    settings = {'dest': option.dest, 'default': option.default,
                'help': help_text or option.help_for(command)}
    if option.parse is None:
        settings.update(action='store_true', default=False)
    else:
        settings.update(type=option.parser(old_name),
                        metavar=option.metavar or None,
                        choices=option.choices or None)
        if option.many:
            settings.update(action='append', default=[])
        settings['required'] = command in option.required
    parser.add_argument(*option.flags(old_name), **settings)


def of_command(command, old_name=None):
    """The parser of a subcommand.  @old_name: the link that was called."""
    p = argparse.ArgumentParser(
        prog=old_name or f'tlm {command.name}', allow_abbrev=False,
        usage=f'%(prog)s {command.usage}',
        description=paragraphs(command.text),
        epilog='\n\n'.join(paragraphs(text) for text in (
            units_note(command, old_name), exits(command)) if text),
        formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, meaning in command.arguments:
        plain = name.strip('[].')
        p.add_argument(plain.lower(), metavar=plain, help=meaning,
                       nargs='*' if name.endswith('...]') else
                       None if plain == name else '?')
    for option in options.of(command.name):
        add(p, option, command.name, old_name)
    p.add_argument('--version', action='version',
                   version=f'tlm {__version__}')
    return p


class Completion(argparse.Action):
    def __call__(self, parser, namespace, values, option_string=None):
        print(completion.SHELLS[values](), end='')
        parser.exit()


def of_all():
    """The parser for calls that have no subcommand, or none that exists."""
    width = max(map(len, options.COMMANDS))
    p = argparse.ArgumentParser(
        prog='tlm', allow_abbrev=False,
        usage='%(prog)s [--version] [--completion SHELL] COMMAND ...',
        description='Migrate virtual machines in a time that is known '
        'beforehand.\n\ncommands:\n' + '\n'.join(
            f'  {c.name:<{width}}  {c.summary}'
            for c in options.COMMANDS.values()),
        epilog="'tlm COMMAND --help' lists a command's options.",
        formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--version', action='version',
                   version=f'tlm {__version__}')
    p.add_argument('--completion', action=Completion, metavar='SHELL',
                   choices=tuple(completion.SHELLS),
                   help='print the completion for a shell: '
                   + ', '.join(completion.SHELLS))
    p.add_argument('command', metavar='COMMAND',
                   choices=tuple(options.COMMANDS), help=argparse.SUPPRESS)
    return p
