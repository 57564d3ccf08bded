"""The fast path's programs, run by the kernel on frames of ours (BPF_PROG_TEST_RUN): what they deliver, and nothing else.

The oracle reads frames with scapy and shares nothing with the program but the words of its rules.
"""

import ctypes
import os
import struct
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sealane.kernel.objects import FastTarget
from sealane.linux.bpf import fast_path, syscall
from sealane.linux.bpf.fast_path import HELD, encode
from sealane.linux.bpf.fast_path_program import (
    DRIVERS,
    GATE_OPEN,
    GATE_VALUE,
    GATES,
    PASS,
    REDIRECT,
    TARGETS,
    build,
    gate,
)
from sealane.linux.bpf.syscall import ProgType

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # scapy imports deprecated parts of cryptography.
    from scapy.layers.inet import IP, TCP, UDP, IPOption_NOP
    from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
    from scapy.layers.l2 import ARP, Dot1Q, Ether
    from scapy.packet import Raw

pytestmark = pytest.mark.kernel

PROG_TEST_RUN = 10
ROOM = 2048
NETWORK, OTHER_NETWORK = 0x4000_0007, 0x4000_0008
LOOPBACK = 1
"""What BPF_PROG_TEST_RUN takes for the link that a frame comes in by."""

MTU = 1500
MAC = {"a": "02:00:00:00:00:0a", "b": "02:00:00:00:00:0b", "c": "02:00:00:00:00:0c"}
ROUTER = {"a": "02:01:00:00:00:0a", "b": "02:01:00:00:00:0b", "c": "02:01:00:00:00:0c"}
"""MACs of the host's ends, on a routed network."""

ADDRESS = {
    4: {"a": "10.1.0.10", "b": "10.1.0.11", "far": "10.2.0.11", "mute": "10.1.0.12", "nobody": "10.1.0.99"},
    6: {"a": "fd01::a", "b": "fd01::b", "far": "fd02::b", "mute": "fd01::c", "nobody": "fd01::99"},
}
"""`far` is of another network, and to `mute` nothing may be delivered."""

INDEX = {"a": LOOPBACK, "b": 7001, "far": 7002, "mute": 7003}


def target(family: int, who: str, driver: str) -> FastTarget:
    letter = who if who in MAC else "c"
    return FastTarget(
        address=ADDRESS[family][who],
        network=OTHER_NETWORK if who == "far" else NETWORK,
        link=who,
        mac=MAC[letter],
        host_mac=ROUTER[letter] if driver == "routed" else "",
        mtu=MTU,
        delivers=who != "mute",
    )


class Machine:
    """Maps as for four workloads, of which `a` sends; and a program of each kind."""

    def __init__(self, driver: str, stack: ExitStack) -> None:
        self.driver = driver
        self.maps: dict[str, int] = {}
        for spec in (GATES, *TARGETS.values()):
            self.maps[spec.name] = syscall.map_create(spec)
            stack.callback(os.close, self.maps[spec.name])
        code = build(driver).assemble(self.maps)  # type: ignore[arg-type]
        self.program = syscall.prog_load(ProgType.SCHED_CLS, 0, "slt_fast", code)
        stack.callback(os.close, self.program)
        for family in (4, 6):
            self.set_gate(family, GATE_OPEN)
            for who, index in INDEX.items():
                key, value = encode(target(family, who, driver), index)
                syscall.map_update(self.maps[TARGETS[family].name], key, value)  # type: ignore[index]

    def set_gate(self, family: int, state: int, *, for_s: float = 3600) -> None:
        number = gate(self.driver, family)  # type: ignore[arg-type]
        until = time.monotonic_ns() + int(for_s * 1e9)
        value = GATE_VALUE.pack(state, until)
        syscall.map_update(self.maps[GATES.name], struct.pack("=I", number), value)

    def run(self, frame: bytes, gso_size: int = 0) -> tuple[int, bytes]:
        """(verdict, the frame as it is then)."""
        data = ctypes.create_string_buffer(frame, len(frame))
        out = ctypes.create_string_buffer(ROOM)
        context = bytearray(192)
        if gso_size:
            struct.pack_into("=I", context, 164, 2)
            struct.pack_into("=I", context, 176, gso_size)
        given_context = ctypes.create_string_buffer(bytes(context), len(context))
        attr = bytearray(
            struct.pack(
                "=4I2Q2I2I2Q3I4x",
                *(self.program, 0, len(frame), ROOM),
                *(ctypes.addressof(data), ctypes.addressof(out)),
                *(1, 0, len(context), 0),
                *(ctypes.addressof(given_context), 0),
                *(0, 0, 0),
            )
        )
        syscall._bpf(PROG_TEST_RUN, attr, "run program")  # type: ignore[arg-type]
        (verdict,) = struct.unpack_from("=i", attr, 4)
        (size,) = struct.unpack_from("=I", attr, 12)
        return verdict, out.raw[:size]


