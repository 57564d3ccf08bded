"""A person's question made into a packet: names, addresses and ports as they are typed.

    web            a sandbox, a container or an endpoint, by name, alias or id
    shop/web       the same where its name has a Kubernetes namespace; `web` will do while no other has it
    web/front      the same, by its endpoint on that network; shop/web/front
    host           the host's own processes
    192.0.2.7      somebody outside; or who has the address, if it is ours

Targets are these with a port, `db:5432`; `:8080` is a port of the host's.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

import msgspec

from sealane.compile.host import Compiled
from sealane.compile.presumed import with_presumed
from sealane.compile.reads import Unit
from sealane.compile.relay import Relays
from sealane.explain import render
from sealane.explain.foreign_state import ForeignState
from sealane.explain.netfilter import UnknownStatementError
from sealane.explain.packet import (
    CLIENT_PORT,
    SMALL_PACKET_BYTES,
    Arrives,
    Disposition,
    Packet,
    Sent,
    Start,
    Trace,
)
from sealane.explain.routing import masked
from sealane.explain.walk import answer, is_answered, walk
from sealane.explain.world import IncompleteStateError, UnexplainedError, World
from sealane.kernel.state import HOST, HostState
from sealane.model.endpoint import Endpoint
from sealane.model.ids import EndpointId, NetworkId, SandboxId, bare_name
from sealane.model.intent import Intent
from sealane.model.net import (
    FAMILIES,
    Address,
    Family,
    ParseError,
    address_part,
    family_of,
    parse_address,
    parse_port,
    prefix_length,
)

LOOPBACK: dict[Family, str] = {4: "127.0.0.1", 6: "::1"}

ID_SHOWN = 12
"""Characters of an id that people are shown, and by which an endpoint is known here."""
NAMES_SHOWN = 5

_WITH_PORT = re.compile(r"(?:\[(?P<six>[^\]]*)\]|(?P<name>[^:\[\]]*)):(?P<port>[^:]*)")


class QuestionError(ValueError):
    """The question names what there is not, or not clearly. The message says which word, and the hint."""

    field = ""
    """Of the question, if one is at fault."""


PREDICTION_ERRORS = (QuestionError, UnexplainedError, UnknownStatementError, IncompleteStateError)
"""All that `explain` raises: no verdict, rather than a guess."""


@contextmanager
def about(field: str) -> Iterator[None]:
    """A QuestionError from within is about this field of the question."""
    try:
        yield
    except QuestionError as error:
        error.field = error.field or field
        raise


class Question(msgspec.Struct, frozen=True, kw_only=True):
    source: str
    target: str
    proto: Literal["tcp", "udp", "sctp", "icmp"] = "tcp"
    family: Family | None = None
    """None: IPv4 if both ends have it, else IPv6."""
    source_port: int = CLIENT_PORT
    size: int = SMALL_PACKET_BYTES
    """Bytes of the IP packet."""
    dont_fragment: bool = False
    reverse: bool = False
    """The way back: of the answer to a packet that has passed."""

    def __str__(self) -> str:
        return f"{self.source} -> {self.target} {self.proto}"


def world_of(
    intent: Intent, compiled: Compiled, foreign_state: ForeignState, *, copied: bool = False
) -> World:
    """What packets meet: what is desired, what others were told to make of endpoints handed to them, what is around.
    `copied`: as it is now, for another thread."""
    states: HostState = with_presumed(compiled.desired, intent, compiled.facts)
    origins = compiled.origins
    if copied:
        states = {netns: dict(state) for netns, state in states.items()}
        origins = dict(origins)
    idle = {e.sandbox for e in intent.endpoints.values() if e.dormant and e.sandbox is not None}
    return World(
        states, foreign_state, origins=origins, title=Titles(intent), idle=idle, relays=Relays(intent)
    )


def explain(question: Question, intent: Intent, compiled: Compiled, foreign_state: ForeignState) -> Trace:
    """What should happen to the packet asked for, which passes if its answer does as well. With `reverse`, to its answer;
    if the packet itself does not pass, to that. Raises what is in PREDICTION_ERRORS."""
    return verdict_of(question, *explain_both(question, intent, compiled, foreign_state))


def onward(world: World, there: Trace, back: Trace, start: Start) -> Trace:
    """The sender's next packet, of a flow that was answered."""
    return walk(world, there.sent, start, back.flows)


