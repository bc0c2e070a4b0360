#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""scripts/prepare-qemu, fetch-qemu, count-changes on a miniature source."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))

CORE = ''.join(f'line {i}\n' for i in range(1, 41))

GOOD = '''\
--- a/migration/core.c
+++ b/migration/core.c
@@ -18,7 +18,8 @@ context
 line 18
 line 19
 line 20
-line 21
+line 21, changed
+line 21a
 line 22
 line 23
 line 24
'''

SECOND = '''\
--- a/migration/core.c
+++ b/migration/core.c
@@ -19,7 +19,7 @@ context
 line 19
 line 20
 line 21, changed
-line 21a
+line 21b
 line 22
 line 23
 line 24
--- /dev/null
+++ b/migration/added.c
@@ -0,0 +1 @@
+new
'''

# As another release might have it: the hunk fits line 18 of CORE but for the
# outermost line of its context, which patch overlooks unless told not to.
FUZZY = GOOD.replace(' line 18\n', ' line 18 of another function\n')

BAD = '''\
--- a/migration/core.c
+++ b/migration/core.c
@@ -2,3 +2,3 @@ context
 line 2
-line 3
+line 3, changed
 line 4
@@ -30,3 +30,3 @@ context
 nothing like it
-nor this
+changed
 nor that
'''


def script(name, *args, **env):
    return subprocess.run([os.path.join(ROOT, 'scripts', name), *args],
                          capture_output=True, text=True, check=False,
                          env={**os.environ, **env})


class Case(unittest.TestCase):
    def setUp(self):
        self.tmp = tempfile.mkdtemp(prefix='tlm-test-')
        self.addCleanup(shutil.rmtree, self.tmp)
        self.source = self.make_source('10.0.13')

    def make_source(self, version):
        top = os.path.join(self.tmp, f'qemu-{version}')
        for name, text in {
                'VERSION': version + '\n',
                'migration/core.c': CORE,
                'migration/other.c': 'other\n',
                'tests/qtest/migration/framework.c': 'framework\n',
                'tests/unit/meson.build': 'tests\n',
                'docs/devel/migration/index.rst': 'index\n',
                'pc-bios/meson.build': "fds = ['edk2-x86_64-code.fd']\n",
                'qapi/migration.json': "##\n# doc\n##\n{ 'a': 1 }\n",
        }.items():
            path = os.path.join(top, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, 'w', encoding='utf-8') as f:
                f.write(text)
        tarball = os.path.join(self.tmp, f'qemu-{version}.tar.xz')
        with tarfile.open(tarball, 'w:xz') as tar:
            tar.add(top, arcname=f'qemu-{version}')
        shutil.rmtree(top)
        return tarball

    def series(self, **patches):
        directory = os.path.join(self.tmp, 'patches')
        os.makedirs(directory, exist_ok=True)
        with open(os.path.join(directory, 'series'), 'w',
                  encoding='utf-8') as f:
            for name, text in patches.items():
                f.write(f'{name}.patch  # a comment\n')
                with open(os.path.join(directory, name + '.patch'), 'w',
                          encoding='utf-8') as p:
                    p.write(text)
        return os.path.join(directory, 'series')

    def prepare(self, series=None, source=None):
        args = ['--source', source or self.source, '--tree', self.tree()]
        if series:
            args += ['--series', series]
        return script('prepare-qemu', *args)

    def tree(self, *names):
        return os.path.join(self.tmp, 'build', 'tree', 'tlm', *names)

    def read(self, name):
        with open(self.tree('src', name), encoding='utf-8') as f:
            return f.read()

    def mtime(self, name):
        return os.stat(self.tree('src', name)).st_mtime_ns


