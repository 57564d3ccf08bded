"""Operations as the messages of one nf_tables transaction, and its errors as faults of operations.

Packets see all of a transaction or nothing, so the order within it is only that in which the kernel can follow: what
is referred to comes before what refers to it, and for deletions after.
"""

import errno
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

from sealane.kernel.nft import Chain, Element, NftFamily, ObservedChain, Set, Table
from sealane.linux.netlink import nfnl
from sealane.linux.netlink.socket import NetlinkError, Socket
from sealane.linux.nft_observe import HeldRule, observe_rules, observe_sets
from sealane.reconcile.plan import Operation

_SetName = tuple[NftFamily, str]
_Part = tuple[Operation, bytes]

_FIELD_BYTES = frozenset({1, 2, 4, 6})
_AMBIGUOUS_BYTES = 16
"""A value of so many bytes may be one field (an IPv6 address, a name) or several."""


class RefusedError(ValueError):
    """An operation that cannot be written as messages."""

    def __init__(self, operation: Operation, reason: str) -> None:
        super().__init__(reason)
        self.operation = operation


class Transaction:
    """Messages from BATCH_BEGIN to _END, and which operations each of them serves."""

    def __init__(self) -> None:
        self.messages = [nfnl.BEGIN]
        self._served: list[Sequence[Operation]] = [()]
        self._ends: list[Sequence[int]] = [()]
        """Offsets in a message about elements at which each operation's part of it ends."""

    def add(self, operation: Operation, *messages: bytes) -> None:
        for message in messages:
            self.messages.append(message)
            self._served.append((operation,))
            self._ends.append(())

    def add_elements(self, kind: int, where: _SetName, parts: Sequence[_Part]) -> None:
        """Parts of one set in as few messages as hold them. DELSETELEM stops at the first element that is gone, so
        there each operation has its own."""
        limit = 0 if kind == nfnl.DELSETELEM else nfnl.ELEMENTS_BYTES_MAX
        start = size = 0
        for index, (_, part) in enumerate(parts):
            if index > start and size + len(part) > limit:
                self._add_elements(kind, where, parts[start:index])
                start, size = index, 0
            size += len(part)
        self._add_elements(kind, where, parts[start:])

    def _add_elements(self, kind: int, where: _SetName, parts: Sequence[_Part]) -> None:
        family, name = where
        self.messages.append(nfnl.elements(kind, family, name, [part for _, part in parts]))
        self._served.append([operation for operation, _ in parts])
        end = nfnl.elements_start(name)
        self._ends.append([end := end + len(part) for _, part in parts])

    def close(self) -> None:
        self.messages.append(nfnl.END)
        self._served.append(())
        self._ends.append(())

    def is_destroy_unknown(self, results: Sequence[NetlinkError | None]) -> bool:
        """Whether the kernel may not know NFT_MSG_DESTROY*: before 6.3 these are EINVAL, as any unknown message."""
        return any(
            error is not None and error.errno == errno.EINVAL and nfnl.is_destroy(message)
            for message, error in zip(self.messages, results, strict=True)
        )

    def faults(self, results: Sequence[NetlinkError | None]) -> Iterator[tuple[Operation, int, str]]:
        """The operations at fault. What the transaction as a whole failed by is laid on the first."""
        for served, ends, error in zip(self._served, self._ends, results, strict=True):
            if error is not None:
                operations = served or self._served[1]
                index = min(bisect_right(ends, error.offset), len(operations) - 1)
                yield operations[index], error.errno or errno.EIO, error.strerror or ""


def compose(socket: Socket, operations: Sequence[Operation], *, destroy: bool) -> Transaction:
    """The transaction of some operations (at least one). `socket` is asked for what only the kernel knows: which rules
    hold on to a set that is to change, and the makings of sets of 16-byte ranges. Raises RefusedError, NetlinkError.
    """
    work = _Work(operations)
    transaction = Transaction()
    encoder = _Encoder(socket, work)
    if not work.is_structural:
        work.delete_elements(transaction, encoder, destroy=destroy)
        work.create_elements(transaction, encoder)
        transaction.close()
        return transaction
    work.hold_rules(socket)
    work.create_tables(transaction)
    work.create_chains(transaction, destroy=destroy)
    work.delete_elements(transaction, encoder, destroy=destroy)
    work.create_sets(transaction, destroy=destroy)
    work.fill_chains(transaction)
    work.create_elements(transaction, encoder)
    work.delete_owners(transaction, destroy=destroy)
    transaction.close()
    return transaction


