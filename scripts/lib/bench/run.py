# One migration of one guest in one mode, measured
#
# Downtime and lost work come in two kinds: as QEMU reports them, and as the
# guest saw them (its own count of pages written, or of other units of work,
# against its rate before).
#
# SPDX-License-Identifier: GPL-2.0-or-later

import os
import threading
import time

from tlmtest import env, migration
from tlmtest.link import Loopback, ShapedLink
from tlmtest.vm import Vm, VmError

from .host import describe
from .timeline import AFTER_S, Timeline, Watch

CALIBRATE_S = 1.5       # how long the guest's undisturbed rate is measured
CHANNELS = 2
ACCEL = 'tcg'           # what every host has


class Workload:
    """A guest, a link, and what is asked of the migration."""

    def __init__(self, title, guest, rate_mbit=None, modes=(), runs=5,
                 limit_s=30, downtime_limit=300, params=None,
                 channels=CHANNELS, extra=(), quick=(),
                 calibrate_s=CALIBRATE_S):
        self.title, self.guest, self.rate_mbit = title, guest, rate_mbit
        self.modes, self.runs = modes, runs
        self.limit_s, self.downtime_limit = limit_s, downtime_limit
        self.params, self.channels = params or {}, channels
        self.extra = extra
        self.quick = quick              # modes of scripts/bench --quick
        self.calibrate_s = calibrate_s


def _pages(guest, vm):
    return guest.progress(vm)['pages']


def guest_rate(guest, vm, seconds=CALIBRATE_S):
    """Pages/s that the guest writes when nobody disturbs it."""
    t0, p0 = time.monotonic(), _pages(guest, vm)
    time.sleep(seconds)
    return (_pages(guest, vm) - p0) / (time.monotonic() - t0)


def _cpu_ticks(path):
    with open(path) as f:
        fields = f.read().rsplit(')', 1)[1].split()
    return int(fields[11]) + int(fields[12])


def _cpu_seconds(vm):
    """CPU time of QEMU, threads that have ended included, less its vCPUs'."""
    ticks = _cpu_ticks(f'/proc/{vm.pid}/stat')
    for cpu in vm.qmp('query-cpus-fast'):
        ticks -= _cpu_ticks(f"/proc/{vm.pid}/task/{cpu['thread-id']}/stat")
    return ticks / os.sysconf('SC_CLK_TCK')


def _populated(guest):
    """RAM that is there before the migration begins.  The first use of memory
    in a virtual machine, as this host may be one, can take ten times as long
    as the link takes for it: that is no limit of any migration."""
    return ['-object', f'memory-backend-ram,id=pc.ram,size={guest.mem_mb}M,'
            'prealloc=on,x-use-canonical-path-for-ramblock-id=off',
            '-machine', 'memory-backend=pc.ram']


def _nic(guest, side):
    return guest.nic(side) if hasattr(guest, 'nic') else []


def measure(workload, mode, link=None, during=None, result=None, **override):
    """Returns a dict: one line of the results; @result is filled as far as it
    gets.  @during is called with (src, seconds since the start) at every look
    at the migration."""
    result = {} if result is None else result
    result.update(
        mode=mode.title, workload=workload.title, accel=ACCEL,
        guest_settings=getattr(workload.guest, 'settings', {}),
        link_mbit=workload.rate_mbit, limit_s=workload.limit_s,
        caps={**mode.caps, **mode.src_caps},
        loadavg=round(os.getloadavg()[0], 2))
    guest = workload.guest()
    own_link = link is None
    if own_link:
        link = (ShapedLink(rate=workload.rate_mbit) if workload.rate_mbit
                else Loopback())
    src = dst = None
    try:
        args = [*guest.args(ACCEL), *workload.extra]
        if hasattr(guest, 'prepare'):
            guest.prepare(link)
        src = Vm('src', env.QEMU, [*args, *_nic(guest, 'src_netns')],
                 link.src_netns).start()
        guest.wait_filled(src)
        guest.wait_alive(src)
        if workload.rate_mbit:
            args += _populated(guest)
        dst = Vm('dst', env.STOCK_QEMU, [
            *args, *_nic(guest, 'dst_netns'), '-incoming', 'defer'],
            link.dst_netns).start()
        result['host'] = describe(src, dst)
        _run(workload, mode, guest, src, dst, link, during, override, result)
    finally:
        for vm in (src, dst):
            if vm:
                vm.close()
        guest.close()
        if own_link:
            link.close()
    return result


def _configure(workload, mode, src, dst, params):
    migration.set_capabilities(dst, **mode.caps)
    migration.set_capabilities(src, **mode.caps, **mode.src_caps)
    if mode.multifd:
        migration.set_parameters(
            dst, **{'multifd-channels': workload.channels})
    migration.set_parameters(src, **params)


def _set_up(workload, mode, src, dst, override, result):
    """What QEMU refuses is not possible here; its words say why."""
    params = {'max-bandwidth': 0, 'downtime-limit': workload.downtime_limit,
              **workload.params, **mode.params, **override}
    if mode.multifd:
        params['multifd-channels'] = workload.channels
    result['params'] = params
    try:
        _configure(workload, mode, src, dst, params)
    except VmError as e:
        if not (src.alive() and dst.alive()):
            raise
        result.update(status='not possible', error=str(e))
        return False
    return True


