#!/usr/bin/python3
#
# Migrations between this release of QEMU and another one
#
# TLM_OTHER_BUILD is a build directory with the other one (build-10.2, made
# by scripts/check --also-10.2).
#
# SPDX-License-Identifier: GPL-2.0-or-later

import os
import unittest

from tlmtest import env
from tlmtest.case import TlmCase
from tlmtest.guests import LinuxGuest, RomGuest

BUILD = os.environ.get('TLM_OTHER_BUILD', os.path.join(env.ROOT, 'build-10.2'))
OTHER = os.path.join(BUILD, 'qemu/qemu-system-x86_64')
# Both have them; "pc" is another one in each release
MACHINES = ('pc-i440fx-10.0', 'pc-q35-10.0')


class Releases:
    def test_rom(self):
        for machine in MACHINES:
            with self.sub(machine=machine):
                info, report = self.migrate(
                    RomGuest(ws_mb=64, machine=machine), wire=True)
                self.assert_tlm_info(info, report)

    def test_linux(self):
        info, report = self.migrate(
            LinuxGuest(machine=MACHINES[0], ws=64), wire=True)
        self.assert_tlm_info(info, report)


class FromOther(Releases, TlmCase):
    """From the other release to this one, unpatched."""

    src_binary = OTHER


class ToOther(Releases, TlmCase):
    dst_binary = OTHER


if __name__ == '__main__':
    unittest.main()
