"""firewalld's runtime configuration, over the system bus (firewalld.dbus(5)).

    bus = await Bus.open("/run/dbus/system_bus_socket")
    await bus.follow()
    if await bus.is_running():
        await bus.add("trusted", "slb1f0c…")
    await bus.news.wait()       # firewalld has come, gone, reloaded, or changed a zone

jeepney reads and writes the messages, the sockets are asyncio's: nothing blocks, and every call has a bound in time.
The methods that are called here change the runtime only; nothing is ever written to firewalld's files.
"""

import asyncio
import contextlib
import logging
import os
from typing import Self

from jeepney import (
    DBusAddress,
    HeaderFields,
    Message,
    MessageType,
    Parser,
    message_bus,
    new_method_call,
)
from jeepney.auth import BEGIN, Authenticator

CALL_S = 10.0
"""A reload of a large configuration takes firewalld seconds, in which it answers nothing."""
_READ_BYTES = 4096

log = logging.getLogger("sealane")

_NAME = "org.fedoraproject.FirewallD1"
_PATH = "/org/fedoraproject/FirewallD1"
_ZONE = DBusAddress(_PATH, bus_name=_NAME, interface=f"{_NAME}.zone")
_RULES = (
    f"type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',arg0='{_NAME}'",
    f"type='signal',sender='{_NAME}',path='{_PATH}'",
)
_SETTLED = frozenset({"ZONE_ALREADY_SET", "ALREADY_ENABLED", "UNKNOWN_INTERFACE", "NOT_ENABLED"})
"""Codes before the colon of an error: what was asked for is so already (firewall/errors.py)."""
_NO_OWNER = "org.freedesktop.DBus.Error.NameHasNoOwner"


class BusError(Exception):
    """The bus or firewalld does not answer, or refuses; the text is for people."""


class Bus:
    """One connection. `news` is set by every signal of firewalld's, and when the connection ends."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._serial = 0
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self.news = asyncio.Event()
        self.has_ended = False
        self._receiver = asyncio.get_running_loop().create_task(self._receive())

    @classmethod
    async def open(cls, path: str) -> Self:
        """Raises BusError."""
        try:
            async with asyncio.timeout(CALL_S):
                reader, writer = await asyncio.open_unix_connection(path)
                try:
                    await _authenticate(reader, writer)
                except BaseException:
                    writer.close()
                    raise
        except (OSError, EOFError, ValueError, TimeoutError) as error:
            raise BusError(f"the system bus cannot be used: {error or 'no answer'}") from error
        bus = cls(reader, writer)
        try:
            await bus._call(message_bus.Hello())
        except BaseException:
            await bus.close()
            raise
        return bus

    async def close(self) -> None:
        self._receiver.cancel()
        await asyncio.gather(self._receiver, return_exceptions=True)
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def follow(self) -> None:
        """Be told of firewalld's comings, goings, reloads and changed zones. Raises BusError."""
        for rule in _RULES:
            await self._call(message_bus.AddMatch(rule))

    async def is_running(self) -> bool:
        """Whether firewalld runs, in this process's own network namespace. Raises BusError."""
        try:
            (pid,) = await self._call(message_bus.GetConnectionUnixProcessID(_NAME))
        except BusError as error:
            if isinstance(error.__cause__, _RefusedError) and error.__cause__.name == _NO_OWNER:
                return False
            raise
        try:
            return os.stat(f"/proc/{pid}/ns/net").st_ino == os.stat("/proc/self/ns/net").st_ino
        except OSError:
            return False

    async def zone_of(self, link: str) -> str:
        """The zone that a link is in; empty: the default zone, as all that are in none. Raises BusError."""
        (zone,) = await self._zone_call("getZoneOfInterface", "s", link)
        return str(zone)

    async def add(self, zone: str, link: str) -> None:
        """A trailing `+` stands for any rest. Idempotent. Raises BusError, also if the link is in another zone."""
        await self._zone_call("addInterface", "ss", zone, link)

    async def remove(self, zone: str, link: str) -> None:
        """Idempotent; a link in another zone stays there. Raises BusError."""
        try:
            await self._zone_call("removeInterface", "ss", zone, link)
        except BusError as error:
            if not str(error).startswith("ZONE_CONFLICT"):
                raise

    async def _zone_call(self, method: str, signature: str, *arguments: str) -> tuple[object, ...]:
        try:
            return await self._call(new_method_call(_ZONE, method, signature, arguments))
        except BusError as error:
            if str(error).partition(":")[0] in _SETTLED:
                return ("",)
            raise

    async def _call(self, message: Message) -> tuple[object, ...]:
        """Raises BusError."""
        self._serial += 1
        serial = self._serial
        reply: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        if self.has_ended:
            raise BusError("the system bus has closed the connection")
        self._waiting[serial] = reply
        try:
            async with asyncio.timeout(CALL_S):
                self._writer.write(message.serialise(serial))
                await self._writer.drain()
                answer = await reply
        except TimeoutError as error:
            raise BusError(f"no answer within {CALL_S:g} s") from error
        except OSError as error:
            raise BusError(f"the system bus: {error.strerror or error}") from error
        finally:
            self._waiting.pop(serial, None)
        if answer.header.message_type is MessageType.error:
            refused = _RefusedError(
                str(answer.header.fields.get(HeaderFields.error_name, "")),
                str(answer.body[0]) if answer.body else "",
            )
            raise BusError(refused.text or refused.name) from refused
        return tuple(answer.body)

    async def _receive(self) -> None:
        parser = Parser()
        try:
            while data := await self._reader.read(_READ_BYTES):
                parser.add_data(data)
                while (message := parser.get_next_message()) is not None:
                    self._dispatch(message)
        except Exception as error:
            # What is no message has no one way to fail. Nothing more can be read: as if it had been closed.
            log.debug("the system bus: %r", error)
        finally:
            self.has_ended = True
            for reply in self._waiting.values():
                if not reply.done():
                    reply.set_exception(ConnectionError("the connection was closed"))
            self.news.set()

    def _dispatch(self, message: Message) -> None:
        if message.header.message_type is MessageType.signal:
            self.news.set()
            return
        reply = self._waiting.get(message.header.fields.get(HeaderFields.reply_serial, 0))
        if reply is not None and not reply.done():
            reply.set_result(message)


class _RefusedError(Exception):
    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name, self.text = name, text


async def _authenticate(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    authenticator = Authenticator()
    for request in authenticator:
        writer.write(request)
        await writer.drain()
        answer = await reader.read(_READ_BYTES)
        if not answer:
            raise EOFError("it closed the connection")
        authenticator.feed(answer)
    writer.write(BEGIN)
    await writer.drain()
