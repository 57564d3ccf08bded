"""The gRPC channel: options, target and credentials. Every option was measured (ADR 0027) and has a test that fails
without it (tests/real/test_etcd_options.py)."""

import ipaddress
import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import grpc

from sealane.etcd.errors import InvalidError
from sealane.etcd.records import Tls

Options = Mapping[str, int | str]

OPTIONS: Options = {
    # Not below 5 s, etcd's minimum: at 3 s it answers GOAWAY too_many_pings and drops every watch.
    "grpc.keepalive_time_ms": 5000,
    # A silent TCP connection (packets dropped) is noticed within the two together.
    "grpc.keepalive_timeout_ms": 3000,
    # A stopped process whose kernel still acknowledges: only an unanswered HTTP/2 ping tells. Default: 60 s.
    "grpc.http2.ping_timeout_ms": 3000,
    # A watch may be silent for hours: by default gRPC stops pinging after two pings without data.
    "grpc.http2.max_pings_without_data": 0,
    # One answer of a watch was 79.5 MB; at the default of 4 MiB the client fails at that revision forever.
    "grpc.max_receive_message_length": -1,
    # The default of 120 s would keep a host away for two minutes after an hour without etcd.
    "grpc.max_reconnect_backoff_ms": 1000,
    # Calls go to every member that is connected, so a dead one costs one call and not the service.
    "grpc.service_config": json.dumps({"loadBalancingConfig": [{"round_robin": {}}]}),
    # Two clients of one process must not share a connection: closing one would be felt by the other.
    "grpc.use_local_subchannel_pool": 1,
    # The daemon's proxy variables are for images; etcd is on the hosts' own network.
    "grpc.enable_http_proxy": 0,
}


class Endpoint(NamedTuple):
    """`family` is 4, 6, or 0 for a name."""

    host: str
    port: int
    family: int
    is_tls: bool

    def text(self) -> str:
        return f"[{self.host}]:{self.port}" if self.family == 6 else f"{self.host}:{self.port}"


def parse_endpoint(text: str) -> Endpoint:
    """`http://ADDRESS:PORT` or `https://ADDRESS:PORT`. InvalidError says what to write."""
    scheme, separator, rest = text.partition("://")
    wanted = "write http://ADDRESS:PORT or https://ADDRESS:PORT"
    if not separator or scheme not in {"http", "https"}:
        raise InvalidError(f"etcd endpoint {text!r} has no scheme: {wanted}")
    host, _, port = rest.rstrip("/").rpartition(":")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise InvalidError(f"etcd endpoint {text!r} has no port: {wanted}")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    family = 0
    try:
        family = ipaddress.ip_address(bare).version
    except ValueError:
        if not bare or not all(
            part.replace("-", "").isalnum() and part.isascii() for part in bare.split(".")
        ):
            raise InvalidError(f"etcd endpoint {text!r} has no valid host: {wanted}") from None
    if (family == 6) != (bare != host):
        raise InvalidError(f"etcd endpoint {text!r}: IPv6 addresses, and only those, stand in brackets")
    return Endpoint(bare, int(port), family, is_tls=scheme == "https")


def target_of(endpoints: Sequence[Endpoint]) -> str:
    """One target with all members, so that gRPC itself moves on from a dead one.

    gRPC's schemes hold addresses of one family (its naming document); a name stands alone and is resolved by DNS.
    """
    if not endpoints:
        raise InvalidError("no etcd endpoint given")
    families = {endpoint.family for endpoint in endpoints}
    if len(families) > 1 or (families == {0} and len(endpoints) > 1):
        raise InvalidError("several etcd endpoints must be addresses of one family, all IPv4 or all IPv6")
    scheme = {4: "ipv4:", 6: "ipv6:", 0: "dns:"}[families.pop()]
    return scheme + ",".join(endpoint.text() for endpoint in endpoints)


def open_channel(texts: Sequence[str], tls: Tls | None, options: Options) -> grpc.aio.Channel:
    """On the client's loop. Connects by itself, with the first call."""
    endpoints = [parse_endpoint(text) for text in texts]
    target = target_of(endpoints)
    if len({endpoint.is_tls for endpoint in endpoints}) > 1:
        raise InvalidError("etcd endpoints mix http and https")
    if not endpoints[0].is_tls:
        if tls is not None:
            raise InvalidError("TLS files are given, but the etcd endpoints are http; write https://")
        return grpc.aio.insecure_channel(target, options=list(options.items()))
    if tls is None:
        raise InvalidError("the etcd endpoints are https, but no CA file is given")
    if len(endpoints) > 1 and not tls.server_name:
        raise InvalidError(
            "several https endpoints need the server name that all members' certificates contain"
        )
    names = {"grpc.ssl_target_name_override": tls.server_name} if tls.server_name else {}
    return grpc.aio.secure_channel(target, _credentials(tls), options=list({**options, **names}.items()))


def _credentials(tls: Tls) -> grpc.ChannelCredentials:
    if bool(tls.cert_file) != bool(tls.key_file):
        raise InvalidError("a TLS client certificate needs both its certificate and its key file")
    return grpc.ssl_channel_credentials(
        root_certificates=_read(tls.ca_file),
        private_key=_read(tls.key_file) if tls.key_file else None,
        certificate_chain=_read(tls.cert_file) if tls.cert_file else None,
    )


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise InvalidError(f"cannot read TLS file {path}: {error.strerror}") from error
