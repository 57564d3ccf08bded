"""From requests to changes of intent: names resolved, records made, nothing done.

The engine commits and settles these changes; `plan` makes them on a copy of the intent and looks at what they would
compile to. So a preview differs from the deed in what is drawn anew (ids and the link names made of them), and in nothing
else.
"""

import secrets
from collections.abc import Callable, Collection, Iterable, Sequence

import msgspec

from sealane.compile.facts import Facts
from sealane.engine.addresses import Addresses
from sealane.engine.endpoints import EndpointMaker, repeats
from sealane.engine.errors import (
    ConflictError,
    ExistsError,
    InUseError,
    InvalidError,
    NotFoundError,
    SealaneError,
)
from sealane.engine.networks import network_record
from sealane.engine.ports import Kernel, Reserver
from sealane.engine.problems import at_field
from sealane.engine.publishing import Publisher
from sealane.model.change import Change, Delete, Put
from sealane.model.endpoint import Endpoint, NetnsRef, PublishedPort, Sandbox
from sealane.model.ids import EndpointId, NetworkId, SandboxId, bare_name, name_in, namespace_of, parse_name
from sealane.model.intent import Intent
from sealane.model.net import Family, ParseError, family_of
from sealane.model.network import Network
from sealane.wire.requests import (
    AttachRequest,
    DetachRequest,
    NetworkRequest,
    PublishRequest,
    StagedRequest,
)

ID_SHOWN = 12
"""Characters of an id that people are shown."""
NAMES_SHOWN = 5


def new_id() -> str:
    return secrets.token_hex(16)


