"""What a container's record and its endpoints say about the container. Pure."""

from collections.abc import Sequence

from sealane.containers.spec import Dns
from sealane.model.endpoint import Endpoint
from sealane.model.intent import Intent
from sealane.model.net import address_part
from sealane.wire.requests import ContainerRequest

PATIENCE = ("timeout:1", "attempts:4")
"""Our resolver answers in a millisecond or is being restarted. By default glibc waits 5 s for one server (resolv.conf(5))
before it asks again."""


def dns_of(request: ContainerRequest, endpoints: Sequence[Endpoint], intent: Intent) -> Dns:
    """The resolvers of its networks, in the order in which these are asked for a way out; `dns` of the request come after
    them, so that names of the networks go on resolving."""
    joined = [(intent.networks[e.network], e.gateway_priority) for e in endpoints]
    networks = [n for n, _ in sorted(joined, key=lambda pair: (pair[0].internal, -pair[1], pair[0].name))]
    servers = [server for network in networks for server in network.resolvers or network.dns_servers]
    search, options = tuple(request.dns_search), tuple(request.dns_options) or PATIENCE
    return Dns(nameservers=tuple(dict.fromkeys([*servers, *request.dns])), search=search, options=options)


def hosts_of(request: ContainerRequest, endpoints: Sequence[Endpoint], intent: Intent) -> tuple[str, ...]:
    """Lines of /etc/hosts: its own name at its own addresses, then what the request adds."""
    own = [f"{address_part(a)} {request.name}" for e in endpoints for a in e.addresses]
    gateways = (s.gateway for e in endpoints for s in intent.networks[e.network].subnets)
    host = next(gateways, "127.0.0.1")
    more = [f"{host if a == 'host-gateway' else a} {name}" for name, a in request.hosts.items()]
    return (*own, *more)
