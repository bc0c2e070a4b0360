# SPDX-License-Identifier: GPL-2.0-or-later
"""What a server has to be told of a checkpoint before it has one: whether it
is an increment, and what the disks are since the pause.
"""

from . import copies, disks


class Confirm:
    """@receivers: of receivers.py; @parent: what is shown of the one that
    QEMU was asked for the changes since, or None; @new: the overlays; @used:
    the disks, for the manifest."""

    def __init__(self, receivers, known, parent, new, used):
        self.receivers, self.known, self.parent = receivers, known, parent
        self.used = used
        self._switch = new.switch
        self.switch = new.switch and self._switched
        self.switched = False
        self.due = self.wanted = parent is not None or bool(used)

    def _switched(self):
        """Others than QEMU put the overlays on the disks."""
        self._switch()
        self.switched = True

    def _is_known(self, tlm):
        if self.parent and not tlm.parent and not tlm.full_reason:
            return False
        return not self.used or self.switched or tlm.disks_switched

    def look(self, status):
        """Nobody writes to the images that the overlays are on any more."""
        self.receivers.beat()
        tlm = status.tlm
        if not self.due or not tlm or not self._is_known(tlm):
            return
        self.due = False
        if self.used:
            self.used = disks.identified(self.used)
        self.receivers.confirm(
            incremental=bool(self.parent and
                             tlm.parent == self.parent['identity']),
            source=copies.source({**self.known, 'disks': self.used}))
