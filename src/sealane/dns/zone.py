"""Who sees which names: the whole of the resolver's knowledge and its decisions, without I/O or clock.

Rule 1  An asker is recognised by the network its question arrived on and by its source address.
Rule 2  It sees the names of all networks its sandbox is on; an unknown address of a network's subnets sees that
        network's names only; an address of no such subnet is not answered.
Rule 3  ``name.network`` is tried before bare names, so no alias can stand in for it.
Rule 4  A name that several endpoints carry leads to the addresses of all.
Rule 5  What is known locally is never forwarded, in no type; neither are single labels, names under the asker's
        own networks, nor reverse names of any of our subnets.
Rule 6  A sandbox that is on internal networks only forwards nothing.
Rule 7  What is forwarded goes to the asker's own upstreams, else to those of its networks, else to the host's.
Rule 8  A member's short name leads to it while no member of another first name has it, and no member has it as a name:
        two pods `web-0` of two Kubernetes namespaces are `web-0.shop` and `web-0.blog`, and neither is `web-0`.
"""

import enum
import ipaddress
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import msgspec

from sealane.dns import wire
from sealane.dns.index import Change, Member, NetworkIndex, SubnetTable
from sealane.dns.limits import ANSWER_RECORDS
from sealane.dns.records import ZoneError, ZoneNetwork
from sealane.dns.wire import Address


class Verdict(enum.Enum):
    ANSWER = enum.auto()
    """With the records given; without any, the name exists and has none of this type."""
    NO_SUCH_NAME = enum.auto()
    FORWARD = enum.auto()
    REFUSE = enum.auto()


class Finding(msgspec.Struct, frozen=True):
    verdict: Verdict
    records: tuple[bytes, ...] = ()


_NO_SUCH_NAME = Finding(Verdict.NO_SUCH_NAME)
_FORWARD = Finding(Verdict.FORWARD)
_REFUSE = Finding(Verdict.REFUSE)


class View:
    """What a class of askers sees. It is dropped, with its cache, as soon as one of its networks changes."""

    __slots__ = ("cache", "forwards", "networks", "upstreams")

    def __init__(self, networks: tuple[NetworkIndex, ...], own: tuple[str, ...] = ()) -> None:
        """`own`: upstreams of the asker itself."""
        self.networks = networks
        outward = [network.record for network in networks if not network.record.internal]
        self.forwards = bool(outward)
        configured = own or next((record.upstreams for record in outward if record.upstreams), ())
        self.upstreams = tuple(str(ipaddress.ip_address(server)) for server in configured)
        self.cache: dict[bytes, Callable[[], bytes]] = {}
        """Raw question without its id, to the next of its prepared answers. Kept by the responder."""


