"""An endpoint's addresses: the ones asked for, and automatic ones for the network's other families."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager

from sealane.engine.errors import InvalidError
from sealane.engine.problems import at_field, parsed
from sealane.ipam import allocate
from sealane.model.ids import EndpointId, NetworkId
from sealane.model.intent import Intent
from sealane.model.net import FAMILIES, Address, Family, Interface, family_of, parse_address, prefix_length
from sealane.model.network import Network


class Addresses:
    """Remembers, per subnet, the last address given, so that a freed one comes back as late as it can."""

    def __init__(self, intent: Intent, like: "Addresses | None" = None) -> None:
        """`like`: go on from where that is."""
        self._intent = intent
        self._last: dict[tuple[NetworkId, Family], Address] = dict(like._last) if like is not None else {}
        self._named = Counter[tuple[str, Address]]()

    @contextmanager
    def leaving(self, named: Iterable[tuple[str, Address]]) -> Iterator[None]:
        """Inside, nobody is given these (network, address) unasked: somebody will ask for them by name."""
        added = Counter(named)
        self._named += added
        try:
            yield
        finally:
            self._named -= added

    def choose(
        self, network: Network, desired: Sequence[str], *, replaced: Collection[EndpointId] = ()
    ) -> tuple[Interface, ...]:
        """`replaced`: endpoints that go as this one comes, and leave it their addresses.

        Raises InvalidError, ConflictError or ExhaustedError, naming the field and, if taken, the holder."""
        request: dict[Family, Address] = {}
        for index, text in enumerate(desired):
            field = f"addresses[{index}]"
            address = parsed(parse_address, text.partition("/")[0], field)
            if family_of(address) in request:
                raise InvalidError(
                    f"a second IPv{family_of(address)} address", field=field, hint="one a family"
                )
            request[family_of(address)] = address
            self._claim(network, address, field, replaced)
        result = []
        for family in FAMILIES:
            subnet = network.subnet(family)
            if subnet is None:
                continue
            chosen = request.get(family) or self._next(network, family)
            result.append(Interface(f"{chosen}/{prefix_length(subnet.prefix)}"))
        return tuple(result)

    def choose_one(self, network: Network, family: Family, desired: str) -> Interface:
        """An address of one family alone: `desired`, or the next free one. Raises as `choose`."""
        subnet = network.subnet(family)
        if subnet is None:
            raise InvalidError(f"network {network.name} has no IPv{family} subnet", field="address")
        address = parsed(parse_address, desired, "address") if desired else self._next(network, family)
        if desired:
            self._claim(network, address, "address", ())
        return Interface(f"{address}/{prefix_length(subnet.prefix)}")

    def _claim(
        self, network: Network, address: Address, field: str, replaced: Collection[EndpointId]
    ) -> None:
        subnet = network.subnet(family_of(address))
        if subnet is None:
            raise InvalidError(f"network {network.name} has no IPv{family_of(address)} subnet", field=field)

        def holder(candidate: Address) -> str | None:
            endpoint = self._intent.leases.get((network.id, candidate))
            if endpoint is None or endpoint in replaced:
                return None
            return f"endpoint {self._intent.endpoints[endpoint].name}"

        with at_field(field):
            allocate.claim(subnet, address, holder)

    def _next(self, network: Network, family: Family) -> Address:
        subnet = network.subnet(family)
        assert subnet is not None
        leases, key = self._intent.leases, (network.id, family)
        with at_field("addresses"):
            address = allocate.next_address(
                subnet,
                lambda a: (network.id, a) in leases or (network.name, a) in self._named,
                self._last.get(key),
            )
        self._last[key] = address
        if len(self._last) > 2 * len(FAMILIES) * len(self._intent.networks):
            self._last = {key: last for key, last in self._last.items() if key[0] in self._intent.networks}
        return address
