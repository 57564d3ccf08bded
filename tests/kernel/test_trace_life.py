"""`sealane trace` as a guest of the kernel: waiting, ways of ending, several at once, load, and what is left of it."""

import contextlib
import ctypes
import glob
import os
import signal
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from typing import Literal

import pytest

from harness.audit import audit
from harness.host import Host, Lan
from harness.netns import eventually
from kernel.trace_town import TABLE, Town
from sealane.daemon.traces import TRACES_MAX
from sealane.explain.traced.event import Pattern
from sealane.linux.bpf import btf
from sealane.linux.tracing.follower import RING_BYTES, Follower
from sealane.linux.tracing.programs import POINTS, RECORD

pytestmark = pytest.mark.kernel

BPF, PROG_GET_FD_BY_ID, OBJ_GET_INFO_BY_FD = 321, 13, 15
NAMES = {f"sl_{point}" for point in POINTS}

FLOOD = """
import socket, time
socks = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(8)]
for sock in socks:
    sock.connect(("{address}", 5000))
end, sent = time.monotonic() + {seconds}, 0
while time.monotonic() < end:
    for sock in socks:
        try:
            sock.send(b"x")
            sent += 1
        except OSError:
            pass
    time.sleep({pause_s})
print(sent)
"""


@pytest.fixture(scope="module")
def town(shared_host: Host, lan: Lan) -> Town:
    return Town(shared_host)


seen: set[int] = set()
"""Ids of programs that traces of this module's daemons have loaded."""


def programs(town: Town) -> list[str]:
    """Names of the programs of the daemon's traces, by the links that it holds (proc(5), fdinfo): eBPF ids are the
    machine's, and daemons of other tests trace as well."""
    process = town.host.daemon
    held: set[int] = set()
    for path in glob.glob(f"/proc/{process.pid}/fdinfo/*") if process is not None else ():
        with contextlib.suppress(OSError), open(path, encoding="ascii") as file:
            held |= {int(line.split()[1]) for line in file if line.startswith("prog_id:")}
    found = {identity: name for identity in held if (name := name_of(identity)) in NAMES}
    seen.update(found)
    return list(found.values())


def name_of(identity: int) -> str:
    """Of a program that exists; empty: it is gone (bpf(2); struct bpf_prog_info has the name at 64)."""
    libc = ctypes.CDLL(None, use_errno=True)
    attr = ctypes.create_string_buffer(struct.pack("=3I", identity, 0, 0), 12)
    descriptor = libc.syscall(BPF, PROG_GET_FD_BY_ID, attr, 12)
    if descriptor < 0:
        return ""
    info = ctypes.create_string_buffer(128)
    attr = ctypes.create_string_buffer(struct.pack("=2IQ", descriptor, 128, ctypes.addressof(info)), 16)
    libc.syscall(BPF, OBJ_GET_INFO_BY_FD, attr, 16)
    os.close(descriptor)
    return info.raw[64:80].rstrip(b"\0").decode()


def nothing_is_on(town: Town) -> bool:
    """No program is held, none that was is left, and no table."""
    inside = [box.ns.sh("nft", "list", "tables") for box in town.boxes.values()]
    left = [identity for identity in seen if name_of(identity) in NAMES]
    return (
        not programs(town)
        and not left
        and TABLE not in town.host.ns.sh("nft", "list", "tables") + "".join(inside)
    )


# --- waiting ---------------------------------------------------------------------------------------------------------


def test_a_published_port_from_outside_and_its_answer(town: Town, lan: Lan) -> None:
    with (
        contextlib.closing(town.boxes["web"].ns.listen("tcp", "0.0.0.0", 80)),
        town.live("192.0.2.200", ":8080", "--reverse", "--count", "2") as trace,
    ):
        assert "answer" in lan.ext.probe("tcp", town.host.address(4), 8080)
        code, observed_paths, notes = trace.result()
    assert (code, notes) == (0, [])
    asked, answered = observed_paths
    web = town.names["web"]
    assert [hop["name"] for hop in asked["observed"]["hops"]] == ["host", web]
    assert asked["minimal"] == f"192.0.2.200 -> :8080 tcp: delivered to {web}, as predicted"
    assert any("destination translated: 192.0.2.200:" in line for line in asked["summary"].splitlines())
    assert answered["minimal"] == "answer to 192.0.2.200 -> :8080 tcp: exits by eth0, as predicted"


