"""What the daemon refuses of a container, in the words of who typed flags: `spec.limits.pids` is `--pids-limit`."""

import re
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sealane.client import ApiError

Flags = Mapping[str, tuple[tuple[str, ...], str]]
"""A field of a request → the flags or words that set it, and the hint if the daemon names none."""

COMMAND = "COMMAND"
_FAMILY = "publish at an address of a family that the network has; `sealane network create --ipv6` makes one with both"
_DURATION = "write it as 500ms, 10s or 1m30s"
_LABEL = "write KEY=VALUE"
_HOSTNAME = "write letters and digits, and `-`, `.` or `_` between them"

FLAGS: Flags = {
    "name": (("--name",), "choose another name"),
    "network": (("--network",), "see `sealane network ls`"),
    "network_mode": (("--network",), "write a network's name, host, none or container:NAME"),
    "userns": (("--userns",), "write private or host"),
    "addresses": (("--ip", "--ip6", "--network"), "write an address of the network's subnet"),
    "mac": (("--mac-address", "--network"), "write it as 02:42:0a:01:00:02"),
    "aliases": (("--network-alias", "--network"), _HOSTNAME),
    "ifname": (("--network",), "write ifname=eth1"),
    "gateway_priority": (("--network",), "write gw-priority=10"),
    "publish[].host_address": (("--publish",), _FAMILY),
    "publish": (("--publish",), "publish on a network, a port that is free"),
    "dns_servers": (("--dns",), "write an address, as 9.9.9.9"),
    "hosts": (("--add-host",), "write NAME:ADDRESS"),
    "sysctls": (("--sysctl", "--network"), "write a net.* setting, as net.core.somaxconn=1024"),
    "labels": (("--label",), _LABEL),
    "reference": (("--rootfs",), "write oci:PATH[:TAG] or oci-archive:FILE[:TAG]"),
    "command": ((COMMAND,), "name a program that the container has"),
    "spec.command": ((COMMAND,), "name a program that the container has"),
    "spec.env": (("--env",), "write NAME=VALUE"),
    "spec.working_dir": (("--workdir",), "write it from the root, as /srv/app"),
    "spec.user": (("--user",), "write a user that the container's /etc/passwd has, or numbers, as 1000:1000"),
    "spec.rootfs": (("--rootfs",), "name a directory or an image, or write host"),
    "spec.mounts": (("--volume", "--tmpfs"), "mount fewer, or a directory above them"),
    "spec.hostname": (("--hostname", "--name"), _HOSTNAME),
    "spec.hosts": (("--add-host",), "write NAME:ADDRESS"),
    "spec.dns.nameservers": (("--dns",), "write an address, as 9.9.9.9"),
    "spec.dns.search": (("--dns-search",), "write a domain, and the flag again for another"),
    "spec.dns.options": (("--dns-option",), "write an option, and the flag again for another"),
    "spec.cap_add": (("--cap-add",), "write a name of capabilities(7), as NET_ADMIN, or ALL"),
    "spec.cap_drop": (("--cap-drop",), "write a name of capabilities(7), as NET_RAW, or ALL"),
    "spec.limits.memory_bytes": (("--memory",), "write 6m or more; without the flag there is no limit"),
    "spec.limits.cpus": (("--cpus",), "write it as 0.5 or 2; without the flag there is no limit"),
    "spec.limits.pids": (("--pids-limit",), "write a number from 1; without the flag there is no limit"),
    "spec.restart": (("--restart",), "write no, on-failure[:N], always or unless-stopped"),
    "spec.stop_signal": (("--stop-signal",), "write a name or a number of signal(7), as SIGINT"),
    "spec.stop_timeout_s": (("--stop-timeout",), "write seconds, a day at most"),
    "spec.health.test": (("--health-cmd",), "write a line for the container's /bin/sh"),
    "spec.health.interval_s": (("--health-interval",), _DURATION),
    "spec.health.timeout_s": (("--health-timeout",), _DURATION),
    "spec.health.start_period_s": (("--health-start-period",), _DURATION),
    "spec.health.retries": (("--health-retries",), "write a number from 1"),
}
"""Of `ContainerRequest`, `AttachRequest` and `ExecRequest`."""

OF_ATTACH: Flags = {
    "sandbox": (("SANDBOX",), "see `sealane sandbox ls`"),
    "network": (("NETWORK",), "see `sealane network ls`"),
    "name": (("--name",), "choose another name"),
    "addresses": (("--ip",), "write an address of the network's subnet"),
    "mac": (("--mac",), "write it as 02:42:0a:01:00:02"),
    "ifname": (("--ifname",), "write a name of 1 to 15 letters and digits that the sandbox has not"),
    "aliases": (("--alias",), _HOSTNAME),
    "publish[].host_address": (("--publish",), _FAMILY),
    "publish": (("--publish",), "publish on a network, a port that is free"),
    "gateway_priority": (("--gw-priority",), "write a whole number"),
    "ingress": (("--ingress",), "write it as 10mbit"),
    "egress": (("--egress",), "write it as 10mbit"),
    "sysctls": (("--sysctl",), "write a setting of the link, as net.ipv4.conf.IFNAME.rp_filter=1"),
    "labels": (("--label",), _LABEL),
}

