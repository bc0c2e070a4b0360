# SPDX-License-Identifier: GPL-2.0-or-later
"""Other images for the disks of a QEMU command line, where it is sure what
each word means."""

import json
import os
import re

from ..errors import MigrateError
from . import disks

DISKS = ('-hda', '-hdb', '-hdc', '-hdd')    # QEMU looks what is in the file
FORMAT = ('format', 'driver')
# What an image has that a new overlay has not, or what only -drive takes apart
ODD = re.compile(r'file\.|backing|offset$|size$|encrypt|data-file|key-secret|'
                 r'snapshot$|json:')
READ_ONLY = re.compile(r'"?read-?only"?[=:] ?(on|true)')


class Options:
    """The value of -drive or -blockdev: 'a=b,c=d' or JSON."""

    def __init__(self, text, first=None):
        self.json = text.startswith('{')
        if self.json:
            self.values = json.loads(text)
            return
        self.values = {}
        # A comma of a value is written twice
        for word in re.findall(r'(?:[^,]|,,)+', text):
            key, equals, value = word.replace(',,', ',').partition('=')
            if not equals:
                key, value = first or key, key if first else 'on'
            self.values[key] = value

    def flat(self):
        return dict(self._flat(self.values, ''))

    def _flat(self, values, prefix):
        for key, value in values.items():
            if isinstance(value, dict):
                yield from self._flat(value, f'{prefix}{key}.')
            else:
                yield prefix + key, value

    def set(self, key, value):
        values = self.values
        if self.json:
            *path, key = key.split('.')
            for name in path:
                values = values[name]
        values[key] = value

    def text(self):
        return json.dumps(self.values) if self.json else ','.join(
            f"{key}={value.replace(',', ',,')}"
            for key, value in self.values.items())


class Line:
    """@words: a command line; @directory: where it is started."""

    def __init__(self, words, directory):
        self.words, self.directory = list(words), directory
        self.changed = set()        # indices of words

    def _option(self, at):
        """What the word @at is the value of."""
        before = self.words[at - 1] if at else ''
        return before[1:] if before.startswith('--') else before

    def _parsed(self, kind, first=None):
        """{index: Options}"""
        found = {}
        for at, word in enumerate(self.words):
            if self._option(at) == kind:
                try:
                    found[at] = Options(word, first)
                except ValueError:
                    pass            # QEMU says what is wrong with it
        return found

    def is_file(self, name, file):
        return isinstance(name, str) and file == os.path.realpath(
            os.path.join(self.directory or '', name))

    def _drive(self, file, new):
        for at, options in self._parsed('-drive').items():
            if not self.is_file(options.values.get('file'), file):
                continue
            form = next((f for f in FORMAT if f in options.values), 'format')
            if not any(ODD.match(key) for key in options.values):
                yield at, options, {'file': new, form: 'qcow2'}

    def _blockdev(self, file, new):
        nodes = self._parsed('-blockdev', 'driver')
        for at, options in nodes.items():
            flat = options.flat()
            if flat.get('file.driver') == 'file' and \
                    self.is_file(flat.get('file.filename'), file):
                del flat['file.driver'], flat['file.filename']
                rest = {k for k in flat if not k.startswith('file.')}
                if not any(ODD.match(key) for key in rest):
                    yield at, options, {'driver': 'qcow2',
                                        'file.filename': new}
            elif flat.get('driver') == 'file' and \
                    self.is_file(flat.get('filename'), file):
                yield from self._above(nodes, at, flat.get('node-name'), new)

    @staticmethod
    def _above(nodes, at, name, new):
        """The one node that has the format of the file in another."""
        users = [(n, o) for n, o in nodes.items()
                 if name and o.flat().get('file') == name]
        if len(users) == 1 and not any(map(ODD.match, users[0][1].flat())):
            yield at, nodes[at], {'filename': new}
            yield *users[0], {'driver': 'qcow2'}

    def names(self, file):
        """Does any word that was not changed name it, other than as a file
        that is only read?"""
        name = re.compile(rf'(?<![\w.-]){re.escape(os.path.basename(file))}'
                          r'(?![\w.-])')
        return any(at not in self.changed and not READ_ONLY.search(word) and
                   (name.search(word) or
                    any(self.is_file(part, file) for part in
                        re.split('[=,"]', word) if part))
                   for at, word in enumerate(self.words))

    def replace(self, file, new):
        """Returns False, and has done nothing, if that is not sure."""
        changes = [*self._drive(file, new), *self._blockdev(file, new)]
        plain = [at for at, word in enumerate(self.words)
                 if self._option(at) in DISKS and self.is_file(word, file)]
        roots = [c for c in changes if set(c[2]) != {'driver'}]
        if len(roots) + len(plain) != 1:
            return False
        for at in plain:
            self.words[at] = new
            self.changed.add(at)
        for at, options, values in changes:
            for key, value in values.items():
                options.set(key, value)
            self.words[at] = options.text()
            self.changed.add(at)
        return True


def _unsure(file, wanted):
    return MigrateError('\n'.join([
        f'it is not sure what the command line says of {file}. Write one '
        'behind "--":', *disks.how_to_restore(wanted)]))


def on(words, directory, wanted, recorded, make):
    """The line with each disk on what make(disk) returns.  @wanted: disks of
    the manifest; @recorded: it must have all of them; else one that it does
    not name has been seen to by the user.  Returns a Line."""
    line = Line(words, directory)
    for disk in wanted:
        # The line has the file that the VM was started with: the first of
        # the chain, from the top, that it names
        files = [disk['base'], *disk.get('below', ())]
        if None in files:
            raise MigrateError(f"not all images below {disk['base']} are "
                               'files here')
        named = next((f for f in files if line.names(f)), None)
        if named is None and not recorded:
            continue
        if named is None or not line.replace(named, make(disk)) or \
                line.names(named):
            raise _unsure(named or disk['base'], wanted)
    return line
