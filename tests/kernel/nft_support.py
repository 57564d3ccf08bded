"""A fresh namespace for each test, and nft's own view of what is in it."""

import contextlib
import ctypes
import json
import os
import re
import subprocess

from sealane.kernel.nft import (
    ACCEPT,
    DPORT,
    DROP,
    IIFNAME,
    IP_SADDR,
    L4PROTO,
    Chain,
    Concat,
    Element,
    Hook,
    Lookup,
    ObservedChain,
    Rule,
    Set,
    Table,
    Verdict,
    VerdictMap,
    concat,
)
from sealane.kernel.state import HOST, namespace
from sealane.linux.netlink import codec, nfnl
from sealane.linux.netlink.socket import NETLINK_NETFILTER, Socket
from sealane.linux.nft import apply_nft, observe_nft
from sealane.reconcile.plan import Operation

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def fresh_namespace():
    """This thread, and the processes it starts, are in a new network namespace meanwhile."""
    back = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.unshare(_CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNET)")
        yield
    finally:
        assert _libc.setns(back, _CLONE_NEWNET) == 0
        os.close(back)


@contextlib.contextmanager
def fresh_socket():
    with fresh_namespace(), Socket(NETLINK_NETFILTER) as socket:
        yield socket


def nft(*argv, text=None):
    done = subprocess.run(["nft", *argv], input=text, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, f"nft {argv}: {done.stderr}"
    return done.stdout


def listing(*what):
    """`nft list` without counters' values, on one line an object."""
    return nft("-s", "list", *(what or ("ruleset",)))


def normal(table):
    """A listing with elements in order and one blank only between words: nft breaks lines by the width of a type."""

    def elements(found):
        return "elements = { " + ", ".join(sorted(re.split(r",\s+", found[1].strip()))) + " }"

    text = re.sub(r"elements = \{(.*?)\}", elements, table, flags=re.S)
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def rule_lines(family, chain):
    found = [line.strip() for line in listing("chain", family, "sealane", chain).splitlines()]
    return [line for line in found if line.endswith('"') and "comment" in line]


def operations(verb, objects, before=None):
    return [Operation(verb, HOST, item, before) for item in objects]


def create(socket, objects):
    assert apply_nft(socket, operations("create", objects)) == []


def observed(socket):
    return namespace(observe_nft(socket))


def as_observed(objects):
    """Desired objects as they are read back: chains by the tags of their rules."""
    return namespace(
        ObservedChain(family=item.family, name=item.name, tags=item.tags, hook=item.hook)
        if isinstance(item, Chain)
        else item
        for item in objects
    )


def with_table(family, *objects):
    return [Table(family=family), *objects]


# --- objects --------------------------------------------------------------------------------------------------------

IP = "ip"
BOX = ("ipv4_addr", "inet_proto", "inet_service")
PORT = ("inet_proto", "inet_service")
BACKEND = ("ipv4_addr", "inet_service")
FORWARD = Hook("filter", "forward", 0)


def element(owner, *values, ends=(), data=b""):
    end = concat(owner.type, ends) if ends else b""
    return Element(family=owner.family, set=owner.name, value=concat(owner.type, values), end=end, data=data)


def a_set(*kinds, name="s", data=(), interval=False, family=IP):
    return Set(family=family, name=name, type=kinds, data=data, interval=interval)


def rule(*statements, comment=""):
    return Rule(statements, comment)


def delete(socket, objects):
    return apply_nft(socket, operations("delete", objects))


def faults(outcomes):
    return [(outcome.operation.object, outcome.errno) for outcome in outcomes if outcome.errno]


def everything():
    """One of each kind, referring to each other."""
    names, boxes = a_set("ifname", name="names", data=("verdict",)), a_set(*BOX, name="boxes", interval=True)
    publish = a_set(*PORT, name="publish", data=BACKEND)
    return with_table(
        IP,
        names,
        boxes,
        publish,
        Chain(
            family=IP,
            name="tenant",
            rules=(rule(Lookup(Concat((IP_SADDR, L4PROTO, DPORT)), "boxes"), ACCEPT),),
        ),
        Chain(family=IP, name="base", rules=(rule(VerdictMap(IIFNAME, "names")), rule(DROP)), hook=FORWARD),
        element(names, "eth0", data=Verdict("jump", "tenant")),
        element(boxes, "10.0.0.0", 6, 1, ends=("10.0.0.9", 6, 9)),
        element(publish, 6, 8080, data=concat(BACKEND, ("10.1.0.2", 80))),
    )


def chain_handle(name):
    found = json.loads(nft("-a", "-j", "list", "ruleset"))["nftables"]
    return next(item["chain"]["handle"] for item in found if item.get("chain", {}).get("name") == name)


def generation(socket):
    [(_, payload), *_] = socket.dump(nfnl.GENERATION)
    return int.from_bytes(codec.attrs(payload[4:])[1], "big")
