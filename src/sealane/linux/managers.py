"""Who else looks after firewall and links on this host, by the files that they leave: nothing is asked of them."""

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress

from sealane.explain.doctor.evidence import ConfigFile, Managers

FILES_MAX = 256
FILE_BYTES = 64 << 10

_NFTABLES_FILES = ("/etc/nftables.conf", "/etc/sysconfig/nftables.conf")
"""Debian's and Arch's; Fedora's."""
_WANTS = ("/etc/systemd/system/sysinit.target.wants", "/etc/systemd/system/multi-user.target.wants")
"""A unit is enabled if its name is there (systemctl(1))."""
_UFW = "/etc/ufw/ufw.conf"
_NETWORKD_RUNS = "/run/systemd/netif/state"
_NETWORKD = (
    "/etc/systemd/network",
    "/run/systemd/network",
    "/usr/local/lib/systemd/network",
    "/usr/lib/systemd/network",
)
"""The first that has a file of a name wins (systemd.network(5))."""
_NETWORK_MANAGER_RUNS = "/run/NetworkManager"
_NETWORK_MANAGER = (
    "/usr/lib/NetworkManager/conf.d",
    "/run/NetworkManager/conf.d",
    "/etc/NetworkManager/NetworkManager.conf",
    "/etc/NetworkManager/conf.d",
)
"""In the order in which they are read (NetworkManager.conf(5))."""


def read_managers() -> Managers:
    """Raises OSError for a file that is there and cannot be read."""
    firewalls = [
        name
        for name, is_on in (
            ("ufw", "ENABLED=yes" in _words(_UFW)),
            ("netfilter-persistent", _is_enabled("netfilter-persistent.service")),
        )
        if is_on
    ]
    flushes = [
        path
        for path in _NFTABLES_FILES
        if _is_enabled("nftables.service") and "flush ruleset" in _rules(path)
    ]
    return Managers(
        firewalls=tuple(firewalls),
        flushes=tuple(flushes),
        networkd=tuple(_networkd()) if os.path.exists(_NETWORKD_RUNS) else (),
        network_manager=tuple(_network_manager()) if os.path.isdir(_NETWORK_MANAGER_RUNS) else None,
    )


def _is_enabled(unit: str) -> bool:
    return any(os.path.lexists(f"{directory}/{unit}") for directory in _WANTS)


def _text(path: str) -> str:
    """Empty for a file that is not there."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(FILE_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return ""


def _words(path: str) -> list[str]:
    return [line.strip() for line in _text(path).splitlines()]


def _rules(path: str) -> list[str]:
    """Lines without comments, their blanks made one space."""
    return [" ".join(line.partition("#")[0].rstrip(" ;").split()) for line in _text(path).splitlines()]


def _networkd() -> Iterable[ConfigFile]:
    paths: dict[str, str] = {}
    for directory in _NETWORKD:
        for path in _listed(directory, ".network"):
            paths.setdefault(os.path.basename(path), path)
    return [ConfigFile(paths[name], _text(paths[name])) for name in sorted(paths)[:FILES_MAX]]


def _network_manager() -> Iterable[ConfigFile]:
    paths = [path for place in _NETWORK_MANAGER for path in _listed(place, ".conf")]
    return [ConfigFile(path, _text(path)) for path in paths[:FILES_MAX]]


def _listed(place: str, suffix: str) -> Sequence[str]:
    if place.endswith(suffix):
        return [place]
    with suppress(FileNotFoundError, NotADirectoryError):
        return [f"{place}/{name}" for name in sorted(os.listdir(place)) if name.endswith(suffix)]
    return []
