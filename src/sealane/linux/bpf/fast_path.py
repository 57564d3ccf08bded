"""The fast path's programs and maps, as they are pinned, and what stands in them (`fast_path_program` says what for).

In a bpffs, in a directory of this instance:

    fast-gates-TAG, fast-targets4-TAG, fast-targets6-TAG     maps; TAG is a hash of their layout
    fast-bridge-TAG, fast-routed-TAG                         programs; TAG is a hash of the program and the maps' ids

So a name says all that its object depends on, and a daemon that starts again finds the programs that its links have. After
an upgrade with another program the links get that one, and the old one goes with the last that had it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import struct
import threading
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Final

from sealane.kernel.objects import FastDriver, FastGate, FastTarget
from sealane.linux import netns
from sealane.linux.bpf import mounts, pins, syscall
from sealane.linux.bpf.fast_path_program import (
    DELIVERS,
    DRIVERS,
    GATE_OPEN,
    GATE_VALUE,
    GATES,
    TARGETS,
    build,
    gate,
)
from sealane.linux.bpf.refusal import why
from sealane.linux.bpf.syscall import MapSpec, ProgType
from sealane.linux.netlink import tc_filter
from sealane.linux.netlink.link import LOOPBACK_INDEX
from sealane.linux.netlink.socket import NETLINK_ROUTE, Socket
from sealane.model.net import FAMILIES, family_of, packed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

HELD: Final = 2
"""A bit of a gate: closed by whoever holds it, whatever it should be."""

LEASE_S: Final = 15.0
"""So long a gate is believed to be open after it was last said to be: `renew` it more often. Of a process that was killed
nobody says it any more, and nobody looks at the rules that others make then."""

_PIN_NAME: Final = re.compile(f"fast-(?:gates|targets[46]|bridge|routed)-{pins.TAG_PATTERN}")
_VALUE: Final = struct.Struct("=II6sH6sH")
_U32: Final = struct.Struct("=I")
_NO_MAC: Final = bytes(6)


class FastPath:
    """Maps and programs of one instance.

    The maps are the truth: nothing is remembered but descriptors. Calls may come from any thread; each changes one element,
    at once. While nobody has it open, the gates are held: rules that others make then would not be seen.
    """

    def __init__(self, pin_dir: str) -> None:
        self._pin_dir = pin_dir
        self._maps: dict[str, int] = {}
        self._programs: dict[FastDriver, int] = {}
        self._program_ids: dict[int, FastDriver] = {}
        self._holders = 1
        self._lock = threading.Lock()

    def open(self) -> tuple[str, ...]:
        """Open or make maps and programs; return the names of the pins made. The gates are as they were: `release` them
        when what is there has been looked at. Raises BpfError, OSError."""
        self.close()
        mounts.ensure_bpffs(self._pin_dir)
        made: list[str] = []
        names: list[str] = []
        with ExitStack() as undo:
            undo.callback(self.close)
            for spec in (GATES, *TARGETS.values()):
                self._maps[spec.name] = pins.open_map(self._path(_map_name(spec)), spec, made)
                names.append(_map_name(spec))
            ids = {name: syscall.map_info(fd).id for name, fd in self._maps.items()}
            for driver in DRIVERS:
                program = build(driver)
                name = f"fast-{driver}-{pins.tag(program.assemble(ids))}"
                code = program.assemble(self._maps)
                self._programs[driver] = pins.open_program(
                    self._path(name), partial(_load, driver, code), made
                )
                self._program_ids[syscall.prog_id(self._programs[driver])] = driver
                names.append(name)
            undo.pop_all()
        for name in os.listdir(self._pin_dir):
            if _PIN_NAME.fullmatch(name) and name not in names:
                os.unlink(self._path(name))
        return tuple(made)

    def release(self) -> None:
        """The gates are what they should be from now on, until `close`, for as long as they are renewed. Idempotent."""
        with self._lock:
            self._holders = 0
            self._renew_gates()

    def renew(self) -> None:
        """Say that the gates are what they are, for LEASE_S more. Raises BpfError."""
        with self._lock:
            self._renew_gates()

    def close(self) -> None:
        """Hold the gates and let go of the descriptors; what is attached stays, and so does what it knows."""
        if self._programs:
            with self._lock:
                self._holders = 1
                self._renew_gates()
        for fd in (*self._maps.values(), *self._programs.values()):
            os.close(fd)
        self._maps, self._programs, self._program_ids = {}, {}, {}

    # --- what is there

    def program(self, driver: FastDriver) -> int:
        """The descriptor of a program, to attach it by."""
        return self._programs[driver]

    def driver_of(self, program_id: int) -> FastDriver | None:
        """Which of the programs has a number; None: none of them."""
        return self._program_ids.get(program_id)

    def gates(self) -> Iterator[FastGate]:
        for driver in DRIVERS:
            for family in FAMILIES:
                if self._gate(gate(driver, family)) & GATE_OPEN:
                    yield FastGate(driver=driver, family=family)

    def targets(self, links: Mapping[int, str]) -> Iterator[FastTarget]:
        """`links`: names by index; of one that is not among them the name is empty."""
        for spec in TARGETS.values():
            fd = self._maps[spec.name]
            for key, value in syscall.map_items(fd, syscall.map_info(fd)):
                yield decode(key, value, links)

    # --- changes; all are idempotent and raise BpfError

    def open_gate(self, item: FastGate) -> None:
        with self._lock:
            self._set_gate(item, GATE_OPEN)

    def close_gate(self, item: FastGate) -> None:
        with self._lock:
            self._set_gate(item, 0)

    def put(self, item: FastTarget, index: int) -> None:
        """`index`: of the link that is named."""
        key, value = encode(item, index)
        syscall.map_update(self._map(item), key, value)

    def delete(self, item: FastTarget) -> None:
        syscall.map_delete(self._map(item), packed(item.address))

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Everything takes the long way meanwhile, where each step of it can be seen. May be nested, and overlap in threads.
        The gates read as if nothing held them, and what changes of them takes effect afterwards."""
        with self._lock:
            self._holders += 1
            self._renew_gates()
        try:
            yield
        finally:
            with self._lock:
                self._holders -= 1
                self._renew_gates()

    def _set_gate(self, item: FastGate, state: int) -> None:
        held = HELD if self._holders else 0
        number = gate(item.driver, item.family)
        until = time.monotonic_ns() + int(LEASE_S * 1e9)
        syscall.map_update(self._maps[GATES.name], _U32.pack(number), GATE_VALUE.pack(state | held, until))

    def _renew_gates(self) -> None:
        if not self._maps:
            # Closed, and so held, while somebody held it: a trace that ends after the daemon.
            return
        for driver in DRIVERS:
            for family in FAMILIES:
                item = FastGate(driver=driver, family=family)
                self._set_gate(item, self._gate(gate(driver, family)) & GATE_OPEN)

    def _gate(self, number: int) -> int:
        value = syscall.map_lookup(self._maps[GATES.name], _U32.pack(number), GATES.value_size)
        return int(GATE_VALUE.unpack(value)[0]) if value is not None else 0

    def _path(self, name: str) -> str:
        return os.path.join(self._pin_dir, name)

    def _map(self, item: FastTarget) -> int:
        return self._maps[TARGETS[family_of(item.address)].name]


