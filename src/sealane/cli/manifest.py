"""Compose projects as manifests. Pure: a project in, requests out, in the names that Docker Compose gives.

| in the file | here |
|---|---|
| network `front` of project `shop` | `shop_front`, or its `name:`; external ones by their own name |
| service `web`, the first of its replicas | container `shop-web-1`, or its `container_name:` |
| names in DNS | the container's, the service's, and the `aliases` |
| belonging | labels `sealane.project` and `sealane.service` |
"""

import signal
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from sealane.cli.options import stated
from sealane.compose import schema
from sealane.compose.publish import publish_request
from sealane.compose.schema import Project, Service
from sealane.model.image import is_image_ref
from sealane.model.traits import MODES
from sealane.wire.requests import (
    ENDPOINT_SYSCTLS,
    Attachment,
    ContainerRequest,
    Manifest,
    NetworkRequest,
    SubnetRequest,
)

PROJECT_LABEL = "sealane.project"
SERVICE_LABEL = "sealane.service"
ENDPOINT_IFNAME = "com.docker.network.endpoint.ifname"

_CONDITIONS: Mapping[str, Literal["started", "healthy", "completed"]] = {
    "service_started": "started",
    "service_healthy": "healthy",
    "service_completed_successfully": "completed",
}


class ManifestError(ValueError):
    """Something that a compose file can say and a manifest cannot. `path` is its place in the file."""

    def __init__(self, path: str, message: str, hint: str) -> None:
        super().__init__(f"{path}: {message}; {hint}")
        self.path = path
        self.message = message
        self.hint = hint


def manifest_of(project: Project) -> Manifest:
    """Raises ManifestError. Containers are in the file's order; the daemon starts them by their `depends_on`."""
    networks = {network.name: network for network in project.networks}
    services = {service.name: service for service in project.services}
    return Manifest(
        project=project.name,
        networks=[
            _network(project, network)
            for network in project.networks
            if not network.is_external and network.driver not in MODES
        ],
        containers=[
            _container(project, service, number, networks, services)
            for service in project.services
            for number in range(1, service.replicas + 1)
        ],
    )


def network_name(project: Project, network: schema.ComposeNetwork) -> str:
    if network.is_external:
        return network.external_name or network.name
    return network.external_name or f"{project.name}_{network.name}"


def container_names(project: Project, service: Service) -> list[str]:
    """Of all replicas, in their order."""
    if service.container_name is not None:
        return [service.container_name]
    return [f"{project.name}-{service.name}-{number}" for number in range(1, service.replicas + 1)]


def missing_sources(project: Project) -> list[str]:
    """Folders on the host that `up` makes if they are missing, as Compose does."""
    binds = [bind for service in project.services for bind in service.binds if bind.create_source]
    return sorted({bind.source for bind in binds})


def _network(project: Project, network: schema.ComposeNetwork) -> NetworkRequest:
    subnets = [
        SubnetRequest(
            prefix=subnet.subnet,
            gateway=subnet.gateway or "",
            ip_range=subnet.ip_range or "",
            reserved=dict(subnet.aux_addresses),
        )
        for subnet in network.subnets
    ]
    return NetworkRequest(
        name=network_name(project, network),
        driver=network.driver,
        subnets=subnets,
        ipv4=network.enable_ipv4 is not False,
        ipv6=bool(network.enable_ipv6),
        internal=network.internal,
        options=dict(network.driver_opts),
        labels={**dict(network.labels), PROJECT_LABEL: project.name},
    )


def _container(
    project: Project,
    service: Service,
    number: int,
    networks: Mapping[str, schema.ComposeNetwork],
    services: Mapping[str, Service],
) -> ContainerRequest:
    name = container_names(project, service)[number - 1]
    mode = _network_mode(project, service, networks, services)
    return ContainerRequest(
        name=name,
        spec=msgspec.Raw(msgspec.json.encode(_spec(service))),
        attachments=[] if mode else _attachments(project, service, networks),
        network_mode=mode,
        userns=service.userns_mode,
        publish=[publish_request(spec) for spec in service.ports],
        dns=list(service.dns),
        dns_search=list(service.dns_search),
        dns_options=list(service.dns_options),
        hosts=_hosts(service),
        sysctls=dict(service.sysctls),
        labels={**dict(service.labels), PROJECT_LABEL: project.name, SERVICE_LABEL: service.name},
        depends_on=_depends_on(project, service, services),
    )


def _network_mode(
    project: Project,
    service: Service,
    networks: Mapping[str, schema.ComposeNetwork],
    services: Mapping[str, Service],
) -> str:
    target = service.network_mode_target
    if service.network_mode == "service" and target is not None:
        return f"container:{container_names(project, services[target])[0]}"
    if service.network_mode == "container":
        return f"container:{target}"
    if service.network_mode is not None:
        return service.network_mode
    # A network of these drivers has no endpoints: to be on it is a mode, and the parser lets none stand beside it.
    drivers = [networks[attachment.network].driver for attachment in service.attachments]
    return next((driver for driver in drivers if driver in MODES), "")


