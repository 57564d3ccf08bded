"""The whole resolver on loopback addresses: each 127.0.0.x is an asker of its own."""

import contextlib
import gc
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import pytest

from harness.patience import Watch
from sealane.dns import DnsServer, ZoneError, ZoneMember, ZoneNetwork, limits, stream
from sealane.dns.backlog import Backlog
from sealane.dns.listen import Listener
from unit.dns.upstream_rig import Upstream, answering, silent, truncating

WEB = ZoneMember("e1", "s1", ("web", "all"), ("127.0.0.11",))
DB = ZoneMember("e2", "s2", ("db", "all"), ("127.0.0.12",))


def network(*members: ZoneMember, **fields: object) -> ZoneNetwork:
    settings = {"id": "n", "name": "net", "listen": ("127.0.0.1",), "subnets": ("127.0.0.0/24",), **fields}
    return ZoneNetwork(members=members, **settings)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(condition: Callable[[], object], seconds: float = 100.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


class Served:
    def __init__(self, port: int, server: DnsServer) -> None:
        self.port, self.server = port, server

    def ask(
        self, name: str, rrtype: str = "A", source: str = "127.0.0.11", tcp: bool = False, **options: object
    ):
        query = dns.message.make_query(name, rrtype, **options)
        exchange = dns.query.tcp if tcp else dns.query.udp
        return exchange(query, "127.0.0.1", port=self.port, source=source, timeout=6)

    def addresses(self, name: str, **options: object) -> list[str]:
        return [data.to_text() for rrset in self.ask(name, **options).answer for data in rrset]

    def datagrams(self, source: str) -> socket.socket:
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        opened.bind((source, 0))
        opened.connect(("127.0.0.1", self.port))
        opened.settimeout(2)
        return opened

    def connection(self, source: str = "127.0.0.11") -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 5, source_address=(source, 0))


@contextlib.contextmanager
def serving(
    *networks: ZoneNetwork, upstream_port: int = 9, conf: str = "/dev/null", **options: object
) -> Iterator[Served]:
    port = free_port()
    started = DnsServer(port=port, upstream_port=upstream_port, resolv_conf=conf, **options)
    started.update(networks)
    started.start()
    try:
        assert started.problems() == []
        yield Served(port, started)
    finally:
        started.stop()
    assert started.stats().faults == 0


@pytest.fixture(scope="module")
def web() -> Iterator[Served]:
    with serving(network(WEB, DB)) as served:
        yield served


@pytest.mark.parametrize("tcp", [False, True])
def test_names_are_answered_over_udp_and_tcp(web: Served, tcp: bool) -> None:
    assert web.addresses("web", tcp=tcp) == ["127.0.0.11"]
    assert web.addresses("db.net", tcp=tcp) == ["127.0.0.12"]
    reverse = web.ask("12.0.0.127.in-addr.arpa", "PTR", tcp=tcp)
    assert reverse.answer[0][0].to_text() == "db.net."
    assert reverse.answer[0].ttl <= 5
    assert web.ask("nobody", tcp=tcp).rcode() == dns.rcode.NXDOMAIN
    empty = web.ask("db", "AAAA", tcp=tcp)
    assert (empty.rcode(), empty.answer) == (dns.rcode.NOERROR, [])


