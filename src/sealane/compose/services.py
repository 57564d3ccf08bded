"""The `services` section: one service from its keys."""

import msgspec

from sealane.compose import unsupported
from sealane.compose.attachments import (
    DEFAULT_NETWORK,
    Published,
    parse_network_mode,
    parse_userns_mode,
    read_networks,
    read_ports,
)
from sealane.compose.context import Context
from sealane.compose.cursor import Cursor, Fields, Pairs, read_pairs
from sealane.compose.duration import parse_duration
from sealane.compose.mounts import read_tmpfs, read_volumes
from sealane.compose.ports import parse_exposed
from sealane.compose.problems import BadValue, shown
from sealane.compose.schema import Attachment, Bind, NetworkMode, RestartPolicy, Service, Tmpfs
from sealane.compose.values import (
    parse_capability,
    parse_container_path,
    parse_dns_name,
    parse_dns_option,
    parse_host_path,
    parse_hostname,
    parse_key,
    parse_mac,
    parse_name,
    parse_search_domain,
    parse_signal,
    parse_sysctl_name,
    parse_sysctl_value,
    parse_unicast,
    parse_user,
)
from sealane.compose.workload import (
    parse_restart,
    read_command,
    read_depends_on,
    read_environment,
    read_healthcheck,
    read_scale,
)
from sealane.model.image import is_image_ref, parse_image_ref
from sealane.model.net import ParseError

HOST_GATEWAY = "host-gateway"
_ROOTFS_PREFIX = "rootfs:"


class ServiceDraft(msgspec.Struct, frozen=True):
    """A service with the places that checks across services report at."""

    service: Service
    cursor: Cursor
    published: Published


class _Connection(msgspec.Struct, frozen=True, kw_only=True):
    mode: NetworkMode | None
    target: str | None
    attachments: tuple[Attachment, ...]
    published: Published


def read_service(cursor: Cursor, context: Context) -> ServiceDraft | None:
    """None if the service has a name by which nothing can refer to it, or is no mapping."""
    name = cursor.parse_key(parse_name)
    fields = Fields(cursor)
    if not cursor.is_mapping:
        return None
    connection = _read_connection(fields)
    replicas, limits = read_scale(fields)
    binds, tmpfs = _read_mounts(fields, context)
    service = Service(
        name=name or "",
        rootfs=_read_rootfs(fields, context),
        command=fields.read("command", read_command, None),
        entrypoint=fields.read("entrypoint", read_command, None),
        environment=read_environment(fields, context),
        labels=fields.read("labels", lambda cursor: read_pairs(cursor, check_key=parse_key), ()),
        container_name=fields.parse("container_name", parse_name, None),
        replicas=replicas,
        limits=limits,
        restart=fields.parse("restart", parse_restart, RestartPolicy()),
        stop_signal=fields.parse("stop_signal", parse_signal, 15),
        stop_grace_period_s=fields.parse("stop_grace_period", parse_duration, 10.0),
        user=fields.parse("user", parse_user, None),
        working_dir=fields.parse("working_dir", parse_container_path, None),
        read_only=fields.flag("read_only", default=False),
        init=fields.flag("init", default=False),
        tty=fields.flag("tty", default=False),
        stdin_open=fields.flag("stdin_open", default=False),
        cap_add=fields.read("cap_add", lambda cursor: cursor.each_text(parse_capability), ()),
        cap_drop=fields.read("cap_drop", lambda cursor: cursor.each_text(parse_capability), ()),
        binds=binds,
        tmpfs=tmpfs,
        depends_on=fields.read("depends_on", read_depends_on, ()),
        healthcheck=fields.read("healthcheck", read_healthcheck, None),
        hostname=fields.parse("hostname", parse_hostname, None),
        domainname=fields.parse("domainname", parse_dns_name, None),
        network_mode=connection.mode,
        network_mode_target=connection.target,
        userns_mode=fields.parse("userns_mode", parse_userns_mode, ""),
        attachments=connection.attachments,
        ports=tuple(spec for _, spec in connection.published),
        expose=fields.read("expose", lambda cursor: cursor.each_text(parse_exposed), ()),
        dns=fields.read("dns", lambda cursor: cursor.each_text(parse_unicast, or_one=True), ()),
        dns_search=fields.read(
            "dns_search", lambda cursor: cursor.each_text(parse_search_domain, or_one=True), ()
        ),
        dns_options=fields.read("dns_opt", lambda cursor: cursor.each_text(parse_dns_option), ()),
        extra_hosts=fields.read("extra_hosts", _read_extra_hosts, ()),
        sysctls=fields.read("sysctls", _read_sysctls, ()),
    )
    _finish(fields, has_image=is_image_ref(service.rootfs))
    return None if name is None else ServiceDraft(service, cursor, connection.published)


def _finish(fields: Fields, *, has_image: bool) -> None:
    for key, (reason, hint) in unsupported.FALSE_ONLY.items():
        cursor = fields.find(key)
        if cursor is not None and cursor.flag():
            cursor.fail(f"{key} is not supported: {reason}", hint)
    if not has_image and fields.find("command") is None and fields.find("entrypoint") is None:
        fields.cursor.fail("no command", "write command: there is no image that could name one")
    fields.finish(unsupported.SERVICE)


