"""Where what is differs from what should be, on one packet's path: what to suspect first when it does not arrive."""

from collections.abc import Iterator, Mapping

from sealane.explain.packet import Trace
from sealane.kernel.objects import Key
from sealane.kernel.state import HostState, NamespaceState
from sealane.reconcile.diff import Difference, diff

_STRUCTURE = frozenset({"nft-table", "nft-chain", "nft-set", "sysctl", "rule"})
"""Kinds that a packet meets without a step that names each."""


def drift_on_path(
    trace: Trace, desired: HostState, observed: Mapping[str, NamespaceState]
) -> list[Difference]:
    """Differences of the objects that the trace has met, of the structure of each namespace that it passes, and what of
    ours is there and should not be. A namespace that was not observed has none."""
    met = {
        (hop.netns, step.object): None for hop in trace.hops for step in hop.steps if step.object is not None
    }
    passed = dict.fromkeys(hop.netns for hop in trace.hops)
    links = [(device.netns, ("link", device.link)) for device in trace.met.devices if device.netns in passed]
    extra = [
        (netns, key)
        for netns in passed
        for key in _beside(desired.get(netns, {}), observed.get(netns, {}))
        if netns in observed
    ]
    keys = dict.fromkeys([*((netns, key) for netns, key in met if key is not None), *links, *extra])
    return diff(desired, observed, keys)


def _beside(desired: NamespaceState, observed: NamespaceState) -> Iterator[Key]:
    yield from (key for key in desired if key[0] in _STRUCTURE)
    yield from (key for key in observed if key not in desired)
