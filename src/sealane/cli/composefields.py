"""What the daemon refuses of a compose project, in the file's words: `containers[1].publish[0]` is `services.web.ports[0]`.

The parser finds most that is wrong with a file; what only the daemon knows (who holds a port, which subnets overlap) it
says of requests that were made from the file. Manifests are requests, and need no other words.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sealane.cli.flags import FLAGS, beginnings
from sealane.cli.manifest import PROJECT_LABEL, SERVICE_LABEL
from sealane.client import ApiError
from sealane.compose.load import find_file, read_text
from sealane.compose.problems import ComposeError
from sealane.compose.yaml import Mapping, Node, Sequence, YamlError, read_yaml
from sealane.wire.requests import ContainerRequest, Manifest, NetworkRequest

SERVICE_KEYS = {
    "name": "container_name",
    "network": "networks",
    "network_mode": "network_mode",
    "addresses": "networks",
    "mac": "networks",
    "aliases": "networks",
    "ifname": "networks",
    "gateway_priority": "networks",
    "publish": "ports",
    "dns_servers": "dns",
    "hosts": "extra_hosts",
    "sysctls": "sysctls",
    "labels": "labels",
    "depends_on": "depends_on",
    "spec.command": "command",
    "spec.env": "environment",
    "spec.working_dir": "working_dir",
    "spec.user": "user",
    "spec.rootfs": "image",
    "spec.mounts": "volumes",
    "spec.hostname": "hostname",
    "spec.hosts": "extra_hosts",
    "spec.dns": "dns",
    "spec.cap_add": "cap_add",
    "spec.cap_drop": "cap_drop",
    "spec.limits.memory_bytes": "mem_limit",
    "spec.limits.cpus": "cpus",
    "spec.limits.pids": "pids_limit",
    "spec.restart": "restart",
    "spec.stop_signal": "stop_signal",
    "spec.stop_timeout_s": "stop_grace_period",
    "spec.health.test": "healthcheck.test",
    "spec.health.interval_s": "healthcheck.interval",
    "spec.health.timeout_s": "healthcheck.timeout",
    "spec.health.start_period_s": "healthcheck.start_period",
    "spec.health.retries": "healthcheck.retries",
}
"""A field of `ContainerRequest` or of an attachment that is made from one → its key in a service."""

NETWORK_KEYS = {
    "name": "name",
    "driver": "driver",
    "subnets": "ipam.config",
    "ipv6": "enable_ipv6",
    "internal": "internal",
    "options": "driver_opts",
    "labels": "labels",
}

_PLACE = re.compile(r"(?P<kind>containers|networks)\[(?P<index>[0-9]{1,9})\](?:\.(?P<rest>.*))?", re.DOTALL)
_STEP = re.compile(r"\[([0-9]{1,9})\]|([^.\[\]]+)")


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
    rest = place["rest"] or ""
    found = _key(manifest, place["kind"], int(place["index"]), rest)
    if not found:
        return body
    line = _line(path, found)
    cure = body.get("cure") or next((FLAGS[name][1] for name in beginnings(rest) if name in FLAGS), "")
    return {**body, "field": f"line {line}: {found}" if line else found, "cure": cure}


def _key(manifest: Manifest, kind: str, index: int, rest: str) -> str:
    """Where in the compose file; empty for what was not made from one."""
    made: list[ContainerRequest] | list[NetworkRequest] = (
        manifest.containers if kind == "containers" else manifest.networks
    )
    labels = made[index].labels if index < len(made) else {}
    if kind == "containers":
        owner = f"services.{labels[SERVICE_LABEL]}" if SERVICE_LABEL in labels else ""
        keys = SERVICE_KEYS
    else:
        name = made[index].name.removeprefix(f"{manifest.project}_") if PROJECT_LABEL in labels else ""
        owner, keys = f"networks.{name}" if name else "", NETWORK_KEYS
    if not owner:
        return ""
    field = next((name for name in beginnings(rest) if name in keys), "")
    # The number of a port or a subnet is the file's own; that of an address is not.
    number = re.match(r"\[[0-9]+\]", rest.removeprefix(field)) if field in {"publish", "subnets"} else None
    return f"{owner}.{keys[field]}{number[0] if number else ''}" if field else owner


def _line(path: str, key: str) -> int:
    """Of the key, or of the nearest above it that the file has; 0 if there is none to be read."""
    try:
        node: Node | None = read_yaml(read_text(find_file(path)))
    except (OSError, ValueError, YamlError, ComposeError):
        return 0
    line = 0
    for number, name in _STEP.findall(key):
        if isinstance(node, Mapping) and name:
            entry = next((entry for entry in node.entries if entry[0].text == name), None)
            if entry is None:
                break
            line, node = entry[0].line, entry[1]
        elif isinstance(node, Sequence) and number and int(number) < len(node.items):
            node = node.items[int(number)]
            line = node.line
        else:
            break
    return line
