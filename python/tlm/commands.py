# SPDX-License-Identifier: GPL-2.0-or-later
"""The subcommands that migrate, or say how that would be, for the table
(options.py)."""

from .table import Command

MIGRATE, ESTIMATE, VIRSH = ALL = 'migrate', 'estimate', 'virsh-migrate'

MIGRATING_COMMANDS = (
    Command(
        MIGRATE, "migrate a running QEMU with capability 'tlm'",
        '--qmp SOCKET [OPTION...] URI',
        "Migrates a running QEMU with capability 'tlm', and shows how it "
        'goes. The destination must have '
        "capability 'multifd' on and the same 'multifd-channels'; it need "
        'not know of TLM.\n\n'
        'Capabilities and parameters that are changed for the migration get '
        'their old values back when it has ended, however it ends. Ctrl-C '
        'cancels it: the guest runs on at the source.',
        ((0, 'completed'), (1, 'failed or refused'), (2, 'wrong usage'),
         (3, 'cancelled by QEMU or by another client'),
         (130, 'cancelled by Ctrl-C')),
        (('--qmp /run/vm1.qmp --bandwidth 10Gbit/s --bound 20s '
          'tcp:192.0.2.20:4444', 'Migrate within 20 seconds.'),
         ('--qmp /run/vm1.qmp --bandwidth 0 --capability mapped-ram '
          'file:/srv/vm1.mig', 'Migrate to a file.')),
        (('URI', 'where the destination listens: tcp:HOST:PORT, unix:PATH, '
          'or file:PATH (with --capability mapped-ram)'),)),
    Command(
        ESTIMATE, 'say beforehand what a migration would take',
        '--qmp SOCKET --bandwidth RATE [OPTION...]',
        'Watches how the guest, which runs on, writes to its RAM, and '
        'predicts what a migration would take with the current migration '
        'parameters. Nothing is migrated, and no parameter is changed.',
        ((0, 'predicted'), (1, 'failed or refused'), (2, 'wrong usage'),
         (3, "predicted, and the time bound (--bound, or parameter "
          "'tlm-time-bound') cannot be kept")),
        (('--qmp /run/vm1.qmp --bandwidth 10Gbit/s --bound 20s',
          'Can the guest be migrated within 20 seconds?'),)),
    Command(
        VIRSH, "migrate a libvirt domain with capability 'tlm'",
        '[-c URI] [OPTION...] DOMAIN DESTURI [OPTION OF VIRSH...]',
        'Arguments are those of "virsh migrate", in any order, and the '
        'options below; --live and --parallel are added. libvirt need not '
        'know of TLM: the capability and its parameters are set in the '
        "source's QEMU, which must be the one with TLM, through \"virsh "
        'qemu-monitor-command", and have their old values again when the '
        'migration has ended, however it ends. The destination needs neither '
        'TLM nor this command.\n\n'
        'Ctrl-C cancels the migration: the domain runs on at the source.\n\n'
        'Needs virsh.',
        ((0, 'completed'), (1, 'failed or refused'), (2, 'wrong usage'),
         (3, 'cancelled by another client or by libvirt, or with --dry-run a '
          'bound that cannot be kept'), (130, 'cancelled by Ctrl-C')),
        (('--bound 20s --converge auto --p2p vm1 qemu+tls://hostb/system',
          'Migrate within 20 seconds, and slow the guest for that.'),
         ('--dry-run --link 10Gbit/s --bound 20s vm1 '
          'qemu+tls://hostb/system', 'Say beforehand whether that can be.'))),
)
