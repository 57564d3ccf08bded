"""Few ids, names and addresses, so that generated records meet each other often."""

import msgspec
from hypothesis import strategies as st

from sealane.model.change import Change, Delete, Put, Record
from sealane.model.container import Container
from sealane.model.endpoint import Endpoint, NetnsRef, PublishedPort, Sandbox
from sealane.model.network import Network, Subnet

NETWORKS = ("n1", "n2")
SANDBOXES = ("s1", "s2")
ENDPOINTS = ("e1", "e2", "e3", "e4")
CONTAINERS = ("c1", "c2")
NAMES = ("web", "db", "api")
ADDRESSES = ("10.0.0.2/24", "10.0.0.3/24", "fd00::2/64", "fd00::3/64")

labels = st.dictionaries(st.sampled_from(["a", "b", "é\u0000\n"]), st.text(max_size=3), max_size=2)
names = st.sampled_from(NAMES)

networks = st.builds(
    Network,
    id=st.sampled_from(NETWORKS),
    name=names,
    mtu=st.sampled_from([0, 1500]),
    subnets=st.sampled_from(
        [(), (Subnet(prefix="10.0.0.0/24", gateway="10.0.0.1", reserved=("10.0.0.9",)),)]
    ),
    labels=labels,
)
sandboxes = st.builds(
    Sandbox,
    id=st.sampled_from(SANDBOXES),
    name=names,
    netns=st.none() | st.builds(NetnsRef, path=st.just("/run/x"), inode=st.integers(1, 3)),
    labels=labels,
)


@st.composite
def published_ports(draw: st.DrawFn) -> PublishedPort:
    first = draw(st.integers(80, 86))
    return PublishedPort(
        proto=draw(st.sampled_from(["tcp", "udp"])),
        host_address=draw(st.sampled_from([None, None, "192.0.2.1", "192.0.2.2"])),
        host_first=first,
        host_last=first + draw(st.sampled_from([0, 0, 0, 1, 3])),
        port=draw(st.sampled_from([80, 8080])),
    )


endpoints = st.builds(
    Endpoint,
    id=st.sampled_from(ENDPOINTS),
    name=names,
    network=st.sampled_from(NETWORKS),
    sandbox=st.none() | st.sampled_from(SANDBOXES),
    ifname=st.just("eth0"),
    mac=st.just("02:42:0a:01:00:02"),
    addresses=st.lists(st.sampled_from(ADDRESSES), max_size=2).map(tuple),
    labels=labels,
)
containers = st.builds(
    Container,
    id=st.sampled_from(CONTAINERS),
    name=names,
    sandbox=st.sampled_from(SANDBOXES),
    spec=st.sampled_from([b"{}", b'{"image":"x"}', b'[1, "\\u00e9"]']).map(msgspec.Raw),
    labels=labels,
)
records = st.one_of(networks, sandboxes, endpoints, containers)


@st.composite
def changes(draw: st.DrawFn, there: list[Record]) -> Change:
    """A creation, or one about what is there most of the time; right or wrong."""
    record = draw(records)
    if not there or draw(st.booleans()):
        return Put(record)
    old = draw(st.sampled_from(there))
    if draw(st.booleans()):
        return Delete(old)
    same_kind = {Network: networks, Sandbox: sandboxes, Endpoint: endpoints, Container: containers}[type(old)]
    return Put(msgspec.structs.replace(draw(same_kind), id=old.id), old)
