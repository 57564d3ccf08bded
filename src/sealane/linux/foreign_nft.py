"""Tables of nftables that are not ours, as far as `doctor` asks: base chains, who is let through, which ports are sent
elsewhere. Rules are skimmed, not decompiled: what is not known is taken for a condition.

iptables-nft makes tables like any other; its DNAT, REDIRECT and REJECT are xtables' targets in them. Its older
versions (before 1.8.8) match ports by xtables' too. (net/netfilter/nft_compat.c; iptables/nft-shared.c)
"""

import errno
import ipaddress
import struct
from collections.abc import Iterator
from typing import Literal

from sealane.explain.doctor.evidence import BaseChain, ForeignTable, NftTableFamily, PortRule
from sealane.kernel.nft import TABLE
from sealane.linux.netlink import codec, nfnl
from sealane.linux.netlink.socket import NetlinkError, Socket

TABLES_MAX = 256
RULES_MAX = 20_000
"""Of one table: a host with more has a firewall that is looked after by more than a doctor."""

_FAMILIES: dict[int, NftTableFamily] = {1: "inet", 2: "ip", 7: "bridge", 10: "ip6"}
_OURS = frozenset({"ip", "ip6", "bridge"})
_PROTOS = {6: "tcp", 17: "udp", 132: "sctp"}
_PORT_MAX = 65535

_META_L4PROTO = 16
_META_IIFNAME = 6
_META_LINKS = frozenset({6, 7, 17, 18})
"""iifname, oifname, and of bridges ibrname, obrname."""
_NETWORK, _TRANSPORT = 1, 2
_SOURCE_OFFSETS = {12: 4, 8: 16}
_DESTINATION_OFFSETS = {16: 4, 24: 16}
"""Of addresses in the headers → their bytes, IPv4's and IPv6's."""
_PROTO_OFFSET = 9
_EQ, _LTE, _GTE = 0, 3, 5
_DROP, _ACCEPT = 0, 1
FIREWALLD = "firewalld"
"""Its table."""
_HARMLESS = frozenset({"counter", "log", "immediate", "reject"})
_SENDING_TARGETS = frozenset({"DNAT", "REDIRECT"})
_XT_PORTS = struct.Struct("=HHHH")


def foreign_tables(socket: Socket) -> list[ForeignTable]:
    """Of the namespace of `socket`. Raises NetlinkError, with EMSGSIZE past a bound."""
    names = [
        (header, codec.text(table[1]))
        for header, table in _dump(socket, nfnl.GETTABLE)
        if header in _FAMILIES
    ]
    foreign = [(number, name) for number, name in names if name != TABLE or _FAMILIES[number] not in _OURS]
    if not foreign:
        return []
    if len(foreign) > TABLES_MAX:
        raise NetlinkError(errno.EMSGSIZE, f"there are more than {TABLES_MAX} tables")
    chains: dict[tuple[int, str], list[dict[int, memoryview]]] = {}
    for number, chain in _dump(socket, nfnl.GETCHAIN):
        chains.setdefault((number, codec.text(chain[1])), []).append(chain)
    return [_table(socket, number, name, chains.get((number, name), [])) for number, name in foreign]


def _table(socket: Socket, number: int, name: str, chains: list[dict[int, memoryview]]) -> ForeignTable:
    skimmed: dict[str, list[Skimmed]] = {}
    try:
        answers = list(_dump(socket, nfnl.GETRULE, number, codec.string(1, name)))
    except NetlinkError as error:
        if error.errno != errno.ENOENT:  # It has gone meanwhile.
            raise
        answers = []
    if len(answers) > RULES_MAX:
        raise NetlinkError(errno.EMSGSIZE, f"table {name} has more than {RULES_MAX} rules")
    for _, rule in answers:
        skimmed.setdefault(codec.text(rule[2]), []).append(Skimmed(rule.get(4, _EMPTY)))
    every = [(chain, rule) for chain, rules in skimmed.items() for rule in rules]
    accepting = {chain for chain, rules in skimmed.items() if rules and rules[-1].is_final_accept}
    letting = [rule for _, rule in every if rule.leads_to in accepting or rule.accepts]
    if name == FIREWALLD:
        # It accepts what comes by a link of such a zone: in 1.x in the zone's chains, in 2.x where it dispatches. Of every
        # zone it accepts what stays in it: that is no such rule.
        letting = [rule for rule in letting if rule.is_by_link]
    return ForeignTable(
        family=_FAMILIES[number],
        name=name,
        chains=tuple(_base_chain(chain, skimmed) for chain in chains if 4 in chain),
        lets=tuple(dict.fromkeys(name for rule in letting for name in rule.names)),
        translates=tuple(port for chain, rule in every if (port := rule.port_rule(chain)) is not None),
    )


def _base_chain(chain: dict[int, memoryview], skimmed: dict[str, list["Skimmed"]]) -> BaseChain:
    hook = codec.attrs(chain[4])
    number = nfnl.number(hook[1])
    name = codec.text(chain[3])
    rules = skimmed.get(name, [])
    drops: Literal["", "policy", "rule"] = ""
    if nfnl.number(chain.get(5)) != nfnl.POLICY_ACCEPT and 5 in chain:
        drops = "policy"
    elif rules and rules[-1].is_final_drop:
        drops = "rule"
    counters = codec.attrs(chain[8]) if 8 in chain else {}
    return BaseChain(
        name=name,
        hook=nfnl.HOOKS[number] if number < len(nfnl.HOOKS) else str(number),
        drops=drops,
        rules=len(rules),
        dropped=nfnl.number(counters[2]) if drops == "policy" and 2 in counters else None,
    )


