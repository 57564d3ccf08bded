"""resolv.conf is read as resolv.conf(5) says, and followed."""

import os
from pathlib import Path

import pytest

from sealane.dns.resolvconf import ResolvConf, Resolver, host_resolver, nameservers, searches


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("nameserver 192.0.2.1\nnameserver 2001:DB8::1\n", ("192.0.2.1", "2001:db8::1")),
        (
            "# nameserver 192.0.2.9\n; x\nsearch a b\noptions ndots:1\n\tnameserver\t192.0.2.1 # dns\n",
            ("192.0.2.1",),
        ),
        ("nameserver fe80::1%eth0\n", ("fe80::1%eth0",)),
        ("nameserver 192.0.2.1\n" * 5 + "nameserver 192.0.2.2\n", ("192.0.2.1", "192.0.2.2")),
        ("".join(f"nameserver 192.0.2.{n}\n" for n in range(9)), ("192.0.2.0", "192.0.2.1", "192.0.2.2")),
        ("nameserver dns.example\nnameserver\nnameserver 1.2.3\nnameserverx 192.0.2.1\n", ("127.0.0.1",)),
        ("", ("127.0.0.1",)),
        ("\0\x1b[nameserver", ("127.0.0.1",)),
    ],
)
def test_servers_are_read(text: str, servers: tuple[str, ...]) -> None:
    assert nameservers(text) == servers


@pytest.mark.parametrize(
    ("text", "domains"),
    [
        ("nameserver 192.0.2.1\nsearch a.example b.example\n", ("a.example", "b.example")),
        ("search a\ndomain b\n", ("b",)),
        ("domain a\nsearch b c b\n", ("b", "c")),
        ("search .\n", ()),
        ("search\n", ()),
        ("# search a\nsearching b\n", ()),
    ],
)
def test_search_domains_are_read(text: str, domains: tuple[str, ...], tmp_path: Path) -> None:
    assert searches(text) == domains
    (tmp_path / "resolv.conf").write_text(text)
    assert host_resolver(str(tmp_path / "resolv.conf")) == Resolver(nameservers(text), domains)
    assert host_resolver(str(tmp_path / "none")) == Resolver()


def follow(path: Path) -> ResolvConf:
    conf = ResolvConf(str(path))
    assert conf.refresh()
    return conf


def test_a_rewritten_file_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 192.0.2.1\n")
    conf = follow(path)
    assert not conf.refresh()
    path.write_text("nameserver 192.0.2.77\n")
    assert conf.refresh()
    assert conf.servers == ("192.0.2.77",)


def test_a_swapped_symbolic_link_is_seen_even_with_equal_sizes_and_times(tmp_path: Path) -> None:
    """As systemd-resolved and NetworkManager do it."""
    for number in (1, 2):
        (tmp_path / f"conf{number}").write_text(f"nameserver 192.0.2.{number}\n")
        os.utime(tmp_path / f"conf{number}", ns=(1, 1))
    path = tmp_path / "resolv.conf"
    path.symlink_to("conf1")
    conf = follow(path)
    (tmp_path / "new").symlink_to("conf2")
    (tmp_path / "new").rename(path)
    assert conf.refresh()
    assert conf.servers == ("192.0.2.2",)


def test_a_file_that_is_gone_for_a_moment_leaves_the_servers_in_force(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 192.0.2.1\n")
    conf = follow(path)
    path.unlink()
    assert not conf.refresh()
    assert conf.servers == ("192.0.2.1",)
    path.write_text("nameserver 192.0.2.2\n")
    assert conf.refresh()
    assert conf.servers == ("192.0.2.2",)


def test_a_missing_file_is_no_error_at_the_start(tmp_path: Path) -> None:
    conf = ResolvConf(str(tmp_path / "none"))
    assert not conf.refresh()
    assert conf.servers == ()


def test_an_endless_file_is_read_in_part() -> None:
    conf = ResolvConf("/dev/zero")
    conf.refresh()
    assert conf.servers == ("127.0.0.1",)