def verdict_of(
    question: Question, there: Trace, back: Trace | None = None, following: Trace | None = None
) -> Trace:
    """The one trace that answers the question. `following`: of the next packet, if that was followed too."""
    if back is None:
        return there
    if question.reverse:
        return back
    if not back.passes:
        lost, hint = render.verdict(back), back.hint
        reason = f"{there.reason}; its answer is lost: {back.reason}"
    elif not is_answered(there, back):
        lost, hint = "taken for a stranger's", back.hint
        reason = f"{there.reason}; its answer comes from elsewhere: {back.final}"
    elif following is not None and not following.passes:
        lost, hint = f"the last that passes: the next packet is {render.verdict(following)}", following.hint
        reason = f"{there.reason}; the next packet is lost: {following.reason}"
    else:
        return there
    disposition = Disposition.TRANSLATED if back.is_unknown else Disposition.UNANSWERED
    return msgspec.structs.replace(there, disposition=disposition, reason=reason, hint=hint, answer=lost)


def explain_both(
    question: Question, intent: Intent, compiled: Compiled, foreign_state: ForeignState
) -> tuple[Trace, Trace | None]:
    """There and back again; None if there is nothing to answer."""
    world = world_of(intent, compiled, foreign_state)
    packet, start = resolve(question, intent, world)
    return there_and_back(question, world, packet, start)


def there_and_back(
    question: Question, world: World, packet: Packet, start: Start
) -> tuple[Trace, Trace | None]:
    there = msgspec.structs.replace(walk(world, packet, start), question=str(question))
    if not there.passes:
        return there, None
    back = walk(world, *answer(there), there.flows)
    return there, msgspec.structs.replace(back, question=f"answer to {question}")


def resolve(question: Question, intent: Intent, world: World) -> tuple[Packet, Start]:
    """The packet and where it begins. Raises QuestionError."""
    with about("target"):
        name, port = parse_target(question.target)
        if not port and question.proto != "icmp":
            raise QuestionError(f"target {question.target!r}: {question.proto} needs a port, as in `db:5432`")
    with about("source"):
        sender = _Sender(question.source, intent, world)
    with about("target"):
        destination = _destination(name, sender, question.family)
    with about("source"):
        start, source = sender.start(family_of(destination))
    ports = (port, port) if question.proto == "icmp" else (question.source_port, port)
    packet = Packet(
        proto=question.proto,
        source=source,
        source_port=ports[0],
        destination=destination,
        destination_port=ports[1],
        size=question.size,
        dont_fragment=question.dont_fragment,
    )
    return packet, start


def parse_target(text: str) -> tuple[str, int]:
    """Name or address, and port; 0 if there is none. Raises QuestionError."""
    with_port = _WITH_PORT.fullmatch(text)
    if with_port is None:
        return text, 0
    name = with_port["six"] if with_port["six"] is not None else with_port["name"]
    try:
        return name or HOST, parse_port(with_port["port"])
    except ParseError as error:
        raise QuestionError(f"target {text!r}: {error}") from error


