"""Docker's NetworkDriver as verbs of the engine. Translates, and does nothing else.

What dockerd sends and when, and what it makes of the answers, stands in docs/cnm-vs-cni.md. Three things shape this:

- Nothing here may ask the Docker API: dockerd holds its locks while it waits for us.
- Names, labels and the `--ip-range` of a network are not sent, of a container nothing but ids. Who wants a name in
  sealane gives it as an option: `-o sealane.name=front`, `--driver-opt sealane.name=web`.
- An error of Leave or DeleteEndpoint is logged by dockerd and ignored, the container is gone for it: so these succeed
  for whatever there is.
"""

from collections.abc import Mapping

from sealane.compile.names import handover_link
from sealane.engine.errors import InvalidError, NotFoundError
from sealane.engine.staged import Staged
from sealane.integrations.cnm import wire
from sealane.integrations.cnm.wire import Options, PoolData, options_of
from sealane.model.endpoint import PUBLISHED_ELSEWHERE, Endpoint
from sealane.model.ids import NetworkId
from sealane.model.intent import Intent
from sealane.model.net import family_of
from sealane.model.network import Network
from sealane.wire.requests import NetworkRequest, PublishRequest, StagedRequest, SubnetRequest

ADDRESS_SPACE = "sealane"
"""By it a network is known to have its addresses from our own IPAM driver."""

IPAM_LABEL = "docker.ipam"
PORTS_LABEL = "docker.ports"

OPTION = "sealane."
"""Before the options that are ours and not the engine's: `sealane.name`, `sealane.aliases`, `sealane.ports`."""


class NetworkDriver:
    def __init__(self, staged: Staged, intent: Intent) -> None:
        self._staged = staged
        self._intent = intent

    # --- networks

    def create_network(self, request: wire.CreateNetwork) -> dict[str, str]:
        options = options_of(request.options)
        given = options.get(wire.LABELS, dict[str, str], {})
        pools = [*(request.ipv4 or ()), *(request.ipv6 or ())]
        labels = {PORTS_LABEL: _ports_mode(given)}
        if any(pool.address_space == ADDRESS_SPACE for pool in pools):
            labels[IPAM_LABEL] = ADDRESS_SPACE
        asked = NetworkRequest(
            name=given.get(f"{OPTION}name", "") or f"docker-{request.network[:12]}",
            subnets=[_subnet(pool) for pool in pools],
            ipv4=options.get(wire.ENABLE_IPV4, bool, default=True) and bool(request.ipv4),
            ipv6=options.get(wire.ENABLE_IPV6, bool, default=False) or bool(request.ipv6),
            internal=options.get(wire.INTERNAL, bool, default=False),
            options={key: value for key, value in given.items() if not key.startswith(OPTION)},
            labels=labels,
        )
        self._staged.create_network(asked, request.network)
        return {}

    def delete_network(self, request: wire.DeleteNetwork) -> dict[str, str]:
        self._staged.remove_network(request.network)
        return {}

    # --- endpoints

    def create_endpoint(self, request: wire.CreateEndpoint) -> wire.CreatedEndpoint:
        network = self._network(request.network)
        options = options_of(request.options)
        asked = request.interface or wire.Interface()
        addresses = [a for a in (asked.address, asked.address6) if a]
        endpoint = self._staged.create(
            StagedRequest(
                id=request.endpoint,
                network=network.id,
                name=self._name(network, request.endpoint, addresses, options),
                addresses=addresses,
                mac=asked.mac or wire.mac_of(options),
                aliases=_aliases(options),
            )
        )
        return wire.CreatedEndpoint(interface=_filled(asked, endpoint))

    def _name(self, network: Network, identity: str, addresses: list[str], options: Options) -> str:
        """As its user says; or the container's, which a Docker that knows to tells us with the address; or its id."""
        if f"{OPTION}name" in options.values:
            return options.text(f"{OPTION}name")
        for address in addresses:
            held = self._intent.leases.get((network.id, address.partition("/")[0]))  # type: ignore[arg-type]
            if held is not None and self._intent.endpoints[held].is_lease:
                name = self._intent.endpoints[held].name
                if name != "lease":
                    return name
        return _nameless(identity)

    def delete_endpoint(self, request: wire.EndpointRef) -> dict[str, str]:
        network = self._intent.networks.get(NetworkId(request.network))
        keeps = network is not None and network.labels.get(IPAM_LABEL) == ADDRESS_SPACE
        self._staged.delete(request.endpoint, keep_leases=keeps)
        return {}

    def endpoint_info(self, request: wire.EndpointRef) -> dict[str, dict[str, str]]:
        """Docker shows it nowhere, and an error fails the container's start."""
        self._staged.find(request.endpoint)
        return {"Value": {}}

    # --- sandboxes

    def join(self, request: wire.Join) -> wire.Joined:
        network = self._network(request.network)
        known = self._staged.find(request.endpoint).name
        # The container's name, where somebody told it.
        unknown = f"docker-{request.sandbox.rstrip('/').rpartition('/')[2]}"
        name = known if known != _nameless(request.endpoint) else unknown
        by_docker = network.labels.get(PORTS_LABEL) == "docker"
        labels = {}
        if by_docker and (ports := wire.ports_of(options_of(request.options))):
            labels[PUBLISHED_ELSEWHERE] = ", ".join(map(_shown, ports))
        leaves = not network.internal and not by_docker
        endpoint = self._staged.join(
            request.endpoint, request.sandbox, name, labels, without_gateway=not leaves
        )
        gateways = {family_of(s.gateway): s.gateway for s in network.subnets} if leaves else {}
        return wire.Joined(
            interface=wire.InterfaceName(source=handover_link(endpoint.id), prefix=network.link_prefix),
            gateway=gateways.get(4, ""),
            gateway6=gateways.get(6, ""),
        )

    def leave(self, request: wire.EndpointRef) -> dict[str, str]:
        self._staged.leave(request.endpoint)
        return {}

    # --- ports

    def program(self, request: wire.ProgramExternalConnectivity) -> dict[str, str]:
        """The endpoint is the one by which the container leaves: only such a one has ports."""
        self._staged.publish(request.endpoint, wire.ports_of(options_of(request.options)))
        return {}

    def revoke(self, request: wire.EndpointRef) -> dict[str, str]:
        self._staged.unpublish(request.endpoint)
        return {}

    def _network(self, identity: str) -> Network:
        network = self._intent.networks.get(NetworkId(identity))
        if network is None:
            raise NotFoundError(
                f"sealane knows no network {identity[:12]}",
                hint="its records were lost or it was removed by force: `docker network rm` it and create it anew",
            )
        return network


