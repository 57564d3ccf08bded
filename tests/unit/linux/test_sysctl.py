"""Sysctl paths and values: only below `net`, only one printable line."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealane.linux import sysctl


@pytest.mark.parametrize(
    "path",
    [
        "net/ipv4/ip_forward",
        "net/ipv4/conf/eth0/forwarding",
        "net/ipv4/conf/eth0.10/forwarding",
        "net/ipv6/conf/a@b/x",
    ],
)
def test_paths_of_the_network_are_taken(path):
    sysctl.check(path)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "net",
        "net/ipv4",
        "/net/ipv4/ip_forward",
        "/proc/sys/net/ipv4/ip_forward",
        "kernel/core_pattern",
        "net/../kernel/core_pattern",
        "net/ipv4/../../kernel/core_pattern",
        "net/ipv4/./ip_forward",
        "net//ipv4/ip_forward",
        "net/ipv4/ip_forward/",
        "net.ipv4.ip_forward",
        "net/ipv4/conf/a b/forwarding",
        "net/ipv4/conf/a\n/forwarding",
        "net/ipv4/conf/a\0/forwarding",
        "net/ipv4/conf/ä/forwarding",
        "net/ipv4/" + "x" * 300,
    ],
)
def test_every_other_path_is_refused_before_anything_is_opened(path, monkeypatch):
    monkeypatch.setattr(os, "open", lambda *_: pytest.fail("opened"))
    for call in (sysctl.check, sysctl.read, lambda p: sysctl.write(p, "1")):
        with pytest.raises(ValueError, match="a path such as"):
            call(path)


@pytest.mark.parametrize("value", ["", "1\n2", "1\n", "1\0", "\x1b[0m", "é", "1\r", "x" * 2000])
def test_values_that_are_no_single_line_are_refused(value, monkeypatch):
    monkeypatch.setattr(os, "open", lambda *_: pytest.fail("opened"))
    with pytest.raises(ValueError, match="not one line of printable ASCII"):
        sysctl.write("net/ipv4/ip_forward", value)


@pytest.mark.parametrize("value", ["0", "1", "4096 131072 6291456", "4096\t131072", "cubic", "-1", "+1"])
def test_values_of_one_line_are_taken(value):
    sysctl.check("net/ipv4/x", value)


@given(st.text(max_size=60))
def test_whatever_is_taken_stays_below_net(path):
    try:
        sysctl.check(path)
    except ValueError:
        return
    assert os.path.normpath(f"/proc/sys/{path}").startswith("/proc/sys/net/")
    assert os.path.normpath(f"/proc/sys/{path}") == f"/proc/sys/{path}"


@given(
    st.lists(st.text(alphabet="0123456789", min_size=1), min_size=1, max_size=4),
    st.sampled_from([" ", "\t", "  \t"]),
)
def test_blanks_do_not_tell_values_apart(words, blank):
    assert sysctl.normal(blank.join(words) + "\n") == " ".join(words)


def test_a_value_is_read_and_an_absent_one_is_none():
    assert (sysctl.read("net/ipv4/conf/lo/forwarding") or "") in {"0", "1"}
    assert sysctl.read("net/ipv4/conf/no_such_link/forwarding") is None
    assert sysctl.read("net/ipv4/ip_forward/below") is None
