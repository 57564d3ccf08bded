"""Endpoints, targets and TLS files: what is wrong is said before anything is sent."""

from pathlib import Path

import pytest

from sealane.etcd.channel import OPTIONS, Endpoint, open_channel, parse_endpoint, target_of
from sealane.etcd.client import Client
from sealane.etcd.errors import InvalidError
from sealane.etcd.records import Tls


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("http://192.0.2.1:2379", Endpoint("192.0.2.1", 2379, 4, is_tls=False)),
        ("https://192.0.2.1:2379/", Endpoint("192.0.2.1", 2379, 4, is_tls=True)),
        ("http://[2001:db8::1]:1", Endpoint("2001:db8::1", 1, 6, is_tls=False)),
        ("https://etcd-1.example:65535", Endpoint("etcd-1.example", 65535, 0, is_tls=True)),
    ],
)
def test_an_endpoint_is_read(text: str, endpoint: Endpoint) -> None:
    assert parse_endpoint(text) == endpoint


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("192.0.2.1:2379", "no scheme"),
        ("etcd://192.0.2.1:2379", "no scheme"),
        ("http://192.0.2.1", "no port"),
        ("http://192.0.2.1:0", "no port"),
        ("http://192.0.2.1:65536", "no port"),
        ("http://192.0.2.1:²", "no port"),
        ("http://:2379", "no valid host"),
        ("http://a,b:2379", "no valid host"),
        ("http://a..b:2379", "no valid host"),
        ("http://user@host:2379", "no valid host"),
        ("http://2001:db8::1:2379", "in brackets"),
        ("http://[192.0.2.1]:2379", "in brackets"),
        ("", "no scheme"),
    ],
)
def test_a_wrong_endpoint_is_refused_with_its_text(text: str, why: str) -> None:
    with pytest.raises(InvalidError, match=why) as raised:
        parse_endpoint(text)
    assert repr(text) in str(raised.value)


def endpoints(*texts: str) -> list[Endpoint]:
    return [parse_endpoint(text) for text in texts]


def test_a_target_has_all_members() -> None:
    assert target_of(endpoints("http://192.0.2.1:1", "http://192.0.2.2:2")) == "ipv4:192.0.2.1:1,192.0.2.2:2"
    assert target_of(endpoints("http://[::1]:1", "http://[::2]:2")) == "ipv6:[::1]:1,[::2]:2"
    assert target_of(endpoints("http://etcd:1")) == "dns:etcd:1"


@pytest.mark.parametrize(
    "texts",
    [
        (),
        ("http://192.0.2.1:1", "http://[::1]:1"),
        ("http://a:1", "http://b:1"),
        ("http://a:1", "http://1.2.3.4:1"),
    ],
)
def test_a_target_that_grpc_cannot_hold_is_refused(texts: tuple[str, ...]) -> None:
    with pytest.raises(InvalidError, match="endpoint"):
        target_of(endpoints(*texts))


SECURE, PLAIN = "https://192.0.2.1:1", "http://192.0.2.1:1"


@pytest.mark.parametrize(
    ("texts", "tls", "why"),
    [
        ((SECURE,), None, "no CA file"),
        ((SECURE, PLAIN), None, "mix http and https"),
        ((PLAIN,), Tls("/ca"), "write https://"),
        ((SECURE,), Tls("/nowhere/ca.pem"), "cannot read TLS file /nowhere/ca.pem: No such file"),
        ((SECURE,), Tls("/ca", cert_file="/c"), "both its certificate and its key"),
        ((SECURE,), Tls("/ca", key_file="/k"), "both its certificate and its key"),
        ((SECURE, SECURE), Tls("/ca"), "server name"),
    ],
)
def test_tls_that_cannot_work_is_refused(texts: tuple[str, ...], tls: Tls | None, why: str) -> None:
    with pytest.raises(InvalidError, match=why):
        open_channel(texts, tls, OPTIONS)


def test_a_client_that_cannot_be_made_leaves_no_thread(tmp_path: Path) -> None:
    import threading

    before = threading.active_count()
    with pytest.raises(InvalidError, match="no scheme"):
        Client(["nonsense"])
    assert threading.active_count() == before


def test_pings_are_no_more_often_than_etcd_allows() -> None:
    """etcd's --grpc-keepalive-min-time; below it the server drops the connection with too_many_pings."""
    assert int(OPTIONS["grpc.keepalive_time_ms"]) >= 5000
