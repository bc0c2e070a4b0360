# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM's outgoing packets, held by QEMU's filter-buffer on its netdevs.

So the VM can go on as soon as it has been saved, while others have not yet
stopped: nobody gets what it sends after its stop before his own.  This holds
if, in this order,

    1. its filters are on before it stops: both are asked for over one monitor
    2. all VMs have stopped
    3. its filters go off, and let out what they have held

A filter lets packets out by itself each INTERVAL, on a clock of QEMU's that
is never ahead of the host's.  So 2 must come in less than that after 1 was
asked for; the coordinator looks at its clock.  If the coordinator dies,
nothing but this interval is needed to let packets out, and there is no set
for which their order would matter.

What is held when the VM stops is not part of its checkpoint: it is lost on
the way, as any packet may be.
"""

import re

from ..errors import Refused

PREFIX = 'tlm-hold-'
ON, OFF = 'on', 'off'
NIC = re.compile(r'^(?P<hub> \\ .*)?(?P<nic>.+?): index=\d+,type=nic,')
PEER = re.compile(r'^ \\ (?P<netdev>.+?): index=\d+,type=(?P<type>\w[\w-]*),')
# Its clock goes as fast as instructions are executed
OWN_CLOCK = '-icount'


class Cannot(Exception):
    """Why packets of this VM cannot be held."""


def netdevs(text, command):
    """Those that network devices send to, by "info network"; @command: the
    words that QEMU was started with, or None."""
    if OWN_CLOCK in (command or ()):
        raise Cannot(f'QEMU runs with {OWN_CLOCK}')
    found = []
    lines = text.splitlines()
    for line, following in zip(lines, [*lines[1:], '']):
        nic = NIC.match(line)
        if not nic:
            continue
        if line.startswith(' '):
            raise Cannot('a network device is on a hub')
        peer = PEER.match(following)
        if peer and peer['netdev'] not in found:
            found.append(peer['netdev'])
    if not found:
        raise Cannot('it has no network device')
    return found


def path(name):
    return f'/objects/{name}'


async def remove(channel):
    """All filters that there are, also of a coordinator that has died.  What
    they hold goes out."""
    for child in await channel('qom-list', path='/objects'):
        if child['name'].startswith(PREFIX):
            await channel('object-del', id=child['name'])


class Held:
    """Packets of one VM.  @names: of the filters; none: there is only the
    gate, and @why says so if they were wanted."""

    def __init__(self, channel):
        self.channel = channel
        self.names, self.why, self.asked = [], None, False

    async def make(self, command, interval_us):
        """Filters that are off; @command: as of netdevs()."""
        self.asked = True
        try:
            found = netdevs(await self.channel(
                'human-monitor-command', **{'command-line': 'info network'}),
                command)
            for number, netdev in enumerate(found):
                await self.channel('object-add', **{
                    'qom-type': 'filter-buffer', 'id': f'{PREFIX}{number}',
                    'netdev': netdev, 'queue': 'rx', 'interval': interval_us,
                    'status': OFF})
            self.names = [f'{PREFIX}{number}' for number in range(len(found))]
        except (Cannot, Refused) as e:
            await remove(self.channel)
            self.why = str(e)

    def switch(self, status):
        """Returns futures."""
        return [self.channel.send('qom-set', path=path(n), property='status',
                                  value=status) for n in self.names]

    def ask(self):
        """Whether they are on: futures."""
        return [self.channel.send('qom-get', path=path(n), property='status')
                for n in self.names]

    async def remove(self):
        if self.asked:
            await remove(self.channel)
            self.asked = False
