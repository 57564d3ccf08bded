"""What was measured on what: facts that a reader needs to judge a figure."""

import os
import platform
import subprocess
import time

from bench.peers import CNI_PATH, NETAVARK

_PACKAGES = (
    "netavark",
    "aardvark-dns",
    "containernetworking-plugins",
    "iptables",
    "iperf3",
    "dnsperf",
    "docker.io",
)


def facts() -> dict[str, str]:
    return {
        "kernel": platform.release(),
        "processor": f"{os.cpu_count()} × {_processor()}",
        "Python": platform.python_version(),
        "peers": ", ".join(f"{name} {version}" for name, version in _versions().items()),
        "load before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }


def missing_tools() -> list[str]:
    """Debian packages that a benchmark needs and that are not here."""
    needed = {
        NETAVARK: "netavark",
        f"{CNI_PATH}/bridge": "containernetworking-plugins",
        "/usr/lib/podman/aardvark-dns": "aardvark-dns",
        "/usr/sbin/iptables": "iptables",
        "/usr/sbin/nft": "nftables",
        "/usr/sbin/dockerd": "docker.io",
        "/usr/bin/busybox": "busybox-static",
        "/usr/bin/iperf3": "iperf3",
        "/usr/bin/dnsperf": "dnsperf",
    }
    return [package for path, package in needed.items() if not os.path.exists(path)]


def settle(spare: int, *, timeout_s: float = 60.0) -> None:
    """Wait until the kernel has taken down the namespaces of the benchmark before, down to `spare`: it does so in the
    background, holding locks that the next one needs."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        alive = namespaces_alive()
        if alive is None or alive <= spare:
            return
        time.sleep(0.2)


def namespaces_alive() -> int | None:
    """Network namespaces on the machine; None where the kernel does not tell."""
    try:
        with open("/proc/slabinfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("net_namespace "):
                    return int(line.split()[1])
    except OSError:
        return None
    return None


def _processor() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _versions() -> dict[str, str]:
    done = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${Version}\n", *_PACKAGES],
        capture_output=True,
        text=True,
        check=False,
    )
    return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
