"""The whole compiler on one screen: intent and facts to the state that a host should have.

Intent objects are compiled one by one (`compile_unit`), each from nothing but the frozen records it names, so a
change recompiles the units it touches and no others. Law (tests/property/test_compile.py): however an intent came
about, the incremental result equals `compile_host` of it.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping

from sealane.compile.base import compile_base, compile_guards
from sealane.compile.drivers import compile_endpoint, compile_network
from sealane.compile.endpoint import Placed
from sealane.compile.facts import Facts
from sealane.compile.fast_path import compile_gates
from sealane.compile.forwarding import forwarded, switches, transit_rules, transit_sets
from sealane.compile.names import PASSAGE_LINKS
from sealane.compile.network import is_apart
from sealane.compile.publish import compile_publish, compile_publish_from
from sealane.compile.reads import HOST_UNIT, Unit, readers, units_of
from sealane.compile.sandbox import compile_sandbox
from sealane.kernel.objects import ForwardRule, Key
from sealane.kernel.state import HOST, HostState, Object
from sealane.model.change import Change
from sealane.model.ids import EndpointId, NetworkId, SandboxId
from sealane.model.intent import Intent
from sealane.model.net import FAMILIES
from sealane.model.network import Network


def units(intent: Intent) -> Iterator[Unit]:
    yield HOST_UNIT
    yield from (("network", n) for n in intent.networks)
    yield from (("endpoint", e) for e in intent.endpoints)
    yield from (("sandbox", s) for s in intent.sandboxes)


def compile_unit(intent: Intent, facts: Facts, unit: Unit) -> Iterator[Placed]:
    """The kernel objects of one intent object; none if it is not there (any more)."""
    kind, identity = unit
    match kind:
        case "host":
            yield from ((HOST, item) for item in _host(intent, facts))
        case "network":
            network = intent.networks.get(NetworkId(identity))
            if network is not None:
                yield from ((HOST, item) for item in compile_network(network, facts))
        case "endpoint":
            endpoint = intent.endpoints.get(EndpointId(identity))
            if endpoint is not None:
                network = intent.networks[endpoint.network]
                yield from compile_endpoint(endpoint, network, facts)
                yield from ((HOST, item) for item in compile_publish(endpoint, network, facts))
        case "sandbox":
            sandbox = intent.sandboxes.get(SandboxId(identity))
            if sandbox is not None:
                endpoints = intent.endpoints_by_sandbox.get(sandbox.id, {}).values()
                yield from (
                    (sandbox.id, item) for item in compile_sandbox(sandbox, endpoints, intent.networks)
                )
                yield from ((HOST, item) for item in compile_publish_from(endpoints, intent.networks))


def _host(intent: Intent, facts: Facts) -> Iterator[Object]:
    """The static ruleset and forwarding: as long as there is a network that needs them, or somebody who lives by it."""
    networks = [n for n in intent.networks.values() if n.traits.follows_host_rules]
    families = forwarded(networks, facts)
    if networks:
        yield from compile_guards(apart=any(map(is_apart, networks)))
        yield from _forward_rules(networks, facts)
        yield from compile_gates(networks, facts)
    for family in FAMILIES if networks or families else ():
        # Both families always: one that no network has is denied at our links, not left unconfigured.
        if family == 6 and not facts.features.ipv6:
            continue
        is_closed = family in families and family not in facts.forwards
        transit = transit_rules(facts) if is_closed else ()
        yield from compile_base(family, adopted=any(n.link_adopted for n in networks), transit=transit)
        if is_closed:
            yield from transit_sets(family, facts)
    yield from switches(families, facts)


def _forward_rules(networks: Iterable[Network], facts: Facts) -> Iterator[ForwardRule]:
    """Where somebody else's FORWARD drops by policy, what our own tables let pass is let pass there too."""
    links = {PASSAGE_LINKS, *(network.link for network in networks if network.link)}
    for family in facts.features.forward_drops:
        yield from (ForwardRule(family=family, link=link) for link in sorted(links))


