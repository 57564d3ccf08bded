"""What one plan has done so far, over its namespaces and stages, and the indexes that it gives new links."""

import secrets
from collections.abc import Iterable

from sealane.kernel.objects import Link, Sysctl
from sealane.kernel.state import Object, hangs_on
from sealane.linux.borrowed import Borrowed
from sealane.linux.bpf.fast_path import FastPath
from sealane.linux.marks import alias_prefix
from sealane.linux.messages import setting4
from sealane.reconcile.plan import Operation, Outcome

INDEX_FIRST = 1 << 20
"""The kernel counts from 1; up here nobody is met."""
INDEX_LAST = (1 << 31) - 2


class Indexes:
    """Indexes for new links, from a random start on, since another process of ours may have counted from here."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self._next = INDEX_FIRST + secrets.randbelow(INDEX_LAST - INDEX_FIRST)

    def take(self) -> int:
        self._next = self._next + 1 if self._next < INDEX_LAST else INDEX_FIRST
        return self._next


indexes = Indexes()
"""The process has one."""


class Progress:
    """What one plan has done so far, over all its namespaces and stages."""

    def __init__(
        self,
        instance: str,
        *,
        ipv6: bool = True,
        fast_path: FastPath | None = None,
        borrowed: Borrowed | None = None,
    ) -> None:
        self.alias_prefix = alias_prefix(instance)
        self.ipv6 = ipv6
        self.fast_path = fast_path
        self.borrowed = borrowed or Borrowed("", "")
        self.outcomes: list[Outcome] = []
        self.indexes: dict[tuple[str, str], int] = {}
        """Of links by (namespace, name), as far as they were looked up, made, or are about to be made."""
        self.surprises = 0
        """How often something was not as foreseen: what was composed before may be wrong."""
        self.missing: set[tuple[str, str]] = set()
        """Links that could not be made, or not be opened."""
        self.faulty: set[tuple[str, str]] = set()
        """Links of which something could not be set: they are not opened."""
        self.links: dict[tuple[str, str], Link] = {}
        self.settings4: dict[tuple[str, str], dict[str, int]] = {}
        """What a link's own message can set of its sysctls, by link."""
        self.configured: set[tuple[str, str]] = set()
        """Links that were made with these."""

    def expect(self, operations: Iterable[Operation]) -> None:
        """These are, or belong to, the plan."""
        for operation in operations:
            item = operation.object
            if isinstance(item, Link):
                if operation.verb != "delete":
                    self.links[operation.netns, item.name] = item
            elif isinstance(item, Sysctl) and (found := setting4(item)) is not None:
                name, setting, value = found
                self.settings4.setdefault((operation.netns, name), {})[setting] = value

    def forget(self, links: Iterable[tuple[str, str]]) -> None:
        """Links that were to be made, and are not, or not under the indexes that they were to have."""
        self.surprises += 1
        for where in links:
            self.indexes.pop(where, None)

    def fail(self, operation: Operation, number: int, message: str) -> None:
        self.surprises += 1
        self.outcomes.append(Outcome(operation, number, message))
        if operation.verb == "delete":
            return
        where = (operation.netns, link_of(operation.object))
        self.faulty.add(where)
        item = operation.object
        if isinstance(item, Link) and operation.verb in {"create", "open"}:
            self.missing.add(where)
            if operation.verb == "create" and item.peer is not None:
                self.missing.add(item.peer)

    def fail_rest(self, operations: Iterable[Operation], number: int, message: str) -> None:
        """Those of the operations that have not failed yet."""
        failed = {id(outcome.operation) for outcome in self.outcomes}
        for operation in operations:
            if id(operation) not in failed:
                self.fail(operation, number, message)


def link_of(item: Object) -> str:
    """The link that an object is, or belongs to; empty: none."""
    return item.name if isinstance(item, Link) else hangs_on(item)
