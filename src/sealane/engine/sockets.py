"""`sockets`: what listens and who is connected, in the sandboxes or on the host. Asks the kernel, and changes nothing."""

import msgspec

from sealane.engine.engine import Engine
from sealane.engine.ports import NamespaceGoneError
from sealane.kernel.state import HOST
from sealane.model.endpoint import NetnsRef
from sealane.wire.diagnosis import SocketsView, SocketView


def list_sockets(engine: Engine, reference: str = "", *, every_state: bool = False) -> SocketsView:
    """Of one sandbox, of the host (`host`), or of all sandboxes (empty). `every_state`: also those that are neither
    listening nor connected. Raises NotFoundError."""
    found: list[SocketView] = []
    unseen: dict[str, str] = {}
    for name, ref in _places(engine, reference).items():
        if ref is None and reference != HOST:
            unseen[name] = "it has no network namespace now"
            continue
        try:
            there = engine.kernel.sockets(ref, every_state=every_state)
        except (NamespaceGoneError, OSError) as error:
            # One that cannot be looked at must not hide the others.
            unseen[name] = str(error)
            continue
        found += [msgspec.structs.replace(item, sandbox=name) for item in there]
    owners = engine.kernel.socket_owners({item.inode for item in found if item.inode})
    return SocketsView(
        sockets=sorted((_owned(item, owners) for item in found), key=_order),
        unseen=unseen,
    )


def _places(engine: Engine, reference: str) -> dict[str, NetnsRef | None]:
    if reference == HOST:
        return {HOST: None}
    chosen = [engine.builder.find_sandbox(reference)] if reference else engine.intent.sandboxes.values()
    return {sandbox.name: sandbox.netns for sandbox in chosen}


def _owned(item: SocketView, owners: dict[int, tuple[int, str]]) -> SocketView:
    if item.inode not in owners:
        return item
    pid, process = owners[item.inode]
    return msgspec.structs.replace(item, pid=pid, process=process)


def _order(item: SocketView) -> tuple[object, ...]:
    """Those that listen first: they explain the others."""
    return (
        item.sandbox,
        item.remote_port != 0,
        item.proto,
        item.port,
        item.address,
        item.remote_address,
        item.remote_port,
    )