class Prepare(Case):
    def test_applies_in_order(self):
        run = self.prepare(self.series(a=GOOD, b=SECOND))
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn('line 21, changed\nline 21b\nline 22\n',
                      self.read('migration/core.c'))
        self.assertEqual(self.read('migration/added.c'), 'new\n')
        self.assertEqual(os.path.realpath(self.tree('src/migration/tlm')),
                         os.path.join(ROOT, 'migration', 'tlm'))

    def test_stock_is_pristine(self):
        run = self.prepare()
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(self.read('migration/core.c'), CORE)
        self.assertFalse(os.path.lexists(self.tree('src/migration/tlm')))

    def test_edk2_stand_in_is_an_empty_archive(self):
        self.prepare()
        run = subprocess.run(
            ['bzip2', '-dc',
             self.tree('src/pc-bios/edk2-x86_64-code.fd.bz2')],
            capture_output=True, check=False)
        self.assertEqual((run.returncode, run.stdout), (0, b''))

    def test_second_run_does_nothing(self):
        series = self.series(a=GOOD)
        self.prepare(series)
        before = {name: self.mtime(name) for name in
                  ('migration/core.c', 'migration/other.c', '.')}
        run = self.prepare(series)
        self.assertEqual((run.returncode, run.stderr), (0, ''))
        self.assertEqual(before, {name: self.mtime(name) for name in before})

    def test_changed_series_touches_only_what_changes(self):
        self.prepare(self.series(a=GOOD, b=SECOND))
        # coarse file systems: make sure that a write would show
        old = time.time() - 100
        for name in ('migration/core.c', 'migration/other.c',
                     'migration/added.c'):
            os.utime(self.tree('src', name), (old, old))
        core, other, added = map(self.mtime, (
            'migration/core.c', 'migration/other.c', 'migration/added.c'))
        run = self.prepare(self.series(
            a=GOOD, b=SECOND.replace('21b', '21c')))
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn('line 21c', self.read('migration/core.c'))
        self.assertNotEqual(self.mtime('migration/core.c'), core)
        self.assertEqual(self.mtime('migration/other.c'), other)
        self.assertEqual(self.mtime('migration/added.c'), added)

    def test_removed_patch_is_undone(self):
        self.prepare(self.series(a=GOOD, b=SECOND))
        run = self.prepare(self.series(a=GOOD))
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertNotIn('21b', self.read('migration/core.c'))
        self.assertFalse(os.path.exists(self.tree('src/migration/added.c')))
        run = self.prepare(self.series())
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(self.read('migration/core.c'), CORE)

    def test_failing_patch_names_patch_and_hunk(self):
        run = self.prepare(self.series(a=GOOD, bad=BAD))
        self.assertEqual(run.returncode, 1)
        self.assertIn('bad.patch does not apply', run.stderr)
        self.assertIn('migration/core.c: Hunk #2 FAILED', run.stderr)
        self.assertNotIn('Hunk #1', run.stderr)
        self.assertFalse(os.path.exists(self.tree('src')))

    def test_failing_patch_leaves_a_good_tree_alone(self):
        self.prepare(self.series(a=GOOD))
        before = self.read('migration/core.c')
        run = self.prepare(self.series(a=GOOD, bad=BAD))
        self.assertEqual(run.returncode, 1)
        self.assertIn('Hunk #2 FAILED', run.stderr)
        self.assertEqual(self.read('migration/core.c'), before)
        run = self.prepare(self.series(a=GOOD, b=SECOND))
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn('line 21b', self.read('migration/core.c'))

    def test_context_must_match_whole(self):
        for text in (FUZZY, GOOD.replace(' line 24\n', ' line 240\n')):
            run = self.prepare(self.series(a=text))
            self.assertEqual(run.returncode, 1, 'applied with fuzz')
            self.assertIn('a.patch does not apply', run.stderr)
            self.assertIn('migration/core.c: Hunk #1 FAILED', run.stderr)
            self.assertFalse(os.path.exists(self.tree('src')))

    def test_context_must_match_when_the_series_changes(self):
        self.prepare(self.series(a=GOOD))
        before = self.read('migration/core.c')
        run = self.prepare(self.series(a=FUZZY))
        self.assertEqual(run.returncode, 1, 'applied with fuzz')
        self.assertEqual(self.read('migration/core.c'), before)

    def test_hunk_may_have_moved(self):
        run = self.prepare(self.series(
            a=GOOD.replace('@@ -18,7 +18,8 @@', '@@ -12,7 +12,8 @@')))
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn('line 21a', self.read('migration/core.c'))

    def test_patch_for_a_missing_file(self):
        run = self.prepare(self.series(
            a=GOOD.replace('core.c', 'gone.c')))
        self.assertEqual(run.returncode, 1)
        self.assertIn('a.patch does not apply', run.stderr)
        self.assertIn('gone.c', run.stderr)

    def test_patch_applied_twice(self):
        run = self.prepare(self.series(a=GOOD, again=GOOD))
        self.assertEqual(run.returncode, 1)
        self.assertIn('again.patch does not apply', run.stderr)

    def test_series_names_missing_patch(self):
        series = self.series(a=GOOD)
        os.unlink(os.path.join(os.path.dirname(series), 'a.patch'))
        run = self.prepare(series)
        self.assertEqual(run.returncode, 1)
        self.assertIn("names 'a.patch'", run.stderr)

    def test_source_tree_instead_of_tarball(self):
        self.prepare()
        tree = os.path.join(self.tmp, 'mytree')
        os.rename(self.tree('src'), tree)
        run = self.prepare(self.series(a=GOOD), source=tree)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn('line 21a', self.read('migration/core.c'))
        run = self.prepare(self.series(a=GOOD, b=SECOND), source=tree)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn('line 21b', self.read('migration/core.c'))
        with open(os.path.join(tree, 'migration/core.c'),
                  encoding='utf-8') as f:
            self.assertEqual(f.read(), CORE)