def encode(item: FastTarget, index: int) -> tuple[bytes, bytes]:
    """Key and value of a target's element."""
    flags = DELIVERS if item.delivers else 0
    macs = (_mac_bytes(item.mac), _mac_bytes(item.host_mac))
    value = _VALUE.pack(index, item.network, macs[0], flags, macs[1], item.mtu)
    return packed(item.address), value


def decode(key: bytes, value: bytes, links: Mapping[int, str]) -> FastTarget:
    index, network, mac, flags, host_mac, mtu = _VALUE.unpack(value)
    return FastTarget(
        address=str(ipaddress.ip_address(key)),
        network=network,
        link=links.get(index, ""),
        mac=mac.hex(":"),
        host_mac=host_mac.hex(":") if host_mac != _NO_MAC else "",
        mtu=mtu,
        delivers=bool(flags & DELIVERS),
    )


def probe() -> str:
    """Why this kernel, or these privileges, allow no fast path; empty if they do. Loads the programs, hangs them on a link in
    a namespace of their own, and lets go of them."""
    try:
        with ExitStack() as stack:
            maps: dict[str, int] = {}
            for spec in (GATES, *TARGETS.values()):
                maps[spec.name] = syscall.map_create(spec)
                stack.callback(os.close, maps[spec.name])
            programs = [_load(driver, build(driver).assemble(maps)) for driver in DRIVERS]
            for program in programs:
                stack.callback(os.close, program)
            netns.in_new_namespace(partial(_attach_to_loopback, programs))
    except OSError as error:
        return why(error)
    return ""


def _attach_to_loopback(programs: list[int]) -> None:
    put = [tc_filter.put(LOOPBACK_INDEX, program, "probe") for program in programs]
    with Socket(NETLINK_ROUTE) as socket:
        for error in socket.request([tc_filter.put_ingress(LOOPBACK_INDEX), *put]):
            if error is not None:
                raise error


def _load(driver: FastDriver, code: bytes) -> int:
    return syscall.prog_load(ProgType.SCHED_CLS, 0, f"sl_{driver}", code)


def _map_name(spec: MapSpec) -> str:
    return pins.map_name(f"fast-{spec.name.removeprefix('sl_')}", spec)


def _mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", "")) if mac else _NO_MAC
