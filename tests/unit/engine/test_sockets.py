"""`sockets` as a verb: whose sockets it lists, and what it says of those that it could not see."""

import msgspec
import pytest

from harness.engines import Bench, subnets
from sealane.engine.errors import NotFoundError
from sealane.engine.sockets import list_sockets
from sealane.wire.diagnosis import SocketsView, SocketView

LISTENER = SocketView(
    proto="tcp",
    state="listen",
    address="0.0.0.0",
    port=80,
    remote_address="0.0.0.0",
    remote_port=0,
    receive_queue=0,
    send_queue=128,
    uid=0,
    inode=11,
)


def variant(**fields: object) -> SocketView:
    return msgspec.structs.replace(LISTENER, **fields)


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.network("front", subnets=list(subnets("10.1.0.0/24")))
    for name in ("web", "db"):
        bench.attach(f"/run/netns/{name}")
        bench.kernel.open_sockets[inode(bench, name)] = [LISTENER]
    bench.kernel.open_sockets[0] = [variant(port=22)]
    return bench


def inode(bench: Bench, name: str) -> int:
    ref = bench.engine.builder.find_sandbox(name).netns
    assert ref is not None
    return ref.inode


def places(view: SocketsView) -> list[tuple[str, int]]:
    return [(item.sandbox, item.port) for item in view.sockets]


@pytest.mark.parametrize(
    ("reference", "found"),
    [("", [("db", 80), ("web", 80)]), ("web", [("web", 80)]), ("host", [("host", 22)])],
)
def test_they_are_one_sandboxes_the_hosts_or_all_sandboxes(
    bench: Bench, reference: str, found: list[tuple[str, int]]
) -> None:
    assert places(list_sockets(bench.engine, reference)) == found


def test_an_unknown_sandbox_is_refused(bench: Bench) -> None:
    with pytest.raises(NotFoundError, match="nobody"):
        list_sockets(bench.engine, "nobody")


def test_a_dead_namespace_is_told_and_hides_no_other(bench: Bench) -> None:
    bench.kernel.dead.add(inode(bench, "db"))
    view = list_sockets(bench.engine)
    assert places(view) == [("web", 80)]
    assert list(view.unseen) == ["db"]


def test_a_process_is_named_where_it_is_found(bench: Bench) -> None:
    bench.kernel.open_sockets[inode(bench, "web")].append(variant(port=81, inode=0))
    bench.kernel.processes = {11: (812, "nginx"), 0: (1, "nobody")}
    first, second = list_sockets(bench.engine, "web").sockets
    assert (first.pid, first.process) == (812, "nginx")
    assert (second.pid, second.process) == (0, "")


def test_listening_ones_come_first(bench: Bench) -> None:
    connected = variant(state="established", port=22, remote_port=40000)
    bench.kernel.open_sockets[inode(bench, "web")].insert(0, connected)
    assert [item.state for item in list_sockets(bench.engine, "web").sockets] == ["listen", "established"]


def test_other_states_are_there_if_wanted(bench: Bench) -> None:
    bench.kernel.open_sockets[inode(bench, "web")] = [variant(state="time-wait")]
    assert list_sockets(bench.engine, "web").sockets == []
    assert len(list_sockets(bench.engine, "web", every_state=True).sockets) == 1
