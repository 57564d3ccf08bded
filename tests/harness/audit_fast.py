"""The auditor on the fast path: what its pinned maps hold, read by bpf(2) here and not by the engine's code, and the filters
that `tc` shows."""

import ctypes
import glob
import ipaddress
import json
import os
import platform
import struct
from collections.abc import Iterator

from harness.host import Host
from harness.marks import FAMILIES, difference, host_link, is_adopted, is_ours, network_group
from harness.observed import Facts, Observed
from harness.stored import Record, Stored, address, driver

_BPF = {"x86_64": 321, "aarch64": 280}
_LOOKUP, _NEXT_KEY, _OBJ_GET = 1, 4, 7
_KEY_BYTES = {4: 4, 6: 16}
_VALUE = struct.Struct("=II6sH6sH")
_PINS = "/run/sealane/bpf/fast-"

_libc = ctypes.CDLL(None, use_errno=True)


def judge_fast(host: Host, stored: Stored, observed: Observed) -> Iterator[str]:
    """Nothing where there is no fast path."""
    if not glob.glob(host.path(_PINS) + "*"):
        return
    takers = [(e, n) for e, n in stored.plugged() if _has_fast_path(n) and e.get("fast_path", True)]
    desired = {
        (own, *_expected(endpoint, network, observed.links.get(host_link(endpoint), {})))
        for endpoint, network in takers
        for family, _ in FAMILIES
        if (own := address(endpoint, family))
    }
    yield from difference("fast path to", desired, set(_targets(host)))
    filters = {(host_link(endpoint), f"sealane-{driver(network)}") for endpoint, network in takers}
    yield from difference("filter", filters, set(_filters(host, observed)))


def _has_fast_path(network: Record) -> bool:
    return bool(network.get("icc", True) and network.get("fast_path", True) and not is_adopted(network))


def _expected(endpoint: Record, network: Record, link: Facts) -> tuple[object, ...]:
    """(index of the link, group, MAC, MAC of the host's end, MTU, whether it is delivered to)."""
    mac_of_host = str(link.get("address", "")) if driver(network) == "routed" else "00:00:00:00:00:00"
    group = network_group(network)
    is_free = endpoint.get("ingress") is None
    return link.get("ifindex"), group, endpoint["mac"], mac_of_host, link.get("mtu"), is_free


def _targets(host: Host) -> Iterator[tuple[object, ...]]:
    for family, size in _KEY_BYTES.items():
        # Another layout's map may be pinned beside it after an upgrade; then both are judged.
        for path in glob.glob(host.path(f"{_PINS}targets{family}-") + "*"):
            for key, value in _items(path, size):
                index, network, mac, flags, mac_of_host, mtu = _VALUE.unpack(value)
                own = str(ipaddress.ip_address(key))
                yield own, index, network, mac.hex(":"), mac_of_host.hex(":"), mtu, bool(flags)


def _filters(host: Host, observed: Observed) -> Iterator[tuple[str, str]]:
    hooks = {
        item["dev"] for item in host.ns.json("tc", "qdisc", "show") if item["kind"] in {"ingress", "clsact"}
    }
    for name in sorted(hooks):
        if name in observed.links and is_ours(observed.links[name]):
            for item in json.loads(host.ns.sh("tc", "-j", "filter", "show", "dev", name, "ingress") or "[]"):
                if "options" in item and str(item["options"].get("bpf_name", "")).startswith("sealane-"):
                    yield name, item["options"]["bpf_name"].partition(" ")[0]


def _items(path: str, key_size: int) -> Iterator[tuple[bytes, bytes]]:
    name = ctypes.create_string_buffer(os.fsencode(path))
    fd = _bpf(_OBJ_GET, struct.pack("=Q2I", ctypes.addressof(name), 0, 0))
    if fd < 0:
        return
    try:
        key, following = None, ctypes.create_string_buffer(key_size)
        value = ctypes.create_string_buffer(_VALUE.size)
        while True:
            at = ctypes.addressof(key) if key is not None else 0
            if _bpf(_NEXT_KEY, struct.pack("=I4x2Q", fd, at, ctypes.addressof(following))) < 0:
                return
            key = ctypes.create_string_buffer(following.raw, key_size)
            found = struct.pack("=I4x3Q", fd, ctypes.addressof(key), ctypes.addressof(value), 0)
            if _bpf(_LOOKUP, found) == 0:
                yield key.raw, value.raw
    finally:
        os.close(fd)


def _bpf(command: int, attr: bytes) -> int:
    buffer = ctypes.create_string_buffer(attr, len(attr))
    return int(_libc.syscall(_BPF[platform.machine()], command, buffer, len(attr)))
