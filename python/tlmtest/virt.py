# Two libvirt hosts on one machine, and domains that live on them
#
# A host is a network namespace and, in it, namespaces for mounts, names, IPC
# and processes, with directories of its own where libvirt keeps its files,
# and a libvirtd.  No systemd, no virtlogd.  Killing the process namespace is
# a crash of the host.  Outside of the namespaces nothing is changed.
#
# TLM_LIBVIRT=DIR: use the libvirt that was unpacked there (DIR/usr/...)
# instead of the system's; TLM_LIBVIRT_B the same for the second host only.
#
# SPDX-License-Identifier: GPL-2.0-or-later

import contextlib
import functools
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import uuid
from xml.sax.saxutils import escape, quoteattr

from . import env
from .guests import linux_files
from .link import ShapedLink
from .vm import VmError, die_with_parent, wait_until, whole_lines

INIT = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'virt-init')
# Where a host has the QEMU of its domains: the same path on both
EMULATOR = '/run/tlm/qemu-system-x86_64'
# A dead peer is noticed after 18 s; 30 by default.  Hardly less than that: it
# must not be what a daemon needs to answer on a busy machine
KEEPALIVE = 'keepalive_interval = 3\nkeepalive_count = 5\n'

LIBVIRTD_CONF = '''
listen_tls = 0
listen_tcp = 1
listen_addr = "{address}"
auth_tcp = "none"
auth_unix_rw = "none"
host_uuid = "{uuid}"
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
''' + KEEPALIVE

QEMU_CONF = '''
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
migration_address = "{address}"
migration_host = "{address}"
migrate_tls_x509_cert_dir = "/etc/libvirt/tls"
migrate_tls_x509_verify = 1
''' + KEEPALIVE


def _run(*command, **kwargs):
    p = subprocess.run(command, capture_output=True, text=True, **kwargs)
    if p.returncode:
        raise VmError(f"{' '.join(command)}: {p.stderr.strip()}")
    return p.stdout


@functools.lru_cache(maxsize=None)
def libvirt_roots():
    """Where each host's libvirt is: '' for the system's."""
    root = os.environ.get('TLM_LIBVIRT', '')
    if not root and not os.path.exists('/usr/sbin/libvirtd'):
        fetch = os.path.join(env.ROOT, 'scripts/fetch-tools')
        p = subprocess.run([fetch, 'libvirt'], capture_output=True, text=True)
        root = p.stdout.strip()     # nothing, if that is not to be had
    return root, os.environ.get('TLM_LIBVIRT_B', root)


def missing_libvirt():
    """Why there can be no libvirt hosts here, or None."""
    for root in libvirt_roots():
        for tool, package in (('sbin/libvirtd', 'libvirt-daemon'),
                              ('bin/virsh', 'libvirt-clients')):
            if not any(os.access(f'{top}/usr/{tool}', os.X_OK)
                       for top in {root, ''}):
                return f'no /usr/{tool} (package {package})'
    return ShapedLink.missing() or _missing_namespaces()


def _missing_namespaces():
    p = subprocess.run(
        ['unshare', '--mount', '--uts', '--ipc', '--pid', '--fork',
         '--kill-child', '--mount-proc', 'mount', '--bind', '/tmp', '/mnt'],
        capture_output=True, text=True)
    if p.returncode:
        return f'no namespaces here: {p.stderr.strip()}'
    return None


def make_certificates(directory, addresses):
    """A CA, and below @directory for each name of @addresses a directory with
    what libvirt wants to find in its migrate_tls_x509_cert_dir."""
    def certtool(*args):
        _run('certtool', *args, cwd=directory)

    def write(name, *lines):
        with open(os.path.join(directory, name), 'w') as f:
            f.write('\n'.join(lines) + '\n')

    if not shutil.which('certtool'):
        raise VmError('no certtool (package gnutls-bin)')
    certtool('--generate-privkey', '--ecc', '--outfile', 'ca-key.pem')
    write('ca.info', 'cn = "TLM test CA"', 'ca', 'cert_signing_key',
          'expiration_days = 2')
    certtool('--generate-self-signed', '--load-privkey', 'ca-key.pem',
             '--template', 'ca.info', '--outfile', 'ca-cert.pem')
    for name, address in addresses.items():
        os.mkdir(os.path.join(directory, name))
        shutil.copy(os.path.join(directory, 'ca-cert.pem'),
                    os.path.join(directory, name))
        for side in ('server', 'client'):
            base = f'{name}/{side}'
            write(f'{side}.info', f'cn = "{name}"', f'ip_address = {address}',
                  f'tls_www_{side}', 'signing_key', 'expiration_days = 2')
            certtool('--generate-privkey', '--ecc', '--outfile',
                     f'{base}-key.pem')
            certtool('--generate-certificate', '--load-ca-certificate',
                     'ca-cert.pem', '--load-ca-privkey', 'ca-key.pem',
                     '--load-privkey', f'{base}-key.pem', '--template',
                     f'{side}.info', '--outfile', f'{base}-cert.pem')


