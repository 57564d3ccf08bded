"""What the OCI hook asks, and what it is answered: one request for each call of a runtime."""

from typing import Literal

from sealane.wire.base import Request, View
from sealane.wire.views import EndpointView


class OciRequest(Request, frozen=True, kw_only=True):
    """Of the state that the runtime hands to a hook (OCI runtime-spec 1.0.2, "State"), what is needed."""

    stage: Literal["createRuntime", "poststop"]
    id: str
    pid: int = 0
    """createRuntime: the container's first process, as the daemon's /proc has it."""
    annotations: dict[str, str] = {}
    """Those of config.json that begin with `sealane.`."""


class OciView(View, frozen=True, kw_only=True):
    endpoints: list[EndpointView] = []
    """createRuntime: in the order of `sealane.networks`. poststop: those that are gone."""
