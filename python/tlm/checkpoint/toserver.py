# SPDX-License-Identifier: GPL-2.0-or-later
"""One checkpoint of one VM, to a tlm-memserver, or in parts to several."""

import contextlib
import time

from ..errors import Gone, MigrateError
from ..figures import duration, memory, size
from ..memserver import client, parity
from ..memserver.look import bytes_of
from ..memserver.parity import DURABLE
from ..units import Bad, checkpoint_name
from . import copies, machine, saver, serverdisks, source, text
from .confirm import Confirm
from .receivers import Receivers, Unable
from .run import Cancelled, Checkpoint
from .signals import Interrupted

# The server says "completed" when the checkpoint has its level: by the
# return path.
CAPABILITIES = ('multifd', 'return-path')
CREDENTIALS = 'tlm-checkpoint'  # QEMU's object


def vm_name(args, known):
    """What the server shall call the VM."""
    if args.vm:
        return args.vm
    try:
        return checkpoint_name(known['name'] or '')
    except Bad:
        raise MigrateError(
            (f"QEMU's name '{known['name']}' is none for a server"
             if known['name'] else 'QEMU has no name (-name)') +
            ': give one by --vm') from None


@contextlib.contextmanager
def _credentials(qmp, tls, addresses):
    """Migration parameters that make QEMU use TLS.  Of several servers each
    has its own name."""
    if not tls:
        yield {}
        return
    qmp('object-add', id=CREDENTIALS, **tls.properties())
    try:
        host = len(addresses) == 1 and client.host_of(addresses[0])
        yield {'tls-creds': CREDENTIALS,
               **({'tls-hostname': host[0]} if host else {})}
    finally:
        qmp('object-del', id=CREDENTIALS)


