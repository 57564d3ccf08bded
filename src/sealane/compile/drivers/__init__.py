"""What each driver of networks puts into the kernel: one module a driver, in one table.

    compile_network(network, facts)              what a network puts on the host
    compile_endpoint(endpoint, network, facts)   what an endpoint with a sandbox puts on the host and into the sandbox

The traits of drivers, which everything else asks for, are in `model.traits`.
"""

from collections.abc import Iterator, Mapping
from typing import Final, Protocol

from sealane.compile.drivers import bridge, routed
from sealane.compile.endpoint import Placed
from sealane.compile.facts import Facts
from sealane.kernel.state import HOST, Object
from sealane.model.endpoint import Endpoint
from sealane.model.network import Network
from sealane.model.traits import Driver


class DriverModule(Protocol):
    def compile_network(self, network: Network, facts: Facts, /) -> Iterator[Object]: ...

    def compile_endpoint(self, endpoint: Endpoint, network: Network, facts: Facts, /) -> Iterator[Placed]: ...


MODULES: Final[Mapping[Driver, DriverModule]] = {"bridge": bridge, "routed": routed}
"""Of drivers whose networks have links."""


def compile_network(network: Network, facts: Facts) -> Iterator[Object]:
    module = MODULES.get(network.driver)
    if module is not None:
        yield from module.compile_network(network, facts)


def compile_endpoint(endpoint: Endpoint, network: Network, facts: Facts) -> Iterator[Placed]:
    """Nothing for an endpoint without a sandbox: it holds its addresses until one comes."""
    module = MODULES.get(network.driver)
    if module is None or endpoint.sandbox is None:
        return
    placed = module.compile_endpoint(endpoint, network, facts)
    # What is handed over is set up by who takes it: the inside is none of ours.
    yield from (p for p in placed if p[0] == HOST) if endpoint.handover else placed
