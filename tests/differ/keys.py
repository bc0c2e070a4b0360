# A case of the differential fuzzer: {key: value}, as text; from a seed
#
# SPDX-License-Identifier: GPL-2.0-or-later

import random

# Values of each key, the simplest first: a case that says nothing of a key has
# that one, and a case is shrunk towards them.  Each combination is a case that
# can be run: what does not go together is refused by QEMU, or has no effect.
KEYS = {
    # The machine; ram and dimm in MiB
    'machine': tuple(f'pc-{kind}-{version}' for kind in ('i440fx', 'q35')
                     for version in ('10.0', '9.2', '9.1', '9.0')),
    'ram': ('32', '48', '64', '96', '128', '192'),
    'memory': ('plain', 'memfd', 'numa'),
    'dimm': ('0', '32', '64'),
    'vcpus': ('1', '2', '3', '4'),
    'balloon': ('off', 'on'),
    'rng': ('off', 'on'),
    'serial': ('off', 'on'),
    'vga': ('off', 'on'),
    # The guest: working set in MiB; pages each vCPU writes in a second, 0: all
    # that it can
    'ws': ('4', '8', '16'),
    'pattern': ('seq', 'uniform', 'hotcold', 'window'),
    'rate': ('2000', '20000', '0'),
    # Settings; bandwidth in MB/s, 0: no limit; times in ms
    'transport': ('tcp', 'unix'),
    'channels': ('2', '3', '4', '8', '1'),
    'compression': ('none', 'zlib', 'zstd'),
    'zero-page': ('multifd', 'none', 'legacy'),
    'bandwidth': ('0', '200', '20', '5'),
    'downtime': ('300', '2000', '10'),
    'return-path': ('on', 'off'),
    'switchover-ack': ('off', 'on'),
    'pause': ('off', 'on'),
    'auto-converge': ('off', 'on'),
    # Settings that only TLM has
    'converge': ('none', 'auto'),
    'bound': ('0', '30000', '1000', '200'),
    'action': ('complete', 'cancel'),
    'dtx': ('on', 'off'),
    'dtx-channels': ('0', '1', '3', '7'),
    'epoch': ('0', '20', '1000'),
    # When it begins, and ms after that; what is done after so many MB
    'begin': ('filled', 'filling', 'boot'),
    'delay': ('0', '100', '500'),
    'meanwhile': ('nothing', 'bandwidth', 'downtime', 'stop', 'balloon',
                  'dirty-rate', 'cancel', 'bound', 'converge', 'switchover'),
    'at': ('0', '1', '4', '16'),
}
# How often against the other values of the key, each of which is 1: what is
# mostly the end of a case before it has begun
WEIGHTS = {('channels', '1'): 0.04, ('zero-page', 'legacy'): 0.04,
           ('auto-converge', 'on'): 0.04, ('dtx-channels', '3'): 0.1,
           ('dtx-channels', '7'): 0.04, ('return-path', 'off'): 0.3,
           ('switchover-ack', 'on'): 0.3}
SIMPLE = {key: values[0] for key, values in KEYS.items()}


def draw(seed):
    """The same case for the same seed, as long as KEYS are the same."""
    r = random.Random(seed)
    return {key: r.choices(values, [WEIGHTS.get((key, value), 1)
                                    for value in values])[0]
            for key, values in KEYS.items()}


def text(case):
    """What is not the simplest, as parse() takes it."""
    return ' '.join(f'{key}={case[key]}' for key in KEYS
                    if case[key] != SIMPLE[key])


def parse(words):
    """Raises ValueError, with what is right."""
    case = dict(SIMPLE)
    for word in words:
        key, _, value = word.partition('=')
        if key not in KEYS:
            raise ValueError(f"'{key}' is none of {', '.join(KEYS)}")
        if value not in KEYS[key]:
            raise ValueError(f"'{key}' is one of {', '.join(KEYS[key])}")
        case[key] = value
    return case


def simpler(case, key):
    """Values of a key that are simpler than what it is, the simplest first."""
    return KEYS[key][:KEYS[key].index(case[key])]
