# Compare all RAM of two virtual machines, byte by byte
#
# Every RAMBlock that QEMU has is compared: RAM, video memory, firmware, ACPI
# tables.  Not RAM, and so not covered: device state (it is tested by the
# guest running on) and memory that a device keeps outside of RAMBlocks.
#
# SPDX-License-Identifier: GPL-2.0-or-later

CHUNK = 1 << 20
PAGE = 4096
ZEROS = bytes(CHUNK)


class Comparison:
    def __init__(self):
        self.pages = 0              # compared
        self.differing = 0
        self.first = None           # (block, offset, source, destination)
        self.problems = []          # blocks that cannot be compared
        self.per_block = {}         # name: [pages, differing]
        self.history = None         # of the first page, as WireCheck tells it

    def equal(self):
        return not self.differing and not self.problems

    def __str__(self):
        lines = [f'{self.differing} of {self.pages} pages differ']
        lines += [f'  {name}: {bad} of {pages}'
                  for name, (pages, bad) in self.per_block.items() if bad]
        lines += ['  ' + p for p in self.problems]
        if self.first:
            name, offset, src, dst = self.first
            at = next(i for i in range(len(src)) if src[i] != dst[i])
            lines.append(f'  first: block {name}, page offset {offset:#x}, '
                         f'byte {at:#x}: source {src[at:at + 16].hex()}, '
                         f'destination {dst[at:at + 16].hex()}')
        if self.history is not None:
            lines.append('  sent: ' + (', '.join(
                f"channel {h['channel']} after {h['epoch']} syncs" +
                (' (as zero)' if h['zero'] else '')
                for h in self.history) or 'never'))
        return '\n'.join(lines)


def _compare_block(result, src, dst, a, b):
    pages = bad = 0
    for start in range(0, a.used, CHUNK):
        length = min(CHUNK, a.used - start)
        x = src.read_block(a, start, length)
        y = dst.read_block(b, start, length)
        pages += -(-length // PAGE)
        if x == y:
            continue
        for at in range(0, length, PAGE):
            p, q = x[at:at + PAGE], y[at:at + PAGE]
            if p != q:
                bad += 1
                if result.first is None:
                    result.first = (a.name, start + at, p, q)
    result.per_block[a.name] = [pages, bad]
    result.pages += pages
    result.differing += bad


def compare_ram(src, dst):
    """Compare all RAM of two stopped VMs."""
    for vm in (src, dst):
        if vm.qmp('query-status')['running']:
            raise ValueError(f'{vm.name} is running')
    result = Comparison()
    a, b = src.blocks(), dst.blocks()
    for name in sorted(a.keys() | b.keys()):
        if name not in a or name not in b:
            side = 'source' if name in a else 'destination'
            result.problems.append(f'block {name} only at the {side}')
        elif a[name].used != b[name].used:
            result.problems.append(f'block {name}: {a[name].used} bytes at '
                                   f'the source, {b[name].used} at the '
                                   'destination')
        else:
            _compare_block(result, src, dst, a[name], b[name])
    return result


def read_all(vm):
    """So that pages that come by being read are there from now on: not every
    kernel has one page of zeros for all of them."""
    for block in vm.blocks().values():
        for at in range(0, block.used, CHUNK):
            vm.read_block(block, at, min(CHUNK, block.used - at))


class FrozenRam:
    """All RAM of a stopped VM as it is now: to be compared later.  Takes no
    memory for what is zero."""

    def __init__(self, vm):
        if vm.qmp('query-status')['running']:
            raise ValueError(f'{vm.name} is running')
        self.name = vm.name
        self._blocks = vm.blocks()
        self._data = {name: [self._read(vm, block, at)
                             for at in range(0, block.used, CHUNK)]
                      for name, block in self._blocks.items()}

    @staticmethod
    def _read(vm, block, at):
        data = vm.read_block(block, at, min(CHUNK, block.used - at))
        return None if data == ZEROS[:len(data)] else data

    def blocks(self):
        return self._blocks

    def main_block(self):
        return max(self._blocks.values(), key=lambda b: b.used)

    def read_block(self, block, offset, length):
        """Within a chunk."""
        data = self._data[block.name][offset // CHUNK] or ZEROS
        return data[offset % CHUNK:][:length]

    def qmp(self, command):
        return {'query-status': {'running': False}}[command]
