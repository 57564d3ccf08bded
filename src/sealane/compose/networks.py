"""The `networks` section."""

import ipaddress

from sealane.compose.cursor import Cursor, Fields, Pairs, Reasons, closest, read_pairs
from sealane.compose.problems import BadValue, shown
from sealane.compose.schema import ComposeNetwork, ComposeSubnet
from sealane.compose.values import Network, parse_key, parse_name, parse_subnet, parse_unicast
from sealane.model.traits import DRIVERS, MODES, Driver
from sealane.wire.options import DOCKER_NAMES, SAID_BY_FIELDS
from sealane.wire.requests import ENDPOINT_SYSCTLS

NETWORK_OPTIONS = frozenset({*DOCKER_NAMES, *SAID_BY_FIELDS})
ENDPOINT_OPTIONS = frozenset({ENDPOINT_SYSCTLS, "com.docker.network.endpoint.ifname"})
_RESERVED_PREFIXES = ("com.docker.", "sealane.")

_REMOVE = "remove it"
_IPAM_REASONS: Reasons = {"options": ("the engine's own IPAM has no options", _REMOVE)}


def read_network(cursor: Cursor) -> ComposeNetwork | None:
    """None if the network has a name by which nothing can refer to it."""
    name = cursor.parse_key(parse_name)
    if cursor.is_null:
        return None if name is None else ComposeNetwork(name=name)
    fields = Fields(cursor)
    is_external, external_name = _read_external(fields)
    enable_ipv4 = fields.flag("enable_ipv4", default=None)
    enable_ipv6 = fields.flag("enable_ipv6", default=None)
    disabled = frozenset(
        version for version, enabled in ((4, enable_ipv4), (6, enable_ipv6)) if enabled is False
    )
    network = ComposeNetwork(
        name=name or "",
        external_name=external_name,
        is_external=is_external,
        driver=fields.parse("driver", _parse_driver, "bridge"),
        driver_opts=fields.read("driver_opts", lambda options: read_options(options, NETWORK_OPTIONS), ()),
        subnets=fields.read("ipam", lambda ipam: _read_ipam(ipam, disabled), ()),
        internal=fields.flag("internal", default=False),
        enable_ipv4=enable_ipv4,
        enable_ipv6=enable_ipv6,
        attachable=fields.flag("attachable", default=False),
        labels=fields.read("labels", lambda labels: read_pairs(labels, check_key=parse_key), ()),
    )
    fields.finish()
    _check(network, cursor)
    return None if name is None else network


def read_options(cursor: Cursor, known: frozenset[str]) -> Pairs:
    """A mapping of options, passed on verbatim. One in our or Docker's name that nobody knows is a problem."""
    options = []
    for key, child in cursor.entries().items():
        if key.startswith(_RESERVED_PREFIXES) and key not in known:
            # All of them begin alike, so that likeness has to be high to mean anything.
            full = cursor.report.is_full
            hint = _REMOVE if full else closest(key, known, _REMOVE, likeness=0.9)
            child.fail(f"unknown option {shown(key)}", hint)
            continue
        value = child.text()
        if value is not None:
            options.append((key, value))
    return tuple(options)


def _read_external(fields: Fields) -> tuple[bool, str | None]:
    name = fields.parse("name", parse_name, None)
    external = fields.find("external")
    if external is None:
        return False, name
    if not external.is_mapping:
        return external.flag() is True, name
    inner = Fields(external)
    inner_name = inner.parse("name", parse_name, None)
    inner.finish()
    if name is not None and inner_name is not None and name != inner_name:
        external.fail("another name than `name` says", "keep one of them")
    return True, name or inner_name


def _parse_driver(text: str) -> Driver:
    if text not in DRIVERS:
        raise BadValue(f"no driver {shown(text)}", f"write {', '.join(DRIVERS)}")
    return text