class _Sender:
    """Who asks: the host, a sandbox (perhaps bound to one of its endpoints), or an address outside."""

    def __init__(self, text: str, intent: Intent, world: World) -> None:
        self.intent, self.world = intent, world
        self.sandbox: SandboxId | None = None
        self.bound: Endpoint | None = None
        self.address = _address(text)
        if self.address:
            self._who_has(self.address)
        elif text != HOST:
            found = meaning_of(text, intent)
            self.bound = found.endpoints[0] if found.is_bound else None
            self.sandbox = found.endpoints[0].sandbox
            if self.sandbox is None:
                raise QuestionError(f"source {text!r}: the endpoint is not attached to a sandbox")
        self.is_outside = bool(self.address) and self.sandbox is None and not self.is_host_address
        self.is_host = not self.is_outside and self.sandbox is None

    def _who_has(self, address: str) -> None:
        for network in self.intent.networks:
            holder = self.intent.leases.get((network, Address(address)))
            if holder is not None:
                self.sandbox = self.intent.endpoints[EndpointId(holder)].sandbox

    @property
    def is_host_address(self) -> bool:
        return self.world.namespace(HOST).is_local(self.address)

    def endpoints(self) -> list[Endpoint]:
        if self.sandbox is None:
            return []
        return list(self.intent.endpoints_by_sandbox.get(self.sandbox, {}).values())

    def has(self, family: Family) -> bool:
        if self.address:
            return family_of(self.address) == family
        return self.sandbox is None or any(e.address(family) for e in self.endpoints())

    def start(self, family: Family) -> tuple[Start, str]:
        if self.address and family_of(self.address) != family:
            raise QuestionError(f"source {self.address}: the target is IPv{family}")
        if self.is_outside:
            return Arrives(HOST, self.uplink()), self.address
        source = self.address or (self.bound.address(family) if self.bound else None) or ""
        return Sent(self.sandbox or HOST), source

    def uplink(self) -> str:
        """The foreign link that an outside address comes in by: one whose own subnet has it, else that by which it is
        reached, which another route may lead elsewhere."""
        host = self.world.namespace(HOST)
        near = [
            item
            for item in self.world.foreign_state.addresses
            if family_of(item.address) == family_of(self.address)
            and masked(address_part(item.address), prefix_length(item.address))
            == masked(self.address, prefix_length(item.address))
        ]
        for item in sorted(near, key=lambda item: -prefix_length(item.address)):
            at = host.link(item.link)
            if at is not None and at.up and host.is_foreign(at):
                return at.name
        found = host.route(self.address)
        link = host.link(found.link) if found.kind == "unicast" else None
        if link is not None and host.is_foreign(link):
            return link.name
        foreign = [item for item in self.world.foreign_state.links if host.is_foreign(item)]
        if not foreign:
            # Asked for the host's own address too, which is the target's matter.
            with about("source"):
                raise QuestionError(f"source {self.address}: the host has no link by which it could come")
        return foreign[0].name


def _destination(name: str, sender: _Sender, family: Family | None) -> str:
    address = _address(name)
    if address:
        if family is not None and family_of(address) != family:
            raise QuestionError(f"target {name}: not an IPv{family} address")
        return address
    desired = FAMILIES if family is None else (family,)
    if name == HOST:
        return _host_address(sender, desired)
    candidates = endpoints_named(name, sender.intent)
    mine = {endpoint.network for endpoint in sender.endpoints()}
    # As names are answered: what shares a network with the asker comes first.
    candidates.sort(key=lambda endpoint: endpoint.network not in mine)
    usable = sorted(desired, key=lambda f: not sender.has(f))
    for chosen in usable:
        for endpoint in candidates:
            found = endpoint.address(chosen)
            if found is not None:
                return found
    raise QuestionError(f"target {name!r} has no address of the family asked for")


def _host_address(sender: _Sender, desired: tuple[Family, ...]) -> str:
    usable = [family for family in desired if sender.has(family)] or list(desired)
    if sender.is_host:
        return LOOPBACK[usable[0]]
    host = sender.world.namespace(HOST)
    links = [item.name for item in sender.world.foreign_state.links]
    if sender.is_outside:
        links.insert(0, sender.uplink())
    for family in usable:
        own = [a for link in links for a in host.routing.addresses(link, family) if not a.startswith("fe80:")]
        if own:
            return address_part(own[0])
    for endpoint in sender.endpoints():
        subnet = sender.intent.networks[endpoint.network].subnet(usable[0])
        if subnet is not None:
            return subnet.gateway
    raise QuestionError("the host's addresses are not known: name one")


