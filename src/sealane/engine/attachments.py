"""A container's places on networks as requests to attach: the preview and the deed make the same ones. Pure."""

from collections.abc import Iterable, Iterator
from contextlib import suppress

from sealane.model.endpoint import Endpoint
from sealane.model.intent import Intent
from sealane.model.net import Address, ParseError, parse_address
from sealane.model.network import preference
from sealane.wire.requests import Attachment, AttachRequest, ContainerRequest, Manifest, PublishRequest


def attach_requests(container: ContainerRequest, intent: Intent) -> list[AttachRequest]:
    """In the order of the request; its published ports go where `_publishing_place` says."""
    outward = _publishing_place(container, intent)
    return [
        _attach_request(container, attachment, container.publish if index == outward else [])
        for index, attachment in enumerate(container.attachments)
    ]


def _publishing_place(container: ContainerRequest, intent: Intent) -> int:
    """The attachment that ports are published on: of those that can publish the one with the default route."""

    def rank(index: int) -> tuple[bool, bool, int, str]:
        attachment = container.attachments[index]
        network = intent.network_named(attachment.network)
        if network is None:
            return True, True, 0, ""
        return not network.can_publish, *preference(network, attachment.gateway_priority)

    return min(range(len(container.attachments)), key=rank, default=0)


def way_in(endpoints: Iterable[Endpoint], intent: Intent) -> Endpoint | None:
    """The endpoint of a sandbox that ports are published on; None if none of its networks can publish."""
    networks = intent.networks
    candidates = [e for e in endpoints if networks[e.network].can_publish]
    return min(candidates, key=lambda e: preference(networks[e.network], e.gateway_priority), default=None)


def _attach_request(
    container: ContainerRequest, attachment: Attachment, publish: list[PublishRequest]
) -> AttachRequest:
    return AttachRequest(
        sandbox=container.name,
        network=attachment.network,
        name=attachment.name or container.name,
        addresses=attachment.addresses,
        mac=attachment.mac,
        ifname=attachment.ifname,
        aliases=attachment.aliases,
        publish=publish,
        gateway_priority=attachment.gateway_priority,
        sysctls=attachment.sysctls,
        dns_servers=container.dns,
    )


def named_addresses(manifest: Manifest) -> Iterator[tuple[str, Address]]:
    """(network, address) of all that a manifest asks for by name. What is no address is found out elsewhere."""
    places = [(a.network, a.addresses) for c in manifest.containers for a in c.attachments]
    places += [(attach.network, attach.addresses) for attach in manifest.attachments]
    for network, addresses in places:
        for text in addresses:
            with suppress(ParseError):
                yield network, parse_address(text.partition("/")[0])
