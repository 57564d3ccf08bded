"""An explanation costs what its packet meets, not what the host holds."""

from collections.abc import Callable

import pytest

from harness.effort import calls_of
from harness.engines import FACTS
from sealane.compile.host import Compiled
from sealane.explain.foreign_state import foreign_state_of
from sealane.explain.question import Question, explain
from sealane.model.endpoint import Endpoint, NetnsRef, PublishedPort, Sandbox
from sealane.model.ids import EndpointId, NetworkId, SandboxId
from sealane.model.intent import Intent
from sealane.model.net import Address, Interface, Mac, Prefix
from sealane.model.network import Network, Subnet

ENDPOINTS = 1000
CALLS_MAX = 60_000
"""Five to ten milliseconds; looking at each of a thousand for each other would be a million."""


@pytest.fixture(scope="module", params=["bridge", "routed"])
def ask(request: pytest.FixtureRequest) -> Callable[[str, str], int]:
    """How many functions a question calls."""
    subnet = Subnet(prefix=Prefix("10.0.0.0/16"), gateway=Address("10.0.0.1"))
    network = Network(
        id=NetworkId("n"), name="front", driver=request.param, subnets=(subnet,), masquerade=False
    )
    records: list[Network | Sandbox | Endpoint] = [network]
    for index in range(ENDPOINTS):
        box = SandboxId(f"s{index}")
        records.append(
            Sandbox(id=box, name=f"box{index}", netns=NetnsRef(path=f"/x/{index}", inode=index + 1))
        )
        place = index + 10
        records.append(
            Endpoint(
                id=EndpointId(f"e{index}"),
                name=f"end{index}",
                network=network.id,
                sandbox=box,
                ifname="eth0",
                mac=Mac(f"02:00:00:00:{index >> 8:02x}:{index & 255:02x}"),
                addresses=(Interface(f"10.0.{place >> 8}.{place & 255}/16"),),
                ports=(PublishedPort(host_first=10000 + index, host_last=10000 + index, port=80),),
            )
        )
    intent = Intent(records)
    compiled = Compiled(intent, FACTS)
    around = foreign_state_of(FACTS, ("192.0.2.7/24",))

    def calls(source: str, target: str) -> int:
        return calls_of(lambda: explain(Question(source=source, target=target), intent, compiled, around))

    return calls


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("box1", "box900:80"),
        ("192.0.2.200", ":10500"),
        ("192.0.2.200", "box5:80"),
        ("host", ":10500"),
        ("box1", "10.0.99.99:80"),
    ],
)
def test_a_thousand_endpoints_are_not_looked_at(
    ask: Callable[[str, str], int], source: str, target: str
) -> None:
    """There and back, from cold: every index is made anew."""
    assert ask(source, target) <= CALLS_MAX
