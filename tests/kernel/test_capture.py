"""`sealane capture` on real links, its files read by tcpdump."""

import json
import os
import re
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.host import Host, Workload
from harness.netns import eventually

pytestmark = pytest.mark.kernel

PORT = 80
VLAN = 7


@pytest.fixture(scope="module")
def pair(shared_host: Host) -> Iterator[tuple[Workload, Workload]]:
    api = shared_host.api
    api.network("front", "10.63.0.0/24")
    api.network("empty", "10.64.0.0/24")
    with shared_host.workload("front", "web") as web, shared_host.workload("front", "db") as db:
        db.ns.listen("udp", "0.0.0.0", PORT)
        # So that the neighbours' questions are not among the frames.
        eventually(lambda: "answer" in web.ns.probe("udp", db.address(4), PORT), what="they know each other")
        yield web, db
    api.remove_network("front")
    api.remove_network("empty")


@contextmanager
def capturing(machine: Host, file: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A capture that listens, ended as by Ctrl-C."""
    process = machine.sealane_process("capture", *words, "-w", str(file))
    try:
        eventually(
            lambda: (file.exists() and file.stat().st_size > 0) or process.poll() is not None,
            what="it listens",
        )
        yield process
        process.send_signal(signal.SIGINT)
        process.wait(100)
    finally:
        process.kill()
        process.wait(100)
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        process.stderr.close()


def shown(file: Path, *expression: str) -> list[str]:
    """tcpdump's lines."""
    done = subprocess.run(
        ["tcpdump", "-e", "-n", "-t", "-r", str(file), *expression],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    return done.stdout.splitlines()


def test_both_ends_of_a_conversation(
    shared_host: Host, pair: tuple[Workload, Workload], tmp_path: Path
) -> None:
    web, db = pair
    file = tmp_path / "both.pcapng"
    before = time.time()
    with capturing(shared_host, file, web.endpoint, db.endpoint) as process:
        eventually(lambda: "answer" in web.ns.probe("udp", db.address(4), PORT), what="an answer")
        eventually(lambda: len(shown(file, "udp")) >= 4, what="question and answer, twice")
    assert process.returncode == 0
    questions = shown(file, f"udp dst port {PORT}")
    # As often as it was asked, on a machine that stalls.
    assert len(questions) >= 2
    assert len(questions) % 2 == 0
    assert all(f"{web.mac} > {db.mac}" in line and f"{db.address(4)}.{PORT}" in line for line in questions)
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600, "other people's traffic"
    times = re.findall(r"^(\d+\.\d+)", _with_times(file), re.MULTILINE)
    assert all(before <= float(when) <= time.time() for when in times)
    assert times


def _with_times(file: Path) -> str:
    return subprocess.run(
        ["tcpdump", "-n", "-tt", "-r", str(file)], capture_output=True, text=True, timeout=100, check=True
    ).stdout


def test_a_network_is_all_its_endpoints_and_ends_after_a_count(
    shared_host: Host, pair: tuple[Workload, Workload], tmp_path: Path
) -> None:
    web, db = pair
    file = tmp_path / "front.pcapng"
    with capturing(shared_host, file, "front", "-c", "3", "--json") as process:
        web.ns.probe("udp", db.address(4), PORT)
        assert process.wait(100) == 0
        assert process.stdout
        summary = json.load(process.stdout)
    assert (summary["frames"], summary["dropped"], len(summary["interfaces"])) == (3, 0, 2)
    assert all(name.endswith("/front") for name in summary["interfaces"])
    assert len(shown(file)) == 3


def test_a_frame_is_cut_and_its_length_is_kept(
    shared_host: Host, pair: tuple[Workload, Workload], tmp_path: Path
) -> None:
    web, db = pair
    file = tmp_path / "short.pcapng"
    with capturing(shared_host, file, web.endpoint, "-s", "60", "-c", "1"):
        web.ns.python(
            "import socket\n"
            "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
            f"s.sendto(b'x' * 1000, ({db.address(4)!r}, {PORT}))"
        )
        eventually(lambda: len(shown(file)) == 1, what="the frame")
    assert "length 1042" in shown(file)[0]
    assert file.stat().st_size < 700


def test_a_vlan_tag_is_where_it_was_on_the_wire(
    shared_host: Host, pair: tuple[Workload, Workload], tmp_path: Path
) -> None:
    web, _ = pair
    file = tmp_path / "tagged.pcapng"
    tagged = (
        bytes(6 * [0xFF]) + bytes.fromhex(web.mac.replace(":", "")) + bytes.fromhex(f"8100{VLAN:04x}88b5")
    )
    with capturing(shared_host, file, web.endpoint):
        shared_host.ns.python(
            "import socket\n"
            "s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\n"
            f"s.sendto(bytes.fromhex({(tagged + bytes(46)).hex()!r}), ({web.host_link!r}, 0))"
        )
        eventually(lambda: shown(file, "vlan", str(VLAN)), what="the frame")


def test_it_ends_with_its_links(shared_host: Host, pair: tuple[Workload, Workload], tmp_path: Path) -> None:
    with (
        shared_host.workload("front", "passing") as passing,
        capturing(shared_host, tmp_path / "gone.pcapng", passing.endpoint) as process,
    ):
        passing.detach("front")
        assert process.wait(100) == 0


def test_it_ends_when_its_time_is_over_and_can_be_piped(
    shared_host: Host, pair: tuple[Workload, Workload]
) -> None:
    web, _ = pair
    out, err = shared_host.sealane_process("capture", web.endpoint, "--for", "1", text=False).communicate(
        timeout=100
    )
    assert out.startswith(b"\x0a\x0d\x0d\x0a")
    assert re.search(rb"\d+ frames? from 1 link\b", err)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nobody",), "no sandbox, network or endpoint 'nobody'"),
        (("empty",), "the network empty has no endpoints"),
        (("front", "--json"), "--json requires -w FILE"),
        (("front", "-s", "300000"), "not from 1 to 262144 bytes"),
        (("front", "-s", "0"), "not from 1 to 262144 bytes"),
        (("front", "-c", "-1"), "'-1' is not a whole number"),
        (("front", "-w", "/nowhere/at/all"), "No such file"),
    ],
)
def test_what_is_wrong_is_named(
    shared_host: Host, pair: tuple[Workload, Workload], words: tuple[str, ...], message: str
) -> None:
    done = shared_host.sealane("capture", *words, check=False)
    assert done.returncode == 2
    assert message in done.stderr