class ChangeBuilder:
    def __init__(
        self, intent: Intent, kernel: Kernel, facts: Callable[[], Facts], like: "ChangeBuilder | None" = None
    ) -> None:
        """`like`: what is taken in turn goes on from where that is."""
        self.intent = intent
        self._kernel = kernel
        self._facts = facts
        self.publisher: Publisher = Publisher(intent, kernel, like.publisher if like is not None else None)
        self.addresses: Addresses = Addresses(intent, like.addresses if like is not None else None)
        self._endpoints = EndpointMaker(intent, self.addresses, self.publisher)

    # --- networks

    def network(
        self,
        request: NetworkRequest,
        identity: NetworkId | None = None,
        *,
        without: Collection[NetworkId] = (),
    ) -> tuple[Network, list[Change]]:
        """The network and what makes it; no changes if it is there and as asked for. Raises ExistsError if it is
        there and different. `without`: networks that make room for it."""
        record = network_record(
            request,
            identity or NetworkId(new_id()),
            self._without(request.name, without),
            self._facts(),
            self._kernel.foreign_link,
        )
        present = self.intent.network_named(request.name)
        if present is None or present.name != request.name:
            return record, [Put(record)]
        differs = _difference(present, record, request)
        if differs:
            raise ExistsError(
                f"network {request.name} exists with other `{differs}`",
                field=differs,
                hint=f"`sealane network rm {request.name}` first, or choose another name",
            )
        return present, []

    def _without(self, name: str, others: Collection[NetworkId]) -> Intent:
        """The intent that a network of this name is checked against: not against itself."""
        present = self.intent.network_named(name)
        left_out = set(others)
        if present is not None and present.name == name:
            left_out.add(present.id)
        if not left_out:
            return self.intent
        return Intent(n for n in self.intent.networks.values() if n.id not in left_out)

    def find_network(self, reference: str, field: str = "network") -> Network:
        network = self.intent.network_named(reference)
        if network is None:
            known = ", ".join(sorted(self.intent.network_ids)) or "none yet"
            raise NotFoundError(
                f"network {reference!r} not found", field=field, hint=f"networks are: {known}"
            )
        return network

    def remove_network(self, network: Network, *, force: bool = False) -> list[Change]:
        if network.owner and not force:
            raise InUseError(
                f"network {network.name} was made through {network.owner}, which would not know that it is gone",
                hint=f"remove it there (`{network.owner} network rm`), or `--force`",
            )
        endpoints = list(self.intent.endpoints_by_network.get(network.id, {}).values())
        if endpoints and not force:
            some = _some(e.name for e in endpoints)
            count = "1 endpoint" if len(endpoints) == 1 else f"{len(endpoints)} endpoints"
            raise InUseError(
                f"network {network.name} has {count}: {some}",
                hint="detach them first, or `--force`",
            )
        return [*self.remove_endpoints(endpoints), Delete(network)]

    # --- sandboxes

    def sandbox(
        self, name: str, netns: NetnsRef | None, labels: dict[str, str]
    ) -> tuple[Sandbox, list[Change]]:
        with at_field("name"):
            parse_name(name)
        present = self.intent.sandbox_ids.get(name)
        if present is not None:
            raise ExistsError(f"sandbox {name} exists", field="name")
        known = self.intent.sandbox_by_netns.get(netns.identity) if netns is not None else None
        if known is not None:
            there = self.intent.sandboxes[known].name
            raise ConflictError(
                f"that namespace is sandbox {there} already",
                field="netns",
                hint=f"use it by the name {there}",
            )
        sandbox = Sandbox(id=SandboxId(new_id()), name=name, netns=netns, labels=labels)
        return sandbox, [Put(sandbox)]

    def find_sandbox(self, reference: str) -> Sandbox:
        sandbox = self._meant(reference)
        if sandbox is None:
            raise NotFoundError(
                f"there is no sandbox {reference!r}", field="sandbox", hint="see `sealane sandbox ls`"
            )
        return sandbox

    def _meant(self, reference: str) -> Sandbox | None:
        """Raises ConflictError for a name of several Kubernetes namespaces."""
        found = self.intent.sandboxes_named(reference)
        if len(found) > 1:
            raise ConflictError(
                f"{len(found)} sandboxes go by {reference!r}",
                field="sandbox",
                hint=f"one of {_some(sandbox.name for sandbox in found)}",
            )
        return found[0] if found else None

    def sandbox_for(self, where: str, name: str = "", namespace: str = "") -> tuple[Sandbox, list[Change]]:
        """A sandbox by name or id, or the one of the namespace at a path or of a pid, new if need be: of that name (in
        that Kubernetes namespace), if it is free."""
        sandbox = self._sandbox_named(where)
        if sandbox is not None:
            return sandbox, []
        if "/" not in where and not _is_pid(where):
            raise NotFoundError(
                f"there is no sandbox {where!r}",
                field="sandbox",
                hint="a sandbox's name, a namespace's path, or a pid",
            )
        ref = self.namespace(where, "sandbox")
        known = self.intent.sandbox_by_netns.get(ref.identity)
        if known is not None:
            return self.intent.sandboxes[known], []
        awaiting = self.intent.sandbox_by_awaited.get(where)
        if awaiting is not None:
            before = self.intent.sandboxes[awaiting]
            sandbox = msgspec.structs.replace(before, netns=ref)
            return sandbox, [Put(sandbox, before)]
        sandbox = Sandbox(
            id=SandboxId(new_id()),
            name=self._name_for(where, ref, name, namespace),
            netns=ref,
            implicit=True,
        )
        return sandbox, [Put(sandbox)]

    def _sandbox_named(self, reference: str) -> Sandbox | None:
        """By name or id. A pid is not taken for the beginning of an id."""
        if not _is_pid(reference):
            return self._meant(reference)
        known = self.intent.sandbox_ids.get(reference)
        return self.intent.sandboxes[known] if known else None

    def namespace(self, where: str, field: str) -> NetnsRef:
        """The namespace at a path or of a pid. Raises NotFoundError, InvalidError."""
        try:
            return self._kernel.resolve_namespace(where)
        except FileNotFoundError as error:
            what = f"process {where}" if where.isdigit() else where
            raise NotFoundError(f"there is no {what}", field=field) from error
        except (ValueError, OSError) as error:
            raise InvalidError(
                str(error), field=field, hint="a network namespace's path, or a pid"
            ) from error

    def _name_for(self, where: str, ref: NetnsRef, desired: str, namespace: str) -> str:
        base = where.rstrip("/").rpartition("/")[2] if not where.startswith("/proc/") else where.split("/")[2]
        try:
            name = name_in(namespace, desired or (f"pid{base}" if base.isdigit() else base))
        except ParseError:
            name = f"netns{ref.inode}"
        if name not in self.intent.sandbox_ids:
            return name
        return name_in(namespace_of(name), f"{bare_name(name)[:40]}-{ref.inode}")

    # --- endpoints

    def attach(
        self, request: AttachRequest, reserver: Reserver | None = None, *, taken_names: Iterable[str] = ()
    ) -> tuple[Endpoint, list[Change]]:
        """The endpoint and what makes it; no changes for one that is there as asked for. `reserver`: see `Publisher.ports`."""
        network = self.find_network(request.network)
        sandbox, changes = self.sandbox_for(request.sandbox, request.sandbox_name, request.namespace)
        present = self.intent.endpoint_of(sandbox.id, network.id) if not changes else None
        if present is not None:
            differs = repeats(present, request)
            if differs:
                raise ConflictError(
                    f"sandbox {sandbox.name} is on network {network.name} already, with other `{differs}`",
                    field=differs,
                    hint="detach it first",
                )
            return present, []
        endpoint = self._endpoints.make(
            request, network, sandbox, EndpointId(new_id()), reserver, skip=taken_names
        )
        return endpoint, [*changes, Put(endpoint)]

    def stage(self, request: StagedRequest, network: Network, replaced: Collection[EndpointId]) -> Endpoint:
        return self._endpoints.stage(request, network, replaced)

    def lease(self, network: Network, family: Family, address: str, name: str) -> Endpoint:
        return self._endpoints.lease(network, family, address, name)

    def link_name(self, network: Network, sandbox: Sandbox) -> str:
        return self._endpoints.link_name(network, sandbox)

    def ports_of(
        self, endpoint: Endpoint, ports: Sequence[PublishRequest], reserver: Reserver | None = None
    ) -> tuple[PublishedPort, ...]:
        """What publishing them on it would give. Raises ConflictError, ExhaustedError, InvalidError."""
        families = {family_of(address) for address in endpoint.addresses}
        return self.publisher.ports(ports, self.intent.networks[endpoint.network], families, reserver)

    def activate(self, sandbox: SandboxId) -> list[Change]:
        """Its dormant endpoints as they are when something runs there. Raises ConflictError for a port that somebody holds."""
        dormant = [e for e in self.intent.endpoints_by_sandbox.get(sandbox, {}).values() if e.dormant]
        awake = [msgspec.structs.replace(e, dormant=False) for e in self.publisher.again(dormant)]
        return [Put(now, before) for now, before in zip(awake, dormant, strict=True)]

    def find_endpoint(self, reference: str) -> Endpoint:
        matches = self._endpoints_called(reference)
        sandbox_name, slash, network_name = reference.rpartition("/")
        if slash:
            matches += [e for e in self._endpoints_at(sandbox_name, network_name) if e not in matches]
        if not matches:
            raise NotFoundError(
                f"there is no endpoint {reference!r}", field="endpoint", hint="see `sealane endpoint ls`"
            )
        if len(matches) > 1:
            raise ConflictError(
                f"{len(matches)} endpoints go by {reference!r}",
                hint=f"one of {_some(self._unmistakable(e, reference) for e in matches)}",
            )
        return matches[0]

    def _endpoints_called(self, reference: str) -> list[Endpoint]:
        """By name or id; else by a name in any Kubernetes namespace."""
        there = self.intent.endpoints.values()
        exact = [e for e in there if reference in (e.id, e.name)]
        exact = exact or [e for e in there if bare_name(e.name) == reference]
        return exact or [e for e in there if len(reference) >= 4 and e.id.startswith(reference)]

    def _unmistakable(self, endpoint: Endpoint, reference: str) -> str:
        """SANDBOX/NETWORK; the beginning of the id where that is what could mean another, too."""
        sandbox = self.intent.sandboxes.get(endpoint.sandbox) if endpoint.sandbox else None
        if sandbox is None:
            return endpoint.id[:ID_SHOWN]
        at = f"{sandbox.name}/{self.intent.networks[endpoint.network].name}"
        return at if at != reference else f"{endpoint.id[:ID_SHOWN]} (sandbox {sandbox.name})"

    def _endpoints_at(self, sandbox: str, network: str) -> list[Endpoint]:
        onto = self.intent.network_named(network)
        if onto is None:
            return []
        found = [self.intent.endpoint_of(there.id, onto.id) for there in self.intent.sandboxes_named(sandbox)]
        return [endpoint for endpoint in found if endpoint is not None]

    def detach(self, requests: Iterable[DetachRequest]) -> tuple[list[Endpoint], list[Change]]:
        """Endpoints that are there, and what takes them away; what is not there is left out."""
        found: dict[EndpointId, Endpoint] = {}
        for request in requests:
            for endpoint in self._wanted(request):
                found[endpoint.id] = endpoint
        return list(found.values()), self.remove_endpoints(list(found.values()))

    def _wanted(self, request: DetachRequest) -> list[Endpoint]:
        if request.endpoint:
            direct = self.intent.endpoints.get(EndpointId(request.endpoint))
            if direct is not None:
                return [direct]
            try:
                return [self.find_endpoint(request.endpoint)]
            except NotFoundError:
                return []
        sandbox = self._sandbox_if_known(request.sandbox)
        if sandbox is None:
            return []
        endpoints = self.intent.endpoints_by_sandbox.get(sandbox.id, {}).values()
        if not request.network:
            return list(endpoints)
        network = self.intent.network_named(request.network)
        return [e for e in endpoints if network is not None and e.network == network.id]

    def _sandbox_if_known(self, where: str) -> Sandbox | None:
        """The one of the namespace that is at a path, or in which a pid lives, now; if there is none (any more), the one
        that was recorded there."""
        sandbox = self._sandbox_named(where)
        if sandbox is not None or not ("/" in where or _is_pid(where)):
            return sandbox
        path = f"/proc/{where}/ns/net" if _is_pid(where) else where
        try:
            known = self.intent.sandbox_by_netns.get(self.namespace(where, "sandbox").identity)
        except SealaneError:
            known = None
        else:
            if known is None and path.startswith("/proc/"):
                # The pid has been given to somebody else since.
                return None
        if known is not None:
            return self.intent.sandboxes[known]
        return next((s for s in self.intent.sandboxes.values() if s.netns and s.netns.path == path), None)

    def remove_endpoints(self, endpoints: Iterable[Endpoint]) -> list[Change]:
        """Deletions of endpoints, and of implicit sandboxes that they were the last of."""
        changes: list[Change] = []
        going = {e.id for e in endpoints}
        for endpoint in endpoints:
            changes.append(Delete(endpoint))
            if endpoint.sandbox is None:
                continue
            sandbox = self.intent.sandboxes[endpoint.sandbox]
            rest = set(self.intent.endpoints_by_sandbox[sandbox.id]) - going
            last = Delete(sandbox)
            if sandbox.implicit and not rest and last not in changes:
                changes.append(last)
        # Sandboxes after all of their endpoints.
        return sorted(changes, key=lambda c: isinstance(c.record, Sandbox))


def _some(names: Iterable[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:NAMES_SHOWN]) + (" …" if len(listed) > NAMES_SHOWN else "")


def _is_pid(where: str) -> bool:
    return where.isascii() and where.isdigit()


CHOSEN = {"id", "name", "subnets", "host_link", "owner"}
"""What a repeated request for a network does not ask for, or is compared by itself."""


def _difference(present: Network, desired: Network, request: NetworkRequest) -> str:
    """The first field in which an existing network is not what is asked for; automatic subnets match any."""
    for field in Network.__struct_fields__:
        if field not in CHOSEN and getattr(present, field) != getattr(desired, field):
            return field
    # Whether a bridge was there before is found, not asked for.
    for field in ("link", "gateway_on_link"):
        if getattr(present, field) != getattr(desired, field):
            return field
    explicit = {s.prefix for s in request.subnets if s.prefix}
    have = {s.prefix: s for s in present.subnets}
    for subnet in desired.subnets:
        if subnet.prefix in explicit and have.get(subnet.prefix) != subnet:
            return "subnets"
    if {":" in s.prefix for s in present.subnets} != {":" in s.prefix for s in desired.subnets}:
        return "subnets"
    return ""
