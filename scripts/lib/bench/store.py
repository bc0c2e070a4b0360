# Files of results, a line of JSON each, as they are or packed by xz
#
# SPDX-License-Identifier: GPL-2.0-or-later

import json
import lzma
import os

from .flat import grouped

PACKED = '.xz'


def exists(path):
    return os.path.exists(path) or os.path.exists(path + PACKED)


def read(path):
    """The results in @path, or in @path.xz if that is all there is.  A line
    that was cut short, since the bench was killed, is left out."""
    if not exists(path):
        return []
    how = (open(path, encoding='utf-8') if os.path.exists(path) else
           lzma.open(path + PACKED, 'rt', encoding='utf-8'))
    results = []
    with how as f:
        for line in f:
            try:
                result = json.loads(line)
            except ValueError:
                continue
            if 'tlm' in result:
                result['tlm'] = grouped(result['tlm'])
            results.append(result)
    return results


def append(path, result):
    """One line, on a line of its own."""
    with open(path, 'a+b') as f:
        end = f.seek(0, os.SEEK_END)
        if end:
            f.seek(end - 1)
            if f.read(1) != b'\n':
                f.write(b'\n')
        f.write((json.dumps(result) + '\n').encode())


def unpack(path):
    """Have @path as a file that can be appended to."""
    if os.path.exists(path) or not exists(path):
        return
    results = read(path)
    with open(path + '.new', 'w', encoding='utf-8') as f:
        for r in results:
            f.write(json.dumps(r) + '\n')
    os.rename(path + '.new', path)
