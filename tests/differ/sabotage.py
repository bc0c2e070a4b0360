# What makes a good migration a wrong one: shows that the fuzzer would see it
#
# SPDX-License-Identifier: GPL-2.0-or-later

KINDS = {
    'byte': "a byte of the destination's RAM is changed before it is compared",
    'page': "a byte of the guest's own is changed after that",
    'answer': 'what has completed is said to have failed',
    'mute': 'QEMU says no reason why it refuses or fails',
}


class Sabotage:
    """kind: one of KINDS.  conditions: {key: value} that a case must have for
    it to happen, so that there is something to be found by shrinking."""

    def __init__(self, kind, conditions=()):
        self.kind, self.conditions = kind, dict(conditions)

    def __str__(self):
        """As --sabotage takes it."""
        return self.kind + ':' * bool(self.conditions) + ','.join(
            f'{key}={value}' for key, value in self.conditions.items())

    def of(self, case):
        """What happens to that case: this, or None."""
        return self if self.conditions.items() <= case.items() else None

    def loaded(self, vm):
        if self.kind == 'byte':
            self._change(vm, vm.rom_block.used - 1)

    def compared(self, guest, vm):
        if self.kind == 'page':
            self._change(vm, guest.page_offset(vm, 1) + 1)

    def ending(self, ending):
        if self.kind == 'answer' and ending.how == 'completed':
            ending.how, ending.said = 'failed', 'sabotage'
        elif self.kind == 'mute':
            ending.said = ''
        return ending

    @staticmethod
    def _change(vm, offset):
        block = vm.rom_block
        byte, = vm.read_block(block, offset, 1)
        vm.write_block(block, offset, bytes([byte ^ 1]))
