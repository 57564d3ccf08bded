"""What `explain` says of a real host, from its store: to be held against what real packets do."""

import contextlib
import os
import shutil
import sqlite3
import tempfile

import msgspec

from harness.host import EXT4, EXT6, Host
from sealane.compile.facts import Facts, Features
from sealane.compile.host import Compiled
from sealane.compile.relay import Relays
from sealane.explain.foreign_state import ForeignState, foreign_state_of
from sealane.explain.packet import Arrives, Disposition, Packet, Sent, Start, Trace
from sealane.explain.walk import answer, is_answered, walk
from sealane.explain.world import World
from sealane.kernel.nft import NftFamily
from sealane.kernel.state import HOST
from sealane.model.codec import decode
from sealane.model.intent import Intent

UPLINK = "eth0"
EXT = {EXT4, EXT6}


def intent_of(host: Host) -> Intent:
    """The records of a host's store. The daemon holds its database exclusively, so a copy is read."""
    folder = host.path(host.state_dir)
    with tempfile.TemporaryDirectory(prefix="sealane-explained-") as copy:
        for name in ("state.db", "state.db-wal"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copy(os.path.join(folder, name), os.path.join(copy, name))
        with contextlib.closing(sqlite3.connect(os.path.join(copy, "state.db"))) as db:
            rows = [
                data
                for table in ("networks", "sandboxes", "endpoints")
                for (data,) in db.execute(f"SELECT record FROM {table}")
            ]
    return Intent(decode(data.encode() if isinstance(data, str) else data) for data in rows)


class Explained:
    def __init__(self, host: Host, translators: tuple[NftFamily, ...] = ()) -> None:
        """`translators`: in which families somebody else's rules translate."""
        self.host = host
        self.intent = intent_of(host)
        bridged = host.ns.sysctl("net/bridge/bridge-nf-call-iptables") == "1"
        features = Features(bridge_netfilter=bridged, translators=translators)
        facts = Facts(instance="abcdef", uplink=UPLINK, uplink_mtu=1500, features=features)
        self.compiled = Compiled(self.intent, facts)
        self.foreign_state = self._foreign_state(facts)
        self.world = World(
            self.compiled.desired,
            self.foreign_state,
            origins=self.compiled.origins,
            relays=Relays(self.intent),
        )

    def _foreign_state(self, facts: Facts) -> ForeignState:
        addresses = (f"{self.host.address(4)}/24", f"{self.host.address(6)}/64")
        return foreign_state_of(facts, addresses)

    def sandbox(self, inode: int) -> str:
        """Id of the sandbox in a namespace, `host` for the host's."""
        return next(
            (s.id for s in self.intent.sandboxes.values() if s.netns and s.netns.inode == inode), HOST
        )

    def talk(self, origin: str, packet: Packet) -> tuple[Trace, Trace | None]:
        """There and back; `origin` is a namespace, or `ext` for the neighbour on the LAN."""
        start: Start = Arrives(HOST, UPLINK) if origin == "ext" else Sent(origin)
        there = walk(self.world, packet, start)
        return there, walk(self.world, *answer(there), there.flows) if there.passes else None

    def reached(self, origin: str, packet: Packet) -> tuple[str, Packet] | None:
        """Which namespace answers (`ext` for the neighbour), and the packet as it arrives there; None if nobody can.

        A TCP client's next packet goes in the original direction of an established flow: it must pass as well.
        """
        there, back = self.talk(origin, packet)
        if back is None or not is_answered(there, back):
            return None
        start: Start = Arrives(HOST, UPLINK) if origin == "ext" else Sent(origin)
        third = walk(self.world, there.sent, start, back.flows)
        if not third.passes or third.final.destination != there.final.destination:
            return None
        relay = self.world.relays.find(packet.family, packet.proto, there.final.destination_port)
        if relay is not None and there.netns == HOST and there.final.family == relay.family:
            if not self.world.relays.admits(there.final.source):
                return None
            number = relay.target(there.final.destination_port)
            onward = Packet(proto=packet.proto, destination=relay.address, destination_port=number)
            return self.reached(HOST, msgspec.structs.replace(onward, source_port=packet.source_port))
        if there.disposition is Disposition.EXITS:
            return ("ext", there.final) if there.final.destination in EXT else None
        return there.netns, there.final