@pytest.fixture(scope="module", params=DRIVERS)
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    reason = fast_path.probe()
    if reason:
        pytest.skip(f"no fast path: {reason}")
    with ExitStack() as stack:
        yield Machine(request.param, stack)


def next_hop(machine: Machine) -> str:
    """The MAC that `a` sends to."""
    return MAC["b"] if machine.driver == "bridge" else ROUTER["a"]


def plain(machine: Machine, family: int, **changes: object) -> object:
    """What is to be delivered."""
    kind = IP if family == 4 else IPv6
    hops = {"ttl" if family == 4 else "hlim": 64}
    header = kind(src=ADDRESS[family]["a"], dst=ADDRESS[family]["b"], **hops)
    return Ether(src=MAC["a"], dst=next_hop(machine)) / header / UDP(sport=4000, dport=7000) / Raw(b"x" * 40)


def forwarded(frame: bytes) -> bytes:
    """By a router, as scapy makes it: every checksum is counted anew."""
    packet = Ether(frame)
    packet.dst, packet.src = MAC["b"], ROUTER["b"]
    if IP in packet:
        packet[IP].ttl -= 1
        del packet[IP].chksum
    else:
        packet[IPv6].hlim -= 1
    return bytes(packet)


def delivered(machine: Machine, frame: bytes) -> bytes:
    return frame if machine.driver == "bridge" else forwarded(frame)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("transport", [UDP, TCP])
def test_what_is_plain_goes_as_the_long_way_would_leave_it(
    machine: Machine, family: int, transport: type
) -> None:
    packet = plain(machine, family)
    if transport is TCP:
        packet = (
            Ether(bytes(packet)[: 34 if family == 4 else 54]) / TCP(sport=4000, dport=7000) / Raw(b"x" * 40)
        )
        if family == 4:
            packet[IP].len, packet[IP].proto, packet[IP].chksum = None, 6, None
        else:
            packet[IPv6].plen, packet[IPv6].nh = None, 6
    frame = bytes(packet)
    assert machine.run(frame) == (REDIRECT, delivered(machine, frame))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(checksum_maker=st.integers(0, 0xFFFF), ttl=st.integers(2, 255), length=st.integers(0, 1400))
@example(checksum_maker=0, ttl=64, length=0)
def test_the_checksum_is_right_whatever_it_was(
    machine: Machine, checksum_maker: int, ttl: int, length: int
) -> None:
    """Over all sums, those that overflow and both zeros among them."""
    packet = plain(machine, 4)
    packet[IP].id, packet[IP].ttl = checksum_maker, ttl  # type: ignore[index]
    packet[Raw].load = b"y" * length  # type: ignore[index]
    frame = bytes(packet)  # type: ignore[call-overload]
    verdict, after = machine.run(frame)
    assert verdict == REDIRECT
    if machine.driver == "bridge":
        assert after == frame
        return
    expected = forwarded(frame)
    assert after[:24] + after[26:] == expected[:24] + expected[26:]
    assert total(after[14:34]) == 0xFFFF, "a receiver adds the header up"


