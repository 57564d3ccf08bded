"""The sockets that questions arrive on."""

import errno
import ipaddress
import os
import socket
from collections.abc import Callable, Collection, Iterable

import msgspec

from sealane.dns.backlog import Backlog
from sealane.dns.limits import BACKLOG, SOCKET_BUFFER_BYTES
from sealane.dns.records import ZoneNetwork
from sealane.dns.zone import View

_IP_FREEBIND = 15
_IPV6_FREEBIND = 78
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33


class Place(msgspec.Struct, frozen=True, order=True):
    """An address to serve on, and the bridge that questions to it come from ("" if any)."""

    address: str
    device: str = ""


class Listener:
    """The UDP and the TCP socket of a place. They fail and are tried again apart: TCP may be taken where UDP is not."""

    def __init__(self, place: Place, port: int) -> None:
        self.place = place
        self.port = port
        self.arrival: tuple[str, ...] = ()
        """The networks served here; several where a driver has no device a network."""
        self.askers: dict[str, View] = {}
        self.datagrams: socket.socket | None = None
        self.stream: socket.socket | None = None
        self.problems: dict[str, OSError] = {}
        self.backlog = Backlog(BACKLOG)
        self._device_index = 0

    def is_stranded(self) -> bool:
        """Whether the device was replaced. SO_BINDTODEVICE holds an index: under a new one nothing would arrive."""
        if not self.place.device or not (self.datagrams or self.stream):
            return False
        return _index_of(self.place.device) != self._device_index

    def open(self, leaving: Collection[str] = ()) -> list[socket.socket]:
        """Open what is not open; gives the sockets that are new, and keeps in ``problems`` why others are not. At the
        addresses ``leaving`` a TCP socket of ours is still being closed: there TCP has to wait for it."""
        if self.datagrams is None and self.stream is None:
            self._device_index = _index_of(self.place.device) if self.place.device else 0
        opened = []
        if self.datagrams is None:
            self.datagrams = self._try("UDP", _open_datagrams)
            opened += [self.datagrams] if self.datagrams else []
        if self.stream is None and self.place.address not in leaving:
            self.stream = self._try("TCP", _open_stream)
            opened += [self.stream] if self.stream else []
        return opened

    def _try(self, protocol: str, open_socket: Callable[[Place, int], socket.socket]) -> socket.socket | None:
        try:
            opened = open_socket(self.place, self.port)
        except OSError as error:
            self.problems[protocol] = error
            return None
        self.problems.pop(protocol, None)
        return opened

    def decline(self) -> None:
        """Report that there are too many places, instead of opening one more."""
        self.problems = {"UDP and TCP": OSError(errno.EMFILE, os.strerror(errno.EMFILE))}

    def problem_texts(self) -> list[str]:
        place = f"{self.place.address} port {self.port}"
        return [
            f"names cannot be served on {place} ({protocol}): {describe(error)}"
            for protocol, error in sorted(self.problems.items())
        ]


class Places:
    """Which networks are served where. Not safe for threads: its owner has a lock."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listeners: dict[Place, Listener] = {}
        self._networks: dict[str, ZoneNetwork] = {}
        self._retired: list[Listener] = []

    @property
    def listeners(self) -> list[Listener]:
        return list(self._listeners.values())

    @property
    def addresses(self) -> frozenset[str]:
        return frozenset(place.address for place in self._listeners)

    def assign(self, changed: Iterable[ZoneNetwork], removed: Iterable[str]) -> None:
        """Take over where networks are served; all askers are to be recognised anew, for views may have changed."""
        for network_id in removed:
            self._withdraw(network_id)
        for network in changed:
            held = self._networks.get(network.id)
            if held is None or _places(held) != _places(network):
                self._withdraw(network.id)
                for place in _places(network):
                    listener = self._listeners.setdefault(place, Listener(place, self._port))
                    listener.arrival = (*listener.arrival, network.id)
            self._networks[network.id] = network
        for listener in self._listeners.values():
            listener.askers = {}

    def _withdraw(self, network_id: str) -> None:
        network = self._networks.pop(network_id, None)
        for place in _places(network) if network else ():
            listener = self._listeners[place]
            listener.arrival = tuple(other for other in listener.arrival if other != network_id)
            if not listener.arrival:
                self._retired.append(self._listeners.pop(place))

    def take_retired(self) -> list[Listener]:
        """Listeners that no network needs any more, each once, for the caller to close."""
        retired, self._retired = self._retired, []
        return retired

    def problems(self) -> list[str]:
        return [
            f"network {self._networks[network_id].name}: {text}"
            for listener in self._listeners.values()
            for text in listener.problem_texts()
            for network_id in listener.arrival
        ]


def _places(network: ZoneNetwork) -> tuple[Place, ...]:
    addresses = dict.fromkeys(str(ipaddress.ip_address(text)) for text in network.listen)
    return tuple(Place(address, network.device or "") for address in addresses)


def describe(error: OSError) -> str:
    name = errno.errorcode.get(error.errno or 0, "?")
    hint = ""
    if error.errno == errno.EADDRINUSE:
        hint = (
            "; another program listens there, perhaps on the wildcard address: bind it to its own addresses"
        )
    if error.errno == errno.ENODEV:
        hint = "; the network's bridge is missing"
    return f"{name}, {os.strerror(error.errno or 0)}{hint}; tried again every second"


def _index_of(device: str) -> int:
    try:
        return socket.if_nametoindex(device)
    except OSError:
        return 0


def _open_datagrams(place: Place, port: int) -> socket.socket:
    # Without SO_REUSEADDR: with it on both sides Linux lets two UDP sockets share a port and gives questions to one of
    # them, silently. So a foreign wildcard listener is an error that can be told.
    opened = _bound(place, port, socket.SOCK_DGRAM, reuse=False)
    try:
        for forced, modest in ((_SO_RCVBUFFORCE, socket.SO_RCVBUF), (_SO_SNDBUFFORCE, socket.SO_SNDBUF)):
            _enlarge_buffer(opened, forced, modest)
    except OSError:
        opened.close()
        raise
    return opened


def _enlarge_buffer(opened: socket.socket, forced: int, modest: int) -> None:
    """Beyond net.core.rmem_max where CAP_NET_ADMIN allows it, else up to that."""
    try:
        opened.setsockopt(socket.SOL_SOCKET, forced, SOCKET_BUFFER_BYTES)
    except PermissionError:
        opened.setsockopt(socket.SOL_SOCKET, modest, SOCKET_BUFFER_BYTES)


def _open_stream(place: Place, port: int) -> socket.socket:
    # With SO_REUSEADDR, for connections of a former life in TIME_WAIT; a TCP socket in LISTEN conflicts all the same.
    opened = _bound(place, port, socket.SOCK_STREAM, reuse=True)
    try:
        opened.listen(128)
    except OSError:
        opened.close()
        raise
    return opened


def _bound(place: Place, port: int, kind: socket.SocketKind, *, reuse: bool) -> socket.socket:
    """Bound to the place's own address, never the wildcard: replies then leave from the address that was asked."""
    is_ipv6 = ":" in place.address
    family = socket.AF_INET6 if is_ipv6 else socket.AF_INET
    opened = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    try:
        if reuse:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if place.device:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, place.device.encode())
        # An IPv6 address is not bindable before duplicate address detection ends (1 to 2 s), nor any address that the
        # engine is about to add: binding does not wait for them.
        if is_ipv6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            opened.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        else:
            opened.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        opened.bind((place.address, port))
    except OSError:
        opened.close()
        raise
    return opened