class CountChanges(Case):
    def test_counts(self):
        qapi = ('--- a/qapi/migration.json\n+++ b/qapi/migration.json\n'
                "@@ -1,4 +1,6 @@\n ##\n # doc\n+# more\n ##\n-{ 'a': 1 }\n"
                "+{ 'a': 1,\n+  'b': 2 }\n")
        test = ('--- a/tests/qtest/migration/framework.c\n'
                '+++ b/tests/qtest/migration/framework.c\n'
                '@@ -1 +1,2 @@\n framework\n+more\n')
        run = self.prepare(self.series(a=GOOD, b=SECOND, c=qapi, d=test))
        self.assertEqual(run.returncode, 0, run.stderr)
        run = script('count-changes', '--json',
                     TLM_BUILD=os.path.join(self.tmp, 'build'))
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(json.loads(run.stdout)['total'], {
            'code': [4, 2], 'QAPI documentation': [1, 0],
            'documentation': [0, 0], 'tests': [1, 0]})


class Fetch(Case):
    def fetch(self, *args):
        return script('fetch-qemu', '--offline', *args,
                      TLM_CACHE=os.path.join(self.tmp, 'cache'))

    def test_local_tarball(self):
        run = self.fetch('--source', self.source)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(run.stdout.strip(), self.source)
        self.assertIn('checksum not known', run.stderr)

    def test_wrong_version(self):
        run = self.fetch('--source', self.make_source('9.2.4'))
        self.assertEqual((run.returncode, run.stdout), (1, ''))
        self.assertIn('is QEMU 9.2.4: the series is for 10.0.x and 10.2.x', run.stderr)

    def test_not_the_version_asked_for(self):
        run = self.fetch('--source', self.source, '--version', '10.0.2')
        self.assertEqual(run.returncode, 1)
        self.assertIn('version 10.0.2 was asked for', run.stderr)

    def test_unsupported_version(self):
        run = self.fetch('--version', '10.1.0')
        self.assertEqual(run.returncode, 1)
        self.assertIn('not supported', run.stderr)

    def test_not_a_source(self):
        path = os.path.join(self.tmp, 'x.tar.xz')
        with tarfile.open(path, 'w:xz') as tar:
            tar.add(__file__, arcname='x/y')
        run = self.fetch('--source', path)
        self.assertEqual(run.returncode, 1)
        self.assertIn('has no file VERSION', run.stderr)

    def test_damaged_download(self):
        dist = os.path.join(self.tmp, 'cache', 'dist')
        os.makedirs(dist)
        shutil.copy(self.source,
                    os.path.join(dist, 'qemu_10.0.13+ds.orig.tar.xz'))
        run = self.fetch('--version', '10.0.13')
        self.assertEqual((run.returncode, run.stdout), (1, ''))
        self.assertIn('damaged or has been tampered with', run.stderr)

    def test_nothing_cached_and_offline(self):
        run = self.fetch()
        self.assertEqual(run.returncode, 1)
        self.assertIn('not in the cache', run.stderr)

    def test_no_network(self):
        # Port 9 of the loopback address answers with a refusal.
        run = script('fetch-qemu', '--mirror', 'http://127.0.0.1:9/debian',
                     TLM_CACHE=os.path.join(self.tmp, 'cache'))
        self.assertEqual((run.returncode, run.stdout), (1, ''))
        self.assertIn('no network', run.stderr)


