"""`sealane run`'s flags as a container request, with the grammar of compose files wherever there is one."""

import argparse
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from sealane.cli.context import Context, UsageError
from sealane.cli.envfile import parse_env_lines
from sealane.cli.options import (
    add_labels,
    add_publish,
    add_sysctls,
    integer,
    pairs,
    parsed,
    seconds,
    stated,
)
from sealane.cli.publish import publish_requests
from sealane.compose.context import Context as ComposeContext
from sealane.compose.duration import parse_duration
from sealane.compose.load import read_text
from sealane.compose.mounts import parse_bind, parse_tmpfs
from sealane.compose.sizes import parse_cpus, parse_size
from sealane.compose.values import parse_host_path
from sealane.model.image import digest_of_root, is_image_ref
from sealane.model.traits import MODES
from sealane.wire.requests import ENDPOINT_SYSCTLS, Attachment, ContainerRequest

HOST_ROOT = "host"
"""The root file system of a container that is given none: the host's own, read-only."""
DEFAULT_NETWORK = "default"
"""Joined without --network, and made if it is not there."""
UNLIMITED = -1
"""Docker's word for it, of processes."""

T = TypeVar("T")
_NETWORK_KEYS = ("name", "alias", "ip", "ip6", "mac-address", "gw-priority", "ifname", "driver-opt")
_SHARED = "container:"
USERNS = ("private", "host")


def add_container_flags(parser: argparse.ArgumentParser) -> None:
    _add_network_flags(parser.add_argument_group("network"))
    _add_process_flags(parser.add_argument_group("process"))
    _add_health_flags(parser.add_argument_group("health"))
    add_publish(parser)
    add_sysctls(parser, "a net.* setting of the container's network")
    add_labels(parser)


def _add_network_flags(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--network",
        "--net",
        metavar="NETWORK",
        action="append",
        default=[],
        help="a network, or name=NETWORK,alias=…,ip=…,ip6=…,mac-address=…,gw-priority=…,ifname=…; or host, none, "
        f"container:NAME. May be given several times (default: {DEFAULT_NETWORK!r}, made if it is not there)",
    )
    _many(group, "--network-alias", "NAME", "another name on every network")
    group.add_argument("--ip", metavar="ADDRESS", help="a static IPv4 address on the only network")
    group.add_argument("--ip6", metavar="ADDRESS", help="a static IPv6 address on the only network")
    group.add_argument("--mac-address", metavar="MAC", help="a static MAC address on the only network")
    _many(group, "--dns", "ADDRESS", "a resolver for names that are not ours")
    _many(group, "--dns-search", "DOMAIN", "a search domain")
    _many(group, "--dns-option", "OPTION", "a resolver option, see resolv.conf(5)")
    _many(group, "--add-host", "NAME:ADDRESS", "a line in /etc/hosts; host-gateway stands for the host")


def _add_process_flags(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--rootfs",
        metavar="DIR",
        default=HOST_ROOT,
        help="a directory; an image, oci:PATH[:TAG] or oci-archive:FILE[:TAG], unpacked once; or host: the host's programs, "
        "read-only (default: host)",
    )
    group.add_argument(
        "--entrypoint",
        metavar="PROGRAM",
        help="instead of the image's, whose arguments are left out then; COMMAND are its arguments",
    )
    group.add_argument("--read-only", action="store_true", help="mount the root file system read-only")
    _many(group, ("-v", "--volume"), "SOURCE:TARGET[:ro]", "bind a file or directory of the host")
    _many(group, "--tmpfs", "TARGET[:size=64m,mode=1777]", "a directory in memory")
    _many(group, ("-e", "--env"), "NAME[=VALUE]", "a variable; without a value, this command's own")
    _many(group, "--env-file", "FILE", "variables from a file")
    group.add_argument("-w", "--workdir", metavar="DIR", default="", help="(default: /)")
    group.add_argument("-u", "--user", default="", help="a name or number, with :GROUP if need be")
    group.add_argument("--hostname", default="", help="(default: the container's name)")
    group.add_argument("--init", action="store_true", help="reap orphans with a small first process")
    group.add_argument(
        "--userns",
        choices=USERNS,
        default="",
        help="private: ids of its own, which are nobody's outside; host: the daemon's (default: private where it can be "
        "had)",
    )
    _many(group, "--cap-add", "CAPABILITY", "give a right that is not in the default set")
    _many(group, "--cap-drop", "CAPABILITY", "take a right away; ALL takes all")
    group.add_argument("-m", "--memory", metavar="SIZE", help="as 512m or 2g")
    group.add_argument("--cpus", metavar="N", help="as 0.5")
    group.add_argument(
        "--pids-limit", metavar="N", type=integer, help="processes and threads at once; -1: no limit"
    )
    group.add_argument(
        "--restart",
        metavar="POLICY",
        default="no",
        help="no, on-failure[:N], always or unless-stopped (default: no)",
    )
    group.add_argument("--stop-signal", metavar="SIGNAL", default="", help="(default: SIGTERM)")
    group.add_argument("--stop-timeout", metavar="SECONDS", type=seconds, help="before SIGKILL (default: 10)")


