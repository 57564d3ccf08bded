"""Settings of the host's own that we change as long as we need them: what they were, kept where a crash leaves it.

Whoever switches forwarding on changes more than he says (`inet_forward_change`, net/ipv4/devinet.c, and
`addrconf_fixup_forwarding`, net/ipv6/addrconf.c): the same setting of each link and of links to come, and with IPv4 whether
redirects are believed. What those were is remembered with it.

The file is in the runtime directory, which goes with the machine as the settings do, and says of which boot it is.
"""

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress

import msgspec

from sealane.kernel.links import Bridge
from sealane.kernel.objects import Sysctl
from sealane.linux import sysctl
from sealane.linux.netlink import link
from sealane.linux.netlink.socket import Socket

_IPV4, _IPV6 = "net/ipv4/conf", "net/ipv6/conf"
FORWARDING = {4: "net/ipv4/ip_forward", 6: f"{_IPV6}/all/forwarding"}
"""By family: the switches of all links."""

_TREES = {FORWARDING[4]: _IPV4, FORWARDING[6]: _IPV6}
_OURS = ("sle", "slb")
_REDIRECTS = f"{_IPV4}/all/accept_redirects"


class Loan(msgspec.Struct, frozen=True):
    value: str
    """What we have set."""
    former: str
    beside: dict[str, str]
    """What else the kernel changed with it, and was otherwise before."""
    bridges: tuple[str, ...] = ()
    """Of others, that were there then."""


class _File(msgspec.Struct):
    boot: str
    loans: dict[str, Loan]


_KEPT = msgspec.json.Decoder(_File)


class Borrowed:
    def __init__(self, path: str, boot: str) -> None:
        """`path`: empty, nothing is kept. Raises OSError if the file cannot be read: what must come back is unknown then."""
        self._path, self._boot = path, boot
        self.loans: dict[str, Loan] = _read(path, boot) if path else {}

    def perform(self, verb: str, item: Sysctl, socket: Socket) -> None:
        """Set it, or give it back. What is the host's own is remembered before it is another, so that no crash is between.
        Raises ValueError, OSError."""
        if verb == "delete":
            self.give_back(item.path)
            return
        if item.borrowed:
            self.take(item.path, item.value, lambda: _bridges(socket))
        sysctl.write(item.path, item.value)

    def take(self, path: str, value: str, bridges: Callable[[], Collection[str]] = tuple) -> None:
        """Remember what a setting is, before it becomes `value`. Idempotent: what we have set ourselves is not remembered.
        Raises OSError, and then it must not be set."""
        former = sysctl.read(path)
        if former is None or former == sysctl.normal(value):
            return
        beside = dict(_beside(path))
        known = self.loans.get(path)
        if known is not None and former == known.former:
            # Somebody has put it back meanwhile, with all of its kind: what each link had before counts still.
            beside |= known.beside
        self._keep({**self.loans, path: Loan(value, former, beside, tuple(sorted(bridges())))})

    def give_back(self, path: str) -> None:
        """Make a setting what it was, unless somebody has changed it since. Idempotent. Raises OSError."""
        loan = self.loans.get(path)
        if loan is None:
            return
        if sysctl.read(path) == sysctl.normal(loan.value):
            # What somebody has changed since of what came along is his, too.
            now = {beside: sysctl.read(beside) for beside in (*loan.beside, *_of_ours(path))}
            sysctl.write(path, loan.former)
            for beside, is_now in now.items():
                former = loan.beside.get(beside)
                desired = former if former is not None and is_now == _when_on(beside) else is_now
                if desired is not None and sysctl.read(beside) != desired:
                    sysctl.write(beside, desired)
        self._keep({known: other for known, other in self.loans.items() if known != path})

    def links(self, setting: str) -> Iterator[str]:
        """Links of which a setting of IPv6 is borrowed, as long as they are there."""
        for path in self.loans:
            parts = path.split("/")
            if path.startswith(f"{_IPV6}/") and parts[4:] == [setting] and sysctl.read(path) is not None:
                yield parts[3]

    def _keep(self, loans: Mapping[str, Loan]) -> None:
        if self._path:
            _write(self._path, _File(self._boot, dict(loans)))
        self.loans = dict(loans)


def _bridges(socket: Socket) -> set[str]:
    found = (link.parse(payload) for _, payload in socket.dump(link.dump()))
    return {raw.name for raw in found if isinstance(raw.kind, Bridge)}


def _beside(path: str) -> Iterator[tuple[str, str]]:
    """What will change with a switch of forwarding, and is not yet what it will be."""
    tree = _TREES.get(path)
    if tree is None:
        return
    names = [name for name in _links(tree) if name != "all"]
    paths = [f"{tree}/{name}/forwarding" for name in names]
    if path == FORWARDING[4]:
        paths.append(_REDIRECTS)
    for other in paths:
        value = sysctl.read(other)
        # A link that forwards already would stop with the others.
        if value is not None and value != _when_off(other):
            yield other, value


def _of_ours(path: str) -> list[str]:
    """What goes on forwarding by itself: links of networks that need no switch."""
    tree = _TREES.get(path)
    if tree is None:
        return []
    return [f"{tree}/{name}/forwarding" for name in _links(tree) if name.startswith(_OURS)]


def _links(tree: str) -> Sequence[str]:
    with suppress(OSError):
        return sorted(os.listdir(f"/proc/sys/{tree}"))
    return ()


def _when_on(beside: str) -> str:
    """What the kernel makes of a setting when forwarding is switched on: no redirects, and forwarding everywhere."""
    return "0" if beside == _REDIRECTS else "1"


def _when_off(beside: str) -> str:
    return "1" if beside == _REDIRECTS else "0"


def _read(path: str, boot: str) -> dict[str, Loan]:
    try:
        with open(path, "rb") as file:
            kept = _KEPT.decode(file.read())
    except (FileNotFoundError, msgspec.DecodeError):
        return {}
    return kept.loans if kept.boot == boot else {}


def _write(path: str, kept: _File) -> None:
    """In one piece: the kernel's settings go with a crash of the machine, so only one of ours is to be survived."""
    temporary = f"{path}.new"
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(msgspec.json.encode(kept))
    os.replace(temporary, path)
