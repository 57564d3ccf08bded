"""A real upstream server on real sockets, in a thread, for tests: dnspython messages, behaviour given as a function."""

import select
import socket
import threading
from collections.abc import Callable
from typing import Self

import dns.flags
import dns.message
import dns.rdatatype
import dns.rrset

Behaviour = Callable[[dns.message.Message, bool], list[bytes]]
"""(query, over TCP?) -> messages to send back, in this order; none for silence."""


def reply_to(
    query: dns.message.Message, *addresses: str, ttl: int = 60, rcode: int = 0
) -> dns.message.Message:
    reply = dns.message.make_response(query, recursion_available=True)
    reply.set_rcode(rcode)
    if addresses:
        question = query.question[0]
        reply.answer = [dns.rrset.from_text(question.name, ttl, "IN", question.rdtype, *addresses)]
    return reply


def answering(*addresses: str, ttl: int = 60, rcode: int = 0) -> Behaviour:
    return lambda query, _: [reply_to(query, *addresses, ttl=ttl, rcode=rcode).to_wire()]


def silent(_query: dns.message.Message, _stream: bool) -> list[bytes]:
    return []


def truncating(*addresses: str) -> Behaviour:
    """Over UDP nothing but TC."""

    def behave(query: dns.message.Message, stream: bool) -> list[bytes]:
        reply = reply_to(query, *(addresses if stream else ()))
        if not stream:
            reply.flags |= dns.flags.TC
        return [reply.to_wire()]

    return behave


class Upstream:
    """Use as a context manager. ``seen`` has (name in lower case, type, "udp" or "tcp") of every query."""

    def __init__(self, address: str, port: int = 0, behave: Behaviour = answering("192.0.2.80")) -> None:
        self.behave = behave
        self.seen: list[tuple[str, str, str]] = []
        self.spellings: list[str] = []
        self.peers: list[tuple[str, int]] = []
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._udp = socket.socket(family, socket.SOCK_DGRAM)
        self._udp.bind((address, port))
        self.address, self.port = address, self._udp.getsockname()[1]
        self._tcp = socket.socket(family, socket.SOCK_STREAM)
        self._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._tcp.bind((address, self.port))
        self._tcp.listen(64)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        self._udp.close()
        self._tcp.close()

    def names(self) -> list[str]:
        return [name for name, _, _ in self.seen]

    def _run(self) -> None:
        while not self._stopping.is_set():
            ready, _, _ = select.select([self._udp, self._tcp], [], [], 0.05)
            if self._udp in ready:
                data, peer = self._udp.recvfrom(4096)
                self.peers.append(peer[:2])
                for reply in self._replies(data, False):
                    self._udp.sendto(reply, peer)
            if self._tcp in ready:
                connection, _ = self._tcp.accept()
                with connection:
                    connection.settimeout(1)
                    data = connection.recv(4096)
                    for reply in self._replies(data[2:], True):
                        connection.sendall(len(reply).to_bytes(2, "big") + reply)

    def _replies(self, data: bytes, stream: bool) -> list[bytes]:
        query = dns.message.from_wire(data)
        if query.flags & dns.flags.QR:
            return []
        question = query.question[0]
        self.seen.append(
            (
                question.name.to_text().lower(),
                dns.rdatatype.to_text(question.rdtype),
                "tcp" if stream else "udp",
            )
        )
        self.spellings.append(question.name.to_text())
        return self.behave(query, stream)
