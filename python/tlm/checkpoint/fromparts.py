# SPDX-License-Identifier: GPL-2.0-or-later
"""A checkpoint that several tlm-memservers have in parts, as what a QEMU is
restored from: all of them connect to it, each with its own channels."""

import functools

from ..errors import MigrateError
from ..memserver import client, parity, sets
from .fromserver import FromServer, Serving


def of(args):
    """@args: the options of "restore".  Raises MigrateError if a part is
    missing, before anybody is told anything."""
    origin = FromServer(args)
    if 'set' not in origin.shown:
        return origin
    if args.instant:
        raise MigrateError(f"'{origin.name}' is in parts: those are restored "
                           'whole only. Leave out --instant')
    parts = origin.shown['parts']
    if args.to and args.channels < parts:
        raise MigrateError(f"'{origin.name}' is in {parts} parts, each of "
                           'which needs a channel: say --channels, and let '
                           'the QEMU have as many')
    return FromParts(args, origin.vm, origin.name)


class Together:
    """What several servers do for one QEMU; as a Serving."""

    ticket = None

    def __init__(self, starts, head_first):
        """@starts: address -> a function that returns a Serving, that of the
        head first; @head_first: the others wait until it has connected."""
        self.servings, self._starts = {}, dict(starts)
        self._start(1 if head_first else len(starts))

    def _start(self, count):
        for address in list(self._starts)[:count]:
            self.servings[address] = self._starts.pop(address)()

    @property
    def told(self):
        return next(iter(self.servings.values())).told

    def fileno(self):
        """Of one that still has something to say."""
        return next((s for s in self.servings.values() if s.ended() is None),
                    next(iter(self.servings.values()))).fileno()

    def pump(self):
        for serving in self.servings.values():
            serving.pump()
        if self.told.get('state') not in (None, 'connecting', 'lost'):
            self._start(len(self._starts))

    def may_have_begun(self):
        return any(s.may_have_begun() for s in self.servings.values())

    def ended(self):
        """None, '' (QEMU has got all), or why it has ended: one is enough."""
        ends = {a: s.ended() for a, s in self.servings.items()}
        why = [f'{address}: {end.removeprefix(f"{address}: ")}'
               for address, end in ends.items() if end]
        return '\n'.join(why) or \
            (None if self._starts or None in ends.values() else '')

    def kill(self):
        for serving in self.servings.values():
            serving.kill()


class FromParts(FromServer):
    def __init__(self, args, vm, name):
        self._vm, self._name = vm, name
        super().__init__(args)
        self.channels = max(args.channels, self.set.parts)

    def _show(self, args):
        found, failures = [], []
        for address in args.server:
            try:
                with client.MemServer(address, self.tls) as server:
                    found.append((address, server('show', vm=self._vm,
                                                  name=self._name)))
            except MigrateError as e:
                failures.append(str(e))
        self.set = sets.best(found)
        if not self.set:
            raise MigrateError('\n'.join(failures))
        if self.set.missing():
            parity.mend(args.server, self.tls, self.set)
        if self.set.missing():
            raise MigrateError('\n'.join([self.set.problem(), *failures]))
        self.servers = self.set.addresses()
        return self.set.head()

    def serve_whole(self, uri, **wish):
        return self.serve(uri, whole=True, channels=self.channels, **wish)

    def another(self):
        return False            # each of them is needed

    def serve(self, uri, **wish):
        """By all of them.  Each refuses if it has another set by now.  With
        TLS, QEMU takes the first connection for the main stream."""
        return Together(
            {address: functools.partial(Serving, address, self.tls, {
                'vm': self.vm, 'name': self.name, 'to': uri,
                'set': self.set.id, **self.encryption.wish(uri), **wish})
             for address in self.servers}, self.encryption.wanted(uri))
