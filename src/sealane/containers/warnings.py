"""What is to be said of a container before it runs: guards that are not to be had here. Pure."""

from __future__ import annotations

from sealane.containers.host import Host
from sealane.containers.oci import makes_devices
from sealane.containers.spec import ContainerSpec


def warnings(spec: ContainerSpec, host: Host) -> tuple[str, ...]:
    """Each is a word, a colon and a sentence."""
    found = []
    if not host.facts.seccomp:
        found.append("seccomp-missing: the OCI runtime or kernel has no seccomp")
    if host.facts.can_open_devices and makes_devices(spec):
        found.append(
            "devices-open: with MKNOD it reads and writes the host's disks, for nothing can deny devices here: "
            f"{host.no_limits}"
        )
    return tuple(found)


def ignored_limits(spec: ContainerSpec, host: Host) -> str:
    """Which limit cannot be set, and why; "" if all that are wanted can."""
    if not host.no_limits or spec.limits.is_empty():
        return ""
    field = next(name for name in spec.limits.__struct_fields__ if getattr(spec.limits, name) is not None)
    return f"limits.{field}: cannot be set here: {host.no_limits}"
