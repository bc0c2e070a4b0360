# SPDX-License-Identifier: GPL-2.0-or-later
"""A checkpoint of one tlm-memserver, to others too.

The server that has it sends it as a QEMU would, to an address that the other
one has given.  So the VM and its host take no part in it.
"""

import time

from ..errors import MigrateError
from ..memserver import client
from ..memserver.look import bytes_of

POLL_S = 0.05
END_MS = 60_000
CHANNELS = 2
# What an announcement may say of the machine
SOURCE = ('uuid', 'qemu', 'command', 'directory', 'domain', 'disks')


class TooFew(MigrateError):
    """There is the checkpoint, but not as often as it should be."""


def source(machine):
    return {k: machine[k] for k in SOURCE if machine.get(k)}


def _by_tls(taker, uri):
    """What a server is told that is to connect to another one by TLS."""
    known = client.host_of(taker.address)
    return {'tls': True, 'tls_hostname': known and known[0]} \
        if client.host_of(uri) else {}


def _send(giver, taker, shown, level, on_poll, tls):
    """@on_poll: gets a percentage; may raise an exception."""
    named = {'vm': shown['vm'], 'name': shown['name']}
    senders = tls and client.senders([giver])
    session = taker('announce', ram=shown['ram'], channels=CHANNELS,
                    level=level, **named,
                    source=source(shown['source']), senders=senders)
    number, sending = session['session'], None
    to = client.reachable(session['uri'], taker.address)
    try:
        sending = giver('restore', whole=True, channels=CHANNELS, **named,
                        to=to, **(_by_tls(taker, to) if tls else {}))
        while sending['state'] not in ('ended', 'lost'):
            on_poll(100 * sending['sent'] / max(bytes_of(shown), 1))
            time.sleep(POLL_S)
            sending = giver('restore-status', restore=sending['restore'])
        end = taker('wait', session=number, timeout_ms=END_MS)
    except BaseException:
        taker('cancel', session=number)
        raise
    if end['state'] == 'done' and 'identity' in shown:
        taker('identify', identity=shown['identity'], **named)
    if end['state'] != 'done':
        taker('cancel', session=number)
        raise MigrateError(f"{taker.address}: "
                           f"{end.get('error') or sending.get('error')}")


def make(giver, addresses, shown, level, wanted, display, signals, tls=None):
    """Copies of what @giver, a MemServer, has shown, at @wanted of
    @addresses; returns which."""
    done, failures = [], []

    def on_poll(percent):
        signals.check()
        display.show('copy', min(percent, 100), [address])

    with display:
        for address in addresses:
            if len(done) == wanted:
                break
            try:
                with client.MemServer(address, tls) as taker:
                    _send(giver, taker, shown, level, on_poll, tls)
                done.append(address)
            except MigrateError as e:
                failures.append(str(e))
    if len(done) < wanted:
        raise TooFew('\n'.join([
            f"{giver.address} has '{shown['name']}', but only {len(done)} of "
            f'{wanted} others have it, too', *failures]))
    return done
