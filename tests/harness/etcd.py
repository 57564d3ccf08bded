"""Real members of etcd, one or three, in the namespaces of the test: each on a loopback address of its own, so that
one can be stopped, paused, or cut off from clients alone. They end with the `with`, and with the process of the test.
"""

import base64
import itertools
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

from harness.netns import eventually
from harness.patience import PATIENCE_S

CLIENT_PORT, PEER_PORT = 2379, 2380
TABLE = "etcdtest"


def _opener(context: ssl.SSLContext | None = None) -> Callable[..., Any]:
    handlers = [urllib.request.ProxyHandler({})]
    return urllib.request.build_opener(*handlers, urllib.request.HTTPSHandler(context=context)).open


def why_not() -> str:
    """Why no member can run here; empty if one can."""
    for program, package in (("etcd", "etcd-server"), ("setpriv", "util-linux"), ("nft", "nftables")):
        if shutil.which(program) is None:
            return f"no {program} (Debian: {package})"
    return ""


class Member:
    """One etcd process. `address` is its own; its data outlives a stop."""

    def __init__(self, name: str, address: str, directory: Path, options: list[str], is_tls: bool) -> None:
        self.name, self.address, self.directory = name, address, directory
        scheme = "https" if is_tls else "http"
        self.url = f"{scheme}://{address}:{CLIENT_PORT}"
        self.side_address = address.rpartition(".")[0] + ".10" + address.rpartition(".")[2]
        self.side_url = f"{scheme}://{self.side_address}:{CLIENT_PORT}"
        """A second way in, which can be cut off alone."""
        self._options = [
            *options,
            *("--listen-client-urls", f"{self.url},{self.side_url}", "--advertise-client-urls", self.url),
        ]
        self.process: subprocess.Popen[bytes] | None = None
        self.log = directory.with_suffix(".log")

    def start(self) -> None:
        assert self.process is None, f"{self.name} runs"
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "etcd", *self._options], stdout=log, stderr=log
            )

    def check(self) -> None:
        """AssertionError with its log if it has ended by itself."""
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()[-4000:]

    def accepts(self) -> bool:
        self.check()
        with socket.socket() as probe:
            return probe.connect_ex((self.address, CLIENT_PORT)) == 0

    def kill(self) -> None:
        """As a crash; idempotent."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(PATIENCE_S)
            self.process = None

    def pause(self) -> None:
        """Its kernel goes on acknowledging. Returns when every thread has stopped."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)
        eventually(self._is_paused, what=f"{self.name} has stopped")

    def resume(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGCONT)

    def _is_paused(self) -> bool:
        assert self.process is not None
        stats = [path.read_text() for path in Path(f"/proc/{self.process.pid}/task").glob("*/stat")]
        return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)

    def ask(self, path: str, context: ssl.SSLContext | None = None, **body: Any) -> dict[str, Any]:
        """By the JSON gateway, which shares no code with our client."""
        request = urllib.request.Request(f"{self.url}/v3/{path}", json.dumps(body).encode())
        with _opener(context)(request, timeout=PATIENCE_S) as answer:
            return json.load(answer)

    def is_healthy(self) -> bool:
        """It has a leader and could commit."""
        self.check()
        try:
            with _opener()(f"{self.url}/health", timeout=5.0) as answer:
                return json.load(answer)["health"] == "true"
        except (OSError, urllib.error.HTTPError, ValueError):
            return False


