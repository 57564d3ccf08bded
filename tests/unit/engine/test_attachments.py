"""A container's places on networks."""

import msgspec

from sealane.engine.attachments import attach_requests
from sealane.model.intent import Intent
from sealane.wire.requests import Attachment, ContainerRequest


def test_whom_a_container_asks_is_asked_for_it_on_each_network() -> None:
    places = [Attachment(network="front"), Attachment(network="back")]
    container = ContainerRequest(name="web", spec=msgspec.Raw(b"{}"), attachments=places, dns=["192.0.2.53"])
    assert [r.dns_servers for r in attach_requests(container, Intent())] == [["192.0.2.53"]] * 2
