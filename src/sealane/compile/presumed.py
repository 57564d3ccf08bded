"""What is presumed to be inside sandboxes that others set up, so that `explain` and `check` can follow a packet there.

Whoever takes an endpoint that was handed over was told its MAC, addresses and gateway. This is what it looks like if he
did as he was told; it is never desired, compared or applied.
"""

from collections.abc import Iterator, Mapping

import msgspec

from sealane.compile.drivers import compile_endpoint
from sealane.compile.endpoint import Placed
from sealane.compile.facts import Facts
from sealane.compile.sandbox import MAIN_TABLE, compile_sandbox
from sealane.kernel.links import Loopback
from sealane.kernel.objects import Key, Link, Route
from sealane.kernel.state import HOST, HostState, Object
from sealane.model.endpoint import Endpoint, NetnsRef
from sealane.model.ids import SandboxId
from sealane.model.intent import Intent

_SOMEWHERE = NetnsRef(path="", inode=0)


def with_presumed(desired: HostState, intent: Intent, facts: Facts) -> HostState:
    """Desired state, and with it what others hold; desired state itself if nothing was handed over."""
    handed: dict[SandboxId, list[Endpoint]] = {}
    for endpoint in intent.endpoints.values():
        if endpoint.handover and endpoint.sandbox is not None:
            handed.setdefault(endpoint.sandbox, []).append(endpoint)
    if not handed:
        return desired
    states: dict[str, Mapping[Key, Object]] = dict(desired)
    added: dict[str, dict[Key, Object]] = {}
    for sandbox, endpoints in handed.items():
        for netns, item in _inside(sandbox, endpoints, intent, facts):
            added.setdefault(netns, {})[item.key] = item
    for netns, items in added.items():
        states[netns] = {**states.get(netns, {}), **items}
    return states


def _inside(identity: SandboxId, endpoints: list[Endpoint], intent: Intent, facts: Facts) -> Iterator[Placed]:
    plugged = [msgspec.structs.replace(endpoint, handover=False) for endpoint in endpoints]
    for endpoint in plugged:
        for netns, item in compile_endpoint(endpoint, intent.networks[endpoint.network], facts):
            # On the host the link alone is otherwise: here it has an other end.
            if netns != HOST or (isinstance(item, Link) and item.peer is not None):
                yield netns, item
    sandbox = intent.sandboxes[identity]
    there = msgspec.structs.replace(sandbox, netns=sandbox.netns or _SOMEWHERE)
    yield identity, Link(name="lo", kind=Loopback())
    for item in compile_sandbox(there, plugged, intent.networks):
        # Nobody but us gives each address a way out of its own.
        if isinstance(item, Route) and item.table == MAIN_TABLE:
            yield identity, item