def _read_ipam(cursor: Cursor, disabled: frozenset[int]) -> tuple[ComposeSubnet, ...]:
    fields = Fields(cursor)
    driver = fields.find("driver")
    if driver is not None and driver.text() not in {None, "default"}:
        driver.fail("no such IPAM driver", "write default or leave it out")
    subnets = fields.read(
        "config", lambda config: config.each(lambda entry: _read_subnet(entry, disabled)), ()
    )
    fields.finish(_IPAM_REASONS)
    for version in (4, 6):
        same = [subnet for subnet in subnets if ipaddress.ip_network(subnet.subnet).version == version]
        if len(same) > 1:
            cursor.at("config").fail(f"{len(same)} IPv{version} subnets", "give a network one of each family")
    return subnets


def _read_subnet(cursor: Cursor, disabled: frozenset[int]) -> ComposeSubnet | None:
    fields = Fields(cursor)
    place = fields.find("subnet")
    prefix = None if place is None else place.parse(parse_subnet)
    ip_range = fields.parse("ip_range", parse_subnet, None)
    gateway = fields.parse("gateway", parse_unicast, None)
    aux_addresses = fields.read("aux_addresses", _read_aux, ())
    fields.finish()
    if place is None and cursor.is_mapping:
        cursor.fail("no subnet", "write the subnet that the other keys belong to")
    if place is None or prefix is None:
        return None
    version = ipaddress.ip_network(prefix).version
    if version in disabled:
        place.fail(f"{prefix} while enable_ipv{version} is false", "remove one of the two")
    subnet = ComposeSubnet(subnet=prefix, ip_range=ip_range, gateway=gateway, aux_addresses=aux_addresses)
    _check_subnet(subnet, cursor)
    return subnet


def _read_aux(cursor: Cursor) -> Pairs:
    addresses = ((key, child.parse(parse_unicast)) for key, child in cursor.entries().items())
    return tuple((key, address) for key, address in addresses if address is not None)


def _check_subnet(subnet: ComposeSubnet, cursor: Cursor) -> None:
    network = ipaddress.ip_network(subnet.subnet)
    if subnet.ip_range is not None and not is_within(subnet.ip_range, network):
        cursor.at("ip_range").fail(f"{subnet.ip_range} is not in {network}", "choose a part of the subnet")
    taken: dict[str, str] = {}
    if subnet.gateway is not None:
        _check_address(subnet.gateway, network, cursor.at("gateway"))
        taken[subnet.gateway] = "the gateway"
    for key, address in subnet.aux_addresses:
        place = cursor.at("aux_addresses", key)
        _check_address(address, network, place)
        if address in taken:
            place.fail(f"{address} is {taken[address]} too", "choose another address")
        taken[address] = f"aux address {shown(key)}"


def _check_address(address: str, network: Network, place: Cursor) -> None:
    if reason := unusable(address, network):
        place.fail(reason, f"choose an address of {network}")


def is_within(inner: str, outer: Network) -> bool:
    """Whether an address or prefix lies in `outer`; False for another family."""
    network = ipaddress.ip_network(inner)
    if isinstance(network, ipaddress.IPv4Network):
        return isinstance(outer, ipaddress.IPv4Network) and network.subnet_of(outer)
    return isinstance(outer, ipaddress.IPv6Network) and network.subnet_of(outer)


def unusable(address: str, network: Network) -> str | None:
    """Why no machine on `network` can have `address`; None if one can. /31 and /127 have no reserved addresses."""
    if not is_within(address, network):
        return f"{address} is not in {network}"
    if network.num_addresses > 2 and address == str(network.network_address):
        return f"{address} is the first address of {network}, which no machine can have"
    if network.version == 4 and network.num_addresses > 2 and address == str(network.broadcast_address):
        return f"{address} is the broadcast address of {network}"
    return None


def _check(network: ComposeNetwork, cursor: Cursor) -> None:
    if network.is_external:
        bare = ComposeNetwork(name=network.name, external_name=network.external_name, is_external=True)
        if network != bare:
            cursor.at("external").fail("an external network has settings here", "keep only external and name")
        return
    if network.driver in MODES and network.subnets:
        cursor.at("ipam").fail(
            f"driver {network.driver} gives no addresses", "remove ipam or change the driver"
        )
    if network.enable_ipv4 is False and network.enable_ipv6 is False:
        cursor.at("enable_ipv4").fail(
            "a network of neither family", "leave one of enable_ipv4, enable_ipv6 true"
        )