def _add_health_flags(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--health-cmd", metavar="LINE", help="a shell command that succeeds while all is well")
    group.add_argument("--health-interval", metavar="DURATION", help="between checks (default: 30s)")
    group.add_argument("--health-timeout", metavar="DURATION", help="timeout per check (default: 30s)")
    group.add_argument(
        "--health-retries", metavar="N", type=integer, help="failures until unhealthy (default: 3)"
    )
    group.add_argument("--health-start-period", metavar="DURATION", help="startup grace period (default: 0s)")


def _many(
    group: "argparse._ArgumentGroup", flags: str | tuple[str, str], metavar: str, help_text: str
) -> None:
    names = (flags,) if isinstance(flags, str) else flags
    group.add_argument(
        *names, metavar=metavar, action="append", default=[], help=f"{help_text}; may be given several times"
    )


def container_request(
    context: Context, arguments: argparse.Namespace, name: str, command: Sequence[str]
) -> ContainerRequest:
    """Raises UsageError."""
    mode, attachments = _networks(arguments)
    return ContainerRequest(
        name=name,
        spec=msgspec.Raw(msgspec.json.encode(_spec(context, arguments, command))),
        attachments=attachments,
        network_mode=mode,
        userns=arguments.userns,
        publish=publish_requests(arguments.publish),
        dns=arguments.dns,
        dns_search=arguments.dns_search,
        dns_options=arguments.dns_option,
        hosts=dict(_host(text) for text in arguments.add_host),
        sysctls=pairs(arguments.sysctl, "--sysctl"),
        labels=pairs(arguments.label, "--label"),
        auto_remove=arguments.rm,
    )


# --- networks


def _networks(arguments: argparse.Namespace) -> tuple[str, list[Attachment]]:
    texts: list[str] = arguments.network or [DEFAULT_NETWORK]
    modes = [text for text in texts if text in MODES or text.startswith(_SHARED)]
    statics = {"ip": arguments.ip, "ip6": arguments.ip6, "mac-address": arguments.mac_address}
    if modes:
        if len(texts) > 1 or arguments.network_alias or any(statics.values()):
            raise UsageError(
                f"{modes[0]} excludes other networks, aliases and addresses",
                field="--network",
                hint="give it alone",
            )
        return modes[0], []
    if any(statics.values()) and len(texts) > 1:
        key = next(key for key, value in statics.items() if value)
        raise UsageError(
            "an address for several networks",
            field=f"--{key}",
            hint=f"write --network name=NETWORK,{key}=ADDRESS",
        )
    attachments = [_attachment(text, arguments.network_alias, statics) for text in texts]
    names = [attachment.network for attachment in attachments]
    if len(set(names)) < len(names):
        raise UsageError("a network is given twice", field="--network", hint="keep one of them")
    return "", attachments


def _attachment(text: str, aliases: list[str], statics: dict[str, str | None]) -> Attachment:
    given: dict[str, list[str]] = {key: [value] for key, value in statics.items() if value}
    if "=" not in text:
        given["name"] = [text]
    for word in text.split(",") if "=" in text else ():
        key, _, value = word.partition("=")
        if key not in _NETWORK_KEYS or not value:
            hint = f"write {'=…,'.join(_NETWORK_KEYS)}=…"
            raise UsageError(f"{word!r} says nothing about a network", field="--network", hint=hint)
        given.setdefault(key, []).append(value)
    doubled = [key for key, values in given.items() if len(values) > 1 and key not in {"alias", "driver-opt"}]
    if doubled or "name" not in given:
        what = f"{doubled[0]} is given twice" if doubled else f"{text!r} has no name"
        raise UsageError(what, field="--network", hint="write name=NETWORK and each part once")

    def one(key: str) -> str:
        return given.get(key, [""])[0]

    return Attachment(
        network=one("name"),
        addresses=[address for address in (one("ip"), one("ip6")) if address],
        mac=one("mac-address"),
        ifname=one("ifname"),
        aliases=[*given.get("alias", []), *aliases],
        gateway_priority=_integer(one("gw-priority") or "0"),
        sysctls=dict(_endpoint_sysctl(option) for option in given.get("driver-opt", [])),
    )


def _endpoint_sysctl(option: str) -> tuple[str, str]:
    """Docker's only endpoint option that is no flag here. A comma would end the option: one sysctl each."""
    name, _, rest = option.partition("=")
    key, equals, value = rest.partition("=")
    if name != ENDPOINT_SYSCTLS or not equals:
        raise UsageError(
            f"there is no endpoint option {option!r}",
            field="--network",
            hint=f"write driver-opt={ENDPOINT_SYSCTLS}=KEY=VALUE",
        )
    return key, value


def _integer(text: str) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 10):
        raise UsageError(f"{text!r} is not a number", field="--network", hint="write gw-priority=10")
    return int(text)


