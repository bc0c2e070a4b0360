# SPDX-License-Identifier: GPL-2.0-or-later
"""tlm checkpoint: what a virtual machine was, in a directory of files."""