def test_a_network_that_gets_a_device_keeps_its_address_without_a_complaint(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Docker asks for a prefix before there is a bridge: the address is served elsewhere from then on, and the socket that
    is on its way out is ours."""
    with serving(network(WEB)) as served:
        for number in range(20):
            device = None if number % 2 else "lo"
            served.server.update([network(WEB, device=device)])
            until(lambda: served.server.problems() == [] and answers(served))
        assert [record.getMessage() for record in caplog.records] == []


def answers(served: Served) -> bool:
    # A connection that the socket on its way out had accepted ends without an answer.
    with contextlib.suppress(OSError, EOFError, dns.exception.DNSException):
        return served.addresses("web", tcp=True) == ["127.0.0.11"]
    return False


def test_repeated_questions_come_from_the_raw_cache_with_their_own_ids(web: Served) -> None:
    before = web.server.stats().cached
    for ident in (1, 2, 65535):
        assert web.ask("WeB", id=ident).id == ident
    until(lambda: web.server.stats().cached >= before + 2)


def test_addresses_of_a_shared_name_take_turns(web: Served) -> None:
    firsts = []
    with web.datagrams("127.0.0.11") as asker:
        for ident in range(4):
            asker.send(dns.message.make_query("all.", "A", id=ident).to_wire())
            firsts.append(asker.recv(4096)[-20:-16])
    assert firsts[:2] == firsts[2:]
    assert len(set(firsts)) == 2


def test_strangers_hear_nothing_over_udp_and_tcp(web: Served) -> None:
    """E10."""
    with web.datagrams("127.0.1.5") as stranger:
        stranger.settimeout(0.3)
        stranger.send(dns.message.make_query("web.", "A").to_wire())
        with pytest.raises(TimeoutError):
            stranger.recv(4096)
    with web.connection("127.0.1.5") as stranger:
        query = dns.message.make_query("web.", "A").to_wire()
        stranger.sendall(len(query).to_bytes(2, "big") + query)
        assert stranger.recv(10) == b""


def test_garbage_of_every_kind_is_survived(web: Served) -> None:
    query = dns.message.make_query("web.", "A", use_edns=0).to_wire()
    with web.datagrams("127.0.0.11") as asker:
        for length in range(len(query)):
            asker.send(query[:length])
        for position in range(2, len(query)):
            asker.send(query[:position] + b"\xff" + query[position + 1 :])
        asker.send(b"\0" * 9000)
    assert web.addresses("web") == ["127.0.0.11"]


def test_a_fault_of_our_own_costs_one_question_and_one_log_line(
    web: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(network(WEB)) as served:
        respond = served.server._responder.respond

        def failing(view: object, query: bytes, **options: object) -> object:
            if b"bomb" in query:
                raise RuntimeError("bomb")
            return respond(view, query, **options)

        monkeypatch.setattr(served.server._responder, "respond", failing)
        with served.datagrams("127.0.0.11") as asker:
            for _ in range(3):
                asker.send(dns.message.make_query("bomb.", "A").to_wire())
        until(lambda: served.server.stats().faults == 3)
        assert len(caplog.records) == 2
        assert served.addresses("web") == ["127.0.0.11"]
        served.server._faults = 0


def test_a_removed_name_stops_and_a_new_one_starts_as_soon_as_update_returns() -> None:
    """E5, with the raw cache warm."""
    with serving(network(WEB, DB)) as served:
        for _ in range(3):
            assert served.addresses("web", source="127.0.0.12") == ["127.0.0.11"]
        served.server.update([network(DB, ZoneMember("e3", "s3", ("late",), ("127.0.0.13",)))])
        assert served.ask("web", source="127.0.0.12").rcode() == dns.rcode.NXDOMAIN
        assert served.addresses("late", source="127.0.0.12") == ["127.0.0.13"]
        served.server.update([], ["n"])
        with pytest.raises((dns.exception.Timeout, ConnectionRefusedError)):
            dns.query.udp(dns.message.make_query("db.", "A"), "127.0.0.1", port=served.port, timeout=0.3)


def test_bad_records_are_refused_and_the_old_ones_served() -> None:
    with serving(network(WEB)) as served:
        with pytest.raises(ZoneError, match="subnets"):
            served.server.update([network(subnets=("nonsense",))])
        assert served.addresses("web") == ["127.0.0.11"]


def test_networks_come_and_go_with_their_sockets() -> None:
    with serving(network(WEB)) as served:
        other = network(DB, id="m", name="other", listen=("127.0.0.2",), subnets=("127.0.0.0/24",))
        served.server.update([other])
        query = dns.message.make_query("db.", "A")
        until(lambda: not served.server.problems() and _answers(query, "127.0.0.2", served.port))
        served.server.update([], ["m"])
        until(lambda: not _answers(query, "127.0.0.2", served.port))
        with pytest.raises(ConnectionRefusedError):
            until(lambda: dns.query.tcp(query, "127.0.0.2", port=served.port, timeout=1) is None)
        assert served.addresses("web") == ["127.0.0.11"]


def _answers(query: dns.message.Message, address: str, port: int) -> bool:
    try:
        return bool(dns.query.udp(query, address, port=port, timeout=0.2).answer)
    except (OSError, dns.exception.Timeout):
        return False


def test_a_port_taken_by_another_is_reported_and_taken_over_when_it_is_free(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Pain 31. The other networks are served meanwhile."""
    port = free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as foreign:
        foreign.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        foreign.bind(("127.0.0.2", port))
        started = DnsServer(port=port, resolv_conf="/dev/null")
        started.update([network(WEB), network(DB, id="m", name="other", listen=("127.0.0.2",))])
        started.start()
        try:
            [problem] = started.problems()
            assert problem.startswith(
                f"network other: names cannot be served on 127.0.0.2 port {port} (UDP): EADDRINUSE"
            )
            assert [record.getMessage() for record in caplog.records] == [
                problem.removeprefix("network other: ")
            ]
            query = dns.message.make_query("web.", "A")
            assert dns.query.udp(query, "127.0.0.1", port=port, timeout=2).answer
            foreign.close()
            until(lambda: not started.problems())
            assert dns.query.udp(dns.message.make_query("db.", "A"), "127.0.0.2", port=port, timeout=2).answer
        finally:
            started.stop()


def test_names_of_others_are_forwarded_and_then_remembered() -> None:
    with Upstream("127.0.0.1") as upstream:
        with serving(
            network(WEB, upstreams=("127.0.0.1",), listen=("127.0.0.3",)), upstream_port=upstream.port
        ) as served:
            for tcp in (False, True):
                query = dns.message.make_query("wWw.Example.com.", "A")
                exchange = dns.query.tcp if tcp else dns.query.udp
                answer = exchange(query, "127.0.0.3", port=served.port, source="127.0.0.11", timeout=6)
                assert answer.answer[0][0].to_text() == "192.0.2.80"
                assert answer.flags & dns.flags.RA
        assert upstream.seen == [("www.example.com.", "A", "udp")]


def forwarding(upstream: Upstream, tmp_path: Path, *networks: ZoneNetwork):
    conf = tmp_path / "resolv.conf"
    conf.write_text(f"nameserver {upstream.address}\n")
    return serving(*networks, upstream_port=upstream.port, conf=str(conf))


def test_long_answers_of_upstreams_are_cut_for_udp_and_whole_over_tcp(tmp_path: Path) -> None:
    many = [f"192.0.2.{n}" for n in range(1, 100)]
    with (
        Upstream("127.0.0.5", behave=truncating(*many)) as upstream,
        forwarding(upstream, tmp_path, network(WEB)) as served,
    ):
        assert served.ask("big.example").flags & dns.flags.TC
        assert sorted(served.addresses("big.example", tcp=True)) == sorted(many)


def test_no_upstream_is_a_server_failure_over_udp_and_tcp(tmp_path: Path) -> None:
    with Upstream("127.0.0.5") as upstream, forwarding(upstream, tmp_path, network(WEB)) as served:
        served.server._forwarder.own_addresses |= {"127.0.0.5"}
        for tcp in (False, True):
            assert served.ask("www.example.com", tcp=tcp).rcode() == dns.rcode.SERVFAIL


def test_internal_and_single_label_questions_never_leave(tmp_path: Path) -> None:
    """E1 and E7, with an upstream that would answer anything."""
    with Upstream("127.0.0.5", behave=answering("192.0.2.66")) as upstream:
        inner = network(WEB, internal=True)
        outer = network(DB, id="m", name="outer", listen=("127.0.0.2",))
        with forwarding(upstream, tmp_path, inner, outer) as served:
            for tcp in (False, True):
                refused = served.ask("www.example.com", tcp=tcp)
                assert refused.rcode() == dns.rcode.REFUSED
                assert not refused.flags & dns.flags.RA
                assert served.ask("com", tcp=tcp).rcode() == dns.rcode.NXDOMAIN
                query = dns.message.make_query("metadata.", "A")
                exchange = dns.query.tcp if tcp else dns.query.udp
                answer = exchange(query, "127.0.0.2", port=served.port, source="127.0.0.12", timeout=3)
                assert answer.rcode() == dns.rcode.NXDOMAIN
        assert upstream.seen == []


def test_a_greedy_asker_is_shed_and_nobody_else_notices(tmp_path: Path) -> None:
    """E9: the upstream is dead; the greedy one gets SERVFAIL, its neighbour its local names."""
    with (
        Upstream("127.0.0.5", behave=silent) as upstream,
        forwarding(upstream, tmp_path, network(WEB, DB)) as served,
    ):
        with served.datagrams("127.0.0.11") as greedy:
            for number in range(1500):
                greedy.send(dns.message.make_query(f"n{number}.example.", "A").to_wire())
            until(lambda: served.server.stats().computed >= 1000)
            assert dns.message.from_wire(greedy.recv(4096)).rcode() == dns.rcode.SERVFAIL
        assert served.server.stats().shed >= 500
        assert served.addresses("web", source="127.0.0.12") == ["127.0.0.11"]
        assert served.addresses("web", source="127.0.0.12", tcp=True) == ["127.0.0.11"]


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Served, list[str]]]:
    """A server, and whose questions it has answered uncached, in their order."""
    order: list[str] = []
    answer = DnsServer._serve_uncached

    def noted(
        self: DnsServer, listener: Listener, datagrams: socket.socket, query: bytes, source: Any
    ) -> None:
        order.append(source[0])
        answer(self, listener, datagrams, query, source)

    monkeypatch.setattr(DnsServer, "_serve_uncached", noted)
    with serving(network(WEB, DB)) as served:
        yield served, order


