"""Applying nftables operations: whatever is asked for at once is one transaction of the kernel's.

All of it happens between two packets, or none of it. Base chains stay where they are, at their hooks, and are flushed
and filled: to re-create one lets packets through for a moment (docs/adr/0006), so it is done only to
a chain that hangs at the wrong hook.
"""

import errno
from collections.abc import Iterable, Sequence

from sealane.kernel.nft import Element
from sealane.linux.netlink.socket import Socket
from sealane.linux.nft_observe import observe_nft
from sealane.linux.nft_transaction import RefusedError, Transaction, compose
from sealane.reconcile.plan import Operation, Outcome

__all__ = ["apply_nft", "foresee_nft", "observe_nft"]

ATTEMPTS = 6
"""Transactions for one call. Each after the first leaves out deletions of what was found gone: a table shows that
its chains and sets are gone, these that their elements are."""

UNDONE = "undone: its transaction failed"

_Fault = tuple[Operation, int, str]


def foresee_nft(socket: Socket, operations: Sequence[Operation]) -> Transaction | None:
    """The transaction of operations that come later, if it is the same then: that of new elements. Raises OSError."""
    if not all(op.verb == "create" and isinstance(op.object, Element) for op in operations):
        return None
    try:
        return compose(socket, operations, destroy=True)
    except RefusedError:
        return None


def apply_nft(
    socket: Socket, operations: Sequence[Operation], foreseen: Transaction | None = None
) -> list[Outcome]:
    """Perform operations on tables, chains, sets and elements in one transaction; return what failed, nothing if all
    is done. After a failure nothing is changed, and every operation has its outcome: those at fault with the kernel's
    error, the others with errno 0.

    Idempotent: creating what is there and equal succeeds, and so does deleting what is gone. `create` and `change` of
    a chain both replace all its rules. `change` of a set makes it anew, empty: those of its elements that stay must be
    created again; chains that refer to it stay as they are. An element of an interval set needs its `end`: without one
    the kernel takes it for a range that is open. `foreseen`: their transaction.
    """
    pending = list(operations)
    faults: list[_Fault] = []
    destroy = True
    for _ in range(ATTEMPTS):
        if not pending:
            return []
        try:
            transaction = foreseen or compose(socket, pending, destroy=destroy)
            foreseen = None
            results = socket.batch(transaction.messages)
        except RefusedError as error:
            return _outcomes(operations, [(error.operation, errno.EINVAL, str(error))])
        except OSError as error:
            return _outcomes(
                operations, [(pending[0], error.errno or errno.EIO, error.strerror or str(error))]
            )
        if not any(results):
            return []
        if destroy and transaction.is_destroy_unknown(results):
            destroy = False
            continue
        faults = list(transaction.faults(results))
        gone = {id(op) for op, number, _ in faults if number == errno.ENOENT and op.verb == "delete"}
        if not gone:
            break
        pending = [op for op in pending if id(op) not in gone]
    return _outcomes(operations, faults)


def _outcomes(operations: Iterable[Operation], faults: list[_Fault]) -> list[Outcome]:
    blamed = {id(op): (number, text) for op, number, text in reversed(faults)}
    return [Outcome(op, *blamed.get(id(op), (0, UNDONE))) for op in operations]
