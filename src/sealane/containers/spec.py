"""What a container is to be: the record and its checks. Pure; `oci.py` turns it into the runtime's configuration."""

from __future__ import annotations

import ipaddress
import posixpath
import re

import msgspec

from sealane.containers.capabilities import effective_capabilities
from sealane.containers.errors import SpecError
from sealane.containers.health import HealthCheck, check_health
from sealane.model.image import digest_of_root
from sealane.model.signals import signal_number

HOST_ROOTFS = "host"
MAX_NAME_CHARS = 128
MAX_WORDS = 4096
MAX_WORD_BYTES = 128 * 1024  # MAX_ARG_STRLEN: execve(2) refuses longer single strings.
MAX_MOUNTS = 256
MAX_LABELS = 512
MAX_HOSTS = 10_000
MAX_NAMESERVERS = 16
MAX_STOP_TIMEOUT_S = 86400.0
MAX_RESTARTS = 1_000_000
MIN_MEMORY_BYTES = 6 * 1024 * 1024  # Docker's: below it runc's own init does not fit.
MAX_CPUS = 8192.0
MIN_CPUS = 0.01  # A quota below 1 ms of a 100 ms period is refused by the kernel (cpu.cfs_quota_us).
MAX_PIDS = 4_194_304  # PID_MAX_LIMIT on 64 bits.

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?")
_ENV_NAME = re.compile(r"[^=\0]+")
_NET_SYSCTL = re.compile(r"net\.[A-Za-z0-9_./-]+")
_RESTART = re.compile(r"no|always|unless-stopped|on-failure(:[0-9]{1,7})?")


class Bind(msgspec.Struct, frozen=True, kw_only=True, tag="bind", forbid_unknown_fields=True):
    """A file or folder of the host in the container, submounts included; read-only then means all of them."""

    source: str
    target: str
    read_only: bool = False


class Tmpfs(msgspec.Struct, frozen=True, kw_only=True, tag="tmpfs", forbid_unknown_fields=True):
    """An empty folder in memory. Its pages count towards the container's memory limit.

    `mode` is for a target that does not exist yet; runc before 1.2 keeps an existing folder's own.
    """

    target: str
    size_bytes: int = 64 * 1024 * 1024
    mode: int = 0o1777


Mount = Bind | Tmpfs