class TimeIsUp(Case):
    def run_late(self, *command):
        return subprocess.run(
            [os.path.join(ROOT, command[0]), *command[1:]], check=True,
            capture_output=True, text=True,
            env={**os.environ, 'TLM_TEST_UNTIL': '1'}).stdout

    def test_unittest(self):
        path = os.path.join(self.tmp, 'test_late.py')
        with open(path, 'w', encoding='utf-8') as f:
            f.write('import unittest\n\n\n'
                    'class Late(unittest.TestCase):\n'
                    '    def test_fails(self):\n'
                    '        self.fail()\n')
        self.assertRegex(self.run_late('tests/lib/run-unittest', path),
                         'ok 1 - test_late.Late.test_fails # SKIP no time')

    def test_migration_test(self):
        self.assertRegex(
            self.run_late('tests/qtest/run-migration-test', 'smoke'),
            r'1\.\.0 # SKIP no time')


class Summary(Case):
    def summary(self, *tests, status=0, steps=()):
        log = os.path.join(self.tmp, 'testlog.json')
        with open(log, 'w', encoding='utf-8') as f:
            for name, result, out in tests:
                f.write(json.dumps({'name': name, 'result': result,
                                    'returncode': 0, 'stdout': out}) + '\n')
        run = subprocess.run(
            [sys.executable,
             os.path.join(ROOT, 'scripts/lib/test-summary'), log,
             str(status), *steps],
            capture_output=True, text=True, check=False)
        return run.returncode, run.stdout.splitlines()

    def test_cases_are_counted(self):
        rc, out = self.summary(
            ('a', 'OK', 'TAP version 13\n1..3\nok 1 /x\n# ok is a word\n'
                        'ok 2 - y # SKIP no root\nok 3 /z\n'),
            ('b', 'OK', 'ok 1 - one\n1..1\n'))
        self.assertEqual(rc, 0)
        self.assertEqual(out[-1], '3 passed, 0 failed, 1 skipped')
        self.assertIn('no root', out[0])

    def test_failures(self):
        rc, out = self.summary(
            ('a', 'FAIL', '1..2\nok 1 /x\nnot ok 2 /y\n'),
            ('crash', 'FAIL', '1..2\nok 1 /x\n'),
            ('slow', 'TIMEOUT', ''), status=1)
        self.assertEqual(rc, 1)
        self.assertEqual(out[-1], '2 passed, 3 failed, 0 skipped')

    def test_why_it_failed(self):
        """What a log says at its end must be enough where only that is kept."""
        rc, out = self.summary(('a', 'FAIL', 'ok 1 x\n# took 1 s\nnot ok 2 y\n'
                                '# took 2 s\n# Traceback:\n'
                                '#   File "a.py", line 2, in y\n'
                                '#     self.fail()\n#\n# AssertionError: cold\n'
                                + '# more\n' * 99 + 'ok 3 z\n'), status=1)
        self.assertEqual(rc, 1)
        self.assertEqual(out[:4], ['FAILED: a: y', '      self.fail()',
                                   '  AssertionError: cold', '  more'])
        self.assertLess(len(out), 20)

    def test_skipped_program(self):
        rc, out = self.summary(('a', 'SKIP', '1..0 # SKIP no kvm\n'),
                               ('b', 'OK', 'ok 1 x\n'))
        self.assertEqual(rc, 0)
        self.assertEqual(out[-1], '1 passed, 0 failed, 1 skipped')

    def test_failed_step(self):
        rc, out = self.summary(('b', 'OK', 'ok 1 x\n'),
                               steps=['the build of libvirt'])
        self.assertEqual((rc, out), (1, ['FAILED: the build of libvirt',
                                         '1 passed, 1 failed, 0 skipped']))

    def test_killed_in_the_middle(self):
        rc, out = self.summary(('b', 'OK', 'ok 1 x\n'), status=137)
        self.assertEqual(rc, 1)
        self.assertEqual(out[-1], '1 passed, 1 failed, 0 skipped')

    def test_nothing_run_is_a_failure(self):
        self.assertEqual(self.summary()[0], 1)


if __name__ == '__main__':
    unittest.main()