class Host:
    """A libvirt host; start() it.  @certificates: directory, or None.
    @libvirt: as TLM_LIBVIRT."""

    def __init__(self, name, address, netns, directory, certificates=None,
                 libvirt=''):
        self.name, self.address, self.netns = name, address, netns
        self.uri = f'qemu+tcp://{address}/system'
        self.dir = directory
        self.certificates, self.libvirt = certificates, libvirt
        self.outer = None           # unshare; its child is process 1
        self.init = None            # pid of process 1, as seen from here
        self.emulator = None
        env.register(self)

    def __repr__(self):
        return f'Host({self.name})'

    # Life

    def start(self):
        self._write_files()
        self.boot()
        return self

    def _write_files(self):
        for sub in ('run/tlm', 'etc', 'lib', 'cache', 'log'):
            os.makedirs(os.path.join(self.dir, sub), exist_ok=True)
        values = {'address': self.address, 'uuid': uuid.uuid4()}
        for name, text in (('libvirtd.conf', LIBVIRTD_CONF),
                           ('qemu.conf', QEMU_CONF)):
            with open(os.path.join(self.dir, 'etc', name), 'w') as f:
                f.write(text.format(**values))
        if self.certificates:
            shutil.copytree(self.certificates,
                            os.path.join(self.dir, 'etc/tls'))

    def boot(self):
        """Also after crash(): what is on its disk is still there."""
        for left in os.listdir(os.path.join(self.dir, 'run')):
            if left != 'tlm':
                path = os.path.join(self.dir, 'run', left)
                shutil.rmtree(path) if os.path.isdir(path) else \
                    os.unlink(path)
        errors = open(os.path.join(self.dir, 'init.err'), 'w')
        self.outer = subprocess.Popen(
            ['ip', 'netns', 'exec', self.netns, 'unshare', '--mount',
             '--uts', '--ipc', '--pid', '--fork', '--kill-child',
             '--mount-proc', INIT, self.dir, self.name,
             self.libvirt],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=errors, text=True, preexec_fn=die_with_parent)
        if self.outer.stdout.readline() != 'ready\n':
            with open(errors.name) as f:
                raise VmError(f'{self.name}: {INIT}: {f.read()}')
        with open(f'/proc/{self.outer.pid}/task/{self.outer.pid}/children'
                  ) as f:
            self.init = int(f.read())
        self.start_libvirtd()

    def start_libvirtd(self):
        self.run('libvirtd', '--daemon', '--listen')
        wait_until(self._libvirtd_answers, 60,
                   f'{self.name}: libvirtd answers')

    def _libvirtd_answers(self):
        if self.libvirtd_pid() is None:
            raise VmError(f'{self.name}: libvirtd has ended: {self.log()}')
        return self.virsh('uri', check=False)

    def libvirtd_pid(self):
        """Its id here, not in the host's namespace."""
        return self.pid_of(lambda comm, _: comm == 'libvirtd',
                           parent=self.init)

    @staticmethod
    def parent_of(pid):
        with open(f'/proc/{pid}/status') as f:
            return int(re.search(r'^PPid:\s*(\d+)', f.read(), re.M)[1])

    def pid_of(self, match, parent=None):
        for pid in self.pids():
            try:
                if parent and self.parent_of(pid) != parent:
                    continue    # a child of the daemon, still of its name
                with open(f'/proc/{pid}/comm') as f:
                    comm = f.read().strip()
                with open(f'/proc/{pid}/cmdline') as f:
                    if match(comm, f.read().split('\0')):
                        return pid
            except OSError:
                continue
        return None

    def pids(self):
        """All processes of the host, by their ids here."""
        own = os.readlink(f'/proc/{self.init}/ns/pid')
        for pid in filter(str.isdigit, os.listdir('/proc')):
            with contextlib.suppress(OSError):
                if os.readlink(f'/proc/{pid}/ns/pid') == own:
                    yield int(pid)

    def kill_libvirtd(self, signum=signal.SIGKILL):
        pid = self.libvirtd_pid()
        os.kill(pid, signum)
        wait_until(lambda: not os.path.exists(f'/proc/{pid}') or
                   self.libvirtd_pid() != pid, 60, 'libvirtd is gone')

    def crash(self):
        """All processes end at once; the network stays."""
        if self.init:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.init, signal.SIGKILL)
            self.outer.wait()
            self.outer.stdout.close()
            self.init = None

    def close(self):
        env.unregister(self)
        if self.outer and self.outer.poll() is None:
            self.outer.kill()       # --kill-child
            self.outer.wait()
        self.crash()

    def alive(self):
        return self.init is not None

    def log(self):
        try:
            with open(os.path.join(self.dir, 'log/libvirtd.log')) as f:
                return ''.join(f.readlines()[-10:])
        except OSError:
            return ''

    # Commands

    def command(self, *command):
        return ['nsenter', '-t', str(self.init), '-m', '-u', '-i', '-n',
                '-p', '--wd=/', *command]

    def run(self, *command, check=True):
        p = subprocess.run(self.command(*command), capture_output=True,
                           text=True, stdin=subprocess.DEVNULL)
        if p.returncode and check:
            raise VmError(f"{self.name}: {' '.join(command)}: "
                          f'{p.stderr.strip()}')
        return p.stdout if not p.returncode else None

    def popen(self, *command, **kwargs):
        return subprocess.Popen(
            self.command(*command), stdin=subprocess.DEVNULL, text=True,
            preexec_fn=die_with_parent, **kwargs)

    def virsh(self, *command, check=True):
        out = self.run('virsh', *command, check=check)
        return out.strip() if out is not None else None

    # What runs here

    def use_emulator(self, binary):
        """What new domains, incoming ones too, run in."""
        self.emulator = binary
        path = self.dir + EMULATOR
        os.symlink(binary, path + '.new')
        os.replace(path + '.new', path)

    def domain_state(self, name):
        """running, paused, shut off...; None: not known here."""
        return self.virsh('domstate', name, check=False)

    def qemu_pid(self, name):
        return self.pid_of(lambda _, args: f'guest={name},debug-threads=on'
                           in args)

    def qmp(self, name, command, **arguments):
        arguments = {k.replace('_', '-'): v for k, v in arguments.items()}
        reply = json.loads(self.virsh(
            'qemu-monitor-command', name,
            json.dumps({'execute': command, 'arguments': arguments})))
        if 'error' in reply:
            raise VmError(f"{self.name}: {command}: "
                          f"{reply['error']['desc']}")
        return reply['return']


