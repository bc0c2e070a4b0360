#!/usr/bin/python3
#
# virsh migrate --tlm: patches/libvirt at the source, and at the destination
# neither these nor TLM's QEMU
#
# Needs the libvirt that scripts/build-libvirt has built, or another one in
# TLM_LIBVIRT_PATCHED; TLM_LIBVIRT, TLM_LIBVIRT_B: see tlmtest/virt.py.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import os
import unittest

import test_libvirt
from test_libvirt import DIRECT, FAST, P2P, HOLD
from tlmtest import env, virt
from tlmtest.vm import wait_until

PATCHED = os.environ.get('TLM_LIBVIRT_PATCHED',
                         os.path.join(env.BUILD, 'libvirt/install'))
TLM = ('--live', '--parallel', '--tlm')


def setUpModule():
    if not os.access(os.path.join(PATCHED, 'usr/sbin/libvirtd'), os.X_OK):
        raise unittest.SkipTest(
            f'no libvirtd in {PATCHED} (scripts/build-libvirt makes it)')
    unpatched = virt.libvirt_roots()[1]
    os.environ.update(TLM_LIBVIRT=PATCHED, TLM_LIBVIRT_B=unpatched)
    virt.libvirt_roots.cache_clear()
    reason = env.missing_qemu(env.QEMU, env.STOCK_QEMU) or \
        virt.missing_libvirt()
    if reason:
        raise unittest.SkipTest(reason)
    test_libvirt.pair = virt.Pair(rate=FAST)


def tearDownModule():
    if test_libvirt.pair:
        test_libvirt.pair.close()


def statistics(host, domain, *options):
    """What domjobinfo has to say, or {} if that is nothing."""
    out = host.virsh('domjobinfo', domain.name, '--rawstats', *options,
                     check=False) or ''
    return dict(line.split(': ', 1) for line in out.splitlines()
                if ': ' in line)


class Virsh:
    """virsh migrate, of domains as the other tests of libvirt have them."""

    def virsh_migrate(self, domain, *options):
        """(exit status, output)"""
        return self.end(self.begin_virsh(domain, *options))

    def begin_virsh(self, domain, *options):
        return self.run_at(self.a, 'virsh', 'migrate', *options,
                           *test_libvirt.ALWAYS, '--persistent', domain.name,
                           self.b.uri)

    def parameters(self, domain):
        return self.settings(domain, self.a)[1]

    def tlm_is_on(self, domain):
        return {'capability': 'tlm', 'state': True} in \
            self.settings(domain, self.a)[0]


class Completed(Virsh, test_libvirt.VirtCase):
    def migrate(self, *mode):
        domain = self.start(self.a)
        before = self.parameters(domain)
        test_libvirt.pair.link.set_rate(HOLD)
        p = self.begin_virsh(
            domain, *TLM, *mode, '--tlm-bound', '3000', '--tlm-bound-action',
            'cancel', '--tlm-converge', 'auto', '--tlm-overcommit',
            '0.01-(1),0.555-(2)')
        self.wait_stage(domain, self.a, 'live', p)
        self.assertTrue(self.tlm_is_on(domain))
        changed = {k: v for k, v in self.parameters(domain).items()
                   if v != before[k] and k.startswith('tlm-')}
        self.assertEqual(changed, {
            'tlm-time-bound': 3000000, 'tlm-bound-action': 'cancel',
            'tlm-converge': 'auto',
            'tlm-overcommit': [{'progress': 1, 'cpus': 1},
                               {'progress': 55.5, 'cpus': 2}]})
        self.look_at_job(domain)
        test_libvirt.pair.link.set_rate(FAST)
        code, out = self.end(p)
        self.assertEqual(code, 0, out)
        self.assert_lives_at(domain, self.b)
        done = statistics(self.a, domain, '--completed')
        self.assertEqual(done['tlm_stage'], 'done')
        self.assertEqual(done['tlm_eta'], '0')
        self.assertIn('downtime', done)
        domain.close()

    def look_at_job(self, domain):
        def complete():
            """Over-commit has begun, and the planner knows enough."""
            job = statistics(self.a, domain)
            known = all(float(job.get(f'tlm_{name}', 0)) > 0 for name in (
                'overcommit', 'progress', 'eta', 'downtime', 'slack'))
            return job if known else None
        job = wait_until(complete, 60, 'all statistics are known')
        self.assertEqual(job['tlm_stage'], 'live')
        self.assertEqual(job['tlm_overcommit'], '1')
        shown = self.a.virsh('domjobinfo', domain.name)
        for line in (r'stage: +live', r'progress: +[\d.]+ %',
                     r'ETA: +\d+ +ms', r'predicted downtime: +\d+ +ms',
                     r'slack: +\d+ +ms', r'over-commit: +1 +host CPUs'):
            self.assertRegex(shown, 'TLM ' + line)

    def test_p2p(self):
        self.migrate(*P2P)

    def test_client(self):
        """The client passes neither flag nor parameters on."""
        self.migrate(*DIRECT)

    def test_tls(self):
        domain = self.start(self.a)
        code, out = self.virsh_migrate(domain, *TLM, *P2P, '--tls')
        self.assertEqual(code, 0, out)
        self.assert_lives_at(domain, self.b)

    def test_without(self):
        """What libvirt does without --tlm is not TLM."""
        domain = self.start(self.a)
        code, out = self.virsh_migrate(domain, '--live', '--parallel', *P2P)
        self.assertEqual(code, 0, out)
        self.assert_lives_at(domain, self.b)
        done = statistics(self.a, domain, '--completed')
        self.assertIn('downtime', done)
        self.assertEqual([k for k in done if 'tlm' in k], [])


