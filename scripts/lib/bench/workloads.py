# The workloads of scripts/bench
#
# SPDX-License-Identifier: GPL-2.0-or-later

from tlmtest.guests import RomGuest

from .linux import BenchGuest
from .mpi import MpiGuest
from .run import Workload

LINK = 2400             # Mbit/s
SLOW_LINK = 1000        # as those who published figures of NPB had
CALIBRATE_S = 6         # some iterations of a program
PAGE = 4096


def link_pages(factor):
    """Pages/s that are @factor times what the link carries."""
    return int(factor * LINK * 1e6 / 8 / PAGE)


def rom(mem_mb, **settings):
    def make():
        return RomGuest(mem_mb=mem_mb, scan_ms=3000, verify=False,
                        **settings)
    make.settings = {'mem_mb': mem_mb, **settings}
    return make


def linux(name, mem_mb, vcpus=2, **settings):
    def make():
        return BenchGuest(name, mem_mb, vcpus=vcpus, **settings)
    make.settings = {'set': name, 'mem_mb': mem_mb, 'vcpus': vcpus,
                     **settings}
    return make


def mpi(mem_mb, **settings):
    def make():
        return MpiGuest(mem_mb, **settings)
    make.settings = {'set': 'mpi', 'mem_mb': mem_mb, **settings}
    return make


def program(title, guest, quick=()):
    return Workload(
        f"{title}, {guest.settings['mem_mb']} MiB, 1 Gbit/s", guest,
        SLOW_LINK, modes=PAIR, runs=5, limit_s=100, quick=quick,
        calibrate_s=CALIBRATE_S)


def npb(kernel, npb_class, mem_mb, quick=()):
    return program(
        f'NPB-like {kernel.upper()}, class {npb_class}, 2 OpenMP threads',
        linux('npb', mem_mb, kernel=kernel, threads=2,
              **{'class': npb_class}), quick)


ALL = ('offline', 'precopy', 'xbzrle', 'autoconverge', 'multifd',
       'multifd-autoconverge', 'postcopy', 'postcopy-pass', 'tlm1s',
       'tlm', 'tlm-auto', 'tlm-bound')
PAIR = ('offline', 'tlm', 'tlm-auto', 'multifd-autoconverge')
QUICK = ('offline', 'tlm', 'tlm-auto')

