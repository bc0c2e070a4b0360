# Pictures in SVG, from lines, marks and words: small, and the same everywhere
#
# The report's plots are matplotlib's, of which each version draws a little
# differently.  Pictures that are checked in are compared when they are made
# again; so they are made here, to the byte.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import html
import math

INK, FAINT = '#1f2937', '#d1d5db'
SIZE = 12               # of letters, in px
LINE = 14               # from one line of words to the next
FONT = 'DejaVu Sans, Verdana, sans-serif'


def number(x):
    """With at most one decimal, and none that is 0."""
    return f'{round(x, 1):g}'


class Linear:
    """Places values between @low and @high."""

    def __init__(self, low, high, ticks):
        self.low, self.high, self.ticks = low, high, ticks

    def share(self, value):
        return (value - self.low) / (self.high - self.low)


class Log(Linear):
    def share(self, value):
        value = min(max(value, self.low), self.high)
        return math.log(value / self.low) / math.log(self.high / self.low)


class Picture:
    def __init__(self, width, height, title):
        self.width, self.height = width, height
        self.parts = [f'<title>{html.escape(title)}</title>',
                      f'<rect width="{width}" height="{height}" '
                      'fill="#fff"/>']

    def text(self, x, y, words, anchor='start', color=INK, bold=False,
             turned=False):
        """@y: of the words' middle."""
        place = f'x="{number(x)}" y="{number(y + SIZE * 0.35)}"'
        if turned:
            place = (f'x="0" y="0" transform="translate({number(x)} '
                     f'{number(y)}) rotate(-90)"')
        self.parts.append(
            f'<text {place}'
            + (f' text-anchor="{anchor}"' if anchor != 'start' else '')
            + (f' fill="{color}"' if color != INK else '')
            + (' font-weight="bold"' if bold else '')
            + f'>{html.escape(words)}</text>')

    def line(self, points, color=INK, width=1.0, dash='', fill='none'):
        """@fill: a colour for what lies between the line and its ends."""
        path = 'M' + 'L'.join(f'{number(x)} {number(y)}' for x, y in points)
        self.parts.append(
            f'<path d="{path}" fill="{fill}" stroke="{color}" '
            f'stroke-width="{width:g}"'
            + (f' stroke-dasharray="{dash}"' if dash else '')
            + (' fill-opacity=".3"' if fill != 'none' else '') + '/>')

    def mark(self, shape, x, y, color, hollow=False, size=4):
        """@shape: circle, square, diamond, triangle, wedge, or cross."""
        r = size
        style = f'fill="{"#fff" if hollow else color}" stroke="{color}"'
        around = {
            'square': ((-r, -r), (r, -r), (r, r), (-r, r)),
            'diamond': ((0, -r - 1.5), (r + 1.5, 0), (0, r + 1.5),
                        (-r - 1.5, 0)),
            'triangle': ((0, -r - 1), (r + 1, r), (-r - 1, r)),
            'wedge': ((0, r + 1), (r + 1, -r), (-r - 1, -r))}
        if shape == 'circle':
            self.parts.append(f'<circle cx="{number(x)}" cy="{number(y)}" '
                              f'r="{r}" {style}/>')
        elif shape == 'cross':
            for d in (r, -r):
                self.line([(x - r, y - d), (x + r, y + d)], color, 2)
        else:
            points = ' '.join(f'{number(x + dx)},{number(y + dy)}'
                              for dx, dy in around[shape])
            self.parts.append(f'<polygon points="{points}" {style}/>')

    def axes(self, box, x, y, x_label='', y_label='', title=''):
        """Draws the frame of a panel.  @box: left, top, right, bottom;
        @x, @y: how values are placed.  Returns place(x, y)."""
        left, top, right, bottom = box

        def place(vx, vy):
            return (left + x.share(vx) * (right - left),
                    bottom - y.share(vy) * (bottom - top))

        for v in y.ticks:
            _, at = place(x.low, v)
            self.line([(left, at), (right, at)], FAINT, 0.7)
            self.text(left - 5, at, f'{v:g}', 'end')
        for v in x.ticks:
            at, _ = place(v, y.low)
            self.line([(at, bottom), (at, bottom + 4)])
            self.text(at, bottom + LINE, f'{v:g}', 'middle')
        self.line([(left, bottom), (right, bottom)])
        if x_label:
            self.text((left + right) / 2, bottom + 2.2 * LINE, x_label,
                      'middle')
        if y_label:
            self.text(left - 36, (top + bottom) / 2, y_label, 'middle',
                      turned=True)
        if title:
            self.text(left, top - LINE, title, bold=True)
        return place

    def svg(self):
        return (f'<svg xmlns="http://www.w3.org/2000/svg" '
                f'width="{self.width}" height="{self.height}" '
                f'viewBox="0 0 {self.width} {self.height}" '
                f'font-family="{FONT}" font-size="{SIZE}" fill="{INK}" '
                'stroke-width="1.4">\n'
                + '\n'.join(self.parts) + '\n</svg>\n')


def spread(places, apart):
    """[y]: the same, moved down where needed to be @apart at least; then all
    moved up by half of the largest move."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    moved = list(places)
    for before, i in zip(order, order[1:]):
        moved[i] = max(moved[i], moved[before] + apart)
    up = max((m - p for m, p in zip(moved, places)), default=0) / 2
    return [m - up for m in moved]
