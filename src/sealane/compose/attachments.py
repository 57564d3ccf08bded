"""How a service is connected: `networks`, `network_mode`, `ports`."""

from typing import cast

from sealane.compose.cursor import Cursor, Fields, Reasons
from sealane.compose.networks import ENDPOINT_OPTIONS, read_options
from sealane.compose.ports import PortSpec, build_port_spec, parse_port_spec
from sealane.compose.problems import BadValue, shown
from sealane.compose.schema import Attachment, NetworkMode, UsernsMode
from sealane.compose.values import (
    parse_dns_name,
    parse_interface_name,
    parse_ipv4,
    parse_ipv6,
    parse_mac,
    parse_name,
)
from sealane.limits import ALIASES_PER_ENDPOINT, PUBLISHES_PER_ENDPOINT
from sealane.model.traits import MODES

DEFAULT_NETWORK = "default"
_PRIORITY_BOUND = 1 << 31
_REASONS: Reasons = {
    "link_local_ips": ("the kernel chooses link-local addresses", "use ipv4_address or ipv6_address")
}

Published = tuple[tuple[Cursor, PortSpec], ...]
"""Port specifications with their places, for the checks that compare services."""


def read_networks(cursor: Cursor) -> tuple[Attachment, ...]:
    if not cursor.is_mapping:
        return tuple(Attachment(network=name) for name in cursor.each_text(parse_name))
    attachments = (_read_attachment(child) for child in cursor.entries().values())
    return tuple(attachment for attachment in attachments if attachment is not None)


def _read_attachment(cursor: Cursor) -> Attachment | None:
    network = cursor.parse_key(parse_name)
    if network is None:
        return None
    if cursor.is_null:
        return Attachment(network=network)
    fields = Fields(cursor)
    attachment = Attachment(
        network=network,
        aliases=fields.read("aliases", _read_aliases, ()),
        ipv4_address=fields.parse("ipv4_address", parse_ipv4, None),
        ipv6_address=fields.parse("ipv6_address", parse_ipv6, None),
        mac_address=fields.parse("mac_address", parse_mac, None),
        priority=fields.read("priority", _read_priority, 0),
        gw_priority=fields.read("gw_priority", _read_priority, 0),
        interface_name=fields.parse("interface_name", parse_interface_name, None),
        driver_opts=fields.read("driver_opts", lambda options: read_options(options, ENDPOINT_OPTIONS), ()),
    )
    fields.finish(_REASONS)
    return attachment


def _read_aliases(cursor: Cursor) -> tuple[str, ...]:
    aliases = cursor.each_text(parse_dns_name)
    if len(aliases) > ALIASES_PER_ENDPOINT:
        cursor.fail(f"{len(aliases)} aliases", f"give at most {ALIASES_PER_ENDPOINT}")
    return aliases


def _read_priority(cursor: Cursor) -> int | None:
    return cursor.whole(-_PRIORITY_BOUND, _PRIORITY_BOUND - 1)


def parse_network_mode(text: str) -> tuple[NetworkMode, str | None]:
    """The mode, and whose sandbox is shared. Raises BadValue."""
    mode, colon, target = text.partition(":")
    if mode in {"service", "container"} and colon:
        return cast("NetworkMode", mode), parse_name(target)
    if text in MODES:
        return cast("NetworkMode", text), None
    raise BadValue(
        f"network_mode {shown(text)} is not supported", "write host, none, service:NAME or container:NAME"
    )


def parse_userns_mode(text: str) -> UsernsMode:
    """Raises BadValue."""
    if text in {"private", "host"}:
        return cast("UsernsMode", text)
    raise BadValue(f"userns_mode {shown(text)} is not supported", "write private or host")


def read_ports(cursor: Cursor) -> Published:
    items = cursor.items()
    if len(items) > PUBLISHES_PER_ENDPOINT:
        cursor.fail(f"{len(items)} ports", f"use ranges; a service has at most {PUBLISHES_PER_ENDPOINT}")
    ports = ((item, _read_port(item)) for item in items[:PUBLISHES_PER_ENDPOINT])
    return tuple((item, spec) for item, spec in ports if spec is not None)


def _read_port(cursor: Cursor) -> PortSpec | None:
    if not cursor.is_mapping:
        return cursor.parse(parse_port_spec)
    fields = Fields(cursor)
    host_ip, published, target, proto, mode = (
        fields.read(key, Cursor.text, None) for key in ("host_ip", "published", "target", "protocol", "mode")
    )
    # Names for people. They change nothing on the wire, here as in Docker.
    for key in ("name", "app_protocol"):
        fields.read(key, Cursor.text, None)
    if mode not in {None, "host", "ingress"}:
        cursor.at("mode").fail(
            f"{shown(mode or '')} is not a mode", "write host or ingress; on one host they are the same"
        )
    fields.finish()
    if fields.find("target") is None:
        cursor.fail("no target", "write target: PORT, the container's port")
    if target is None:
        return None
    try:
        return build_port_spec(
            host_ip=host_ip.removeprefix("[").removesuffix("]") if host_ip else None,
            published=published or None,
            target=target,
            proto=proto or "tcp",
        )
    except BadValue as error:
        cursor.fail(error.message, error.hint)
        return None