class Ended(Virsh, test_libvirt.AtHome):
    """Migrations that do not complete: QEMU's settings are as before."""

    def setUp(self):
        super().setUp()
        # Not QEMU's defaults, so that these cannot be taken for them
        self.a.qmp(self.domain.name, 'migrate-set-parameters',
                   tlm_time_bound=77777, tlm_bound_action='cancel',
                   tlm_overcommit=[{'progress': 33.3, 'cpus': 1}])
        self.before = self.settings(self.domain, self.a)

    def begin_live(self, *mode):
        p = self.begin_virsh(self.domain, *TLM, *mode, '--tlm-bound', '3000',
                             '--tlm-bound-action', 'complete',
                             '--tlm-overcommit', '0.5-(2)')
        self.wait_stage(self.domain, self.a, 'live', p)
        self.assertNotEqual(self.settings(self.domain, self.a), self.before)
        return p

    def test_aborted(self):
        for mode in (P2P, DIRECT):
            with self.step(mode=mode):
                p = self.begin_live(*mode)
                self.a.virsh('domjobabort', self.domain.name)
                code, out = self.end(p)
                self.assertNotEqual(code, 0)
                self.assertIn('canceled by client', out)
                self.assert_nothing_changed()

    def test_bound_out_of_reach(self):
        code, out = self.virsh_migrate(
            self.domain, *TLM, *P2P, '--tlm-bound', '1',
            '--tlm-bound-action', 'cancel')
        self.assertNotEqual(code, 0)
        self.assertIn('The time bound of 1000 ms cannot be kept', out)
        self.assert_nothing_changed()

    def test_libvirtd_killed(self):
        """The next one finds in the domain's status what to put back."""
        p = self.begin_live(*P2P)
        self.a.kill_libvirtd()
        self.assertNotEqual(self.end(p)[0], 0)
        self.a.start_libvirtd()
        wait_until(lambda: self.settings(self.domain, self.a) == self.before,
                   60, 'libvirtd has recovered the domain')
        self.assert_nothing_changed()


class Refused(Virsh, test_libvirt.AtHome):
    # (options beside --live, what virsh is to say)
    CASES = (
        (['--tlm'], '--parallel is required by option --tlm'),
        (['--parallel', '--tlm-bound', '9'],
         '--tlm is required by option --tlm-bound'),
        (['--postcopy'], 'not supported with post-copy'),
        (['--auto-converge'], 'not supported with auto convergence'),
        (['--rdma-pin-all'], 'not supported with RDMA'),
        (['--migrateuri', 'rdma://192.0.2.1'], 'not supported with RDMA'),
        (['--parallel-connections', '1'], 'at least two parallel'),
        (['--compressed', '--comp-methods', 'xbzrle'], "'xbzrle' isn't"),
        (['--tlm-bound', 'soon'], "'soon' for <tlm-bound>"),
        (['--tlm-bound', '40000000'], 'at most a year'),
        (['--tlm-bound-action', 'abort'], 'accepted values are: complete, '),
        (['--tlm-converge', 'on'], 'accepted values are: none, auto'),
        (['--tlm-overcommit', 'half'], 'not in the form PROGRESS-(CPUS)'),
        (['--tlm-overcommit', '1.5-(2)'], '150 % is not in 0..100'),
        (['--tlm-overcommit', '0.5-(2),0.2-(1)'], 'does not rise'),
    )

    def test_options(self):
        for options, why in self.CASES:
            if options[0] not in ('--tlm', '--parallel'):
                options = ['--parallel', '--tlm', *options]
            for mode in (P2P, DIRECT):
                with self.subTest(options=options, mode=mode):
                    code, out = self.virsh_migrate(self.domain, '--live',
                                                   *mode, *options)
                    self.assertEqual(code, 1, out)
                    self.assertIn(why, out)
                    self.assert_as_before(self.domain, self.a, self.before)
        self.assert_nothing_changed()

    def test_tunnelled(self):
        code, out = self.virsh_migrate(self.domain, *TLM, *P2P, '--tunnelled')
        self.assertEqual(code, 1, out)
        self.assertIn('mutually exclusive', out)
        self.assert_nothing_changed()

    def test_offline(self):
        code, out = self.virsh_migrate(self.domain, '--offline', *P2P,
                                       '--parallel', '--tlm')
        self.assertEqual(code, 1, out)
        self.assertIn('not supported with offline', out)
        self.assert_nothing_changed()


class WithoutTlm(Virsh, test_libvirt.VirtCase):
    def roles(self, source, destination):
        source.use_emulator(env.STOCK_QEMU)
        destination.use_emulator(env.STOCK_QEMU)

    def messages_of_b(self, domain):
        """What libvirt adds to when it starts a QEMU for the domain."""
        path = f'{self.b.dir}/log/qemu/{domain.name}.log'
        return os.path.getsize(path) if os.path.exists(path) else 0

    def test_source_without_tlm(self):
        domain = self.start(self.a)
        before = self.messages_of_b(domain)
        for mode in (P2P, DIRECT):
            with self.step(mode=mode):
                code, out = self.virsh_migrate(domain, *TLM, *mode)
                self.assertEqual(code, 1, out)
                self.assertIn('TLM is not supported by QEMU on the source',
                              out)
        # ... before the destination has started anything
        self.assertEqual(self.messages_of_b(domain), before)
        self.assert_lives_at(domain, self.a)


if __name__ == '__main__':
    unittest.main()
