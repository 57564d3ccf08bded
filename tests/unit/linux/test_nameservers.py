"""resolv.conf as a doctor reads it."""

import os

import pytest

from sealane.linux.nameservers import ask, of_process, parse


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("nameserver 192.0.2.53\n", ["192.0.2.53"]),
        ("search lan\n  nameserver\t::1 # ours\nnameserver fe80::1%eth0\n", ["::1", "fe80::1"]),
        ("nameserver 192.0.2.53\nnameserver 192.0.2.53\n", ["192.0.2.53"]),
        ("#nameserver 192.0.2.53\nnameserver\nnameserver example.org\n", []),
        ("", []),
    ],
)
def test_the_servers_of_a_file(text, servers):
    assert parse(text) == servers


def test_a_process_that_is_gone():
    assert of_process(2**22 - 1) is None


def test_our_own_file_is_found_below_our_root():
    with open("/etc/resolv.conf", encoding="utf-8", errors="replace") as file:
        assert of_process(os.getpid()) == tuple(parse(file.read()))


def test_nobody_is_asked():
    assert ask([], lambda: False) == {}
