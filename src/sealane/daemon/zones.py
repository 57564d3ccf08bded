"""Keeps our links in firewalld's zone `trusted`, where firewalld runs.

firewalld rejects what it has not been told of, and our own accepts do not undo a drop in another table: so without this
our networks have no way out and no names on a host with firewalld (netavark and Docker do the same for theirs). What
is trusted is a network's bridge, by its name, and `sle+` for the links of routed networks; not a bridge that a network
has adopted, since its other ports are somebody else's.

Only firewalld's runtime is changed: it forgets with every reload and restart, of which it tells, and is told again.
What was added is remembered in a file beside the daemon's other state of this boot, so that a daemon that was killed
finds it, and takes away what no network needs any more. A link that an administrator has put into another zone stays
there, and `status` says so.
"""

import asyncio
import logging
import os
from collections.abc import Iterable

from sealane.compile.names import ENDPOINT_PREFIX, network_link
from sealane.compile.network import has_data_plane
from sealane.engine.engine import Engine
from sealane.linux.firewalld import Bus, BusError
from sealane.model.network import Network

log = logging.getLogger("sealane")

ZONE = "trusted"
ROUTED = f"{ENDPOINT_PREFIX}+"
"""The links of routed networks, one an endpoint: a trailing `+` stands for any rest."""
SYSTEM_BUS = "/run/dbus/system_bus_socket"
"""D-Bus specification, "Well-known Message Bus Instances"."""


RETRY_S = 5.0
"""Between looks for a bus that is not there, and after a failure."""
LOOK_S = 60.0
"""Between looks without news: somebody may have changed what no signal tells of."""
PAUSE_S = 0.2
"""After a change: who undoes it is answered five times a second at most."""
_RECORD_BYTES = 1 << 20


def trusted_links(networks: Iterable[Network]) -> set[str]:
    """What has to be in the zone, in firewalld's words."""
    return {
        network_link(network) if network.traits.has_bridge else ROUTED
        for network in networks
        if has_data_plane(network) and not network.link_adopted
    }


class Record:
    """The links that we have put into the zone: one a line. Lost with the boot, as what it tells of is."""

    def __init__(self, path: str) -> None:
        self._path = path

    def read(self) -> set[str]:
        """Empty if there is none, or it cannot be read."""
        try:
            with open(self._path, encoding="ascii", errors="replace") as file:
                return set(file.read(_RECORD_BYTES).split())
        except OSError:
            return set()

    def write(self, links: set[str]) -> None:
        """Raises OSError."""
        fresh = f"{self._path}.new"
        with open(fresh, "w", encoding="ascii") as file:
            file.writelines(f"{link}\n" for link in sorted(links))
        os.replace(fresh, self._path)


class Zones:
    """`problem` and `elsewhere` are what `status` tells."""

    def __init__(self, engine: Engine, record: str, bus_path: str = SYSTEM_BUS) -> None:
        self._engine = engine
        self._record = Record(record)
        self._bus_path = bus_path
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.problem = ""
        """Why firewalld could not be told; empty: it was, or does not run."""
        self.elsewhere: dict[str, str] = {}
        """Our links that somebody has put into another zone → that zone."""
        self._changes = engine.feed.reader("firewalld", self._update_ignored)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._task = loop.create_task(self._run())

    def stop(self) -> None:
        """What was added stays, as the traffic does."""
        self._changes.close()
        if self._task is not None:
            self._task.cancel()

    def _update_ignored(self) -> None:
        if any(isinstance(change.record, Network) for change in self._changes.changes()):
            self._changed.set()

    async def _run(self) -> None:
        while True:
            if self._has_bus():
                await self._stay_with_the_bus()
            else:
                self._say_nothing()
            await asyncio.sleep(RETRY_S)

    def _has_bus(self) -> bool:
        return os.path.exists(self._bus_path)

    async def _stay_with_the_bus(self) -> None:
        try:
            bus = await Bus.open(self._bus_path)
        except BusError as error:
            # No bus, no firewalld: it speaks of nothing else.
            log.debug("%s", error)
            self._say_nothing()
            return
        try:
            await bus.follow()
            while not bus.has_ended:
                bus.news.clear()
                self._changed.clear()
                if await self._settle(bus):
                    await asyncio.sleep(PAUSE_S)
                await self._next(bus)
        except (BusError, OSError) as error:
            self._fail(str(error))
        except Exception as error:
            log.exception("firewalld")
            self._fail(str(error))
        finally:
            await bus.close()

    async def _next(self, bus: Bus) -> None:
        """Until there is something to look at."""
        waits = [asyncio.ensure_future(event.wait()) for event in (bus.news, self._changed)]
        try:
            await asyncio.wait(waits, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _settle(self, bus: Bus) -> bool:
        """Whether firewalld was told anything. Raises BusError, OSError."""
        if not await bus.is_running():
            self._say_nothing()
            if self._record.read():
                # What firewalld knew is gone with it.
                self._record.write(set())
            return False
        desired = trusted_links(self._engine.intent.networks.values())
        ours = self._record.read()
        zones = {link: await bus.zone_of(link) for link in sorted(desired)}
        missing = [link for link, zone in zones.items() if not zone]
        # What is there and is not in the record was put there by somebody else: it is not ours to take away.
        self._record.write(ours | set(missing))
        for link in missing:
            await bus.add(ZONE, link)
        for link in sorted(ours - desired):
            await bus.remove(ZONE, link)
        self._record.write((ours & desired) | set(missing))
        self.elsewhere = {link: zone for link, zone in zones.items() if zone not in ("", ZONE)}
        if missing:
            self._engine.events.emit("firewalld.trusted", ", ".join(missing), zone=ZONE)
        self.problem = ""
        return bool(missing or ours - desired)

    def _say_nothing(self) -> None:
        """There is no firewalld to be told, or no bus. (That a bus is away for a while says nothing of firewalld: what was
        added stays recorded.)"""
        self.problem = ""
        self.elsewhere = {}

    def _fail(self, why: str) -> None:
        if why != self.problem:
            self._engine.events.emit("firewalld.failed", why)
        self.problem = why