def ask_names(asker: socket.socket, count: int) -> None:
    for number in range(count):
        asker.send(dns.message.make_query(f"n{number}.", "A").to_wire())


def hear(asker: socket.socket, count: int) -> None:
    asker.settimeout(100)
    for _ in range(count):
        assert dns.message.from_wire(asker.recv(4096)).rcode() == dns.rcode.NXDOMAIN


def test_a_flood_delays_itself_and_not_its_neighbours(held: tuple[Served, list[str]]) -> None:
    """E9 for names of our own: the serving thread is held up while questions gather."""
    served, order = held
    with served.datagrams("127.0.0.11") as greedy, served.datagrams("127.0.0.12") as modest:
        with served.server._responder._lock:
            ask_names(greedy, 1000)
            ask_names(modest, 4)
        hear(modest, 4)
        until(lambda: len(order) == 1004)
    assert served.server.stats().dropped == 0
    last = max(place for place, asker in enumerate(order) if asker == "127.0.0.12")
    assert last < 100, "and not behind all that came before"


def test_of_who_asks_more_than_his_share_the_rest_is_dropped(held: tuple[Served, list[str]]) -> None:
    served, order = held
    [listener] = served.server._by_fd.values()
    listener.backlog = Backlog(64)
    with served.datagrams("127.0.0.11") as greedy, served.datagrams("127.0.0.12") as modest:
        with served.server._responder._lock:
            ask_names(greedy, limits.BURST)
            # More than are answered at once: these wait their turn, too.
            ask_names(modest, limits.PROMPT + 4)
        hear(modest, limits.PROMPT + 4)
        until(lambda: len(order) + served.server.stats().dropped == limits.BURST + limits.PROMPT + 4)
        assert order.count("127.0.0.11") == limits.PROMPT + 32
        # It is over with the flood.
        ask_names(greedy, limits.PROMPT)
        until(lambda: order.count("127.0.0.11") == limits.PROMPT * 2 + 32)
    assert not served.server._behind


