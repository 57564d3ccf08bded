"""Driver options: Docker's names and ours, to fields of a Network.

An option that is not known is refused by name: Docker's own engine ignores unknown ones, and a misspelt
`enable_icc` then leaves a network open.
"""

from collections.abc import Callable, Mapping

from sealane.compile.names import LINK_PREFIXES
from sealane.engine.errors import InvalidError
from sealane.model.ids import parse_link_name
from sealane.model.net import ParseError, family_of, is_wildcard, parse_address
from sealane.wire.options import DOCKER_NAMES, SAID_BY_FIELDS

MTU_MIN = 68
"""RFC 791; IPv6 needs 1280 (RFC 8200 §5)."""
MTU_MAX = 65535


def parse_options(options: Mapping[str, str]) -> dict[str, object]:
    """Fields of Network that the options set."""
    fields: dict[str, object] = {}
    for key, value in options.items():
        if key in SAID_BY_FIELDS:
            continue
        name = DOCKER_NAMES.get(key, key)
        parser = _PARSERS.get(name)
        where = f"options.{key}"
        if parser is None:
            known = ", ".join(sorted(_PARSERS))
            raise InvalidError(f"there is no driver option {key!r}", field=where, hint=f"known are {known}")
        try:
            parser(fields, value)
        except ParseError as error:
            raise InvalidError(str(error), field=where) from error
    return fields


def _bool(text: str) -> bool:
    match text.lower():
        case "true" | "1" | "yes":
            return True
        case "false" | "0" | "no":
            return False
    raise ParseError(f"{text!r} is neither true nor false")


def _set_bool(field: str, *, negate: bool = False) -> Callable[[dict[str, object], str], None]:
    def parse(fields: dict[str, object], value: str) -> None:
        fields[field] = _bool(value) != negate

    return parse


def _mtu(fields: dict[str, object], value: str) -> None:
    is_number = value.isascii() and value.isdigit() and len(value) <= len(str(MTU_MAX))
    if not is_number or not (value == "0" or MTU_MIN <= int(value) <= MTU_MAX):
        raise ParseError(f"{value!r} is not an MTU from {MTU_MIN} to {MTU_MAX} bytes (0: that of the uplink)")
    fields["mtu"] = int(value)


def _bridge(fields: dict[str, object], value: str) -> None:
    name = parse_link_name(value)
    if name.startswith(LINK_PREFIXES):
        raise ParseError(f"{name}: names that begin with {', '.join(LINK_PREFIXES)} are for sealane to give")
    fields["link"] = name


def _link_prefix(fields: dict[str, object], value: str) -> None:
    parse_link_name(value + "0000")
    fields["link_prefix"] = value


def _address(field: str, family: int | None) -> Callable[[dict[str, object], str], None]:
    def parse(fields: dict[str, object], value: str) -> None:
        address = parse_address(value)
        if family is not None and family_of(address) != family:
            raise ParseError(f"{value} is not an IPv{family} address")
        if field == "publish_addresses" and is_wildcard(address):
            return
        present = fields.get(field, ())
        assert isinstance(present, tuple)
        fields[field] = (*present, address)

    return parse


def _gateway_mode(fields: dict[str, object], value: str) -> None:
    if value not in {"nat", "routed"}:
        raise ParseError(f"gateway mode {value!r} is not supported: `nat` or `routed`")
    if value == "routed":
        fields["masquerade"] = False


def _dns_servers(fields: dict[str, object], value: str) -> None:
    fields["dns_servers"] = tuple(parse_address(part.strip()) for part in value.split(",") if part.strip())


_PARSERS: dict[str, Callable[[dict[str, object], str], None]] = {
    "mtu": _mtu,
    "bridge": _bridge,
    "icc": _set_bool("icc"),
    "masquerade": _set_bool("masquerade"),
    "inhibit-gateway": _set_bool("gateway_on_link", negate=True),
    "link-prefix": _link_prefix,
    "source-address": _address("source_addresses", 4),
    "source-address6": _address("source_addresses", 6),
    "publish-address": _address("publish_addresses", None),
    "publish-address6": _address("publish_addresses", 6),
    "gateway-mode": _gateway_mode,
    "gateway-mode6": _gateway_mode,
    "fast-path": _set_bool("fast_path"),
    "dns": _set_bool("dns"),
    "dns-servers": _dns_servers,
}
