# Makes a case that fails as simple as it can be
#
# SPDX-License-Identifier: GPL-2.0-or-later

import keys


def _halves(names):
    """All of them, then each half, ..., then each alone."""
    parts = [names]
    while parts:
        yield from parts
        parts = [half for part in parts if len(part) > 1
                 for half in (part[:len(part) // 2], part[len(part) // 2:])]


def _take_away(case, fails):
    """Makes keys the simplest: many at a time first, as most do not matter."""
    for names in _halves([k for k in case if case[k] != keys.SIMPLE[k]]):
        tried = {**case, **{k: keys.SIMPLE[k] for k in names}}
        if tried != case and fails(tried):
            case = tried
    return case


def _simplify(case, fails):
    """Makes a key that matters simpler, if it cannot be the simplest."""
    for key in case:
        for value in keys.simpler(case, key)[1:]:
            tried = {**case, key: value}
            if fails(tried):
                case = tried
                break
    return case


def shrink(case, fails):
    """The simplest case for which fails(case) is true, as it is for the given
    one: no key of it can be made simpler alone."""
    known = {}

    def tried(other):
        name = keys.text(other)
        if name not in known:
            known[name] = fails(other)
        return known[name]
    while True:
        before = case
        case = _simplify(_take_away(case, tried), tried)
        if case == before:
            return case
