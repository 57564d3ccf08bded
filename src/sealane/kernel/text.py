"""Objects and operations as one line each, in the words of `ip`, `bridge`, `nft` and `sysctl`.

For plans, goldens and documents: a canonical text, in which equal objects have equal lines and different ones
different lines, and of which no object makes two. It is never run, and parsed by tests only, which hold that nothing is
lost (`tests/property/test_text.py`).
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from types import MappingProxyType

from sealane.kernel import text_nft
from sealane.kernel.links import Bridge, LinkKind, Macvlan, Veth, word_of
from sealane.kernel.nft import Chain, Element, NftFamily, ObservedChain, Set, Table
from sealane.kernel.objects import (
    GROUP_LIVE,
    RTPROT_SEALANE,
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
from sealane.kernel.state import Object
from sealane.kernel.text_nft import Sets, ruleset

__all__ = ["Sets", "lines", "operation_lines", "ruleset", "sets_of"]

_NO_SETS: Sets = MappingProxyType({})
_MAIN_TABLE = 254
_PLAIN = re.compile(r"[!#-<>-\[\]-~]+")
"""ASCII that is seen, without `"`, `=` and `\\`."""


def sets_of(objects: Iterable[object]) -> dict[tuple[NftFamily, str], Set]:
    """The sets among some objects, by which the elements among them can be read."""
    return {(item.family, item.name): item for item in objects if isinstance(item, Set)}


def lines(item: Object, sets: Sets = _NO_SETS) -> list[str]:
    """An object as what makes it: one line, of a chain one more for each of its rules. Elements whose set is not in
    `sets` are shown as bytes."""
    if isinstance(item, Table | Chain | ObservedChain | Set | Element):
        return text_nft.lines(item, sets)
    return [_line(item, "add")]


def operation_lines(
    verb: str, item: Object, before: Object | None = None, sets: Sets = _NO_SETS
) -> list[str]:
    """An operation: `+` what is made, `-` what goes, `~` what is changed, `^` what comes up."""
    match verb:
        case "create":
            return [f"+ {text}" for text in lines(item, sets)]
        case "delete":
            return [f"- {_deletion(item, sets)}"]
        case "open":
            return [f"^ {_opening(item)}"]
    if isinstance(item, Chain):
        return _chain_change(item, before)
    if isinstance(item, Link) and isinstance(before, Link):
        return [f"~ link set {_word(item.name)} {_words(_changes(before, item))}"]
    return [f"~ {text}" for text in lines(item, sets)]


def _deletion(item: Object, sets: Sets) -> str:
    if isinstance(item, Table | Chain | ObservedChain | Set | Element):
        return text_nft.deletion(item, sets)
    if isinstance(item, Link):
        return f"link del {_word(item.name)}"
    return _line(item, "del")


def _opening(item: Object) -> str:
    return f"link set {_word(item.name)} up" if isinstance(item, Link) else _line(item, "add")


def _chain_change(chain: Chain, before: Object | None) -> list[str]:
    """The chain, and which of its rules go and come; those that stay are not repeated. Of rules that change places some
    stay and the others go and come. `insert … index N` is nft's: before the rule that is N-th then, counted from 0."""
    old = before.tags if isinstance(before, Chain | ObservedChain) else ()
    stay = set(_staying(old, chain.tags))
    last = max((place for place, tag in enumerate(chain.tags) if tag in stay), default=-1)
    head, *rules = text_nft.lines(chain, _NO_SETS)
    where = f"rule {chain.family} sealane {chain.name}"
    gone = [f'- delete {where} comment "{tag}"' for tag in dict.fromkeys(old) if tag not in stay]
    come = [
        f"+ {text}" if place > last else f"+ insert {where} index {place}{text.removeprefix(f'add {where}')}"
        for place, (text, tag) in enumerate(zip(rules, chain.tags, strict=True))
        if tag not in stay
    ]
    return [f"~ {head}", *gone, *come]