def throttled_percent(info):
    """Of the vCPUs' time that QEMU says, while they run, to take."""
    tlm = info.get('tlm')
    if tlm and tlm['stage'] == 'live' and tlm['epochs']['count'] > 1:
        return round(100 * (1 - tlm['guest']['speed']))
    return info.get('cpu-throttle-percentage', 0)


def _follow(mode, src, dst, t0, limit_s, timeline, during, arrived):
    """Until the migration ends or the limit passes.  Returns the last answer,
    whether it was cut, and what was seen on the way: what TLM predicted
    half-way, the method by which vCPUs were held to fewer host CPUs, and by
    how much they were throttled at most."""
    seen, asked = {'half_way': {}, 'held_by': None}, False
    while True:
        info = src.qmp('query-migrate')
        now = time.monotonic() - t0
        timeline.look(now, info)
        if during:
            during(src, now)
        tlm = info.get('tlm')
        seen['held_by'] = tlm and tlm.get('overcommit', {}).get('method') or \
            seen['held_by']
        seen['throttle_percent'] = max(seen.get('throttle_percent', 0),
                                       throttled_percent(info))
        if tlm and tlm['progress'] >= 50 and not seen['half_way']:
            seen['half_way'] = {
                'at': now * 1e3, 'total': tlm['prediction']['total'],
                'downtime': tlm['prediction']['downtime']}
        if mode.postcopy_after and not asked and \
                info['status'] == 'active' and \
                info['ram']['dirty-sync-count'] >= mode.postcopy_after:
            src.qmp('migrate-start-postcopy')
            asked = True
        postcopy = asked or info['status'].startswith('postcopy')
        if postcopy and not arrived.is_set() and \
                dst.qmp('query-status')['running']:
            arrived.set()
        cut = now > limit_s and info['status'] not in migration.FINAL
        if cut or info['status'] in migration.FINAL:
            timeline.look(now, info, last=True)
            return info, cut, seen
        time.sleep(0.02 if arrived.is_set() or not postcopy else 0.002)


def _run(workload, mode, guest, src, dst, link, during, override, result):
    if not _set_up(workload, mode, src, dst, override, result):
        return
    arrived = threading.Event()
    if not mode.may_postcopy:
        arrived.set()
    watch, timeline = Watch(guest, src, dst, arrived), Timeline()
    watch.start()
    t0 = end = time.monotonic()
    try:
        base = guest_rate(guest, src, workload.calibrate_s)
        pages0, cpu0 = _pages(guest, src), _cpu_seconds(src)
        result['base_rate'] = base
        address = migration.listen(dst, link.address)
        t0 = time.monotonic()
        if mode.stop_first:
            src.qmp('stop')
            stop_s = time.monotonic()
        migration.start(src, *address)
        info, cut, seen = _follow(mode, src, dst, t0, workload.limit_s,
                                  timeline, during, arrived)
        end = time.monotonic()
        result.update(status='not ended' if cut else info['status'],
                      error=info.get('error-desc'),
                      total_ms=(end - t0) * 1e3, **seen,
                      bytes=info.get('ram', {}).get('transferred', 0),
                      cpu_s=_cpu_seconds(src) - cpu0)
        if result['status'] != 'completed':
            return
        migration.wait_status(dst, 'completed')
        while not dst.qmp('query-status')['running']:
            if mode.stop_first:
                dst.qmp('cont')
            time.sleep(0.001)
        end = time.monotonic()
        arrived.set()           # it has not come to post-copy
        pages1 = _pages(guest, dst)
        # It runs on, and for a while is looked at doing so
        guest.wait_alive(dst)
        time.sleep(max(0, end + AFTER_S - time.monotonic()))
    finally:
        watch.close()
        result['timeline'] = timeline.finish(watch, t0, end)

    result.update(
        total_ms=info['total-time'], downtime_ms=info['downtime'],
        setup_ms=info['setup-time'],
        guest_lost_ms=((end - t0) - (pages1 - pages0) / base) * 1e3
        if base else 0)
    if mode.stop_first:
        result['downtime_ms'] = (end - stop_s) * 1e3
        result['total_ms'] = (end - t0) * 1e3
    resumed = watch.resumed()
    if resumed:
        result['guest_down_ms'] = (resumed[1] - resumed[0]) * 1e3
    if info.get('tlm'):
        result['tlm'] = info['tlm']
    if hasattr(guest, 'migrate_peer'):
        result['peer'] = guest.migrate_peer(
            lambda s, d: _configure(workload, mode, s, d, result['params']),
            mode.stop_first, workload.limit_s)
    # The verdict: the guest finds all of its memory right
    if hasattr(guest, 'verify'):
        result['verdict'] = guest.verify(dst)
    elif getattr(guest, 'self_check', True):
        guest.wait_scans(dst)
    result['guest'] = 'well'


def measure_safely(*args, **kwargs):
    """A failed run is a result, too, not the end of all of them."""
    result = {}
    try:
        return measure(*args, result=result, **kwargs)
    except (VmError, OSError, RuntimeError) as e:
        return {**result, 'status': 'error', 'error': str(e)}
