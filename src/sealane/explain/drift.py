"""Where what is differs from what should be, on one packet's path: what to suspect first when it does not arrive."""

from collections.abc import Mapping

from sealane.explain.packet import Trace
from sealane.kernel.state import HostState, NamespaceState
from sealane.reconcile.diff import Difference, diff


def drift_on_path(
    trace: Trace, desired: HostState, observed: Mapping[str, NamespaceState]
) -> list[Difference]:
    """Differences of the objects that the trace has met. A namespace that was not observed has none."""
    met = {
        (hop.netns, step.object): None for hop in trace.hops for step in hop.steps if step.object is not None
    }
    return diff(desired, observed, [(netns, key) for netns, key in met if key is not None])