def total(header: bytes) -> int:
    result = sum(struct.unpack(f">{len(header) // 2}H", header))
    while result > 0xFFFF:
        result = (result & 0xFFFF) + (result >> 16)
    return result


def test_checksums_of_all_sizes(machine: Machine) -> None:
    """Nine thousand identifications, so that sums of all sizes come by. (On a bridge none may change.)"""
    frame = bytearray(bytes(plain(machine, 4)))  # type: ignore[call-overload]
    for number in range(0, 0x1_0000, 7):
        struct.pack_into(">HH", frame, 18, number, 0)
        struct.pack_into(">H", frame, 24, 0)
        struct.pack_into(">H", frame, 24, 0xFFFF - total(bytes(frame[14:34])))
        verdict, after = machine.run(bytes(frame))
        assert (verdict, total(after[14:34])) == (REDIRECT, 0xFFFF)


def is_plain(machine: Machine, frame: bytes) -> bool:
    """The oracle: rule 2 of the program, read off the frame."""
    packet = Ether(frame)
    layer = packet.payload
    if isinstance(layer, IP):
        family, hops = 4, layer.ttl
        whole = layer.ihl == 5 and layer.version == 4 and layer.frag == 0 and not layer.flags.MF
        transport, dhcp, size = layer.proto, 67, 34
    elif isinstance(layer, IPv6):
        family, hops = 6, layer.hlim
        whole = layer.version == 6
        transport, dhcp, size = layer.nh, 547, 54
    else:
        return False
    if not whole or transport not in {6, 17} or len(frame) < size + 8:
        return False
    if transport == 17 and struct.unpack_from(">H", frame, size)[0] == dhcp:
        return False
    if (packet.src, layer.src, layer.dst) != (MAC["a"], ADDRESS[family]["a"], ADDRESS[family]["b"]):
        return False
    if machine.driver == "routed" and hops <= 1:
        return False
    return bool(packet.dst == next_hop(machine) and len(frame) - 14 <= MTU)


