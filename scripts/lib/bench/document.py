# One document, as an HTML page that needs no other file
#
# SPDX-License-Identifier: GPL-2.0-or-later

import html
import re

STYLE = '''
body { font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; color: #1f2937;
       background: #fff; max-width: 1120px; margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.7em; margin-bottom: .2em }
h2 { margin-top: 2.2em; border-bottom: 1px solid #d1d5db }
h3 { margin: 2em 0 .3em }
table { border-collapse: collapse; font-size: 12.5px; margin: 1em 0;
        display: block; overflow-x: auto }
th, td { padding: .25em .6em; border-bottom: 1px solid #e5e7eb;
         text-align: left; vertical-align: top;
         font-variant-numeric: tabular-nums }
th { border-bottom: 2px solid #9ca3af; background: #f9fafb }
tr.ours td:first-child { color: #b4481a; font-weight: 600 }
figure { margin: 1em 0 } figure svg { width: 100%; height: auto }
figcaption, .small { color: #4b5563; font-size: 13px }
code { background: #f3f4f6; padding: 0 .25em }
nav a { margin-right: 1.2em }
'''


class Document:
    def __init__(self, title):
        self.title = title
        self.blocks = []

    def heading(self, text, level=2):
        self.blocks.append(('heading', level, text))

    def text(self, text):
        """`like this` for code."""
        self.blocks.append(('text', text))

    def points(self, lines):
        self.blocks.append(('points', list(lines)))

    def table(self, head, rows):
        self.blocks.append(('table', head, list(rows)))

    def plot(self, name, svg, caption):
        """svg: the text of an SVG file."""
        self.blocks.append(('plot', name, svg, caption))

    def html(self):
        body = [getattr(self, '_html_' + kind)(*what)
                for kind, *what in self.blocks]
        links = ''.join(f'<a href="#{anchor(b[2])}">{html.escape(b[2])}</a>'
                        for b in self.blocks if b[:2] == ('heading', 2))
        return (f'<!DOCTYPE html>\n<html lang="en"><head>'
                f'<meta charset="utf-8">'
                f'<meta name="viewport" content="width=device-width">'
                f'<title>{html.escape(self.title)}</title>'
                f'<style>{STYLE}</style></head><body>\n'
                f'<h1>{html.escape(self.title)}</h1>\n'
                f'<nav class="small">{links}</nav>\n' + '\n'.join(body) +
                '\n</body></html>\n')

    def _html_heading(self, level, text):
        return (f'<h{level} id="{anchor(text)}">{inline(text)}</h{level}>')

    def _html_text(self, text):
        return f'<p>{inline(text)}</p>'

    def _html_points(self, lines):
        items = ''.join(f'<li>{inline(line)}</li>' for line in lines)
        return f'<ul>{items}</ul>'

    def _html_table(self, head, rows):
        def line(tag, cells, attribute=''):
            return f'<tr{attribute}>' + ''.join(
                f'<{tag}>{inline(c)}</{tag}>' for c in cells) + '</tr>'
        body = ''.join(line('td', row, ' class="ours"' if str(
            row[0]).startswith('TLM') else '') for row in rows)
        return (f'<table><thead>{line("th", head)}</thead>'
                f'<tbody>{body}</tbody></table>')

    def _html_plot(self, name, svg, caption):
        svg = svg[svg.index('<svg'):]
        svg = svg.replace('<svg', f'<svg role="img" aria-label='
                          f'"{html.escape(caption)}"', 1)
        return (f'<figure id="{name}">{svg}'
                f'<figcaption>{inline(caption)}</figcaption></figure>')


def anchor(text):
    return re.sub(r'\W+', '-', text.lower()).strip('-')


def inline(text):
    return re.sub(r'`([^`]+)`', r'<code>\1</code>', html.escape(str(text)))
