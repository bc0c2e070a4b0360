# SPDX-License-Identifier: GPL-2.0-or-later
"""What is said of a migration after its end."""

from . import decisions
from .figures import duration, rate, size

SHOWN_US = 1000             # parts of the downtime below it are "the rest"


def report(status):
    """Lines that say how a completed migration went."""
    tlm, ram = status.tlm, status.ram
    parts = tlm.downtime_parts()
    long = [f'{name} {duration(us / 1000)}' for name, us in parts
            if us >= SHOWN_US]
    short = len(long) < len(parts)
    resent = 100 * tlm.resent_bytes / max(ram.total, 1)
    total_s = max(status.total_ms, 1) / 1000
    lines = [
        f'Completed in {duration(status.total_ms)}, '
        f'downtime {duration(status.downtime_ms)}:',
        '  downtime  ' + ' + '.join(long + ['the rest < 1 ms'] * short),
        f'  mtx       {size(tlm.mtx_bytes):>8}  of RAM in the pass, '
        'guest running',
        f'  dtx       {size(tlm.dtx_bytes):>8}  of dirty pages beside '
        'it, guest running',
        f'  stop      {size(tlm.stop_bytes):>8}  with the guest stopped',
        f'  resent    {resent:6.1f} %  of RAM was sent more than once',
        f'  wire      {size(ram.transferred):>8}  in '
        f'{duration(status.total_ms)} '
        f'({rate(ram.transferred / total_s)}), {tlm.epochs} epochs',
        f'  decision  {decisions.text(tlm.decision)}',
        f"  lost work {duration(tlm.lost_work):>8}  of the guest's time, "
        'slowed and stopped',
    ]
    if tlm.postcopy_owed is not None:
        lines[4] = f'  post-copy {size(tlm.postcopy_owed):>8}  in ' \
            f'{duration(tlm.postcopy_time)}, guest at the destination; it ' \
            f'has asked for {tlm.postcopy_requests} pages'
    if tlm.skipped_bytes:
        lines.insert(5, f'  skipped   {size(tlm.skipped_bytes):>8}  of '
                     'RAM that the guest does not use')
    return lines


def failure(status):
    """One line that says how a migration ended that did not complete."""
    if status.status == 'cancelled' or not status.error:
        # QEMU may name the channel that the cancel has closed
        return f'Migration {status.status}'
    return f'Migration {status.status}: {status.error}'
