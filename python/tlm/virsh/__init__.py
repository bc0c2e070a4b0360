# SPDX-License-Identifier: GPL-2.0-or-later
"""tlm virsh-migrate: migrations of libvirt's domains, by virsh."""
