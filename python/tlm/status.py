# SPDX-License-Identifier: GPL-2.0-or-later
"""What query-migrate says: the only place that knows its members' names.

Times are in milliseconds, amounts in bytes, rates in bytes per second, shares
from 0 to 1, as far as not said otherwise.
"""

FINAL = ('completed', 'failed', 'cancelled')


class Tlm:
    """Member "tlm" of an answer."""

    def __init__(self, members):
        self._members = members

    # Where it is

    @property
    def stage(self):
        return self._members['stage']

    @property
    def progress(self):
        """In percent."""
        return self._members['progress']

    @property
    def decision(self):
        """A value of QAPI's enum; decisions.text() says it to a person."""
        return self._members['decision']

    # What is predicted; 0 while nothing is known

    @property
    def eta(self):
        return self._members['prediction']['eta']

    @property
    def predicted_total(self):
        return self._members['prediction']['total']

    @property
    def predicted_downtime(self):
        return self._members['prediction']['downtime']

    @property
    def downtime_reachable(self):
        return self._members['prediction']['downtime-reachable']

    # The bound

    @property
    def bound_reachable(self):
        """True as well if there is no bound."""
        return self._bound.get('reachable', True)

    @property
    def slack(self):
        """Bound less predicted total; None: there is no bound."""
        return self._bound.get('slack')

    @property
    def _bound(self):
        return self._members.get('bound', {})

    # Link and guest

    @property
    def bandwidth(self):
        """On the wire, as the planner has measured it; 0: not known."""
        return self._members['bandwidth']

    @property
    def dirty_rate(self):
        return self._members['guest']['dirty-rate']

    @property
    def guest_speed(self):
        return self._members['guest']['speed']

    @property
    def lost_work(self):
        return self._members['guest']['lost-work']

    # RAM

    @property
    def mtx_bytes(self):
        return self._members['ram']['mtx']

    @property
    def dtx_bytes(self):
        return self._members['ram']['dtx']

    @property
    def stop_bytes(self):
        return self._members['ram']['stop']

    @property
    def resent_bytes(self):
        return self._members['ram']['resent']

    @property
    def skipped_bytes(self):
        return self._members['ram']['skipped']

    @property
    def epochs(self):
        """How many there were."""
        return self._members['epochs']['count']

    # Over-commit

    @property
    def overcommit_cpus(self):
        """Host CPUs for all vCPUs; None: as many as ever."""
        return self._overcommit.get('cpus')

    @property
    def overcommit_by_event(self):
        """Whether somebody else than QEMU has to place the vCPUs."""
        return self._overcommit.get('method') == 'event'

    @property
    def _overcommit(self):
        return self._members.get('overcommit', {})

    # After the end

    def downtime_parts(self):
        """(what, microseconds) for each part, in the order of time."""
        parts = self._members['downtime']
        return [('stopping', parts['vm-stop']), ('dirty log', parts['sync']),
                ('RAM', parts['ram']), ('held', parts['hold']),
                ('devices', parts['device']), ('disks', parts.get('disks', 0)),
                ('switchover', parts['switchover'])]


    # Of post-copy; None: it has not come to that

    @property
    def postcopy_owed(self):
        return self._members.get('postcopy', {}).get('owed')

    @property
    def postcopy_time(self):
        return self._members.get('postcopy', {}).get('time')

    @property
    def postcopy_requests(self):
        return self._members.get('postcopy', {}).get('requests')

    @property
    def postcopy_downtime(self):
        us = self._members.get('postcopy', {}).get('downtime')
        return None if us is None else us / 1000

    # Of a checkpoint

    @property
    def checkpoint_method(self):
        """How RAM was kept; None: this is no checkpoint, or not yet."""
        return self._members.get('checkpoint', {}).get('method')

    @property
    def copied_bytes(self):
        """None: this is no checkpoint, or not yet."""
        return self._members.get('checkpoint', {}).get('copied')

    @property
    def generation(self):
        """Its identity, if it can be a parent."""
        return self._members.get('checkpoint', {}).get('generation')

    @property
    def parent(self):
        """The identity of the one that it has the changes of; None: it is
        whole."""
        return self._members.get('checkpoint', {}).get('parent')

    @property
    def full_reason(self):
        """Why it is whole although a parent was given."""
        return self._members.get('checkpoint', {}).get('full-reason')

    @property
    def disks_switched(self):
        """The disks are on the overlays."""
        return self._members.get('checkpoint', {}).get('disks-switched', False)

    @property
    def checkpoint_note(self):
        """Why no better method was used; None: there is nothing to say."""
        return self._members.get('checkpoint', {}).get('note')


class Ram:
    """Member "ram" of an answer, as for every migration."""

    def __init__(self, members):
        self._members = members

    @property
    def total(self):
        return self._members['total']

    @property
    def transferred(self):
        """On the wire."""
        return self._members['transferred']

    @property
    def remaining(self):
        return self._members['remaining']

    @property
    def round(self):
        """How often the dirty log was synced."""
        return self._members['dirty-sync-count']


class Status:
    """One answer of query-migrate; @answer is {} if there was none."""

    def __init__(self, answer):
        self.answer = answer

    def __bool__(self):
        return bool(self.answer)

    @property
    def status(self):
        return self.answer.get('status', 'none')

    @property
    def final(self):
        """Nothing is under way."""
        return self.status in ('none', *FINAL)

    @property
    def error(self):
        return self.answer.get('error-desc')

    @property
    def total_ms(self):
        """Since the start; None: not known."""
        return self.answer.get('total-time')

    @property
    def downtime_ms(self):
        """In post-copy QEMU's own figure is another one."""
        by_postcopy = self.tlm and self.tlm.postcopy_downtime
        return self.answer['downtime'] if by_postcopy is None else by_postcopy

    @property
    def by_postcopy(self):
        """The guest is at the destination, and a part of its RAM here."""
        return self.status.startswith('postcopy-')

    @property
    def paused(self):
        """The network has failed in post-copy."""
        return self.status in ('postcopy-paused', 'postcopy-recover-setup')

    @property
    def ram(self):
        """None: not yet there."""
        return Ram(self.answer['ram']) if 'ram' in self.answer else None

    @property
    def tlm(self):
        """None: this is no migration by TLM, or not yet."""
        return Tlm(self.answer['tlm']) if 'tlm' in self.answer else None

    @property
    def without_tlm(self):
        """It is under way, or over, and it is not by TLM."""
        return self.status in ('active', 'completed') and \
            self.ram is not None and self.tlm is None


# Events, which tell the same without being asked

def status_told(event):
    """None: it is not about that."""
    data = event.get('data', {})
    return data['status'] if event['event'] == 'MIGRATION' else None


def stage_told(event):
    data = event.get('data', {})
    return data['stage'] if event['event'] == 'MIGRATION_TLM_STAGE' else None
