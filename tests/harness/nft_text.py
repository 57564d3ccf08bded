"""nft's language as sealane prints it, read back to records.

Knows the text and nothing of how it was made: of the code under test it takes the records and the named loads. What it
does not know is a `ValueError`, never a guess. A rule's comment begins with the rule's tag, so a rule that is read as
another one is found out by its text alone.
"""

import re
import socket
import sys
from ipaddress import ip_network
from itertools import accumulate

from sealane.kernel import nft
from sealane.kernel.nft import (
    BitTest,
    Chain,
    Cmp,
    CmpPrefix,
    CmpRange,
    Concat,
    Counter,
    Ct,
    DnatMap,
    Element,
    Fib,
    Hook,
    Lookup,
    Masquerade,
    Meta,
    Notrack,
    ObservedChain,
    Rule,
    Set,
    Snat,
    Table,
    Verdict,
    VerdictMap,
)

LOADS = {
    "iifname": nft.IIFNAME,
    "oifname": nft.OIFNAME,
    "iifgroup": nft.IIFGROUP,
    "oifgroup": nft.OIFGROUP,
    "meta l4proto": nft.L4PROTO,
    "meta protocol": Meta("protocol"),
    "th dport": nft.DPORT,
    "th sport": nft.SPORT,
    "ip saddr": nft.IP_SADDR,
    "ip daddr": nft.IP_DADDR,
    "ip6 saddr": nft.IP6_SADDR,
    "ip6 daddr": nft.IP6_DADDR,
    "icmp type": nft.ICMP_TYPE,
    "icmpv6 type": nft.ICMPV6_TYPE,
    "@th,64,64": nft.ND_TARGET[0],
    "@th,128,64": nft.ND_TARGET[1],
    "ether daddr": nft.ETHER_DADDR,
    "ether saddr": nft.ETHER_SADDR,
    "ether type": nft.ETHER_TYPE,
    "@nh,0,48": nft.ARP_HEAD,
    "arp saddr ether": nft.ARP_SENDER_MAC,
    "arp saddr ip": nft.ARP_SENDER_IP,
    "ct state": Ct("state"),
    "ct status": Ct("status"),
    "ct direction": Ct("direction"),
    "fib daddr type": Fib(),
    "fib saddr type": Fib(of_source=True),
}
NAMES = {load: name for name, load in LOADS.items()}
PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "ipv6-icmp": 58, "sctp": 132}
FRAME_TYPES = {"ip": 0x0800, "arp": 0x0806, "ip6": 0x86DD}
ICMPV6_TYPES = {
    "nd-router-solicit": 133,
    "nd-router-advert": 134,
    "nd-neighbor-solicit": 135,
    "nd-neighbor-advert": 136,
    "nd-redirect": 137,
}
CT_BITS = {
    "state": {"invalid": 1, "established": 2, "related": 4, "new": 8, "untracked": 64},
    "status": {"snat": 16, "dnat": 32},
}
DIRECTIONS = {"original": 0, "reply": 1}
ROUTE_TYPES = {"local": 2}
PRIORITIES = {
    "ip": {"raw": -300, "mangle": -150, "dstnat": -100, "filter": 0, "security": 50, "srcnat": 100},
    "bridge": {"dstnat": -300, "filter": -200, "out": 100, "srcnat": 300},
}
PRIORITIES["ip6"] = PRIORITIES["ip"]
ADDRESS_BITS = {"ipv4_addr": 32, "ipv6_addr": 128}
VERDICT = re.compile(r"(?:accept|drop|return|(?:jump|goto) \S+)")
QUOTED = re.compile(r'("(?:[^"\\]|\\.)*")')
GROUPS = re.compile(r"0x[0-9a-f]{8}(?:-0x[0-9a-f]{8})?")
RAW = re.compile(r"0x([0-9a-f]*)(?:-0x([0-9a-f]*))?")


def split(text, separator):
    """At separators outside quotes."""
    parts = [""]
    for number, piece in enumerate(QUOTED.split(text)):
        first, *rest = [piece] if number % 2 else piece.split(separator)
        parts[-1] += first
        parts += rest
    return parts


