"""What the daemon refuses of a compose project, in the file's words: `containers[1].publish[0]` is `services.web.ports[0]`.

The parser finds most that is wrong with a file; what only the daemon knows (who holds a port, which subnets overlap) it
says of requests that were made from the file. Manifests are requests, and need no other words.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sealane.cli.flags import beginnings
from sealane.cli.manifest import PROJECT_LABEL, SERVICE_LABEL
from sealane.client import ApiError
from sealane.compose.load import find_file, read_text
from sealane.compose.problems import ComposeError, Path, render_path
from sealane.compose.yaml import Mapping, Node, Scalar, Sequence, YamlError, read_yaml
from sealane.wire.requests import Manifest

Steps = tuple[str, ...]

SERVICE_KEYS: dict[str, tuple[Steps, ...]] = {
    "name": (("container_name",),),
    "network": (("networks",),),
    "network_mode": (("network_mode",),),
    "userns": (("userns_mode",),),
    "addresses": (("networks",),),
    "mac": (("networks",),),
    "aliases": (("networks",),),
    "ifname": (("networks",),),
    "gateway_priority": (("networks",),),
    "publish": (("ports",),),
    "dns_servers": (("dns",),),
    "hosts": (("extra_hosts",),),
    "sysctls": (("sysctls",),),
    "labels": (("labels",),),
    "depends_on": (("depends_on",),),
    "spec.command": (("command",), ("entrypoint",)),
    "spec.env": (("environment",), ("env_file",)),
    "spec.working_dir": (("working_dir",),),
    "spec.user": (("user",),),
    "spec.rootfs": (("image",),),
    "spec.mounts": (("volumes",), ("tmpfs",)),
    "spec.hostname": (("hostname",), ("domainname",)),
    "spec.hosts": (("extra_hosts",),),
    "spec.dns.nameservers": (("dns",),),
    "spec.dns.search": (("dns_search",),),
    "spec.dns.options": (("dns_opt",),),
    "spec.cap_add": (("cap_add",),),
    "spec.cap_drop": (("cap_drop",),),
    "spec.limits.memory_bytes": (("mem_limit",), ("deploy", "resources", "limits", "memory")),
    "spec.limits.cpus": (("cpus",), ("deploy", "resources", "limits", "cpus")),
    "spec.limits.pids": (("pids_limit",), ("deploy", "resources", "limits", "pids")),
    "spec.restart": (("restart",), ("deploy", "restart_policy")),
    "spec.stop_signal": (("stop_signal",),),
    "spec.stop_timeout_s": (("stop_grace_period",),),
    "spec.health.test": (("healthcheck", "test"),),
    "spec.health.interval_s": (("healthcheck", "interval"),),
    "spec.health.timeout_s": (("healthcheck", "timeout"),),
    "spec.health.start_period_s": (("healthcheck", "start_period"),),
    "spec.health.retries": (("healthcheck", "retries"),),
}
"""A field of `ContainerRequest`, or of an attachment that is made from one → where a service says it: the first of these places
that the file has."""

NETWORK_KEYS: dict[str, tuple[Steps, ...]] = {
    "name": (("name",),),
    "driver": (("driver",),),
    "subnets": (("ipam", "config"),),
    "ipv6": (("enable_ipv6",),),
    "internal": (("internal",),),
    "options": (("driver_opts",),),
    "labels": (("labels",),),
}

_PLACE = re.compile(r"(?P<kind>containers|networks)\[(?P<index>[0-9]{1,9})\](?:\.(?P<rest>.*))?", re.DOTALL)
_NUMBER = re.compile(r"\[([0-9]{1,9})\]")
_NUMBERED = frozenset({"publish", "subnets"})
"""Of these the number is the file's own; that of an address or of a mount is not."""


@contextmanager
def in_the_files_words(manifest: Manifest, path: str) -> Iterator[None]:
    """Refusals inside name service, key and line. `path`: the file, its directory, or `-` for stdin, which has been read."""
    try:
        yield
    except ApiError as error:
        raise ApiError(error.status, as_written(error.body, manifest, path)) from error


def as_written(body: dict[str, Any], manifest: Manifest, path: str) -> dict[str, Any]:
    place = _PLACE.fullmatch(str(body.get("field", "")))
    if place is None:
        return body
    document = _document(path)
    if place["kind"] == "containers":
        owner, keys = _service(manifest, int(place["index"])), SERVICE_KEYS
    else:
        owner, keys = _network(manifest, int(place["index"]), document), NETWORK_KEYS
    if not owner:
        return body
    steps = (*owner, *_key(place["rest"] or "", keys, document, owner))
    line = _line(document, steps)
    where = render_path(steps)
    return {**body, "field": f"line {line}: {where}" if line else where}


def _document(path: str) -> Node | None:
    """None if there is nothing to be read: of stdin, which has been."""
    try:
        return read_yaml(read_text(find_file(path)))
    except (OSError, ValueError, YamlError, ComposeError):
        return None


def _service(manifest: Manifest, index: int) -> Path:
    """Where the file has a container's service; nowhere, if it was not made from one."""
    labels = manifest.containers[index].labels if index < len(manifest.containers) else {}
    return ("services", labels[SERVICE_LABEL]) if SERVICE_LABEL in labels else ()


def _network(manifest: Manifest, index: int, document: Node | None) -> Path:
    if index >= len(manifest.networks) or PROJECT_LABEL not in manifest.networks[index].labels:
        return ()
    name = manifest.networks[index].name
    networks = _below(document, "networks")
    for key, value in networks.entries if isinstance(networks, Mapping) else ():
        own = _below(value, "name")
        if name == (own.text if isinstance(own, Scalar) else f"{manifest.project}_{key.text}"):
            return ("networks", key.text)
    return ("networks", name.removeprefix(f"{manifest.project}_"))


def _key(rest: str, keys: dict[str, tuple[Steps, ...]], document: Node | None, owner: Path) -> Path:
    field = next((name for name in beginnings(rest) if name in keys), "")
    if not field:
        return ()
    there = next((steps for steps in keys[field] if _has(document, (*owner, *steps))), keys[field][0])
    number = _NUMBER.match(rest.removeprefix(field)) if field in _NUMBERED else None
    return (*there, int(number[1])) if number else there


def _has(document: Node | None, steps: Path) -> bool:
    return len(list(_nodes(document, steps))) == len(steps)


def _line(document: Node | None, steps: Path) -> int:
    """Of the last step that the file has; 0 if there is none."""
    return max((line for line, _ in _nodes(document, steps)), default=0)


def _nodes(node: Node | None, steps: Path) -> Iterator[tuple[int, Node]]:
    """Line and value of each step, as far as the file goes."""
    for step in steps:
        if isinstance(node, Mapping):
            entry = next((entry for entry in node.entries if entry[0].text == step), None)
            if entry is None:
                return
            line, node = entry[0].line, entry[1]
        elif isinstance(node, Sequence) and isinstance(step, int) and step < len(node.items):
            node = node.items[step]
            line = node.line
        else:
            return
        yield line, node


def _below(node: Node | None, key: str) -> Node | None:
    return next((value for _, value in _nodes(node, (key,))), None)