class Dns(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The lines of /etc/resolv.conf, see resolv.conf(5)."""

    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """None is no limit. `cpus` is in processors: 1.5 is one and a half."""

    memory_bytes: int | None = None
    cpus: float | None = None
    pids: int | None = None

    def is_empty(self) -> bool:
        return self.memory_bytes is None and self.cpus is None and self.pids is None


class ContainerSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that is wanted of a container.

    `rootfs` is "host" (the host's programs, read-only, copies of what is public of its /etc, and private /tmp, /run, /root,
    /home, /var/tmp and /var/log: `rootfs.py`), the absolute path of a folder, used read-write unless `read_only`, or `image:sha256:DIGEST` of an image
    that is unpacked here, under a writable layer of the container's own.
    `netns` is the path of the sandbox's pinned network namespace; None is the host's. `userns` is that of the user namespace
    that owns it (`model.idmap` says with which ids); None is the daemon's own.
    `hosts` are whole extra lines of /etc/hosts.
    `sysctls` belong to the sandbox: the engine applies them there, this package only refuses those it could not.
    """

    id: str
    name: str
    command: tuple[str, ...]
    env: dict[str, str] = {}
    working_dir: str = "/"
    user: str = ""
    rootfs: str = HOST_ROOTFS
    read_only: bool = False
    mounts: tuple[Mount, ...] = ()
    hostname: str = ""
    netns: str | None = None
    userns: str | None = None
    hosts: tuple[str, ...] = ()
    dns: Dns = Dns()
    sysctls: dict[str, str] = {}
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    limits: Limits = Limits()
    restart: str = "no"
    tty: bool = False
    """Its streams are a terminal."""
    stdin_open: bool = False
    """Its input is open even while nobody is there."""
    stop_signal: str = "SIGTERM"
    stop_timeout_s: float = 10.0
    labels: dict[str, str] = {}
    health: HealthCheck | None = None
    init: bool = False

    @property
    def restart_policy(self) -> tuple[str, int]:
        """The policy's name and the most restarts of `on-failure` (0: without end)."""
        name, _, most = self.restart.partition(":")
        return name, int(most or "0")

    @property
    def effective_hostname(self) -> str:
        return self.hostname or self.id[:12]


def is_id(text: str) -> bool:
    """Whether a text can be a container's id: it names folders and control groups."""
    return _ID.fullmatch(text) is not None


def check_spec(spec: ContainerSpec) -> None:
    """Refuse a spec that could not be run as written; SpecError names the field. Looks at nothing outside."""
    if not is_id(spec.id):
        raise SpecError(
            "id", f"{spec.id!r} is not 1 to 64 letters, digits, '_', '.', '-' starting with no punctuation"
        )
    if not 0 < len(spec.name) <= MAX_NAME_CHARS:
        raise SpecError("name", f"1 to {MAX_NAME_CHARS} characters, not {len(spec.name)}")
    _check_process(spec)
    _check_files(spec)
    _check_names(spec)
    _check_behaviour(spec)
    check_limits(spec.limits)
    effective_capabilities(spec.cap_add, spec.cap_drop)


def check_command(command: tuple[str, ...], field: str = "command") -> None:
    if not command or not command[0]:
        raise SpecError(field, "is empty")
    if len(command) > MAX_WORDS:
        raise SpecError(field, f"has {len(command)} words, at most {MAX_WORDS} are taken")
    for word in command:
        check_text(field, word)


def check_env(env: dict[str, str], field: str = "env") -> None:
    if len(env) > MAX_WORDS:
        raise SpecError(field, f"has {len(env)} entries, at most {MAX_WORDS} are taken")
    for name, value in env.items():
        if not _ENV_NAME.fullmatch(name):
            raise SpecError(field, f"{name!r} is no name of an environment variable")
        check_text(f"{field}.{name}", value)


def check_text(field: str, text: str) -> None:
    if "\0" in text:
        raise SpecError(field, "holds a zero byte")
    if len(text.encode()) >= MAX_WORD_BYTES:
        raise SpecError(field, f"is longer than the kernel takes ({MAX_WORD_BYTES} bytes)")


def check_path(field: str, path: str) -> None:
    """An absolute path in its shortest spelling, so that two spellings of one place cannot differ."""
    check_text(field, path)
    if not path.startswith("/") or posixpath.normpath(path) != path or path.startswith("//"):
        raise SpecError(
            field, f"{path!r} is not an absolute path without '.', '..' and doubled or closing slashes"
        )


def check_limits(limits: Limits) -> None:
    memory, cpus, pids = limits.memory_bytes, limits.cpus, limits.pids
    if memory is not None and memory < MIN_MEMORY_BYTES:
        raise SpecError("limits.memory_bytes", f"{memory} is less than {MIN_MEMORY_BYTES}")
    if cpus is not None and not MIN_CPUS <= cpus <= MAX_CPUS:
        raise SpecError("limits.cpus", f"{cpus} is not within {MIN_CPUS}..{MAX_CPUS}")
    if pids is not None and not 1 <= pids <= MAX_PIDS:
        raise SpecError("limits.pids", f"{pids} is not within 1..{MAX_PIDS}")


def parse_signal(name: str, field: str = "stop_signal") -> int:
    number = signal_number(name)
    if number is None:
        raise SpecError(field, f"there is no signal {name!r}")
    return number


def _check_process(spec: ContainerSpec) -> None:
    check_command(spec.command)
    check_env(spec.env)
    check_path("working_dir", spec.working_dir)
    check_text("user", spec.user)


def _check_files(spec: ContainerSpec) -> None:
    if spec.rootfs != HOST_ROOTFS and digest_of_root(spec.rootfs) is None:
        check_path("rootfs", spec.rootfs)
        if spec.rootfs == "/":
            raise SpecError(
                "rootfs", f'is "/"; write "{HOST_ROOTFS}" for the host\'s root file system read-only'
            )
    if spec.netns is not None:
        check_path("netns", spec.netns)
    if spec.userns is not None:
        check_path("userns", spec.userns)
        if spec.netns is None:
            raise SpecError(
                "userns", "with the host's network a container has none: /sys cannot be mounted in it"
            )
    if len(spec.mounts) > MAX_MOUNTS:
        raise SpecError("mounts", f"has {len(spec.mounts)} entries, at most {MAX_MOUNTS} are taken")
    targets: set[str] = set()
    for number, mount in enumerate(spec.mounts):
        field = f"mounts[{number}]"
        _check_target(f"{field}.target", mount.target)
        if mount.target in targets:
            raise SpecError(f"{field}.target", f"{mount.target} is mounted twice")
        targets.add(mount.target)
        if isinstance(mount, Bind):
            check_path(f"{field}.source", mount.source)
        elif mount.size_bytes < 4096 or not 0 <= mount.mode <= 0o1777:
            raise SpecError(field, "a tmpfs has at least 4096 bytes and a mode of at most 1777")


def _check_target(field: str, target: str) -> None:
    check_path(field, target)
    if target == "/" or any(target == top or target.startswith(f"{top}/") for top in ("/proc", "/sys")):
        raise SpecError(field, f"{target} belongs to the kernel's view of the container")


def _check_names(spec: ContainerSpec) -> None:
    if spec.hostname and not _HOSTNAME.fullmatch(spec.hostname):
        raise SpecError("hostname", f"{spec.hostname!r} is not 1 to 64 letters, digits, '.', '-', '_'")
    check_hosts(spec.hosts)
    check_dns(spec.dns)
    if len(spec.labels) > MAX_LABELS:
        raise SpecError("labels", f"has {len(spec.labels)} entries, at most {MAX_LABELS} are taken")
    for name, value in spec.sysctls.items():
        if not _NET_SYSCTL.fullmatch(name) or ".." in name or "/../" in name:
            raise SpecError(
                "sysctls", f"{name!r}: only net.* belongs to a container's network and can be set"
            )
        if spec.netns is None:
            raise SpecError(
                "sysctls", f"{name!r} would change the host: the container has no network of its own"
            )
        check_text(f"sysctls.{name}", value)


def check_hosts(lines: tuple[str, ...]) -> None:
    """Each line is one address and its names; SpecError names the line."""
    if len(lines) > MAX_HOSTS:
        raise SpecError("hosts", f"has {len(lines)} lines, at most {MAX_HOSTS} are taken")
    for number, line in enumerate(lines):
        words = line.split()
        if "\n" in line or "\0" in line or len(words) < 2:
            raise SpecError(f"hosts[{number}]", f"{line!r} is not an address and its names on one line")
        _check_address(f"hosts[{number}]", words[0])


def check_dns(dns: Dns) -> None:
    if len(dns.nameservers) > MAX_NAMESERVERS:
        raise SpecError(
            "dns.nameservers", f"has {len(dns.nameservers)} entries, at most {MAX_NAMESERVERS} are taken"
        )
    for number, server in enumerate(dns.nameservers):
        _check_address(f"dns.nameservers[{number}]", server)
    for field, words in (("dns.search", dns.search), ("dns.options", dns.options)):
        for word in words:
            if not word or not word.isprintable() or " " in word:
                raise SpecError(field, f"{word!r} is not one word")


def _check_address(field: str, text: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise SpecError(field, f"{text!r} is not an IP address") from None


def _check_behaviour(spec: ContainerSpec) -> None:
    if not _RESTART.fullmatch(spec.restart):
        raise SpecError("restart", f"{spec.restart!r} is none of no, on-failure[:N], always, unless-stopped")
    if spec.restart_policy[1] > MAX_RESTARTS:
        raise SpecError("restart", f"at most {MAX_RESTARTS} restarts")
    parse_signal(spec.stop_signal)
    if not 0 <= spec.stop_timeout_s <= MAX_STOP_TIMEOUT_S:
        raise SpecError(
            "stop_timeout_s", f"{spec.stop_timeout_s} is not within 0..{MAX_STOP_TIMEOUT_S:.0f} s"
        )
    if spec.health is not None:
        check_health(spec.health)
