"""Port specifications: `[host_ip:][published[-end]:]target[-end][/protocol]`, as Docker writes them.

A compose file's `ports` and the command line's `--publish` are one grammar. Ranges stay ranges.

| text | meaning |
|---|---|
| `80`, `0:80` | any free port, on every address |
| `8080:80`, `127.0.0.1:8080:80/udp`, `[::1]:8080:80` | that port |
| `127.0.0.1::80`, `[::]::80` | any free port, on that address |
| `8000-8009:80-89` | ten ports to ten |
| `8000-8009:80` | the first free one of ten |
"""

import ipaddress

import msgspec

from sealane.compose.problems import BadValue, shown
from sealane.limits import RANGE_PORTS_MAX

PROTOCOLS = ("tcp", "udp", "sctp")
ANY_PORT = "0"
"""As the host's port, which Docker takes for none."""
_GRAMMAR = "write [host_ip:][port[-end]:]port[-end][/tcp|udp|sctp]"


class PortSpec(msgspec.Struct, frozen=True, kw_only=True):
    host_ip: str | None
    """In canonical form; None for every address of both families."""
    host_first: int | None
    """None, as `host_last`, for any free port."""
    host_last: int | None
    container_first: int
    container_last: int
    proto: str

    @property
    def picks_one(self) -> bool:
        """Any free port of the host's range does for the one container port."""
        return self.container_first == self.container_last and self.host_first != self.host_last


class PortRange(msgspec.Struct, frozen=True, kw_only=True):
    first: int
    last: int
    proto: str


def parse_port_spec(text: str) -> PortSpec:
    """Raises BadValue."""
    host_ip, published, target, proto = _split(text)
    return build_port_spec(host_ip=host_ip, published=published, target=target, proto=proto)


def build_port_spec(*, host_ip: str | None, published: str | None, target: str, proto: str) -> PortSpec:
    """From the four parts as texts, which is how the long syntax has them. Raises BadValue."""
    container_first, container_last = _parse_range(target)
    host_first, host_last = _parse_range(published) if published not in {None, ANY_PORT} else (None, None)
    spec = PortSpec(
        host_ip=None if host_ip is None else _parse_host_ip(host_ip),
        host_first=host_first,
        host_last=host_last,
        container_first=container_first,
        container_last=container_last,
        proto=_parse_protocol(proto),
    )
    if host_first is not None and host_last is not None:
        _check_lengths(spec, host_first, host_last)
    return spec


def parse_exposed(text: str) -> PortRange:
    """`port[-end][/protocol]`, as in `expose`. Raises BadValue."""
    ports, slash, proto = text.partition("/")
    first, last = _parse_range(ports)
    return PortRange(first=first, last=last, proto=_parse_protocol(proto if slash else "tcp"))


def render_port_spec(spec: PortSpec) -> str:
    """The shortest text that `parse_port_spec` reads back as `spec`."""
    target = _render_range(spec.container_first, spec.container_last)
    published = ""
    if spec.host_first is not None and spec.host_last is not None:
        published = _render_range(spec.host_first, spec.host_last)
    suffix = "" if spec.proto == "tcp" else f"/{spec.proto}"
    if spec.host_ip is None:
        return f"{published}:{target}{suffix}" if published else f"{target}{suffix}"
    host_ip = f"[{spec.host_ip}]" if ":" in spec.host_ip else spec.host_ip
    return f"{host_ip}:{published}:{target}{suffix}"


def _split(text: str) -> tuple[str | None, str | None, str, str]:
    body, slash, proto = text.partition("/")
    host_ip: str | None = None
    parts = body.split(":")
    if body.startswith("["):
        host_ip, rest = _bracketed(text, body)
        parts = rest.split(":")
        if len(parts) != 2:
            raise BadValue(
                f"{shown(text)} has no port of the host's place",
                "write [address]:port:port or [address]::port",
            )
    elif len(parts) == 3:
        host_ip = parts.pop(0)
    elif len(parts) > 3:
        raise BadValue(
            f"{shown(text)} has too many colons", "put an IPv6 host address in brackets: [::1]:8080:80"
        )
    elif len(parts) == 2:
        _check_published(text, parts[0])
    published = parts[0] if len(parts) == 2 and parts[0] else None
    return host_ip, published, parts[-1], proto if slash else "tcp"


def _bracketed(text: str, body: str) -> tuple[str, str]:
    host_ip, closing, rest = body[1:].partition("]")
    if not closing or not rest.startswith(":"):
        raise BadValue(f"{shown(text)} has '[' without ']:'", "write [::1]:8080:80")
    if ":" not in host_ip:
        raise BadValue(f"{shown(host_ip)} in brackets is not an IPv6 address", "keep brackets for IPv6")
    return host_ip, rest[1:]


def _check_published(text: str, published: str) -> None:
    if not published:
        raise BadValue(f"{shown(text)} has nothing before its colon", "remove the colon for any free port")
    if "." in published:
        raise BadValue(
            f"{shown(text)} has an address but no place for a host port",
            "write address::port for any free port",
        )


def _parse_range(text: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    low = _parse_port(first)
    high = _parse_port(last) if dash else low
    if high < low:
        raise BadValue(f"range {low}-{high} ends before it begins", f"write {high}-{low}")
    return low, high


def _parse_port(text: str) -> int:
    if not text:
        raise BadValue("a port number is missing", _GRAMMAR)
    if not (text.isascii() and text.isdigit()):
        raise BadValue(f"{shown(text)} is not a port number", _GRAMMAR)
    if text.startswith("0"):
        raise BadValue(
            f"port {shown(text)} begins with 0", "write 1 to 65535; leave the host port out for any free one"
        )
    if len(text) > 5 or int(text) > 65535:
        raise BadValue(f"port {shown(text)} is out of range", "write 1 to 65535")
    return int(text)


def _parse_host_ip(text: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        hint = "write 127.0.0.1" if text == "localhost" else "write a numeric address; IPv6 in brackets"
        raise BadValue(f"{shown(text)} is not an IP address", hint) from None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            raise BadValue(f"{shown(text)} has a zone", "write the address without %zone")
        address = address.ipv4_mapped or address
    if address.is_multicast:
        raise BadValue(f"{shown(text)} is a multicast address", "write an address of this host")
    return str(address)


def _parse_protocol(text: str) -> str:
    lowered = text.lower()
    if lowered not in PROTOCOLS:
        raise BadValue(f"{shown(text)} is not a protocol", "write tcp, udp or sctp")
    return lowered


def _check_lengths(spec: PortSpec, host_first: int, host_last: int) -> None:
    host = host_last - host_first + 1
    container = spec.container_last - spec.container_first + 1
    if container not in {1, host}:
        raise BadValue(
            f"{host} host ports cannot serve {container} container ports",
            "make both ranges equally long, or name one container port",
        )
    if host_first != spec.container_first and container > RANGE_PORTS_MAX:
        raise BadValue(
            f"{container} ports with other numbers outside than inside",
            f"use the same numbers, or at most {RANGE_PORTS_MAX} ports",
        )


def _render_range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"