class Skimmed:
    """What one rule's expressions say, as far as it is known here."""

    def __init__(self, expressions: memoryview) -> None:
        self.names: list[str] = []
        """Links and prefixes that must match."""
        self.accepts = self.is_final_drop = self.is_final_accept = False
        self.leads_to = ""
        """The chain that it jumps to."""
        self._sends = self._refuses = False
        self._proto = self._address = ""
        self._first, self._last = 1, _PORT_MAX
        self._has_port = False
        self._loaded: tuple[int, ...] = ()
        self._keys: set[int] = set()
        """Of meta: what was loaded by any of the expressions."""
        self._mask = b""
        seen = []
        for _, payload in codec.attr_list(expressions):
            expression = codec.attrs(payload)
            name = codec.text(expression.get(1, _EMPTY))
            seen.append(name)
            self._feed(name, codec.attrs(expression.get(2, _EMPTY)))
        self.is_final_drop = self._refuses and set(seen) <= _HARMLESS | {"target"}
        self.is_final_accept = self.accepts and set(seen) <= _HARMLESS
        self.is_by_link = self._keys == {_META_IIFNAME} and set(seen) <= _HARMLESS | {"meta", "cmp"}

    def port_rule(self, chain: str) -> PortRule | None:
        if not self._sends or not self._has_port:
            return None
        return PortRule(
            chain=chain, proto=self._proto, first=self._first, last=self._last, address=self._address
        )

    def _feed(self, name: str, data: dict[int, memoryview]) -> None:
        match name:
            case "meta" if 2 in data:
                self._loaded, self._mask = (nfnl.number(data[2]),), b""
                self._keys.add(self._loaded[0])
            case "payload" if {2, 3, 4} <= data.keys():
                self._loaded, self._mask = (
                    (nfnl.number(data[2]), nfnl.number(data[3]), nfnl.number(data[4])),
                    b"",
                )
            case "bitwise" if 4 in data:
                self._mask = _value(data[4])
            case "cmp" if {2, 3} <= data.keys():
                self._compare(nfnl.number(data[2]), _value(data[3]))
            case "range" if {2, 3, 4} <= data.keys() and nfnl.number(data[2]) == _EQ:
                self._compare(_GTE, _value(data[3]))
                self._compare(_LTE, _value(data[4]))
            case "match":
                self._extension(codec.text(data.get(1, _EMPTY)), bytes(data.get(3, _EMPTY)))
            case _:
                self._act(name, data)

    def _act(self, name: str, data: dict[int, memoryview]) -> None:
        target = codec.text(data.get(1, _EMPTY)) if name == "target" else ""
        verdict = (
            codec.attrs(codec.attrs(data[2]).get(2, _EMPTY)) if name == "immediate" and 2 in data else {}
        )
        if 1 in verdict:
            code = nfnl.number(verdict[1])
            self.accepts = code == _ACCEPT
            self._refuses = code == _DROP
            self.leads_to = codec.text(verdict.get(2, _EMPTY))
        elif name == "reject" or target == "REJECT":
            self._refuses = True
        elif (
            target in _SENDING_TARGETS or name == "redir" or (name == "nat" and nfnl.number(data.get(1)) == 1)
        ):
            self._sends = True

    def _compare(self, op: int, value: bytes) -> None:
        match self._loaded:
            case (key,) if key in _META_LINKS and op == _EQ:
                name, end, _ = value.partition(b"\0")
                self.names.append(name.decode("ascii", "replace") + ("" if end else "*"))
            case (key,) if key == _META_L4PROTO and op == _EQ:
                self._proto = _PROTOS.get(int.from_bytes(value, "little"), "?")
            case (base, offset, 1) if (base, offset) == (_NETWORK, _PROTO_OFFSET) and op == _EQ:
                self._proto = _PROTOS.get(int.from_bytes(value, "little"), "?")
            case (base, offset, 2) if (base, offset) == (_TRANSPORT, 2):
                self._port(op, int.from_bytes(value, "big"))
            case (base, offset, size) if base == _NETWORK and op == _EQ:
                self._prefix(offset, size, value)
            case _:
                pass

    def _port(self, op: int, port: int) -> None:
        self._has_port = self._has_port or op in {_EQ, _GTE, _LTE}
        if op in {_EQ, _GTE}:
            self._first = port
        if op in {_EQ, _LTE}:
            self._last = port

    def _prefix(self, offset: int, size: int, value: bytes) -> None:
        """An address, or its first bytes, or what a mask leaves of it."""
        width = _SOURCE_OFFSETS.get(offset) or _DESTINATION_OFFSETS.get(offset)
        if width is None or not len(value) == size <= width:
            return
        bits = sum(byte.bit_count() for byte in self._mask) if self._mask else 8 * size
        address = ipaddress.ip_address(value + bytes(width - len(value)))
        self.names.append(f"{address}/{bits}")
        if offset in _DESTINATION_OFFSETS and bits == 8 * width:
            self._address = str(address)

    def _extension(self, name: str, info: bytes) -> None:
        if name in {"tcp", "udp"} and len(info) >= _XT_PORTS.size:
            _, _, self._first, self._last = _XT_PORTS.unpack_from(info)
            self._proto, self._has_port = name, (self._first, self._last) != (0, _PORT_MAX)


_EMPTY = memoryview(b"")


def _dump(
    socket: Socket, kind: int, family: int = 0, attrs: bytes = b""
) -> Iterator[tuple[int, dict[int, memoryview]]]:
    """Family 0: all. Each answer's family and attributes."""
    for _, payload in socket.dump(nfnl.dump_every(kind, family, attrs)):
        yield payload[0], codec.attrs(payload[nfnl.HEADER_BYTES :])


def _value(payload: memoryview) -> bytes:
    return bytes(codec.attrs(payload).get(1, _EMPTY))
