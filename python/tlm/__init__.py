# SPDX-License-Identifier: GPL-2.0-or-later
"""The command "tlm": migrate virtual machines by TLM.

docs/building.md has a map of the modules.
"""

__version__ = '0.1'             # as in meson.build
