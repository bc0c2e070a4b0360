# Drive one migration between two Vms
#
# SPDX-License-Identifier: GPL-2.0-or-later

import time

from .vm import PATIENCE, VmError, wait_until

FINAL = ('completed', 'failed', 'cancelled')


def set_capabilities(vm, **caps):
    vm.qmp('migrate-set-capabilities', capabilities=[
        {'capability': name.replace('_', '-'), 'state': state}
        for name, state in caps.items()])


def set_parameters(vm, **params):
    if params:
        vm.qmp('migrate-set-parameters', **params)


def listen(dst, address='127.0.0.1', port=0):
    """Start listening; returns the address as (host, port)."""
    dst.qmp('migrate-incoming', uri=f'tcp:{address}:{port}')
    sockets = dst.qmp('query-migrate').get('socket-address')
    if not sockets:
        raise VmError(f'{dst.name} does not listen')
    return sockets[0]['host'], int(sockets[0]['port'])


def start(src, host, port):
    src.qmp('migrate', uri=f'tcp:{host}:{port}')


def start_to_file(src, path):
    src.qmp('migrate', uri=f'file:{path}')


def load_file(dst, path):
    dst.qmp('migrate-incoming', uri=f'file:{path}')


def wait_idle(src, timeout=30):
    """QEMU, also stock, says "cancelled" at once when the connection is not
    yet there, and tidies up when it is.  A start before that is refused, and
    leaves the status at "setup"."""
    wait_until(lambda: not any(i['type'] == 'migration'
                               for i in src.qmp('query-yank')),
               timeout, f'{src.name}: the old migration is gone')


def status(vm):
    return vm.qmp('query-migrate').get('status', 'none')


def wait_status(vm, wanted, timeout=120, on_poll=None):
    """Wait for one of the given statuses; a different final one is an
    error.  on_poll is called with every answer.  Returns the last answer."""
    if isinstance(wanted, str):
        wanted = (wanted,)
    timeout *= PATIENCE
    deadline = time.monotonic() + timeout
    while True:
        info = vm.qmp('query-migrate')
        if on_poll:
            on_poll(info)
        now = info.get('status', 'none')
        if now in wanted:
            return info
        if now in FINAL:
            raise VmError(f'{vm.name}: migration {now}: '
                          f"{info.get('error-desc')}\n{vm.messages()}")
        if time.monotonic() > deadline:
            raise VmError(f'{vm.name}: migration is {now}, not {wanted}, '
                          f'after {timeout} s: {info}')
        time.sleep(0.02)


def _under_way(vm):
    """query-migrate of a migration that must not be over."""
    info = vm.qmp('query-migrate')
    now = info.get('status')
    if now in FINAL:
        raise VmError(f"{vm.name}: migration {now}: {info.get('error-desc')}")
    return info


def wait_ram_sent(vm, megabytes, timeout=60):
    """Wait until the migration under way has sent that much."""
    def sent():
        info = _under_way(vm)
        return (info.get('status') == 'active' and
                info['ram']['transferred'] >= megabytes << 20)
    wait_until(sent, timeout, f'{vm.name}: {megabytes} MB sent')


def wait_stalled(vm, timeout=60):
    """Wait until the migration under way, whose other side does not read,
    sends nothing more: all buffers are full."""
    last, since = 0, 0

    def stalled():
        nonlocal last, since
        sent = _under_way(vm).get('ram', {}).get('transferred', 0)
        now = time.monotonic()
        if sent != last or not sent:
            last, since = sent, now
        return now - since > 0.5
    wait_until(stalled, timeout, f'{vm.name}: nothing more is sent')


def wait_loaded(dst, timeout=60):
    """Wait until the destination has all and stands still (-S)."""
    wait_status(dst, 'completed', timeout)
    wait_until(lambda: not dst.qmp('query-status')['running'] and
               dst.status() == 'paused', timeout,
               f'{dst.name}: paused after the migration')
