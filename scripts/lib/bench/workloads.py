# The workloads of scripts/bench
#
# SPDX-License-Identifier: GPL-2.0-or-later

from tlmtest.guests import RomGuest

from .run import Workload

LINK = 2400             # Mbit/s
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


ALL = ('offline', 'precopy', 'xbzrle', 'autoconverge', 'multifd',
       'multifd-autoconverge', 'dirty-limit', 'postcopy', 'postcopy-pass',
       'tlm1s', 'tlm', 'tlm-auto')
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
        modes=ALL, runs=5, limit_s=100, quick=QUICK),
    'rate-is-2-links': Workload(
        '1 GiB written at random at twice the rate of the link, 2.4 Gbit/s',
        rom(1536, ws_mb=1024, pattern='uniform', rate=link_pages(2)), LINK,
        modes=ALL, runs=5, limit_s=100, quick=QUICK),
    'rate-is-half-link': Workload(
        '1 GiB written at random at half the rate of the link, 2.4 Gbit/s',
        rom(1536, ws_mb=1024, pattern='uniform', rate=link_pages(0.5)), LINK,
        modes=PAIR, runs=5, limit_s=100),
    'small-hot-set': Workload(
        '1 GiB in use, 1/40 of it written at full speed, 2.4 Gbit/s',
        rom(1536, ws_mb=1024, pattern='hotcold', hot_percent=3,
            hot_share=100), LINK, modes=ALL, runs=5, limit_s=100,
        quick=QUICK),
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
    # dirty-limit needs KVM's dirty ring
    'kvm-ring': Workload(
        '512 MiB written in order as fast as it can, KVM, 1 Gbit/s',
        rom(768, ws_mb=512), 1000, accel='kvm,dirty-ring-size=4096',
        modes=('offline', 'precopy', 'autoconverge', 'dirty-limit', 'tlm',
               'tlm-auto'), runs=5, limit_s=60),
}
