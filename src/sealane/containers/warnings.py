"""What is to be said of a container before it runs: guards that are not to be had here. Pure."""

from __future__ import annotations

from sealane.containers.capabilities import effective_capabilities
from sealane.containers.host import Host
from sealane.containers.oci import can_open_devices, makes_devices
from sealane.containers.spec import ContainerSpec


def warnings(spec: ContainerSpec, host: Host) -> tuple[str, ...]:
    """Each is a word, a colon and a sentence."""
    found = []
    if not host.facts.seccomp:
        found.append("seccomp-missing: the OCI runtime or kernel has no seccomp")
    if can_open_devices(spec, host.facts) and makes_devices(spec):
        found.append(
            "devices-open: with MKNOD it reads and writes the host's disks, for nothing can deny devices here: "
            f"{host.no_limits}"
        )
    rights = effective_capabilities(spec.cap_add, spec.cap_drop)
    if "CAP_NET_ADMIN" in rights and spec.netns is not None and spec.userns is None:
        found.append(
            "net-admin-outside: without a user namespace NET_ADMIN reaches the host's links: it lists, makes and deletes them"
        )
    return tuple(found)


def ignored_limits(spec: ContainerSpec, host: Host) -> str:
    """Which limit cannot be set, and why; "" if all that are wanted can."""
    if not host.no_limits or spec.limits.is_empty():
        return ""
    field = next(name for name in spec.limits.__struct_fields__ if getattr(spec.limits, name) is not None)
    return f"limits.{field}: cannot be set here: {host.no_limits}"