class _Work:
    """Operations sorted by what is to be done."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self.tables: list[tuple[Operation, Table]] = []
        self.tables_gone: list[tuple[Operation, Table]] = []
        self.chains: list[tuple[Operation, Chain]] = []
        self.chains_gone: list[tuple[Operation, Chain | ObservedChain]] = []
        self.sets: list[tuple[Operation, Set]] = []
        self.sets_gone: list[tuple[Operation, Set]] = []
        self.elements: dict[_SetName, list[tuple[Operation, Element]]] = {}
        self.elements_gone: dict[_SetName, list[tuple[Operation, Element]]] = {}
        self.held: list[tuple[Operation, NftFamily, str, list[HeldRule]]] = []
        self.is_structural = False
        """Not of elements alone."""
        for operation in operations:
            self._sort(operation)
        if self.is_structural:
            self._leave_out_what_goes_with_its_owner()

    def _sort(self, operation: Operation) -> None:
        item, is_gone = operation.object, operation.verb == "delete"
        if operation.verb == "open":
            raise RefusedError(operation, "nothing of nftables is opened")
        if isinstance(item, Element):
            where = (item.family, item.set)
            if operation.verb != "create":
                self.elements_gone.setdefault(where, []).append((operation, item))
            if not is_gone:
                self.elements.setdefault(where, []).append((operation, item))
            return
        self.is_structural = True
        if isinstance(item, Set):
            (self.sets_gone if is_gone else self.sets).append((operation, item))
        elif isinstance(item, Table):
            (self.tables_gone if is_gone else self.tables).append((operation, item))
        elif is_gone and isinstance(item, Chain | ObservedChain):
            self.chains_gone.append((operation, item))
        elif isinstance(item, Chain):
            self.chains.append((operation, item))
        else:
            raise RefusedError(operation, f"{operation.verb} {type(item).__name__}: not nftables' business")

    def _leave_out_what_goes_with_its_owner(self) -> None:
        """A table takes its chains and sets along, a set its elements."""
        families = {table.family for _, table in self.tables_gone}
        if families:
            self.chains_gone = [pair for pair in self.chains_gone if pair[1].family not in families]
            self.sets_gone = [pair for pair in self.sets_gone if pair[1].family not in families]
            for where in [where for where in self.elements_gone if where[0] in families]:
                del self.elements_gone[where]
        for operation, item in [*self.sets, *self.sets_gone]:
            if operation.verb != "create":
                self.elements_gone.pop((item.family, item.name), None)

    def hold_rules(self, socket: Socket) -> None:
        """A set that changes is made anew, which rules that look into it forbid. So chains with such rules are emptied
        and get back what they had, if they are not filled anyway."""
        filled = {(chain.family, chain.name) for _, chain in self.chains}
        for family in {item.family for operation, item in self.sets if operation.verb == "change"}:
            changed = {
                item.name: op for op, item in self.sets if op.verb == "change" and item.family == family
            }
            chains: dict[str, list[HeldRule]] = {}
            for rule in observe_rules(socket, family):
                chains.setdefault(rule.chain, []).append(rule)
            for name, rules in chains.items():
                looked_up = frozenset[str]().union(*(rule.sets for rule in rules)) & changed.keys()
                if looked_up and (family, name) not in filled:
                    filled.add((family, name))
                    self.held.append((changed[min(looked_up)], family, name, rules))

    def create_tables(self, transaction: Transaction) -> None:
        for operation, table in self.tables:
            transaction.add(operation, nfnl.new_table(table.family))

    def create_chains(self, transaction: Transaction, *, destroy: bool) -> None:
        """All chains before any rule or element, which may jump to them; and empty, those to be deleted as well, so
        that nothing holds on to a set or chain that goes."""
        for operation, chain in self.chains:
            if _hangs_elsewhere(operation, chain):
                transaction.add(
                    operation,
                    nfnl.flush_chain(chain.family, chain.name, destroy=destroy),
                    nfnl.delete_chain(chain.family, chain.name, destroy=destroy),
                )
            transaction.add(operation, nfnl.new_chain(chain))
        for operation, item in [*self.chains, *self.chains_gone]:
            transaction.add(operation, nfnl.flush_chain(item.family, item.name, destroy=destroy))
        for operation, family, name, _ in self.held:
            transaction.add(operation, nfnl.flush_chain(family, name, destroy=destroy))

    def delete_elements(self, transaction: Transaction, encoder: "_Encoder", *, destroy: bool) -> None:
        kind = nfnl.DESTROYSETELEM if destroy else nfnl.DELSETELEM
        for where, pairs in self.elements_gone.items():
            transaction.add_elements(kind, where, encoder.parts(where, pairs))

    def create_sets(self, transaction: Transaction, *, destroy: bool) -> None:
        for number, (operation, item) in enumerate(self.sets, 1):
            if operation.verb == "change":
                transaction.add(operation, nfnl.delete_set(item.family, item.name, destroy=destroy))
            try:
                transaction.add(operation, nfnl.new_set(item, number))
            except ValueError as error:
                raise RefusedError(operation, str(error)) from error

    def fill_chains(self, transaction: Transaction) -> None:
        for operation, chain in self.chains:
            for rule in chain.rules:
                try:
                    transaction.add(operation, nfnl.new_rule(chain, rule))
                except ValueError as error:
                    raise RefusedError(operation, str(error)) from error
        for operation, family, name, rules in self.held:
            transaction.add(operation, *(nfnl.append_rule(family, name, rule.attrs) for rule in rules))

    def create_elements(self, transaction: Transaction, encoder: "_Encoder") -> None:
        for where, pairs in self.elements.items():
            transaction.add_elements(nfnl.NEWSETELEM, where, encoder.parts(where, pairs))

    def delete_owners(self, transaction: Transaction, *, destroy: bool) -> None:
        """Sets before chains: nothing but rules, which are gone, refers to a set, but a set's verdicts do to chains."""
        for operation, item in self.sets_gone:
            transaction.add(operation, nfnl.delete_set(item.family, item.name, destroy=destroy))
        for operation, chain in self.chains_gone:
            transaction.add(operation, nfnl.delete_chain(chain.family, chain.name, destroy=destroy))
        for operation, table in self.tables_gone:
            transaction.add(operation, nfnl.delete_table(table.family, destroy=destroy))


