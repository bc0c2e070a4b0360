# The guests of scripts/bench-checkpoint, and where they are saved to
#
# SPDX-License-Identifier: GPL-2.0-or-later

from tlmtest.guests import LinuxGuest, RomGuest

from ..linux import BenchGuest

LINK_MBIT = 400                 # the target that is slow
FILES = ('memory', 'disk')
# A tlm-memserver on this host, which is asked for this level
SERVERS = {'server': 'memory', 'durable': 'durable'}
WAYS = ('protect', 'copy', 'auto', 'stock')
ALL_WAYS = (*WAYS, 'background', 'snapshot-save')


class Workload:
    """@works: whether the guest's work is worth counting; @to: where it is
    saved to, if nobody asks for anything else."""

    def __init__(self, title, guest, ways=ALL_WAYS, to=('memory',),
                 works=True):
        self.title, self.guest, self.ways = title, guest, ways
        self.to, self.works = to, works


# No scans of the guest's memory, which would be no work for a while; tests
# have them
WORKLOADS = {
    'write-heavy': Workload(
        'Linux guest, 1.5 GiB, that rewrites 1 GiB at full speed',
        lambda: LinuxGuest(mem_mb=1536, ws=1024, scan=0, beat=10), to=FILES),
    'idle': Workload(
        'idle guest, 8 GiB: 1 GiB holds data, of which 100 pages/s are '
        'written, the rest was never used',
        lambda: RomGuest(mem_mb=8192, ws_mb=1024, rate=100, scan_ms=1 << 30,
                         verify=False), works=False),
    'redis': Workload(
        'redis under redis-benchmark, 60,000 keys of 4 KiB, 1 GiB',
        lambda: BenchGuest('redis', 1024, keys=60000, clients=8)),
    'postgresql': Workload(
        'PostgreSQL under pgbench, 1,000,000 accounts, 1 GiB',
        lambda: BenchGuest('postgresql', 1024, scale=10, clients=4)),
    # One that such a link carries in seconds
    'slow': Workload(
        'firmware guest, 256 MiB, that rewrites 128 MiB at 0.8 GB/s',
        lambda: RomGuest(ws_mb=128, rate=200000, scan_ms=1 << 30,
                         verify=False), ways=WAYS, to=('link',)),
}
