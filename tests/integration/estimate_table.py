#!/usr/bin/python3
#
# Prediction and outcome: for several guests, ask tlm-estimate what a
# migration over a shaped link would take, migrate to the stock QEMU, and
# print both.  Not a test; docs/estimate.md has its table.
#
#   PYTHONPATH=python tests/integration/estimate_table.py
#       [--rate MBIT] [--repeat N] [--downtime-limit MS] [--window MS]
#       [--accel tcg|kvm]
#
# SPDX-License-Identifier: GPL-2.0-or-later

import argparse
import sys

from tlmtest import env, migration
from tlmtest.guests import RomGuest
from tlmtest.link import ShapedLink
from tlmtest.vm import Vm, wait_until

MB = 1 << 20

# name: settings of the ROM guest; rate in pages/s, 0: as fast as it can
GUESTS = {
    'idle': {'ws_mb': 512, 'rate': 10},
    'small hot set': {'ws_mb': 512, 'pattern': 'hotcold', 'hot_percent': 3,
                      'hot_share': 100},
    'whole set': {'ws_mb': 512},
    'half the link, in turn': {'ws_mb': 512, 'rate_of_link': 0.5},
    'half the link, at random': {'ws_mb': 512, 'rate_of_link': 0.5,
                                 'pattern': 'uniform'},
    'twice the link, at random': {'ws_mb': 512, 'rate_of_link': 2.0,
                                  'pattern': 'uniform'},
    'hot and cold': {'ws_mb': 512, 'pattern': 'hotcold', 'hot_percent': 20,
                     'hot_share': 95, 'rate_of_link': 1.0},
}


def one(args, link, settings, converge):
    settings = dict(settings)
    share = settings.pop('rate_of_link', None)
    if share:
        settings['rate'] = int(share * args.rate * 1e6 / 8 / 4096)
    guest = RomGuest(mem_mb=768, scan_ms=0, **settings)
    src = Vm('src', env.QEMU, guest.args(args.accel), link.src_netns).start()
    dst = Vm('dst', env.STOCK_QEMU,
             [*guest.args(args.accel), '-S', '-incoming', 'defer'],
             link.dst_netns).start()
    try:
        guest.wait_filled(src)
        guest.wait_alive(src)
        migration.set_capabilities(dst, multifd=True)
        migration.set_capabilities(src, multifd=True, tlm=True)
        migration.set_parameters(dst, multifd_channels=2)
        migration.set_parameters(src, multifd_channels=2, max_bandwidth=0,
                                 tlm_converge=converge,
                                 downtime_limit=args.downtime_limit)
        src.qmp('tlm-estimate', bandwidth=int(args.rate * 1e6 / 8),
                window=args.window)
        wait_until(lambda: src.qmp('query-tlm-estimate')['status'] !=
                   'measuring', 60, 'the measurement ends')
        estimate = src.qmp('query-tlm-estimate')
        address = migration.listen(dst, link.address)
        migration.start(src, *address)
        info = migration.wait_status(src, 'completed', 300)
    finally:
        for obj in (src, dst, guest):
            obj.close()
    wanted = [p for p in estimate['predictions']
              if p['converge'] == converge][0]
    return estimate, wanted, info


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--rate', type=int, default=800, metavar='MBIT')
    p.add_argument('--repeat', type=int, default=1)
    p.add_argument('--downtime-limit', type=int, default=300, metavar='MS')
    p.add_argument('--window', type=int, default=1000, metavar='MS')
    p.add_argument('--accel', choices=('tcg', 'kvm'), default='tcg')
    p.add_argument('--guest', action='append', choices=GUESTS)
    args = p.parse_args()
    reason = env.missing_qemu(env.QEMU, env.STOCK_QEMU) or \
        ShapedLink.missing()
    if reason:
        sys.exit(reason)
    print('| guest | written MiB/s | working set, MiB | converge | '
          'total s: predicted | real | error | downtime ms: predicted | '
          'real |\n|---|---|---|---|---|---|---|---|---|')
    with ShapedLink(rate=args.rate) as link:
        for name in args.guest or GUESTS:
            for converge in ('none', 'auto') * args.repeat:
                e, p, info = one(args, link, GUESTS[name], converge)
                total = info['total-time']
                print(f"| {name} | {e['dirty-rate'] / MB:.0f} "
                      f"| {e['working-set-bytes'] / MB:.0f} | {converge} "
                      f"| {p['total'] / 1000:.2f} | {total / 1000:.2f} "
                      f"| {(p['total'] - total) * 100 / total:+.0f} % "
                      f"| {p['downtime']} | {info['downtime']} |", flush=True)


if __name__ == '__main__':
    main()
