"""A small town for the explainer's tests: two dual-stack networks, and who lives there.

front  10.1.0.0/24 fd00:1::/64   web .10 (published 8080 → 80/tcp), api .11
back   10.2.0.0/24 fd00:2::/64   db .12, and api .11
the host is 192.0.2.7, 2001:db8::7 on uplink0; 192.0.2.200 is outside
"""

from typing import Any

import msgspec

from harness.engines import FACTS
from harness.links import changed
from sealane.compile.facts import Facts, Features
from sealane.compile.host import Compiled
from sealane.explain.foreign_state import ForeignState, foreign_state_of
from sealane.explain.packet import Arrives, Packet, Sent, Start, Trace
from sealane.explain.walk import walk
from sealane.explain.world import World
from sealane.kernel.objects import Key, Link
from sealane.kernel.state import HOST, Object
from sealane.model.endpoint import Endpoint, NetnsRef, PublishedPort, Sandbox
from sealane.model.ids import EndpointId, NetworkId, SandboxId
from sealane.model.intent import Intent
from sealane.model.net import Address, Interface, Mac, Prefix
from sealane.model.network import Network, Subnet

OUTSIDE = {4: "192.0.2.200", 6: "2001:db8::200"}
HOST_ADDRESS = {4: "192.0.2.7", 6: "2001:db8::7"}
UPLINK = "uplink0"
BRIDGED = msgspec.structs.replace(FACTS, features=Features(bridge_netfilter=True))


def network(index: int, name: str, **options: Any) -> Network:
    subnets = (
        Subnet(prefix=Prefix(f"10.{index}.0.0/24"), gateway=Address(f"10.{index}.0.1")),
        Subnet(prefix=Prefix(f"fd00:{index}::/64"), gateway=Address(f"fd00:{index}::1")),
    )
    return Network(id=NetworkId(f"network-{name}"), name=name, **{"subnets": subnets, **options})


def sandbox(index: int, name: str) -> Sandbox:
    netns = NetnsRef(path=f"/run/netns/{name}", inode=4000 + index)
    return Sandbox(id=SandboxId(f"sandbox-{name}"), name=name, netns=netns)


def endpoint(box: Sandbox, on: Network, number: int, ifname: str = "eth0", **options: Any) -> Endpoint:
    addresses = []
    for subnet in on.subnets:
        base, _, length = subnet.prefix.rpartition("/")
        mine = base.removesuffix("0") + str(number) if "." in base else f"{base}{number}"
        addresses.append(Interface(f"{mine}/{length}"))
    return Endpoint(
        id=EndpointId(f"endpoint-{box.name}-{on.name}"),
        name=box.name,
        network=on.id,
        sandbox=box.id,
        ifname=ifname,
        mac=Mac(
            f"02:00:00:00:{int(on.subnets[0].prefix.split('.')[1]) if '.' in on.subnets[0].prefix else 9:02x}:{number:02x}"
        ),
        addresses=tuple(addresses),
        **options,
    )


class Town:
    """`front` and `back`: options of the networks. `change` edits the compiled state, as drift would."""

    def __init__(
        self,
        front: dict[str, Any] | None = None,
        back: dict[str, Any] | None = None,
        *,
        facts: Facts = FACTS,
        ports: tuple[PublishedPort, ...] = (PublishedPort(host_first=8080, host_last=8080, port=80),),
        back_ports: tuple[PublishedPort, ...] = (),
        db_ports: tuple[PublishedPort, ...] = (),
        **around: Any,
    ) -> None:
        self.idle: set[str] = set()
        self.front, self.back = network(1, "front", **(front or {})), network(2, "back", **(back or {}))
        web, api, db = sandbox(1, "web"), sandbox(2, "api"), sandbox(3, "db")
        self.web = endpoint(web, self.front, 10, ports=ports)
        self.api = endpoint(api, self.front, 11, aliases=("backend",), gateway_priority=1)
        self.api_back = endpoint(api, self.back, 11, "eth1", ports=back_ports)
        self.db = endpoint(db, self.back, 12, ports=db_ports)
        self.intent = Intent(
            [self.front, self.back, web, api, db, self.web, self.api, self.api_back, self.db]
        )
        self.compiled = Compiled(self.intent, facts)
        given = foreign_state_of(facts, (f"{HOST_ADDRESS[4]}/24", f"{HOST_ADDRESS[6]}/64"))
        self.foreign_state: ForeignState = msgspec.structs.replace(given, **around)

    @property
    def world(self) -> World:
        def title(unit: tuple[str, str]) -> str:
            return f"{unit[0]} {unit[1].removeprefix(unit[0] + '-')}"

        return World(
            self.compiled.desired,
            self.foreign_state,
            origins=self.compiled.origins,
            title=title,
            idle=self.idle,
        )

    def find(self, netns: str, *key: object) -> Object:
        return self.compiled.desired[netns][key]

    def change(self, netns: str, key: Key, **fields: Any) -> None:
        item = self.compiled.desired[netns][key]
        replace = changed if isinstance(item, Link) else msgspec.structs.replace
        self.compiled.desired[netns][key] = replace(item, **fields)

    def stop_forwarding(self) -> None:
        """As the kernel does it: of IPv4 with the setting of every link (inet_forward_change)."""
        for key in list(self.compiled.desired[HOST]):
            if key[0] == "sysctl" and str(key[1]).endswith(("/ip_forward", "/forwarding")):
                self.change(HOST, key, value="0")

    def remove(self, netns: str, key: Key) -> None:
        del self.compiled.desired[netns][key]

    def send(self, origin: str, destination: str, port: int = 80, **fields: Any) -> Trace:
        """From `host`, `outside`, or a sandbox by name."""
        packet = Packet(destination=destination, destination_port=port, source_port=40000, **fields)
        if origin == "outside" and not packet.source:
            packet = msgspec.structs.replace(packet, source=OUTSIDE[packet.family])
        return walk(self.world, packet, start_of(origin))


def start_of(origin: str) -> Start:
    if origin == "outside":
        return Arrives(HOST, UPLINK)
    return Sent(HOST if origin == HOST else f"sandbox-{origin}")


def steps(trace: Trace, kind: str = "") -> list[str]:
    return [step.text for hop in trace.hops for step in hop.steps if not kind or step.kind == kind]


def whys(trace: Trace) -> list[str]:
    """Comments of the rules met, without the networks' digests."""
    return [step.why.rpartition(":")[2] for hop in trace.hops for step in hop.steps if step.why]
