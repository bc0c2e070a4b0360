# Results of the time when query-migrate's "tlm" had no groups
#
# SPDX-License-Identifier: GPL-2.0-or-later

# Old name: (group, name in it)
GROUPED = {
    'predicted-total': ('prediction', 'total'),
    'predicted-downtime': ('prediction', 'downtime'),
    'eta': ('prediction', 'eta'),
    'smallest-bound': ('prediction', 'smallest-bound'),
    'downtime-reachable': ('prediction', 'downtime-reachable'),
    'deadline': ('bound', 'time'),
    'bound-reachable': ('bound', 'reachable'),
    'slack': ('bound', 'slack'),
    'mtx-bytes': ('ram', 'mtx'),
    'dtx-bytes': ('ram', 'dtx'),
    'stop-bytes': ('ram', 'stop'),
    'resent-bytes': ('ram', 'resent'),
    'skipped-bytes': ('ram', 'skipped'),
    'passed-bytes': ('ram', 'passed'),
    'unsent-bytes': ('ram', 'unsent'),
    'dirty-bytes': ('ram', 'dirty'),
    'hot-bytes': ('ram', 'hot'),
    'guest-speed': ('guest', 'speed'),
    'dirty-rate': ('guest', 'dirty-rate'),
    'lost-work': ('guest', 'lost-work'),
    'epochs': ('epochs', 'count'),
    'sync-time': ('epochs', 'sync-time'),
    'overcommit-cpus': ('overcommit', 'cpus'),
    'overcommit-method': ('overcommit', 'method'),
    'overcommit-note': ('overcommit', 'note'),
}


def grouped(tlm):
    """@tlm as it is today.  Its decision stays a sentence if it was one."""
    if 'mtx-bytes' not in tlm:
        return tlm
    new = {}
    for name, value in tlm.items():
        if name in GROUPED:
            group, name = GROUPED[name]
            new.setdefault(group, {})[name] = value
        else:
            new[name] = value
    if 'time' not in new.get('bound', {}):
        new.pop('bound', None)      # there was none that could be reached
    return new
