"""What a manifest would change, without changing it: the same drafts, on a copy of the intent."""

from collections.abc import Collection, Iterable, Iterator
from typing import TypeVar

import msgspec

from sealane.compile.host import Compiled
from sealane.compile.reads import Unit
from sealane.engine.attachments import attach_requests, named_addresses
from sealane.engine.builder import ChangeBuilder
from sealane.engine.containers import changed_by, departure, host_of
from sealane.engine.engine import Engine
from sealane.engine.errors import ExistsError
from sealane.engine.problems import at_place
from sealane.engine.waves import completed_before, waves
from sealane.kernel.links import Veth
from sealane.kernel.objects import Link
from sealane.kernel.state import HOST, Object
from sealane.kernel.text import Sets, operation_lines, sets_of
from sealane.model.change import Change, Delete, Put
from sealane.model.endpoint import Endpoint, NetnsRef, Sandbox
from sealane.model.ids import SandboxId
from sealane.model.intent import Intent
from sealane.model.network import Network
from sealane.reconcile.diff import Difference, diff
from sealane.wire.requests import ContainerRequest, Manifest
from sealane.wire.views import PlanLine, PlanView

Item = TypeVar("Item", bound=Object | None)


class Preview:
    """Collects changes on a copy of the intent, in the order in which `apply` makes them.

    Ids are drawn anew.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.intent = Intent(engine.intent.records())
        self._builder = ChangeBuilder(
            self.intent, engine.kernel, lambda: engine.reconciler.compiled.facts, engine.builder
        )
        self._changes: list[Change] = []

    def add(self, manifest: Manifest, *, at_once: bool = False) -> None:
        """Raises the first refusal, with its place in the manifest. `at_once`: all containers that are changed go before any
        comes, and not each wave's before that wave."""
        with self._builder.addresses.leaving(named_addresses(manifest)):
            self._add(manifest, at_once=at_once)

    def _add(self, manifest: Manifest, *, at_once: bool) -> None:
        for index, request in enumerate(manifest.networks):
            with at_place(f"networks[{index}]"):
                self._apply(self._builder.network(request)[1])
        place = {container.name: f"containers[{i}]" for i, container in enumerate(manifest.containers)}
        if at_once:
            self._make_room(manifest.containers, place.keys())
        hosts = {other for request in manifest.containers for _, other in host_of(request)}
        for wave in waves(manifest.containers):
            self._rest({name for name in completed_before(wave) if name not in hosts})
            self._make_room(wave, place.keys())
            for each in wave:
                with at_place(place[each.name]):
                    self._container(each)
        for index, attach in enumerate(manifest.attachments):
            with at_place(f"attachments[{index}]"):
                self._apply(self._builder.attach(attach)[1])

    def _rest(self, names: Iterable[str]) -> None:
        """Containers that have ended by then: they publish nothing any more."""
        for name in names:
            sandbox = self.intent.sandbox_ids.get(name)
            endpoints = self.intent.endpoints_by_sandbox.get(sandbox, {}).values() if sandbox else ()
            self._apply([Put(msgspec.structs.replace(e, dormant=True), e) for e in endpoints])

    def remove(self, changes: list[Change]) -> None:
        self._apply(changes)

    def _make_room(self, wave: Iterable[ContainerRequest], manifest: Collection[str]) -> None:
        for container in changed_by(wave, self.intent, manifest):
            self._apply(departure(container, self.intent))

    def _container(self, container: ContainerRequest) -> None:
        there = self.intent.container_ids.get(container.name)
        if there is not None:
            # It runs, or is started again.
            self._apply(self._builder.activate(self.intent.containers[there].sandbox))
            return
        present = self.intent.sandbox_ids.get(container.name)
        if present is not None:
            raise ExistsError(f"sandbox {container.name} exists", field="name")
        if host_of(container):
            # It lives in another's sandbox, which it may wake.
            host = self.intent.container_named(host_of(container)[0][1])
            if host is not None:
                self._apply(self._builder.activate(host.sandbox))
            return
        if container.network_mode == "host":
            return
        # Its namespace does not exist yet; nothing that is compiled depends on where it will be.
        ref = NetnsRef(path="", inode=0, owner="sealane")
        sandbox = Sandbox(id=SandboxId(f"preview-{container.name}"), name=container.name, netns=ref)
        self._apply([Put(sandbox)])
        for request in attach_requests(container, self.intent):
            self._apply(self._builder.attach(request)[1])

    def _apply(self, changes: Iterable[Change]) -> None:
        for change in changes:
            self.intent.apply(change)
            self._changes.append(change)

    def view(self) -> PlanView:
        reconciler = self._engine.reconciler
        compiled = Compiled(self.intent, reconciler.compiled.facts)
        observed = {
            netns: reconciler.observed.get(netns, {}) for netns in {*compiled.desired, *reconciler.observed}
        }
        sets = sets_of(
            item for state in (observed, compiled.desired) for item in state.get(HOST, {}).values()
        )
        lines = [line for d in diff(compiled.desired, observed) for line in self._lines(d, compiled, sets)]
        appear = [c for c in self._changes if isinstance(c, Put) and c.before is None]
        vanish = [c for c in self._changes if isinstance(c, Delete)]
        return PlanView(
            lines=sorted(lines, key=lambda line: (line.where != HOST, line.where)),
            create=[named(c) for c in appear],
            remove=[named(c) for c in vanish],
        )

    def _lines(self, difference: Difference, compiled: Compiled, sets: Sets) -> Iterator[PlanLine]:
        want, have = difference.desired, difference.observed
        item = want if want is not None else have
        assert item is not None
        source = compiled if want is not None else self._engine.reconciler.compiled
        origin = self._origin(source.origins.get((difference.netns, item.key)))
        verb = "create" if have is None else "delete" if want is None else "change"
        for text in operation_lines(verb, self._readable(item), self._readable(have), sets):
            yield PlanLine(sign=text[0], where=self._where(difference.netns), text=text[2:], origin=origin)  # type: ignore[arg-type]

    def _readable(self, item: Item) -> Item:
        """A veth's peer by its sandbox's name: ids of a preview are made up."""
        if not isinstance(item, Link) or item.peer is None:
            return item
        netns, name = item.peer
        return msgspec.structs.replace(item, kind=Veth(peer=(self._where(netns), name)))

    def _where(self, netns: str) -> str:
        if netns == HOST:
            return HOST
        sandbox = self.intent.sandboxes.get(SandboxId(netns)) or self._engine.intent.sandboxes.get(
            SandboxId(netns)
        )
        return sandbox.name if sandbox else netns

    def _origin(self, unit: Unit | None) -> str:
        if unit is None:
            return ""
        kind, identity = unit
        for intent in (self.intent, self._engine.intent):
            tables: dict[str, dict[str, Network | Endpoint | Sandbox]] = {
                "network": intent.networks,  # type: ignore[dict-item]
                "endpoint": intent.endpoints,  # type: ignore[dict-item]
                "sandbox": intent.sandboxes,  # type: ignore[dict-item]
            }
            record = tables.get(kind, {}).get(identity)
            if record is not None:
                return f"{kind} {record.name}"
        return kind


def named(change: Change) -> str:
    return f"{type(change.record).__name__.lower()} {change.record.name}"
