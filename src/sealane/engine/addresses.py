"""An endpoint's addresses: the ones asked for, and automatic ones for the network's other families."""

from collections.abc import Sequence

from sealane.engine.errors import InvalidError
from sealane.engine.problems import at_field, parsed
from sealane.ipam import allocate
from sealane.model.ids import NetworkId
from sealane.model.intent import Intent
from sealane.model.net import FAMILIES, Address, Family, Interface, family_of, parse_address, prefix_length
from sealane.model.network import Network


class Addresses:
    """Remembers, per subnet, the last address given, so that a freed one comes back as late as it can."""

    def __init__(self, intent: Intent) -> None:
        self._intent = intent
        self._last: dict[tuple[NetworkId, Family], Address] = {}

    def choose(self, network: Network, wanted: Sequence[str]) -> tuple[Interface, ...]:
        """Raises InvalidError, ConflictError or FullError, naming the field and, if taken, the holder."""
        asked: dict[Family, Address] = {}
        for index, text in enumerate(wanted):
            field = f"addresses[{index}]"
            address = parsed(parse_address, text.partition("/")[0], field)
            if family_of(address) in asked:
                raise InvalidError(
                    f"a second IPv{family_of(address)} address", field=field, cure="one a family"
                )
            asked[family_of(address)] = address
            self._claim(network, address, field)
        result = []
        for family in FAMILIES:
            subnet = network.subnet(family)
            if subnet is None:
                continue
            chosen = asked.get(family) or self._next(network, family)
            result.append(Interface(f"{chosen}/{prefix_length(subnet.prefix)}"))
        return tuple(result)

    def _claim(self, network: Network, address: Address, field: str) -> None:
        subnet = network.subnet(family_of(address))
        if subnet is None:
            raise InvalidError(f"network {network.name} has no IPv{family_of(address)} subnet", field=field)

        def holder(candidate: Address) -> str | None:
            endpoint = self._intent.leases.get((network.id, candidate))
            return f"endpoint {self._intent.endpoints[endpoint].name}" if endpoint else None

        with at_field(field):
            allocate.claim(subnet, address, holder)

    def _next(self, network: Network, family: Family) -> Address:
        subnet = network.subnet(family)
        assert subnet is not None
        leases, key = self._intent.leases, (network.id, family)
        with at_field("addresses"):
            address = allocate.next_address(subnet, lambda a: (network.id, a) in leases, self._last.get(key))
        self._last[key] = address
        return address