class ServerSaver:
    """@args: the options of "save"."""

    def __init__(self, args):
        self.args, self.level = args, args.level or DURABLE
        # What each server promises of its part
        self.promise = 'memory' if self.level == parity.PROTECTED else \
            self.level
        # How many servers keep parity
        self.redundancy = getattr(args, 'redundancy', None) or 0
        self.params = saver.params_of(args)
        self.first = 0          # which server gets the next one

    def save(self, name, display, signals):
        """Returns what is known of it; raises MigrateError, Cancelled,
        Interrupted.  A server that cannot is followed by the next one."""
        name = name or time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())
        servers, failures = self.args.server, []
        left = servers[self.first:] + servers[:self.first]
        parts = self.args.parts or 1
        while len(left) >= parts:
            signals.check()
            try:
                content = self._save(left[:parts], name, display, signals)
                self.first = servers.index(left[0])
                return content
            except (copies.TooFew, Gone):
                raise
            except Unable as e:
                failures.append(str(e))
                left = [a for a in left if a not in e.addresses]
            except MigrateError as e:
                failures.append(str(e))
                if parts > 1:
                    break
                del left[0]
        raise MigrateError('\n'.join(failures))

    def _save(self, addresses, name, display, signals):
        start = time.monotonic()
        tls = client.tls_of(self.args)
        with source.of(self.args) as vm, \
                Receivers(addresses, tls) as receivers:
            saver.check(vm.qmp)
            known = vm.describe()
            with _credentials(vm.qmp, tls, addresses) as params:
                called = vm_name(self.args, known)
                removed = receivers.make_way(
                    [a for a in self.args.server if a not in addresses],
                    called, name, self.redundancy > 0)
                with serverdisks.overlays_for(self.args, vm, name, known,
                                              called) as new:
                    content = self._run(vm.qmp, receivers, called, name, known,
                                        {**self.params, **params}, new,
                                        display, signals)
            server = receivers.head
            if content.get('generation'):
                server('identify', vm=called, name=name,
                       identity=content['generation'])
            receivers.wait()
            shown = [s('show', vm=called, name=name)
                     for s in receivers.servers]
            there = time.monotonic()
            parities = self._protect(receivers, shown, display, signals)
            return {'name': name, 'created': shown[0]['created'],
                    'server': server.address, 'vm': called,
                    'copies': self._copies(server, shown[0], display,
                                           signals),
                    **({'set': receivers.set, 'parts': addresses}
                       if receivers.set else {}),
                    **({'parity': parities, 'protected-ms': round(
                        1000 * (time.monotonic() - there))}
                       if parities else {}),
                    **({'removed': removed} if any(removed.values()) else {}),
                    'level': self.level, 'size': sum(map(bytes_of, shown)),
                    'machine': known, **content,
                    'total-ms': round(1000 * (time.monotonic() - start))}

    def _copies(self, server, shown, display, signals):
        """Where else it is."""
        wanted = (self.args.copies or 1) - 1
        others = [a for a in self.args.server if a != server.address]
        try:
            return wanted and copies.make(
                server, others, shown, self.level, wanted, display, signals,
                client.tls_of(self.args)) or []
        except Interrupted:
            server('remove', vm=shown['vm'], name=shown['name'])
            raise

    def _protect(self, receivers, shown, display, signals):
        """Where parity is.  Nothing is left of it all if that fails."""
        if not self.redundancy:
            return []
        addresses, parities = receivers.addresses, []

        def on_poll():
            signals.check()
            display.show('parity', None, [])
        try:
            with display, contextlib.ExitStack() as opened:
                parities = parity.protect(
                    opened, addresses, [a for a in self.args.server
                                        if a not in addresses],
                    shown, self.redundancy, receivers.tls, on_poll)
                try:
                    parity.settle(receivers.servers, parities, shown[0])
                except BaseException:
                    parity.forget(parities, shown[0])
                    raise
                return [server.address for server in parities]
        except BaseException:
            for server in receivers.servers:
                with contextlib.suppress(MigrateError):
                    server('remove', vm=shown[0]['vm'], name=shown[0]['name'],
                           set=receivers.set)
            raise


    @staticmethod
    def _channels(qmp, params, parts):
        """Multifd channels: each part needs one.  What the user has set is
        not changed."""
        set_to = params.get('multifd-channels')
        if set_to is None:
            have = qmp('query-migrate-parameters')['multifd-channels']
            if have < parts:
                params['multifd-channels'] = parts
            return max(have, parts)
        if set_to < parts:
            raise MigrateError(f'{parts} parts need {parts} multifd-channels: '
                               f'there are {set_to} (--set)')
        return set_to

    def _run(self, qmp, receivers, called, name, known, params, new, display,
             signals):
        parent = receivers.parent(called) if self.args.incremental else None
        channels = self._channels(qmp, params, len(receivers.servers))
        confirm = Confirm(receivers, known, parent, new,
                          new.bases(qmp, known['directory']))
        receivers.announce(
            vm=called, name=name, ram=sum(machine.ram_blocks(qmp)),
            channels=channels, level=self.promise,
            parent=parent and parent['name'], source=copies.source(known),
            confirm=confirm.wanted or None,
            redundancy=self.redundancy or None)
        checkpoint = Checkpoint(
            qmp, receivers.uri, params,
            {**saver.arguments(self.args, new, parent and parent['identity']),
             **receivers.arguments()},
            gate=new.switch is not None, caps=CAPABILITIES)
        try:
            with checkpoint, display:
                self._follow(checkpoint, confirm, display, signals)
                receivers.end()
            try:
                content = checkpoint.collect()
            except Cancelled:
                signals.check()
                raise
            if content.pop('parent-generation', None):
                content['since'] = parent['name']
            if confirm.used:
                content['disks'] = confirm.used
            return content
        except BaseException as e:
            why, lost = self._give_up(receivers)
            if why and isinstance(e, MigrateError) and \
                    not isinstance(e, Gone):
                why = '\n'.join([str(e), *why])
                raise (Unable(why, lost) if lost else
                       MigrateError(why)) from None
            raise

    @staticmethod
    def _follow(checkpoint, confirm, display, signals):
        """QEMU is at rest afterwards, whatever the servers do."""
        try:
            saver.Saver.follow(checkpoint, confirm.switch, display, signals,
                               confirm.look)
        except MigrateError:
            if not checkpoint.poll().final:
                checkpoint.cancel()
                checkpoint.until(checkpoint.over)
            raise

    @staticmethod
    def _give_up(receivers):
        with contextlib.suppress(KeyboardInterrupt):
            return receivers.give_up()
        return [], []


def saved(content):
    """Lines, after it has been saved."""
    there = DURABLE if content['level'] == DURABLE else 'in its memory'
    return [f"Saved {content['name']} in {duration(content['total-ms'])}, "
            f"pause {duration(content['pause-us'] / 1000)}:",
            *text.figures(content),
            f"  server    {content['server']}, as {content['name']} of "
            f"{content['vm']}",
            *([f"  since     {content['since']}: only what has changed was "
               'sent'] if 'since' in content else []),
            *(f'  copy      {address}' for address in content['copies']),
            *(f'  part {part}    {address}'
              for part, address in enumerate(content.get('parts', ()))),
            *(f'  parity {index}  {address}'
              for index, address in enumerate(content.get('parity', ()))),
            *(f'  removed   {name} at {address}, which an earlier save has '
              'left' for address, names in content.get('removed', {}).items()
              for name in names),
            f"  there     {size(content['size']):>8}  of "
            f"{memory(content['machine']['ram'])} RAM, {there} after "
            f"{duration(content['flushed-ms'])}"]
