"""Plans: operations in dependency order, in stages whose order keeps every intermediate state safe.

The stages, and why in this order:

1. `unpublish`  No new packet is translated towards something about to go.
2. `close`      Links and what hangs on them go while the rules that fence them still stand.
3. `fence`      One nftables transaction: everything that allows, forbids or translates, old out and new in.
4. `build`      Links (down), their settings, the host's addresses: behind the fence, carrying nothing.
5. `open`       Links come up, with what travels along: addresses inside, routes and neighbours.
6. `publish`    New packets are translated towards what is complete now.
7. `sweep`      nftables chains and sets that nothing refers to any more.

Within a stage operations stand in the order in which the kernel accepts them.
"""

from collections.abc import Iterator
from typing import Literal, get_args

import msgspec

from sealane.kernel.state import Object

Verb = Literal["create", "change", "delete", "open"]
StageName = Literal["unpublish", "close", "fence", "build", "open", "publish", "sweep"]
STAGES: tuple[StageName, ...] = get_args(StageName)


class Operation(msgspec.Struct, frozen=True):
    """One verb on one object in one namespace.

    `create` makes links down, whatever their `up` says, and `open` puts them up (and names them by their alias, on
    the sandbox side, in the same request). `create` of a veth's host side makes both ends. `change` sets every field
    of the object; `before` is what was observed. All are idempotent: creating what is equal already, or deleting
    what is gone, succeeds.
    """

    verb: Verb
    netns: str
    object: Object
    before: Object | None = None


class Plan(msgspec.Struct, frozen=True):
    stages: tuple[tuple[StageName, tuple[Operation, ...]], ...] = ()

    def __iter__(self) -> Iterator[Operation]:
        for _, operations in self.stages:
            yield from operations

    def __len__(self) -> int:
        return sum(len(operations) for _, operations in self.stages)


class Outcome(msgspec.Struct, frozen=True):
    """What became of one operation that did not succeed."""

    operation: Operation
    errno: int
    """The kernel's, positive; 0 where it was not tried since an earlier one of its stage failed."""
    message: str
    """The kernel's extended acknowledgement where it gave one, else `strerror`."""
