# SPDX-License-Identifier: GPL-2.0-or-later
"""Checkpoints of sets that memory servers have.

What is known of one ("server" of a member, in manifests and logs):

    address, vm, name   which one.  The name has the set's id, so nobody else
                        gives it to another
    tls                 how the server is spoken to, as client.Tls has it; or
                        null
    session             by which it came; in logs
    created, size       when the server had all of it; in manifests
"""

import argparse
import contextlib
import dataclasses

from ..checkpoint.fromserver import FromServer
from ..errors import MigrateError
from ..memserver import client, removal

NAMED = ('address', 'vm', 'name', 'created')
ANSWER_S = 15
END_MS = 10_000                 # for a session that has been cancelled
CHANNELS = 2                    # of a restore


def told_of_tls(tls):
    """For a manifest, or a log."""
    return tls and dataclasses.asdict(tls)


def _tls(at):
    return client.Tls(**at['tls']) if at['tls'] else None


@contextlib.contextmanager
def _opened(at, patience=ANSWER_S):
    with client.MemServer(at['address'], _tls(at)) as server:
        server.patience = patience
        yield server


def _end_session(server, at):
    """A server that was started anew may call another session so."""
    try:
        found = server('status', session=at['session'])
    except client.Refused:
        return
    if (found['vm'], found['name']) != (at['vm'], at['name']):
        return
    with contextlib.suppress(client.Refused):   # it is being stored
        server('cancel', session=at['session'])
    ended = server('wait', session=at['session'], timeout_ms=END_MS)
    if ended['state'] not in ('done', 'failed'):
        raise MigrateError(f"{at['address']}: it still stores {at['name']}")


def clear(at):
    """Nothing is left there, and nothing comes: its QEMU is at rest.  Raises
    MigrateError if that is not known."""
    with _opened(at) as server:
        if 'session' in at:
            _end_session(server, at)
        if removal.named(server, at['vm'], at['name']):
            server('remove', vm=at['vm'], name=at['name'])


class Seen:
    """What the servers list, each asked once, or why one lists nothing."""

    def __init__(self):
        self._lists = {}

    def _list(self, at):
        try:
            with _opened(at) as server:
                return server('list')
        except MigrateError as e:
            return str(e)

    def missing(self, at):
        """Why there is no such checkpoint, as far as it is seen without
        reading it; None: there is."""
        key = at['address'], str(at['tls'])
        if key not in self._lists:
            self._lists[key] = self._list(at)
        seen = self._lists[key]
        if isinstance(seen, str):
            return seen
        found = [c for c in seen if (c['vm'], c['name']) ==
                 (at['vm'], at['name'])]
        if not found:
            return f"{at['address']}: there is no {at['name']} of {at['vm']}"
        return None if found[0]['created'] == at['created'] else \
            f"{at['address']}: this {at['name']} is not the one of the set"


def problem(at):
    """The server reads its file; None: it is as it was written."""
    try:
        with _opened(at, client.ANSWER_S) as server:
            server('verify', vm=at['vm'], name=at['name'])
    except MigrateError as e:
        return str(e)
    return None


def load(at, qemu, allow_plain):
    """Into a QEMU that waits for it."""
    tls = at['tls'] or {}
    origin = FromServer(argparse.Namespace(
        server=[at['address']], vm=at['vm'], name=at['name'],
        tls=tls.get('kind'), tls_dir=tls.get('directory'),
        tls_user=tls.get('user'), tls_hostname=None, allow_plain=allow_plain,
        # Credentials of a QEMU elsewhere are there
        channels=CHANNELS, to=qemu.elsewhere))
    if origin.shown['created'] != at['created']:
        raise MigrateError(f"{at['address']}: this {at['name']} is not the "
                           'one of the set')
    origin.load(qemu)
