"""A dual-stack network and an endpoint on it, for tests of the compiler's parts."""

from sealane.model.endpoint import Endpoint
from sealane.model.ids import EndpointId, NetworkId, SandboxId
from sealane.model.net import Address, Interface, Mac, Prefix
from sealane.model.network import Network, Subnet

NETWORK = Network(
    id=NetworkId("front"),
    name="front",
    subnets=(
        Subnet(prefix=Prefix("10.1.0.0/24"), gateway=Address("10.1.0.1")),
        Subnet(prefix=Prefix("fd00::/64"), gateway=Address("fd00::1")),
    ),
)
WEB = Endpoint(
    id=EndpointId("web"),
    name="web",
    network=NETWORK.id,
    sandbox=SandboxId("box"),
    ifname="eth0",
    mac=Mac("02:00:00:00:00:01"),
    addresses=(Interface("10.1.0.2/24"), Interface("fd00::2/64")),
)
