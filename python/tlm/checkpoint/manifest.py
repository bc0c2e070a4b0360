# SPDX-License-Identifier: GPL-2.0-or-later
"""The manifest of a checkpoint: what is known of it, as a file of JSON.

It has a checksum of its own: of what it says, with sorted keys, without
spaces, and without the checksum.
"""

import hashlib
import json

from ..errors import MigrateError
from . import checksums, durable

FORMAT = 2
SHA256_ONLY = 1                 # the format before


class BadManifest(MigrateError):
    """It cannot be read, or says what cannot be."""


def _sum(content):
    text = json.dumps(content, sort_keys=True, separators=(',', ':'))
    return hashlib.sha256(text.encode()).hexdigest()


def of_file(stat, of_chunks):
    """What is said of the checkpoint's file."""
    return {'size': stat.st_size, 'allocated': stat.st_blocks * 512,
            'chunk': checksums.CHUNK, 'block': checksums.BLOCK,
            'algorithm': checksums.FASTEST, 'sums': of_chunks}


def sums(content):
    """(algorithm, checksums) of the file."""
    file = content['file']
    if content['format'] == SHA256_ONLY:
        return 'sha256', file['sha256']
    return file['algorithm'], file['sums']


def write(path, content):
    """Returns @content as it is in the file."""
    content = {'format': FORMAT, **content}
    content['checksum'] = _sum(content)
    durable.write(path, json.dumps(content, indent=2) + '\n')
    return content


def _check(content):
    if not isinstance(content, dict):
        raise BadManifest('the manifest is no object')
    if content.get('format') not in (SHA256_ONLY, FORMAT):
        raise BadManifest(f"the manifest's format is {content.get('format')}"
                          f', not {FORMAT} or {SHA256_ONLY}')
    bare = {k: v for k, v in content.items() if k != 'checksum'}
    if content.get('checksum') != _sum(bare):
        raise BadManifest('the manifest is not as it was written')


def check_file(content):
    file = content['file']
    algorithm, of_chunks = sums(content)
    if (file['chunk'], file['block']) != (checksums.CHUNK, checksums.BLOCK) \
            or algorithm not in checksums.ALGORITHMS \
            or len(of_chunks) != -(-file['size'] // checksums.CHUNK):
        raise BadManifest("the manifest's checksums are not those of the "
                          'file')


def read(path, check=check_file):
    """@check: raises an exception if it says what cannot be."""
    try:
        with open(path, encoding='utf-8') as f:
            content = json.load(f)
        _check(content)
        check(content)
    except OSError as e:
        raise BadManifest(f'the manifest cannot be read: {e.strerror}') \
            from None
    except (ValueError, KeyError, TypeError) as e:
        raise BadManifest(f'the manifest cannot be read: {e}') from None
    return content