def compile_host(intent: Intent, facts: Facts) -> HostState:
    """Everything, from nothing."""
    state: dict[str, dict[Key, Object]] = {HOST: {}}
    for unit in units(intent):
        for netns, item in compile_unit(intent, facts, unit):
            there = state.setdefault(netns, {})
            if there.setdefault(item.key, item) != item:
                raise ValueError(f"{unit} and another unit both make {item.key}")
    return state


class DuplicateObjectError(ValueError):
    """Two units make one object: their names, which are hashes, collide, or the compiler has a bug."""


def touched(change: Change, fields: Collection[str], intent: Intent) -> set[Unit]:
    """The units whose result a change may alter, `intent` being as it is after it, and `fields` what it says has changed
    (`Intent.apply`)."""
    which = readers(change.record, fields)
    if not which:
        return set()
    units = set(units_of(change.record, which, intent))
    if change.before is not None:
        units.update(units_of(change.before, which, intent))
    return units


Where = tuple[str, Key]
"""(namespace, key)."""


def _differ(item: Object | None, other: Object | None) -> bool:
    return item is not other and item != other


class Compiled:
    """The desired state, kept up to date unit by unit, and whence each object came."""

    def __init__(self, intent: Intent, facts: Facts) -> None:
        self.facts = facts
        self.desired: dict[str, dict[Key, Object]] = {HOST: {}}
        self.origins: dict[Where, Unit] = {}
        self._by_unit: dict[Unit, list[tuple[Where, Object]]] = {}
        self.refresh(intent, set(units(intent)))

    def has(self, unit: Unit) -> bool:
        """Whether anything comes of a unit."""
        return unit in self._by_unit

    def places(self, unit: Unit) -> set[str]:
        """Namespaces in which a unit has objects."""
        return {netns for netns, _ in self.of_unit(unit)}

    def of_unit(self, unit: Unit) -> frozenset[Where]:
        """Keys of a unit's objects."""
        return frozenset(where for where, _ in self._by_unit.get(unit, ()))

    def refresh(self, intent: Intent, changed: set[Unit]) -> set[Where]:
        """Recompile units; return the keys whose object appeared, went, or changed. All or nothing: DuplicateObjectError
        leaves everything as it was."""
        placed = {
            unit: [((netns, item.key), item) for netns, item in compile_unit(intent, self.facts, unit)]
            for unit in changed
        }
        after = {where: item for made in placed.values() for where, item in made}
        old = {where: item for unit in changed for where, item in self._by_unit.get(unit, ())}
        self._check_apart(placed, after, old)
        for netns, key in old:
            del self.desired[netns][key]
            del self.origins[netns, key]
        for unit, made in placed.items():
            if made:
                self._by_unit[unit] = made
            else:
                self._by_unit.pop(unit, None)
            for where, item in made:
                self.desired.setdefault(where[0], {})[where[1]] = item
                self.origins[where] = unit
        for netns in {netns for netns, _ in old}:
            if not self.desired[netns] and netns != HOST:
                del self.desired[netns]
        if not old:
            return set(after)
        return {where for where in after.keys() | old.keys() if _differ(after.get(where), old.get(where))}

    def _check_apart(
        self,
        placed: Mapping[Unit, list[tuple[Where, Object]]],
        after: Mapping[Where, Object],
        old: Mapping[Where, Object],
    ) -> None:
        """No two units make one object."""
        if len(after) == sum(map(len, placed.values())) and self.origins.keys().isdisjoint(after):
            return
        makers = dict[Where, Unit]()
        for unit, made in placed.items():
            for where, item in made:
                other = makers.get(where) or (self.origins.get(where) if where not in old else None)
                if other is not None:
                    raise DuplicateObjectError(f"{unit} and {other} both make {item.key}")
                makers[where] = unit

    def with_facts(self, intent: Intent, facts: Facts) -> set[tuple[str, Key]]:
        """Recompile everything under new facts (rare: an uplink's MTU changed). As `refresh`."""
        before, self.facts = self.facts, facts
        try:
            return self.refresh(intent, set(units(intent)))
        except DuplicateObjectError:
            self.facts = before
            raise
