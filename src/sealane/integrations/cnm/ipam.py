"""Docker's IpamDriver as verbs of the engine. Translates, and does nothing else.

A pool's id is its prefix. Pools come before their network and addresses before their endpoint, so both are held in the
store meanwhile (`engine.staged`). dockerd asks for a free pool again and again, keeping what it does not like, until
one meets no route of the host: each answer is another one.
"""

from sealane.engine.errors import InvalidError, NotFoundError
from sealane.engine.problems import at_field, parsed
from sealane.engine.staged import Staged
from sealane.integrations.cnm import wire
from sealane.integrations.cnm.network import ADDRESS_SPACE
from sealane.integrations.cnm.wire import options_of
from sealane.ipam.pool import check_host
from sealane.model.ids import parse_name
from sealane.model.net import (
    Family,
    ParseError,
    family_of,
    parse_address,
    parse_prefix,
    prefix_length,
)
from sealane.model.network import Network, Subnet


class IpamDriver:
    def __init__(self, staged: Staged) -> None:
        self._staged = staged

    def request_pool(self, request: wire.RequestPool) -> wire.GivenPool:
        if request.address_space not in ("", ADDRESS_SPACE):
            raise InvalidError(f"there is no address space {request.address_space!r}", field="AddressSpace")
        prefix = parsed(parse_prefix, request.pool, "subnet") if request.pool else ""
        family: Family = 6 if request.is_v6 else 4
        pool = self._staged.hold_pool(family, prefix, request.sub_pool)
        given = pool.subnets[0].prefix
        return wire.GivenPool(id=given, pool=given)

    def release_pool(self, request: wire.ReleasePool) -> dict[str, str]:
        self._staged.drop_pool(request.pool)
        return {}

    def request_address(self, request: wire.RequestAddress) -> wire.GivenAddress:
        network = self._staged.network_of(request.pool)
        subnet = next(s for s in network.subnets if s.prefix == request.pool)
        options = options_of(request.options)
        if options.text(wire.ADDRESS_TYPE) == wire.GATEWAY_TYPE:
            return wire.GivenAddress(address=self._gateway(network, subnet, request.address))
        lease = self._staged.hold(
            network, family_of(subnet.prefix), request.address, _name(options.text(wire.ENDPOINT_NAME))
        )
        return wire.GivenAddress(address=lease.addresses[0])

    def _gateway(self, network: Network, subnet: Subnet, desired: str) -> str:
        gateway = parsed(parse_address, desired, "gateway") if desired else subnet.gateway
        with at_field("gateway"):
            check_host(subnet.prefix, gateway)
        if network.driver == "none":
            self._staged.set_gateway(network, gateway)
        return f"{gateway}/{prefix_length(subnet.prefix)}"

    def release_address(self, request: wire.ReleaseAddress) -> dict[str, str]:
        """Of a pool that is gone, its addresses are too."""
        try:
            network = self._staged.network_of(request.pool)
        except NotFoundError:
            return {}
        self._staged.drop(network, request.address)
        return {}


def _name(text: str) -> str:
    """A container's name, if it is one by our grammar too."""
    try:
        return parse_name(text) if text else ""
    except ParseError:
        return ""
