"""A network's members, indexed by what can be asked, and the checked step from one record of it to the next."""

import ipaddress
from collections import Counter
from typing import TypeVar

import dns.rdatatype

from sealane.dns import wire
from sealane.dns.records import ZoneError, ZoneMember, ZoneNetwork
from sealane.dns.wire import Address

Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network

_Key = TypeVar("_Key")


class SubnetTable:
    """Counted subnets; "is this address in one of them?" costs a look-up a distinct prefix length."""

    def __init__(self) -> None:
        self._by_length: dict[tuple[int, int], Counter[int]] = {}

    def add(self, subnet: Subnet) -> None:
        self._by_length.setdefault((subnet.version, _host_bits(subnet)), Counter())[_prefix(subnet)] += 1

    def discard(self, subnet: Subnet) -> None:
        key = (subnet.version, _host_bits(subnet))
        counts = self._by_length[key]
        counts[_prefix(subnet)] -= 1
        if not counts[_prefix(subnet)]:
            del counts[_prefix(subnet)]
        if not counts:
            del self._by_length[key]

    def __contains__(self, address: Address) -> bool:
        number, version = int(address), address.version
        return any(
            version == of_version and (number >> host_bits) in prefixes
            for (of_version, host_bits), prefixes in self._by_length.items()
        )


def _host_bits(subnet: Subnet) -> int:
    return subnet.max_prefixlen - subnet.prefixlen


def _prefix(subnet: Subnet) -> int:
    return int(subnet.network_address) >> _host_bits(subnet)


class Member:
    """A ZoneMember as it is asked for: wire names, parsed addresses, records ready to send."""

    __slots__ = ("addresses", "names", "pointer", "record", "records", "sandbox", "short")

    def __init__(self, record: ZoneMember, network: ZoneNetwork) -> None:
        self.record = record
        self.sandbox = (record.sandbox, "" if record.sandbox else record.endpoint)
        self.names = [wired for name in record.names if (wired := wire.wire_name(name))]
        self.short = wire.wire_name(record.short) if record.short else None
        field = f"member {record.endpoint}: addresses"
        self.addresses = [_address(network, field, text) for text in record.addresses]
        self.records = [_record_of(address) for address in self.addresses]
        self.pointer = _pointer(record, network)
        for text in record.upstreams:
            _address(network, f"member {record.endpoint}: upstreams", text)


def _record_of(address: Address) -> tuple[int, bytes]:
    rrtype = int(dns.rdatatype.A if address.version == 4 else dns.rdatatype.AAAA)
    return rrtype, wire.record_owned_by_question(rrtype, str(address))


def _pointer(record: ZoneMember, network: ZoneNetwork) -> bytes | None:
    """The PTR record towards ``name.network``, or None if DNS cannot carry that name."""
    name = f"{record.names[0]}.{network.name}." if record.names else ""
    return wire.record_owned_by_question(wire.PTR, name) if wire.wire_name(name) else None


class NetworkIndex:
    """Inner dictionaries, by endpoint, keep the order in which members came."""

    def __init__(self, record: ZoneNetwork) -> None:
        self.record = record
        self.suffix: bytes | None = None
        """The network's name in wire form, under which its members are reached by ``name.network``."""
        self.subnets: tuple[Subnet, ...] = ()
        self.table = SubnetTable()
        self.members: dict[str, Member] = {}
        self.called: dict[bytes, dict[str, Member]] = {}
        self.shortly: dict[bytes, dict[str, Member]] = {}
        self.owners: dict[Address, dict[str, Member]] = {}

    def describe(self, record: ZoneNetwork, suffix: bytes | None, subnets: tuple[Subnet, ...]) -> None:
        """Take over all but the members."""
        self.record, self.suffix, self.subnets, self.table = record, suffix, subnets, SubnetTable()
        for subnet in subnets:
            self.table.add(subnet)

    def add(self, member: Member) -> None:
        endpoint = member.record.endpoint
        self.members[endpoint] = member
        for name in member.names:
            self.called.setdefault(name, {})[endpoint] = member
        if member.short is not None:
            self.shortly.setdefault(member.short, {})[endpoint] = member
        for address in member.addresses:
            self.owners.setdefault(address, {})[endpoint] = member

    def discard(self, member: Member) -> None:
        endpoint = member.record.endpoint
        del self.members[endpoint]
        for name in dict.fromkeys(member.names):
            _discard(self.called, name, endpoint)
        if member.short is not None:
            _discard(self.shortly, member.short, endpoint)
        for address in dict.fromkeys(member.addresses):
            _discard(self.owners, address, endpoint)


def _discard(index: dict[_Key, dict[str, Member]], key: _Key, endpoint: str) -> None:
    del index[key][endpoint]
    if not index[key]:
        del index[key]


class Change:
    """A checked step from what is held of a network to its next record, built whole before anything is touched.

    Raises ZoneError.
    """

    def __init__(self, record: ZoneNetwork, current: NetworkIndex | None) -> None:
        self.record = record
        self.suffix = wire.wire_name(record.name)
        self.subnets = tuple(_subnet(record, text) for text in record.subnets)
        for text in record.listen:
            _address(record, "listen", text)
        for text in record.upstreams:
            _address(record, "upstreams", text)
        desired = {member.endpoint: member for member in record.members}
        if len(desired) != len(record.members):
            raise ZoneError(f"network {record.name}: members: an endpoint is listed twice")
        held = current.members if current else {}
        # PTR answers carry the network's name, so a renamed network makes new members of all.
        is_renamed = current is not None and current.record.name != record.name
        self.gone = [
            member
            for endpoint, member in held.items()
            if is_renamed or _differs(member.record, desired.get(endpoint))
        ]
        kept = held.keys() - {member.record.endpoint for member in self.gone}
        self.come = [Member(member, record) for endpoint, member in desired.items() if endpoint not in kept]


def _differs(held: ZoneMember, desired: ZoneMember | None) -> bool:
    return held is not desired and held != desired


def _address(network: ZoneNetwork, field: str, text: str) -> Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError as error:
        raise ZoneError(f"network {network.name}: {field}: {error}") from None


def _subnet(network: ZoneNetwork, text: str) -> Subnet:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise ZoneError(f"network {network.name}: subnets: {error}") from None