class Pair:
    """Two hosts and the link between them, which has a limited rate."""

    def __init__(self, rate=2400):
        self.hosts = ()
        self.remove_stale()
        self.dir = tempfile.mkdtemp(prefix=f'tlm-virt-{os.getpid()}-')
        env.register(self)
        try:
            self.link = ShapedLink(rate=rate)
            places = {'tlm-a': ('10.213.0.1', self.link.src_netns),
                      'tlm-b': ('10.213.0.2', self.link.dst_netns)}
            certificates = os.path.join(self.dir, 'certificates')
            self.certificates = certificates    # a directory for each host
            os.mkdir(certificates)
            make_certificates(certificates,
                              {n: p[0] for n, p in places.items()})
            self.hosts = [
                Host(name, *place, os.path.join(self.dir, name),
                     os.path.join(certificates, name), libvirt)
                for (name, place), libvirt in zip(
                    places.items(), libvirt_roots())]
            for host in self.hosts:
                host.start()
        except BaseException:
            self.close()
            raise

    @staticmethod
    def remove_stale():
        """What a test that was killed has left behind; its processes and
        mounts have gone with it."""
        for path in glob.glob(os.path.join(tempfile.gettempdir(),
                                           'tlm-virt-*')):
            pid = os.path.basename(path).split('-')[2]
            if not os.path.exists(f'/proc/{pid}'):
                shutil.rmtree(path, ignore_errors=True)

    def cut(self):
        """Pull the cable."""
        _run('ip', '-n', self.link.src_netns, 'link', 'set', 'tlm0', 'down')

    def mend(self):
        _run('ip', '-n', self.link.src_netns, 'link', 'set', 'tlm0', 'up')

    def other(self, host):
        return self.hosts[self.hosts[0] is host]

    def close(self):
        env.unregister(self)
        for host in self.hosts:
            host.close()
        if hasattr(self, 'link'):
            self.link.close()
        shutil.rmtree(self.dir, ignore_errors=True)