class Zone:
    """`searches`: domains that names may end in as if they were not there. Raises ZoneError if one is none."""

    def __init__(self, searches: Iterable[str] = ()) -> None:
        self._searches = frozenset(map(_search_suffix, searches))
        self._networks: dict[str, NetworkIndex] = {}
        self._subnets = SubnetTable()
        self._networks_of: dict[tuple[str, str], Counter[str]] = {}
        self._views: dict[tuple[tuple[str, ...], tuple[str, ...]], View] = {}

    def update(self, changed: Iterable[ZoneNetwork], removed: Iterable[str] = ()) -> None:
        """Take over whole networks; costs what changed in them. Raises ZoneError, and then nothing has changed."""
        gone = dict.fromkeys(network_id for network_id in removed if network_id in self._networks)
        held = self._networks
        latest = {record.id: record for record in changed}
        changes = [
            Change(record, None if name in gone else held.get(name)) for name, record in latest.items()
        ]
        for network_id in gone:
            self._remove(network_id)
        for change in changes:
            self._apply(change)
        touched = gone.keys() | latest.keys()
        self._views = {key: view for key, view in self._views.items() if touched.isdisjoint(key[0])}

    def view(self, arrival: Iterable[str], source: str) -> View | None:
        """The view of an asker on one of the networks its question may have arrived on (Rules 1 and 2)."""
        try:
            address = ipaddress.ip_address(source)
        except ValueError:
            return None
        candidates = [self._networks[network_id] for network_id in arrival if network_id in self._networks]
        candidates = [network for network in candidates if address in network.table]
        if not candidates:
            return None
        home = next((network for network in candidates if address in network.owners), candidates[0])
        ids = [home.record.id]
        own: tuple[str, ...] = ()
        for member in home.owners.get(address, {}).values():
            ids += sorted(self._networks_of[member.sandbox])
            own = own or member.record.upstreams
        return self._view_of(tuple(dict.fromkeys(ids)), own)

    def _view_of(self, ids: tuple[str, ...], own: tuple[str, ...]) -> View:
        view = self._views.get((ids, own))
        if view is None:
            networks = tuple(self._networks[network_id] for network_id in ids)
            view = self._views[ids, own] = View(networks, own)
        return view

    def views(self) -> Iterator[View]:
        return iter(self._views.values())

    def find(self, view: View, name: bytes, rrtype: int) -> Finding:
        """Decide about a lower-case wire name (Rules 3 to 6)."""
        local = self._without_search(name)
        members, is_reserved = _members_called(view, local)
        if members:
            return _finding(members, rrtype)
        address = wire.reverse_address(name)
        if address is not None and address in self._subnets:
            return _reverse_finding(view, address, rrtype)
        if is_reserved or local != name or name in self._searches or wire.is_single_label(name):
            return _NO_SUCH_NAME
        return _FORWARD if view.forwards else _REFUSE

    def _without_search(self, name: bytes) -> bytes:
        if self._searches:
            for cut in wire.label_starts(name):
                if name[cut:] in self._searches:
                    return name[:cut] + b"\x00"
        return name

    def _apply(self, change: Change) -> None:
        network_id = change.record.id
        network = self._networks.setdefault(network_id, NetworkIndex(change.record))
        for subnet in change.subnets:
            self._subnets.add(subnet)
        for subnet in network.subnets:
            self._subnets.discard(subnet)
        network.describe(change.record, change.suffix, change.subnets)
        for member in change.gone:
            self._leave(network, member)
        for member in change.come:
            network.add(member)
            self._networks_of.setdefault(member.sandbox, Counter())[network_id] += 1

    def _leave(self, network: NetworkIndex, member: Member) -> None:
        network.discard(member)
        counts = self._networks_of[member.sandbox]
        counts[network.record.id] -= 1
        if not counts[network.record.id]:
            del counts[network.record.id]
        if not counts:
            del self._networks_of[member.sandbox]

    def _remove(self, network_id: str) -> None:
        network = self._networks.pop(network_id)
        for subnet in network.subnets:
            self._subnets.discard(subnet)
        for member in list(network.members.values()):
            self._leave(network, member)


def _members_called(view: View, name: bytes) -> tuple[list[Member], bool]:
    """The endpoints of that name, and whether the name lies under one of the view's networks."""
    is_reserved = any(name == network.suffix for network in view.networks)
    for cut in wire.label_starts(name):
        suffix = name[cut:]
        for network in view.networks:
            if network.suffix == suffix:
                is_reserved = True
                local = name[:cut] + b"\x00"
                if members := network.called.get(local):
                    return list(members.values()), True
                if found := _shortly_called((network,), local):
                    return _of_one_name(found), True
    found = [member for network in view.networks for member in network.called.get(name, {}).values()]
    if not found and (shortly := _shortly_called(view.networks, name)):
        return _of_one_name(shortly), True
    return found, is_reserved


def _shortly_called(networks: Iterable[NetworkIndex], name: bytes) -> list[Member]:
    return [member for network in networks for member in network.shortly.get(name, {}).values()]


def _of_one_name(members: list[Member]) -> list[Member]:
    """All of them; none if they are of several first names (Rule 8)."""
    return members if len({member.record.names[0] for member in members}) == 1 else []


def _finding(members: list[Member], rrtype: int) -> Finding:
    records = [record for member in members for kind, record in member.records if rrtype in {kind, wire.ANY}]
    return Finding(Verdict.ANSWER, tuple(dict.fromkeys(records))[:ANSWER_RECORDS])


def _reverse_finding(view: View, address: Address, rrtype: int) -> Finding:
    owners = [member for network in view.networks for member in network.owners.get(address, {}).values()]
    if not owners:
        return _NO_SUCH_NAME
    pointers = [owner.pointer for owner in owners if owner.pointer and rrtype in {wire.PTR, wire.ANY}]
    return Finding(Verdict.ANSWER, tuple(dict.fromkeys(pointers))[:ANSWER_RECORDS])


def _search_suffix(text: str) -> bytes:
    wired = wire.wire_name(text)
    if wired is None:
        raise ZoneError(f"search: {text!r} is not a domain name")
    return wired
