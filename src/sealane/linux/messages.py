"""An operation on what belongs to a link as its rtnetlink message."""

from sealane.kernel.objects import Address, FdbEntry, Neighbour, Qdisc, Route, RoutingRule, Sysctl
from sealane.kernel.state import Object
from sealane.linux.netlink import inet, link, neigh, qdisc, rule


def message(verb: str, item: Object, index: int) -> bytes:
    gone = verb == "delete"
    match item:
        case Address():
            return inet.delete_address(item, index) if gone else inet.create_address(item, index)
        case Route():
            if gone:
                return inet.delete_route(item, index)
            return inet.replace_route(item, index) if verb == "change" else inet.create_route(item, index)
        case RoutingRule():
            return rule.delete(item) if gone else rule.create(item)
        case Neighbour():
            return neigh.delete(item, index) if gone else neigh.put(item, index)
        case FdbEntry():
            return neigh.delete_fdb(item, index) if gone else neigh.put_fdb(item, index)
        case Qdisc():
            return qdisc.delete(index) if gone else qdisc.put(item, index)
    raise ValueError(f"rtnetlink has no {type(item).__name__}")


def setting4(item: Object) -> tuple[str, int] | None:
    """Name and value of an IPv4 setting that a link's message can set."""
    if (
        not isinstance(item, Sysctl)
        or not item.path.startswith("net/ipv4/conf/")
        or item.value not in {"0", "1"}
    ):
        return None
    name = item.path.rpartition("/")[2]
    return (name, int(item.value)) if name in link.SETTINGS4 else None
