# SPDX-License-Identifier: GPL-2.0-or-later
"""Parsers of what users write: one for each unit, the same for all options.

A number without a unit is refused, for nobody can tell whether 20 is seconds
or milliseconds; 0 needs none.  An old name of the command (see options.py)
goes on to understand bare numbers: @bare is the unit that they have there.
"""

import argparse
import dataclasses
import json
import re

from . import figures

NUMBER = r'(\d+(?:\.\d*)?|\.\d+)'
MS = {'ms': 1, 's': 1000, 'min': 60_000, 'h': 3_600_000}
PREFIXES = {'': 1, 'k': 10**3, 'm': 10**6, 'g': 10**9, 't': 10**12,
            'ki': 2**10, 'mi': 2**20, 'gi': 2**30, 'ti': 2**40}
BITS = ('b', 'bit', 'Bit', 'bits')      # b is a bit, B a byte


class Bad(argparse.ArgumentTypeError):
    """What is wrong with a value, in words for the user."""

    def __init__(self, text, why):
        super().__init__(f"'{text}': {why}")


def _split(text, bare):
    """(number, unit); the unit is @bare if none is written, and None if
    neither is.  None: @text is no number with a unit."""
    m = re.fullmatch(NUMBER + r'\s*(\S*)', text.strip(), re.ASCII)
    if not m:
        return None
    number, unit = float(m[1]), m[2]
    return number, unit or (bare or None if number else '')


def _bytes(unit):
    """Bytes in one @unit, as in kB, MiB, Gbit; None: there is no such."""
    m = re.fullmatch(r'([kmgtKMGT]i?|)(bits?|Bit|b|B)', unit)
    if not m:
        return None
    return PREFIXES[m[1].lower()] / (8 if m[2] in BITS else 1)


@dataclasses.dataclass(frozen=True)
class Duration:
    """A time; whole milliseconds."""

    least: int = 0
    bare: str = ''

    def __call__(self, text):
        found = _split(text, self.bare)
        if found is None or found[1] and found[1] not in MS:
            raise Bad(text, 'write a time as 20s, 500ms, 2min or 1h')
        number, unit = found
        if unit is None:
            raise Bad(text, 'which unit? Write 20s or 500ms')
        value = round(number * MS.get(unit, 0))
        if value < self.least or number and not value:
            raise Bad(text, 'must be at least '
                      + figures.duration(self.least or 1))
        return value


@dataclasses.dataclass(frozen=True)
class Bandwidth:
    """Bytes per second."""

    least: int = 0
    bare: str = ''

    def __call__(self, text):
        found = _split(text, self.bare)
        if found is None:
            raise self.bad(text)
        number, unit = found
        if unit is None:
            raise Bad(text, 'which unit? Write 10Gbit/s or 300MB/s')
        if self.bare and re.fullmatch('[kmgt]i?', unit, re.I):
            unit += 'B'                 # as the old names have it
        factor = _bytes(re.sub(r'(?:/s|ps)$', '', unit)) if unit else 0
        if factor is None:
            raise self.bad(text)
        value = int(number * factor)
        if value < self.least or number and not value:
            raise Bad(text, 'must be at least '
                      + figures.rate(self.least or 1))
        return value

    @staticmethod
    def bad(text):
        return Bad(text, 'write a bandwidth as 10Gbit/s, 300MB/s or 1.5GiB/s')


@dataclasses.dataclass(frozen=True)
class Size:
    """Bytes."""

    least: int = 0
    bare: str = ''

    def __call__(self, text):
        found = _split(text, self.bare)
        if found and found[1] is None:
            raise Bad(text, 'which unit? Write 512MiB or 1.5GiB')
        factor = _bytes(found[1]) if found and found[1] else 0
        if found is None or factor is None or found[1].endswith(BITS):
            raise Bad(text, 'write a size as 512MiB or 1.5GiB')
        value = int(found[0] * factor)
        if value < self.least:
            raise Bad(text, 'must be at least ' + figures.memory(self.least))
        return value


@dataclasses.dataclass(frozen=True)
class Count:
    """A whole number, of things that have no unit."""

    least: int = 0

    def __call__(self, text):
        if not re.fullmatch(r'\d+', text, re.ASCII):
            raise Bad(text, 'write a whole number')
        value = int(text)
        if value < self.least:
            raise Bad(text, f'must be at least {self.least}')
        return value


def steps(text):
    """The schedule of tlm-overcommit: "0.2-(4),0.5-(2)"."""
    found = []
    for word in text.split(','):
        m = re.fullmatch(r'(0?\.\d+|0|1|1\.0+)-\((\d+)\)', word.strip())
        if not m:
            raise Bad(text, 'write 0.5-(2) for two host CPUs from half of '
                      'the pass on; several steps with commas')
        found.append({'progress': round(float(m[1]) * 100, 6),
                      'cpus': int(m[2])})
    return found


def setting(text):
    """NAME=VALUE of a migration parameter; the value is JSON, or text."""
    name, found, value = text.partition('=')
    if not found:
        raise Bad(text, 'write NAME=VALUE')
    if value in ('on', 'off'):
        return name, value == 'on'
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def address(text):
    """tcp:HOST:PORT, also without "tcp:"; unix:PATH, also without "unix:"."""
    kind, found, rest = text.partition(':')
    if kind == 'unix' and rest or text.startswith('/'):
        return text if found and kind == 'unix' else f'unix:{text}'
    plain = rest if kind == 'tcp' else text
    if not re.fullmatch(r'(\[[^\[\]]+\]|[^:\[\]]+):\d+', plain, re.ASCII):
        raise Bad(text, 'write HOST:PORT, [IPv6]:PORT or unix:PATH')
    return f'tcp:{plain}'


def addresses(text):
    """Several, with commas."""
    return [address(word) for word in text.split(',')]


ALL = 'all'


def parts(text):
    """A number of servers, or ALL."""
    return text if text == ALL else Count(least=1)(text)


AUTO, VIRSH = 'auto', 'virsh'


def disk(text):
    """NODE=OVERLAY, AUTO, or VIRSH"""
    if text in (AUTO, VIRSH):
        return text
    first, _, second = text.partition('=')
    if not first or not second:
        raise Bad(text, 'write NODE=OVERLAY, auto, or virsh')
    return first, second


def as_text(value):
    """What setting() took for a number or a switch."""
    if isinstance(value, bool):
        return 'on' if value else 'off'
    return value if isinstance(value, str) else json.dumps(value)


def checkpoint_name(text):
    """A name that is the same in every file system, and no option."""
    if not re.fullmatch('[A-Za-z0-9_][A-Za-z0-9._-]{0,99}', text):
        raise Bad(text, 'write a name of up to 100 letters, digits, ".", "_" '
                  'and "-" that begins with none of "." and "-"')
    return text
