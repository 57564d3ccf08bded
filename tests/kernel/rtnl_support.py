"""A host of its own for each test: a fresh namespace that the test's thread is in, a kernel adapter, sandboxes."""

import contextlib
import ctypes
import json
import os
import subprocess
import tempfile

from harness.links import flat
from sealane.engine.ports import NamespaceGoneError
from sealane.kernel.objects import Address, BridgePort, FdbEntry, Neighbour, Route, Sysctl
from sealane.kernel.state import HOST, namespace
from sealane.linux import netns
from sealane.linux.kernel import LinuxKernel
from sealane.reconcile.diff import diff
from sealane.reconcile.order import order
from sealane.reconcile.plan import Operation, Plan

INSTANCE = "a1b2c3"
BRIDGE = "slb000000000001"
PORT = "sle000000000001"
BRIDGE_MAC, PORT_MAC, BOX_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:03"
BOX = "box"

_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def fresh_host():
    """This thread, and the processes it starts, are in a new network namespace meanwhile."""
    back = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        assert _libc.unshare(netns.CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        yield
    finally:
        assert _libc.setns(back, netns.CLONE_NEWNET) == 0
        os.close(back)


class Rig:
    """The adapter under test, and `ip` as the witness."""

    def __init__(self, kernel):
        self.kernel = kernel
        self.refs = {}

    def box(self, name=BOX):
        self.refs[name] = self.kernel.create_namespace(name)
        return self.refs[name]

    def plan(self, desired, observed=None):
        """Desired and observed objects by namespace, as lists."""
        want = {name: namespace(items) for name, items in desired.items()}
        have = {name: namespace((observed or {}).get(name, ())) for name in {*desired, *(observed or {})}}
        return order(diff(want, have))

    def apply(self, desired, observed=None):
        return self.kernel.apply(self.plan(desired, observed), self.refs)

    def make(self, desired):
        """Apply to what holds nothing of ours yet; it must succeed."""
        outcomes = self.apply(desired)
        assert outcomes == []

    def do(self, *operations, stage="build"):
        """Operations as they stand: (verb, namespace, object) or (verb, namespace, object, before)."""
        return self.kernel.apply(Plan(((stage, tuple(Operation(*item) for item in operations)),)), self.refs)

    def observed(self, name=HOST, desired=()):
        found = self.kernel.observe(name, self.refs.get(name), namespace(desired))
        return list(found.values())

    def drift(self, desired):
        """What differs between desired and what the kernel says."""
        want = {name: namespace(items) for name, items in desired.items()}
        have = {name: self.kernel.observe(name, self.refs.get(name), items) for name, items in want.items()}
        return diff(want, have)


@contextlib.contextmanager
def rig(*boxes, fast_path=None):
    with (
        fresh_host(),
        tempfile.TemporaryDirectory() as directory,
        LinuxKernel(INSTANCE, directory, fast_path=fast_path) as kernel,
    ):
        it = Rig(kernel)
        for name in boxes:
            it.box(name)
        try:
            yield it
        finally:
            for ref in it.refs.values():
                kernel.delete_namespace(ref)
            _libc.umount2(f"{directory}/netns".encode(), 2)


def alias(identity, kind="e"):
    return f"sealane/{INSTANCE}/{kind}/{identity}"


def bridge(**changes):
    fields = {"name": BRIDGE, "kind": "bridge", "mtu": 1500, "mac": BRIDGE_MAC, "alias": alias("net", "n")}
    return flat(**(fields | changes))


def port(**changes):
    fields = {
        "name": PORT,
        "kind": "veth",
        "mtu": 1500,
        "mac": PORT_MAC,
        "alias": alias("web"),
        "master": BRIDGE,
        "port": BridgePort(),
        "peer": (BOX, "eth0"),
        "addr_gen_none": True,
    }
    return flat(**(fields | changes))


def inner(**changes):
    fields = {
        "name": "eth0",
        "kind": "veth",
        "mtu": 1500,
        "mac": BOX_MAC,
        "alias": alias("web"),
        "peer": (HOST, PORT),
    }
    return flat(**(fields | changes))


LOOPBACK = flat(name="lo", kind="loopback")


def endpoint():
    """One bridged endpoint of both families, complete: desired objects by namespace."""
    return {
        HOST: [
            bridge(),
            Address(link=BRIDGE, address="10.1.0.1/24"),
            Address(link=BRIDGE, address="fd00::1/64"),
            FdbEntry(link=BRIDGE, mac=BRIDGE_MAC, is_own=True),
            port(),
            FdbEntry(link=PORT, mac=BOX_MAC),
            Neighbour(link=BRIDGE, address="10.1.0.2", mac=BOX_MAC),
            Neighbour(link=BRIDGE, address="fd00::2", mac=BOX_MAC),
            Sysctl(path=f"net/ipv4/conf/{BRIDGE}/forwarding", value="1"),
        ],
        BOX: [
            LOOPBACK,
            inner(),
            Sysctl(path="net/ipv6/conf/eth0/accept_ra", value="0"),
            Address(link="eth0", address="10.1.0.2/24"),
            Address(link="eth0", address="fd00::2/64"),
            Route(dst="0.0.0.0/0", link="eth0", gateway="10.1.0.1"),
            Route(dst="::/0", link="eth0", gateway="fd00::1"),
        ],
    }


def run(*argv, check=True):
    done = subprocess.run(argv, capture_output=True, text=True, timeout=100)
    assert not check or done.returncode == 0, f"{argv}: {done.stderr}"
    return done.stdout


def ip(*argv):
    return run("ip", *argv)


def ip_json(*argv):
    out = run("ip", "-j", "-d", *argv)
    return json.loads(out) if out.strip() else []


def alive(ref):
    """Whether the namespace can be opened: at its path, or through a process that lives in it."""
    try:
        os.close(netns.open_ref(ref))
    except NamespaceGoneError:
        return False
    return True


def within(ref, *argv, check=True):
    """A command inside a sandbox."""
    return run("nsenter", f"--net={ref.path}", *argv, check=check)


def within_json(ref, *argv):
    out = within(ref, argv[0], "-j", *argv[1:])
    return json.loads(out) if out.strip() else []
