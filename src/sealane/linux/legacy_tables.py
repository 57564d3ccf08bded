"""Tables of iptables-legacy: netlink does not show their rules, so that one with rules is opaque.

getsockopt tells of a table's entries (struct ipt_getinfo, ipt_get_entries: linux/netfilter_ipv4/ip_tables.h, and IPv6's).
An empty one has a policy for each hook, and an error at its end. A namespace that never loaded a table does not have it.
"""

import ctypes
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress

from sealane.explain.foreign.rules import ForeignChain, ForeignHook, ForeignRule, ForeignTable, Opaque
from sealane.linux.firewalls import LEGACY

_INFO = struct.Struct("=32sI5I5III")
_GET_INFO, _GET_ENTRIES = 64, 65
"""IPT_SO_GET_INFO, IPT_SO_GET_ENTRIES, and IP6T's."""
_NAME_BYTES = 32
_ENTRIES_OFFSET = 40
"""Of the entries in struct ipt_get_entries: name, size, alignment."""
_ACCEPT = -2
"""A policy of ACCEPT: -NF_ACCEPT - 1."""
_TEXT_BYTES = 4096
_HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
_PRIORITIES = {"raw": -300, "mangle": -150, "nat": -100, "filter": 0, "security": 50}
_SOURCE_NAT_PRIORITY = 100
_OPAQUE = (ForeignRule((Opaque("rules of iptables-legacy"),)),)
_POLICY_BYTES = {"ip": 152, "ip6": 208}
"""sizeof(struct ipt_standard), and IPv6's: the verdict is at the end, before four bytes of padding."""
_VERDICT_FROM_END = 8

_libc = ctypes.CDLL(None, use_errno=True)


def legacy_tables() -> Iterator[ForeignTable]:
    """Of the namespace that this thread is in: those with rules."""
    for family, path in LEGACY.items():
        with suppress(OSError), open(path, encoding="ascii", errors="replace") as file:
            for name in file.read(_TEXT_BYTES).split():
                hooks = _hooks("ip6" if family == "ip6" else "ip", name)
                if hooks:
                    yield ForeignTable(
                        family="ip6" if family == "ip6" else "ip",
                        name=name,
                        chains={hook: _chain(name, hook) for hook in hooks},
                        is_legacy=True,
                    )


def _chain(table: str, hook: str) -> ForeignChain:
    priority = _PRIORITIES.get(table, 0)
    if table == "nat" and hook in {"postrouting", "input"}:
        priority = _SOURCE_NAT_PRIORITY
    kind = "nat" if table == "nat" else "filter"
    return ForeignChain(name=hook, rules=_OPAQUE, hook=ForeignHook(kind, hook, priority))


def _hooks(family: str, table: str) -> list[str]:
    """Hooks of a table that may do something; none of one that is empty and accepts."""
    v6 = family == "ip6"
    level = socket.IPPROTO_IPV6 if v6 else socket.IPPROTO_IP
    name = table.encode().ljust(_NAME_BYTES, b"\0")
    try:
        with socket.socket(
            socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW
        ) as raw:
            _, valid, *_, entries, size = _INFO.unpack(_ask(raw, level, _GET_INFO, name, _INFO.size))
            hooks = [hook for number, hook in enumerate(_HOOKS) if valid >> number & 1]
            if entries > len(hooks) + 1:
                return hooks
            desired = name + struct.pack("=I", size)
            found = _ask(raw, level, _GET_ENTRIES, desired, _ENTRIES_OFFSET + size)[_ENTRIES_OFFSET:]
    except (OSError, struct.error):
        return list(_HOOKS)
    policies = [_policy(found, (number + 1) * _POLICY_BYTES[family]) for number in range(len(hooks))]
    return [] if all(policy == _ACCEPT for policy in policies) else hooks


def _policy(entries: bytes, end: int) -> int:
    found: int = struct.unpack_from("=i", entries, end - _VERDICT_FROM_END)[0]
    return found


def _ask(raw: socket.socket, level: int, option: int, desired: bytes, size: int) -> bytes:
    """getsockopt with a question in its buffer, which Python's does not take. Raises OSError."""
    buffer = ctypes.create_string_buffer(desired, size)
    length = ctypes.c_uint32(size)
    if _libc.getsockopt(raw.fileno(), level, option, buffer, ctypes.byref(length)):
        raise OSError(ctypes.get_errno(), "getsockopt")
    return buffer.raw
