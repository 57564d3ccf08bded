"""Every edit to an intent, as data: what stores commit and what `Intent.apply` performs."""

import msgspec

from sealane.model.container import Container
from sealane.model.endpoint import Endpoint, Sandbox
from sealane.model.network import Network

Record = Network | Sandbox | Endpoint | Container


class Put(msgspec.Struct, frozen=True):
    """Create the record, or replace the one with its id (`before`)."""

    record: Record
    before: Record | None = None


class Delete(msgspec.Struct, frozen=True):
    """Remove the record, given as it is now."""

    record: Record

    @property
    def before(self) -> None:
        """It is replaced by nothing."""
        return


Change = Put | Delete


def inverse(change: Change) -> Change:
    """The change that takes `change` back."""
    match change:
        case Put(record, None):
            return Delete(record)
        case Put(record, before) if before is not None:
            return Put(before, record)
        case Delete(record):
            return Put(record)
    raise TypeError(f"not a change: {change!r}")