class Meaning(NamedTuple):
    endpoints: list[Endpoint]
    is_bound: bool
    """The network is named, too."""


def endpoints_named(text: str, intent: Intent) -> list[Endpoint]:
    """What a name means: all endpoints of a sandbox, or one. Raises QuestionError."""
    return meaning_of(text, intent).endpoints


def meaning_of(text: str, intent: Intent) -> Meaning:
    """A name, or NAME/NETWORK; a name may be NAMESPACE/POD. Raises QuestionError, for what may mean both, too."""
    named = _called(text, intent)
    name, slash, network_name = text.rpartition("/")
    network = intent.network_named(network_name) if slash else None
    bound = [] if network is None else [e for e in _called(name, intent) if e.network == network.id]
    if named and bound and {e.id for e in named} != {e.id for e in bound}:
        raise QuestionError(
            f"{text!r} is both {_shown(named[0], intent)} and {name} on network {network_name}: "
            f"say {_shown(named[0], intent)}, or {bound[0].id[:ID_SHOWN]}"
        )
    if named or bound:
        return Meaning(named or bound, not named)
    if slash and network is None:
        raise QuestionError(f"{text!r} is no pod's NAMESPACE/POD, and there is no network {network_name!r}")
    raise QuestionError(f"{text!r} is no sandbox, container or endpoint that is attached to a network")


def _called(name: str, intent: Intent) -> list[Endpoint]:
    """Of the sandbox, container or endpoint of that name. Raises QuestionError for one of several Kubernetes namespaces."""
    sandboxes = intent.sandboxes_named(name)
    if len(sandboxes) > 1:
        raise _ambiguous(name, [sandbox.name for sandbox in sandboxes])
    container = intent.container_named(name) if not sandboxes else None
    owner = sandboxes[0].id if sandboxes else container.sandbox if container is not None else None
    found = list(intent.endpoints_by_sandbox.get(owner, {}).values()) if owner is not None else []
    return found or _endpoints_called(name, intent)


def _endpoints_called(name: str, intent: Intent) -> list[Endpoint]:
    there = intent.endpoints.values()
    found = [e for e in there if name in {e.id, e.name, *e.aliases} or _begins(e.id, name)]
    if found:
        return found
    found = [e for e in there if bare_name(e.name) == name]
    names = {e.name for e in found}
    if len(names) > 1:
        raise _ambiguous(name, names)
    return found


def _begins(identity: str, text: str) -> bool:
    return len(text) >= ID_SHOWN and identity.startswith(text)


def _ambiguous(name: str, names: Iterable[str]) -> QuestionError:
    listed = sorted(names)
    some = ", ".join(listed[:NAMES_SHOWN]) + (" …" if len(listed) > NAMES_SHOWN else "")
    return QuestionError(f"{name!r} is in {len(listed)} Kubernetes namespaces: say one of {some}")


def _shown(endpoint: Endpoint, intent: Intent) -> str:
    return f"{endpoint.name}/{intent.networks[endpoint.network].name}"


def _address(text: str) -> str:
    try:
        return parse_address(text)
    except ParseError:
        return ""


class Titles:
    """Intent objects as people call them."""

    def __init__(self, intent: Intent) -> None:
        self._intent = intent

    def __call__(self, unit: Unit) -> str:
        kind, identity = unit
        intent = self._intent
        match kind:
            case "host":
                return "sealane"
            case "network":
                network = intent.networks.get(NetworkId(identity))
                return f"network {network.name if network else identity}"
            case "endpoint":
                endpoint = intent.endpoints.get(EndpointId(identity))
                return f"endpoint {self._endpoint(endpoint) if endpoint else identity}"
            case "sandbox":
                sandbox = intent.sandboxes.get(SandboxId(identity))
                return f"sandbox {sandbox.name if sandbox else identity}"

    def _endpoint(self, endpoint: Endpoint) -> str:
        network = self._intent.networks.get(endpoint.network)
        return f"{endpoint.name}/{network.name if network else endpoint.network}"