def _nameless(identity: str) -> str:
    """What an endpoint is called by whose container's name nobody tells."""
    return f"docker-{identity[:12]}"


def _ports_mode(options: Mapping[str, str]) -> str:
    mode = options.get(f"{OPTION}ports", "sealane")
    if mode not in ("sealane", "docker"):
        raise InvalidError(
            f"{mode!r}: ports are published by `sealane` or by `docker`", field="-o sealane.ports"
        )
    unknown = [k for k in options if k.startswith(OPTION) and k not in (f"{OPTION}name", f"{OPTION}ports")]
    if unknown:
        raise InvalidError(
            f"there is no option {unknown[0]!r}", field=f"-o {unknown[0]}", hint="sealane.name, sealane.ports"
        )
    return mode


def _shown(port: PublishRequest) -> str:
    """Of a port that Docker publishes, as ours are shown; which one it has chosen it does not say."""
    address = f"[{port.host_address}]" if ":" in port.host_address else port.host_address or "*"
    last = port.host_last or port.host_first + port.count - 1
    outside = _span(port.host_first, last) if port.host_first else "?"
    return f"{address}:{outside}->{_span(port.port, port.port + port.count - 1)}/{port.proto} by docker"


def _span(first: int, last: int) -> str:
    return f"{first}" if first == last else f"{first}-{last}"


def _subnet(pool: PoolData) -> SubnetRequest:
    return SubnetRequest(
        prefix=pool.pool,
        gateway=pool.gateway.partition("/")[0],
        reserved={name: text.partition("/")[0] for name, text in (pool.aux_addresses or {}).items()},
    )


def _aliases(options: Options) -> list[str]:
    return [alias for alias in options.text(f"{OPTION}aliases").split(",") if alias]


def _filled(asked: wire.Interface, endpoint: Endpoint) -> wire.Interface:
    """What was left empty, and nothing else."""
    by_family = {family_of(a): a for a in endpoint.addresses}
    return wire.Interface(
        address="" if asked.address else by_family.get(4, ""),
        address6="" if asked.address6 else by_family.get(6, ""),
        mac="" if asked.mac else endpoint.mac,
    )
