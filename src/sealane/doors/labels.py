"""Labels that are the doors' own: by them a door finds again what it has made, and takes away what is nobody's.

So none may come from elsewhere. An annotation of a pod could else name another engine's container, whose ports would
then be thought published, or a network be taken for podman's, and go with its last container.
"""

from collections.abc import Mapping

from sealane.engine.errors import InvalidError

RESERVED = ("sealane.cni.", "sealane.oci.", "sealane.podman.")


def check_labels(labels: Mapping[str, str], field: str = "labels") -> None:
    """Raises InvalidError for one of the doors' own."""
    for key in labels:
        if key.startswith(RESERVED):
            raise InvalidError(
                f"the label {key} is for {key.split('.')[1]}'s door alone to give",
                field=field,
                cure="choose another name",
            )
