"""Netavark's verbs, as podman calls them through the front end, on the engine's.

Podman keeps the books: it gives addresses out itself (all but `--ipam-driver none`), and it does not tell us that a
network was removed. So a network comes with its first container and goes with its last, as netavark's bridge does, unless
others made it or are on it.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import msgspec

from sealane.engine.attachments import way_in
from sealane.engine.engine import Engine
from sealane.engine.errors import ConflictError, InvalidError, NotFoundError, SealaneError
from sealane.engine.ports import Reserver
from sealane.engine.resyncer import Resyncer
from sealane.integrations.attachments import Attachments, Detach
from sealane.integrations.netavark.config import (
    CONTAINER,
    attach_request,
    check_agreement,
    dns_servers,
    is_unmanaged,
    labelled,
    network_request,
    ordered,
    publish_requests,
)
from sealane.integrations.netavark.create import Creator
from sealane.integrations.netavark.status import status_of
from sealane.kernel.state import HOST
from sealane.model.endpoint import Endpoint
from sealane.model.ids import EndpointId, NetworkId
from sealane.model.network import Network
from sealane.wire.netavark import (
    NetavarkAttachment,
    NetavarkContainer,
    NetavarkNetwork,
    NetavarkRequest,
    NetavarkView,
)
from sealane.wire.requests import DetachRequest

DONE = NetavarkView()


class Netavark:
    def __init__(self, engine: Engine, resyncer: Resyncer, detach: Detach) -> None:
        self._engine = engine
        self._resyncer = resyncer
        self._attachments = Attachments(engine, detach, CONTAINER)

    async def call(self, request: NetavarkRequest, caller: int = 0) -> NetavarkView:
        """`caller`: pid of the front end, which podman started. Raises the engine's errors."""
        match request.verb:
            case "setup":
                return await self._setup(_container(request), request.netns, caller)
            case "teardown":
                await self._teardown(_container(request), caller)
            case "update":
                self._update(request.network, request.dns_servers)
            case "firewall-reload":
                self._reload()
            case "create":
                return self._create(request)
        return DONE

    # --- setup

    async def _setup(self, container: NetavarkContainer, netns: str, caller: int) -> NetavarkView:
        """All networks or none."""
        if not netns.startswith("/"):
            raise InvalidError(f"{netns!r} is no absolute path", field="netns")
        places = ordered(container)
        publish_requests(container.port_mappings or ())
        for info, request in places:
            # What is wrong is found before anything is made.
            network_request(info)
            attach_request(container, info, request, netns)
        await self._clear(container, netns)
        before = {e.id for e in self._attachments.of(container.container_id)}
        try:
            reserver = self._reserver(self._engine.builder.namespace(netns, "netns").inode, caller)
            there = [self._attach(container, place, netns, reserver) for place in places]
            # What is left of them if a call that was killed had come so far.
            self._publish(container, reserver)
        except SealaneError:
            self._undo([e for e in self._attachments.of(container.container_id) if e.id not in before])
            raise
        intent = self._engine.intent
        return NetavarkView(
            status={
                intent.networks[e.network].name: status_of(intent.endpoints[e.id], intent.networks[e.network])
                for e in there
            }
        )

    async def _clear(self, container: NetavarkContainer, netns: str) -> None:
        """What the container had in a namespace that it has left goes first: podman was killed, or the host went down."""
        present = self._attachments.of(container.container_id)
        await self._attachments.settled(present)
        present = self._attachments.of(container.container_id)
        await self._attachments.remove([e for e in present if not self._attachments.is_there(e, netns)])

    def _attach(
        self,
        container: NetavarkContainer,
        place: tuple[NetavarkNetwork, NetavarkAttachment],
        netns: str,
        reserver: Reserver,
    ) -> Endpoint:
        info, asked = place
        network = self._network(info)
        mine = self._attachments.of(container.container_id)
        present = next((e for e in mine if e.network == network.id), None)
        if present is not None:
            return present
        request = attach_request(container, info, asked, netns)
        if not network.internal and not any(endpoint.ports for endpoint in mine):
            ports = publish_requests(container.port_mappings or ())
            request = msgspec.structs.replace(request, publish=ports)
        try:
            view = self._engine.attach(request, reserver)
        except SealaneError:
            self._drop_unused([network])
            raise
        return self._engine.intent.endpoints[EndpointId(view.id)]

    def _network(self, info: NetavarkNetwork) -> Network:
        """See that the network is there and as podman says."""
        present = self._attachments.network(info.name)
        if present is not None and labelled(present.labels) not in {"", info.id}:
            # Removed and made anew in podman's books, which we are not told.
            self._drop_unused([present])
            present = self._attachments.network(info.name)
            if present is not None:
                raise _in_use(present, self._engine.intent.endpoints_by_network[present.id].values())
        if present is not None and not labelled(present.labels):
            check_agreement(present, info)
            return present
        if present is not None:
            present = self._engine.set_dns_servers(present, dns_servers(info))
        else:
            # What a call that was killed has brought, and podman may have removed since, must not be in the way.
            self._drop_unused(list(self._engine.intent.networks.values()))
            if not is_unmanaged(info):
                self._check_bridge(info)
        view = self._engine.create_network(network_request(info))
        return self._engine.intent.networks[NetworkId(view.id)]

    def _check_bridge(self, info: NetavarkNetwork) -> None:
        """The engine would take a bridge that is there for one to be used as it is."""
        name = info.network_interface
        if name and self._engine.kernel.foreign_link(name) is not None:
            raise ConflictError(
                f"the host has a link {name}, which is not sealane's",
                field=f"network_info.{info.name}.network_interface",
                hint="stop the containers that netavark set up before; what it left goes with `ip link delete`",
            )

    # --- ports: on one of a container's networks, the first with a way in

    def _publish(self, container: NetavarkContainer, reserver: Reserver) -> None:
        """Where none has them. Raises ConflictError, ExhaustedError, InvalidError."""
        ports = publish_requests(container.port_mappings or ())
        mine = self._attachments.of(container.container_id)
        if not ports or any(endpoint.ports for endpoint in mine):
            return
        target = way_in(mine, self._engine.intent)
        if target is not None:
            self._engine.publish(target, ports, reserver)

    def _publish_again(self, container: NetavarkContainer, caller: int) -> None:
        target = way_in(self._attachments.of(container.container_id), self._engine.intent)
        sandbox = self._attachments.sandbox(target) if target is not None else None
        if sandbox is not None and sandbox.netns is not None:
            self._publish(container, self._reserver(sandbox.netns.inode, caller))

    def _reserver(self, netns: int, caller: int) -> Reserver:
        """Podman reserves all host ports of a container: version 5 before it asks us, version 4 right after."""
        podman, _ = self._engine.kernel.starter(caller)
        return Reserver(podman, netns, holds_all=True)

    # --- teardown

    async def _teardown(self, container: NetavarkContainer, caller: int) -> None:
        """What is not there is no error, and neither is a namespace that is gone."""
        names = {info.name for info, _ in ordered(container)}
        mine = self._attachments.of(container.container_id)
        going = [e for e in mine if self._engine.intent.networks[e.network].name in names]
        # All that are named: a call that was killed may have taken the endpoints away, and left a network.
        networks = [n for name in names if (n := self._attachments.network(name)) is not None]
        await self._attachments.remove(going)
        self._drop_unused(networks)
        if any(endpoint.ports for endpoint in going):
            # `podman network disconnect` of the one that had them.
            self._publish_again(container, caller)

    def _undo(self, made: Sequence[Endpoint]) -> None:
        networks = [self._engine.intent.networks[e.network] for e in made]
        self._engine.detach([DetachRequest(endpoint=endpoint.id) for endpoint in made])
        self._drop_unused(networks)

    def _drop_unused(self, networks: Sequence[Network]) -> None:
        intent = self._engine.intent
        for network in {n.id: n for n in networks}.values():
            is_podmans = network.id in intent.networks and labelled(network.labels)
            if is_podmans and not intent.endpoints_by_network.get(network.id):
                self._engine.remove_network(network.id)

    # --- the others

    def _update(self, name: str, servers: Sequence[str]) -> None:
        """A network that nobody is on is in podman's books alone, and comes with its servers."""
        network = self._attachments.network(name)
        if network is not None and not labelled(network.labels):
            raise ConflictError(
                f"network {name} is not podman's: all who are on it would ask these servers",
                field="network",
                hint="give a container its own by `--dns`",
            )
        if network is not None:
            self._engine.set_dns_servers(network, [server for server in servers if server])

    def _reload(self) -> None:
        """Podman's user thinks that rules were lost. They are put back as soon as they are; this looks once more."""
        self._engine.check_may_change()
        self._resyncer.resync({HOST})

    def _create(self, request: NetavarkRequest) -> NetavarkView:
        if request.create is None:
            raise InvalidError("there is nothing to create", field="create")
        facts = self._engine.reconciler.compiled.facts
        creator = Creator(self._engine.intent, facts, self._engine.kernel.foreign_link)
        return NetavarkView(network=creator.complete(request.create, datetime.now(UTC)))


def _container(request: NetavarkRequest) -> NetavarkContainer:
    if request.container is None:
        raise NotFoundError("there is no container", field="container")
    if not request.container.container_id:
        raise InvalidError("a container has an id", field="container.container_id")
    return request.container


def _in_use(network: Network, endpoints: Iterable[Endpoint]) -> ConflictError:
    some = ", ".join(sorted(endpoint.name for endpoint in endpoints)[:5])
    return ConflictError(
        f"an earlier network {network.name}, which podman has removed since, is in use: {some}",
        field=f"network_info.{network.name}.id",
        hint="stop what is on it",
    )
