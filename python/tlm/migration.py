# SPDX-License-Identifier: GPL-2.0-or-later
"""One migration, as seen from its source: settings, start, look, cancel."""

import time

from .errors import MigrateError
from .status import FINAL, Status
from .units import as_text

# s, for QEMU to close its channels after a migration has ended
CLEAN_UP_S = 60
CLEAN_UP_POLL_S = 0.01


class Migration:
    """@qmp executes a command: qmp(name, **arguments), and raises an
    exception that says why if it cannot."""

    def __init__(self, qmp, caps, params):
        self.qmp = qmp
        self.caps, self.params = dict(caps), dict(params)
        self.old_caps, self.old_params = {}, {}
        self.status = Status({})        # the last that was seen

    def __enter__(self):
        """Set capabilities and parameters; remember what they were."""
        old = {c['capability']: c['state']
               for c in self.qmp('query-migrate-capabilities')}
        for cap in self.caps:
            if cap not in old:
                raise MigrateError(
                    f"this QEMU has no capability '{cap}'" +
                    (': it is not the one with TLM' if cap == 'tlm' else ''))
        known = self.qmp('query-migrate-parameters')
        for name in self.params:
            if name not in known:
                raise MigrateError(f"this QEMU has no parameter '{name}'")
            if isinstance(known[name], str):
                self.params[name] = as_text(self.params[name])
        self.old_caps = {c: old[c] for c in self.caps
                         if old[c] != self.caps[c]}
        self.old_params = {p: known[p] for p in self.params
                           if known[p] != self.params[p]}
        try:
            self._set(self.old_caps, self.caps, self.old_params, self.params)
        except BaseException:
            self.__exit__(True)     # QEMU may have refused a part of it
            raise
        return self

    def _set(self, caps, cap_values, params, param_values):
        if caps:
            self.qmp('migrate-set-capabilities', capabilities=[
                {'capability': c, 'state': cap_values[c]} for c in caps])
        if params:
            self.qmp('migrate-set-parameters',
                     **{p: param_values[p] for p in params})

    def until_cleaned_up(self):
        """QEMU says "failed" before it closes its channels.  It looks for them
        by its settings then, and ends if these have changed meanwhile: with
        the guest."""
        end = time.monotonic() + CLEAN_UP_S
        while any(i['type'] == 'migration' for i in self.qmp('query-yank')):
            if time.monotonic() > end:
                raise MigrateError('QEMU has not closed its channels: '
                                   'capabilities and parameters stay as they '
                                   'are')
            time.sleep(CLEAN_UP_POLL_S)

    def __exit__(self, error, *_):
        """Give them their old values back."""
        try:
            if self.over():
                self.until_cleaned_up()
            self._set(self.old_caps, self.old_caps,
                      self.old_params, self.old_params)
        except Exception:
            if not error:       # else that is what the user has to know
                raise

    def start(self, uri):
        self.qmp('migrate', uri=uri)

    def look(self):
        self.status = Status(self.qmp('query-migrate'))
        return self.status

    def poll(self):
        self.look()
        if self.status.status == 'pre-switchover':
            # With pause-before-switchover QEMU waits for its manager: us
            self.qmp('migrate-continue', state='pre-switchover')
        return self.status

    def over(self):
        return self.status.status in FINAL

    def cancel(self):
        self.qmp('migrate_cancel')
