"""What the resolver is told: networks and their members, whole."""

import msgspec


class ZoneMember(msgspec.Struct, frozen=True):
    """An endpoint by its names. Keep the record while nothing changed: it is recognised by identity."""

    endpoint: str
    sandbox: str
    """Empty: the endpoint is alone in its sandbox."""
    names: tuple[str, ...]
    """The name first, it is the one that PTR answers; then aliases. Names that DNS cannot carry are not served."""
    addresses: tuple[str, ...]
    upstreams: tuple[str, ...] = ()
    """Its sandbox's own, before the network's."""
    short: str = ""
    """Leads here too while no member of another first name has it: `web-0` of `web-0.shop`."""


class ZoneNetwork(msgspec.Struct, frozen=True):
    id: str
    name: str
    listen: tuple[str, ...]
    """Addresses to serve on."""
    subnets: tuple[str, ...]
    """Askers from elsewhere are not answered."""
    device: str | None = None
    """The bridge that questions must arrive on; None where the network has no device of its own."""
    internal: bool = False
    upstreams: tuple[str, ...] = ()
    """Empty: those of the host's resolv.conf."""
    members: tuple[ZoneMember, ...] = ()


class ZoneError(ValueError):
    """A record that cannot be served; the text names network and field. Nothing was changed."""
