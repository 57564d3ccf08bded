"""Put an eBPF program that drops everything somewhere: `attach.py PLACE LINK PIN`, in the namespace in which it is run.

The link is pinned; it is gone when the pin is removed. PLACE: `xdp`, `tcx-in`, `tcx-out`, or `netfilter` (LINK is a hook).
"""

import ctypes
import os
import socket
import struct
import sys

from sealane.linux.bpf.syscall import _bpf, _Command, pin

PLACES = {"xdp": (6, 37, 1), "tcx-in": (3, 46, 2), "tcx-out": (3, 47, 2), "netfilter": (32, 45, 0)}
"""Program type, attach type, and the verdict that drops (XDP_DROP, TC_ACT_SHOT, NF_DROP)."""
HOOKS = ("prerouting", "input", "forward", "output", "postrouting")


def program(kind: int, where: int, verdict: int) -> int:
    """Two instructions: r0 = verdict; exit."""
    code = struct.pack("=BBhi", 0xB7, 0, 0, verdict) + struct.pack("=BBhi", 0x95, 0, 0, 0)
    instructions = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"GPL")
    addresses = (ctypes.addressof(instructions), ctypes.addressof(licence))
    name = b"dropper".ljust(16, b"\0")
    attr = struct.pack("=2I2Q2IQ2I16s2I", kind, len(code) // 8, *addresses, 0, 0, 0, 0, 0, name, 0, where)
    return _bpf(_Command.PROG_LOAD, attr, "load")


def main() -> None:
    place, target, path = sys.argv[1:]
    kind, where, verdict = PLACES[place]
    fd = program(kind, where, verdict)
    if place == "netfilter":
        attr = struct.pack(
            "=4I4I", fd, 0, where, 0, socket.AF_INET, HOOKS.index(target), -500 & 0xFFFFFFFF, 0
        )
    else:
        attr = struct.pack("=4I8x", fd, socket.if_nametoindex(target), where, 0)
    link = _bpf(_Command.LINK_CREATE, attr, "link")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    pin(link, path)


if __name__ == "__main__":
    main()