def test_so_many_and_no_more(town: Town, family: int) -> None:
    with town.live("web", "api:9", "--proto", "udp", f"-{family}", "--count", "3") as trace:
        for _ in range(5):
            town.boxes["web"].ns.probe("udp", town.boxes["api"].address(family), 9)
        code, observed_paths, _ = trace.result()
    assert (code, len(observed_paths)) == (0, 3)
    ports = [observed_path["observed"]["flow"]["source_port"] for observed_path in observed_paths]
    assert len(set(ports)) == 3


def test_of_what_lives_and_dies_the_dead_are_told(town: Town) -> None:
    web, api = town.boxes["web"].ns, town.boxes["api"]
    rule = "add rule ip once out1 udp length 9 drop"
    with town.live("web", "api:9", "--proto", "udp", mode="--dropped") as trace:
        for _ in range(3):
            web.probe("udp", api.v4, 9)
        web.sh(
            "nft",
            "add table ip once; add chain ip once out1 { type filter hook output priority 0; }; " + rule,
        )
        web.run("python3", "-c", f"import socket\nsocket.socket(2, 2).sendto(b'x', ('{api.v4}', 9))")
        code, (observed_path,), _ = trace.result()
        web.sh("nft", "delete table ip once")
    assert (code, observed_path["outcome"], observed_path["observed"]["where"]) == (
        1,
        "dropped",
        town.names["web"],
    )


def test_it_ends_when_its_time_is_up(town: Town) -> None:
    started = time.monotonic()
    code, observed_paths, notes = town.trace("web", "api:9", "--live", "--timeout", "0.5")
    assert (code, observed_paths) == (2, [])
    assert len(notes) == 1
    assert 0.5 <= time.monotonic() - started < 20


def test_a_ping_is_told_before_its_answer(town: Town, family: int) -> None:
    for _ in range(5):
        _, observed_paths, _ = town.trace("web", "api", "--proto", "icmp", "--reverse", f"-{family}")
        assert [observed_path["minimal"].startswith("answer") for observed_path in observed_paths] == [
            False,
            True,
        ]


# --- several at once -------------------------------------------------------------------------------------------------


def test_four_at_once_and_each_sees_the_rules(town: Town) -> None:
    with contextlib.ExitStack() as stack:
        traces = [stack.enter_context(town.live("web", "db:9", "--proto", "udp")) for _ in range(TRACES_MAX)]
        assert len(set(town.tables())) == TRACES_MAX
        fifth = town.host.sealane("trace", *town.words("web", "api:9"), check=False)
        assert (fifth.returncode, fifth.stdout) == (1, "")
        assert f"{TRACES_MAX} traces are running" in fifth.stderr
        town.boxes["web"].ns.probe("udp", town.boxes["db"].v4, 9)
        for trace in traces:
            code, (observed_path,), notes = trace.result()
            assert (code, notes) == (1, [])
            assert observed_path["observed"]["reason"].startswith("network back takes nothing")
    eventually(lambda: nothing_is_on(town), what="they are off")


# --- ends ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_client_that_hangs_up_ends_it(town: Town, number: int) -> None:
    with town.live("web", "api:9", timeout="600") as trace:
        assert len(programs(town)) == 5
        trace.process.send_signal(number)
        trace.process.wait(100)
        eventually(lambda: nothing_is_on(town), what="it is off")


def test_after_a_trace_nothing_is_on(town: Town) -> None:
    town.trace("web", "api:9")
    eventually(lambda: nothing_is_on(town), what="it is off")


def test_the_engine_takes_no_notice(town: Town) -> None:
    """Our table is no drift, and repairs nothing."""
    before = town.host.api.status()
    with town.live("web", "api:9", timeout="600"):
        assert town.host.sealane("audit").returncode == 0
        assert town.host.api.status()["repairs"] == before["repairs"]
        assert town.tables(), "it is still on"
    # The harness reads `nft -j`, and nft 1.0.6 writes half a document where a table has an owner.
    eventually(lambda: nothing_is_on(town), what="it is off")
    assert audit(town.host) == []


