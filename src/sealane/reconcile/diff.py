"""The difference between what should be and what is: a difference of dictionaries."""

from collections.abc import Iterable, Mapping

import msgspec

from sealane.kernel.objects import Key
from sealane.kernel.state import NamespaceState, Object
from sealane.reconcile.ownership import is_deletable, is_same

EMPTY: NamespaceState = {}


class Difference(msgspec.Struct, frozen=True):
    """One key's difference: `desired` None is too much, `observed` None is missing, else they differ."""

    netns: str
    key: Key
    desired: Object | None
    observed: Object | None


def diff(
    desired: Mapping[str, NamespaceState],
    observed: Mapping[str, NamespaceState],
    keys: Iterable[tuple[str, Key]] | None = None,
) -> list[Difference]:
    """Differences of all keys of the observed namespaces and the desired ones, or of the given keys only.

    A namespace that is not in `observed` has not been looked at: nothing is said about it.
    """
    if keys is None:
        keys = [
            (netns, key) for netns in observed for key in {**observed[netns], **desired.get(netns, EMPTY)}
        ]
    result = []
    for netns, key in keys:
        if netns not in observed:
            continue
        want = desired.get(netns, EMPTY).get(key)
        have = observed[netns].get(key)
        if want is None:
            if have is not None and is_deletable(have):
                result.append(Difference(netns, key, None, have))
        elif have is None or not is_same(want, have):
            result.append(Difference(netns, key, want, have))
    return result
