"""A container's places on networks as requests to attach: the preview and the deed make the same ones. Pure."""

from sealane.model.intent import Intent
from sealane.wire.requests import Attachment, AttachRequest, ContainerRequest, PublishRequest


def attach_requests(container: ContainerRequest, intent: Intent) -> list[AttachRequest]:
    """In the order of the request; its published ports go where `_publishing_place` says."""
    outward = _publishing_place(container, intent)
    return [
        _attach_request(container, attachment, container.publish if index == outward else [])
        for index, attachment in enumerate(container.attachments)
    ]


def _publishing_place(container: ContainerRequest, intent: Intent) -> int:
    """The attachment that ports are published on: the one that the default route will be through."""

    def rank(index: int) -> tuple[bool, int, str]:
        attachment = container.attachments[index]
        network = intent.network_named(attachment.network)
        name = network.name if network else ""
        return (network is None or network.internal, -attachment.gateway_priority, name)

    return min(range(len(container.attachments)), key=rank, default=0)


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