def _read_connection(fields: Fields) -> _Connection:
    mode, target = fields.parse("network_mode", parse_network_mode, (None, None))
    attachments = fields.read("networks", read_networks, ())
    published = fields.read("ports", read_ports, ())
    if fields.find("network_mode") is None:
        attachments = _with_mac(fields, attachments or (Attachment(network=DEFAULT_NETWORK),))
        return _Connection(mode=None, target=None, attachments=attachments, published=published)
    # What belongs to a sandbox of one's own has no meaning without one.
    for key in ("networks", "ports", "mac_address"):
        cursor = fields.find(key)
        if cursor is not None:
            cursor.fail(f"{key} together with network_mode", f"remove {key} or network_mode")
    return _Connection(mode=mode, target=target, attachments=(), published=())


def _with_mac(fields: Fields, attachments: tuple[Attachment, ...]) -> tuple[Attachment, ...]:
    """The service's `mac_address` is an old spelling for that of its only attachment."""
    cursor = fields.find("mac_address")
    mac = fields.parse("mac_address", parse_mac, None)
    if cursor is None or mac is None:
        return attachments
    if len(attachments) != 1:
        cursor.fail("mac_address with several networks", "write it under the network it is for")
        return attachments
    if attachments[0].mac_address not in {None, mac}:
        cursor.fail("another mac_address than the network's", "keep one of them")
        return attachments
    return (msgspec.structs.replace(attachments[0], mac_address=mac),)


def _read_rootfs(fields: Fields, context: Context) -> str:
    def parse_rootfs(text: str) -> str:
        if text == "host":
            return text
        return parse_host_path(text, directory=context.directory, home=context.environ.get("HOME"))

    def parse_image(text: str) -> str:
        if text == "host" or (text.startswith(_ROOTFS_PREFIX) and text != _ROOTFS_PREFIX):
            return parse_rootfs(text.removeprefix(_ROOTFS_PREFIX))
        if is_image_ref(text):
            return _parse_image(text, context)
        raise BadValue(
            f"image {shown(text)}: images of registries are not supported",
            "write image: oci:PATH[:TAG] for one that is here, rootfs:DIR for an unpacked one, or host for the host's "
            "own files",
        )

    from_image = fields.parse("image", parse_image, None)
    extension = fields.find("x-sealane")
    if extension is None:
        return from_image or "host"
    inner = Fields(extension)
    from_extension = inner.parse("rootfs", parse_rootfs, None)
    inner.finish()
    if from_image is not None and from_extension is not None and from_image != from_extension:
        extension.at("rootfs").fail("another root than `image` says", "keep one of them")
    return from_extension or from_image or "host"


def _parse_image(text: str, context: Context) -> str:
    try:
        reference = parse_image_ref(text)
    except ParseError as error:
        raise BadValue(str(error), "write oci:PATH[:TAG] or oci-archive:FILE[:TAG]") from error
    home = context.environ.get("HOME")
    path = parse_host_path(reference.path, directory=context.directory, home=home)
    return str(msgspec.structs.replace(reference, path=path))


def _read_mounts(fields: Fields, context: Context) -> tuple[tuple[Bind, ...], tuple[Tmpfs, ...]]:
    volumes = fields.read("volumes", lambda cursor: read_volumes(cursor, context), ())
    tmpfs = fields.read("tmpfs", read_tmpfs, ())
    binds = tuple(mount for mount in volumes if isinstance(mount, Bind))
    tmpfs = (*(mount for mount in volumes if isinstance(mount, Tmpfs)), *tmpfs)
    seen: set[str] = set()
    for target in [bind.target for bind in binds] + [mount.target for mount in tmpfs]:
        if target in seen:
            fields.cursor.at("volumes").fail(f"two mounts on {shown(target)}", "keep one of them")
        seen.add(target)
    return binds, tmpfs


def _read_extra_hosts(cursor: Cursor) -> Pairs:
    """`name:address`, `name=address`, or a mapping to an address or a list of them."""
    if not cursor.is_mapping:
        return cursor.each(lambda item: item.parse(_parse_extra_host))
    hosts: list[tuple[str, str]] = []
    for name, child in cursor.entries().items():
        if child.parse_key(parse_dns_name) is None:
            continue
        hosts += ((name, address) for address in child.each_text(_parse_host_address, or_one=True))
    return tuple(hosts)


def _parse_extra_host(text: str) -> tuple[str, str]:
    separator = "=" if "=" in text else ":"
    name, found, address = text.partition(separator)
    if not found:
        raise BadValue(f"{shown(text)} has no address", "write name=address")
    return parse_dns_name(name), _parse_host_address(address)


def _parse_host_address(text: str) -> str:
    return text if text == HOST_GATEWAY else parse_unicast(text.removeprefix("[").removesuffix("]"))


def _read_sysctls(cursor: Cursor) -> Pairs:
    pairs = read_pairs(cursor, check_key=parse_sysctl_name)
    for name, value in pairs:
        cursor.at(name).parsed(value, parse_sysctl_value)
    return pairs
