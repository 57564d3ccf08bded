"""Verbs for integrations whose clients build an endpoint in stages (Docker's CNM), each undone by one of its own.

    hold_pool       a prefix, before there is a network          drop_pool
    create_network  of prefixes that are held, or of new ones    remove_network
    hold            an address, before there is an endpoint      drop
    create          an endpoint, of addresses that are held      delete
    join            a sandbox whose namespace is yet to come     leave
    publish         ports                                        unpublish

Every verb is one change of intent, so whatever is half-done lies in the store, and a restart between any two of them
changes nothing. All are idempotent; the undoing ones succeed for what is not there. Leaving takes the link and the
ports, deleting gives the addresses back to leases, since who asked for them keeps them in its own books until it drops
them: given to another meanwhile, that would take them from it.
"""

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from sealane.engine.builder import new_id
from sealane.engine.endpoints import lease_of
from sealane.engine.engine import Engine
from sealane.engine.errors import ConflictError, InvalidError, NotFoundError, SealaneError
from sealane.engine.problems import parsed
from sealane.model.change import Change, Delete, Put
from sealane.model.endpoint import Endpoint, Sandbox
from sealane.model.ids import EndpointId, NetworkId, SandboxId, parse_name
from sealane.model.net import Family, parse_address
from sealane.model.network import Network
from sealane.wire.requests import NetworkRequest, PublishRequest, StagedRequest, SubnetRequest


