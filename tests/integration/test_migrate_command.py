#!/usr/bin/python3
#
# tlm migrate, into an unpatched QEMU: what it says is so
#
# SPDX-License-Identifier: GPL-2.0-or-later

import json
import os
import subprocess
import unittest

from tlmtest import env, migration
from tlmtest.case import TlmCase
from tlmtest.guests import RomGuest

TOOL = os.path.join(env.ROOT, 'scripts/tlm')


class Command(TlmCase):
    def begin(self, *more):
        """@more: what only the source has."""
        self.guest = RomGuest(ws_mb=32)
        self.qmp = os.path.join(self.guest.dir, 'tool-qmp')
        src = self.start_source(self.guest, extra=(
            *more, '-qmp', f'unix:{self.qmp},server=on,wait=off'))
        dst = self.start_destination(self.guest)
        migration.set_capabilities(dst, multifd=True)
        return src, dst

    def migrate(self, dst):
        host, port = migration.listen(dst)
        return subprocess.run(
            [TOOL, 'migrate', '--qmp', self.qmp, '--bandwidth', '0', '--json',
             f'tcp:{host}:{port}'], capture_output=True, text=True,
            timeout=300, check=False)

    @staticmethod
    def capabilities(vm):
        return {c['capability'] for c in vm.qmp('query-migrate-capabilities')
                if c['state']}

    def test_completed(self):
        src, dst = self.begin()
        before = self.capabilities(src)
        run = self.migrate(dst)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(json.loads(run.stdout)['status'], 'completed')
        self.finish(self.guest, src, dst)
        self.assertEqual(self.capabilities(src), before)

    def test_not_loaded(self):
        """The destination has got all, and cannot load a device: that is not
        taken for the end, and the guest runs on at the source."""
        src, dst = self.begin('-device', 'virtio-balloon-pci')
        run = self.migrate(dst)
        self.assertEqual(run.returncode, 1, run.stdout)
        self.assertIn('the guest at the source is running', run.stderr)
        self.assert_guest_well(self.guest, src)


if __name__ == '__main__':
    unittest.main()
