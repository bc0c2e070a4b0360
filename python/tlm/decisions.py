# SPDX-License-Identifier: GPL-2.0-or-later
"""Why the planner decided as it did: a sentence for each value of QAPI's enum
MigrationTlmDecision."""

TEXTS = {
    'setup': 'setup',
    'pass': 'mtx has not passed over all RAM yet',
    'pass-ended': 'mtx has passed over all RAM',
    'switchover-requested': 'asked for',
    'fits': 'what is left fits in the downtime limit',
    'less-than-redirtied':
        'less is left than becomes dirty while the guest stops',
    'shrinks': 'what is left shrinks at full guest speed',
    'settled-first': 'settled pages first, at full guest speed',
    'does-not-shrink': 'what is left does not shrink: throttle',
    'pass-futile': 'most of what is sent is dirtied again: throttle',
    'throttled-pass': 'throttled, mtx has not passed over all RAM yet',
    'throttled': 'throttled until what is left fits',
    'no-progress': 'no progress, and the guest cannot be slowed more',
    'bound-requires-stop': 'the time bound requires it',
    'bound-requires-throttle': 'the time bound requires throttling',
    'bound-overrun': 'the time bound is out of reach: overrun least',
    'bound-doubted': 'the time bound seems to be out of reach',
    'bound-out-of-reach': 'the time bound cannot be kept',
    'bound-passed': 'the time bound has passed',
    'destination-not-ready': 'the destination is not ready for the switchover',
    'link-dead': 'nothing gets through: no switchover into a dead link',
    'held': 'ready, and held until asked for',
    'pass-wasted':
        'most of the pass is in vain, and memory holds what is left',
    'too-long-to-stop':
        'a stop would take longer than the downtime limit: post-copy',
    'bound-requires-postcopy': 'the time bound requires post-copy',
}


def text(decision):
    """Of a newer QEMU, that knows more of them, the name alone."""
    return TEXTS.get(decision, decision)
