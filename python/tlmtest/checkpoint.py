# Base class of the tests of checkpoints: take one, compare it, restore it
#
# SPDX-License-Identifier: GPL-2.0-or-later

import os
import tempfile

from . import migration
from .case import CRAWL, TlmCase
from .ram import FrozenRam


class CheckpointCase(TlmCase):
    def place(self):
        directory = tempfile.TemporaryDirectory(prefix='tlm-checkpoint-')
        self.addCleanup(directory.cleanup)
        return directory.name

    def path(self):
        return os.path.join(self.place(), 'vm')

    @staticmethod
    def begin(src, uri, gate=False, **arguments):
        """@gate: the manager's, which holds the guest in the pause until it
        is told to go on"""
        migration.set_capabilities(src, pause_before_switchover=gate)
        if gate:
            # Reading all RAM takes its time
            arguments.setdefault('gate_timeout', 0)
        src.qmp('tlm-checkpoint', uri=uri, **arguments)

    def take(self, src, uri, **arguments):
        """Returns RAM as it was in the pause, and the last query-migrate."""
        self.begin(src, uri, gate=True, **arguments)
        migration.wait_status(src, 'pre-switchover')
        frozen = FrozenRam(src)
        src.qmp('migrate-continue', state='pre-switchover')
        return frozen, migration.wait_status(src, 'completed')

    def restore(self, guest, frozen, path, accel='tcg', extra=()):
        dst = self.start_destination(guest, accel, extra=extra)
        migration.set_capabilities(dst, mapped_ram=True, multifd=True)
        migration.load_file(dst, path)
        self.finish(guest, frozen, dst)
        dst.close()

    def check(self, guest, accel='tcg', extra=(), **arguments):
        src = self.start_source(guest, accel, extra=extra)
        path = self.path()
        migration.set_parameters(src, max_bandwidth=0)
        frozen, info = self.take(src, f'file:{path}', **arguments)
        self.assert_runs_on(guest, src)
        self.assert_as_before(src)
        src.close()
        self.restore(guest, frozen, path, accel, extra)
        return info

    def assert_as_before(self, src):
        """Nothing is left over that a later migration would inherit."""
        caps = {c['capability'] for c in src.qmp('query-migrate-capabilities')
                if c['state']}
        self.assertEqual(caps - {'pause-before-switchover'}, set())

    def assert_kept(self, info, method):
        """What was left was not written in the pause, but @method was used."""
        kept = info['tlm']['checkpoint']
        if method == 'write-protect' and \
                'userfaultfd' in kept.get('note', ''):
            self.skipTest(kept['note'])
        self.assertEqual(kept['method'], method, kept)
        self.assertNotIn('note', kept)
        if method == 'copy':
            self.assertEqual(kept['faults'], 0)

    def begin_slow_flush(self, guest, uri):
        """Returns the source, with the guest running and much to be sent."""
        src = self.start_source(guest)
        migration.set_parameters(src, max_bandwidth=CRAWL)
        self.begin(src, uri)
        self.wait_stage(src, 'flush')
        self.assertEqual(src.status(), 'running')
        return src
