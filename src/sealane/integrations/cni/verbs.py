"""CNI's verbs, as the executable asks for them (`sealane.programs.cni`), on the engine's.

CNI knows an attachment by its network, the container's id and the link's name. Where a container comes back under its id
in another namespace, what it had in the dead one goes first.

Runtimes ask for a container's ports on each of its networks. They are published on one of them, the first to come, and
when it leaves that network on the next one with a way in.
"""

import logging
from collections.abc import Sequence

import msgspec

from sealane.engine.attachments import way_in
from sealane.engine.endpoints import is_answer
from sealane.engine.engine import Engine
from sealane.engine.errors import ConflictError, InvalidError, KernelError, SealaneError
from sealane.engine.ports import NamespaceGoneError, Reserver
from sealane.engine.reconciler import told
from sealane.integrations.attachments import Attachments, Detach
from sealane.integrations.cni.config import (
    CONTAINER,
    IFNAME,
    attach_request,
    check_agreement,
    network_request,
)
from sealane.integrations.cni.result import result_of
from sealane.integrations.ports import request_for
from sealane.kernel.objects import Link
from sealane.model.endpoint import Endpoint, PublishedPort
from sealane.model.ids import EndpointId
from sealane.model.net import address_part
from sealane.model.network import Network
from sealane.reconcile.diff import EMPTY, Difference, diff
from sealane.wire.cni import CniRequest, CniView
from sealane.wire.requests import PublishRequest

log = logging.getLogger("sealane")

DONE = CniView()
RESERVING = ("podman",)
"""Runtimes that reserve all host ports of a container, before or after they call us."""


