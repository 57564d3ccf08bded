"""The peers, each used as its own users use it: a process a call, JSON on standard input (`reference/cnm.md` §5, CNI
SPEC §2). Every class lives on a host of its own (`bench.host`) and measures in seconds."""

import json
import os
import subprocess
import time
from typing import Any, Protocol

from bench.host import HostError, make_sandboxes

NETAVARK = "/usr/lib/podman/netavark"
CNI_PATH = "/usr/lib/cni"
PORT_FIRST = 10000
CALL_TIMEOUT_S = 30.0


class Contender(Protocol):
    """Something that attaches sandboxes to a network: number n with address n and host port PORT_FIRST + n."""

    def attach(self, number: int) -> float: ...

    def detach(self, number: int) -> float: ...


def call(argv: list[str], document: object, environment: dict[str, str] | None = None) -> tuple[float, Any]:
    """Seconds from before the process to its last byte of output, and that output."""
    text = json.dumps(document).encode()
    started = time.perf_counter()
    process = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    try:
        out, errors = process.communicate(text, timeout=CALL_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise
    took = time.perf_counter() - started
    if process.returncode != 0:
        raise HostError(f"{' '.join(argv)}: {(out + errors).decode(errors='replace')}")
    return took, json.loads(out) if out.strip() else None


class Netavark:
    """`netavark setup` and `teardown`, without DNS: its resolver would be a further process to start."""

    def __init__(self, sandboxes: int) -> None:
        self._paths = make_sandboxes(sandboxes)
        self._config = "/run/netavark"
        os.makedirs(self._config)

    def attach(self, number: int) -> float:
        took, answer = self._call("setup", number)
        if "eth0" not in answer["bench"]["interfaces"]:
            raise HostError(f"netavark: {answer}")
        return took

    def detach(self, number: int) -> float:
        return self._call("teardown", number)[0]

    def _call(self, verb: str, number: int) -> tuple[float, Any]:
        argv = [NETAVARK, "--config", self._config, "--rootless=false", verb, self._paths[number]]
        return call(argv, netavark_options(number))


def netavark_options(number: int) -> dict[str, Any]:
    container = f"{number:064x}"
    return {
        "container_id": container,
        "container_name": f"c{number}",
        "port_mappings": [
            {
                "host_ip": "",
                "container_port": 80,
                "host_port": PORT_FIRST + number,
                "range": 1,
                "protocol": "tcp",
            }
        ],
        "networks": {"bench": {"static_ips": [address_of("10.88", number)], "interface_name": "eth0"}},
        "network_info": {
            "bench": {
                "name": "bench",
                "id": "b" * 64,
                "driver": "bridge",
                "network_interface": "podman1",
                "subnets": [{"subnet": "10.88.0.0/16", "gateway": "10.88.0.1"}],
                "ipv6_enabled": False,
                "internal": False,
                "dns_enabled": False,
                "ipam_options": {"driver": "host-local"},
            }
        },
    }


class Cni:
    """`bridge` with `host-local`, then `portmap`: what a runtime makes of a list of these two."""

    def __init__(self, sandboxes: int) -> None:
        self._paths = make_sandboxes(sandboxes)
        self._results: dict[int, Any] = {}

    def attach(self, number: int) -> float:
        bridged, result = self._plugin("ADD", number, _cni_bridge())
        mapped, result = self._plugin("ADD", number, _cni_portmap(number, result))
        self._results[number] = result
        return bridged + mapped

    def detach(self, number: int) -> float:
        result = self._results.pop(number)
        mapped, _ = self._plugin("DEL", number, _cni_portmap(number, result))
        bridged, _ = self._plugin("DEL", number, {**_cni_bridge(), "prevResult": result})
        return mapped + bridged

    def _plugin(self, verb: str, number: int, config: dict[str, Any]) -> tuple[float, Any]:
        environment = {
            **os.environ,
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": f"c{number}",
            "CNI_NETNS": self._paths[number],
            "CNI_IFNAME": "eth0",
            "CNI_PATH": CNI_PATH,
        }
        return call([f"{CNI_PATH}/{config['type']}"], config, environment)


def _cni_bridge() -> dict[str, Any]:
    return {
        "cniVersion": "1.0.0",
        "name": "bench",
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": True,
        "ipam": {
            "type": "host-local",
            "dataDir": "/run/cni-ipam",
            "ranges": [[{"subnet": "10.89.0.0/16"}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }


def _cni_portmap(number: int, result: Any) -> dict[str, Any]:
    mapping = {"hostPort": PORT_FIRST + number, "containerPort": 80, "protocol": "tcp"}
    return {
        "cniVersion": "1.0.0",
        "name": "bench",
        "type": "portmap",
        "capabilities": {"portMappings": True},
        "runtimeConfig": {"portMappings": [mapping]},
        "prevResult": result,
    }


def address_of(prefix: str, number: int) -> str:
    """Number n's address in a /16: from .0.10 on."""
    return f"{prefix}.{(number + 10) // 256}.{(number + 10) % 256}"
