#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""QAPI's enums of the state of a TLM migration, and the tables of names and
sentences elsewhere that the compiler cannot compare with them."""

import glob
import os
import re
import unittest

from tlm import decisions

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), '../..'))
TLM = os.path.join(ROOT, 'migration/tlm')


def read(path):
    with open(path, encoding='utf-8') as f:
        return f.read()


def enum(name):
    """Its values, in order."""
    values = re.search(rf"'enum': '{name}',\s*'data': \[([^\]]*)\]",
                       read(os.path.join(ROOT, 'qapi/migration-tlm.json')))
    return re.findall(r"'([\w-]+)'", values[1])


class Decisions(unittest.TestCase):
    def test_each_has_a_sentence(self):
        self.assertEqual(list(decisions.TEXTS), enum('MigrationTlmDecision'))
        for name, text in decisions.TEXTS.items():
            self.assertEqual(decisions.text(name), text)
            self.assertTrue(text)
        self.assertEqual(len(set(decisions.TEXTS.values())),
                         len(decisions.TEXTS))

    def test_same_as_hmp(self):
        """What a person reads does not depend on who says it."""
        texts = {name.lower().replace('_', '-'): text for name, text in
                 re.findall(r'\[TLM_PLAN_REASON_(\w+)\] =\s*"([^"]*)"',
                            read(os.path.join(TLM, 'planner/reason.c')))}
        self.assertTrue(texts.pop('estimate'))      # of the dry run
        self.assertEqual(decisions.TEXTS, texts)

    def test_unknown(self):
        self.assertEqual(decisions.text('of-the-future'), 'of-the-future')


class Methods(unittest.TestCase):
    def test_each_backend_is_in_the_enum(self):
        """QEMU would abort on one that is not."""
        names = {name for path in
                 glob.glob(os.path.join(TLM, 'overcommit/*.c'))
                 for name in re.findall(r'^    \.name = "([\w-]+)"',
                                        read(path), re.M)}
        self.assertEqual(names | {'throttle', 'event'},
                         set(enum('MigrationTlmOvercommitMethodInUse')))


if __name__ == '__main__':
    unittest.main()
