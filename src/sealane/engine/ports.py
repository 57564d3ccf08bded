"""What the engine is given: protocols for the kernel and the clock. (The store's is `sealane.store.base`.)"""

from collections.abc import Mapping
from typing import Protocol

from sealane.compile.facts import Facts
from sealane.kernel.state import NamespaceState
from sealane.model.endpoint import NetnsRef
from sealane.reconcile.plan import Outcome, Plan


class NamespaceGoneError(Exception):
    """The namespace behind a reference is not there any more: proof of its death, not a failure to look."""


class Kernel(Protocol):
    """The host's kernel. `refs` finds the namespaces that plan and state call by sandbox id."""

    def facts(self) -> Facts:
        """Read what is true of the host now."""
        ...

    def observe(self, netns: str, ref: NetnsRef | None, wanted: NamespaceState) -> NamespaceState:
        """Read back what is ours in a namespace (`ref` None: the host's).

        Ours are: links by alias; on the host, addresses, permanent neighbours and static FDB entries on our links,
        routes by protocol, the nftables tables; in a sandbox, of those just the keys in `wanted`, and routes by
        protocol. Sysctls and the loopback link are read where `wanted` names them. Raises NamespaceGoneError when
        the namespace has died, OSError when it could not be read.
        """
        ...

    def apply(self, plan: Plan, refs: Mapping[str, NetnsRef]) -> list[Outcome]:
        """Perform a plan; return what failed. Goes on past independent failures; a failed `fence` stops what follows."""
        ...

    def alive(self, ref: NetnsRef) -> bool:
        """Whether the namespace still exists (found at its path, or through any process that lives in it)."""
        ...

    def create_namespace(self, sandbox: str) -> NetnsRef:
        """Make and pin a namespace for a sandbox of ours. Idempotent."""
        ...

    def delete_namespace(self, ref: NetnsRef) -> None:
        """Unpin a namespace of ours; it dies with its last process. Idempotent."""
        ...

    def resolve_namespace(self, where: str) -> NetnsRef:
        """The namespace at a path or of a pid. Refuses what is not a network namespace, and the host's own."""
        ...
