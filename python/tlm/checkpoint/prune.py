# SPDX-License-Identifier: GPL-2.0-or-later
"""Removes checkpoints, but none that another one needs."""

from . import chain
from .target import summed


def run(catalogue, keep, display=None, check=lambda: None):
    """Leaves the newest @keep; returns names of those that are gone.  The
    caller holds the lock.  What stays is made whole first if it needs what
    goes."""
    old = catalogue.old(keep)
    for entry in chain.in_need(catalogue, set(old)):
        chain.flatten(catalogue, entry,
                      lambda path: summed(path, display, check), display,
                      check)
    # Children first: none is ever without its parent
    for name in reversed(old):
        catalogue.remove(name)
    return old
