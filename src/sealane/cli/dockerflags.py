"""Docker's flags of `run` that this one does not have. Where a compose file has the same as a key, the reason is that
of the key; the hint is one for who types."""

from sealane.cli.unsupported import Reasons
from sealane.compose.unsupported import FALSE_ONLY, SERVICE

_LEAVE_OUT = "leave it out"


def _as_key(key: str, hint: str = _LEAVE_OUT) -> tuple[str, str]:
    reason, _ = SERVICE.get(key) or FALSE_ONLY[key]
    return reason, hint


_DEVICES = _as_key("devices")
_LIMITS = ("only --cpus, --memory and --pids-limit are", _LEAVE_OUT)
_CONFINED = _as_key("security_opt", "use --cap-add, --cap-drop, --user or --read-only")
_IMAGES = ("there are no registries", "`sealane image load --help` says which images there are")
_LOGGING = _as_key("logging", "see `sealane logs`")
_WINDOWS = _as_key("isolation")

RUN: Reasons = {
    "--annotation": _as_key("annotations", "use --label"),
    "-a/--attach": ("all of its output is shown", "send what is not wanted to /dev/null"),
    "--blkio-weight/--blkio-weight-device/--device-read-bps/--device-read-iops/--device-write-bps/--device-write-iops": _LIMITS,
    "--cgroup-parent/--cgroupns": _as_key("cgroup"),
    "--cidfile": ("no file is written", "give it a --name; `sealane inspect NAME` has its id"),
    "-c/--cpu-shares/--cpu-period/--cpu-quota/--cpu-rt-period/--cpu-rt-runtime/--cpuset-cpus/--cpuset-mems": _LIMITS,
    "--cpu-count/--cpu-percent/--io-maxbandwidth/--io-maxiops/--isolation": _WINDOWS,
    "--detach-keys": ("they are ^P ^Q", _LEAVE_OUT),
    "--device/--device-cgroup-rule": _DEVICES,
    "--disable-content-trust/--platform/--pull": _IMAGES,
    "--domainname": ("it is a part of the host's name", "write --hostname NAME.DOMAIN"),
    "--expose/-P/--publish-all": (
        "every port is open on the container's own networks, and none is published unasked",
        "publish each: `-p 8080:80`, or `-p 80` at any free port",
    ),
    "--gpus": _as_key("gpus"),
    "--group-add": _CONFINED,
    "--ipc": _as_key("ipc"),
    "--kernel-memory/--memory-reservation/--memory-swap/--memory-swappiness/--shm-size": _LIMITS,
    "--label-file": ("labels are read from no file", "use --label"),
    "--link": _as_key("links", "put both on one --network; names resolve there"),
    "--link-local-ip": ("the kernel makes those", "use --ip or --ip6"),
    "--log-driver/--log-opt": _LOGGING,
    "--mount": ("binds are written in one way", "use --volume SOURCE:TARGET[:ro] or --tmpfs TARGET"),
    "--no-healthcheck/--health-start-interval": ("there is no check but --health-cmd at --health-interval", _LEAVE_OUT),
    "--oom-kill-disable/--oom-score-adj": _LIMITS,
    "--pid": _as_key("pid"),
    "--privileged": _as_key("privileged", "add the one right it needs with --cap-add"),
    "-q/--quiet": ("there is nothing to leave out", _LEAVE_OUT),
    "--runtime": _as_key("runtime"),
    "--security-opt": _CONFINED,
    "--sig-proxy": ("signals are passed on", "use --detach"),
    "--storage-opt": ("there is one store of images", _LEAVE_OUT),
    "--ulimit": _as_key("ulimits", "use --memory or --pids-limit"),
    "--use-api-socket": _as_key("use_api_socket"),
    "--uts": _as_key("uts"),
    "--volume-driver": ("there is no store of named volumes", "bind a directory: --volume ./dir:/path"),
    "--volumes-from": _as_key("volumes_from", "bind the same directory in both with --volume"),
}  # fmt: skip
