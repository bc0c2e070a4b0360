# SPDX-License-Identifier: GPL-2.0-or-later
"""Merges images of a disk while the guest uses it: by QEMU's block-commit, or
by libvirt's, which then knows of it."""

import contextlib
import os
import re
import time

from ..errors import MigrateError
from ..figures import size
from . import images, virshdisks

POLL_S = 0.05
JOB = 'tlm-merge'
# What "virsh blockjob --info --raw" says, if there is one
BLOCKJOB = re.compile(r'\btype=(?P<type>[\w -]+?)\s*$', re.M)
SETTLE_S = 30               # for libvirt to see that a job has ended


class Chain:
    """Of a disk: the node that the guest writes to, the device's QOM path,
    files from the top down, and libvirt's name of it."""

    def __init__(self, node, device, files):
        self.node, self.device, self.files = node, device, files
        self.target = None


def chains(qmp, directory):
    """Of all disks that are written to."""
    found = []
    for device in qmp('query-block'):
        medium = device.get('inserted')
        if medium and not medium['ro']:
            files = list(images.chain(medium['image'], directory))
            found.append(Chain(medium['node-name'], device.get('qdev'),
                               files))
    return found


class ByQemu:
    def __init__(self, qmp, directory):
        self.qmp, self.directory = qmp, directory

    def chains(self):
        return chains(self.qmp, self.directory)

    def tops(self):
        """Files that the guest writes to."""
        return [chain.files[0] for chain in self.chains()]

    def settle(self, _last):
        """Ends what is left of a command that was killed, of which @last is
        known."""
        for job in self._jobs():
            self._end(job['id'])

    def _jobs(self):
        return [job for job in self.qmp('query-jobs')
                if job['id'].startswith(JOB)]

    def _nodes(self):
        return [(n['node-name'], n['drv'],
                 images.path(n['file'], self.directory)) for n in
                self.qmp('query-named-block-nodes', flat=True)]

    def _node(self, path):
        """That with the format of the image: the one on that of its file."""
        nodes = [(name, drv) for name, drv, file in self._nodes()
                 if file == path]
        above = [name for name, drv in nodes if drv != 'file'] or \
            [name for name, _ in nodes]
        if len(above) != 1:
            raise MigrateError(f'QEMU has {len(above)} block nodes with '
                               f'{path} instead of one')
        return above[0]

    def run(self, chain, merge, on_poll):
        """@on_poll(done, total) may raise an exception to end it."""
        arguments = {'job_id': JOB, 'device': chain.node,
                     'top_node': self._node(merge.images[0]),
                     'base_node': self._node(merge.into),
                     'auto_dismiss': False}
        if merge.above:
            # As the image above is to name it, wherever QEMU was started
            arguments['backing_file'] = merge.into
        try:
            self.qmp('block-commit', **arguments)
        except MigrateError as e:
            if 'lock' not in str(e):
                raise
            raise MigrateError(f'another process uses {merge.into}, a '
                               'restored VM perhaps: end it first, or keep '
                               f'the images ({e})') from None
        try:
            self._wait(merge, on_poll)
        except BaseException:
            self._end(JOB)
            raise
        for name, _, file in self._nodes():
            if file in merge.images:
                # The protocol's node goes with that of the format
                with contextlib.suppress(MigrateError):
                    self.qmp('blockdev-del', node_name=name)

    def _wait(self, merge, on_poll):
        asked = False
        while True:
            job = next(iter(self._jobs()), None)
            if not job:
                raise MigrateError('somebody has taken the job away that '
                                   'merges images')
            if job['status'] == 'concluded':
                if 'error' in job:
                    raise MigrateError(f'QEMU cannot merge: {job["error"]}')
                self.qmp('job-dismiss', id=JOB)
                return
            on_poll(job['current-progress'], job['total-progress'])
            if job['status'] == 'ready' and not merge.above and not asked:
                self.qmp('job-complete', id=JOB)
                asked = True
            time.sleep(POLL_S)

    def _end(self, job):
        """The chain stays as it was, if it is not done."""
        while True:
            found = [j for j in self._jobs() if j['id'] == job]
            if not found:
                return
            with contextlib.suppress(MigrateError):
                self.qmp('job-dismiss' if found[0]['status'] == 'concluded'
                         else 'job-cancel', id=job)
            time.sleep(POLL_S)

    def in_use(self):
        """Files that QEMU has open."""
        return {file for _, _, file in self._nodes()}


class ByLibvirt(ByQemu):
    """@domain: a virsh.domain.Domain"""

    def __init__(self, domain):
        super().__init__(domain, None)
        self.virsh, self.name = domain.virsh, domain.name

    def chains(self):
        known = virshdisks.described(self.qmp.live_xml())
        found = super().chains()
        for chain in found:
            chain.target = virshdisks.target_of(known, chain.device,
                                                chain.files[0])
            its = next(d for d in known if d.target == chain.target)
            if list(its.files) != chain.files:
                raise MigrateError(
                    f'libvirt and QEMU do not agree on the images of disk '
                    f'{chain.target}: {list(its.files)}, {chain.files}')
        return found

    def settle(self, last):
        """libvirt brings its jobs to their ends itself, but for those that
        wait to be told."""
        for chain in self.chains() if last and not last['above'] else ():
            if chain.files[0] == last['images'][0] and self._job(chain):
                self.virsh('blockjob', self.name, chain.target, '--abort')

    def _job(self, chain):
        """The type of the disk's job; None."""
        found = BLOCKJOB.search(self.virsh('blockjob', self.name, chain.target,
                                         '--info', '--raw'))
        return found and found['type']

    def run(self, chain, merge, on_poll):
        words = [self.name, chain.target, '--base', merge.into, '--top',
                 merge.images[0]]
        self.virsh('blockcommit', *words,
                   *(() if merge.above else ('--active',)))
        try:
            self._poll(chain, merge, on_poll)
        except BaseException:
            with contextlib.suppress(MigrateError):
                self.virsh('blockjob', self.name, chain.target, '--abort')
            raise
        self._check(chain, merge)

    def _poll(self, chain, merge, on_poll):
        while self._job(chain):
            job = next((j for j in self.qmp('query-block-jobs')
                        if chain.target in j['device']), None)
            if job:
                on_poll(job['offset'], job['len'])
            if job and job['ready'] and not merge.above:
                try:
                    self.virsh('blockjob', self.name, chain.target, '--pivot')
                except MigrateError as e:
                    if 'not ready' not in str(e):
                        raise
            time.sleep(POLL_S)

    def _check(self, chain, merge):
        """libvirt does not say whether it has failed."""
        deadline = time.monotonic() + SETTLE_S
        while True:
            its = next(d for d in virshdisks.described(self.qmp.live_xml())
                       if d.target == chain.target)
            if not set(merge.images) & set(its.files):
                return
            if time.monotonic() > deadline:
                raise MigrateError(
                    f'libvirt has not merged {merge.images[0]} of disk '
                    f'{chain.target}: its log says why')
            time.sleep(POLL_S)


def of(vm, directory):
    """@vm: of source.py"""
    return ByLibvirt(vm.qmp) if hasattr(vm, 'virsh') else \
        ByQemu(vm.qmp, directory)


def size_of(paths):
    return size(sum(os.stat(p).st_blocks * 512 for p in paths))