def test_who_is_behind_when_its_address_goes_is_forgotten(held: tuple[Served, list[str]]) -> None:
    served, order = held
    with served.datagrams("127.0.0.11") as greedy:
        with served.server._responder._lock:
            ask_names(greedy, 500)
            removing = threading.Thread(target=served.server.update, args=([], ["n"]))
            removing.start()
        removing.join()
        until(lambda: not served.server._by_fd)
    assert not served.server._behind
    assert len(order) <= 500
    served.server.update([network(WEB, DB)])
    until(lambda: served.server._by_fd)
    assert served.addresses("web", source="127.0.0.12") == ["127.0.0.11"]


def frames(*queries: bytes) -> bytes:
    return b"".join(len(query).to_bytes(2, "big") + query for query in queries)


def test_queries_may_be_sent_together_and_in_pieces_on_one_connection(web: Served) -> None:
    queries = [dns.message.make_query(name, "A").to_wire() for name in ("web.", "db.", "nobody.")]
    with web.connection() as connection:
        for byte in frames(queries[0]):
            connection.sendall(bytes([byte]))
        connection.sendall(frames(*queries[1:]))
        with connection.makefile("rb") as received:
            for query in queries:
                length = int.from_bytes(received.read(2), "big")
                assert received.read(length)[:2] == query[:2]


def test_silent_cut_and_oversized_connections_are_closed_in_time(web: Served) -> None:
    """E2."""
    with (
        web.connection() as silent_one,
        web.connection() as half,
        web.connection() as huge,
        web.connection() as long,
    ):
        half.sendall(b"\0")
        huge.sendall(b"\xff\xff")
        long.sendall((limits.QUERY_BYTES).to_bytes(2, "big"))
        watch = Watch()
        assert huge.recv(10) == b""
        assert watch.elapsed_s() < limits.STREAM_TIMEOUT_S
        for connection in (silent_one, half, long):
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(10) == b""
        assert watch.elapsed_s() < limits.STREAM_TIMEOUT_S * 5
    until(lambda: web.server.stats().connections == 0)


def test_resets_in_the_middle_cost_nothing(web: Served) -> None:
    """E2 (CVE-2026-35406): two bytes of length, then a reset."""
    for payload in (b"", b"\0", b"\0\x20", b"\0\x20abc"):
        for _ in range(20):
            connection = web.connection()
            connection.sendall(payload)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
    until(lambda: web.server.stats().connections == 0)
    began = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - began < 0.1
    assert web.addresses("web", tcp=True) == ["127.0.0.11"]


