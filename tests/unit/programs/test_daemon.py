"""One exchange: what comes back, and what is said when nothing does."""

import pytest

from sealane.programs import daemon as module
from sealane.programs.cni.errors import from_daemon
from sealane.programs.daemon import LostError, UnreachableError, exchange


class Refusing:
    """A socket that may not be connected, which root never meets."""

    def __init__(self, *_):
        pass

    def settimeout(self, _):
        pass

    def close(self):
        pass

    def connect(self, _):
        raise PermissionError(13, "Permission denied")


def test_status_and_body_come_as_they_are(daemon, tmp_path):
    daemon(None, lambda body: (200, body.decode()))
    assert exchange(str(tmp_path / "s.sock"), "/v1/cni/forwarded", b"as it is") == (200, b'"as it is"')


def test_an_answer_that_says_no_is_an_answer(daemon, tmp_path):
    daemon(lambda _: (409, {"error": {}}))
    assert exchange(str(tmp_path / "s.sock"), "/v1/cni", b"{}") == (409, b'{"error": {}}')


def test_nobody_there_is_told_apart_from_nobody_left(daemon, tmp_path):
    path = str(tmp_path / "s.sock")
    with pytest.raises(UnreachableError, match="no sealane daemon at") as caught:
        exchange(path, "/v1/cni", b"{}")
    assert not isinstance(caught.value, LostError)
    daemon(lambda _: None)
    with pytest.raises(LostError, match="hung up"):
        exchange(path, "/v1/cni", b"{}")


def test_who_is_not_root_is_told_that_it_takes_root(monkeypatch):
    monkeypatch.setattr(module._socket, "socket", Refusing)
    with pytest.raises(UnreachableError, match="only root") as caught:
        exchange("/run/x.sock", "/v1/cni", b"{}")
    assert "as root" in caught.value.hint
    assert "as root" in from_daemon(caught.value).details


def test_an_answer_without_end_is_cut(daemon, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ANSWER_BYTES_MAX", 1000)
    daemon(lambda _: (200, "x" * 2000))
    with pytest.raises(LostError, match="too long"):
        exchange(str(tmp_path / "s.sock"), "/v1/cni", b"{}")
