"""The publisher without a kernel: what it refuses, and how a missing feature is put into words."""

from __future__ import annotations

import errno

import pytest

from sealane.linux.bpf import loopback, syscall
from sealane.linux.bpf.loopback import BpfError, LoopbackEntry, LoopbackPublisher
from sealane.linux.bpf.programs import HOOKS, PEERS, TARGETS
from sealane.linux.bpf.refusal import why

V4 = bytes([10, 0, 0, 2])


def tcp(first: int, last: int, proto="tcp") -> LoopbackEntry:
    return LoopbackEntry(4, proto, first, last, V4, first)


@pytest.mark.parametrize(
    "entries",
    [
        [tcp(80, 80), LoopbackEntry(4, "tcp", 80, 80, V4, 81)],
        [tcp(1, 1000), tcp(500, 501)],
        [tcp(500, 501), tcp(1, 1000), tcp(700, 701)],
        [tcp(1, 10), tcp(10, 20)],
    ],
)
def test_overlapping_entries_are_refused(entries):
    with pytest.raises(ValueError, match="first, last: .* overlaps"):
        loopback._elements_by_key(entries)


def test_neighbours_other_protocols_and_repetitions_do_not_overlap():
    entries = [tcp(80, 80), tcp(81, 90), tcp(80, 80, "udp"), tcp(80, 80)]
    elements = loopback._elements_by_key(entries)
    assert all(key == element.key for key, element in elements.items())
    assert len(elements) == 1 + 5 + 1


def test_a_publisher_that_is_not_open_says_so(tmp_path):
    publisher = LoopbackPublisher(str(tmp_path / "pins"))
    for use in (publisher.entries, lambda: publisher.apply([])):
        with pytest.raises(ValueError, match="not open"):
            use()
    publisher.close()
    publisher.detach()
    assert not (tmp_path / "pins").exists()


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (errno.EPERM, "CAP_BPF|first user namespace"),
        (errno.ENOPROTOOPT, "SO_NETNS_COOKIE"),
        (errno.ENOSYS, r"no bpf\(2\)"),
        (errno.EINVAL, "load program"),
    ],
)
def test_a_refusal_becomes_a_reason(code, text):
    import re

    assert re.search(text, why(BpfError(code, "load program x: refused")))


def test_of_a_verifiers_log_the_line_that_matters_is_told():
    log = "0: (bf) r6 = r1\n17: (85) call bpf_redirect_peer#155\nunknown func bpf_redirect_peer#155\nprocessed 18 insns\n"
    text = why(BpfError(errno.EINVAL, f"load program x: Invalid argument; verifier: {log}"))
    assert text == "load program x: Invalid argument: unknown func bpf_redirect_peer#155"


def test_a_pin_is_recognised_by_its_whole_name():
    assert loopback._PIN_NAME.fullmatch("connect4-0123456789ab")
    assert loopback._PIN_NAME.fullmatch("targets-0123456789ab")
    for name in (
        "connect4",
        "connect4-0123",
        "connect4-0123456789abc",
        "connect4-0123456789ab\n",
        "x-0123456789ab",
    ):
        assert not loopback._PIN_NAME.fullmatch(name)


def test_names_fit_the_kernels_fifteen_bytes():
    names = [TARGETS.name, PEERS.name, *(f"sl_{hook.name}" for hook in HOOKS)]
    assert len({name[:15] for name in names}) == len(names)
    assert all(len(name) <= 15 for name in names)


def test_an_unknown_machine_is_told(monkeypatch):
    monkeypatch.setattr(syscall.platform, "machine", lambda: "vax")
    monkeypatch.setattr(syscall, "_NUMBER", None)
    with pytest.raises(BpfError, match="no known number on vax") as error:
        syscall.map_create(TARGETS)
    assert error.value.errno == errno.ENOSYS