def test_a_daemon_that_stops_takes_it_along(lan: Lan) -> None:
    with Host(lan, number=3).start() as host:
        small = Town(host)
        with small.live("web", "api:9", timeout="600"):
            assert len(programs(small)) == 5
            started = time.monotonic()
            host.stop()
            assert time.monotonic() - started < 60
            eventually(lambda: nothing_is_on(small), what="it is off")


def test_a_daemon_that_is_killed_leaves_nothing_on(lan: Lan) -> None:
    with Host(lan, number=3).start() as host:
        small = Town(host)
        with small.live("web", "api:9", timeout="600"):
            assert len(programs(small)) == 5
            host.kill9()
            eventually(lambda: nothing_is_on(small), what="it is off")
        host.start()
        assert small.trace("web", "api:9")[0] == 0


# --- load ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def flooded(
    town: Town, source: str, target: str, seconds: float, pause_s: float = 0
) -> Iterator["subprocess.Popen[str]"]:
    """Datagrams as fast as one process sends them, eight at a time."""
    code = FLOOD.format(address=town.boxes[target].v4, seconds=seconds, pause_s=pause_s)
    enter = ["nsenter", f"--net={town.boxes[source].ns.path}", "--", sys.executable, "-c", code]
    process = subprocess.Popen(enter, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_one_packet_among_many_others_is_not_lost(town: Town) -> None:
    """Others' traffic is looked at and not recorded."""
    with flooded(town, "near", "far", 3) as flood:
        for _ in range(3):
            code, (observed_path,), notes = town.trace("web", "api:9", "--proto", "udp")
            assert (code, observed_path["agrees"], notes) == (0, True, ["sender's result: refused"])
            assert len(observed_path["observed"]["hops"]) == 3
        out, _ = flood.communicate(timeout=100)
    assert int(out) > 10_000


def test_more_than_can_be_read_is_said_and_does_not_hang(town: Town) -> None:
    """All of the flood is asked for: the one that dies is told, the daemon answers meanwhile, and losses are noted."""
    with (
        flooded(town, "near", "far", 2),
        town.live("near", "far:5000", "--proto", "udp", mode="--dropped", timeout="2") as trace,
    ):
        town.host.api.status()
        code, observed_paths, notes = trace.result()
    assert (code, observed_paths) == (2, [])
    assert notes[0].startswith("no packet was dropped")


# --- where it is not allowed -----------------------------------------------------------------------------------------


def test_without_the_right_it_says_so() -> None:
    """In a user namespace of its own, as in a container without privileges."""
    source = textwrap.dedent(
        """
        from sealane.explain.traced.event import Pattern
        from sealane.linux.tracing.tracer import Tracer, TracingUnavailableError
        try:
            Tracer([Pattern(proto="tcp", family=4)], {})
        except TracingUnavailableError as error:
            print(error)
        """
    )
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-c", source],
        env={**os.environ, "PYTHONPATH": os.path.join(root, "src")},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.stdout == "packets cannot be followed: create map sl_seen: Operation not permitted\n", (
        done.stderr
    )


def test_a_reader_that_keeps_up_loses_nothing(town: Town) -> None:
    """Far more goes through the ring than fits into it at once, while the kernel writes it on another core."""
    near, far = town.boxes["near"], town.boxes["far"]
    pattern = Pattern(proto="udp", family=4, source=near.v4, destination=far.v4, destination_port=5000)
    seen = 0
    with (
        Follower([pattern], btf.read()) as follower,
        flooded(town, "near", "far", 1.5, pause_s=0.001) as flood,
    ):
        deadline = time.monotonic() + 100
        while flood.poll() is None and time.monotonic() < deadline:
            follower.wait(0.05)
            seen += sum(1 for _ in follower.read())
        seen += sum(1 for _ in follower.read())
        assert follower.lost == 0
    assert seen * RECORD.size > 2 * RING_BYTES


@pytest.mark.parametrize("version", [4, 6])
def test_the_verifier_takes_programs_of_many_patterns(version: Literal[4, 6]) -> None:
    address = "10.71.0.2" if version == 4 else "fd71::2"
    pattern = Pattern(
        proto="tcp", family=version, source=address, source_port=1, destination=address, destination_port=2
    )
    with Follower([pattern] * 8, btf.read()) as follower:
        assert follower.lost == 0
