"""The kernel's own routes to the prefixes of addresses: `10.1.0.0/24 dev slb… proto kernel`.

It makes one with an address on a link that is up, and never again: who deletes it (`ip route flush table main`) leaves an
address that reaches nobody, and gateways that no route can go by. So an address without its route counts as lost.
"""

from collections.abc import Collection

from sealane.linux.netlink import inet
from sealane.linux.netlink.socket import Socket


def has_prefix_route(address: str) -> bool:
    """Whether there is to be one. Link-local prefixes of IPv6 are the kernel's own business."""
    return not address.endswith(("/32", "/128")) and not address.startswith("fe80:")


def without_prefix_route(socket: Socket, addresses: Collection[inet.RawAddress]) -> set[inet.RawAddress]:
    """Of these, those that have lost it. Raises OSError."""
    families = {inet.AF_INET6 if ":" in raw.address else inet.AF_INET for raw in addresses}
    reached = {key for family in families for key in _prefixes(socket, family)}
    return {raw for raw in addresses if (raw.index, inet.prefix_of(raw.address)) not in reached}


def _prefixes(socket: Socket, family: int) -> set[tuple[int, str]]:
    """Link's index and prefix, without its length."""
    dump = inet.dump_routes(family, inet.RTPROT_KERNEL, inet.TABLE_MAIN)
    found = [inet.parse_route(payload) for _, payload in socket.dump(dump)]
    # Before 4.20 the kernel does not choose.
    own = [
        r for r in found if r.protocol == inet.RTPROT_KERNEL and r.table == inet.TABLE_MAIN and not r.cloned
    ]
    return {(route.index, route.dst.partition("/")[0]) for route in own}
