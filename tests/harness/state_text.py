"""What sealane prints of the kernel's state and of plans, read back: the state, and what a plan makes of it.

As `nft_text`, it knows the text alone: records, no printer.
"""

import json
import re

import msgspec

from harness import nft_text
from harness.links import KINDS, changed
from harness.nft_text import split
from sealane.kernel.links import Bridge
from sealane.kernel.nft import Chain, Set, Table
from sealane.kernel.objects import (
    Address,
    BridgePort,
    FastGate,
    FastPort,
    FastTarget,
    FdbEntry,
    ForwardRule,
    Link,
    LoopbackPort,
    Neighbour,
    Qdisc,
    Route,
    RoutingRule,
    Sysctl,
)

FAMILY = "(ip|ip6|bridge)"
PORT_WORDS = {name: name for name in ("isolated", "learning", "flood", "guard", "hairpin")}
PORT_WORDS |= {"bcast_flood": "broadcast", "state": "forwarding"}
FLAGS = {"up", "down", "onlink", "nodad"}
"""Words of one line that no value follows."""


def word(text):
    """A name as it is, or quoted as in JSON."""
    return json.loads(text) if text.startswith('"') else text


def fields(words):
    """`mtu 1500 up` as a dictionary; a word that denies, `nomaster`, has no value either."""
    found = {}
    rest = list(words)
    while rest:
        name = rest.pop(0)
        if name in found:
            raise ValueError(f"{name} is said twice")
        found[name] = "" if name in FLAGS or is_denial(name) else word(rest.pop(0))
    return found


def is_denial(name):
    return name.startswith("no") and name != "nodad"


# --- links ----------------------------------------------------------------------------------------------------------


def with_words(link, words):
    """The link with what the words say."""
    found = fields(words)
    if "peer" in found and "netns" in found:
        found["peer"] = (found.pop("netns"), found["peer"])
    port = {field: found.pop(name) == "on" for name, field in PORT_WORDS.items() if name in found}
    if port:
        link = msgspec.structs.replace(link, port=msgspec.structs.replace(link.port or BridgePort(), **port))
    denied = [name.removeprefix("no") for name in found if is_denial(name)]
    always = {*PORT_WORDS} - {"bcast_flood", "state"}
    if always & {*denied}:
        assert always <= {*denied}, "a port that is half gone"
        link = msgspec.structs.replace(link, port=None)
    said = {name: text for name, text in found.items() if not is_denial(name)}
    if "type" in said:
        link = _with_field(link, "type", said.pop("type"))
    for name in denied:
        if name not in PORT_WORDS:
            link = _with_field(link, name, None)
    for name, text in said.items():
        link = _with_field(link, name, text)
    return link


def _with_field(link, name, text):
    """A field that the link's kind has not is left out: it went with another kind."""
    own = {*link.__struct_fields__, *link.kind.__struct_fields__}
    return changed(link, **{f: value for f, value in _link_field(name, text).items() if f in own})


def _link_field(name, text):
    """One word as a field; with no text, as the default that it goes back to."""
    default = {item.name: item.default for item in msgspec.structs.fields(Link)}
    match name:
        case "up" | "down":
            return {"up": name == "up"}
        case "type":
            return {"kind": KINDS[text]()}
        case "mtu":
            return {"mtu": default["mtu"] if text is None else int(text)}
        case "address":
            return {"mac": text or ""}
        case "alias" | "master":
            return {name: text or ""}
        case "peer":
            # An end that is handed over has no namespace yet.
            is_handed_over = isinstance(text, str)
            return {"peer": None if is_handed_over else text, "handover": text if is_handed_over else ""}
        case "link" | "mode":
            return {"parent" if name == "link" else "mode": text or ""}
        case "ageing_time" if text in {None, "0"}:
            return {"ageing_off": text == "0"}
        case "stp_state" | "mcast_snooping" if text in {"0", "1"}:
            return {"stp" if name == "stp_state" else "snooping": text == "1"}
        case "arp" if text in {"on", "off"}:
            return {"arp": text == "on"}
        case "addrgenmode" if text in {None, "none"}:
            return {"addr_gen_none": text == "none"}
        case "group":
            return {"group": default["group"] if text is None else int(text, 16)}
    raise ValueError(f"a link has no {name} {text}")


# --- other objects of rtnetlink -------------------------------------------------------------------------------------


