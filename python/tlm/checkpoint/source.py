# SPDX-License-Identifier: GPL-2.0-or-later
"""The VM that is saved: how it is spoken to, and what is known of it."""

from ..errors import MigrateError
from ..qmp import Qmp
from ..units import AUTO, VIRSH
from ..virsh.domain import Domain
from ..virsh.shell import Virsh
from . import libvirt, machine
from .target import File, PassedFile


class BySocket:
    def __init__(self, address):
        self.qmp = Qmp(address)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.qmp.close()

    def describe(self):
        return machine.describe(self.qmp)

    def target(self, path):
        return File(path)


class ByLibvirt:
    def __init__(self, name, uri):
        self.virsh = Virsh(uri)
        self.qmp = Domain(self.virsh, name)

    def __enter__(self):
        try:
            libvirt.check(self.virsh)
            self.qmp.check_runs()
        except FileNotFoundError:
            raise MigrateError('there is no virsh here (package '
                               'libvirt-clients)') from None
        except BaseException:
            self.virsh.close()
            raise
        return self

    def __exit__(self, *_):
        self.virsh.close()

    def describe(self):
        return {**machine.describe(self.qmp),
                'domain': self.qmp.xml()}

    def target(self, path):
        return PassedFile(path, self.qmp)


def of(args):
    """To be used in a "with"."""
    return ByLibvirt(args.domain, args.connect) if args.domain \
        else BySocket(args.qmp)


def check(parser, args):
    """Wrong usage ends the program."""
    if bool(args.qmp) == bool(args.domain):
        parser.error('give either --qmp or --domain')
    if args.connect and not args.domain:
        parser.error('--connect is for --domain')
    disks = getattr(args, 'disk', ())
    for word in (AUTO, VIRSH):
        if word in disks and len(disks) > 1:
            parser.error(f'--disk {word} is for all disks: give no other')
    if AUTO in disks and args.domain:
        parser.error('--disk auto is not for --domain: libvirt would not know '
                     'of the overlays. --disk virsh is')
    if VIRSH in disks and not args.domain:
        parser.error('--disk virsh is for --domain; --disk auto is for --qmp')