macs = st.sampled_from([*MAC.values(), *ROUTER.values(), "ff:ff:ff:ff:ff:ff", "33:33:00:00:00:01"])


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """Near what is plain: most have one or two things that are not."""
    family = draw(st.sampled_from([4, 6]))
    addresses = st.sampled_from([*ADDRESS[family].values(), "255.255.255.255" if family == 4 else "ff02::1"])
    usual = st.integers(0, 7).map(bool)

    def mostly(value: object, others: st.SearchStrategy[object]) -> object:
        return value if draw(usual) else draw(others)

    hops = mostly(64, st.sampled_from([0, 1, 2, 255]))
    source = mostly(ADDRESS[family]["a"], addresses)
    destination = mostly(ADDRESS[family]["b"], addresses)
    if family == 4:
        header = IP(src=source, dst=destination, ttl=hops)
        header.flags = mostly(0, st.sampled_from(["DF", "MF", "evil"]))
        header.frag = mostly(0, st.integers(0, 8191))
        header.options = mostly([], st.just([IPOption_NOP()] * 4))
        header.version = mostly(4, st.integers(0, 15))
    else:
        header = IPv6(src=source, dst=destination, hlim=hops)
        header.version = mostly(6, st.integers(0, 15))
        if not draw(usual):
            header = header / IPv6ExtHdrDestOpt()
    kind = mostly(draw(st.sampled_from([UDP, TCP])), st.just(None))
    ports = {
        "sport": mostly(4000, st.sampled_from([67, 68, 546, 547])),
        "dport": draw(st.sampled_from([53, 67, 7000])),
    }
    body = header / kind(**ports) if kind else header
    if not kind and family == 4:
        header.proto = draw(st.integers(0, 255))
    length = mostly(20, st.sampled_from([0, 1, 1400, 1459, 1460, 1461, 1472, 1473, 1600]))
    link = Ether(src=mostly(MAC["a"], macs), dst=draw(st.sampled_from([MAC["b"], ROUTER["a"]])))
    if not draw(usual):
        link.dst = draw(macs)
    if not draw(usual):
        link = link / draw(
            st.sampled_from([Dot1Q(vlan=7), ARP(psrc="10.1.0.10", pdst="10.1.0.11", hwsrc=MAC["a"])])
        )
    frame = bytes(link / body / Raw(b"z" * length))
    return frame if draw(usual) else frame[: draw(st.integers(34 if family == 4 else 54, len(frame)))]


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(frame=frames())
def test_it_delivers_what_is_plain_and_changes_nothing_else(machine: Machine, frame: bytes) -> None:
    verdict, after = machine.run(frame)
    expected = is_plain(machine, frame)
    assert verdict == (REDIRECT if expected else PASS)
    if not expected or machine.driver == "bridge":
        assert after == frame


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("whom", ["far", "mute", "nobody", "a"])
def test_to_others_it_delivers_nothing(machine: Machine, family: int, whom: str) -> None:
    packet = plain(machine, family)
    packet.payload.dst = ADDRESS[family][whom]  # type: ignore[attr-defined]
    assert machine.run(bytes(packet))[0] == PASS  # type: ignore[call-overload]


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("whose", ["b", "far", "mute", "nobody"])
def test_under_the_address_of_others_it_delivers_nothing(machine: Machine, family: int, whose: str) -> None:
    """Also under that of one whose link it is not: there, with its MAC."""
    packet = plain(machine, family)
    packet.payload.src = ADDRESS[family][whose]  # type: ignore[attr-defined]
    for mac in MAC.values():
        packet.src = mac  # type: ignore[attr-defined]
        assert machine.run(bytes(packet))[0] == PASS  # type: ignore[call-overload]


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("state", [0, HELD, GATE_OPEN | HELD])
def test_a_gate_that_is_closed_or_held_lets_nothing_through(
    machine: Machine, family: int, state: int
) -> None:
    frame = bytes(plain(machine, family))  # type: ignore[call-overload]
    other = bytes(plain(machine, 10 - family))  # type: ignore[call-overload]
    machine.set_gate(family, state)
    try:
        assert machine.run(frame) == (PASS, frame)
        assert machine.run(other)[0] == REDIRECT, "the other family's is open"
    finally:
        machine.set_gate(family, GATE_OPEN)


@pytest.mark.parametrize("family", [4, 6])
def test_a_gate_is_open_for_as_long_as_somebody_says_so(machine: Machine, family: int) -> None:
    frame = bytes(plain(machine, family))  # type: ignore[call-overload]
    machine.set_gate(family, GATE_OPEN, for_s=0.5)
    try:
        assert machine.run(frame)[0] == REDIRECT
        time.sleep(0.6)
        assert machine.run(frame) == (PASS, frame)
        machine.set_gate(family, GATE_OPEN, for_s=0.5)
        assert machine.run(frame)[0] == REDIRECT
    finally:
        machine.set_gate(family, GATE_OPEN)


@pytest.mark.parametrize("family", [4, 6])
def test_segments_that_are_not_cut_yet_are_measured_one_by_one(machine: Machine, family: int) -> None:
    header = 40 if family == 4 else 60
    packet = plain(machine, family)
    packet[Raw].load = b"z" * 1900  # type: ignore[index]
    frame = bytes(packet)  # type: ignore[call-overload]
    assert machine.run(frame)[0] == PASS
    assert machine.run(frame, gso_size=MTU - header)[0] == REDIRECT
    assert machine.run(frame, gso_size=MTU - header + 1)[0] == PASS