def route(words):
    kind = words.pop(0) if words[0] == "unreachable" else "unicast"
    dst = words.pop(0)
    found = fields(words)
    if dst == "default":
        dst = "::/0" if ":" in found.get("via", "") else "0.0.0.0/0"
    assert found.pop("proto") == "94"
    result = Route(
        dst=dst,
        type=kind,
        gateway=found.pop("via", ""),
        link=found.pop("dev", ""),
        src=found.pop("src", ""),
        metric=int(found.pop("metric", 0)),
        table=int(found.pop("table", 254)),
        onlink=found.pop("onlink", None) == "",
    )
    assert not found, found
    return result


def neighbour(words):
    if words[0] == "proxy":
        _, address, dev, link = words
        assert dev == "dev"
        return Neighbour(address=address, link=word(link))
    address, lladdr, mac, dev, link, *rest = words
    assert [lladdr, dev, *rest] == ["lladdr", "dev", "nud", "permanent"]
    return Neighbour(address=address, mac=mac, link=word(link))


def routing_rule(words):
    found = fields(words)
    assert found.keys() == {"from", "lookup", "priority", "proto"}
    assert found["proto"] == "94"
    return RoutingRule(source=found["from"], table=int(found["lookup"]), priority=int(found["priority"]))


def loopback_port(words):
    proto, here, to, there, *rest = words
    bound, _, ports = here.rpartition(":")
    address, _, port = there.rpartition(":")
    first, _, last = ports.partition("-")
    assert to == "to"
    assert rest[:1] in ([], ["reserved"])
    family = {"127.0.0.0/8": 4, "[::1]": 6}[bound]
    return LoopbackPort(
        family=family,
        proto=proto,
        first=int(first),
        last=int(last or first),
        address=address[1:-1] if family == 6 else address,
        port=int(port),
        reserved=rest[1] if rest else "",
    )


def qdisc(words):
    dev, link, *rest = words
    *kind, _, rate, _, burst, _, limit = rest
    assert [dev, *kind, *rest[4::2]] == ["dev", "root", "handle", "5ea1:", "tbf", "rate", "burst", "limit"]
    bits = int(rate.removesuffix("bit"))
    assert bits % 8 == 0
    return Qdisc(
        link=word(link),
        rate=bits // 8,
        burst=int(burst.removesuffix("b")),
        limit=int(limit.removesuffix("b")),
    )


def fast_port(words):
    dev, link, *rest, driver = words
    assert [dev, *rest] == ["dev", "ingress", "pref", "24225", "bpf"]
    return FastPort(link=word(link), driver="" if driver == "unknown" else driver)


def fast(words):
    if words[0] == "gate":
        _, driver, family = words
        return FastGate(driver=driver, family={"ip": 4, "ip6": 6}[family])
    address, *rest = words
    found = fields(rest)
    source = found.pop("source", "")
    assert source in {"", "only"}
    result = FastTarget(
        address=address,
        link=found.pop("dev", ""),
        network=int(found.pop("group"), 16),
        mac=found.pop("lladdr", ""),
        host_mac=found.pop("from", ""),
        mtu=int(found.pop("mtu")),
        delivers=not source,
    )
    assert not found, found
    return result


def sysctl(text):
    path, value = split(text.removesuffix(" borrowed"), "=")
    return Sysctl(path=word(path), value=word(value), borrowed=text.endswith(" borrowed"))


def rtnetlink(text):
    """One line, said with `add` or `del` alike."""
    kind, _, rest = text.partition(" ")
    if kind == "sysctl":
        return sysctl(rest)
    verb, *words = split(rest, " ")
    assert verb in {"add", "del"}, text
    match kind:
        case "link":
            return with_words(Link(name=word(words[0]), kind=Bridge()), words[1:])
        case "addr":
            address, dev, link, *nodad = words
            assert dev == "dev"
            assert nodad == (["nodad"] if ":" in address else [])
            return Address(address=address, link=word(link))
        case "route":
            return route(words)
        case "rule":
            return routing_rule(words)
        case "neigh":
            return neighbour(words)
        case "fdb":
            mac, dev, link, *rest = words
            assert [dev, *rest] in (["dev", "master", "static"], ["dev", "self", "permanent"])
            return FdbEntry(mac=mac, link=word(link), is_own=rest[0] == "self")
        case "qdisc":
            return qdisc(words)
        case "filter":
            return fast_port(words)
        case "fast":
            return fast(words)
        case "forward-rule":
            family, *chain, link, accept = words
            assert [*chain, accept] == ["filter", "FORWARD", "accept"]
            return ForwardRule(family=family, link=word(link))
        case "loopback":
            return loopback_port(words)
    raise ValueError(f"no object: {text}")


