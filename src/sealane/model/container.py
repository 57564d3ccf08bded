"""Containers: what `sealane run` and compose files start inside sandboxes."""

import msgspec

from sealane.model.ids import SandboxId


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """A container as asked for. `spec` is the runtime's record (`containers.spec.ContainerSpec`) in JSON: the model
    keeps it whole and does not look inside."""

    id: str
    name: str
    sandbox: SandboxId
    spec: msgspec.Raw
    labels: dict[str, str] = {}
