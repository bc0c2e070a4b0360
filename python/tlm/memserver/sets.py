# SPDX-License-Identifier: GPL-2.0-or-later
"""Checkpoints in parts, which several memory servers keep together.

Each server has one part of a set; part 0 is the head, which has the device
state.  A set is whole if the servers that were asked have all of its parts.
"""

from ..errors import MigrateError

HEAD = 0


def is_parity(shown):
    """Parity of a set is no part of it, and its server shows other names."""
    return 'parity' in shown


def is_tentative(shown):
    """It goes with its save if that ends before all of it is there."""
    return 'tentative' in shown


def number(shown):
    """Of a piece of a set: parities come behind the parts."""
    return shown['parts'] + shown['parity'] if is_parity(shown) else \
        shown.get('part', HEAD)


class Set:
    """@at: part -> (address of the server, what it shows of the part)"""

    def __init__(self, shown):
        self.id, self.parts = shown['set'], shown['parts']
        self.vm, self.name = shown['vm'], shown['name']
        self.at, self.spare = {}, {}

    def add(self, address, shown):
        """A part that was made again may be there beside the first."""
        if shown['part'] in self.at:
            self.spare.setdefault(shown['part'], []).append((address, shown))
        else:
            self.at[shown['part']] = address, shown

    def drop(self, part):
        """It is of no use; a spare one takes its place.  Returns it."""
        dropped = self.at.pop(part)
        if self.spare.get(part):
            self.at[part] = self.spare[part].pop(0)
        return dropped

    def missing(self):
        return [n for n in range(self.parts) if n not in self.at]

    @property
    def created(self):
        """When the first part that is there was complete."""
        return min(shown['created'] for _, shown in self.at.values())

    def head(self):
        """What its server shows, or any other if that is not there."""
        return self.at[min(self.at)][1]

    def addresses(self):
        """In the order of parts.  Raises MigrateError if it is not whole."""
        if self.missing():
            raise MigrateError(self.problem())
        return [self.at[n][0] for n in range(self.parts)]

    def problem(self):
        """'' if it is whole."""
        missing = ' and '.join(map(str, self.missing()))
        return missing and (
            f"'{self.name}' of {self.vm} is not whole: part {missing} of "
            f'{self.parts} is at none of these servers')


def sets_of(found):
    """@found: (address, what that server shows) for any checkpoints; returns
    the sets among them, in the order in which they were found."""
    sets = {}
    for address, shown in found:
        if 'set' in shown and not is_parity(shown):
            key = shown['vm'], shown['name'], shown['set'], shown['parts']
            sets.setdefault(key, Set(shown)).add(address, shown)
    return list(sets.values())


def best(found):
    """Of what servers show under one name: the newest set that is whole, or
    the newest one if none is; None if there is no set."""
    return max(sets_of(found), default=None,
               key=lambda s: (not s.missing(), s.created))


def to_prune(found, keep):
    """Of what servers have of one VM: what is to be removed of it.  Kept are
    the @keep newest that are whole, and what is newer than the oldest of
    them: a part whose others are elsewhere counts for nothing, and never
    takes the place of one that counts."""
    sets = sets_of(found)
    units = [(s.created, not s.missing(),
              [pair for pair in found if pair[1].get('set') == s.id])
             for s in sets]
    plain = {}
    for address, shown in found:
        if 'set' not in shown:
            plain.setdefault(shown['name'], []).append((address, shown))
    known = {s.id for s in sets}
    units += [(pair[1]['created'], False, [pair]) for pair in found
              if is_parity(pair[1]) and pair[1]['set'] not in known]
    units += [(min(shown['created'] for _, shown in same), True,
               same) for same in plain.values()]
    units.sort(key=lambda unit: unit[0])
    whole = [created for created, is_whole, _ in units if is_whole]
    if len(whole) < keep:
        return []
    oldest = whole[-keep]
    return [pair for created, _, pairs in units if created < oldest
            for pair in pairs]