# --- states ---------------------------------------------------------------------------------------------------------

NFT = re.compile(
    rf"(add|insert|delete) (table|set|map|element|chain|rule) {FAMILY} sealane(?: (\S+))?(?: (.*))?"
)


def state(text, sets=()):
    """Objects from their lines. Elements are read by the sets among them or among `sets`; chains come with their rules,
    which follow them."""
    owners = {(item.family, item.name): item for item in sets}
    found = []
    rules = {}
    for line in text.split("\n"):
        command = NFT.fullmatch(line)
        if not command:
            found += [rtnetlink(line)] if line else []
            continue
        assert command[1] == "add", line
        _, kind, family, name, rest = command.groups()
        if kind == "rule":
            rules[family, name].append(rest)
        elif kind == "chain":
            where = nft_text.hook(family, inner(rest)) if rest else None
            rules[family, name] = []
            found.append((family, name, where))
        else:
            found.append(nft_object(kind, family, name, rest, owners))
            if isinstance(found[-1], Set):
                owners[family, name] = found[-1]
    return [nft_text.chain(*item, rules[item[:2]]) if isinstance(item, tuple) else item for item in found]


def inner(braces):
    return re.fullmatch(r"\{ (.*) \}", braces)[1]


def nft_object(kind, family, name, rest, owners):
    if kind == "table":
        return Table(family=family)
    if kind == "element":
        return nft_text.element(family, owners.get((family, name)), name, inner(rest))
    kinds, *flags = [part.strip() for part in inner(rest).split(";")[:-1]]
    assert flags in ([], ["flags interval"]), rest
    return nft_text.a_set(family, kind, name, kinds, interval=bool(flags))


# --- plans ----------------------------------------------------------------------------------------------------------


def performed(before, plan, sets=()):
    """A namespace's state after a plan, of which each line begins with its sign."""
    after = dict(before)
    owners = {(item.family, item.name): item for item in sets}
    for line in plan:
        sign, text = line[0], line[2:]
        command = NFT.fullmatch(text)
        if command:
            _nft_step(after, sign, command, owners)
        elif text.startswith("link del "):
            del after["link", word(text.removeprefix("link del "))]
        elif text.startswith("link set "):
            name, *words = split(text.removeprefix("link set "), " ")
            key = ("link", word(name))
            after[key] = with_words(after[key], words)
        else:
            item = rtnetlink(text)
            _put(after, sign, item)
    return after


def _put(after, sign, item):
    """`+` is new, `~` is there and differs, `-` is there."""
    assert (item.key in after) is (sign != "+"), f"{sign} {item}"
    if sign == "-":
        del after[item.key]
    else:
        assert after.get(item.key) != item, "nothing changes"
        after[item.key] = item


def _nft_step(after, sign, command, owners):
    verb, kind, family, name, rest = command.groups()
    key = {"table": ("nft-table", family), "chain": ("nft-chain", family, name)}.get(
        kind, ("nft-set", family, name)
    )
    match verb, kind:
        case _, "rule":
            key = ("nft-chain", family, name)
            after[key] = msgspec.structs.replace(after[key], rules=_rules(after[key], verb, rest))
        case "delete", "table" | "chain" | "set" | "map":
            del after[key]
        case "add", "chain":
            old = after.get(key)
            assert (old is not None) is (sign == "~")
            where = nft_text.hook(family, inner(rest)) if rest else None
            after[key] = Chain(family=family, name=name, hook=where, rules=old.rules if old else ())
        case _:
            _put(after, sign, nft_object(kind, family, name, rest, owners))


def _rules(chain, verb, text):
    """`add` puts a rule at the end, `insert … index N` before the N-th, `delete` takes all with its tag away."""
    if verb == "delete":
        tag = re.fullmatch(r'comment "(\S+)"', text)[1]
        assert tag in chain.tags
        return tuple(rule for rule in chain.rules if rule.tag() != tag)
    place = len(chain.rules)
    if verb == "insert":
        index, text = re.fullmatch(r"index (\d+) (.*)", text).groups()
        assert int(index) < place
        place = int(index)
    return (*chain.rules[:place], nft_text.rule(chain.family, text), *chain.rules[place:])
