# SPDX-License-Identifier: GPL-2.0-or-later
"""tlm cluster: several virtual machines, as they were at one moment."""
