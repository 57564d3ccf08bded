"""The underlay and the uplinks, in namespaces of the lab's own. Each command's error is told in the command's words."""

import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from sealane.lab.folder import LabError
from sealane.lab.namespaces import CLONE_NEWNET, Held, setns
from sealane.lab.plan import Plan
from sealane.lab.wiring import faults_ruleset, latency_commands, node_lines, underlay_lines

COMMAND_TIMEOUT_S = 60.0


def lay_out(plan: Plan, held: dict[str, Held]) -> None:
    """The calling process is in the underlay's namespace, which is empty. Raises LabError."""
    latencies = latency_commands(plan)
    if latencies:
        _check_netem(latencies)
    if plan.underlay == "routed":
        _write("/proc/sys/net/ipv4/ip_forward", "1")
        _write("/proc/sys/net/ipv6/conf/all/forwarding", "1")
    else:
        for family in ("iptables", "ip6tables", "arptables"):
            # Of this namespace alone (Linux 5.3); there are no such rules in it.
            with suppress(OSError):
                _write(f"/proc/sys/net/bridge/bridge-nf-call-{family}", "0")
    paths = {name: f"/proc/self/fd/{one.net}" for name, one in held.items()}
    nets = [one.net for one in held.values()]
    # Before the links: a packet that is to be lost passes at no time.
    run(["nft", "-f", "-"], faults_ruleset(plan))
    run(["ip", "-batch", "-"], _text(underlay_lines(plan, paths)), descriptors=nets)
    for node in plan.nodes:
        run(["ip", "-batch", "-"], _text(node_lines(node)), inside=held[node.name].net)
    for command in latencies:
        run(command)


def _check_netem(latencies: list[list[str]]) -> None:
    """On lo, where nothing passes yet."""
    trial = ["tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]
    try:
        run(trial)
    except LabError as error:
        of = ", ".join(command[4] for command in latencies)
        raise LabError(
            f"latency of {of}: the kernel has no netem (CONFIG_NET_SCH_NETEM): {error}",
            "remove latency from the lab file, or load the module sch_netem",
        ) from error
    run(["tc", "qdisc", "del", "dev", "lo", "root"])


def run(
    command: Sequence[str], text: str = "", *, descriptors: Sequence[int] = (), inside: int | None = None
) -> None:
    """`inside`: in the network namespace of that descriptor. Raises LabError."""
    enter = None if inside is None else partial(setns, inside, CLONE_NEWNET)
    try:
        done = subprocess.run(
            command, input=text.encode(), capture_output=True, check=False, pass_fds=descriptors,
            timeout=COMMAND_TIMEOUT_S, preexec_fn=enter,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise LabError(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).decode("utf-8", "replace").split())
        raise LabError(f"{' '.join(command)}: {said[:400]}")


def _text(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
