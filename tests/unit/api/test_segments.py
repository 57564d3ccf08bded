"""However the bytes of a conversation are cut, the answers are the same; and no bytes at all stop the server."""

import json
import socket

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sealane.api.routes import DETACHES_MAX
from unit.api.doubles import ServerThread
from unit.api.raw import Raw, ask, get, post

CONVERSATION = (
    post("/v1/networks", {"name": "n"})
    + get("/v1/networks/n")
    + b"POST /v1/sandboxes HTTP/1.1\r\nHost:\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b'9;x=y\r\n{"name": \r\n4\r\n"b"}\r\n0\r\nTrailer: t\r\n\r\n'
    + get("/v1/nothing")
    + post("/v1/attach", {"sandbox": "b", "network": "n"})
    + post("/v1/detach", [{"sandbox": "b"}])
    + get("/v1/networks/n", "DELETE")
    + get("/v1/sandboxes/b", "DELETE")
)
METHODS = ("POST", "GET", "POST", "GET", "POST", "POST", "DELETE", "DELETE")


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with ServerThread(tmp_path_factory.mktemp("api") / "s.sock") as server:
        yield server


def answers(path, pieces):
    with Raw(path) as raw:
        for piece in pieces:
            raw.send(piece)
        return [raw.answer(method)[::2] for method in METHODS]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, len(CONVERSATION)), max_size=40))
def test_where_the_bytes_are_cut_does_not_matter(shared, cuts):
    edges = [0, *sorted(cuts), len(CONVERSATION)]
    pieces = [CONVERSATION[start:end] for start, end in zip(edges, edges[1:])]
    found = answers(shared.path, pieces)
    assert [status for status, _ in found] == [200, 200, 200, 404, 200, 200, 200, 200]
    assert found == answers(shared.path, [CONVERSATION])


def test_byte_by_byte_is_the_same(shared):
    pieces = [CONVERSATION[n : n + 1] for n in range(len(CONVERSATION))]
    assert answers(shared.path, pieces) == answers(shared.path, [CONVERSATION])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    junk=st.one_of(
        st.binary(max_size=400),
        st.builds(lambda a, b: CONVERSATION[:a] + b, st.integers(0, 300), st.binary(max_size=60)),
    )
)
def test_no_bytes_stop_the_server(shared, junk):
    with Raw(shared.path) as raw:
        raw.send(junk)
        raw.socket.shutdown(socket.SHUT_WR)
        assert raw.is_closed()
    assert ask(shared.path, get("/v1/version"))[0] == 200


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    document=st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=20)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
        ),
        max_leaves=20,
    ),
    path=st.sampled_from(
        ["networks", "sandboxes", "attach", "detach", "plan", "apply", "delete", "containers"]
    ),
)
def test_any_document_is_answered_with_a_code_of_ours(shared, document, path):
    status, body = ask(shared.path, post(f"/v1/{path}", document))
    if status != 200:
        assert body["error"]["code"] == "invalid", body
        assert status == 400


def test_one_detach_too_many_is_refused_and_the_most_is_taken(shared):
    most = [{"sandbox": "x"}] * DETACHES_MAX
    assert ask(shared.path, post("/v1/detach", most))[0] == 200
    status, body = ask(shared.path, post("/v1/detach", [*most, {"sandbox": "x"}]))
    assert (status, body["error"]["code"]) == (400, "invalid")


def test_detaches_on_many_connections_at_once_are_one_call(tmp_path):
    with ServerThread(tmp_path / "s.sock") as server:
        ask(server.path, post("/v1/networks", {"name": "n"}))
        raws = [Raw(server.path) for _ in range(20)]
        for number, raw in enumerate(raws):
            ask(server.path, post("/v1/attach", {"sandbox": f"s{number}", "network": "n"}))

        def hold():
            # The loop is busy here, as it is in a verb, while all requests arrive.
            for number, raw in enumerate(raws):
                raw.send(post("/v1/detach", [{"sandbox": f"s{number}", "network": "n"}]))

        server.call(hold)
        found = [json.loads(raw.answer("POST")[2])["detached"] for raw in raws]
        assert sorted(len(ids) for ids in found) == [1] * 20
        assert len({ids[0] for ids in found}) == 20
        assert len(server.services.engine.detach_calls) == 1
        for raw in raws:
            raw.socket.close()