class Cni:
    def __init__(self, engine: Engine, detach: Detach) -> None:
        self._engine = engine
        self._attachments = Attachments(engine, detach, CONTAINER)

    async def call(self, request: CniRequest, caller: int = 0) -> CniView:
        """`caller`: pid of the executable, which the runtime started. Raises the engine's errors."""
        match request.verb:
            case "ADD":
                return await self._add(request, caller)
            case "DEL":
                await self._delete(request, caller)
            case "CHECK":
                self._check(request)
            case "GC":
                await self._attachments.remove(self._not_valid(request))
            case "STATUS":
                # A network that is full is no failure of the node: containerd 2 would have its pods evicted.
                self._engine.check_may_change()
        return DONE

    # --- ADD and DEL

    async def _add(self, request: CniRequest, caller: int) -> CniView:
        present = await self._settled(request)
        if present is not None and not self._attachments.is_there(present, request.netns):
            if not request.only_present:
                await self._attachments.remove([present])
            present = None
        if request.only_present:
            return CniView(result=None) if present is None else self._view(present, request)
        made = self._network(request)
        try:
            desired = attach_request(request, self._priority(request, present))
            desired = msgspec.structs.replace(
                desired, publish=self._left_to_publish(request, desired.publish)
            )
            netns = self._engine.builder.namespace(request.netns, "netns")
            view = self._engine.attach(desired, self._reserver(netns.inode, caller))
        except SealaneError:
            if made is not None:
                self._engine.remove_network(made.name)
            raise
        return self._view(self._engine.intent.endpoints[EndpointId(view.id)], request)

    async def _delete(self, request: CniRequest, caller: int) -> None:
        there = self._find(request)
        await self._attachments.remove([there] if there is not None else [])
        if there is not None and there.ports:
            self._publish_elsewhere(request.container_id, there.ports, caller)

    def _left_to_publish(
        self, request: CniRequest, desired: Sequence[PublishRequest]
    ) -> list[PublishRequest]:
        """But for what the container publishes on another of its networks."""
        same = self._find(request)
        published = [
            port
            for endpoint in self._attachments.of(request.container_id)
            if endpoint.ports
            and (same is None or endpoint.id != same.id)
            and self._attachments.is_there(endpoint, request.netns)
            for port in endpoint.ports
        ]
        return [asked for asked in desired if not any(is_answer(port, asked) for port in published)]

    def _publish_elsewhere(self, container: str, ports: Sequence[PublishedPort], caller: int) -> None:
        """By what the container is reached now, if by anything. What cannot be is told in the log: a DEL does not fail."""
        target = way_in(self._attachments.of(container), self._engine.intent)
        sandbox = self._attachments.sandbox(target) if target is not None else None
        if target is None or sandbox is None or sandbox.netns is None:
            return
        reserver = self._reserver(sandbox.netns.inode, caller)
        try:
            desired = [request_for(port) for port in ports]
            self._engine.publish_more(target, self._engine.builder.ports_of(target, desired, reserver))
        except SealaneError as error:
            log.warning("ports of %s, which has left a network: %s", target.name, error.message)

    def _reserver(self, netns: int, caller: int) -> Reserver:
        """The runtime, which may hold a container's host ports so that nobody takes them before they are published."""
        runtime, name = self._engine.kernel.starter(caller)
        return Reserver(runtime, netns, holds_all=name in RESERVING)

    def _network(self, request: CniRequest) -> Network | None:
        """See that the network is there and as the configuration says; the network if it was made by this."""
        config, leased = request.config, request.leased
        present = self._attachments.network(config.name)
        if present is not None:
            check_agreement(present, config, leased)
            return None
        self._engine.create_network(network_request(config, leased))
        return self._attachments.network(config.name)

    def _priority(self, request: CniRequest, present: Endpoint | None) -> int:
        """The first network of a container is its way out, whatever the names of those that follow."""
        if present is not None:
            return present.gateway_priority
        identity = self._engine.builder.namespace(request.netns, "netns").identity
        sandbox = self._engine.intent.sandbox_by_netns.get(identity)
        return int(sandbox is None or not self._engine.intent.endpoints_by_sandbox.get(sandbox))

    def _view(self, endpoint: Endpoint, request: CniRequest) -> CniView:
        facts = self._engine.reconciler.compiled.facts
        return CniView(result=result_of(endpoint, self._engine.intent, facts, request.netns, request.config))

    async def _settled(self, request: CniRequest) -> Endpoint | None:
        """The attachment after whoever is taking it away has ended; None if there is none then."""
        present = self._find(request)
        if present is not None:
            await self._attachments.settled([present])
        return self._find(request)

    def _find(self, request: CniRequest) -> Endpoint | None:
        network = self._attachments.network(request.config.name)
        if network is None:
            return None
        desired = (request.container_id, request.ifname)
        mine = self._attachments.of(request.container_id)
        return next((e for e in mine if e.network == network.id and _key(e) == desired), None)

    # --- CHECK and GC

    def _check(self, request: CniRequest) -> None:
        """Raises ConflictError for what is not as ADD left it. What later plugins changed is theirs: of a link only
        that it is there and up counts."""
        endpoint = self._find(request)
        where = f"container {request.container_id}, {request.ifname} on network {request.config.name}"
        if endpoint is None:
            raise ConflictError(f"{where}: there is no such attachment")
        if not self._attachments.is_there(endpoint, request.netns):
            raise ConflictError(f"{where}: attached in another namespace than {request.netns}")
        if request.prev is not None and request.prev.ips:
            told_of = {address_part(ip.address) for ip in request.prev.ips}
            for address in endpoint.addresses:
                if address_part(address) not in told_of:
                    raise ConflictError(f"{where}: prevResult does not have {address}")
        unit = ("endpoint", endpoint.id)
        if unit in self._engine.reconciler.failures:
            raise ConflictError(f"{where}: {self._engine.reconciler.failures[unit]}")
        wrong = [told(d) for d in self._differences(endpoint) if _is_lost(d)]
        if wrong:
            raise ConflictError(
                f"{where}: {'; '.join(wrong)}", hint="the daemon repairs it, or `sealane audit`"
            )

    def _differences(self, endpoint: Endpoint) -> list[Difference]:
        sandbox = self._attachments.sandbox(endpoint)
        assert sandbox is not None
        desired = self._engine.reconciler.compiled.desired.get(sandbox.id, EMPTY)
        try:
            found = self._engine.kernel.observe(sandbox.id, sandbox.netns, desired)
        except (NamespaceGoneError, OSError) as error:
            raise KernelError(f"the namespace cannot be looked at: {error}") from error
        return diff({sandbox.id: desired}, {sandbox.id: found})

    def _not_valid(self, request: CniRequest) -> list[Endpoint]:
        config = request.config
        given = config.attachments if config.valid is msgspec.UNSET else config.valid
        if given is msgspec.UNSET:
            raise InvalidError("GC without its list would remove all", field="cni.dev/valid-attachments")
        valid = {(attachment.container_id, attachment.ifname) for attachment in given or ()}
        return [e for e in self._attachments.on(config.name) if _key(e) not in valid]


def _key(endpoint: Endpoint) -> tuple[str, str]:
    return endpoint.labels[CONTAINER], endpoint.labels.get(IFNAME, "")


def _is_lost(difference: Difference) -> bool:
    want, have = difference.desired, difference.observed
    if want is None:
        return False
    return have is None or (isinstance(want, Link) and isinstance(have, Link) and want.up and not have.up)
