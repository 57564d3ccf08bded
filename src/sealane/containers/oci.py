"""The OCI runtime's `config.json` for a ContainerSpec. Pure: what is true of this host is an argument.

Follows the OCI runtime specification 1.0.2, with Docker's defaults where they matter for safety.
"""

from __future__ import annotations

import msgspec

from sealane.containers.capabilities import effective_capabilities, parse_capability
from sealane.containers.frames import size_in
from sealane.containers.seccomp import seccomp_profile
from sealane.containers.spec import HOST_ROOTFS, Bind, ContainerSpec, Dns, Limits, Mount
from sealane.containers.users import User
from sealane.model.idmap import ID_BASE, ID_COUNT

Json = dict[str, object]

OCI_VERSION = "1.0.2"
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CPU_PERIOD_US = 100_000
INIT_TARGET = "/dev/init"
SHM_BYTES = 64 * 1024 * 1024

# moby daemon/pkg/oci/defaults.go: kernel state that is not namespaced.
MASKED_PATHS = (
    "/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
    "/sys/devices/virtual/powercap",
)  # fmt: skip
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


class HostFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What this process may do on this host."""

    in_user_namespace: bool
    cgroups: str
    """v1, v2, hybrid or none."""
    cgroup_path: str
    """The parent below each hierarchy's root; "" where this process may not make cgroups."""
    swap_limit: bool
    seccomp: bool
    machine: str

    @property
    def has_device_filter(self) -> bool:
        """Whether devices can be denied: that takes a control group of the container's own."""
        return bool(self.cgroup_path)


class Root(msgspec.Struct, frozen=True, kw_only=True):
    """The container's root folder as prepared by `rootfs.py`."""

    path: str
    read_only: bool
    mounts: tuple[Json, ...] = ()
    etc: dict[str, str] = {}
    """Files to lay over the root: target to source."""
    sources: dict[str, str] = {}
    """By target, where a bind's source is shown as the container is to see it (`stage.py`)."""
    files: frozenset[str] = frozenset()
    """Targets of the spec's binds whose source is a file, not a folder."""
    init: str = ""
    """A small init program on the host; "" if the container has none."""


def confined(spec: ContainerSpec, facts: HostFacts) -> ContainerSpec:
    """The spec with the rights that it can have here: Docker's CAP_MKNOD is no danger only behind a device filter."""
    if not can_open_devices(spec, facts) or makes_devices(spec):
        return spec
    return msgspec.structs.replace(spec, cap_drop=(*spec.cap_drop, "MKNOD"))


def can_open_devices(spec: ContainerSpec, facts: HostFacts) -> bool:
    """Whether CAP_MKNOD opens the host's devices. A user namespace's opens none (capabilities(7))."""
    return not (facts.has_device_filter or facts.in_user_namespace or spec.userns)


def makes_devices(spec: ContainerSpec) -> bool:
    """Whether it asks by name for the right to make device files."""
    added = {parse_capability(name, "cap_add") for name in spec.cap_add}
    return bool(added & {"ALL", "MKNOD"}) and "CAP_MKNOD" in effective_capabilities(
        spec.cap_add, spec.cap_drop
    )


def build_config(spec: ContainerSpec, user: User, root: Root, facts: HostFacts, early: bytes = b"") -> Json:
    """The whole configuration. Assumes a checked spec. `early`: what has come of its client already."""
    process = build_process(spec, user, command=_command(spec, root), has_terminal=spec.tty)
    process |= console_size(process, early)
    return {
        "ociVersion": OCI_VERSION,
        "process": process,
        "root": {"path": root.path, "readonly": root.read_only},
        "hostname": spec.effective_hostname,
        "mounts": _mounts(spec, root, facts),
        "linux": _linux(spec, facts),
    }


def build_process(
    spec: ContainerSpec,
    user: User,
    *,
    command: tuple[str, ...],
    env: dict[str, str] | None = None,
    working_dir: str | None = None,
    has_terminal: bool = False,
) -> Json:
    """The OCI `process` object; also what `exec` runs, with what it overrides."""
    variables = {"PATH": DEFAULT_PATH, "HOSTNAME": spec.effective_hostname, "HOME": user.home}
    variables |= {"TERM": "xterm"} if has_terminal else {}
    variables |= spec.env | (env or {})
    capabilities = list(effective_capabilities(spec.cap_add, spec.cap_drop))
    return {
        "terminal": has_terminal,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups)},
        "args": list(command),
        "env": [f"{name}={value}" for name, value in variables.items()],
        "cwd": working_dir or spec.working_dir,
        # No inheritable set: Docker's CVE-2022-24769.
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
        "noNewPrivileges": True,
    }


def console_size(process: Json, early: bytes) -> Json:
    """Of its terminal, if it has one, and its client has said how large it is."""
    size = size_in(early) if process["terminal"] else None
    return {} if size is None else {"consoleSize": {"height": size[0], "width": size[1]}}


def hosts_file(hostname: str, lines: tuple[str, ...]) -> bytes:
    fixed = (
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::\tip6-localnet",
        "ff02::1\tip6-allnodes",
        "ff02::2\tip6-allrouters",
    )
    own = () if any(hostname in line.split()[1:] for line in lines) else (f"127.0.1.1\t{hostname}",)
    return "".join(f"{line}\n" for line in (*fixed, *own, *lines)).encode()


def resolv_file(dns: Dns) -> bytes:
    lines = [f"nameserver {server}" for server in dns.nameservers]
    lines += [f"search {' '.join(dns.search)}"] if dns.search else []
    lines += [f"options {' '.join(dns.options)}"] if dns.options else []
    return "".join(f"{line}\n" for line in lines).encode()


