# The path between source and destination
#
# Loopback: both on this host.  ShapedLink: two network namespaces, a veth
# pair, and a token bucket filter at each end.  max-bandwidth does not bind in
# the switchover, a shaped link does, so downtimes are measured on the latter.
#
# The filter never drops: it takes whatever TCP's send buffers hold.  A packet
# that is dropped inside of the sending host is not a lost one for TCP: with
# nothing in flight it waits 0.5 s and more before it tries again, which no
# network does to a migration.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import os
import re
import shutil
import subprocess

from . import env


def _run(*command):
    p = subprocess.run(command, capture_output=True, text=True)
    if p.returncode:
        raise RuntimeError(f"{' '.join(command)}: {p.stderr.strip()}")
    return p.stdout


class Loopback:
    src_netns = dst_netns = None
    address = '127.0.0.1'

    def close(self):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class ShapedLink(Loopback):
    """rate in Mbit/s.  Names carry this process's id; what an earlier
    process that was killed has left behind is removed."""

    address = '10.213.0.2'

    def __init__(self, rate=2400):
        self.remove_stale()
        pid = os.getpid()
        self.src_netns, self.dst_netns = f'tlm-s-{pid}', f'tlm-d-{pid}'
        env.register(self)
        try:
            for name in (self.src_netns, self.dst_netns):
                _run('ip', 'netns', 'add', name)
                _run('ip', '-n', name, 'link', 'set', 'lo', 'up')
            _run('ip', '-n', self.src_netns, 'link', 'add', 'tlm0', 'type',
                 'veth', 'peer', 'name', 'tlm0', 'netns', self.dst_netns)
            for name, address in ((self.src_netns, '10.213.0.1'),
                                  (self.dst_netns, self.address)):
                _run('ip', '-n', name, 'addr', 'add', f'{address}/24',
                     'dev', 'tlm0')
                _run('ip', '-n', name, 'link', 'set', 'tlm0', 'up')
                self._shape(name, 'add', rate)
        except BaseException:
            self.close()
            raise

    @staticmethod
    def _shape(netns, verb, rate):
        _run('tc', '-n', netns, 'qdisc', verb, 'dev', 'tlm0', 'root', 'tbf',
             'rate', f'{rate}mbit', 'burst', '1mb', 'limit', '128mb')

    def set_rate(self, rate):
        for name in (self.src_netns, self.dst_netns):
            self._shape(name, 'replace', rate)

    def cut(self, cut=True):
        """Nothing gets through, and nobody is told; or it does again."""
        _run('ip', '-n', self.dst_netns, 'link', 'set', 'tlm0',
             'down' if cut else 'up')

    def close(self):
        env.unregister(self)
        for name in (self.src_netns, self.dst_netns):
            # The veth pair goes with its namespaces
            subprocess.run(['ip', 'netns', 'del', name],
                           stderr=subprocess.DEVNULL)

    @staticmethod
    def remove_stale():
        for line in _run('ip', 'netns', 'list').splitlines():
            m = re.match(r'(tlm-[sd]-(\d+))\b', line)
            if m and not os.path.exists(f'/proc/{m[2]}'):
                try:
                    _run('ip', 'netns', 'del', m[1])
                except RuntimeError:
                    if os.path.exists(f'/run/netns/{m[1]}'):
                        raise           # nobody else has removed it, either

    @staticmethod
    def missing():
        """Why there can be no shaped link here, or None."""
        if os.geteuid() != 0:
            return 'a shaped link needs root (network namespaces)'
        for tool in ('ip', 'tc'):
            if not shutil.which(tool):
                return f'a shaped link needs {tool} (package iproute2)'
        try:
            with ShapedLink():
                return None
        except RuntimeError as e:
            return f'no shaped link here: {e}'