def _staying(old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    """Tags in both, in one order. Of rules with one tag no text could say which of them goes, so they all do."""
    before, after = _single(old), _single(new)
    for block in SequenceMatcher(None, before, after, autojunk=False).get_matching_blocks():
        yield from after[block.b : block.b + block.size]


def _single(tags: Sequence[str]) -> list[str]:
    times = Counter(tags)
    return [tag for tag in tags if times[tag] == 1]


def _line(item: Object, verb: str) -> str:
    match item:
        case Link():
            return f"link {verb} {_word(item.name)} {_words(_link(item))}"
        case Address():
            nodad = " nodad" if ":" in item.address else ""
            return f"addr {verb} {item.address} dev {_word(item.link)}{nodad}"
        case Route():
            return f"route {verb} {_words(_route(item))}"
        case RoutingRule():
            return f"rule {verb} from {item.source} lookup {item.table} priority {item.priority} proto {RTPROT_SEALANE}"
        case Neighbour(mac=""):
            return f"neigh {verb} proxy {item.address} dev {_word(item.link)}"
        case Neighbour():
            return f"neigh {verb} {item.address} lladdr {item.mac} dev {_word(item.link)} nud permanent"
        case FdbEntry():
            return f"fdb {verb} {item.mac} dev {_word(item.link)} {'self permanent' if item.is_own else 'master static'}"
        case Qdisc():
            size = f"rate {item.rate * 8}bit burst {item.burst}b limit {item.limit}b"
            return f"qdisc {verb} dev {_word(item.link)} root handle 5ea1: tbf {size}"
        case FastPort():
            return f"filter {verb} dev {_word(item.link)} ingress pref 24225 bpf {item.driver or 'unknown'}"
        case FastTarget():
            return f"fast {verb} {_words(_target(item))}"
        case FastGate():
            return f"fast {verb} gate {item.driver} {'ip' if item.family == 4 else 'ip6'}"
        case Sysctl():
            return f"sysctl {_word(item.path)}={_word(item.value)}{' borrowed' if item.borrowed else ''}"
        case ForwardRule():
            return f"forward-rule {verb} {item.family} filter FORWARD {_word(item.link)} accept"
        case LoopbackPort():
            return f"loopback {verb} {_loopback(item)}"
    raise TypeError(f"{type(item).__name__} has no line")


def _word(text: str) -> str:
    """Text that others may have chosen, as an alias or the name of a link that was ours: quoted as in JSON if it could be
    taken for more than one word, or for a command by the terminal."""
    return text if _PLAIN.fullmatch(text) else json.dumps(text).replace("\x7f", "\\u007f")


def _words(found: Mapping[str, str]) -> str:
    return " ".join(f"{name} {value}".rstrip() for name, value in found.items())


def _before_mtu(kind: LinkKind) -> dict[str, str]:
    match kind:
        case Veth(peer=(netns, name)):
            return {"peer": f"{_word(name)} netns {_word(netns)}"}
        case Veth(handover=name) if name:
            return {"peer": _word(name)}
        case Macvlan():
            return {"link": _word(kind.parent) if kind.parent else "", "mode": kind.mode}
        case _:
            return {}


def _bridge(kind: LinkKind) -> dict[str, str]:
    if not isinstance(kind, Bridge):
        return {}
    return {
        "ageing_time": "0" if kind.ageing_off else "",
        "stp_state": "1" if kind.stp else "",
        "mcast_snooping": "1" if kind.snooping else "",
    }


def _link(item: Link) -> dict[str, str]:
    """A link's fields in `ip`'s words, without what is left at its default."""
    found = {
        "type": word_of(item.kind),
        **_before_mtu(item.kind),
        "mtu": str(item.mtu or ""),
        "address": item.mac,
        "alias": _word(item.alias) if item.alias else "",
        "master": _word(item.master) if item.master else "",
        **_bridge(item.kind),
        "arp": "" if item.arp else "off",
        "addrgenmode": "none" if item.addr_gen_none else "",
        "group": f"0x{item.group:08x}" if item.group != GROUP_LIVE else "",
    }
    shown = {name: value for name, value in found.items() if value}
    if item.port is not None:
        shown |= _port(item.port)
    return shown | ({"up": ""} if item.up else {"down": ""})


def _port(port: BridgePort) -> dict[str, str]:
    fields = {
        "isolated": port.isolated,
        "learning": port.learning,
        "flood": port.flood,
        "guard": port.guard,
        "hairpin": port.hairpin,
    }
    shown = {name: "on" if value else "off" for name, value in fields.items()}
    if not port.broadcast:
        shown["bcast_flood"] = "off"
    if port.forwarding is False:
        shown["state"] = "off"
    return shown


_USUAL = {"stp_state": "0", "mcast_snooping": "0", "arp": "on", "bcast_flood": "on", "state": "on"}
"""What is said of a link only where it is otherwise, or is so again."""


def _changes(before: Link, after: Link) -> dict[str, str]:
    """Words that are new or say something else; those that are gone are denied."""
    old, new = _link(before), _link(after)
    lost = [name for name in old if name not in new and name not in {"up", "down"}]
    gone = {name if name in _USUAL else f"no{name}": _USUAL.get(name, "") for name in lost}
    return gone | {name: value for name, value in new.items() if old.get(name) != value}


def _route(item: Route) -> dict[str, str]:
    is_default = item.dst == ("::/0" if ":" in item.gateway else "0.0.0.0/0")
    kind = f"{item.type} " if item.type != "unicast" else ""
    found = {
        f"{kind}{'default' if is_default else item.dst}": "",
        "via": item.gateway,
        "dev": _word(item.link) if item.link else "",
        "src": item.src,
        "metric": str(item.metric or ""),
        "table": str(item.table) if item.table != _MAIN_TABLE else "",
    }
    first, *rest = found
    shown = {first: "", **{name: found[name] for name in rest if found[name]}}
    return shown | ({"onlink": ""} if item.onlink else {}) | {"proto": str(RTPROT_SEALANE)}


def _target(item: FastTarget) -> dict[str, str]:
    found = {
        item.address: "",
        "dev": _word(item.link) if item.link else "",
        "group": f"0x{item.network:08x}",
        "lladdr": item.mac,
        "from": item.host_mac,
        "mtu": str(item.mtu),
    }
    shown = {name: value for name, value in found.items() if value or name == item.address}
    return shown | ({} if item.delivers else {"source": "only"})


def _loopback(item: LoopbackPort) -> str:
    here, there = ("127.0.0.0/8", item.address) if item.family == 4 else ("[::1]", f"[{item.address}]")
    ports = str(item.first) if item.first == item.last else f"{item.first}-{item.last}"
    reserved = f" reserved {item.reserved}" if item.reserved else ""
    return f"{item.proto} {here}:{ports} to {there}:{item.port}{reserved}"