def _attachments(
    project: Project, service: Service, networks: Mapping[str, schema.ComposeNetwork]
) -> list[Attachment]:
    """By priority, highest first; among equals those with a way out first, so that eth0 has it."""
    ordered = sorted(service.attachments, key=lambda a: (-a.priority, networks[a.network].internal))
    return [_attachment(project, service, attachment, networks[attachment.network]) for attachment in ordered]


def _attachment(
    project: Project, service: Service, attachment: schema.Attachment, network: schema.ComposeNetwork
) -> Attachment:
    options = dict(attachment.driver_opts)
    sysctls = options.pop(ENDPOINT_SYSCTLS, "")
    ifname = options.pop(ENDPOINT_IFNAME, "")
    path = f"services.{service.name}.networks.{attachment.network}.driver_opts"
    if options:
        raise ManifestError(path, f"there is no endpoint option {next(iter(options))!r}", "remove it")
    pairs = [pair.partition("=") for pair in sysctls.split(",")] if sysctls else []
    return Attachment(
        network=network_name(project, network),
        addresses=[a for a in (attachment.ipv4_address, attachment.ipv6_address) if a is not None],
        mac=attachment.mac_address or "",
        ifname=attachment.interface_name or ifname,
        aliases=list(dict.fromkeys((service.name, *attachment.aliases))),
        gateway_priority=attachment.gw_priority,
        sysctls={key: value for key, _, value in pairs},
    )


def _hosts(service: Service) -> dict[str, str]:
    hosts: dict[str, str] = {}
    for name, address in service.extra_hosts:
        if hosts.get(name, address) != address:
            path = f"services.{service.name}.extra_hosts"
            raise ManifestError(path, f"two addresses for {name!r}", "keep one of them")
        hosts[name] = address
    return hosts


def _depends_on(
    project: Project, service: Service, services: Mapping[str, Service]
) -> dict[str, Literal["started", "healthy", "completed"]]:
    """On every replica. A service that is not required and not there is not waited for; the parser warned."""
    return {
        name: _CONDITIONS[dependency.condition]
        for dependency in service.depends_on
        if dependency.service in services
        for name in container_names(project, services[dependency.service])
    }


def _spec(service: Service) -> dict[str, Any]:
    """Fields of containers.spec.ContainerSpec that are not its defaults."""
    is_image = is_image_ref(service.rootfs)
    spec: dict[str, Any] = {
        "command": [*(() if is_image else service.entrypoint or ()), *(service.command or ())],
        "env": dict(service.environment),
        "labels": dict(service.labels),
        "rootfs": service.rootfs,
        "working_dir": service.working_dir,
        "user": service.user,
        "read_only": service.read_only,
        "init": service.init,
        "tty": service.tty,
        "stdin_open": service.stdin_open,
        "hostname": _hostname(service),
        "cap_add": list(service.cap_add),
        "cap_drop": list(service.cap_drop),
        "limits": {
            name: value
            for name in service.limits.__struct_fields__
            if (value := getattr(service.limits, name)) is not None
        },
        "mounts": [*map(_bind, service.binds), *(_tmpfs(service, mount) for mount in service.tmpfs)],
        "restart": _restart(service.restart),
        "stop_signal": str(service.stop_signal),
        "stop_timeout_s": service.stop_grace_period_s,
        "health": _health(service.healthcheck),
    }
    given = stated(spec)
    if is_image and service.stop_signal == signal.SIGTERM:
        # The default, before which the image's own goes.
        del given["stop_signal"]
    if is_image and service.entrypoint is not None:
        # An empty one says something, too: the image's is left out.
        given["entrypoint"] = list(service.entrypoint)
    return given


def _hostname(service: Service) -> str:
    if service.hostname and service.domainname:
        return f"{service.hostname}.{service.domainname}"
    return service.hostname or ""


def _restart(policy: schema.RestartPolicy) -> str:
    return policy.kind if policy.maximum is None else f"{policy.kind}:{policy.maximum}"


def _health(check: schema.Healthcheck | None) -> dict[str, Any] | None:
    return None if check is None else msgspec.structs.asdict(check)


def _bind(bind: schema.Bind) -> dict[str, Any]:
    return {"type": "bind", "source": bind.source, "target": bind.target, "read_only": bind.read_only}


def _tmpfs(service: Service, mount: schema.Tmpfs) -> dict[str, Any]:
    """nosuid and nodev are always on."""
    path = f"services.{service.name}.tmpfs"
    if mount.read_only or "noexec" in mount.flags:
        flag = "ro" if mount.read_only else "noexec"
        raise ManifestError(path, f"{flag} on {mount.target} is not supported", "remove it")
    given = {"type": "tmpfs", "target": mount.target, "size_bytes": mount.size_bytes, "mode": mount.mode}
    return {key: value for key, value in given.items() if value is not None}