def test_connections_are_bounded_for_each_asker_and_for_all(
    web: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(limits.STREAM_CLIENTS_EACH):
            stack.enter_context(web.connection())
        until(lambda: web.server.stats().connections == limits.STREAM_CLIENTS_EACH)
        assert stack.enter_context(web.connection()).recv(1) == b""
        assert web.addresses("web", source="127.0.0.12", tcp=True) == ["127.0.0.11"]
        monkeypatch.setattr(stream, "STREAM_CLIENTS", 17)
        stack.enter_context(web.connection("127.0.0.13"))
        until(lambda: web.server.stats().connections == 17)
        assert stack.enter_context(web.connection("127.0.0.14")).recv(1) == b""
    until(lambda: web.server.stats().connections == 0)


def test_a_connection_answers_a_bounded_number_of_queries(
    web: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "STREAM_QUERIES", 2)
    query = dns.message.make_query("web.", "A").to_wire()
    with web.connection() as connection, connection.makefile("rb") as received:
        for _ in range(2):
            connection.sendall(frames(query))
            assert len(received.read(2 + int.from_bytes(received.peek(2)[:2], "big"))) > 20
        assert received.read(1) == b""


def test_a_reader_that_does_not_read_is_let_go() -> None:
    crowd = [
        ZoneMember(f"c{n}", "", ("crowd",), (f"127.0.{n // 250}.{n % 250}",))
        for n in range(limits.ANSWER_RECORDS)
    ]
    query = dns.message.make_query("crowd.", "A").to_wire()
    with serving(network(*crowd, subnets=("127.0.0.0/8",))) as served, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", served.port))
        connection.sendall(frames(*[query] * 900))
        until(lambda: served.server.stats().connections == 1)
        watch = Watch()
        until(lambda: served.server.stats().connections == 0)
        assert watch.wall_s() > limits.STREAM_TIMEOUT_S * 0.7
        assert watch.elapsed_s() < limits.STREAM_TIMEOUT_S + 2


def test_updates_under_load_never_give_an_answer_of_neither_state() -> None:
    """Names flip between two addresses while eight askers ask: each answer is one of the two, none is missing."""
    states = [network(ZoneMember("e1", "s1", ("web",), (f"127.0.0.1{n}",)), DB) for n in (1, 3)]
    with serving(states[0]) as served:
        wrong: list[object] = []
        stopping = threading.Event()

        def ask(source: str) -> None:
            query = dns.message.make_query("web.", "A").to_wire()
            with served.datagrams(source) as asker:
                while not stopping.is_set():
                    asker.send(query)
                    answer = dns.message.from_wire(asker.recv(4096)).answer
                    if [data.to_text() for data in answer[0]] not in (["127.0.0.11"], ["127.0.0.13"]):
                        wrong.append(answer)

        threads = [threading.Thread(target=ask, args=(f"127.0.0.{n}",)) for n in range(100, 104)]
        for thread in threads:
            thread.start()
        for turn in range(150):
            served.server.update([states[turn % 2]])
        stopping.set()
        for thread in threads:
            thread.join()
        assert wrong == []


def test_stop_closes_everything_and_leaves_the_interpreter_as_it_was(web: Served) -> None:
    web.server.stop()
    before, interval = set(os.listdir("/proc/self/fd")), sys.getswitchinterval()
    with serving(network(WEB)) as served:
        assert sys.getswitchinterval() == pytest.approx(limits.SWITCH_INTERVAL_S)
        with served.connection():
            served.addresses("web")
    served.server.stop()
    assert set(os.listdir("/proc/self/fd")) == before
    assert sys.getswitchinterval() == interval


def test_a_connection_that_comes_at_the_end_is_closed_too() -> None:
    """Accepted, and nobody has been told: it was left to the garbage collector."""
    before = set(os.listdir("/proc/self/fd"))
    gc.disable()
    try:
        for turn in range(30):
            with serving(network(WEB)) as served:
                clients = [served.connection() for _ in range(turn % 5)]
            for client in clients:
                client.close()
            assert set(os.listdir("/proc/self/fd")) == before
    finally:
        gc.enable()


def test_a_server_that_never_started_can_be_stopped() -> None:
    before = set(os.listdir("/proc/self/fd"))
    idle = DnsServer()
    idle.update([network(WEB)])
    assert idle.problems() == []
    idle.stop()
    assert set(os.listdir("/proc/self/fd")) == before
