"""Random intents, as sequences of verbs that a person could type."""

from hypothesis import strategies as st

from sealane.model.endpoint import Bandwidth, Endpoint, NetnsRef, PublishedPort, Sandbox
from sealane.model.ids import EndpointId, NetworkId, SandboxId
from sealane.model.intent import Intent
from sealane.model.net import Address, Interface, Mac, Prefix
from sealane.model.network import GatewayLink, Network, Subnet

HOST_ADDRESSES = {4: "192.0.2.7", 6: "2001:db8::7"}
bandwidths = st.sampled_from(
    [None, None, Bandwidth(rate=10**7, burst=10**5), Bandwidth(rate=10**9, burst=10**7)]
)


@st.composite
def networks(draw: st.DrawFn, index: int) -> Network:
    families = draw(st.sampled_from([(4,), (6,), (4, 6)]))
    driver = draw(st.sampled_from(["bridge", "bridge", "routed"]))
    subnets = []
    if 4 in families:
        subnets.append(Subnet(prefix=Prefix(f"10.{index}.0.0/24"), gateway=Address(f"10.{index}.0.1")))
    if 6 in families:
        subnets.append(Subnet(prefix=Prefix(f"fd00:{index:x}::/64"), gateway=Address(f"fd00:{index:x}::1")))
    return Network(
        id=NetworkId(f"network-{index}"),
        name=f"net{index}",
        driver=driver,
        subnets=tuple(subnets),
        mtu=draw(st.sampled_from([0, 1300, 9000])),
        internal=draw(st.booleans()),
        icc=draw(st.booleans()),
        masquerade=draw(st.booleans()),
        host_link=None
        if driver == "routed"
        else draw(st.sampled_from([None, None, GatewayLink(has_gateway=False)])),
        source_addresses=draw(st.sampled_from([(), (Address("192.0.2.99"),)])),
    )


def sandbox(index: int, name: str = "") -> Sandbox:
    return Sandbox(
        id=SandboxId(f"sandbox-{index}"),
        name=name or f"box{index}",
        netns=NetnsRef(path=f"/run/fake/{index}", inode=5000 + index),
    )


@st.composite
def endpoints(draw: st.DrawFn, index: int, network: Network, box: Sandbox | None, ifname: str) -> Endpoint:
    addresses = []
    for subnet in network.subnets:
        base = subnet.prefix.rpartition("/")[0]
        text = base.removesuffix("0") + str(index + 10) if "." in base else f"{base}{index + 10:x}"
        addresses.append(Interface(f"{text}/{subnet.prefix.rpartition('/')[2]}"))
    ports = []
    if not network.internal and draw(st.booleans()):
        length = draw(st.sampled_from([1, 1, 3]))
        first = 8000 + 10 * index
        address = draw(st.sampled_from([None, None, "127.0.0.1", HOST_ADDRESSES[4]]))
        if address is not None and network.subnet(4) is None:
            address = None
        ports.append(
            PublishedPort(
                proto=draw(st.sampled_from(["tcp", "udp"])),
                host_address=Address(address) if address else None,
                host_first=first,
                host_last=first + length - 1,
                port=draw(st.sampled_from([first, 80])),
            )
        )
    handover = network.driver == "bridge" and draw(st.sampled_from([False, False, False, True]))
    return Endpoint(
        # One that is handed over stays so for life: it is never another's before or after.
        id=EndpointId(f"{'handed' if handover else 'endpoint'}-{index}"),
        name=f"end{index}",
        network=network.id,
        sandbox=box.id if box else None,
        ifname=ifname,
        mac=Mac(f"02:00:00:00:00:{index:02x}"),
        addresses=tuple(addresses),
        ports=tuple(ports),
        gateway_priority=draw(st.integers(0, 2)),
        ingress=draw(bandwidths),
        egress=draw(bandwidths),
        handover=handover,
        dormant=draw(st.booleans()),
    )


@st.composite
def intents(draw: st.DrawFn, most_networks: int = 3, most_sandboxes: int = 3) -> Intent:
    """An intent whose objects keep their identity from one draw to the next (network-1 is network-1), so that two
    draws make a before and an after."""
    nets = [draw(networks(i)) for i in range(1, 1 + most_networks) if draw(st.booleans())]
    boxes = [
        sandbox(i, draw(st.sampled_from(["", f"ns{i}/box"])))
        for i in range(1, 1 + most_sandboxes)
        if draw(st.booleans())
    ]
    records = [*nets, *boxes]
    for box in boxes:
        joined = [n for n in nets if draw(st.booleans())]
        for place, network in enumerate(joined):
            index = 10 * int(box.id[8:]) + int(network.id[8:])
            records.append(draw(endpoints(index, network, box, f"eth{place}")))
    return Intent(records)
