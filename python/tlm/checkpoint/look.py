# SPDX-License-Identifier: GPL-2.0-or-later
"""tlm checkpoint list and show: what there is."""

from ..errors import in_words
from ..figures import duration, size
from . import report, text
from .catalogue import Catalogue


def _row(entry):
    if entry.problem:
        return f'{entry.name}: {entry.problem}'
    content = entry.manifest
    return f"{entry.name:<20}  {content['created'][:19]}Z  " \
           f"{size(content['file']['allocated']):>8}  pause " \
           f"{duration(content['pause-us'] / 1000):>7}  was " \
           f"{content['machine']['status']}" + \
           (f', needs {entry.parent}' if entry.parent else '')


@in_words
def main_list(parser, words):
    """Returns the exit status."""
    args = parser.parse_args(words)
    catalogue = Catalogue(args.dir)
    return report.listed(
        'checkpoints', catalogue.entries(), catalogue.leftovers(), _row,
        'no checkpoint; it is being written, or was left over', args.json)


@in_words
def main_show(parser, words):
    """Returns the exit status."""
    args = parser.parse_args(words)
    catalogue = Catalogue(args.dir)
    entry = catalogue.get(args.name) if args.name else catalogue.newest()
    return report.shown(
        entry, lambda: text.shown(entry.manifest, catalogue.file(entry)),
        args.json)