def _command(spec: ContainerSpec, root: Root) -> tuple[str, ...]:
    return (INIT_TARGET, "--", *spec.command) if root.init else spec.command


def bind(source: str, target: str, *, read_only: bool, is_file: bool = False) -> Json:
    """`rro` sets read-only on every mount below as well (mount_setattr, Linux 5.12); `ro` would leave submounts.

    Device files in a folder open nothing (`rnodev`): which devices a container has is not for what lies in a folder to say.
    A file has none below, and crun 1.8 takes `rro` for folders only ("Not a directory").
    """
    recursive = ["rbind", "rprivate", "rro" if read_only else "rw", "rnodev"]
    options = ["bind", "rprivate", "ro" if read_only else "rw"] if is_file else recursive
    return {"destination": target, "source": source, "type": "bind", "options": options}


def tmpfs(target: str, size_bytes: int, mode: int, *flags: str) -> Json:
    options = ["nosuid", "nodev", *flags, f"mode={mode:o}", f"size={size_bytes}"]
    return {"destination": target, "source": "tmpfs", "type": "tmpfs", "options": options}


def _mounts(spec: ContainerSpec, root: Root, facts: HostFacts) -> list[Json]:
    # The root's own mounts come first: everything after lies inside them.
    mounts = [*root.mounts, *_kernel_mounts(facts)]
    if root.init:
        mounts.append(_bound(root, root.init, INIT_TARGET, read_only=True, is_file=True))
    mine = {mount.target for mount in spec.mounts}
    mounts += [
        _bound(root, source, target, read_only=etc_is_read_only(spec), is_file=True)
        for target, source in root.etc.items()
        if target not in mine
    ]
    # Parents before what lies in them, whatever the order they were written in.
    return mounts + [
        _user_mount(mount, root) for mount in sorted(spec.mounts, key=lambda each: each.target.count("/"))
    ]


def etc_is_read_only(spec: ContainerSpec) -> bool:
    return spec.rootfs == HOST_ROOTFS or spec.read_only


def _bound(root: Root, source: str, target: str, *, read_only: bool, is_file: bool) -> Json:
    place = root.sources.get(target)
    if place is None:
        return bind(source, target, read_only=read_only, is_file=is_file)
    # Where it is shown it is read-only already, and a file can be made so nowhere else.
    return bind(place, target, read_only=read_only and not is_file, is_file=is_file)


def _user_mount(mount: Mount, root: Root) -> Json:
    if isinstance(mount, Bind):
        is_file = mount.target in root.files
        return _bound(root, mount.source, mount.target, read_only=mount.read_only, is_file=is_file)
    return tmpfs(mount.target, mount.size_bytes, mount.mode)


def _kernel_mounts(facts: HostFacts) -> list[Json]:
    # No gid=5 for devpts in a user namespace: a gid that is not mapped there is EINVAL.
    pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
    pts += [] if facts.in_user_namespace else ["gid=5"]
    guarded = ["nosuid", "noexec", "nodev"]
    mounts: list[Json] = [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": guarded},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
         "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": pts},
        tmpfs("/dev/shm", SHM_BYTES, 0o1777, "noexec"),  # noqa: S108
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": guarded},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*guarded, "ro"]},
    ]  # fmt: skip
    if facts.cgroup_path:
        # Programs read their limits there. Left out where the container has no cgroup of its own to show.
        options = [*guarded, "relatime", "ro"]
        mounts.append(
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options}
        )
    return mounts


def _linux(spec: ContainerSpec, facts: HostFacts) -> Json:
    namespaces: list[Json] = [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")]
    if facts.cgroups != "none":
        namespaces.append({"type": "cgroup"})
    if spec.netns is not None:
        namespaces.append({"type": "network", "path": spec.netns})
    if spec.userns is not None:
        namespaces.append({"type": "user", "path": spec.userns})
    linux: Json = {
        "namespaces": namespaces,
        "rootfsPropagation": "rprivate",
        "maskedPaths": list(MASKED_PATHS),
        "readonlyPaths": list(READONLY_PATHS),
    }
    if spec.userns is not None:
        # runc 1.1 wants to be told what the namespace has already.
        ids = [{"containerID": 0, "hostID": ID_BASE, "size": ID_COUNT}]
        linux |= {"uidMappings": ids, "gidMappings": ids}
    if facts.cgroup_path:
        linux["cgroupsPath"] = f"{facts.cgroup_path}/{spec.id}"
        # Deny all devices; the runtime adds null, zero, full, random, urandom, tty, ptmx and the container's pts.
        denied = {"devices": [{"allow": False, "access": "rwm"}]}
        linux["resources"] = denied | _resources(spec.limits, facts)
    profile = (
        seccomp_profile(effective_capabilities(spec.cap_add, spec.cap_drop), facts.machine)
        if facts.seccomp
        else None
    )
    if profile is not None:
        linux["seccomp"] = profile
    return linux


def _resources(limits: Limits, facts: HostFacts) -> Json:
    resources: Json = {}
    if limits.memory_bytes is not None:
        memory: Json = {"limit": limits.memory_bytes}
        if facts.swap_limit:
            # memory and swap together: equal means no swap, so that the limit is the limit.
            memory["swap"] = limits.memory_bytes
        resources["memory"] = memory
    if limits.cpus is not None:
        resources["cpu"] = {"period": CPU_PERIOD_US, "quota": int(limits.cpus * CPU_PERIOD_US)}
    if limits.pids is not None:
        resources["pids"] = {"limit": limits.pids}
    return resources
