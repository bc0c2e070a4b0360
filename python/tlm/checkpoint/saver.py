# SPDX-License-Identifier: GPL-2.0-or-later
"""One checkpoint of one VM, from free space to manifest."""

import time

from ..errors import MigrateError
from ..units import AUTO, VIRSH
from . import chain, disks, machine, overlays, source, virshdisks
from .records import Records
from .run import Cancelled, Checkpoint

# For libvirt's snapshot, which takes tens of ms where nobody is slow.  If this
# program dies in the pause, the guest goes on after that time.
GATE_TIMEOUT_MS = 10_000


def params_of(args):
    """Migration parameters that the options of "save" set."""
    return {'max-bandwidth': args.bandwidth or 0,
            **({} if args.bound is None else {'tlm-time-bound': args.bound}),
            **dict(args.set)}


def check(qmp):
    """Raises MigrateError if there can be no checkpoint."""
    if 'tlm-checkpoint' not in {c['name'] for c in qmp('query-commands')}:
        raise MigrateError("this QEMU has no command 'tlm-checkpoint': it is "
                           'not the one with TLM')


def overlays_for(args, qmp, name, vm, records):
    """What the options say of the disks; to be used in a "with"."""
    if AUTO in args.disk:
        return overlays.Overlays(qmp, name, vm, records)
    if VIRSH in args.disk:
        return virshdisks.VirshOverlays(qmp, name, records)
    return overlays.Named(args.disk)


def arguments(args, new, generation):
    """Of tlm-checkpoint.  @new: overlays; @generation: what it shall have
    the changes since, or None."""
    wanted = {'mode': args.mode, 'buffer-size': args.buffer,
              'incremental': args.incremental or None,
              'disks': [{'node': node, 'overlay': overlay}
                        for node, overlay in new.pairs] or None,
              'hold': new.switch and True,
              'gate-timeout': new.switch and GATE_TIMEOUT_MS,
              'parent': generation}
    return {k: v for k, v in wanted.items() if v is not None}


class Saver:
    """@args: the options of "save" or "watch"."""

    def __init__(self, catalogue, args):
        self.catalogue, self.args = catalogue, args
        self.params = params_of(args)

    def save(self, name, display, signals):
        """Returns the manifest; raises MigrateError, Cancelled, Interrupted.
        @name: None for one that says the time."""
        start = time.monotonic()
        with self.catalogue.draft(name) as (name, part):
            with source.of(self.args) as vm:
                content = self._write(vm, name, part, display, signals)
            content['total-ms'] = round(1000 * (time.monotonic() - start))
            signals.check()
            return self.catalogue.add(name, {'name': name, **content})

    def _write(self, vm, name, part, display, signals):
        check(vm.qmp)
        known = vm.describe()
        with vm.target(part) as target:
            target.check_space(machine.space_needed(vm.qmp))
            with overlays_for(self.args, vm.qmp, name, known,
                              Records(self.catalogue.directory)) as new:
                return {'machine': known, **self._save(
                    vm, part, target, new, known['directory'], display,
                    signals)}

    def _save(self, vm, part, target, new, directory, display, signals):
        used = new.bases(vm.qmp, directory)
        parent = chain.newest(self.catalogue) if self.args.incremental \
            else None
        checkpoint = Checkpoint(vm.qmp, target.uri, self.params,
                                arguments(self.args, new, parent and
                                          parent.manifest['generation']),
                                gate=new.switch is not None)
        with checkpoint, display:
            self.follow(checkpoint, new.switch, display, signals)
        try:
            figures = checkpoint.collect()
        except Cancelled:
            signals.check()
            raise
        chain.place(self.catalogue, part, parent, figures)
        if used:
            figures['disks'] = disks.identified(used)
        return {'created': self.catalogue.now(), **figures,
                **target.collect(display, signals)}

    @staticmethod
    def follow(checkpoint, switch, display, signals,
               on_status=lambda status: None):
        """From its start to its end; a signal cancels it."""
        cancelled = False

        def on_poll(status):
            nonlocal cancelled
            display.update(status)
            on_status(status)
            if signals.seen and not cancelled and not checkpoint.over():
                checkpoint.cancel()
                cancelled = True
        checkpoint.start()
        try:
            if switch:
                checkpoint.in_the_pause(switch, on_poll)
        finally:
            checkpoint.until(checkpoint.over, on_poll)
