"""What a compose file says, as typed records. Everything is parsed: addresses canonical, durations in seconds.

A record holds what was written. Names that the engine gives (a network's real name, a free port, an address) are not
made up here.
"""

from typing import Literal

import msgspec

from sealane.compose.ports import PortRange, PortSpec
from sealane.model.traits import Driver

Pairs = tuple[tuple[str, str], ...]
"""Keys and values in the file's order, keys unique."""

NetworkMode = Literal["host", "none", "service", "container"]
UsernsMode = Literal["", "private", "host"]
Condition = Literal["service_started", "service_healthy", "service_completed_successfully"]
RestartKind = Literal["no", "always", "on-failure", "unless-stopped"]


class ComposeSubnet(msgspec.Struct, frozen=True, kw_only=True):
    subnet: str
    ip_range: str | None = None
    gateway: str | None = None
    aux_addresses: Pairs = ()


class ComposeNetwork(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    """Its key in the file, which services use."""
    external_name: str | None = None
    """`name:`, the name it has outside the project; None to derive one from the project's."""
    driver: Driver = "bridge"
    driver_opts: Pairs = ()
    """As written; the engine reads them."""
    subnets: tuple[ComposeSubnet, ...] = ()
    internal: bool = False
    enable_ipv4: bool | None = None
    """None if the file does not say, as `enable_ipv6`."""
    enable_ipv6: bool | None = None
    is_external: bool = False
    """It exists already; nothing else in this record is set but the names."""
    attachable: bool = False
    labels: Pairs = ()


class Attachment(msgspec.Struct, frozen=True, kw_only=True):
    network: str
    aliases: tuple[str, ...] = ()
    ipv4_address: str | None = None
    ipv6_address: str | None = None
    mac_address: str | None = None
    priority: int = 0
    """Order in which networks are attached, highest first."""
    gw_priority: int = 0
    """Whose gateway is the default one, highest first."""
    interface_name: str | None = None
    driver_opts: Pairs = ()


class Dependency(msgspec.Struct, frozen=True, kw_only=True):
    service: str
    condition: Condition = "service_started"
    restart: bool = False
    required: bool = True


class Healthcheck(msgspec.Struct, frozen=True, kw_only=True):
    test: tuple[str, ...]
    """`("CMD", argument, …)` or `("CMD-SHELL", text)`."""
    interval_s: float = 30.0
    timeout_s: float = 30.0
    start_period_s: float = 0.0
    retries: int = 3


class RestartPolicy(msgspec.Struct, frozen=True, kw_only=True):
    kind: RestartKind = "no"
    maximum: int | None = None
    """Restarts after failures; None without a bound."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """None is without a limit."""

    cpus: float | None = None
    memory_bytes: int | None = None
    pids: int | None = None


class Bind(msgspec.Struct, frozen=True, kw_only=True):
    source: str
    """Absolute, on the host."""
    target: str
    read_only: bool = False
    create_source: bool = True
    """A missing source becomes a directory."""


class Tmpfs(msgspec.Struct, frozen=True, kw_only=True):
    target: str
    size_bytes: int | None = None
    mode: int | None = None
    read_only: bool = False
    flags: tuple[str, ...] = ()
    """Of noexec, nosuid, nodev."""


class Service(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    rootfs: str = "host"
    """`host` for the host's own files, an absolute directory, or an image: `oci:…` or `oci-archive:…`, its path absolute."""
    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    environment: Pairs = ()
    """`env_file` and `environment` together, with values from outside filled in."""
    labels: Pairs = ()
    container_name: str | None = None
    replicas: int = 1
    limits: Limits = Limits()
    restart: RestartPolicy = RestartPolicy()
    stop_signal: int = 15
    stop_grace_period_s: float = 10.0
    user: str | None = None
    working_dir: str | None = None
    read_only: bool = False
    init: bool = False
    tty: bool = False
    stdin_open: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    binds: tuple[Bind, ...] = ()
    tmpfs: tuple[Tmpfs, ...] = ()
    depends_on: tuple[Dependency, ...] = ()
    healthcheck: Healthcheck | None = None
    """None if there is none or it is disabled."""
    hostname: str | None = None
    domainname: str | None = None
    network_mode: NetworkMode | None = None
    """None: the service has a sandbox of its own with `attachments`."""
    network_mode_target: str | None = None
    """The service or container whose sandbox is shared."""
    userns_mode: UsernsMode = ""
    """Empty: a user namespace of its own where that can be had."""
    attachments: tuple[Attachment, ...] = ()
    ports: tuple[PortSpec, ...] = ()
    expose: tuple[PortRange, ...] = ()
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    extra_hosts: Pairs = ()
    """Name and address, or `host-gateway`; a name may come several times."""
    sysctls: Pairs = ()


class Project(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    networks: tuple[ComposeNetwork, ...]
    """With `default` if a service is attached to it and the file does not define it."""
    services: tuple[Service, ...]
    """In the file's order; `order.waves` gives the order to start them."""
    warnings: tuple[str, ...] = ()
