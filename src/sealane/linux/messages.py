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


def setting4(item: Sysctl) -> tuple[str, str, int] | None:
    """Link, name and value of an IPv4 setting that the link's own message can set."""
    parts = item.path.split("/")
    if len(parts) != 5 or parts[:3] != ["net", "ipv4", "conf"] or parts[4] not in link.SETTINGS4:
        return None
    return (parts[3], parts[4], int(item.value)) if item.value in {"0", "1"} else None