def chosen(table, word):
    if word not in table:
        raise ValueError(f"{word!r} is none of {', '.join(table)}")
    return table[word]


# --- statements -----------------------------------------------------------------------------------------------------


class Words:
    """Words of a line from left to right."""

    def __init__(self, text):
        self.rest = [word for word in split(text, " ") if word]

    def take(self, *expected):
        """The next word, which is one of the expected ones if there are any."""
        if not self.rest or (expected and self.rest[0] not in expected):
            raise ValueError(f"expected {expected or 'a word'} at {self.rest}")
        return self.rest.pop(0)

    def has(self, word):
        """Whether `word` is next; then it is taken."""
        return self.rest[:1] == [word] and bool(self.rest.pop(0))

    def reference(self):
        """`@name`."""
        word = self.take()
        if not re.fullmatch("@.+", word):
            raise ValueError(f"{word!r} is no reference to a set")
        return word[1:]

    def load(self):
        found = [self._one_load()]
        while self.has("."):
            found.append(self._one_load())
        return found[0] if len(found) == 1 else Concat(tuple(found))

    def _one_load(self):
        for name in accumulate(self.rest[:3], lambda left, right: f"{left} {right}"):
            if name in LOADS:
                del self.rest[: len(name.split())]
                return LOADS[name]
        raise ValueError(f"no load: {self.rest}")


def statements(family, text):
    words = Words(text)
    found = []
    while words.rest:
        found.append(_statement(family, words))
    return tuple(found)


def _statement(family, words):
    match words.rest[0]:
        case "accept" | "drop" | "return":
            return Verdict(words.take())
        case "jump" | "goto":
            return Verdict(words.take(), words.take())
        case "counter":
            words.take()
            return Counter()
        case "notrack":
            words.take()
            return Notrack()
        case "masquerade":
            words.take()
            words.take("fully-random")
            return Masquerade()
        case "snat":
            words.take()
            words.take("to")
            return Snat(words.take())
        case "dnat":
            return _dnat(family, words)
    return _match(words)


def _dnat(family, words):
    """With a port only if the family is named: nft asks for it where data are a concatenation."""
    words.take("dnat")
    with_port = words.has(family)
    words.take("to")
    load = words.load()
    words.take("map")
    return DnatMap(load, words.reference(), with_port)


def _match(words):
    load = words.load()
    if words.has("vmap"):
        return VerdictMap(load, words.reference())
    negate = words.has("!=")
    if words.rest and words.rest[0].startswith("@"):
        return Lookup(load, words.reference(), negate)
    op, shown = "!=" if negate else "==", words.take()
    if isinstance(load, Ct) and load.key in CT_BITS and not negate:
        bits = CT_BITS[load.key]
        return BitTest(load, sum(chosen(bits, word) for word in shown.split(",")), shown)
    if "/" in shown:
        return CmpPrefix(load, op, shown)
    try:
        return Cmp(load, op, _value(load, shown), shown)
    except ValueError:
        if negate:
            raise
        return CmpRange(load, *_bounds(lambda part: _value(load, part), shown), shown)


def _bounds(read, text):
    """`LOW-HIGH`, of which each may have dashes of its own."""
    for dash in re.finditer("-", text):
        try:
            return read(text[: dash.start()]), read(text[dash.end() :])
        except ValueError:
            continue
    raise ValueError(f"{text!r} is neither a value nor a range")