DOMAIN_XML = '''
<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>{guest.mem_mb}</memory>
  <vcpu current='{guest.vcpus}'>{guest.max_vcpus}</vcpu>
  <os>
    <type arch='x86_64' machine='pc-i440fx-10.0'>hvm</type>
    <kernel>{kernel}</kernel>
    <initrd>{initrd}</initrd>
    <cmdline>{cmdline}</cmdline>
  </os>
  <features><acpi/><apic/></features>
  <cpu mode='custom' match='exact' check='none'><model>qemu64</model></cpu>
  <devices>
    <emulator>{emulator}</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='{disk}'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <serial type='file'><source path='/run/tlm/{name}.log' append='on'/>
      <target port='0'/></serial>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
  </devices>
  <qemu:commandline>
    <qemu:arg value='-L'/><qemu:arg value={firmware}/>
  </qemu:commandline>
</domain>
'''


class Resident:
    """A domain as one host has it; what Guest wants to know of a VM."""

    def __init__(self, domain, host):
        self.domain, self.host = domain, host
        self.name = f'{domain.name} at {host.name}'
        self.path = f'{host.dir}/run/tlm/{domain.name}.log'

    def serial(self):
        try:
            return whole_lines(self.path)
        except FileNotFoundError:
            return ''

    def alive(self):
        return self.host.qemu_pid(self.domain.name) is not None

    def messages(self):
        path = f'{self.host.dir}/log/qemu/{self.domain.name}.log'
        with open(path, errors='replace') as f:
            return f.read()


class Domain:
    """A Linux guest with a disk of @disk_mb MiB, which both hosts share; not
    @shared: each has a file of its own at the same path."""

    def __init__(self, pair, guest, name='guest', persistent=True,
                 disk_mb=16, shared=True):
        self.pair, self.guest, self.name = pair, guest, name
        self.persistent = persistent
        self.uuid = str(uuid.uuid4())
        self.at = {h: Resident(self, h) for h in pair.hosts}
        for place in self.at.values():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(place.path)
        self.disk = os.path.join(pair.dir if shared else '/run/tlm',
                                 f'{name}.img')
        for top in [''] if shared else [h.dir for h in pair.hosts]:
            with open(top + self.disk, 'wb') as f:
                f.truncate(disk_mb << 20)

    def xml(self):
        files = linux_files()
        return DOMAIN_XML.format(
            name=self.name, uuid=self.uuid, guest=self.guest,
            kernel=f'{files}/vmlinuz', initrd=f'{files}/initramfs.gz',
            cmdline=escape(self.guest.append), emulator=EMULATOR,
            disk=self.disk, firmware=quoteattr(env.FIRMWARE))

    def start(self, host):
        path = os.path.join(self.pair.dir, f'{self.name}.xml')
        with open(path, 'w') as f:
            f.write(self.xml())
        if self.persistent:
            host.virsh('define', path)
            host.virsh('start', self.name)
        else:
            host.virsh('create', path)
        self.guest.wait_filled(self.at[host])
        self.guest.wait_alive(self.at[host])
        return self

    def close(self):
        for host in self.pair.hosts:
            if host.alive() and host.libvirtd_pid():
                host.virsh('destroy', self.name, check=False)
                host.virsh('undefine', self.name, check=False)

    def options(self):
        """For virsh migrate."""
        return ['--persistent', '--undefinesource'] if self.persistent else []

    def disk_io(self, host, command):
        """A command of qemu-io, executed by the domain's own QEMU; that it
        has failed is only said in QEMU's log."""
        disk = host.qmp(self.name, 'query-block')[0]['qdev']
        before = len(self.at[host].messages())
        host.virsh('qemu-monitor-command', self.name, '--hmp',
                   f'qemu-io -d {disk} "{command}"')

        def said():
            text = self.at[host].messages()[before:]
            return text if re.search(r'^(wrote|read) .*\n.* ops', text, re.M) \
                else None
        text = wait_until(said, 60, f'{host.name}: {command}')
        if 'failed' in text:
            raise VmError(f'{host.name}: {command}: {text}')

    def where(self):
        """Hosts at which libvirt says that it runs."""
        return [h for h in self.pair.hosts
                if h.alive() and h.domain_state(self.name) == 'running']

    def beats(self, host):
        """The numbers of all heartbeats that the host has seen."""
        return {int(m[0]) for m in self.guest.heartbeats(self.at[host])}

    def twice(self):
        """Heartbeats that both hosts have seen: there must be none."""
        a, b = (self.beats(h) for h in self.pair.hosts)
        return a & b
