"""Labels that are sealane's own: by them an integration, a project or a container finds again what it has made, and takes away
what is nobody's any more.

So none may come from elsewhere. An annotation of a pod could else name another engine's container, whose ports would
then be thought published; a sandbox be taken for the rest of a container that never was; a container be one of a project
that does not know it, and go at its next `up`.
"""

from collections.abc import Mapping

import msgspec

from sealane.engine.errors import InvalidError
from sealane.wire.requests import Manifest

RESERVED = "sealane."

PROJECT = "sealane.project"
"""Of networks and containers: the manifest that they belong to."""

SERVICE = "sealane.service"
"""Of containers: the service of a compose file that they are replicas of."""

OWNED_BY = "sealane.container"
"""Of sandboxes: the id of the container that they were made for, and go with."""


def check_labels(labels: Mapping[str, str], field: str = "labels") -> None:
    """Raises InvalidError for one of sealane's own."""
    for key in labels:
        if key.startswith(RESERVED):
            raise InvalidError(
                f"the label {key} is sealane's own: its names begin with {RESERVED!r}",
                field=field,
                hint="choose another name",
            )


def belonging(manifest: Manifest) -> Manifest:
    """With its project as a label of all that can bear it. Raises InvalidError for labels that are not its to give."""
    for number, attachment in enumerate(manifest.attachments):
        check_labels(attachment.labels, f"attachments[{number}].labels")
    own = {PROJECT: manifest.project} if manifest.project else {}

    def labelled(labels: Mapping[str, str], field: str) -> dict[str, str]:
        theirs = {
            key: value
            for key, value in labels.items()
            if not own or (key != SERVICE and (key, value) != (PROJECT, manifest.project))
        }
        check_labels(theirs, field)
        return {**labels, **own}

    return msgspec.structs.replace(
        manifest,
        networks=[
            msgspec.structs.replace(network, labels=labelled(network.labels, f"networks[{number}].labels"))
            for number, network in enumerate(manifest.networks)
        ],
        containers=[
            msgspec.structs.replace(
                container, labels=labelled(container.labels, f"containers[{number}].labels")
            )
            for number, container in enumerate(manifest.containers)
        ],
    )
