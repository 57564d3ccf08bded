"""Manifests: objects that belong together, made true or taken away in the order of their dependence."""

import asyncio
from collections.abc import Collection, Coroutine, Iterable, Mapping
from typing import Any

from sealane.daemon.specs import network_mode
from sealane.daemon.workloads import SEE_CONTAINERS, Workloads
from sealane.engine.attachments import named_addresses
from sealane.engine.containers import (
    changed_by,
    check_guests,
    departure,
    dependents,
    dependents_first,
    host_of,
    request_of,
)
from sealane.engine.engine import Engine
from sealane.engine.errors import ConflictError, ExistsError, NotFoundError, SealaneError
from sealane.engine.labels import PROJECT
from sealane.engine.preview import Preview
from sealane.engine.problems import at_place
from sealane.engine.waves import waves
from sealane.model.change import Change, Delete
from sealane.model.container import Container
from sealane.model.network import Network
from sealane.wire.requests import ContainerRequest, DetachRequest, Manifest
from sealane.wire.views import ApplyView, ContainerView, PlanView

CHECK_CHARS_SHOWN = 200
CONDITION_POLL_S = 0.05
CONDITION_TIMEOUT_S = 300.0


async def _together(work: Iterable[Coroutine[Any, Any, object]]) -> None:
    """All to its end; raises the first failure."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


def _is_same_project(one: dict[str, str], other: dict[str, str]) -> bool:
    return one.get(PROJECT, "") == other.get(PROJECT, "")


def _whose(record: Container | Network) -> str:
    project = record.labels.get(PROJECT)
    return f"project {project}'s" if project else "of no project"


class Projects:
    def __init__(self, engine: Engine, workloads: Workloads) -> None:
        self._engine = engine
        self._workloads = workloads

    def plan(self, manifest: Manifest, *, delete: bool) -> PlanView:
        """The kernel difference that `apply` (or `delete`) would make, line by line. Changes nothing."""
        if delete:
            preview = Preview(self._engine)
            preview.remove(self._removal(manifest))
        else:
            # Not the specs: images are fetched only for what is made.
            self._check_others(manifest)
            preview, _ = self._rehearsed(manifest)
            preview.remove(self._unused_networks(manifest, preview))
        return preview.view()

    def _rehearsed(self, manifest: Manifest) -> tuple[Preview, bool]:
        """What `apply` makes, and whether all that is changed has to go at once: where one takes what another gives up that
        starts later. Raises what `apply` would be refused with half-way, with its place in the manifest."""
        self._check_owners(manifest)
        first: ConflictError | None = None
        for at_once in (False, True):
            preview = Preview(self._engine)
            intent = self._engine.intent
            preview.remove([change for c in self._going(manifest) for change in departure(c, intent)])
            try:
                preview.add(manifest, at_once=at_once)
            except ConflictError as error:
                first = first or error
            else:
                return preview, at_once
        assert first is not None
        raise first

    def _check_owners(self, manifest: Manifest) -> None:
        """What somebody else made, or lives by, is not ours to take away."""
        for index, request in enumerate(manifest.containers):
            present = self._present(request)
            if present is not None and not _is_same_project(present.labels, request.labels):
                raise ExistsError(
                    f"container {request.name} exists, and is {_whose(present)}",
                    field=f"containers[{index}].name",
                    hint=f"`sealane rm --force {request.name}` if it is not needed, or choose another name",
                )
        for index, desired in enumerate(manifest.networks):
            identity = self._engine.intent.network_ids.get(desired.name)
            network = self._engine.intent.networks[identity] if identity else None
            if network is not None and not _is_same_project(network.labels, desired.labels):
                raise ExistsError(
                    f"network {desired.name} exists, and is {_whose(network)}",
                    field=f"networks[{index}].name",
                    hint="leave it out to join it as it is (compose: `external: true`), or choose another name",
                )
        self._check_guests(self._going(manifest))

    def _check_guests(self, going: Collection[Container]) -> None:
        """Who lives in the sandbox of one that goes, and does not go himself, keeps all from going."""
        names = {container.name for container in going}
        for container in going:
            check_guests(container, self._engine.intent, names)

    def _check_specs(self, manifest: Manifest) -> None:
        """What containers are started with. (Sources of mounts and programs are looked for when they are needed.)"""
        for index, request in enumerate(manifest.containers):
            with at_place(f"containers[{index}]"):
                self._workloads.check(request)

    def _check_others(self, manifest: Manifest) -> None:
        """Which others they name, who are there or come."""
        coming = {request.name for request in manifest.containers}
        going = {container.id for container in self._leftovers(manifest)}
        for index, request in enumerate(manifest.containers):
            with at_place(f"containers[{index}]"):
                network_mode(request)
                for field, name in (*(("depends_on", n) for n in request.depends_on), *host_of(request)):
                    present = self._engine.intent.container_named(name)
                    if name not in coming and (present is None or present.id in going):
                        raise NotFoundError(
                            f"there is no container {name!r}", field=field, hint=SEE_CONTAINERS
                        )

    async def apply(self, manifest: Manifest) -> ApplyView:
        """Make the manifest's objects, those of the project that it no longer has go first."""
        self._engine.check_may_change()
        # Before anything is changed.
        self._check_specs(manifest)
        self._check_others(manifest)
        _, at_once = self._rehearsed(manifest)
        with self._engine.builder.addresses.leaving(named_addresses(manifest)):
            return await self._make(manifest, at_once=at_once)

    async def _make(self, manifest: Manifest, *, at_once: bool) -> ApplyView:
        view = ApplyView()
        coming, replaced = {request.name for request in manifest.containers}, set[str]()
        for container in self._going(manifest):
            await self._workloads.remove(container.id, force=True)
            if container.name in coming:
                replaced.add(container.name)
            else:
                view.removed.append(f"container {container.name}")
        for index, network in enumerate(manifest.networks):
            before = self._engine.revision
            with at_place(f"networks[{index}]"):
                self._engine.create_network(network)
            (view.unchanged if self._engine.revision == before else view.created).append(
                f"network {network.name}"
            )
        places = {container.name: f"containers[{i}]" for i, container in enumerate(manifest.containers)}
        replaced |= await self._make_room(manifest.containers, places) if at_once else set()
        for wave in waves(manifest.containers):
            await self._apply_wave(wave, places, replaced, view)
        for index, attachment in enumerate(manifest.attachments):
            before = self._engine.revision
            with at_place(f"attachments[{index}]"):
                endpoint = self._engine.attach(attachment)
            done = view.unchanged if self._engine.revision == before else view.created
            done.append(f"endpoint {endpoint.sandbox}/{endpoint.network}")
        view.removed.extend(self._remove_networks(manifest))
        return view

    async def _apply_wave(
        self, wave: list[ContainerRequest], places: Mapping[str, str], replaced: set[str], view: ApplyView
    ) -> None:
        """Containers that do not wait for one another: started together, once what they wait for is there, and once all
        that are otherwise now have given up their ports and addresses."""
        await _together(self._wait_for(*need) for request in wave for need in request.depends_on.items())
        replaced |= await self._make_room(wave, places)

        async def come(request: ContainerRequest) -> None:
            with at_place(places[request.name]):
                await self._apply_container(request, view, was_there=request.name in replaced)

        await _together(map(come, wave))

    async def _make_room(self, wave: Iterable[ContainerRequest], places: Mapping[str, str]) -> set[str]:
        """Take away what is otherwise now; its names."""
        changed = changed_by(wave, self._engine.intent, places.keys())
        for container in changed:
            await self._workloads.remove(container.id, force=True)
        return {container.name for container in changed}

    def _present(self, request: ContainerRequest) -> Container | None:
        identity = self._engine.intent.container_ids.get(request.name)
        return self._engine.intent.containers[identity] if identity else None

    async def _apply_container(self, request: ContainerRequest, view: ApplyView, *, was_there: bool) -> None:
        name, present = f"container {request.name}", self._present(request)
        if present is None:
            await self._workloads.create(request)
            (view.changed if was_there else view.created).append(name)
        elif self._workloads.view(present.id).status in ("running", "restarting"):
            view.unchanged.append(name)
        else:
            await self._workloads.start(present.id)
            view.changed.append(name)

    async def _wait_for(self, name: str, condition: str) -> None:
        """Until a dependency is `started`, `healthy`, or `completed` with exit code 0."""
        deadline = asyncio.get_running_loop().time() + CONDITION_TIMEOUT_S
        while not self._is_met(name, condition):
            if asyncio.get_running_loop().time() >= deadline:
                raise ConflictError(
                    f"container {name} was not {condition} within {CONDITION_TIMEOUT_S:.0f} s"
                )
            await asyncio.sleep(CONDITION_POLL_S)
        if condition == "completed":
            self._workloads.settle(name)

    def _is_met(self, name: str, condition: str) -> bool:
        view = self._workloads.view(name)
        ended = view.status == "exited"
        if view.status == "dead" and condition != "started":
            raise ConflictError(f"exit code of container {name} is unknown", hint=f"sealane inspect {name}")
        if condition == "completed":
            if ended and view.exit_code:
                raise ConflictError(
                    f"container {name} ended with exit code {view.exit_code}", hint=f"sealane logs {name}"
                )
            return ended
        if condition == "healthy":
            if ended:
                raise ConflictError(
                    f"container {name} ended with exit code {view.exit_code} before it was healthy",
                    hint=f"sealane logs {name}",
                )
            if view.health == "unhealthy":
                raise ConflictError(
                    f"container {name} is unhealthy{_last_check(view)}", hint=f"see `sealane inspect {name}`"
                )
            return view.health == "healthy"
        return view.status in ("running", "restarting", "exited")

    async def delete(self, manifest: Manifest) -> ApplyView:
        """Take the manifest's objects away, and all of its project's. What is not there is no error."""
        view = ApplyView()
        going = self._containers_of(manifest)
        self._check_guests([container for wave in going for container in wave])
        for wave in going:
            await asyncio.gather(*(self._workloads.stop(container.id) for container in wave))
            for container in wave:
                await self._workloads.remove(container.id, force=True)
                view.removed.append(f"container {container.name}")
        requests = [DetachRequest(sandbox=a.sandbox, network=a.network) for a in manifest.attachments]
        gone = self._engine.detach(requests).detached
        view.removed.extend(f"endpoint {identity[:12]}" for identity in gone)
        self._delete_networks(manifest, view)
        return view

    def _delete_networks(self, manifest: Manifest, view: ApplyView) -> None:
        """One that somebody else is on stays, and the others go all the same. Raises the first refusal, with the names of
        all that stayed."""
        runtime_errors: dict[str, SealaneError] = {}
        for network in self._networks_of(manifest):
            try:
                self._engine.remove_network(network.id)
            except SealaneError as error:
                runtime_errors[network.name] = error
            else:
                view.removed.append(f"network {network.name}")
        if runtime_errors:
            first = next(iter(runtime_errors.values()))
            stayed = f"; networks that stayed: {', '.join(runtime_errors)}" if len(runtime_errors) > 1 else ""
            raise type(first)(f"{first.message}{stayed}", field=first.field, hint=first.hint) from first

    def _containers_of(self, manifest: Manifest) -> list[list[Container]]:
        """In waves, dependents before what they depend on."""
        intent = self._engine.intent
        asked = {request.name: request.labels for request in manifest.containers}
        mine = [c for c in intent.containers.values() if self._belongs(c, asked, manifest)]
        by_name = {c.name: c for c in mine}
        return [[by_name[c.name] for c in wave] for wave in reversed(waves(map(request_of, mine)))]

    def _networks_of(self, manifest: Manifest) -> list[Network]:
        asked = {request.name: request.labels for request in manifest.networks}
        return [n for n in self._engine.intent.networks.values() if self._belongs(n, asked, manifest)]

    def _belongs(
        self, record: Container | Network, asked: Mapping[str, dict[str, str]], manifest: Manifest
    ) -> bool:
        """Whether it is the manifest's: of its project, or one of those `asked` for, by the name, and of no other project
        than is asked for. What somebody else made under the same name is his."""
        if self._is_of(record.labels, manifest):
            return True
        return record.name in asked and _is_same_project(record.labels, asked[record.name])

    def _is_of(self, labels: dict[str, str], manifest: Manifest) -> bool:
        return bool(manifest.project) and labels.get(PROJECT) == manifest.project

    def _leftovers(self, manifest: Manifest) -> list[Container]:
        """What the project has no more, in an order in which it can go."""
        intent, names = self._engine.intent, {c.name for c in manifest.containers}
        mine = (c for c in intent.containers.values() if self._is_of(c.labels, manifest))
        return dependents_first((c for c in mine if c.name not in names), intent)

    def _going(self, manifest: Manifest) -> list[Container]:
        """What goes before anything comes: leftovers, and who lives with one and comes again."""
        intent, names = self._engine.intent, {c.name for c in manifest.containers}
        leftovers = self._leftovers(manifest)
        guests = [c for host in leftovers for c in dependents(host, intent) if c.name in names]
        return dependents_first([*guests, *leftovers], intent)

    def _unused_networks(self, manifest: Manifest, preview: Preview) -> list[Change]:
        names = {n.name for n in manifest.networks}
        intent = preview.intent
        return [
            Delete(network)
            for network in intent.networks.values()
            if self._is_of(network.labels, manifest)
            and network.name not in names
            and not intent.endpoints_by_network.get(network.id)
        ]

    def _removal(self, manifest: Manifest) -> list[Change]:
        intent = self._engine.intent
        containers = [c for wave in self._containers_of(manifest) for c in wave]
        gone = [change for c in containers for change in departure(c, intent)]
        requests = [DetachRequest(sandbox=a.sandbox, network=a.network) for a in manifest.attachments]
        _, detached = self._engine.builder.detach(requests)
        networks = self._networks_of(manifest)
        return [*gone, *(c for c in detached if c not in gone), *map(Delete, networks)]

    def _remove_networks(self, manifest: Manifest) -> list[str]:
        names = {n.name for n in manifest.networks}
        removed = []
        for network in list(self._engine.intent.networks.values()):
            if self._is_of(network.labels, manifest) and network.name not in names:
                try:
                    self._engine.remove_network(network.id)
                except SealaneError:
                    # Something outside the project is on it.
                    continue
                removed.append(f"network {network.name}")
        return removed


def _last_check(view: ContainerView) -> str:
    if not view.health_log:
        return ""
    last = view.health_log[-1]
    said = last.output.strip()[:CHECK_CHARS_SHOWN]
    return f": its check ended with exit code {last.exit_code}" + (f" and said {said!r}" if said else "")
