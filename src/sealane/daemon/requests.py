"""What a container's record and its endpoints say about the container. Pure."""

from collections.abc import Sequence

import msgspec

from sealane.containers.spec import Dns
from sealane.dns.resolvconf import Resolver
from sealane.model.endpoint import Endpoint
from sealane.model.intent import Intent
from sealane.model.net import Address, address_part, is_loopback
from sealane.model.network import preference
from sealane.wire.requests import ContainerRequest

PATIENCE = ("timeout:1", "attempts:4")
"""Our resolver answers in a millisecond or is being restarted. By default glibc waits 5 s for one server (resolv.conf(5))
before it asks again."""

NAMES_FIRST = "ndots:0"
"""A name without a dot is a service's before it is one of a search domain's, as with Docker."""


def dns_of(request: ContainerRequest, endpoints: Sequence[Endpoint], intent: Intent, host: Resolver) -> Dns:
    """The resolvers of its networks, in the order in which these are asked for a way out; `dns` of the request come after
    them, so that names of the networks go on resolving. On the host's network it is the host's; and where a way out leads
    by no resolver of ours, those of the host's that can be reached from elsewhere. The host's search domains are for who
    has none of his own and a way out; a request for `.` is for none."""
    joined = [(intent.networks[e.network], e.gateway_priority) for e in endpoints]
    networks = [n for n, _ in sorted(joined, key=lambda pair: preference(*pair))]
    is_on_host = request.network_mode == "host"
    leads_out = is_on_host or not all(network.internal for network in networks)
    ours = [s for n in networks for s in (n.resolvers if host.serves else ()) or n.dns_servers]
    servers = [*ours, *request.dns]
    if not servers and leads_out:
        servers = [Address(s) for s in host.servers if is_on_host or not is_loopback(s)]
    inherited = host.searches if leads_out else ()
    search = tuple(domain for domain in request.dns_search or inherited if domain != ".")
    options = tuple(request.dns_options) or PATIENCE
    if not any(option.startswith("ndots:") for option in options):
        options = (*options, NAMES_FIRST)
    return Dns(nameservers=tuple(dict.fromkeys(servers)), search=search, options=options)


def hosts_of(request: ContainerRequest, endpoints: Sequence[Endpoint], intent: Intent) -> tuple[str, ...]:
    """Lines of /etc/hosts: its own names at its own addresses, then what the request adds."""
    hostname = str(msgspec.json.decode(request.spec).get("hostname") or request.name)
    names = " ".join(dict.fromkeys((hostname, request.name)))
    own = [f"{address_part(a)} {names}" for e in endpoints for a in e.addresses]
    gateways = (s.gateway for e in endpoints for s in intent.networks[e.network].subnets)
    host = next(gateways, "127.0.0.1")
    more = [f"{host if a == 'host-gateway' else a} {name}" for name, a in request.hosts.items()]
    return (*own, *more)
