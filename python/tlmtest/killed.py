# Kill at each system call of a command that changes a file: the command, or
# somebody else
#
# SPDX-License-Identifier: GPL-2.0-or-later

import contextlib
import fcntl
import os
import signal

# What is on the disk, or in the directory, can be another after each of them
WRITES = ((os, 'open'), (os, 'rename'), (os, 'unlink'), (os, 'fsync'),
          (os, 'ftruncate'), (os, 'pwrite'), (os, 'copy_file_range'),
          (os, 'mkdir'), (fcntl, 'ioctl'))
KILLED = 9


def _in_a_child(what, on_write):
    """Does what(); on_write() comes before each of its writes.  Returns the
    exit status: 0, 1 if it has failed, or what on_write() ends it with."""
    pid = os.fork()
    if not pid:
        def watched(real):
            def call(*args, **kwargs):
                on_write()
                return real(*args, **kwargs)
            return call
        for module, name in WRITES:
            setattr(module, name, watched(getattr(module, name)))
        with contextlib.suppress(BaseException):
            what()
            os._exit(0)
        os._exit(1)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def writes_of(what):
    """How many it makes; nobody is killed."""
    reader, writer = os.pipe()
    write = os.write
    code = _in_a_child(what, lambda: write(writer, b'.'))
    os.close(writer)
    with open(reader, 'rb') as f:
        number = len(f.read())
    if code:
        raise AssertionError(f'it has failed (status {code})')
    return number


def at_write(number, what, victim=None):
    """Before its write of that number, what() or @victim, a process, is
    killed.  Returns whether it came that far; else it must succeed."""
    reader, writer = os.pipe()
    write, left = os.write, number

    def on_write():
        nonlocal left
        left -= 1
        if not left:
            write(writer, b'.')
            if victim is None:
                os._exit(KILLED)
            os.kill(victim, signal.SIGKILL)
    code = _in_a_child(what, on_write)
    os.close(writer)
    with open(reader, 'rb') as f:
        came = bool(f.read())
    if code not in ((0, 1, KILLED) if came else (0,)):
        raise AssertionError(f'it has failed without a kill (status {code})')
    return came
