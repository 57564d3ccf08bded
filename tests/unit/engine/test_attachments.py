"""A container's places on networks."""

import msgspec
import pytest

from harness.engines import publish
from sealane.engine.attachments import attach_requests, way_in
from sealane.model.endpoint import Endpoint
from sealane.model.intent import Intent
from sealane.model.network import Network
from sealane.wire.requests import Attachment, ContainerRequest


def test_whom_a_container_asks_is_asked_for_it_on_each_network() -> None:
    places = [Attachment(network="front"), Attachment(network="back")]
    container = ContainerRequest(name="web", spec=msgspec.Raw(b"{}"), attachments=places, dns=["192.0.2.53"])
    assert [r.dns_servers for r in attach_requests(container, Intent())] == [["192.0.2.53"]] * 2


def intent_of(*networks: Network) -> Intent:
    return Intent(networks)


def network(name: str, **fields: object) -> Network:
    return Network(id=f"id-of-{name}", name=name, **fields)  # type: ignore[arg-type]


def endpoint_on(network: Network, number: int) -> Endpoint:
    return Endpoint(
        id=f"e{number}",  # type: ignore[arg-type]
        name="web",
        network=network.id,
        sandbox="s1",  # type: ignore[arg-type]
        ifname=f"eth{number}",
        mac="02:00:00:00:00:01",  # type: ignore[arg-type]
        addresses=(),
    )


class TestPublishing:
    """Ports go to a network that can publish, whatever else the sandbox is on: `internal` is one reason why one cannot,
    and a driver whose packets do not pass the host's rules is another."""

    @pytest.mark.parametrize(
        "unable",
        [{"internal": True}, {"driver": "none"}, {"driver": "host"}],
        ids=["internal", "none", "host"],
    )
    def test_a_network_that_cannot_publish_is_passed_over_whatever_its_name_and_priority(
        self, unable
    ) -> None:
        able, other = network("zz"), network("aa", **unable)
        intent = intent_of(able, other)
        places = [Attachment(network="aa", gateway_priority=9), Attachment(network="zz")]
        container = ContainerRequest(
            name="web", spec=msgspec.Raw(b"{}"), attachments=places, publish=[publish(8080, 80)]
        )
        assert [len(r.publish) for r in attach_requests(container, intent)] == [0, 1]
        endpoints = [endpoint_on(other, 1), endpoint_on(able, 2)]
        assert way_in(endpoints, intent) is endpoints[1]
        assert way_in(endpoints[:1], intent) is None

    def test_of_those_that_can_the_one_with_the_default_route_is_chosen(self) -> None:
        intent = intent_of(network("aa"), network("bb"))
        places = [Attachment(network="aa"), Attachment(network="bb", gateway_priority=1)]
        container = ContainerRequest(
            name="web", spec=msgspec.Raw(b"{}"), attachments=places, publish=[publish(8080, 80)]
        )
        assert [len(r.publish) for r in attach_requests(container, intent)] == [0, 1]