def _host(text: str) -> tuple[str, str]:
    separator = "=" if "=" in text else ":"
    name, found, address = text.partition(separator)
    if not (name and found and address):
        raise UsageError(f"{text!r} has no name or address", field="--add-host", hint="write NAME:ADDRESS")
    return name, address.removeprefix("[").removesuffix("]")


# --- the process


def _spec(context: Context, arguments: argparse.Namespace, command: Sequence[str]) -> dict[str, Any]:
    """Fields of containers.spec.ContainerSpec that are given."""
    place = ComposeContext(environ=context.environ, directory=os.getcwd(), read_file=None)
    rootfs = _rootfs(arguments.rootfs, place)
    entrypoint = [] if not arguments.entrypoint else [arguments.entrypoint]
    is_image = is_image_ref(rootfs) or digest_of_root(rootfs) is not None
    spec: dict[str, Any] = {
        "command": [*([] if is_image else entrypoint), *command],
        "env": _environment(context, arguments),
        "rootfs": rootfs,
        "read_only": arguments.read_only,
        "mounts": [*(_bind(text, place) for text in arguments.volume), *map(_tmpfs, arguments.tmpfs)],
        "working_dir": arguments.workdir,
        "user": arguments.user,
        "hostname": arguments.hostname,
        "init": arguments.init,
        "cap_add": arguments.cap_add,
        "cap_drop": arguments.cap_drop,
        "limits": _given(
            memory_bytes=_maybe(parse_size, arguments.memory, "--memory"),
            cpus=_maybe(parse_cpus, arguments.cpus, "--cpus"),
            pids=None if arguments.pids_limit == UNLIMITED else arguments.pids_limit,
        ),
        "tty": arguments.tty,
        "stdin_open": arguments.interactive,
        "restart": arguments.restart,
        "stop_signal": arguments.stop_signal,
        "stop_timeout_s": arguments.stop_timeout,
        "labels": pairs(arguments.label, "--label"),
        "health": _health(arguments),
    }
    given = stated(spec)
    if is_image and arguments.entrypoint is not None:
        # An empty one says something, too: the image's is left out.
        given["entrypoint"] = entrypoint
    return given


def _given(**fields: object) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None}


def _maybe(parse: Callable[[str], T], text: str | None, flag: str) -> T | None:
    return None if text is None else parsed(parse, text, flag)


def _environment(context: Context, arguments: argparse.Namespace) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in arguments.env_file:
        try:
            text = read_text(path)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise UsageError(
                f"{path} cannot be read: {why}", field="--env-file", hint="name a readable text file"
            ) from error
        found |= parse_env_lines(text, context.environ, path)
    from sealane.cli.commands.exec import environment

    return found | environment(context, arguments.env)


def _rootfs(text: str, place: ComposeContext) -> str:
    if text == "host" or is_image_ref(text) or digest_of_root(text) is not None:
        return text
    home = place.environ.get("HOME")
    return parsed(
        lambda given: parse_host_path(given, directory=place.directory, home=home), text, "--rootfs"
    )


def _bind(text: str, place: ComposeContext) -> dict[str, Any]:
    bind = parsed(lambda given: parse_bind(given, place), text, "--volume")
    return {"type": "bind", "source": bind.source, "target": bind.target, "read_only": bind.read_only}


def _tmpfs(text: str) -> dict[str, Any]:
    mount = parsed(parse_tmpfs, text, "--tmpfs")
    if mount.read_only or "noexec" in mount.flags:
        raise UsageError(f"{text!r}: ro and noexec are not supported", field="--tmpfs", hint="leave them out")
    return {"type": "tmpfs", "target": mount.target} | _given(size_bytes=mount.size_bytes, mode=mount.mode)


def _health(arguments: argparse.Namespace) -> dict[str, Any] | None:
    details = _given(
        interval_s=_maybe(parse_duration, arguments.health_interval, "--health-interval"),
        timeout_s=_maybe(parse_duration, arguments.health_timeout, "--health-timeout"),
        start_period_s=_maybe(parse_duration, arguments.health_start_period, "--health-start-period"),
        retries=arguments.health_retries,
    )
    if arguments.health_cmd is None:
        if details:
            raise UsageError(
                "a health check without a command", field="--health-cmd", hint="give --health-cmd"
            )
        return None
    return {"test": ["CMD-SHELL", arguments.health_cmd], **details}
