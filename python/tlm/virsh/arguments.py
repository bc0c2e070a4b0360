# SPDX-License-Identifier: GPL-2.0-or-later
"""The arguments of "virsh migrate": which there are, which go with TLM."""

import re

from .. import options

COPY_STORAGE = ('copy-storage-all', 'copy-storage-inc')
PLACES = ('domain', 'desturi', 'migrateuri', 'graphicsuri', 'listen-address',
          'dname')
NO_POSTCOPY = 'of the commands here only "tlm migrate" can end a migration ' \
    'by post-copy'
REFUSED = {
    'offline': 'no memory is migrated with it',
    'tunnelled': 'libvirt carries the data itself, in one stream; TLM needs '
                 'the connections that QEMU opens',
    'postcopy': NO_POSTCOPY,
    'postcopy-after-precopy': NO_POSTCOPY,
    'postcopy-resume': NO_POSTCOPY,
    'postcopy-bandwidth': NO_POSTCOPY,
    'timeout-postcopy': f'{NO_POSTCOPY}; '
                        '{bound} does what you want',
    'auto-converge': 'TLM slows the guest itself: {converge}',
    'auto-converge-initial': 'TLM slows the guest itself: {converge}',
    'auto-converge-increment': 'TLM slows the guest itself: {converge}',
    'compressed': 'it means xbzrle, which TLM excludes; with --parallel try '
                  '--comp-methods zstd',
    'rdma-pin-all': 'RDMA has no parallel connections',
}
XBZRLE = ('xbzrle', 'mt')
OLD_FLAGS = {o.old[options.O_VIRSH].flag: o
             for o in options.of(options.VIRSH)
             if options.O_VIRSH in o.old and o.old[options.O_VIRSH].flag}


def known_options(help_text):
    """{name of an option of "virsh migrate": whether it takes a value}"""
    return {m[1]: bool(m[2]) for m in re.finditer(
        r'^\s+\[?--([a-z][-a-z0-9]*)\]?(?: (<\w+>))?', help_text, re.M)}


def split(words, known):
    """virsh's arguments as {option: value or True}; @known: as from
    known_options().  Raises ValueError."""
    given, places = {}, list(PLACES)
    words = list(words)
    while words:
        word = words.pop(0)
        if re.match('-[^-]|--$', word):
            raise ValueError(f"'{word}' is no option of \"virsh migrate\"; "
                             "of virsh's own only -c can be given")
        if not word.startswith('--'):
            if not places:
                raise ValueError(f"what is '{word}'?")
            given[places.pop(0)] = word
            continue
        name, has_value, value = word[2:].partition('=')
        if f'--{name}' in OLD_FLAGS:
            # a libvirt with patches has some of these, too
            o = OLD_FLAGS[f'--{name}']
            raise ValueError(f"'--{name}' is '--{o.name}' here")
        if name not in known:
            raise ValueError(f"this virsh has no option '--{name}'")
        if name in places:
            places.remove(name)
        if known[name] and not has_value:
            if not words:
                raise ValueError(f"'--{name}' needs a value")
            value = words.pop(0)
        given[name] = value if known[name] else True
    for name in ('domain', 'desturi'):
        if name not in given:
            raise ValueError(f'{name} is missing')
    return given


def check_mode(given, old_name=None):
    """Raise ValueError if TLM does not go with these options."""
    flags = {name: options.flag(name, old_name)
             for name in ('bound', 'converge')}
    for name, why in REFUSED.items():
        if name in given:
            raise ValueError(f"'--{name}' does not go with TLM: " +
                             why.format(**flags))
    if given.get('migrateuri', '').startswith('rdma:'):
        raise ValueError('an rdma: URI does not go with TLM: RDMA has no '
                         'parallel connections')
    for method in given.get('comp-methods', '').split(','):
        if method in XBZRLE:
            raise ValueError(f"compression '{method}' does not go with TLM; "
                             'zlib and zstd do')
    if given.get('parallel-connections', '2') in ('0', '1'):
        raise ValueError('TLM needs 2 --parallel-connections at least')


def mib(bandwidth):
    """--bandwidth as virsh has it, of bytes per second.  Raises
    ValueError."""
    if 0 < bandwidth < 1 << 20:
        raise ValueError('--bandwidth: libvirt has no cap below 1 MiB/s')
    return str(bandwidth >> 20)


def copies_disks(given):
    return any(o in given for o in COPY_STORAGE)


def words_of(given):
    """The arguments once more, for virsh."""
    words = []
    for name, value in given.items():
        if name != 'verbose':       # the progress shown here says more
            words += [f'--{name}'] if value is True else [f'--{name}', value]
    return words
