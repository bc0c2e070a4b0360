# The faults: each does one thing to a migration that is under way
#
# SPDX-License-Identifier: GPL-2.0-or-later

import os
import signal
import subprocess
import sys
import time

from tlmtest import migration
from tlmtest.vm import VmError

MOMENT_S = 0.4


class Faults:
    """case: see case.py"""

    def __init__(self, case):
        self.case = case

    def do(self, what):
        """Returns False if it was too late for that."""
        return getattr(self, what.replace('-', '_'))()

    def _ask(self, command, **arguments):
        """What may be refused, as the migration may be over already."""
        try:
            self.case.src.qmp(command, **arguments)
        except VmError as e:
            self.case.refused.append(str(e))

    def _for_a_moment(self, pid):
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(self.case.s.how or MOMENT_S)
        finally:
            os.kill(pid, signal.SIGCONT)

    # Processes

    def kill_destination(self):
        """Unless only that has the guest."""
        dst = self.case.dst
        os.kill(dst.pid, signal.SIGSTOP)
        if migration.status(self.case.src) == 'completed':
            os.kill(dst.pid, signal.SIGCONT)
            return False
        dst.kill()
        return True

    def kill_source(self):
        self.case.src.kill()

    def stop_destination(self):
        self._for_a_moment(self.case.dst.pid)

    def stop_source(self):
        self._for_a_moment(self.case.src.pid)

    # The network

    def _connection(self):
        return self.case.proxy.wait_connection(self.case.s.how)

    def close(self):
        connection = self._connection()
        if connection:
            connection.close()

    def stall(self):
        self.case.proxy.stalled = True
        time.sleep(MOMENT_S)
        self._ask('migrate_cancel')

    def stall_for_a_moment(self):
        self.case.proxy.stalled = True
        time.sleep(MOMENT_S)
        self.case.proxy.stalled = False

    def slow(self):
        """To a hundredth, and back."""
        self.case.proxy.rate = self.case.cap / 100 / self.case.s.channels
        time.sleep(MOMENT_S)
        self.case.proxy.rate = 0

    def _next_bytes(self, todo):
        connection = self._connection()
        if connection:
            connection.todo = todo

    def truncate(self):
        self._next_bytes('truncate')

    def corrupt(self):
        self._next_bytes('corrupt')

    def connection_reset(self):
        connection = self._connection()
        if connection:
            connection.close(reset=True)

    # The file

    def disk_full(self):
        pass                    # it was full from the start: see case.py

    def file_removed(self):
        os.unlink(self.case.path)

    # The user

    def nothing(self):
        pass

    def cancel(self):
        self._ask('migrate_cancel')

    def yank(self):
        self._ask('yank', instances=[{'type': 'migration'}])

    def qmp_lost(self):
        self.case.src.monitor.close()
        self.case.src.connect()

    def parameters(self):
        src = self.case.src
        for value in (1 << 20, 0, self.case.cap):
            migration.set_parameters(src, max_bandwidth=value,
                                     downtime_limit=100)
            time.sleep(MOMENT_S / 4)
        if self.case.stock:
            return
        for converge in ('auto', 'none', self.case.s.converge):
            migration.set_parameters(src, tlm_converge=converge)
        migration.set_parameters(src, tlm_time_bound=5000)
        migration.set_parameters(src, tlm_time_bound=0)

    def switchover(self):
        self._ask('migrate-tlm-switchover')

    def stop_cont(self):
        if self.case.s.where == 'gate':
            return              # that is refused, or ends it: see its own tests
        self._ask('stop')
        self._ask('cont')

    def hot_plug(self):
        self._ask('device_add', driver='virtio-balloon-pci', id='late')

    def memory_plug(self):
        self._ask('object-add', qom_type='memory-backend-ram', id='late',
                  size=1 << 20)
        self._ask('object-del', id='late')

    def balloon(self):
        self._ask('balloon', value=32 << 20)

    def block_resize(self):
        self._ask('block_resize', node_name='disk', size=2 << 20)

    def savevm(self):
        self.case.refused.append(self.case.src.hmp('savevm late'))

    def migrate_again(self):
        self._ask('migrate', uri='tcp:127.0.0.1:1')

    def dirty_rate(self):
        self._ask('calc-dirty-rate', calc_time=1, mode='page-sampling')

    # Guest and host

    def guest_reset(self):
        self._ask('system_reset')

    def powerdown(self):
        self._ask('system_powerdown')

    def nmi(self):
        self._ask('inject-nmi')

    def cpu_hog(self):
        hogs = [subprocess.Popen([sys.executable, '-c', 'while True: pass'])
                for _ in range(os.cpu_count())]
        time.sleep(MOMENT_S)
        for hog in hogs:
            hog.kill()
            hog.wait()