class Cluster:
    """`size` members, each cluster of a process on addresses of its own."""

    _numbers: ClassVar[Iterator[int]] = itertools.count(1)

    def __init__(self, directory: Path, size: int = 1, *options: str, tls: "Authority | None" = None) -> None:
        self._is_tls = tls is not None
        network = f"127.77.{next(self._numbers)}"
        names = {f"m{number}": f"{network}.{number}" for number in range(1, size + 1)}
        tls_options = tls.server_options(list(names.values())) if tls else []
        peers = ",".join(f"{name}=http://{address}:{PEER_PORT}" for name, address in names.items())
        self.members = [
            Member(
                name,
                address,
                directory / name,
                [
                    *("--name", name, "--data-dir", str(directory / name), "--logger", "zap"),
                    *("--log-level", "error", "--initial-cluster", peers, "--initial-cluster-state", "new"),
                    *("--listen-peer-urls", f"http://{address}:{PEER_PORT}"),
                    *("--initial-advertise-peer-urls", f"http://{address}:{PEER_PORT}"),
                    *tls_options,
                    *options,
                ],
                self._is_tls,
            )
            for name, address in names.items()
        ]

    def __enter__(self) -> Self:
        try:
            for member in self.members:
                member.start()
            self.wait()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_raised: object) -> None:
        self.close()

    def close(self) -> None:
        self.heal()
        for member in self.members:
            member.kill()

    def wait(self) -> None:
        """Until each running member serves (by TLS: accepts)."""
        for member in self.members:
            if member.process is not None:
                eventually(
                    member.accepts if self._is_tls else member.is_healthy, what=f"{member.name} serves"
                )

    @property
    def urls(self) -> list[str]:
        return [member.url for member in self.members]

    def leader(self) -> Member:
        """By what each member says of itself."""

        def found() -> Member | None:
            for member in self.members:
                if member.process is not None and member.is_healthy():
                    status = member.ask("maintenance/status")
                    if status["leader"] == status["header"]["member_id"]:
                        return member
            return None

        leader = eventually(found, what="a leader")
        assert leader is not None
        return leader

    def black_hole(self, address: str) -> None:
        """Packets between clients and this address of a member vanish, both ways: no reset, no ICMP."""
        _nft(
            f"add table ip {TABLE}\n"
            f"add chain ip {TABLE} in {{ type filter hook input priority 0; }}\n"
            f"add rule ip {TABLE} in ip daddr {address} tcp dport {CLIENT_PORT} drop\n"
            f"add rule ip {TABLE} in ip saddr {address} tcp sport {CLIENT_PORT} drop\n"
        )

    def heal(self) -> None:
        """Idempotent."""
        _nft(f"add table ip {TABLE}\ndelete table ip {TABLE}\n")


def _nft(text: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True, capture_output=True)


class Users:
    """Turns authentication on: `root`, and users that read a prefix and write below another."""

    def __init__(self, member: Member, context: ssl.SSLContext | None = None) -> None:
        self._member, self._context = member, context
        self._ask("auth/user/add", name="root", password="root")
        self._ask("auth/role/add", name="root")
        self._ask("auth/user/grant", user="root", role="root")

    def add(self, name: str, password: str, *, reads: bytes, writes: bytes) -> None:
        self._ask("auth/user/add", name=name, password=password)
        self._ask("auth/role/add", name=name)
        for kind, prefix in (("READ", reads), ("READWRITE", writes)):
            end = prefix[:-1] + bytes([prefix[-1] + 1])
            permission = {"permType": kind, "key": _base64(prefix), "range_end": _base64(end)}
            self._ask("auth/role/grant", name=name, perm=permission)
        self._ask("auth/user/grant", user=name, role=name)

    def enable(self) -> None:
        self._ask("auth/enable")

    def _ask(self, path: str, **body: Any) -> None:
        self._member.ask(path, self._context, **body)


def _base64(key: bytes) -> str:
    return base64.b64encode(key).decode()


class Authority:
    """A CA made by openssl, with the certificates of members and clients."""

    SERVER_NAME = "etcd.test"

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._directory = directory
        self.ca_file = str(directory / "ca.pem")
        self._openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *(
                "-keyout",
                str(directory / "ca.key"),
                "-out",
                self.ca_file,
                "-days",
                "2",
                "-subj",
                "/CN=test CA",
            ),
        )

    def issue(self, name: str, extension: str = "extendedKeyUsage=clientAuth") -> tuple[str, str]:
        """Paths of the certificate, whose common name is `name`, and of its key."""
        key, request, certificate, extensions = (
            str(self._directory / f"{name}.{kind}") for kind in ("key", "csr", "pem", "ext")
        )
        self._openssl(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-keyout", key, "-out", request, "-subj", f"/CN={name}"),
        )
        Path(extensions).write_text(extension)
        self._openssl(
            *("x509", "-req", "-in", request, "-CA", self.ca_file, "-CAkey", str(self._directory / "ca.key")),
            *("-CAcreateserial", "-out", certificate, "-days", "2", "-extfile", extensions),
        )
        return certificate, key

    def context(self, certificate: str, key: str) -> ssl.SSLContext:
        """For the JSON gateway."""
        context = ssl.create_default_context(cafile=self.ca_file)
        context.load_cert_chain(certificate, key)
        return context

    def server_options(self, addresses: list[str]) -> list[str]:
        names = ",".join([f"DNS:{self.SERVER_NAME}", *(f"IP:{address}" for address in addresses)])
        certificate, key = self.issue("server", f"subjectAltName={names}")
        return [
            *("--cert-file", certificate, "--key-file", key),
            *("--client-cert-auth", "--trusted-ca-file", self.ca_file),
        ]

    def _openssl(self, *words: str) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True, timeout=PATIENCE_S)