class Staged:
    """`owner`: the word for the engine behind the integration, by which its networks are known."""

    def __init__(self, engine: Engine, owner: str) -> None:
        self._engine = engine
        self._intent = engine.intent
        self._builder = engine.builder
        self._owner = owner

    # --- prefixes and networks

    def hold_pool(self, family: Family, prefix: str, ip_range: str) -> Network:
        """A prefix, given or free. A prefix that is held already is given again: nobody is on it yet."""
        self._engine.check_may_change()
        held = self.pool(prefix) if prefix else None
        if held is not None:
            if held.subnets[0].ip_range != (ip_range or None):
                raise ConflictError(f"{prefix} is held with another range", field="ip_range")
            return held
        identity = NetworkId(new_id())
        request = NetworkRequest(
            name=f"pool-{identity[:12]}",
            subnets=[SubnetRequest(prefix=prefix, ip_range=ip_range)] if prefix else [],
            ipv4=family == 4,
            ipv6=family == 6,
        )
        network, _ = self._builder.network(request, identity)
        record = Network(
            id=identity, name=network.name, driver="none", subnets=network.subnets, owner=self._owner
        )
        self._engine.commit_then_apply([Put(record)])
        return record

    def pool(self, prefix: str) -> Network | None:
        """The held prefix that no network was made of."""
        return next((n for n in self._intent.networks.values() if self._is_pool(n, prefix)), None)

    def _is_pool(self, network: Network, prefix: str) -> bool:
        return (
            network.driver == "none"
            and network.owner == self._owner
            and any(s.prefix == prefix for s in network.subnets)
        )

    def network_of(self, prefix: str) -> Network:
        """The network, or held prefix, that a prefix belongs to. Raises NotFoundError."""
        for network in self._networks_of(prefix):
            return network
        raise NotFoundError(
            f"{prefix} is no subnet that {self._owner} has here",
            field="pool",
            hint="its network was removed by force, or the records were lost: remove it there too, and create it anew",
        )

    def _networks_of(self, prefix: str) -> Iterator[Network]:
        for network in self._intent.networks.values():
            if network.owner == self._owner and any(s.prefix == prefix for s in network.subnets):
                yield network

    def set_gateway(self, pool: Network, gateway: str) -> None:
        """Of a held prefix: the address that is not to be given out."""
        subnet = pool.subnets[0]
        if subnet.gateway != gateway:
            changed = msgspec.structs.replace(subnet, gateway=parsed(parse_address, gateway, "gateway"))
            self._engine.commit_then_apply([Put(msgspec.structs.replace(pool, subnets=(changed,)), pool)])

    def drop_pool(self, prefix: str) -> None:
        """A network that was made of it goes along if nobody is on it: who gives a pool back is about to remove that,
        or has never heard that it was made."""
        pool = self.pool(prefix)
        if pool is None:
            pool = next((n for n in self._networks_of(prefix) if self._is_unused(n)), None)
        if pool is not None:
            self._remove(pool)

    def _is_unused(self, network: Network) -> bool:
        on_it = self._intent.endpoints_by_network.get(network.id, {}).values()
        return all(self._is_stray(endpoint) for endpoint in on_it)

    def create_network(self, request: NetworkRequest, identity: str) -> Network:
        """Of prefixes that are held, whose ranges it takes over, or of new ones."""
        self._engine.check_may_change()
        present = self._intent.networks.get(NetworkId(identity))
        if present is not None:
            return present
        pools = [p for s in request.subnets if s.prefix and (p := self.pool(s.prefix)) is not None]
        ranges: dict[str, str] = {s.prefix: s.ip_range or "" for pool in pools for s in pool.subnets}
        subnets = [_with_range(s, ranges.get(s.prefix, "")) for s in request.subnets]
        whole = msgspec.structs.replace(request, subnets=subnets)
        network, changes = self._builder.network(
            whole, NetworkId(identity), without=frozenset(p.id for p in pools)
        )
        if network.id != identity:
            raise ConflictError(f"there is a network {request.name} already", field="name")
        record = msgspec.structs.replace(network, owner=self._owner)
        gone = [change for pool in pools for change in self._builder.remove_network(pool, force=True)]
        self._engine.commit_then_apply([*gone, *(Put(record) for _ in changes)])
        self._engine.events.emit("network.created", record.name, id=record.id, driver=record.driver)
        return record

    def remove_network(self, identity: str) -> None:
        """With all that is left of its maker's on it. Where others are on it, it is theirs from then on: the maker has
        forgotten it whatever is answered (moby libnetwork/network.go, deleteNetwork: an error of a plugin is logged)."""
        network = self._intent.networks.get(NetworkId(identity))
        if network is None or network.owner != self._owner:
            return
        on_it = list(self._intent.endpoints_by_network[network.id].values())
        makers = [e for e in on_it if e.handover or e.is_lease]
        if len(makers) == len(on_it):
            self._remove(network)
            self._engine.events.emit("network.removed", network.name, id=network.id)
            return
        self._engine.apply_then_commit(self._builder.remove_endpoints(makers))
        self._engine.commit_then_apply([Put(msgspec.structs.replace(network, owner=""), network)])
        self._engine.events.emit("network.released", network.name, id=network.id, by=self._owner)

    def _remove(self, network: Network) -> None:
        self._engine.apply_then_commit(self._builder.remove_network(network, force=True))

    # --- addresses

    def hold(self, network: Network, family: Family, address: str, name: str) -> Endpoint:
        """An address, given or free. One that is held already is given again."""
        self._engine.check_may_change()
        holder = self._holder(network, address) if address else None
        if holder is not None and holder.is_lease:
            return holder
        lease = self._builder.lease(network, family, address, name)
        self._engine.commit_then_apply([Put(lease)])
        return lease

    def drop(self, network: Network, address: str) -> None:
        """An endpoint keeps its address until it is deleted, whoever drops it."""
        holder = self._holder(network, address)
        if holder is not None and holder.is_lease:
            self._engine.apply_then_commit([Delete(holder)])

    def drop_leases(self) -> None:
        """Who asked for them has forgotten: it was started anew."""
        leases = [e for e in self._intent.endpoints.values() if self._is_stray(e)]
        self._engine.apply_then_commit([Delete(lease) for lease in leases])

    def _is_stray(self, endpoint: Endpoint) -> bool:
        """Held, or made and never joined, for a network of ours; on a held prefix nobody ever joins."""
        network = self._intent.networks[endpoint.network]
        unused = endpoint.is_lease or (endpoint.handover and endpoint.sandbox is None)
        return unused and network.owner == self._owner and network.driver != "none"

    def _holder(self, network: Network, address: str) -> Endpoint | None:
        canonical = parsed(parse_address, address, "address")
        held = self._intent.leases.get((network.id, canonical))
        return self._intent.endpoints[held] if held else None

    # --- endpoints

    def create(self, request: StagedRequest) -> Endpoint:
        """An endpoint without a sandbox. Leases of its addresses become its own, and so do addresses of an endpoint
        that was never joined: its maker has forgotten it, or would not give them out again."""
        self._engine.check_may_change()
        present = self._intent.endpoints.get(EndpointId(request.id))
        if present is not None:
            return present
        network = self._builder.find_network(request.network)
        replaced = [h for a in request.addresses if (h := self._holder(network, a.partition("/")[0]))]
        replaced = list({h.id: h for h in replaced if h.is_lease or (h.handover and not h.sandbox)}.values())
        endpoint = self._builder.stage(request, network, [h.id for h in replaced])
        self._engine.commit_then_apply([*(Delete(holder) for holder in replaced), Put(endpoint)])
        return endpoint

    def delete(self, identity: str, *, keep_leases: bool) -> None:
        """`keep_leases`: its addresses are held on, until they are dropped."""
        endpoint = self._intent.endpoints.get(EndpointId(identity))
        if endpoint is None:
            return
        changes = self._builder.remove_endpoints([endpoint])
        if keep_leases:
            changes += [Put(lease_of(endpoint.network, a, endpoint.name)) for a in endpoint.addresses]
        self._engine.apply_then_commit(changes)
        self._engine.tell_of("endpoint.detached", endpoint)

    def find(self, identity: str) -> Endpoint:
        endpoint = self._intent.endpoints.get(EndpointId(identity))
        if endpoint is None:
            raise NotFoundError(f"there is no endpoint {identity[:12]}", field="endpoint")
        return endpoint

    def join(
        self, identity: str, awaited: str, name: str, labels: Mapping[str, str], *, without_gateway: bool
    ) -> Endpoint:
        """Give an endpoint its sandbox: the one whose namespace is, or will be, at `awaited`; `name` is for a new one."""
        self._engine.check_may_change()
        endpoint = self.find(identity)
        sandbox, changes = self._sandbox(awaited, name)
        if endpoint.sandbox is not None:
            if endpoint.sandbox != sandbox.id:
                raise ConflictError(f"endpoint {endpoint.name} is in another sandbox", field="sandbox")
            return endpoint
        if self._intent.endpoint_of(sandbox.id, endpoint.network) is not None:
            raise ConflictError(f"sandbox {sandbox.name} is on this network already", field="sandbox")
        network = self._intent.networks[endpoint.network]
        joined = msgspec.structs.replace(
            endpoint,
            sandbox=sandbox.id,
            ifname=self._builder.link_name(network, sandbox),
            labels={**endpoint.labels, **labels},
            without_gateway=without_gateway,
        )
        self._engine.commit_then_apply([*changes, Put(joined, endpoint)])
        self._engine.tell_of("endpoint.attached", joined)
        return joined

    def _sandbox(self, awaited: str, name: str) -> tuple[Sandbox, list[Change]]:
        if not awaited.startswith("/"):
            raise InvalidError(f"{awaited!r} is no path of a namespace", field="sandbox")
        known = self._intent.sandbox_by_awaited.get(awaited)
        if known is not None:
            return self._intent.sandboxes[known], []
        try:
            ref = self._builder.namespace(awaited, "sandbox")
        except SealaneError:
            ref = None
        if ref is not None and ref.identity in self._intent.sandbox_by_netns:
            return self._intent.sandboxes[self._intent.sandbox_by_netns[ref.identity]], []
        parsed(parse_name, name, "sandbox")
        taken = name in self._intent.sandbox_ids
        record = Sandbox(
            id=SandboxId(new_id()),
            name=f"{name[:40]}-{new_id()[:6]}" if taken else name,
            netns=ref,
            implicit=True,
            awaited=awaited,
        )
        return record, [Put(record)]

    def leave(self, identity: str) -> None:
        """The link goes, wherever it is by now, and what was published; addresses stay."""
        endpoint = self._intent.endpoints.get(EndpointId(identity))
        if endpoint is None or endpoint.sandbox is None:
            return
        left = msgspec.structs.replace(endpoint, sandbox=None, ports=())
        changes: list[Change] = [Put(left, endpoint)]
        sandbox = self._intent.sandboxes[endpoint.sandbox]
        if sandbox.implicit and len(self._intent.endpoints_by_sandbox[sandbox.id]) == 1:
            changes.append(Delete(sandbox))
        self._engine.apply_then_commit(changes)

    def publish(self, identity: str, ports: Sequence[PublishRequest]) -> None:
        self._engine.publish(self.find(identity), ports)

    def unpublish(self, identity: str) -> None:
        endpoint = self._intent.endpoints.get(EndpointId(identity))
        if endpoint is not None:
            self._engine.publish(endpoint, ())

    # --- namespaces that were awaited

    def awaited(self) -> list[Sandbox]:
        known = (self._intent.sandboxes[s] for s in self._intent.sandbox_by_awaited.values())
        return [sandbox for sandbox in known if sandbox.netns is None]

    def look_for(self, sandbox: Sandbox) -> bool:
        """Whether the namespace is there by now; then the sandbox is known to be alive, and will be known to be dead.

        Idempotent; what is found and belongs to another sandbox already is left to that one."""
        try:
            ref = self._builder.namespace(sandbox.awaited, "sandbox")
        except SealaneError:
            return False
        if ref.identity not in self._intent.sandbox_by_netns:
            self._engine.commit_then_apply([Put(msgspec.structs.replace(sandbox, netns=ref), sandbox)])
            self._engine.events.emit("sandbox.found", sandbox.name, id=sandbox.id)
        return True

    def give_up(self, sandbox: Sandbox) -> None:
        """Its namespace has not come in all that time."""
        self._engine.release([sandbox.id], "its namespace has never come")


def _with_range(subnet: SubnetRequest, ip_range: str) -> SubnetRequest:
    return msgspec.structs.replace(subnet, ip_range=subnet.ip_range or ip_range)
