# The parts of docs/benchmarks.md that scripts/bench makes, and their plots
#
# A part stands between two comments, and is replaced as a whole; what is
# around it is written by hand and stays.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import glob
import os
import re
import shutil

from . import store

BEGIN, END = '<!-- made by scripts/bench: {} -->', '<!-- end: {} -->'


def replace(text, parts):
    """@parts: {name: Markdown}.  Parts that are empty are left as they are,
    as are those for which @text has no place."""
    for name, made in parts.items():
        begin, end = BEGIN.format(name), END.format(name)
        if made.strip() and begin in text:
            text = re.sub(re.escape(begin) + '.*?' + re.escape(end),
                          lambda _: f'{begin}\n\n{made.strip()}\n\n{end}',
                          text, count=1, flags=re.S)
    return text


def update(page, report, results):
    """@page: the file; @report: a report.Report that has been written;
    @results: files to be kept beside the plots, packed."""
    beside = page.removesuffix('.md')
    os.makedirs(beside, exist_ok=True)
    with open(page, encoding='utf-8') as f:
        text = f.read()
    text = replace(text, report.parts(os.path.dirname(page), beside))
    with open(page, 'w', encoding='utf-8') as f:
        f.write(text)
    drawn = [p for p in report.written if p.endswith('.svg')]
    if drawn:
        for old in glob.glob(os.path.join(beside, '*.svg')):
            os.remove(old)
    written = [shutil.copy(p, beside) for p in drawn]
    return [page, *written, *(
        store.pack(path, os.path.join(beside, os.path.basename(path)))
        for path in results if store.exists(path))]