WORKLOADS = {
    # Nothing is to be lost against multifd where nothing is to be won
    'idle': Workload(
        'idle 1 GiB guest, loopback, uncapped',
        rom(1024, ws_mb=1, rate=100), modes=('multifd', 'tlm'), runs=10),
    'idle-filled': Workload(
        'idle 1 GiB guest that has used 768 MiB, loopback, uncapped',
        rom(1024, ws_mb=768, rate=100), modes=('multifd', 'tlm'), runs=10,
        quick=('multifd', 'tlm')),
    'idle16g': Workload(
        'idle 16 GiB guest, loopback, uncapped',
        rom(16384, ws_mb=1, rate=100), modes=('multifd', 'tlm'), runs=5),
    'write-heavy': Workload(
        '1 GiB rewritten in order at 3 GB/s, 2.4 Gbit/s',
        rom(1536, ws_mb=1024, rate=750000), LINK, modes=ALL, runs=5,
        limit_s=100, quick=(*QUICK, 'precopy', 'multifd-autoconverge',
                            'postcopy', 'tlm1s')),
    'low-locality': Workload(
        '1 GiB written at random at 3 GB/s, 2.4 Gbit/s',
        rom(1536, ws_mb=1024, pattern='uniform', rate=750000), LINK,
        modes=ALL, runs=5, limit_s=100, quick=QUICK),
    'rate-is-link': Workload(
        '1 GiB written at random at the rate of the link, 2.4 Gbit/s',
        rom(1536, ws_mb=1024, pattern='uniform', rate=link_pages(1)), LINK,
        modes=ALL, runs=5, limit_s=100, quick=('tlm', 'tlm-auto')),
    'rate-is-2-links': Workload(
        '1 GiB written at random at twice the rate of the link, 2.4 Gbit/s',
        rom(1536, ws_mb=1024, pattern='uniform', rate=link_pages(2)), LINK,
        modes=ALL, runs=5, limit_s=100, quick=('tlm', 'tlm-auto')),
    'rate-is-half-link': Workload(
        '1 GiB written at random at half the rate of the link, 2.4 Gbit/s',
        rom(1536, ws_mb=1024, pattern='uniform', rate=link_pages(0.5)), LINK,
        modes=PAIR, runs=5, limit_s=100),
    'small-hot-set': Workload(
        '1 GiB in use, 1/40 of it written at full speed, 2.4 Gbit/s',
        rom(1536, ws_mb=1024, pattern='hotcold', hot_percent=3,
            hot_share=100), LINK, modes=ALL, runs=5, limit_s=100,
        quick=QUICK),
    # What post-copy puts at risk is a part of it
    'cold-and-hot': Workload(
        '2 GiB in use, a fifth of it written at 3 GB/s, 2.4 Gbit/s',
        rom(2560, ws_mb=2048, pattern='hotcold', hot_percent=20,
            hot_share=100, rate=750000), LINK,
        modes=('offline', 'multifd-postcopy', 'multifd-postcopy-pass', 'tlm',
               'tlm-auto', 'tlm-postcopy'), runs=3, limit_s=100),
    'overcommit': Workload(
        '8 vCPUs, 512 MiB written in order, 2.4 Gbit/s',
        rom(1024, ws_mb=512, vcpus=8, rate=150000), LINK,
        modes=('tlm', 'tlm-20-4', 'tlm-20-2', 'tlm-20-1', 'tlm-50-4',
               'tlm-50-2', 'tlm-50-1'),
        runs=5, limit_s=60, quick=('tlm', 'tlm-20-1', 'tlm-50-1')),
    # For hosts with fewer CPUs than the slides had: n of 8 is n/8 of the time
    'overcommit-throttle': Workload(
        '8 vCPUs, 512 MiB written at random at the rate of the link, '
        '2.4 Gbit/s, over-commit by throttle',
        rom(1024, ws_mb=512, vcpus=8, pattern='uniform', rate=link_pages(1)),
        LINK, modes=('tlm', 'tlm-20-4', 'tlm-20-2', 'tlm-50-4', 'tlm-50-2'),
        params={'tlm-overcommit-method': 'throttle'}, runs=5, limit_s=60,
        quick=('tlm', 'tlm-20-2', 'tlm-50-2')),
    # Programs in a Linux guest, which check their results
    'npb-is': npb('is', 'A', 512, quick=('tlm-auto',)),
    'npb-is-b': npb('is', 'B', 1024),
    'npb-mg': npb('mg', 'A', 1024),
    'npb-cg': npb('cg', 'A', 512),
    'npb-ft': npb('ft', 'A', 768),
    'npb-sp': npb('sp', 'W', 512),
    'npb-bt': npb('bt', 'W', 512),
    # Of two guests the first one is measured; then the second one migrates
    'mpi-is': program(
        'IS, class A, by MPI over two guests which both migrate',
        mpi(512, **{'class': 'A'})),
    'stress-ng-vm': program(
        'stress-ng vm, 512 MiB written at random and verified',
        linux('stress-ng', 1024, vcpus=1, probe=1, stressor='vm', mb=512,
              method='rand-set')),
    'stress-ng-memrate': program(
        'stress-ng memrate, 512 MiB read and written at 200 MB/s each',
        linux('stress-ng', 1024, vcpus=1, probe=1, stressor='memrate',
              mb=512, method='write64', rate=200)),
    'redis': program(
        'redis under redis-benchmark, 60,000 keys of 4 KiB',
        linux('redis', 1024, keys=60000, clients=8)),
    'postgresql': program(
        'PostgreSQL under pgbench, 1,000,000 accounts',
        linux('postgresql', 1024, scale=10, clients=4)),
}