def _value(load, text):
    match load:
        case Meta(key="iifname" | "oifname"):
            name = unquoted(text)
            return name[:-1] if name.endswith(b"*") else name.ljust(16, b"\0")
        case Meta(key="iifgroup" | "oifgroup"):
            return value("devgroup", text)
        case Meta(key="l4proto"):
            return value("inet_proto", text)
        case Meta(key="protocol") | nft.ETHER_TYPE:
            return chosen(FRAME_TYPES, text).to_bytes(2)
        case Ct(key="direction"):
            return bytes([chosen(DIRECTIONS, text)])
        case Fib():
            return chosen(ROUTE_TYPES, text).to_bytes(4, sys.byteorder)
        case nft.DPORT | nft.SPORT:
            return value("inet_service", text)
        case nft.ICMP_TYPE:
            return bytes([{"redirect": 5, "router-advertisement": 9}[text]])
        case nft.ICMPV6_TYPE:
            return bytes([ICMPV6_TYPES[text] if text in ICMPV6_TYPES else int(text)])
        case nft.ARP_HEAD:
            return bytes.fromhex(text.removeprefix("0x"))
        case nft.ETHER_SADDR | nft.ETHER_DADDR | nft.ARP_SENDER_MAC:
            return value("ether_addr", text)
        case nft.IP_SADDR | nft.IP_DADDR | nft.ARP_SENDER_IP:
            return value("ipv4_addr", text)
        case nft.IP6_SADDR | nft.IP6_DADDR:
            return value("ipv6_addr", text)
        case _ if load in nft.ND_TARGET:
            return value("integer", text)
    raise ValueError(f"nothing is compared with {load}")


def rule(family, text):
    found = re.fullmatch(r'(.*?) ?comment "([0-9a-f]{16})(?: ([^"]+))?"', text)
    if not found:
        raise ValueError(f"no rule: {text}")
    result = Rule(statements(family, found[1]), found[3] or "")
    if result.tag() != found[2]:
        raise ValueError(f"{text} is the text of another rule than {result}")
    return result


# --- values and elements --------------------------------------------------------------------------------------------


def unquoted(text):
    """A name's bytes: printable ones as they are, others as `\\x00`."""
    if not QUOTED.fullmatch(text) or not text.isascii() or not text.isprintable():
        raise ValueError(f"{text!r} is no quoted name")
    return re.sub(rb"\\x([0-9a-f]{2})", lambda code: bytes.fromhex(code[1].decode()), text[1:-1].encode())


def value(kind, text):
    """One value of a type, unpadded."""
    match kind:
        case "ifname":
            return unquoted(text).ljust(16, b"\0")
        case "devgroup" if re.fullmatch("0x[0-9a-f]{8}", text):
            return int(text, 16).to_bytes(4, sys.byteorder)
        case "ipv4_addr":
            return _address(socket.AF_INET, text)
        case "ipv6_addr":
            return _address(socket.AF_INET6, text)
        case "ether_addr" if re.fullmatch("[0-9a-f]{2}(:[0-9a-f]{2}){5}", text):
            return bytes.fromhex(text.replace(":", ""))
        case "inet_proto" if text in PROTOCOLS:
            return bytes([PROTOCOLS[text]])
        case "inet_proto" if text.isdecimal():
            return bytes([int(text)])
        case "inet_service" if text.isdecimal():
            return int(text).to_bytes(2)
        case "integer" if re.fullmatch("0x[0-9a-f]{1,16}", text):
            return int(text, 16).to_bytes(8)
    raise ValueError(f"{text!r} is no {kind}")


def _address(family, text):
    try:
        return socket.inet_pton(family, text)
    except OSError as error:
        raise ValueError(f"{text!r} is no address") from error


def span(kind, text):
    """First and last of `10.1.0.0/24`, `80-90` or one value."""
    if kind in ADDRESS_BITS and "/" in text:
        network = ip_network(text)
        return network.network_address.packed, network.broadcast_address.packed
    try:
        return (value(kind, text),) * 2
    except ValueError:
        return _bounds(lambda part: value(kind, part), text)


def joined(parts):
    """A concatenation: each of several fields fills whole registers of 4 bytes."""
    return parts[0] if len(parts) == 1 else b"".join(part + bytes(-len(part) % 4) for part in parts)


def is_raw(kinds, text):
    """Bytes that no type explains; device groups look like four of them and are explained."""
    return bool(RAW.fullmatch(text)) and not (kinds == ("devgroup",) and GROUPS.fullmatch(text))


def element(family, owner, name, text):
    """`owner` is the set if it is known; in an interval set one value is a range of one."""
    key, *data = split(text, " : ")
    value, end = _key(owner, key)
    return Element(family=family, set=name, value=value, end=end, data=_datum(owner, *data) if data else b"")


