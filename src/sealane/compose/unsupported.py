"""Keys of the compose specification that this engine does not have, each with its reason and what to do instead."""

from sealane.compose.cursor import Reasons

_REMOVE = "remove it"
_IMAGE = ("images are made by other tools", "write image: oci:PATH[:TAG] for one that is here")
_STORE = ("there is no store for it", "bind a file: ./file:/path:ro")
_DEVICES = ("no devices are passed in", _REMOVE)
_CGROUP = ("only cpus, mem_limit and pids_limit are", _REMOVE)
_NAMESPACE = ("only network namespaces are shared", _REMOVE)
_SECURITY = ("the process runs with the engine's own confinement", "use cap_add, cap_drop, user or read_only")

TOP_LEVEL: Reasons = {
    "volumes": ("there is no store of named volumes", "bind directories in the service: ./dir:/path"),
    "secrets": _STORE,
    "configs": _STORE,
    "include": ("one file is read", "put the services into this file"),
    "models": ("there are no models", _REMOVE),
}

SERVICE: Reasons = {
    "annotations": ("nothing reads them", "use labels"),
    "attach": ("output is always kept apart", _REMOVE),
    "blkio_config": _CGROUP,
    "build": _IMAGE,
    "cgroup": _CGROUP,
    "cgroup_parent": _CGROUP,
    "configs": _STORE,
    "cpu_count": _CGROUP,
    "cpu_percent": _CGROUP,
    "cpu_period": _CGROUP,
    "cpu_quota": _CGROUP,
    "cpu_rt_period": _CGROUP,
    "cpu_rt_runtime": _CGROUP,
    "cpu_shares": _CGROUP,
    "cpuset": _CGROUP,
    "credential_spec": ("it is for Windows", _REMOVE),
    "develop": _IMAGE,
    "device_cgroup_rules": _DEVICES,
    "devices": _DEVICES,
    "extends": ("one file is read", "use a YAML anchor and <<"),
    "external_links": ("links are superseded", "attach both to one network and use aliases"),
    "gpus": _DEVICES,
    "group_add": _SECURITY,
    "ipc": _NAMESPACE,
    "isolation": ("it is for Windows", _REMOVE),
    "label_file": ("one file is read", "use labels"),
    "links": ("links are superseded", "attach both to one network and use aliases"),
    "logging": ("output goes to the engine's own log", _REMOVE),
    "mem_reservation": _CGROUP,
    "mem_swappiness": _CGROUP,
    "memswap_limit": _CGROUP,
    "models": ("there are no models", _REMOVE),
    "oom_kill_disable": _CGROUP,
    "oom_score_adj": _CGROUP,
    "pid": _NAMESPACE,
    "platform": _IMAGE,
    "post_start": ("there are no lifecycle hooks", "start what is needed from the command"),
    "pre_stop": ("there are no lifecycle hooks", "handle the stop_signal in the process"),
    "profiles": ("all services of a file are started", "keep optional services in a file of their own"),
    "provider": ("there are no providers", _REMOVE),
    "pull_policy": _IMAGE,
    "pull_refresh_after": _IMAGE,
    "runtime": ("there is one runtime", _REMOVE),
    "secrets": _STORE,
    "security_opt": _SECURITY,
    "shm_size": _CGROUP,
    "storage_opt": _IMAGE,
    "ulimits": ("limits of a process are inherited", "use mem_limit or pids_limit"),
    "use_api_socket": ("there is no Docker API", _REMOVE),
    "uts": _NAMESPACE,
    "volumes_from": ("there is no store of volumes", "bind the same directory in both services"),
}

FALSE_ONLY: Reasons = {
    "privileged": (
        "a process with every right can undo its own network",
        "add the one right it needs with cap_add",
    ),
}
"""Keys that may be given as long as they ask for nothing."""
