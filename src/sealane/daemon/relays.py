"""Relays published ports in the family that their endpoint lacks: `-p 8080:80` on a network of IPv4 alone answers at the
host's IPv6 addresses too, as Docker's docker-proxy does. Nothing in the kernel translates between families, so the daemon
listens and carries the bytes (`linux.forwarder` says at which costs).

Workloads of internal networks, which ask nobody but their own, are refused here as in `forward`; so are link-local addresses,
which do not say from which network they come. A port that somebody else has is left to him, and tried again at the next
change; `status` tells of it.
"""

import asyncio
import itertools
import logging
from collections.abc import Iterator

from sealane.compile.relay import RelayedPort, admits, internal_prefixes, relayed_ports
from sealane.engine.engine import Engine
from sealane.engine.feed import GapError
from sealane.linux.forwarder import Forwarder, Port, Target
from sealane.model.change import Delete
from sealane.model.endpoint import Endpoint
from sealane.model.ids import EndpointId
from sealane.model.net import WILDCARDS, Prefix, packed
from sealane.model.network import Network

log = logging.getLogger("sealane")

PORTS_MAX = 1024
"""Sockets. Ports past it are not relayed: a range of thousands would take as many descriptors."""


class RelayFeed:
    def __init__(self, engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
        self._engine = engine
        self._ports: dict[EndpointId, tuple[RelayedPort, ...]] = {}
        self._internal: tuple[Prefix, ...] = ()
        self.problems: dict[str, str] = {}
        """`[::]:8080/tcp` → why it is not listened at."""
        self._forwarder = Forwarder(loop, WILDCARDS, self._admits)
        self._changes = engine.feed.reader("relays", self.follow)
        self._read_all()
        self._serve()

    def close(self) -> None:
        self._changes.close()
        self._forwarder.close()

    def follow(self) -> None:
        """At once, so that who has published a port is answered there."""
        try:
            changes = self._changes.changes()
        except GapError:
            self._read_all()
            self._serve()
            return
        before = dict(self._ports)
        for change in changes:
            match change.record:
                case Endpoint():
                    self._look(change.record, gone=isinstance(change, Delete))
                case Network():
                    self._read_networks()
        if self._ports != before or (self.problems and changes):
            self._serve()

    def _read_all(self) -> None:
        self._ports.clear()
        self._read_networks()
        for endpoint in self._engine.intent.endpoints.values():
            self._look(endpoint, gone=False)

    def _look(self, endpoint: Endpoint, *, gone: bool) -> None:
        network = self._engine.intent.networks.get(endpoint.network)
        ports = () if gone or network is None else tuple(relayed_ports(endpoint, network))
        if ports:
            self._ports[endpoint.id] = ports
        else:
            self._ports.pop(endpoint.id, None)

    def _read_networks(self) -> None:
        self._internal = internal_prefixes(self._engine.intent.networks.values())

    def _serve(self) -> None:
        desired = dict(itertools.islice(self._targets(), PORTS_MAX + 1))
        is_too_much = len(desired) > PORTS_MAX
        if is_too_much:
            desired.popitem()
        failed = self._forwarder.serve(desired, partly=True)
        problems = {_shown(port): error.strerror or str(error) for port, error in failed.items()}
        if is_too_much:
            problems["others"] = f"at most {PORTS_MAX} ports are relayed"
        for port in problems.keys() - self.problems.keys():
            log.warning("relay at %s: %s", port, problems[port])
        self.problems = problems

    def _targets(self) -> Iterator[tuple[Port, Target]]:
        has_ipv6 = self._engine.reconciler.compiled.facts.features.ipv6
        for ports in self._ports.values():
            for port in ports:
                if port.family == 6 and not has_ipv6:
                    continue
                for number in range(port.first, port.last + 1):
                    target = Target(packed(port.address), port.target(number))
                    yield Port(port.family, port.proto, number), target

    def _admits(self, client: str, _own: str) -> bool:
        return admits(client.partition("%")[0], self._internal)


def _shown(port: Port) -> str:
    host = WILDCARDS[port.family]
    return f"{f'[{host}]' if ':' in host else host}:{port.number}/{port.proto}"
