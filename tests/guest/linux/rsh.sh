#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# For mpiexec: run a command on another guest, which executes what comes on
# port 514 (run.sh). Usage: rsh.sh HOST COMMAND...

host=$1
shift
echo "exec $*" | exec nc "$host" 514