OF_NETWORK: Flags = {
    "name": (("NAME",), "choose another name"),
    "driver": (("--driver",), "write bridge, routed, host or none"),
    "subnets[].prefix": (("--subnet",), "write 10.1.0.0/24 or fd00:1::/64"),
    "subnets[].gateway": (("--gateway",), "write an address of the subnet"),
    "subnets[].ip_range": (("--ip-range",), "write a part of the subnet"),
    "subnets[].reserved": (("--aux-address",), "write NAME=ADDRESS, an address of the subnet"),
    "subnets": (("--subnet",), "write 10.1.0.0/24 or fd00:1::/64"),
    "ipv4": (("--ipv4",), ""),
    "ipv6": (("--ipv6",), ""),
    "internal": (("--internal",), "leave one of them out"),
    "options": (("--opt",), "see `sealane network create --help`"),
    "labels": (("--label",), _LABEL),
}

OF_SANDBOX: Flags = {
    "name": (("NAME",), "choose another name"),
    "netns": (("--netns",), "write a path, as /run/netns/lab, or a pid"),
    "labels": (("--label",), _LABEL),
}

_NAMES = "name a sandbox, container or endpoint; see `sealane endpoint ls`"
_ENDS: Flags = {
    "proto": (("--proto",), ""),
    "size": (("--size",), ""),
    "port": (("--port",), ""),
    "count": (("--count",), ""),
    "timeout": (("--timeout",), ""),
}

OF_PACKET: Flags = {
    **_ENDS,
    "source": (("FROM",), _NAMES),
    "target": (("TO",), _NAMES),
}

OF_CHECK: Flags = {
    **_ENDS,
    "source": (("A",), _NAMES),
    "target": (("B",), _NAMES),
}

OF_DOCTOR: Flags = {"subjects": (("SUBJECT",), _NAMES)}

OF_NAMES: Flags = {
    "container": (("CONTAINER",), "see `sealane ps --all`"),
    "network": (("NETWORK",), "see `sealane network ls`"),
    "sandbox": (("SANDBOX",), "see `sealane sandbox ls`"),
    "endpoint": (("ENDPOINT",), "see `sealane endpoint ls`"),
    "image": (("IMAGE",), "see `sealane image ls`"),
}
"""Of commands whose words are names, of one kind."""

VOLUME = ("--volume", "bind what is there, to a target of its own outside /proc and /sys")
TMPFS = ("--tmpfs", "write TARGET[:size=64m,mode=1777], each target once")

_PART = re.compile(r"\.|\[")
_MOUNT = re.compile(r"spec\.mounts\[(\d{1,9})\].*")


def as_typed(body: Mapping[str, Any], arguments: Namespace, words: Flags | None = None) -> dict[str, Any]:
    """An ErrorBody of `run` or `exec`; `words` are those that are no flags. A field that nothing sets stays as it is."""
    field = str(body.get("field", ""))
    flag, hint = _flag(field, arguments)
    if words and field in words:
        (flag, *_), hint = words[field]
    if not flag:
        return dict(body)
    message = str(body.get("message", ""))
    # The runtime's own errors begin with the field.
    path = f"{field.removeprefix('spec.')}: "
    if message.startswith(path):
        message = f"{flag}: {message.removeprefix(path)}"
    return {**body, "field": flag, "message": message, "hint": body.get("hint") or hint}


@contextmanager
def in_flags(flags: Flags) -> Iterator[None]:
    """Refusals inside name the flag of one of the tables above."""
    try:
        yield
    except ApiError as error:
        flag, hint = _found(error.field, flags)
        body = {**error.body, "field": flag[0], "hint": error.hint or hint} if flag[0] else error.body
        raise ApiError(error.status, body) from error


def _flag(field: str, arguments: Namespace) -> tuple[str, str]:
    """With its hint. Of several that set the field, the first that was typed."""
    if mount := _MOUNT.fullmatch(field):
        # Numbered through, volumes first.
        return VOLUME if int(mount[1]) < len(arguments.volume) else TMPFS
    flags, hint = _found(field, FLAGS)
    return next((f for f in flags if getattr(arguments, f[2:].replace("-", "_"), None)), flags[0]), hint


def _found(field: str, flags: Flags) -> tuple[tuple[str, ...], str]:
    """Of the table, by the longest name that fits; numbers are left out in it."""
    plain = re.sub(r"\[[0-9]+\]", "[]", field)
    names = [name for written in (plain, field) for name in beginnings(written)]
    return next((flags[name] for name in names if name in flags), (("",), ""))


def beginnings(field: str) -> list[str]:
    """`a.b[0].c`, `a.b[0]`, `a.b`, `a`."""
    ends = [match.start() for match in _PART.finditer(field)]
    return [field, *(field[:end] for end in reversed(ends))]
