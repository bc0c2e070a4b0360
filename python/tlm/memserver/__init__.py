# SPDX-License-Identifier: GPL-2.0-or-later
"""tlm-memserver, as its clients see it."""