def _key(owner, text):
    if text == "*":
        return b"", b""
    kinds = owner.type if owner else ()
    if is_raw(kinds, text):
        return tuple(bytes.fromhex(part or "") for part in RAW.fullmatch(text).groups())
    spans = [span(*pair) for pair in zip(kinds, split(text, " . "), strict=True)]
    lows, highs = zip(*spans, strict=True)
    return joined(lows), joined(highs) if owner.interval else b""


def _datum(owner, text):
    if VERDICT.fullmatch(text):
        return Verdict(*text.split())
    kinds = owner.data if owner else ()
    if is_raw(kinds, text):
        return bytes.fromhex(text.removeprefix("0x"))
    return joined([value(*pair) for pair in zip(kinds, split(text, " . "), strict=True)])


# --- sets, hooks, tables --------------------------------------------------------------------------------------------


def a_set(family, word, name, kinds, *, interval):
    """From `type ipv4_addr . inet_service : verdict`, or from `typeof` and what it is compared with."""
    for types, loads in nft.TYPEOF.items():
        if kinds == f"typeof {' . '.join(NAMES[load] for load in loads)}":
            kinds = f"type {' . '.join(types)}"
    key, _, data = kinds.removeprefix("type ").partition(" : ")
    if (word == "map") != bool(data):
        raise ValueError(f"a {word} of {kinds}")
    return Set(
        family=family,
        name=name,
        type=() if key == "unknown" else tuple(key.split(" . ")),
        data=tuple(data.split(" . ")) if data else (),
        interval=interval,
    )


def hook(family, text):
    found = re.fullmatch(r"type (\w+) hook (\w+) priority (.*); policy accept;", text)
    if not found:
        raise ValueError(f"no hook: {text}")
    name, sign, offset = (*found[3].split(" "), "+", "0")[:3]
    base = int(name) if re.fullmatch(r"-?\d+", name) else chosen(PRIORITIES[family], name)
    return Hook(found[1], found[2], base + int(sign + offset))


def chain(family, name, where, rules):
    """Of rules that are known by their tags only it is an observed chain."""
    tags = [found and found[1] for found in (re.fullmatch(r'\.\.\. comment "(.*)"', text) for text in rules)]
    if tags and all(tags):
        return ObservedChain(family=family, name=name, hook=where, tags=tuple(tags))
    return Chain(family=family, name=name, hook=where, rules=tuple(rule(family, text) for text in rules))


BLOCK = re.compile(r"\n*\t(set|map|chain) (\S+) \{\n((?:\t\t.*\n)*)\t\}\n")


def ruleset(text):
    """The objects of a table as `nft list table` prints it; none of the empty text."""
    if not text:
        return []
    head, _, rest = text.partition("\n")
    found = re.fullmatch(r"table (\w+) sealane \{", head)
    if not found:
        raise ValueError(f"no table: {head}")
    family = found[1]
    result = [Table(family=family)]
    while block := BLOCK.match(rest):
        body = [line.removeprefix("\t\t") for line in block[3].splitlines()]
        result += (
            _chain_block(family, block[2], body) if block[1] == "chain" else _set_block(family, block, body)
        )
        rest = rest[block.end() :]
    if rest.strip("\n") != "}":
        raise ValueError(f"what is left of a table: {rest!r}")
    return result


def _chain_block(family, name, body):
    where = hook(family, body[0]) if body and body[0].startswith("type ") else None
    return [chain(family, name, where, body[where is not None :])]


def _set_block(family, block, body):
    kinds, *rest = body
    interval = rest[:1] == ["flags interval"]
    owner = a_set(family, block[1], block[2], kinds, interval=interval)
    listed = "".join(line.strip() for line in rest[interval:])
    if not listed:
        return [owner]
    inner = re.fullmatch(r"elements = \{ (.*) \}", listed)[1]
    return [owner, *(element(family, owner, owner.name, text) for text in split(inner, ","))]