def _hangs_elsewhere(operation: Operation, chain: Chain) -> bool:
    before = operation.before
    return isinstance(before, Chain | ObservedChain) and before.hook != chain.hook


class _Encoder:
    """Elements as their sets take them."""

    def __init__(self, socket: Socket, work: _Work) -> None:
        self._socket = socket
        self._sets = {(item.family, item.name): item for _, item in work.sets}

    def parts(self, where: _SetName, pairs: Sequence[tuple[Operation, Element]]) -> list[_Part]:
        known = self._sets.get(where)
        if known is not None and known.interval:
            for operation, item in pairs:
                if not item.end:
                    raise RefusedError(operation, f"{where[1]}: an element of an interval set needs its end")
        return [(operation, self._encode(where, item)) for operation, item in pairs]

    def _encode(self, where: _SetName, item: Element) -> bytes:
        if not item.end:
            return nfnl.element(item)
        size = len(item.value)
        if size in _FIELD_BYTES or (size == _AMBIGUOUS_BYTES and self._is_single(where)):
            return nfnl.range_element(item)
        return nfnl.box_element(item)

    def _is_single(self, where: _SetName) -> bool:
        known = self._sets.get(where)
        if known is None:
            self._sets |= {
                (found.family, found.name): found for found in observe_sets(self._socket, where[0])
            }
            known = self._sets.get(where)
        return known is None or len(known.type) == 1
