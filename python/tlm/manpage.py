# SPDX-License-Identifier: GPL-2.0-or-later
"""Manual pages in roff, made from the table of options.

    python3 -m tlm.manpage NAME     prints tlm(1), tlm-migrate(1), ...
"""

import sys

from . import __version__, options

COMMANDS = {c.page: c for c in options.COMMANDS.values()}
PAGES = ('tlm', *COMMANDS)
SHELL = 'bash'


def escape(text):
    """Text that roff takes for nothing else."""
    text = text.replace('\\', '\\e').replace('-', '\\-')
    return '\\&' + text if text[:1] in (".", "'") else text


def bold(text):
    return f'\\fB{escape(text)}\\fR'


def italic(text):
    return f'\\fI{escape(text)}\\fR'


def item(head, text):
    return ['.TP', head, escape(text)]


def header(name, summary):
    return [f'.TH {escape(name.upper())} 1 "" "tlm {__version__}" '
            '"TLM for QEMU"', '.SH NAME',
            f'{escape(name)} \\- {escape(summary)}']


def option(o, command):
    value = f' {italic(o.value)}' if o.value else ''
    text = o.help_for(command)
    return item(', '.join(bold(f) + value for f in o.flags()),
                f'{text[0].upper()}{text[1:]}.' +
                (' Can be given several times.' if o.many else ''))


def units():
    lines = ['.SH UNITS']
    for name, how in options.UNITS:
        lines += item(italic(name), how + '.')
    return [*lines, '.PP', escape(options.BARE)]


def example(command, words, text):
    return [escape(text), '.PP', '.RS 4', '.nf',
            f'tlm {command} {escape(words)}', '.fi', '.RE', '.PP']


def command_page(c):
    lines = [*header(c.page, c.summary), '.SH SYNOPSIS',
             f'{bold("tlm " + c.name)} {escape(c.usage)}',
             '.SH DESCRIPTION']
    for paragraph in c.text.split('\n\n'):
        lines += [escape(paragraph), '.PP']
    lines.pop()
    if c.arguments:
        lines.append('.SH ARGUMENTS')
        for name, meaning in c.arguments:
            lines += item(italic(name),
                          f'{meaning[0].upper()}{meaning[1:]}.')
    lines.append('.SH OPTIONS')
    for o in options.of(c.name):
        lines += option(o, c.name)
    lines += item(bold('--help'), 'List the options.')
    lines += item(bold('--version'), 'Print the version.')
    lines += units()
    lines.append('.SH EXIT STATUS')
    for code, meaning in c.exits:
        lines += item(str(code), f'{meaning[0].upper()}{meaning[1:]}.')
    lines.append('.SH EXAMPLES')
    for words, text in c.examples:
        lines += example(c.name, words, text)
    lines.pop()
    lines += ['.SH SEE ALSO', ',\n'.join(
        f'{bold(name)}(1)' for name in PAGES if name != c.page)]
    return lines


def main_page():
    lines = [*header('tlm', 'migrate virtual machines by TLM'),
             '.SH SYNOPSIS', f'{bold("tlm")} {italic("COMMAND")} '
             f'[{italic("OPTION")}...]', '.SH DESCRIPTION',
             'Migrates virtual machines in a time that is known beforehand.',
             'The source is a QEMU with TLM; the destination need not be.',
             '.SH COMMANDS']
    for c in options.COMMANDS.values():
        lines += item(f'{bold(c.page)}(1)',
                      f'{c.summary[0].upper()}{c.summary[1:]}.')
    lines.append('.SH OPTIONS')
    lines += item(f'{bold("--completion")} {italic(SHELL)}',
                  f'Print the completion for {SHELL}.')
    lines += item(bold('--help'), 'List the commands.')
    lines += item(bold('--version'), 'Print the version.')
    return lines + units()


def page(name):
    """One of PAGES, as the text of a file."""
    lines = main_page() if name == 'tlm' else \
        command_page(COMMANDS[name])
    return '\n'.join(lines) + '\n'


if __name__ == '__main__':
    print(page(sys.argv[1]), end='')
