# SPDX-License-Identifier: GPL-2.0-or-later
"""The part of scripts/demo that comes after the build."""

import argparse
import os
import re
import subprocess
import sys
import time

from tlm import migrate, options, parser, units
from tlm.errors import MigrateError
from tlm.figures import duration, rate, size
from tlm.migration import Migration
from tlm.progress import Display
from tlm.report import failure, report
from tlmtest import env, guests, migration
from tlmtest.link import Loopback, ShapedLink
from tlmtest.vm import Vm, VmError, wait_until

PAGE = 4096
BEAT_MS = 50                # between two lines of the guest
MACHINE = 'pc-i440fx-10.0'
MBIT = 1_000_000 // 8       # a second, in bytes
OF_MIGRATE = ('bound', 'converge', 'downtime', 'channels', 'dtx-channels',
              'set')        # options of "tlm migrate" that the demo has, too


def parse():
    p = argparse.ArgumentParser(prog='scripts/demo', add_help=False)
    for option in options.of(options.MIGRATE):
        if option.name in OF_MIGRATE:
            parser.add(p, option, options.MIGRATE)
    p.add_argument('--stock-precopy', type=units.Duration(1000, 's'),
                   nargs='?', const=30_000, metavar='TIME')
    p.add_argument('--memory', type=units.Size(512 << 20, 'MiB'),
                   default=1 << 30, metavar='SIZE')
    p.add_argument('--rate', type=units.Bandwidth(10 * MBIT, 'Mbit/s'),
                   default=1000 * MBIT, metavar='RATE')
    p.add_argument('--accel', choices=('tcg', 'kvm'), default='tcg')
    p.add_argument('--destination', metavar='FILE')
    p.add_argument('--keep', action='store_true')
    p.add_argument('--only-parse', action='store_true',
                   help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.channels < 2:
        p.error('--channels must be at least 2')
    if (args.dtx_channels or 0) >= args.channels:
        p.error('--dtx-channels must be less than --channels')
    # Before anything is built: it takes minutes
    reason = None
    for name in ('TLM_QEMU', 'TLM_STOCK_QEMU'):
        if os.environ.get(name):
            reason = reason or no_emulator(os.environ[name], f'{name}=')
    if args.destination:
        reason = reason or no_emulator(args.destination, '--destination ')
    if args.accel == 'kvm':
        reason = reason or env.missing_kvm_device()
    if reason:
        p.error(reason)
    return args


def no_emulator(path, said):
    """Why the demo's guest cannot run in it, or None."""
    if not os.path.exists(path):
        return f'{said}{path}: there is no such file' + (
            " (it is of the package 'qemu-system-x86')"
            if path == '/usr/bin/qemu-system-x86_64' else '')
    try:
        run = subprocess.run([path, '-machine', 'help'], text=True,
                             capture_output=True, check=False)
    except OSError as e:
        return f'{said}{path}: {e.strerror}'
    if not re.search(rf'^{re.escape(MACHINE)}\b', run.stdout, re.M):
        return f'{said}{path}: this is no QEMU that knows the machine ' \
               f"'{MACHINE}', as 10.0 and later do"
    return None


def say(text=''):
    print(text, flush=True)


def step(text):
    say(f'== {text}')


class Heartbeat:
    """How long the guest is silent on its serial port, on the way over."""

    def __init__(self, src, dst):
        self.src, self.dst = src, dst
        self.src_size = -1
        self.last = self.first = None

    def look(self, _status=None):
        now = time.monotonic()
        if self.first is None:
            size = self.src.serial_size()
            if size > self.src_size:
                self.src_size, self.last = size, now
            if self.dst.serial_size():
                self.first = now

    def gap_ms(self):
        return (self.first - self.last) * 1000


class Demo:
    def __init__(self, args):
        self.args = args
        self.params = migrate.params_of(args)
        self.dst_binary = args.destination or env.STOCK_QEMU

    def run(self):
        reason = env.missing_qemu(env.QEMU, self.dst_binary)
        if reason:
            raise VmError(reason)
        if self.args.accel == 'kvm':
            reason = env.missing_kvm(env.QEMU)
            if reason:
                raise VmError(reason)
        self.choose_link()
        self.start_source()
        if self.args.stock_precopy and self.precopy():
            return False
        well = self.migrate() and self.look_at_destination()
        if self.args.keep:
            self.keep()
        return well

    def choose_link(self):
        self.link = Loopback()
        mbit = self.args.rate // MBIT
        why = ShapedLink.missing()
        if why:
            say(f'{why}: max-bandwidth takes its place')
            self.params['max-bandwidth'] = self.args.rate
            step(f'Cap the migration at {mbit} Mbit/s (the switchover is '
                 'not)')
        else:
            step(f'Make a link of {mbit} Mbit/s between two network '
                 'namespaces')
            self.link = ShapedLink(rate=mbit)
            # The link is the only limit; QEMU's default is 128 MiB/s
            self.params.setdefault('max-bandwidth', 0)

    def start_vm(self, name, binary, extra, netns):
        return Vm(name, binary, [*self.guest.args(self.args.accel), *extra],
                  netns).start()

    def start_source(self):
        a = self.args
        memory = a.memory >> 20
        ws = memory * 3 // 4
        self.guest = guests.LinuxGuest(
            mem_mb=memory, machine=MACHINE, ws=ws, beat=BEAT_MS)
        # On a busy host Linux may not see its timer tick when it looks
        self.guest.append += ' no_timer_check'
        step(f'Boot a Linux guest with {memory} MB of RAM under {a.accel}')
        self.src = self.start_vm('src', env.QEMU, [], self.link.src_netns)
        self.guest.wait_filled(self.src)
        self.guest.wait_alive(self.src)
        say(f'It rewrites {ws} MB of it, at '
            f'{rate(self.write_rate(self.src))}; the link carries '
            f'{rate(a.rate)}.')

    def write_rate(self, vm, seconds=2.0):
        """Bytes per second in pages that the guest writes to, as it says."""
        def sample():
            lines = self.guest.heartbeats(vm)
            return (int(lines[-1][1]), int(lines[-1][3])) if lines else None
        wait_until(lambda: self.guest._ok(vm) and sample(), 60,
                   f'{vm.name}: a heartbeat')
        first = sample()
        time.sleep(seconds)
        wait_until(lambda: self.guest._ok(vm) and sample()[0] > first[0], 60,
                   f'{vm.name}: another heartbeat')
        last = sample()
        return (last[1] - first[1]) * PAGE * 1000 / (last[0] - first[0])

    def start_destination(self):
        """Returns the VM and the URI to migrate to."""
        dst = self.start_vm('dst', self.dst_binary, ['-incoming', 'defer'],
                            self.link.dst_netns)
        migration.set_capabilities(dst, multifd=True)
        migration.set_parameters(
            dst, multifd_channels=self.params['multifd-channels'])
        host, port = migration.listen(dst, self.link.address)
        return dst, f'tcp:{host}:{port}'

    def precopy(self):
        """True if it has completed: then there is nothing left to show."""
        limit_s = self.args.stock_precopy / 1000
        step(f"QEMU's own pre-copy first, for {limit_s:g} s at most")
        dst, uri = self.start_destination()
        params = {k: v for k, v in self.params.items()
                  if not k.startswith('tlm-')}
        m = Migration(self.src.qmp, {'multifd': True}, params)
        last, began = None, {}      # round: bytes to send in it

        def remember(status):
            nonlocal last
            if status.status == 'active' and status.ram:
                last = status.ram
                began.setdefault(last.round, last.remaining)

        end = time.monotonic() + limit_s
        with m, Display() as display:
            migrate.run(m, uri, display, lambda: time.monotonic() > end,
                        remember)
        dst.close()
        if m.status.status == 'completed':
            say(f'It has completed in {duration(m.status.total_ms)}: with '
                'a slower link (--rate) it does not.')
            return True
        if m.status.status == 'failed':
            raise VmError(failure(m.status))
        count, left = list(began.items())[-1]
        say(f'Cut off after {limit_s:g} s: {size(last.transferred)} have '
            f'been sent for {size(last.total)} of RAM, and round {count} '
            f'began with {size(left)} to send.')
        return False

    def migrate(self):
        dst, uri = self.start_destination()
        self.dst = dst
        name = 'unpatched ' if self.dst_binary == env.STOCK_QEMU else ''
        step(f'Migrate it by TLM to {name}QEMU {version(dst)}')
        m = Migration(self.src.qmp, {'multifd': True, 'tlm': True},
                      self.params)
        beat = Heartbeat(self.src, dst)
        with m, Display(limits=self.args.converge == 'auto') as display:
            migrate.run(m, uri, display, lambda: False, beat.look)
        if m.status.status != 'completed':
            say(failure(m.status))
            for vm in (self.src, dst):
                if vm.messages():
                    say(f'{vm.name}: {vm.messages().strip()}')
            return False
        say('\n'.join(report(m.status)))
        wait_until(lambda: beat.look() or beat.first is not None, 60,
                   'the destination says something')
        say(f'  guest     silent for {duration(beat.gap_ms())}, as seen on '
            'its serial port')
        return True

    def look_at_destination(self):
        step('Look at the guest at the destination')
        beats = self.guest.beats(self.dst)
        self.guest.wait_scans(self.dst)
        speed = self.write_rate(self.dst)
        self.guest.wait_alive(self.dst)
        say(f'It runs on: {self.guest.beats(self.dst) - beats} heartbeats, '
            f'rewrites memory at {rate(speed)},')
        say('and has checked every page of it against what it has written: '
            'no mismatch.')
        return True

    def keep(self):
        step('Both QEMUs stay until Ctrl-C')
        for vm in (self.src, self.dst):
            say(f'{vm.name}: QMP {vm.qmp_path}, serial port {vm.serial_path}')
        while True:
            time.sleep(3600)


def version(vm):
    found = vm.qmp('query-version')['qemu']
    return f"{found['major']}.{found['minor']}.{found['micro']}"


def main():
    args = parse()
    if args.only_parse:
        return 0
    try:
        return 0 if Demo(args).run() else 1
    except (VmError, RuntimeError, MigrateError) as e:
        print(f'demo: error: {e}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        say('\nInterrupted; both QEMUs and the link are removed.')
        return 130
    finally:
        env.close_all()


if __name__ == '__main__':
    sys.exit(main())
