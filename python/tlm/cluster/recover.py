# SPDX-License-Identifier: GPL-2.0-or-later
"""What a coordinator has left that was killed: held checkpoints, settings of
migration, files."""

import asyncio
import contextlib
import os

from ..checkpoint import durable, images
from ..checkpoint.toserver import CREDENTIALS
from ..errors import MigrateError, Refused
from ..status import Status
from . import config, journal, packets
from .channel import Gone
from .domain import channel_of
from .sets import LOG

TLS = 'tls-creds'           # the parameter of migrations
LIMIT_S = 15
POLL_S = 0.1


async def release(vm, old, made=(), ours=lambda tlm: tlm.stage == 'ready'):
    """A VM that was to be saved: nothing goes on in it, and its settings are
    what they were.  @made: (node, path) of overlays, which are removed but
    for those that the guest goes on in.  @ours: is it ours to cancel?  Only
    who was told to hold is ever ready.  Raises Gone if the VM has ended."""
    try:
        async with asyncio.timeout(LIMIT_S):
            # A QEMU that ends may still take a connection, to close it then
            while not await _released(channel_of(vm), old, made, ours):
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise MigrateError('its checkpoint has not ended') from None


async def _released(channel, old, made, ours):
    """False: the connection was lost."""
    try:
        await channel.open()
        while not (status := Status(await channel('query-migrate'))).final:
            if status.tlm and ours(status.tlm):
                await channel('migrate_cancel')
            await asyncio.sleep(POLL_S)
        await packets.remove(channel)
        await set_all(channel, old)
        if TLS in old['params']:
            with contextlib.suppress(Refused):
                await channel('object-del', id=CREDENTIALS)
        await _remove_overlays(channel, made)
        return True
    except Gone:
        raise
    except MigrateError:
        if not channel.lost:
            raise
        return False
    finally:
        channel.close()


async def _remove_overlays(channel, made):
    """But for those that the guest goes on in.  Those without a node were for
    libvirt, which does one thing after the other with a domain."""
    used = {images.path(node['file'], None) for node in await channel(
        'query-named-block-nodes', flat=True)} if made else ()
    for node, path in made:
        if node:
            try:
                await channel('blockdev-del', **{'node-name': node})
            except Refused:
                continue
        elif os.path.realpath(path) in used:
            continue
        durable.discard(path)


async def set_all(channel, settings):
    """Capabilities and parameters of migrations."""
    await channel('migrate-set-capabilities', capabilities=[
        {'capability': c, 'state': on} for c, on in settings['caps'].items()])
    if settings['params']:
        await channel('migrate-set-parameters', **settings['params'])


async def _finish(sets, name):
    """Raises MigrateError if there still is something that may write to the
    files."""
    path = sets.path(name, LOG)
    begin, settings, made = journal.read(path)
    ends = await asyncio.gather(*(
        release(config.Vm(m['name'], **{k: m[k] for k in config.SPEAKS
                                        if k in m}), settings[m['name']],
                made.get(m['name'], ()))
        for m in begin.get('members', ()) if m['name'] in settings),
        return_exceptions=True)
    for end in ends:
        # A VM that has ended has nothing to be put back
        if isinstance(end, BaseException) and not isinstance(end, Gone):
            raise end
    if begin and name in sets.leftovers():
        sets.remove_members(name, begin['id'], begin['members'])
    journal.Journal(path).remove()


async def recover(sets):
    """Returns (names of which nothing is left, {name: why not}); by who
    holds the lock."""
    removed, troubles = [], {}
    for name in sets.logs():
        try:
            await _finish(sets, name)
            removed.append(name)
        except (MigrateError, OSError) as e:
            troubles[name] = str(e)
    return removed, troubles
