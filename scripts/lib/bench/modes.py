# Migration modes to compare: what is set on both sides, and on the source
#
# SPDX-License-Identifier: GPL-2.0-or-later

from dataclasses import dataclass, field


@dataclass
class Mode:
    title: str
    caps: dict = field(default_factory=dict)        # both sides
    src_caps: dict = field(default_factory=dict)
    params: dict = field(default_factory=dict)      # source
    stop_first: bool = False
    postcopy_after: int = 0     # start post-copy at that sync of the dirty log

    @property
    def multifd(self):
        return self.caps.get('multifd', False)

    @property
    def may_postcopy(self):
        """The guest may run at the destination before the migration ends."""
        return self.caps.get('postcopy-ram', False)

    def but(self, title, **params):
        """The same with other parameters."""
        return Mode(title, self.caps, self.src_caps,
                    {**self.params, **params}, self.stop_first,
                    self.postcopy_after)


MULTIFD = {'multifd': True}
POSTCOPY = {'postcopy-ram': True, 'postcopy-preempt': True}
TLM = {'tlm': True}


def overcommit(progress, cpus):
    return [{'progress': progress, 'cpus': cpus}]


MODES = {
    'offline': Mode('stop and copy', MULTIFD, stop_first=True),
    'precopy': Mode('pre-copy'),
    'xbzrle': Mode('pre-copy, XBZRLE', {'xbzrle': True},
                   params={'xbzrle-cache-size': 512 << 20}),
    'autoconverge': Mode('pre-copy, auto-converge',
                         src_caps={'auto-converge': True}),
    'multifd': Mode('multifd', MULTIFD),
    'multifd-autoconverge': Mode('multifd, auto-converge', MULTIFD,
                                 {'auto-converge': True}),
    'postcopy': Mode('post-copy (preempt)', POSTCOPY, postcopy_after=1),
    'postcopy-pass': Mode('post-copy (preempt) after a pass', POSTCOPY,
                          postcopy_after=2),
    # With TLM_BUILD=build-10.2: QEMU 10.0 refuses these
    'multifd-postcopy': Mode('multifd, post-copy (preempt)',
                             {**MULTIFD, **POSTCOPY}, postcopy_after=1),
    'multifd-postcopy-pass': Mode('multifd, post-copy (preempt) after a pass',
                                  {**MULTIFD, **POSTCOPY}, postcopy_after=2),
    'tlm-postcopy': Mode('TLM, post-copy (preempt)', {**MULTIFD, **POSTCOPY},
                         TLM, {'tlm-converge': 'postcopy'}),
    'tlm1s': Mode('TLM.1S', MULTIFD, TLM, {'tlm-dtx': False}),
    'tlm': Mode('TLM', MULTIFD, TLM),
    'tlm-auto': Mode('TLM, converge', MULTIFD, TLM,
                     {'tlm-converge': 'auto'}),
    'tlm-bound': Mode('TLM, converge, bound 8 s', MULTIFD, TLM,
                      {'tlm-converge': 'auto', 'tlm-time-bound': 8000}),
}
for _percent in (20, 50):
    for _cpus in (1, 2, 4):
        MODES[f'tlm-{_percent}-{_cpus}'] = MODES['tlm'].but(
            f'TLM, 0.{_percent // 10}-({_cpus})',
            **{'tlm-overcommit': overcommit(_percent, _cpus)})
